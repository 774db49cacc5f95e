"""What all stores need to know of records: which come back equal, as what rows, and which came twice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, product
from math import isfinite
from operator import attrgetter
from types import NoneType
from typing import Any, TypeAlias, TypeVar

import msgspec

from flask_chest.errors import RecordRefused
from flask_chest.record import JSONValue, Record, encode_variables

MIN_INTEGER, MAX_INTEGER = -(1 << 63), (1 << 63) - 1
MAX_REASON = 2_000
"""Characters that are kept of the reason why a record was set aside, or a delivery failed."""
MAX_DEPTH = 64
"""Levels of arrays and objects in a variable; databases read JSON nested a hundred times and no deeper."""

T = TypeVar("T")

logger = logging.getLogger("flask_chest.stores")

_TEXT: frozenset[type] = frozenset({str})
_INTEGER: frozenset[type] = frozenset({int})
_FLOAT: frozenset[type] = frozenset({float})
_ABSENT: frozenset[type] = frozenset({NoneType})

_TYPES: dict[str, frozenset[type]] = {
    "id": _TEXT,
    "request_id": _TEXT,
    "time_unix_nano": _INTEGER,
    "duration_ns": _INTEGER,
    "method": _TEXT,
    "route": _TEXT | _ABSENT,
    "endpoint": _TEXT | _ABSENT,
    "status_code": _INTEGER,
    "error": _TEXT | _ABSENT,
    "trace_id": _TEXT | _ABSENT,
    "span_id": _TEXT | _ABSENT,
    "trace_flags": _INTEGER | _ABSENT,
    "trace_remote": _ABSENT | {bool},
    "instance": _TEXT,
    "sample_rate": _FLOAT,
}

SCALARS: tuple[str, ...] = tuple(_TYPES)
"""A record's fields but its variables, in the order in which stores keep them."""

Scalars: TypeAlias = tuple[str | float | None, ...]
"""The values of the `SCALARS` of a record."""

scalars: Callable[[Record], Scalars] = attrgetter(*SCALARS)

_SIGNATURES = frozenset(product(*_TYPES.values()))
"""All that the types of a record's scalars together can be."""

_NEVER_AT_FAULT: frozenset[type] = frozenset({str, bool, NoneType})
"""Types whose values need no look; of a text that is at fault the encoder tells."""

_PLAIN = _NEVER_AT_FAULT | _INTEGER | _FLOAT

_encode = msgspec.json.Encoder().encode

Row: TypeAlias = tuple[str | float | None, ...]
"""The `SCALARS` of a record, then its variables as JSON."""


def storable_rows(records: Sequence[Record]) -> list[Row]:
    """Make the row of each of *records*.

    Raises `RecordRefused` with the reasons when some could not be given back equal: databases differ in what
    they silently change, so none of them is asked.
    """
    rows: list[Row] = []
    reasons: dict[str, str] = {}
    for record in records:
        try:
            values, variables = _checked(record)
            _encode(values)  # as the encoder of variables does, it tells of a lone surrogate
            rows.append((*values, encode_variables(variables)))
        except UnicodeEncodeError:
            reasons[record.id] = "one of its texts holds a lone surrogate"
        except ValueError as exc:
            reasons[record.id] = str(exc)
    if reasons:
        raise RecordRefused(f"{len(reasons)} of {len(records)} records cannot be kept as they are", reasons)
    return rows


def storable_columns(
    records: Sequence[Record],
) -> tuple[Sequence[Sequence[Any]], Sequence[Mapping[str, JSONValue]]]:
    """Return the columns of the `SCALARS` of *records*, and the variables of each.

    Raises `RecordRefused` as `storable_rows` does, but for texts, which are left to whoever encodes them. What is
    plainly in order is seen for all of *records* at once, which takes a quarter of the time.
    """
    # No row is made on the way: to make thousands of tuples wakes the garbage collector again and again.
    columns = [list(map(get, records)) for get in map(attrgetter, SCALARS)]
    variables = [record.variables for record in records]
    if not (_are_in_order(columns) and _can_all_be_kept(variables)):
        storable_rows(records)  # says which of them cannot
    return columns, variables


def _are_in_order(columns: Sequence[Sequence[Any]]) -> bool:
    if not all(
        kinds.issuperset(map(type, column)) for kinds, column in zip(_TYPES.values(), columns, strict=True)
    ):
        return False
    by_name = dict(zip(SCALARS, columns, strict=True))
    flags = [value for value in by_name["trace_flags"] if value is not None]
    integers = (*(by_name[name] for name in ("time_unix_nano", "duration_ns", "status_code")), flags)
    return all(map(_fit, integers)) and all(0 < rate <= 1 for rate in set(by_name["sample_rate"]))


