"""A `Query` as a filter of MongoDB: it narrows what `Query.matches` then decides."""

from __future__ import annotations

from collections.abc import Iterator

from bson.int64 import Int64
from pymongo import DESCENDING

from flask_chest.record import COLUMN_FILTERS, Query, Record
from flask_chest.stores._mongodb_client import Collections
from flask_chest.stores._mongodb_documents import Document, encode_name, record_of
from flask_chest.stores._sql import bindable
from flask_chest.stores._storable import MAX_INTEGER, MIN_INTEGER

CHUNK = 500
"""Records that are fetched at a time: no cursor stays open while the caller looks at them."""

ORDER = [("time_unix_nano", DESCENDING), ("_id", DESCENDING)]


def find(collections: Collections, query: Query) -> Iterator[Record]:
    """Yield what matches *query*."""
    left = query.limit
    before: Record | None = None
    while left is None or left > 0:
        size = CHUNK if left is None or query.where else min(left, CHUNK)
        with collections.checked():
            documents = list(collections.records.find(condition(query, before=before), sort=ORDER, limit=size))
        for document in documents:
            before = record_of(document)
            if query.matches(before):
                yield before
                left = None if left is None else left - 1
                if left == 0:
                    return
        if len(documents) < size:
            return


def condition(query: Query, *, before: Record | None) -> Document:
    """Ask for the candidates that come after *before* in the order of the answer."""
    conditions = [*_conditions(query)]
    if before is not None:
        time = Int64(before.time_unix_nano)
        conditions += [
            {"time_unix_nano": {"$lte": time}},
            {"$or": [{"time_unix_nano": {"$lt": time}}, {"_id": {"$lt": before.id}}]},
        ]
    return {"$and": conditions} if conditions else {}


def _conditions(query: Query) -> Iterator[Document]:
    for name in COLUMN_FILTERS:
        value = getattr(query, name)
        if value is not None and bindable(value):
            yield {name: value}
    # Times beyond 64 bits, as the year 9999 is in nanoseconds, cannot be asked for.
    since, until = query.since_unix_nano, query.until_unix_nano
    if since is not None:
        yield {"time_unix_nano": {"$gte": Int64(min(max(since, MIN_INTEGER), MAX_INTEGER))}}
    if until is not None and until <= MAX_INTEGER:
        yield {"time_unix_nano": {"$lt": Int64(max(until, MIN_INTEGER))}}
    for name, value in query.where.items():
        if bindable(name) and isinstance(value, str | int) and bindable(value):
            yield {f"variables.{encode_name(name)}": {"$eq": value}}
