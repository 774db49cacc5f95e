"""The forgetting half of `MongoDBStore`: retention and erasure, and that what is deleted stays deleted.

What is to be deleted is noted first and deleted then. Who writes reads the notes before and after: a record that
slips in between is found by one of the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import msgspec
from bson.int64 import Int64
from pymongo import ASCENDING, DESCENDING

from flask_chest.protocols import Erasure, Retention
from flask_chest.record import Query, Record
from flask_chest.stores._deletions import Deletion, decode_query, encode_query
from flask_chest.stores._mongodb_client import CLOCK_LAG_NANO, Collections
from flask_chest.stores._mongodb_documents import Document
from flask_chest.stores._mongodb_query import CHUNK, GROWING_SPANS_NANO, find

DELETED_AT_ONCE = 100
"""Some engines let nobody write meanwhile, and take 2 ms for each."""
CUT_OFF = "cut_off"
"""The document of retention; those of what was forgotten have ids of their own."""


def _oldest(collections: Collections, old: Document, before_unix_nano: int, *, limit: int) -> list[Document]:
    """Find the oldest documents that are *old* and began before that time."""
    order = [("time_unix_nano", ASCENDING), ("_id", ASCENDING)]
    found: list[Document] = []
    for times in _spans_before(before_unix_nano, note=collections.deletions.find_one({"_id": CUT_OFF})):
        asked = {**old, "time_unix_nano": times}
        found += collections.records.find(asked, {"time_unix_nano": 1}, sort=order, limit=limit - len(found))
        if len(found) == limit:
            break
    return found


def _spans_before(before_unix_nano: int, *, note: Document | None) -> Iterator[Document]:
    """Cut the time before that into spans, the earliest first, each longer than the one before.

    What began before the *note* of the last pruning is mostly gone, and the oldest are behind it. As in a search,
    some engines would sort all that is old for each batch.
    """
    begin = before_unix_nano if note is None else min(int(note["before_unix_nano"]), before_unix_nano)
    yield {"$lt": Int64(begin)}
    for length in GROWING_SPANS_NANO:
        end = min(begin + length, before_unix_nano)
        if begin == end:
            return
        yield {"$gte": Int64(begin), "$lt": Int64(end)}
        begin = end
    yield {"$gte": Int64(begin), "$lt": Int64(before_unix_nano)}


class MongoDBDeletion(Retention, Erasure):
    """Deletes by id, and notes why in the collection of the deletions."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections

    def prune(self, before_unix_nano: int, /, *, limit: int, keep_unexported: bool = True) -> int:
        """Delete the oldest records that began before that time, at most *limit*; give how many those were."""
        with self._collections.checked() as collections:
            old: Document = {}
            slowest = collections.exporters.find_one(sort=[("position", ASCENDING)]) if keep_unexported else None
            if slowest is not None:
                old["position"] = {"$gt": 0, "$lte": slowest["position"]}
            found = _oldest(collections, old, before_unix_nano, limit=limit)
            cut_off = before_unix_nano if len(found) < limit else int(found[-1]["time_unix_nano"]) + 1
            collections.deletions.update_one(
                {"_id": CUT_OFF}, {"$max": {"before_unix_nano": Int64(cut_off)}}, upsert=True
            )
            # What was forgotten before that is cut off now.
            collections.deletions.delete_many(
                {"_id": {"$ne": CUT_OFF}, "before_unix_nano": {"$lte": Int64(cut_off)}}
            )
            self._delete([document["_id"] for document in found])
        return len(found)

    def boundary(self, newest: int, /) -> int | None:
        """Give the time before which all began but so many *newest* records; ``None`` if there are no more."""
        order = [("time_unix_nano", DESCENDING), ("_id", DESCENDING)]
        with self._collections.checked() as collections:
            found = list(collections.records.find({}, {"time_unix_nano": 1}, sort=order, skip=newest, limit=1))
        return int(found[0]["time_unix_nano"]) + 1 if found else None

    def forget(self, query: Query, /) -> int:
        """Delete every record that matches, and what was set aside of them; give how many those were.

        After an error some may be left: they are not taken again, and are deleted by the next call.
        """
        everything = msgspec.structs.replace(query, limit=None)
        count = 0
        with self._collections.checked() as collections:
            # Rather a little too late: what began at the last moment would be kept for good.
            before = collections.now_unix_nano() + CLOCK_LAG_NANO
            collections.deletions.insert_one(
                {"before_unix_nano": Int64(before), "query": encode_query(everything).decode()}
            )
            found = find(collections, everything)
            while chunk := [record.id for record in islice(found, CHUNK)]:
                self._delete(chunk)
                count += len(chunk)
        return count

    def _notes(self) -> list[Deletion]:
        return [
            Deletion(
                before_unix_nano=int(note["before_unix_nano"]),
                query=None if note.get("query") is None else decode_query(note["query"]),
            )
            for note in self._collections.deletions.find()
        ]

    def _delete(self, record_ids: Sequence[str]) -> None:
        for first in range(0, len(record_ids), DELETED_AT_ONCE):
            ids = list(record_ids[first : first + DELETED_AT_ONCE])
            self._collections.records.delete_many({"_id": {"$in": ids}})
            self._collections.rejected.delete_many({"record_id": {"$in": ids}})

    def _delete_forgotten(self, records: Sequence[Record], notes: Sequence[Deletion]) -> None:
        """Delete those of *records* that were forgotten; what is older than the cut-off may have been spared."""
        forgotten = [note for note in notes if note.query is not None]
        self._delete([record.id for record in records if any(note.covers(record) for note in forgotten)])

    def _delete_late(self, records: Sequence[Record], there: Sequence[Record], notes: Sequence[Deletion]) -> None:
        """Delete those of *records* that were written while *notes* were made, and not *there* before."""
        self._delete_forgotten(records, notes)
        before = {record.id for record in there}
        late = [record for record in records if record.id not in before]
        self._delete([record.id for record in late if any(note.covers(record) for note in notes)])
