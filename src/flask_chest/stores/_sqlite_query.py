"""A `Query` as SQLite's SQL: it narrows what `Query.matches` then decides."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import NoneType
from typing import TypeAlias

from flask_chest.record import COLUMN_FILTERS, Query, Record
from flask_chest.stores._sql import SQLValue, Tables, row_record
from flask_chest.stores._storable import MAX_INTEGER, MIN_INTEGER

CHUNK = 500
"""Records that are fetched at a time: no statement stays open while the caller looks at them."""


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL and the values of its question marks."""

    sql: str
    values: tuple[SQLValue, ...]


def find(
    lend: Callable[[], AbstractContextManager[sqlite3.Connection]], tables: Tables, query: Query
) -> Iterator[Record]:
    """Yield what matches *query*, with a connection lent for each chunk."""
    left = query.limit
    before: Record | None = None
    while left is None or left > 0:
        size = CHUNK if left is None or query.where else min(left, CHUNK)
        statement = chunk(tables, query, before=before, size=size)
        with lend() as connection:
            rows = connection.execute(statement.sql, statement.values).fetchall()
        for row in rows:
            before = row_record(row)
            if query.matches(before):
                yield before
                left = None if left is None else left - 1
                if left == 0:
                    return
        if len(rows) < size:
            return


def chunk(tables: Tables, query: Query, *, before: Record | None, size: int) -> Statement:
    """Ask for the next *size* candidates, in the order of the answer, that come after *before*."""
    conditions = [*_column_conditions(query), *_variable_conditions(query)]
    if before is not None:
        conditions.append(("(time_unix_nano, id) < (?, ?)", (before.time_unix_nano, before.id)))
    where = " AND ".join(sql for sql, _ in conditions) or "true"
    select = tables.sql("SELECT {columns} FROM {records} AS record WHERE ")
    values = (value for _, condition_values in conditions for value in condition_values)
    return Statement(f"{select}{where} ORDER BY time_unix_nano DESC, id DESC LIMIT ?", (*values, size))


def _column_conditions(query: Query) -> Iterator[_Condition]:
    for name in COLUMN_FILTERS:
        value = getattr(query, name)
        if value is not None and _bindable(value):
            yield f"{name} = ?", (value,)
    # Times beyond 64 bits, as the year 9999 is in nanoseconds, cannot be bound.
    since, until = query.since_unix_nano, query.until_unix_nano
    if since is not None:
        yield "time_unix_nano >= ?", (min(max(since, MIN_INTEGER), MAX_INTEGER),)
    if until is not None and until <= MAX_INTEGER:
        yield "time_unix_nano < ?", (max(until, MIN_INTEGER),)


def _variable_conditions(query: Query) -> Iterator[_Condition]:
    for name, value in query.where.items():
        if not _bindable(name) or "\0" in name:
            continue
        kind = "true" if value is True else "false" if value is False else _JSON_TYPES.get(type(value))
        if kind is None:
            yield f"{_HAS_VARIABLE})", (name,)
        elif isinstance(value, str | int) and _bindable(value) and not _has_nul(value):
            yield f"{_HAS_VARIABLE} AND type = ? AND atom = ?)", (name, kind, value)
        else:
            yield f"{_HAS_VARIABLE} AND type = ?)", (name, kind)


_Condition: TypeAlias = tuple[str, tuple[SQLValue, ...]]

_HAS_VARIABLE = "EXISTS (SELECT 1 FROM json_each(record.variables) WHERE key = ?"

_JSON_TYPES: dict[type, str] = {
    NoneType: "null",
    int: "integer",
    float: "real",
    str: "text",
    list: "array",
    dict: "object",
}


def _bindable(value: object) -> bool:
    """Tell whether SQLite takes *value*; what it does not take narrows nothing."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        return True
    return isinstance(value, int) and MIN_INTEGER <= value <= MAX_INTEGER


def _has_nul(value: object) -> bool:
    return isinstance(value, str) and "\0" in value  # SQLite's JSON functions end a text there
