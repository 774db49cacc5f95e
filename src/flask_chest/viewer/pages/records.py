"""``/records``: the records that match, newest first."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from flask_chest.aggregates import Column as KeyColumn
from flask_chest.aggregates import Key, NoScalar, Variable
from flask_chest.errors import ConfigurationError
from flask_chest.extension.record_text import fields_of
from flask_chest.record import JSONValue, Record
from flask_chest.viewer._asking import Ask, Parameter
from flask_chest.viewer._filters import Filters, shell_command
from flask_chest.viewer._shown import key_text, narrowed

PAGE_SIZE = 50
PERIODS = ("15m", "1h", "6h", "24h", "7d", "30d")


FACET_RECORDS = 500
"""Newest records of which the values are counted, so that no count takes long."""
FACET_VALUES = 6


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value that several of the newest records have."""

    text: str
    records: int
    link: str
    """Address of the records that have it."""


@dataclass(frozen=True, slots=True)
class Facet:
    """By what the records can be narrowed further, the most frequent values first."""

    name: str
    values: Sequence[FacetValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What pages have that show the records of a query, some at a time."""

    filters: Filters
    limit: int
    """Number of records on a page."""
    older: str | None
    """Address of the next page."""
    is_first: bool
    periods: Sequence[str] = PERIODS
    """Spans of time to choose from."""

    @property
    def command(self) -> str:
        """The command that asks the same."""
        return shell_command("flask", "chest", "query", *self.filters.options(), "--limit", str(self.limit))

    @property
    def python(self) -> str:
        """The call of Python that asks the same."""
        return f"chest.query({', '.join([*self.filters.arguments(), f'limit={self.limit}'])})"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsPage(Listing):
    """One page of the records."""

    records: list[Record]
    facets: Sequence[Facet]
    counted: int
    """Number of records of which the facets were counted."""
    template: str = "records.html"

    def as_json(self) -> object:
        """Return the records, and where the next ones are."""
        facets = {
            facet.name: [{"value": each.text, "records": each.records} for each in facet.values]
            for facet in self.facets
        }
        return {
            "records": [fields_of(record) for record in self.records],
            "older": self.older,
            "facets": {"of_the_newest": self.counted, **facets},
        }


def show(ask: Ask) -> RecordsPage:
    """Ask for a page of records."""
    filters = Filters.read(ask.given)
    before = read_cursor(ask.given)
    ask.given.check_taken()
    records, more = ask.page_of_records(filters.query, before=before, size=PAGE_SIZE)
    newest = records
    if more and before is None:
        counted = msgspec.structs.replace(filters.query, limit=FACET_RECORDS)
        newest = ask.within_limit(lambda: list(ask.records(counted))) or records
    facets = _facets(ask, filters, newest) if before is None else []
    return RecordsPage(
        filters=filters,
        limit=PAGE_SIZE,
        records=records,
        older=ask.links.to("records", filters.with_(before=cursor_of(records[-1]))) if more else None,
        is_first=before is None,
        facets=facets,
        counted=len(newest),
    )


def _facets(ask: Ask, filters: Filters, records: Sequence[Record]) -> list[Facet]:
    """Count what else *records* have in common; what all of them have tells nothing."""
    keys: list[tuple[KeyColumn | Variable, list[Key]]] = [
        ("route", [each.route for each in records]),
        ("method", [each.method for each in records]),
        ("status_code", [each.status_code for each in records]),
        ("error", [each.error for each in records if each.error is not None]),
    ]
    keys += (
        (Variable(name), [_scalar(each.variables[name]) for each in records if name in each.variables])
        for name in ask.breakdowns
    )
    facets: list[Facet] = []
    for by, values in keys:
        counted = Counter((type(value), value) for value in values).most_common(FACET_VALUES)
        found = [
            FacetValue(key_text(value), count, ask.links.to("records", only.parameters))
            for (_, value), count in counted
            if (only := narrowed(filters, by, value)) is not None
        ]
        if len(found) > 1 and counted[0][1] > 1:
            facets.append(Facet(by.name if isinstance(by, Variable) else by.removesuffix("_code"), found))
    return facets


def _scalar(value: JSONValue) -> Key:
    return NoScalar.LIST if isinstance(value, list) else NoScalar.OBJECT if isinstance(value, Mapping) else value


def cursor_of(record: Record) -> str:
    """Write where a page ends, for the address of the next one."""
    return f"{record.time_unix_nano}-{record.id}"


def read_cursor(given: Parameter) -> tuple[int, str] | None:
    """Take the time and id after which a page begins; ``None`` for the first one."""
    text = given.one("before")
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,20})-(.+)", text, re.ASCII)
    if found is None:
        raise ConfigurationError("before must be the time and the id of a record, as the page itself writes it")
    return int(found[1]), found[2]
