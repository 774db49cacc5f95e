"""A `Query` as conditions of ClickHouse, which say of themselves whether they decide what is meant.

The value of each variable is the text that our encoder wrote, and that of an absent one is empty. So equal
scalars have equal texts, and whoever asks for one asks for its text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, floor, isfinite
from types import MappingProxyType
from typing import TypeGuard

from flask_chest.record import COLUMN_FILTERS, Bound, Condition, JSONValue, OneOf, Query, encode_value
from flask_chest.stores._records import MAX_INTEGER, MIN_INTEGER, is_integer, is_text
from flask_chest.stores.clickhouse.columns import in_map
from flask_chest.stores.clickhouse.text import listed, literal, quoted

NOTHING = "0"
"""Condition that no record meets."""
IS_ERROR = "(error IS NOT NULL OR status_code >= 500)"
"""Condition of `Record.is_error`; the number is `SERVER_ERROR`."""

NO_COLUMNS: Mapping[str, str] = MappingProxyType({})

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_ROUNDED = {"gt": ("gt", "ge"), "ge": ("gt", "ge"), "lt": ("le", "lt"), "le": ("le", "lt")}
"""Operators for a double that lies just below the whole number that was meant, and just above it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One condition in SQL."""

    sql: str
    decides: bool = True
    """Whether it is met by the records that are meant alone; otherwise `Query.matches` looks at the others."""


def conditions_of(query: Query, columns: Mapping[str, str] = NO_COLUMNS) -> list[Asked]:
    """Return the conditions that all records meet which *query* means; *columns* are those of variables."""
    return [*_of_columns(query), *_of_variables(query, columns)]


def variable(name: str, columns: Mapping[str, str]) -> str:
    """Return the SQL of the variable *name* as JSON, which is empty where there is none."""
    if not is_text(name):
        return "''"
    return quoted(columns[name]) if name in columns else in_map(name)


def _of_columns(query: Query) -> Iterator[Asked]:
    for name in COLUMN_FILTERS:
        value = getattr(query, name)
        if value is not None:
            sendable = is_text(value) if isinstance(value, str) else is_integer(value)
            yield Asked(f"{name} = {literal(value)}" if sendable else NOTHING)
    if query.status_class is not None:
        first, last = query.status_class * 100, query.status_class * 100 + 99
        within = f"status_code BETWEEN {max(first, MIN_INTEGER)} AND {min(last, MAX_INTEGER)}"
        yield Asked(within if first <= MAX_INTEGER and last >= MIN_INTEGER else NOTHING)
    if query.errors:
        yield Asked(IS_ERROR)
    since, until = query.since_unix_nano, query.until_unix_nano
    if since is not None and since > MIN_INTEGER:
        yield Asked(f"time_unix_nano >= {since}" if since <= MAX_INTEGER else NOTHING)
    if until is not None and until <= MAX_INTEGER:
        yield Asked(f"time_unix_nano < {until}" if until > MIN_INTEGER else NOTHING)


def _of_variables(query: Query, columns: Mapping[str, str]) -> Iterator[Asked]:
    for name, value in query.where.items():
        yield _holds(variable(name, columns), OneOf((value,)))
    for name, asked in query.conditions:
        yield _holds(variable(name, columns), asked)


def _holds(found: str, asked: Condition) -> Asked:
    match asked:
        case OneOf():
            return _one_of(found, asked)
        case Bound():
            return _bound(found, asked)
        case _:
            return Asked(f"{found} != ''")


def _one_of(found: str, asked: OneOf) -> Asked:
    texts = [text for value in asked.values for text in _written(value)]
    # The order of an object's names does not matter, so lists and objects are only told by how they begin.
    begins = sorted({"[" if isinstance(value, list) else "{" for value in asked.values if _is_container(value)})
    either = (
        [f"{found} IN ({listed(texts)})"] if len(texts) > 1 else [f"{found} = {literal(each)}" for each in texts]
    )
    either += [f"startsWith({found}, '{begin}')" for begin in begins]
    return Asked(f"({' OR '.join(either)})" if either else NOTHING, decides=not begins)


def _is_container(value: JSONValue) -> TypeGuard[list[JSONValue] | dict[str, JSONValue]]:
    return isinstance(value, list | dict)


def _written(value: JSONValue) -> list[str]:
    """Return the texts of a scalar: of zero there are two, and of what no record can hold none."""
    if _is_container(value):
        return []
    if isinstance(value, float):
        if not isfinite(value):
            return []
        return ["0.0", "-0.0"] if value == 0 else [encode_value(value)]
    if isinstance(value, str):
        return [encode_value(value)] if is_text(value) else []
    if isinstance(value, int) and not is_integer(value):
        return []
    return [encode_value(value)]


def _bound(found: str, asked: Bound) -> Asked:
    value = asked.value
    if isinstance(value, str):
        is_of_text = f"startsWith({found}, '\"')"
        if not is_text(value):
            return Asked(is_of_text, decides=False)
        sign = _SIGNS[asked.operator]
        return Asked(f"({is_of_text} AND JSONExtractString({found}) {sign} {literal(value)})")
    return Asked(f"ifNull({_whole_bound(found, asked, value)}, {_double_bound(found, asked, value)})")


def _whole_bound(found: str, asked: Bound, value: float) -> str:
    """Return the condition on whole numbers: NULL for all else."""
    whole = floor(value) if asked.operator in {"gt", "le"} else ceil(value)
    number, sign = f"toInt64OrNull({found})", _SIGNS[asked.operator]
    if is_integer(whole):
        return f"{number} {sign} {whole}"
    is_met = (whole < 0) == (asked.operator in {"gt", "ge"})
    return f"({number} IS NULL ? NULL : {int(is_met)})"


def _double_bound(found: str, asked: Bound, value: float) -> str:
    """Return the condition on doubles: NULL for what is no number."""
    try:
        double = float(value)
    except OverflowError:  # beyond all of them
        is_met = (value < 0) == (asked.operator in {"gt", "ge"})
        return f"(toFloat64OrNull({found}) IS NULL ? NULL : {int(is_met)})"
    operator = asked.operator if double == value else _ROUNDED[asked.operator][double > value]
    return f"toFloat64OrNull({found}) {_SIGNS[operator]} {double!r}"
