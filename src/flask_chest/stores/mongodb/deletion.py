"""The forgetting half of `MongoDBStore`: retention and erasure, and that what is deleted stays deleted.

What is to be deleted is noted first and deleted then. Who writes reads the notes before and after: a record that
slips in between is found by one of the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import islice

import msgspec
from bson.int64 import Int64
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import DuplicateKeyError

from flask_chest._clocks import MAX_SKEW_NANO
from flask_chest.protocols import CountsDropped, CutOff, Erasure, Leases, Retention
from flask_chest.record import Query, Record
from flask_chest.stores._deletions import (
    CUT_OFF,
    NOTE_LIFE_NANO,
    Dropped,
    Notes,
    Shape,
    cut_off_from,
    encode_shape,
    forgotten,
    new_secret,
    notes_of,
    spared,
)
from flask_chest.stores._records import in_chunks
from flask_chest.stores.mongodb.client import Collections, MongoDBPart, after, ended
from flask_chest.stores.mongodb.documents import Document
from flask_chest.stores.mongodb.query import CHUNK, GROWING_SPANS_NANO, find

DELETED_AT_ONCE = 100
"""Documents deleted by one command: some engines let nobody write meanwhile, and take 2 ms for each."""


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


class MongoDBDeletion(MongoDBPart, Retention, Erasure, CountsDropped, Leases):
    """Deletes by id, and notes why in the collection of the deletions."""

    def __init__(self, collections: Collections) -> None:
        super().__init__(collections)
        self._dropped = Dropped()

    @property
    def dropped(self) -> int:
        """Records that this process wrote and that were left out, as they were deleted before they came."""
        return self._dropped.count

    def cut_off(self) -> CutOff | None:
        """Return up to when retention has deleted; ``None`` if it never has."""
        with self._collections.checked() as collections:
            note = collections.deletions.find_one({"_id": CUT_OFF})
        if note is None:
            return None
        last = note.get("dropped_unix_nano")
        return CutOff(
            before_unix_nano=int(note["before_unix_nano"]),
            dropped=int(note.get("dropped", 0)),
            last_dropped_unix_nano=None if last is None else int(last),
        )

    def prune(self, before_unix_nano: int, /, *, limit: int, keep_unexported: bool = True) -> int:
        """Delete the oldest records that began before that time, at most *limit*; return their number."""
        with self._collections.checked() as collections:
            old: Document = {}
            slowest = collections.exporters.find_one(sort=[("position", ASCENDING)]) if keep_unexported else None
            if slowest is not None:
                old["position"] = {"$gte": 0, "$lte": slowest["position"]}
            latest = self._latest_cut_off()
            before = min(before_unix_nano, latest)
            found = _oldest(collections, old, before, limit=limit)
            cut_off = before if len(found) < limit else int(found[-1]["time_unix_nano"]) + 1
            # One that is ahead was noted by a clock that was.
            collections.deletions.delete_one({"_id": CUT_OFF, "before_unix_nano": {"$gt": Int64(latest)}})
            collections.deletions.update_one(
                {"_id": CUT_OFF}, {"$max": {"before_unix_nano": Int64(cut_off)}}, upsert=True
            )
            # What was forgotten before that is cut off now.
            for notes in (collections.forgotten, collections.deletions):
                notes.delete_many({"before_unix_nano": {"$lt": Int64(cut_off)}})
            self._delete([document["_id"] for document in found])
        return len(found)

    def boundary(self, newest: int, /) -> int | None:
        """Return the time before which all but *newest* records began; ``None`` if there are no more."""
        order = [("time_unix_nano", DESCENDING), ("_id", DESCENDING)]
        with self._collections.checked() as collections:
            known = {"time_unix_nano": {"$lte": Int64(self._latest_cut_off())}}
            found = list(collections.records.find(known, {"time_unix_nano": 1}, sort=order, skip=newest, limit=1))
        return int(found[0]["time_unix_nano"]) + 1 if found else None

    def forget(self, query: Query, /) -> int:
        """Delete every record that matches, and what was set aside of them; return their number.

        After an error some may be left: they are not taken again, and are deleted by the next call.
        """
        everything = msgspec.structs.replace(query, limit=None)
        count = 0
        with self._collections.checked() as collections:
            self._note(everything)
            found = find(collections, everything)
            while chunk := [record.id for record in islice(found, CHUNK)]:
                self._delete(chunk)
                count += len(chunk)
        return count

    def hold(self, task: str, /, *, owner: str, lease: timedelta) -> bool:
        """Lease *task* to *owner* for *lease* from now; return False when another owner holds it."""
        with self._collections.checked() as collections:
            with suppress(DuplicateKeyError):  # two make it at once
                collections.leases.update_one(
                    {"_id": task}, {"$setOnInsert": {"owner": owner, "until": Int64(0)}}, upsert=True
                )
            taken = collections.leases.update_one(
                {"_id": task, "$or": [{"owner": owner}, {"$expr": ended("$until", lease=lease)}]},
                [{"$set": {"owner": owner, "until": after(lease)}}],
            )
            return taken.matched_count == 1

    def let_go(self, task: str, /, *, owner: str) -> None:
        """Let others have *task* at once, if *owner* has it."""
        with self._collections.checked() as collections:
            collections.leases.update_one({"_id": task, "owner": owner}, {"$set": {"until": Int64(0)}})

    def now_unix_nano(self) -> int:
        """Return the time by the server's clock."""
        with self._collections.checked() as collections:
            return collections.now_unix_nano()

    def _note(self, query: Query) -> None:
        """Note that what matches *query* is forgotten, and delete the notes that are too old to matter."""
        collections = self._collections
        now = collections.now_unix_nano()
        found = collections.began_unix_nano([("time_unix_nano", DESCENDING)])
        newest = now if found is None else found
        before = Int64(max(now, newest) + MAX_SKEW_NANO)
        # By the records too: a clock that is ahead ends no note.
        collections.forgotten.delete_many({"noted_unix_nano": {"$lt": Int64(min(now, newest) - NOTE_LIFE_NANO)}})
        shape = Shape.of(query)
        made = {"shape": encode_shape(shape).decode(), "secret": new_secret(), "before_unix_nano": before}
        with suppress(DuplicateKeyError):  # two make it at once
            collections.deletions.update_one({"_id": shape.key}, {"$setOnInsert": made}, upsert=True)
        kind = next(kind for kind in self._notes().kinds if kind.shape == shape)
        collections.forgotten.update_one(
            {"_id": shape.of_query(query, kind.secret)},
            {"$max": {"before_unix_nano": before, "noted_unix_nano": Int64(now)}},
            upsert=True,
        )
        # Only now: who has read the count after writing records finds the digest.
        collections.deletions.update_one(
            {"_id": shape.key}, {"$max": {"before_unix_nano": before}, "$inc": {"count": 1}}
        )

    def _notes(self) -> Notes:
        return notes_of(
            (
                note["_id"],
                note.get("shape", ""),
                note.get("secret", ""),
                int(note["before_unix_nano"]),
                int(note.get("count", 0)),
            )
            for note in self._collections.deletions.find()
        )

    def _latest_cut_off(self) -> int:
        return self._collections.now_unix_nano() + MAX_SKEW_NANO

    def _look_up(self, digests: Sequence[str]) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for chunk in in_chunks(digests, CHUNK):
            asked = self._collections.forgotten.find({"_id": {"$in": list(chunk)}})
            found |= {note["_id"]: int(note["before_unix_nano"]) for note in asked}
        return found

    def _spared(self, records: Sequence[Record], notes: Notes) -> Sequence[Record]:
        """Leave out of *records* what was deleted, by *notes*."""
        left = spared(records, notes, latest_cut_off=self._latest_cut_off, look_up=self._look_up)
        if late := cut_off_from(records, left, notes):
            self._collections.deletions.update_one(
                {"_id": CUT_OFF},
                {
                    "$inc": {"dropped": late},
                    "$max": {"dropped_unix_nano": Int64(self._collections.now_unix_nano())},
                },
            )
        return left

    def _delete(self, record_ids: Sequence[str]) -> None:
        for chunk in in_chunks(record_ids, DELETED_AT_ONCE):
            ids = {"$in": list(chunk)}
            self._collections.records.delete_many({"_id": ids})
            self._collections.rejected.delete_many({"record_id": ids})

    def _delete_forgotten(self, records: Sequence[Record], notes: Notes) -> None:
        """Delete those of *records* that were forgotten; what is older than the cut-off may have been spared."""
        self._delete(sorted(forgotten(records, notes.kinds, look_up=self._look_up)))

    def _delete_late(self, records: Sequence[Record], there: Sequence[Record], notes: Notes) -> None:
        """Delete those of *records* that were written while *notes* were made, and not *there* before."""
        self._delete_forgotten(records, notes)
        before = {record.id for record in there}
        late = [record for record in records if record.id not in before]
        kept = {record.id for record in self._spared(late, notes)}
        self._delete([record.id for record in late if record.id not in kept])
