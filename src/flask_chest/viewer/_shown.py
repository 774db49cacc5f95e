"""Measures as the pages show them: their names, their values with units, and records by the keys of groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flask_chest.aggregates import (
    Bin,
    Column,
    Count,
    Distinct,
    ErrorRate,
    Key,
    Measure,
    NoScalar,
    Row,
    Variable,
)
from flask_chest.viewer._filters import MAX_FILTERS, Filters
from flask_chest.viewer._format import duration, number, percent, trimmed, value_text

NOTHING = "\N{EN DASH}"
_FILTERED = frozenset({"route", "method", "error", "request_id", "trace_id"})


def seconds(value: float | None) -> str:
    """Write a number of seconds."""
    return NOTHING if value is None else duration(value * 1e9)


def amount(value: float | None) -> str:
    """Write a number; one without a fraction without a point."""
    return NOTHING if value is None else number(int(value) if value == int(value) else value)


def rate(value: float | None) -> str:
    """Write a share of 1."""
    return NOTHING if value is None else percent(value)


@dataclass(frozen=True, slots=True)
class Written:
    """Writes the values of a *measure*; *units* has those of variables."""

    measure: Measure[object]
    units: Mapping[str, str]

    def __call__(self, value: float | None) -> str:
        """Write *value* with its unit."""
        of: object = getattr(self.measure, "of", None)
        if isinstance(self.measure, ErrorRate):
            return rate(value)
        if isinstance(self.measure, Count | Distinct) or value is None:
            return amount(value)
        if of == "duration":
            return seconds(value)
        unit = self.units.get(of.name, "") if isinstance(of, Variable) else ""
        return f"{amount(value)} {unit.strip('{}')}".rstrip()


def key_text(key: Key) -> str:
    """Write the key of a group."""
    if isinstance(key, NoScalar):
        return "absent" if key is NoScalar.ABSENT else f"a {key.value}"
    return value_text(key)


def bin_label(found: Bin, edge: Callable[[float | None], str]) -> str:
    """Return where a bin of a histogram lies, as its label; *edge* writes a bound with its unit."""
    if found.lower is None:
        return f"under {trimmed(edge(found.upper))}" if found.upper is not None else "all"
    return f"from {trimmed(edge(found.lower))}"


def narrowed(filters: Filters, by: Column | Variable, key: Key) -> Filters | None:
    """Return the *filters* that also ask for the records of a group; ``None`` where none can."""
    found: Filters | None = None
    if isinstance(by, Variable):
        found = None if isinstance(key, NoScalar) else filters.and_where(by.name, key)
    elif by == "status_code":
        found = filters.changed(status=str(key))
    elif by == "status_class":
        found = filters.changed(status=f"{key}xx")
    elif by in _FILTERED and isinstance(key, str):
        found = filters.changed(**{by: key})
    return found if found is not None and len(found.chips) <= MAX_FILTERS else None


def json_key(key: Key) -> object:
    """Return *key* as JSON shows it."""
    return {"kind": key.value} if isinstance(key, NoScalar) else key


def json_row(row: Row) -> dict[str, object]:
    """Return the number of records of *row* and its values by the labels of their columns."""
    values = {label: value for measure, each in row.values.items() for label, value in measure.columns(each)}
    return {"records": row.records, **values}
