"""A `Query` as a filter of MongoDB that needs no second look, where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor, isfinite

from bson.int64 import Int64

from flask_chest.record import COLUMN_FILTERS, Bound, Condition, JSONValue, OneOf, Query
from flask_chest.stores._records import MAX_INTEGER, bindable
from flask_chest.stores.mongodb.documents import Document, encode_name
from flask_chest.stores.mongodb.query import condition

_WHOLE = ["long", "int"]
_MAX_STATUS_CLASS = MAX_INTEGER // 1_000


def deciding_condition(query: Query) -> Document | None:
    """Return the filter of exactly what *query* matches, or ``None`` where MongoDB cannot decide."""
    columns = [getattr(query, name) for name in COLUMN_FILTERS]
    if (
        any(value is not None and not (type(value) in (str, int) and bindable(value)) for value in columns)
        or abs(query.status_class or 0) > _MAX_STATUS_CLASS
        or (query.since_unix_nano or 0) > MAX_INTEGER
    ):
        return None
    expressions = list(_expressions(query))
    if not all(expressions):
        return None
    narrowed = condition(query, before=None)
    return {**narrowed, "$expr": {"$and": expressions}} if expressions else narrowed


def path_of(variable: str) -> str | None:
    """Return the expression for a variable, or ``None`` for a name that MongoDB does not take."""
    path = f"$variables.{encode_name(variable)}"
    return path if bindable(path) else None


def _expressions(query: Query) -> Iterator[Document | None]:
    for name, value in query.where.items():
        path = path_of(name)
        yield None if path is None else _equals(path, value)
    for name, asked in query.conditions:
        path = path_of(name)
        yield None if path is None else _holds(path, asked)


def _holds(path: str, asked: Condition) -> Document | None:
    if isinstance(asked, Bound):
        return _is_beyond(path, asked)
    if isinstance(asked, OneOf):
        equal = [_equals(path, value) for value in asked.values]
        return {"$or": [*equal, False]} if all(equal) else None
    return {"$ne": [{"$type": path}, "missing"]}


def _equals(path: str, value: JSONValue) -> Document | None:
    """Return the expression that holds for *value* alone; to MongoDB 1 is 1.0, and the order of keys matters."""
    kind = {"$type": path}
    if value is None:
        return {"$eq": [kind, "null"]}
    if isinstance(value, float):
        return {"$and": [{"$eq": [kind, "double"]}, {"$eq": [path, value]}]} if isfinite(value) else None
    if not bindable(value):
        return None
    if type(value) is int:
        return {"$and": [{"$in": [kind, _WHOLE]}, {"$eq": [path, Int64(value)]}]}
    return {"$eq": [path, {"$literal": value}]}


def _is_beyond(path: str, bound: Bound) -> Document | None:
    """Return the expression that compares exactly, whole numbers with doubles too."""
    kind, value, operator = {"$type": path}, bound.value, bound.operator
    if isinstance(value, str):
        text = {"$literal": value}
        is_beyond = {"$and": [{"$eq": [kind, "string"]}, {_OPERATORS[operator]: [path, text]}]}
        return is_beyond if bindable(value) else None
    whole = value
    if isinstance(value, float):
        whole = floor(value) if operator in ("gt", "le") else ceil(value)
    if not bindable(whole):
        return None
    double = float(value)
    rounded = _ROUNDED[operator][double > value] if double != value else operator
    return {
        "$or": [
            {"$and": [{"$in": [kind, _WHOLE]}, {_OPERATORS[operator]: [path, Int64(whole)]}]},
            {"$and": [{"$eq": [kind, "double"]}, {_OPERATORS[rounded]: [path, double]}]},
        ]
    }


_OPERATORS = {"gt": "$gt", "ge": "$gte", "lt": "$lt", "le": "$lte"}
_ROUNDED = {"gt": ("gt", "ge"), "ge": ("gt", "ge"), "lt": ("le", "lt"), "le": ("le", "lt")}
"""Operators for a bound that lies just below the whole number that was meant, and just above it."""
