"""A `Query` as a filter of MongoDB: it narrows what `Query.matches` then decides."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

from bson.int64 import Int64
from msgspec.structs import replace
from pymongo import DESCENDING

from flask_chest.record import COLUMN_FILTERS, Query, Record
from flask_chest.stores._mongodb_client import Collections
from flask_chest.stores._mongodb_documents import Document, encode_name, record_of
from flask_chest.stores._sql import bindable
from flask_chest.stores._storable import MAX_INTEGER, MIN_INTEGER

CHUNK = 500
"""Records that are fetched at a time: no cursor stays open while the caller looks at them."""

GROWING_SPANS_NANO = tuple(1_000_000_000 * 8**step for step in range(10))
"""From a second to four years; then there is no bound."""

ORDER = [("time_unix_nano", DESCENDING), ("_id", DESCENDING)]


def find(collections: Collections, query: Query) -> Iterator[Record]:
    """Yield what matches *query*."""
    return islice(filter(query.matches, _candidates(collections, query)), query.limit)


def _candidates(collections: Collections, query: Query) -> Iterator[Record]:
    size = CHUNK if query.limit is None or query.where else min(query.limit, CHUNK)
    for span in _spans(query):
        before: Record | None = None
        found = size
        while found == size:
            with collections.checked():
                documents = list(collections.records.find(condition(span, before=before), sort=ORDER, limit=size))
            for document in documents:
                before = record_of(document)
                yield before
            found = len(documents)


def _spans(query: Query) -> Iterator[Query]:
    """Cut the time of *query* into spans, the latest first, each longer than the one before.

    MongoDB reads an index in its order and stops at the limit. Engines that speak its protocol were seen to sort
    all that a filter leaves first, however old: they are given little to sort.
    """
    now = time.time_ns()
    latest = now if query.until_unix_nano is None else min(now, query.until_unix_nano)
    for ago in GROWING_SPANS_NANO:
        since = latest - ago
        if query.since_unix_nano is not None and since <= query.since_unix_nano:
            break
        yield replace(query, since_unix_nano=since)
        query = replace(query, until_unix_nano=since)
    yield query


def condition(query: Query, *, before: Record | None) -> Document:
    """Ask for the candidates that come after *before* in the order of the answer."""
    # Flat, as not every planner looks into an $and for an index.
    wanted: Document = {
        "_id" if name == "id" else name: value
        for name in COLUMN_FILTERS
        if (value := getattr(query, name)) is not None and bindable(value)
    }
    for name, value in query.where.items():
        if bindable(name) and isinstance(value, str | int) and bindable(value):
            wanted[f"variables.{encode_name(name)}"] = {"$eq": value}
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
