"""A `Query` as a filter of MongoDB: it narrows what `Query.matches` then decides."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import islice

from bson.int64 import Int64
from msgspec.structs import replace
from pymongo import DESCENDING

from flask_chest.record import COLUMN_FILTERS, SERVER_ERROR, Bound, Condition, JSONValue, OneOf, Query, Record
from flask_chest.stores._records import MAX_INTEGER, MIN_INTEGER, bindable
from flask_chest.stores._time_limit import TimeBudget
from flask_chest.stores.mongodb.client import Collections
from flask_chest.stores.mongodb.documents import Document, encode_name, record_of

CHUNK = 500
"""Records that are fetched at a time: no cursor stays open while the caller looks at them."""

FIRST_SPAN_NANO = 1_000_000_000
GROWTH = 8
GROWING_SPANS_NANO = tuple(FIRST_SPAN_NANO * GROWTH**step for step in range(10))
"""Bounds of the steps in which records are looked for, from a second to four years."""
SPAN_CHUNKS = 4
"""Chunks that a span is to hold, going by the one that was read last."""

_PRESENT: Document = {"$exists": True}
"""Operator for a variable that has any value; to MongoDB ``None`` alone is equal to what is not there."""
_BOUNDS = {"gt": "$gte", "ge": "$gte", "lt": "$lte", "le": "$lte"}
_TINY = 1e-128
"""What some engines cannot place in an index if it is nearer to zero: their keys hold no smaller exponent."""

ORDER = [("time_unix_nano", DESCENDING), ("_id", DESCENDING)]


def find(collections: Collections, query: Query, *, timeout: timedelta | None = None) -> Iterator[Record]:
    """Yield what matches *query*, for which MongoDB works no longer than *timeout*."""
    candidates = _candidates(collections, query, TimeBudget(timeout))
    return islice(filter(query.matches, candidates), query.limit)


def _candidates(collections: Collections, query: Query, budget: TimeBudget) -> Iterator[Record]:
    """Yield what the database finds, the newest first, in spans of time.

    MongoDB reads an index in its order and stops at the limit. Engines that speak its protocol were seen to sort
    all that a filter leaves first, however old: they are given little to sort. A span in which there is little is
    followed by a longer one, or by all that is left; where there is much, by one for a few chunks.
    """
    size = CHUNK if query.limit is None or query.asks_for_variables else min(query.limit, CHUNK)
    until, since = query.until_unix_nano, query.since_unix_nano
    end, length = time.time_ns(), FIRST_SPAN_NANO
    if until is not None:
        end = min(end, until)
    before: Record | None = None
    with budget.working() as left, collections.answering(timeout=left):
        longest = _longest_span(collections, query)
    while True:
        begin = end - length
        last = length > GROWING_SPANS_NANO[-1] or (since is not None and begin <= since)
        span = query if last else replace(query, since_unix_nano=begin)
        with budget.working() as left, collections.answering(timeout=left):
            wanted = condition(span, before=before)
            if before is None and longest is not None and length > longest:
                last, wanted = True, _all(query)
            documents = list(collections.records.find(wanted, sort=ORDER, limit=size))
        for document in documents:
            before = record_of(document)
            yield before
        if before is not None and len(documents) == size:
            covered = int(documents[0]["time_unix_nano"]) - before.time_unix_nano
            end, length = before.time_unix_nano, max(SPAN_CHUNKS * covered, FIRST_SPAN_NANO)
        elif last:
            return
        else:
            query = replace(query, until_unix_nano=begin)
            before, end, length = None, begin, length * GROWTH


def _longest_span(collections: Collections, query: Query) -> int | None:
    """Return the length of the longest span that is read by the index on the time, and not with all before it.

    Return ``None`` where another index narrows, or where the time does.
    """
    fields = condition(query, before=None).keys()
    if not fields or "time_unix_nano" in fields:
        return None
    if any(next(iter(index["key"])) in fields for index in collections.records.list_indexes()):
        return None
    first = collections.first_unix_nano()
    return None if first is None else (time.time_ns() - first) // GROWTH


def _all(query: Query) -> Document:
    """Return the filter of all candidates, worded so that no engine takes the index on the time for their end.

    To fetch most documents by it takes longer than to read everything.
    """
    wanted, until = condition(replace(query, until_unix_nano=None), before=None), query.until_unix_nano
    if until is None:
        return wanted
    return {**wanted, "$nor": [*wanted.get("$nor", ()), {"time_unix_nano": {"$gte": Int64(until)}}]}


def condition(query: Query, *, before: Record | None) -> Document:
    """Return the filter of the candidates that come after *before* in the order of the answer."""
    # Flat, as not every planner looks into an $and for an index.
    wanted: Document = {
        "_id" if name == "id" else name: value
        for name in COLUMN_FILTERS
        if (value := getattr(query, name)) is not None and bindable(value)
    }
    if query.status_class is not None:
        bounds = (query.status_class * 100, query.status_class * 100 + 99)
        first, last = (Int64(min(max(bound, MIN_INTEGER), MAX_INTEGER)) for bound in bounds)
        equal = {"$eq": wanted["status_code"]} if "status_code" in wanted else {}
        wanted["status_code"] = {**equal, "$gte": first, "$lte": last}
    if query.errors:
        wanted["$nor"] = [{"error": None, "status_code": {"$lt": SERVER_ERROR}}]
    for name, asked in _variable_conditions(query):
        if bindable(name):
            # Of two such operators the first one is enough for a superset.
            path = f"variables.{encode_name(name)}"
            wanted[path] = {**asked, **wanted.get(path, {})}
    times: Document = {}
    # Times beyond 64 bits, as the year 9999 is in nanoseconds, cannot be asked for.
    since, until = query.since_unix_nano, query.until_unix_nano
    if since is not None:
        times["$gte"] = Int64(min(max(since, MIN_INTEGER), MAX_INTEGER))
    if until is not None and until <= MAX_INTEGER:
        times["$lt"] = Int64(max(until, MIN_INTEGER))
    if before is not None:
        time = Int64(before.time_unix_nano)
        times["$lte"] = time
        wanted["$or"] = [{"time_unix_nano": {"$lt": time}}, {"_id": {"$lt": before.id}}]
    return {**wanted, "time_unix_nano": times} if times else wanted


def _variable_conditions(query: Query) -> Iterator[tuple[str, Document]]:
    """Yield the name of each variable that is asked for, with operators that all it may be holds."""
    for name, value in query.where.items():
        yield name, _one_of([value], {"$eq": value})
    for name, asked in query.conditions:
        yield name, _operator(asked)


def _operator(asked: Condition) -> Document:
    if isinstance(asked, Bound) and _comparable(asked.value):
        # With the bound itself: where whole numbers are compared in double precision, more are equal to it.
        operator, value = _BOUNDS[asked.operator], asked.value
        if isinstance(value, float) and (0 < value < _TINY if operator == "$gte" else -_TINY < value < 0):
            value = 0.0
        return {operator: value}
    if isinstance(asked, OneOf):
        return _one_of(asked.values, {"$in": list(asked.values)})
    return _PRESENT


def _one_of(values: Sequence[JSONValue], operator: Document) -> Document:
    """Return *operator*, which asks for *values*, as far as it finds what is equal to them."""
    if not all(map(_comparable, values)):
        return _PRESENT
    # Only there: some engines use no index for what also must be there.
    return {**operator, **_PRESENT} if None in values else operator


def _comparable(value: object) -> bool:
    """Return whether MongoDB finds all that is equal to *value*; to it the order of an object's keys matters."""
    return value is None or isinstance(value, float) or bindable(value)
