"""What the stores share to count and to sum up: what can be asked, and how equal values come together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf

import msgspec

from flask_chest.errors import ConfigurationError
from flask_chest.protocols import GroupBy, Summary, ValueCount, Variable
from flask_chest.record import JSONValue, Query, Record

LARGE = 1e200
"""Numbers from here on are summed up apart, as their sum may be more than the largest number."""
FRACTION = 2.0**-300
"""Factor of large numbers in sums; a power of two, so that it is exact."""

_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder().decode


def whole(query: Query) -> Query:
    """Take the limit off *query*."""
    return msgspec.structs.replace(query, limit=None)


def check_group(by: object) -> None:
    """Raise `ConfigurationError` unless *by* is what can be grouped by."""
    if by not in (None, "route") and not isinstance(by, Variable):
        raise ConfigurationError(f'by must be "route", Variable(name) or None, got {by!r}')


def seen(time_unix_nano: int, record_id: str) -> str:
    """Make a text that sorts as (time, id)."""
    return f"{time_unix_nano + (1 << 63):020d}{record_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some of the records of a group."""

    records: int
    seen: str
    """Time and id of the first record, as a text that sorts by them."""
    small: float = 0.0
    """Sum of the numbers that are not `LARGE`."""
    large: float = 0.0
    """Sum of the large numbers, each multiplied by `FRACTION`."""
    minimum: float = inf
    maximum: float = -inf

    def __add__(self, other: Part) -> Part:
        return Part(
            records=self.records + other.records,
            seen=min(self.seen, other.seen),
            small=self.small + other.small,
            large=self.large + other.large,
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
        )

    @property
    def mean(self) -> float:
        """The mean of the numbers, which rounding does not bring beyond the least and the greatest."""
        mean = self.small / self.records + self.large / self.records / FRACTION
        return min(max(mean, self.minimum), self.maximum)


def part_of(number: float, *, seen: str) -> Part:
    """Make the part that one record with *number* is."""
    is_large = abs(number) >= LARGE
    return Part(
        records=1,
        seen=seen,
        small=0.0 if is_large else number,
        large=number * FRACTION if is_large else 0.0,
        minimum=number,
        maximum=number,
    )


class Groups:
    """Groups of records, each known by a value; values that are equal but written differently are one."""

    def __init__(self) -> None:
        self._parts: dict[bytes, Part] = {}

    def add(self, value: JSONValue, part: Part) -> None:
        """Count *part* with the others that have this *value*."""
        key = _encode(_plain(value))
        known = self._parts.get(key)
        self._parts[key] = part if known is None else known + part

    def counts(self, limit: int) -> list[ValueCount]:
        """Return the largest groups, at most *limit*."""
        return [ValueCount(value=value, records=part.records) for value, part in self._sorted()[: max(0, limit)]]

    def summaries(self) -> list[Summary]:
        """Return a summary of the numbers in each group."""
        return [
            Summary(
                group=value,
                records=part.records,
                mean=part.mean,
                minimum=part.minimum,
                maximum=part.maximum,
            )
            for value, part in self._sorted()
        ]

    def _sorted(self) -> list[tuple[JSONValue, Part]]:
        groups = sorted(self._parts.items(), key=lambda item: (-item[1].records, item[1].seen))
        return [(_decode(key), part) for key, part in groups]


def count(records: Iterable[Record], variable: str, *, limit: int) -> list[ValueCount]:
    """Count the values of *variable* in *records* as `Statistics.top` does."""
    groups = Groups()
    for record in records:
        if variable in record.variables:
            part = Part(records=1, seen=seen(record.time_unix_nano, record.id))
            groups.add(record.variables[variable], part)
    return groups.counts(limit)


def sum_up(records: Iterable[Record], variable: str, *, by: GroupBy | None) -> list[Summary]:
    """Sum up the numbers of *variable* in *records* as `Statistics.summarise` does."""
    groups = Groups()
    for record in records:
        number = record.variables.get(variable)
        if not isinstance(number, int | float) or isinstance(number, bool):
            continue
        when = seen(record.time_unix_nano, record.id)
        if not isinstance(by, Variable):
            groups.add(None if by is None else record.route, part_of(float(number), seen=when))
        elif by.name in record.variables:
            groups.add(record.variables[by.name], part_of(float(number), seen=when))
    return groups.summaries()


def _plain(value: JSONValue) -> JSONValue:
    """Write the two zeros that are equal floats alike."""
    if isinstance(value, float):
        return value + 0.0
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value
