"""What aggregates read of a document, as expressions of MongoDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from bson.int64 import Int64

from flask_chest.aggregates import HUNDRED, MAX_NUMBER, Column, Key, NoScalar, Number, Variable
from flask_chest.record import SERVER_ERROR
from flask_chest.stores._records import MAX_INTEGER, MIN_INTEGER
from flask_chest.stores.aggregates import LEAST_RATE, NANOSECONDS, WHOLE
from flask_chest.stores.mongodb.deciding import path_of
from flask_chest.stores.mongodb.documents import Document, decode_value

Expression: TypeAlias = "Document | str | int | float | None"

_RATE: Document = {"$max": [{"$ifNull": ["$sample_rate", 1.0]}, LEAST_RATE]}
WEIGHT: Document = {"$toLong": {"$floor": {"$add": [{"$divide": [float(WHOLE), _RATE]}, 0.5]}}}
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


def key_of(of: Column | Variable) -> Expression:
    """Return the key that a document has of *of*: of a variable with its type, as to MongoDB 1 is 1.0."""
    if isinstance(of, Variable):
        path = path_of(of.name)
        kind = {"$type": path}
        return {"t": kind, "v": {"$cond": [{"$in": [kind, list(_NO_SCALARS)]}, None, path]}}
    if of == "status_class":
        return {"$toLong": {"$floor": {"$divide": ["$status_code", HUNDRED]}}}
    return f"${of}"


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
    if not isinstance(of, Variable):
        return {"$divide": ["$duration_ns", NANOSECONDS]}
    path = path_of(of.name)
    counts = {"$and": [{"$isNumber": path}, {"$gte": [path, -MAX_NUMBER]}, {"$lte": [path, MAX_NUMBER]}]}
    return {"$cond": [counts, {"$toDouble": path}, None]}


def is_left_out(of: Variable) -> Document:
    """Return whether *of* is a number that measures do not count."""
    path = path_of(of.name)
    is_beyond = {"$or": [{"$lt": [path, -MAX_NUMBER]}, {"$gt": [path, MAX_NUMBER]}]}
    return {"$and": [{"$isNumber": path}, is_beyond]}


def step_of(value: str, bounds: Sequence[int | float]) -> Expression:
    """Return how many of the increasing *bounds* do not exceed *value*, found by halves."""
    return _step_of(value, [_bound(each) for each in bounds], 0)


def span_of(bounds: Sequence[int]) -> Expression:
    """Return the number of the span of time of a record, the first one 1; 0 if it is in none."""
    step = step_of("$time_unix_nano", bounds)
    return {"$mod": [step, len(bounds)]}  # what comes after the last bound is in none either


def _step_of(value: str, bounds: Sequence[float], before: int) -> Expression:
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


def _bound(value: float) -> float:
    # Beyond 64 bits everything is on one side.
    return Int64(value) if type(value) is int and MIN_INTEGER <= value <= MAX_INTEGER else float(value)
