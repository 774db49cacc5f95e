"""What aggregates read of a document, as expressions of MongoDB."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import floor
from typing import Any, TypeAlias, cast

from bson.int64 import Int64

from flask_chest.aggregates import (
    HUNDRED,
    MAX_NUMBER,
    AggregateQuery,
    Column,
    Key,
    NoScalar,
    Number,
    Variable,
)
from flask_chest.record import SERVER_ERROR
from flask_chest.stores._records import MAX_INTEGER, MIN_INTEGER
from flask_chest.stores.aggregates import LEAST_RATE, NANOSECONDS, WHOLE
from flask_chest.stores.mongodb.deciding import path_of
from flask_chest.stores.mongodb.documents import Document, decode_value, encode_name

Expression: TypeAlias = "Document | str | int | float | None"

RATE = "$sample_rate"
UNWEIGHTED: Document = {"$literal": Int64(WHOLE)}
IS_ERROR: Document = {"$or": [{"$gt": ["$error", None]}, {"$gte": ["$status_code", SERVER_ERROR]}]}

_KINDS = ["missing", "null", "bool", "number", "string", "array", "object"]
"""Types of keys, in the order in which groups come among equals."""
_NO_SCALARS: Mapping[str, NoScalar] = {
    "missing": NoScalar.ABSENT,
    "array": NoScalar.LIST,
    "object": NoScalar.OBJECT,
}
_NUMBERS = ["long", "int", "double"]
_AFTER_DIGITS = "~"
_MOST_STEPS = 10_000
"""Spans of equal width, in any time that is asked for, up to which they are computed and not searched for."""
_EXACT_NANOSECONDS = 2**53
"""Times that are no further apart can be subtracted and divided as doubles."""
_PLATEAU = 4_096
"""More nanoseconds than any that are equal as doubles of seconds."""


def weight_of(rate: str) -> Document:
    """Return the weight of a record with the sample *rate*, a path."""
    at_least = {"$max": [{"$ifNull": [rate, 1.0]}, LEAST_RATE]}
    return {"$toLong": {"$floor": {"$add": [{"$divide": [float(WHOLE), at_least]}, 0.5]}}}


def raw_key_of(of: Column | Variable) -> Expression:
    """Return what tells the keys of documents apart, and perhaps more: `key_of` makes the key of it.

    Of a variable it has the type, as to MongoDB 1 is 1.0.
    """
    if isinstance(of, Variable):
        path = path_of(of.name)
        return {"t": {"$type": path}, "v": path}
    return "$status_code" if of == "status_class" else f"${of}"


def key_of(of: Column | Variable, raw: str | None = None) -> Expression:
    """Return the key of *of*: that of a document, or that of the *raw* one at a path."""
    if isinstance(of, Variable):
        kind, value = ({"$type": path_of(of.name)}, path_of(of.name)) if raw is None else (f"{raw}.t", f"{raw}.v")
        return {"t": kind, "v": {"$cond": [{"$in": [kind, list(_NO_SCALARS)]}, None, value]}}
    if of == "status_class":
        return {"$toLong": {"$floor": {"$divide": [raw or "$status_code", HUNDRED]}}}
    return raw or f"${of}"


def key_from(of: Column | Variable, found: object) -> Key:
    """Return the key that the database *found*."""
    if not isinstance(of, Variable):
        return cast("Key", decode_value(found))
    typed = cast("Mapping[str, Any]", found)
    if typed["t"] in _NO_SCALARS:
        return _NO_SCALARS[typed["t"]]
    value: Key = decode_value(typed.get("v"))
    return value + 0.0 if isinstance(value, float) else value  # -0.0 is 0.0


def is_there(of: Column | Variable, key: str) -> Document:
    """Return whether the *key* of *of*, a path, is that of a value: a column lacks one where it is null."""
    return {"$ne": [f"{key}.t", "missing"]} if isinstance(of, Variable) else {"$gt": [key, None]}


def place_in_order(value: Expression, by: Sequence[Column | Variable], keys: str) -> Document:
    """Return what sorts groups by *value*, the greatest first, and then by the *keys*, a path.

    It is one document, which is compared field by field: a window takes a single field to sort by.
    """
    order: Document = {"none": {"$cond": [{"$eq": [value, None]}, 1, 0]}, "value": {"$multiply": [value, -1]}}
    for at, of in enumerate(by):
        path = f"{keys}.k{at}"
        if isinstance(of, Variable):
            kind, scalar = f"{path}.t", f"{path}.v"
            is_number = {"$in": [kind, _NUMBERS]}
            order[f"kind{at}"] = {"$indexOfArray": [_KINDS, {"$cond": [is_number, "number", kind]}]}
            order[f"key{at}"] = {"$cond": [is_number, {"$toDouble": scalar}, scalar]}
            text = {"$cond": [{"$eq": [kind, "double"]}, _AFTER_DIGITS, {"$toString": scalar}]}
            order[f"text{at}"] = {"$cond": [is_number, text, None]}
        else:
            order[f"key{at}"] = path
    return order


def number_of(of: Number) -> Expression:
    """Return the number that measures count of *of*, or null."""
    return {"$cond": [is_number(of), double_of(of), None]} if isinstance(of, Variable) else double_of(of)


def double_of(of: Number) -> Document:
    """Return the number of a document that has one."""
    if isinstance(of, Variable):
        return {"$toDouble": path_of(of.name)}
    return {"$divide": ["$duration_ns", NANOSECONDS]}


def is_number(of: Variable) -> Document:
    """Return whether *of* is a number that measures count: between two numbers there is no other type."""
    path = path_of(of.name)
    return {"$and": [{"$gte": [path, -MAX_NUMBER]}, {"$lte": [path, MAX_NUMBER]}]}


def is_left_out(of: Variable) -> Document:
    """Return whether *of* is a number that measures do not count."""
    path = path_of(of.name)
    is_beyond = {"$or": [{"$lt": [path, -MAX_NUMBER]}, {"$gt": [path, MAX_NUMBER]}]}
    return {"$and": [is_beyond, {"$isNumber": path}]}  # it rarely is beyond, so this is asked first


def numbers_alone(of: Number) -> Document:
    """Return the filter of the documents with a number that measures count."""
    if not isinstance(of, Variable):
        return {}
    # A filter looks into lists, too.
    return {
        f"variables.{encode_name(of.name)}": {"$gte": -MAX_NUMBER, "$lte": MAX_NUMBER, "$not": {"$type": "array"}}
    }


def bin_of(of: Number, bounds: Sequence[float]) -> Document:
    """Return the number of the bin of *of* between *bounds*, the first one 0, or -1 for what is no number."""
    if not isinstance(of, Variable):
        return _step_of("$duration_ns", [_nanoseconds(each) for each in bounds], 0)
    steps = _step_of("$$number", [float(each) for each in bounds], 0)
    bin_or_none = {"$cond": [{"$gt": ["$$number", None]}, steps, -1]}
    return {"$let": {"vars": {"number": number_of(of)}, "in": bin_or_none}}


def span_of(query: AggregateQuery) -> Expression:
    """Return the number of the span of time of a record, the first one 1; of another time any other number."""
    bounds, since, until = query.bounds, query.query.since_unix_nano, query.query.until_unix_nano
    first, width = bounds[0], bounds[1] - bounds[0]
    if (
        since is not None
        and until is not None
        and len({later - earlier for earlier, later in pairwise(bounds)}) == 1
        and max(abs(since - first), abs(until - first)) <= min(_EXACT_NANOSECONDS, width * _MOST_STEPS)
        and MIN_INTEGER <= first <= MAX_INTEGER
    ):
        # From 1970 nanoseconds are not exact as doubles.
        passed = {"$subtract": ["$time_unix_nano", Int64(first)]}
        return {"$add": [{"$floor": {"$divide": [passed, width]}}, 1]}
    return _step_of("$time_unix_nano", [_bound(each) for each in bounds], 0)


def _step_of(value: str, bounds: Sequence[float], before: int) -> Document:
    """Return how many of the increasing *bounds* do not exceed *value*, found by halves."""
    if not bounds:
        return {"$literal": before}
    middle = len(bounds) // 2
    return {
        "$cond": [
            {"$lt": [value, bounds[middle]]},
            _step_of(value, bounds[:middle], before),
            _step_of(value, bounds[middle + 1 :], before + middle + 1),
        ]
    }


def _nanoseconds(seconds: float) -> float:
    """Return the first whole number of nanoseconds that, as a double of seconds, does not lie below *seconds*."""
    nearly = seconds * NANOSECONDS
    if abs(nearly) >= MAX_INTEGER - _PLATEAU:
        return nearly
    near = range(floor(nearly) - _PLATEAU, floor(nearly) + _PLATEAU)
    return Int64(near[bisect_left(near, seconds, key=lambda each: each / NANOSECONDS)])


def _bound(value: int) -> float:
    # Beyond 64 bits everything is on one side.
    return Int64(value) if MIN_INTEGER <= value <= MAX_INTEGER else float(value)
