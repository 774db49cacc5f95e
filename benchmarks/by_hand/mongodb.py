"""The questions by hand on MongoDB, one pipeline each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any

from benchmarks.by_hand import HOUR, NUMBER, PLAN, Ask, Found, Question, Span
from bson.int64 import Int64
from pymongo import MongoClient

from flask_chest.aggregates import DURATION_BOUNDS

RATE = {"$max": [{"$ifNull": ["$sample_rate", 1.0]}, 1e-6]}
WEIGHT = {"$toLong": {"$floor": {"$add": [{"$divide": [1e6, RATE]}, 0.5]}}}
SECONDS = {"$divide": ["$duration_ns", 1e9]}
TOTAL = f"$variables.{NUMBER}"
ALL: dict[str, object] = {}
"""The key of all, which no document has: keys are texts."""


def hours(span: Span) -> list[Any]:
    # From the beginning of the span nanoseconds are exact in doubles, from 1970 they are not.
    since_then = {"$subtract": ["$time_unix_nano", Int64(span.since)]}
    return [{"$group": {"_id": {"$floor": {"$divide": [since_then, HOUR]}}, "v0": {"$sum": WEIGHT}}}]


def percentiles(_: Span) -> list[Any]:
    return [*ranked("$route", {"n": SECONDS}), {"$group": {"_id": "$key", **at(50, 95, 99)}}]


def numbers(_: Span) -> list[Any]:
    number = {"$cond": [{"$isNumber": TOTAL}, {"$toDouble": TOTAL}, None]}
    mean = {"sum": {"$sum": {"$multiply": ["$n", "$w"]}}, "weights": {"$sum": "$w"}}
    return [
        *ranked(f"$variables.{PLAN}", {"n": number, "w": WEIGHT}),
        {"$group": {"_id": "$key", **mean, **at(95)}},
        {"$project": {"v0": {"$divide": ["$sum", "$weights"]}, "v1": "$v0"}},
    ]


def histogram(_: Span) -> list[Any]:
    bins = {"groupBy": SECONDS, "boundaries": [-inf, *DURATION_BOUNDS, inf], "output": {"v0": {"$sum": WEIGHT}}}
    return [{"$bucket": bins}]


def ranked(key: str, read: Mapping[str, object]) -> list[Any]:
    """Number what is read of each key, and of all."""
    everything = {"documents": ["unbounded", "unbounded"]}
    return [
        {"$project": {"_id": 0, "key": [key, {"$literal": ALL}], **read}},
        {"$match": {"n": {"$ne": None}}},
        {"$unwind": "$key"},
        {
            "$setWindowFields": {
                "partitionBy": "$key",
                "sortBy": {"n": 1},
                "output": {"rank": {"$documentNumber": {}}, "total": {"$count": {}, "window": everything}},
            }
        },
    ]


def at(*ps: int) -> Mapping[str, object]:
    return {f"v{number}": {"$min": {"$cond": [is_there(p), "$n", None]}} for number, p in enumerate(ps)}


def is_there(p: int) -> Mapping[str, object]:
    return {"$gte": [{"$multiply": ["$rank", 100]}, {"$multiply": ["$total", p]}]}


PIPELINES = {
    "hours": hours,
    "day": hours,
    "percentiles": percentiles,
    "numbers": numbers,
    "histogram": histogram,
}


@contextmanager
def asking(uri: str, name: str) -> Iterator[Ask]:
    with MongoClient[Any](uri) as client:
        records = client.get_default_database()[name]

        def ask(question: Question, span: Span) -> Found:
            times = {"$gte": Int64(span.since), "$lt": Int64(span.until)}
            pipeline = [{"$match": {"time_unix_nano": times}}, *PIPELINES[question](span)]
            return found(question, list(records.aggregate(pipeline, allowDiskUse=True)))

        yield ask


def found(question: Question, rows: Sequence[Mapping[str, Any]]) -> Found:
    """Return the values of *rows*, which are in fields by their number, by key."""
    values: dict[Any, tuple[float, ...]] = {}
    for row in rows:
        key = None if row["_id"] == ALL else row["_id"]
        values[key] = tuple(float(row[each]) for each in sorted(row) if each[0] == "v")
    if question in {"hours", "day"}:
        return {int(hour): (requests(weights),) for hour, (weights,) in values.items()}
    if question == "histogram":
        return {None: tuple(requests(*values.get(bound, (0,))) for bound in (-inf, *DURATION_BOUNDS))}
    return values


def requests(weights: float) -> float:
    return float((int(weights) + 500_000) // 1_000_000)