def _can_all_be_kept(variables: Sequence[Mapping[str, JSONValue]]) -> bool:
    if not _TEXT.issuperset(map(type, chain.from_iterable(variables))):
        return False
    held = [value for each in variables for value in each.values()]
    integers = [value for value in held if type(value) is int]
    floats = [value for value in held if type(value) is float]
    others = [value for value in held if type(value) not in _PLAIN]
    return _fit(integers) and all(map(isfinite, floats)) and not any(_fault(value, 0) for value in others)


def _fit(integers: Sequence[int]) -> bool:
    return not integers or (min(integers) >= MIN_INTEGER and max(integers) <= MAX_INTEGER)


def _checked(record: Record) -> tuple[Scalars, Mapping[str, JSONValue]]:
    # In every write: what is plainly in order must be seen to be in few steps.
    values = scalars(record)
    if tuple(map(type, values)) not in _SIGNATURES:
        raise ValueError(_wrong_type(record))
    if not (
        MIN_INTEGER <= record.time_unix_nano <= MAX_INTEGER
        and MIN_INTEGER <= record.duration_ns <= MAX_INTEGER
        and MIN_INTEGER <= record.status_code <= MAX_INTEGER
        and MIN_INTEGER <= (record.trace_flags or 0) <= MAX_INTEGER
    ):
        raise ValueError("one of its numbers is beyond 64 bits")
    if not 0 < record.sample_rate <= 1:
        raise ValueError("sample_rate is not above 0 and at most 1")
    variables = dict(record.variables)
    for name, variable in variables.items():
        if type(name) is not str:
            raise ValueError(f"a variable's name is of the type {type(name).__name__}")
        if type(variable) not in _NEVER_AT_FAULT and (fault := _fault(variable, 0)) is not None:
            raise ValueError(f"variable {name!r} holds {fault}")
    return values, variables


def _wrong_type(record: Record) -> str:
    return "; ".join(
        f"{name} is of the type {type(value).__name__}"
        for (name, kinds), value in zip(_TYPES.items(), scalars(record), strict=True)
        if type(value) not in kinds
    )


def _fault(value: object, depth: int) -> str | None:
    """Return what keeps *value* from being a `JSONValue`, without the value itself."""
    if type(value) in _NEVER_AT_FAULT:
        return None
    if type(value) is int:
        return None if MIN_INTEGER <= value <= MAX_INTEGER else "an integer beyond 64 bits"
    if type(value) is float:
        return None if isfinite(value) else "a float that is not finite"
    return _container_fault(value, depth + 1)


def _container_fault(value: object, depth: int) -> str | None:
    if depth > MAX_DEPTH:
        return f"values nested deeper than {MAX_DEPTH}"
    if type(value) is list:
        return _first(_fault(item, depth) for item in value)
    if type(value) is dict:
        return _first(_item_fault(name, item, depth) for name, item in value.items())
    return f"a {type(value).__name__}, which is not a JSON value"


def _item_fault(name: object, item: object, depth: int) -> str | None:
    return _fault(item, depth) if type(name) is str else f"a name of the type {type(name).__name__}"


def _first(faults: Iterable[str | None]) -> str | None:
    return next((fault for fault in faults if fault is not None), None)


class DuplicateIds:
    """Counts and logs the records of this process whose id was kept already with other content."""

    def __init__(self) -> None:
        self._counts: list[int] = []
        """One for each such write: to append needs no lock, which a forked child might find held."""

    @property
    def count(self) -> int:
        """Number of such records."""
        return sum(self._counts)

    def note(self, record_ids: Sequence[str]) -> None:
        """Count *record_ids*, and log each."""
        for record_id in record_ids:
            logger.warning("record %s came again with other content; what was kept first stays", record_id)
        if record_ids:
            self._counts.append(len(record_ids))


def in_chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield *items* in order, at most *size* at a time."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def storable_reason(reason: str) -> str:
    """Return a target's words as every database takes them: no NUL, no lone surrogate, at most `MAX_REASON`."""
    return reason[:MAX_REASON].encode(errors="replace").decode().replace("\0", "\ufffd")


def is_text(value: str) -> bool:
    """Return whether a database can hold *value*: it has no lone surrogate."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_integer(value: int) -> bool:
    """Return whether *value* is a whole number of 64 bits."""
    return MIN_INTEGER <= value <= MAX_INTEGER


def bindable(value: object) -> bool:
    """Return whether every database takes *value*; what it does not take narrows no search."""
    if isinstance(value, str):
        # At a NUL SQLite's JSON functions end a text, and PostgreSQL refuses it.
        return "\0" not in value and is_text(value)
    return isinstance(value, int) and is_integer(value)
