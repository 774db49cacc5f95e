"""The delivering half of `MongoDBStore`: what each exporter has had, and what was set aside for it.

Documents are written without a position: many processes write at once, and none waits for another. Who claims
numbers those that have none. What is numbered next is first written down as a whole, in the document `NUMBERING`,
and only then document by document; whoever finds it there finishes it, and only then the position up to which
all is numbered moves. Exporters read up to that position: none is numbered below it any more, so none is
skipped. A process that comes back late from numbering finds every document of its list numbered.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType

from bson.int64 import Int64
from pymongo import ASCENDING, ReturnDocument, UpdateOne

from flask_chest.protocols import (
    Busy,
    Claim,
    ExporterRegistry,
    ExporterStatus,
    Outbox,
    Rejection,
    Rejections,
    StartAt,
)
from flask_chest.stores._records import in_chunks, storable_reason
from flask_chest.stores.mongodb.client import NOW, NUMBERING, MongoDBPart, after, ended, unix_nano
from flask_chest.stores.mongodb.documents import Document, record_of
from flask_chest.stores.mongodb.query import CHUNK

NUMBERED_AT_ONCE = 1_000

_UNCLAIMED: Document = {"boundary": None, "holder": None, "lease_until": None}
"""Fields of an exporter that has no claim."""


class MongoDBOutbox(MongoDBPart, Outbox, ExporterRegistry, Rejections):
    """One document an exporter; who changes it names the epoch that it knows, so that a former holder cannot."""

    def claim(self, exporter: str, /, *, limit: int, lease: timedelta) -> Claim | Busy | None:
        """Take the next records, or again the batch whose holder did not acknowledge it in time."""
        with self._collections.checked() as collections:
            self._register(exporter, position=0)
            place = self._take(exporter, lease)
            if place is None:
                return self._busy(exporter)
            batch = self._batch(place, limit)
            if not batch:
                self._skip(place)
                return None
            boundary = batch[-1]["position"]
            held = collections.exporters.update_one(
                {"_id": exporter, "epoch": place["epoch"]}, {"$set": {"boundary": boundary}}
            )
            if held.matched_count == 0:
                return self._busy(exporter)
            return Claim(
                exporter=exporter,
                records=[record_of(document) for document in batch],
                token=int(place["epoch"]),
                deadline_unix_nano=unix_nano(place["lease_until"]),
            )

    def renew(self, claim: Claim, /, *, lease: timedelta) -> bool:
        """Move the deadline to *lease* from now; return False when the claim is lost or has ended."""
        with self._collections.checked() as collections:
            renewed = collections.exporters.update_one(
                {**_held(claim), "boundary": {"$ne": None}}, [{"$set": {"lease_until": after(lease)}}]
            )
            return renewed.matched_count == 1

    def acknowledge(self, claim: Claim, /, *, rejected: Mapping[str, str] = MappingProxyType({})) -> bool:
        """Count the claimed records as had; a deadline that passed matters only once another has claimed."""
        with self._collections.checked() as collections:
            place = collections.exporters.find_one(_held(claim))
            if place is None:
                return False
            if place["boundary"] is None:
                return True
            self._set_aside(claim, rejected)
            success = {"last_seen": NOW, "last_success": NOW, "last_error": None}
            had = collections.exporters.update_one(
                {**_held(claim), "boundary": {"$ne": None}},
                [{"$set": {"position": "$boundary", **_UNCLAIMED, **success}}],
            )
            if had.matched_count == 0:
                return self._lost_meanwhile(claim)
            self._let_expire()
            return True

    def release(self, claim: Claim, /, *, error: str | None = None) -> None:
        """End the claim without delivery, for the reason *error*; its token is void from here on."""
        with self._collections.checked() as collections:
            collections.exporters.update_one(
                {**_held(claim), "boundary": {"$ne": None}},
                {
                    "$inc": {"epoch": 1},
                    "$set": {
                        "holder": None,
                        "lease_until": None,
                        "last_error": None if error is None else storable_reason(error),
                    },
                },
            )

    def register(self, exporter: str, /, *, start_at: StartAt = "beginning") -> None:
        """Make *exporter* known; one that is known stays where it is."""
        with self._collections.checked():
            self._register(exporter, position=self._number_all() if start_at == "now" else 0)

    def exporters(self, *, timeout: timedelta | None = None) -> Sequence[ExporterStatus]:
        """List the known exporters by name; past *timeout*, raise `QueryTimeout`."""
        with self._collections.answering(timeout=timeout) as collections:
            return [
                ExporterStatus(
                    name=place["_id"],
                    backlog=collections.records.count_documents(
                        {"$or": [{"position": None}, {"position": {"$gt": place["position"]}}]}
                    ),
                    rejected=collections.rejected.count_documents({"exporter": place["_id"]}),
                    last_seen_unix_nano=unix_nano(place["last_seen"]),
                    last_success_unix_nano=_optional(place.get("last_success")),
                    next_unix_nano=self._next(int(place["position"])),
                    last_error=place.get("last_error"),
                    holder=place["holder"],
                    lease_until_unix_nano=_optional(place["lease_until"]),
                )
                for place in collections.exporters.find(sort=[("_id", ASCENDING)])
            ]

    def _next(self, position: int) -> int | None:
        """Return when the first record began that was written after *position*."""
        found = self._collections.began_unix_nano([("position", ASCENDING)], {"position": {"$gt": position}})
        if found is None:
            found = self._collections.began_unix_nano([("written_unix_nano", ASCENDING)], {"position": None})
        return found

    def drop(self, exporter: str, /) -> bool:
        """Forget *exporter*, its place and what was set aside for it; return False when it is not known."""
        with self._collections.checked() as collections:
            dropped = collections.exporters.delete_one({"_id": exporter})
            collections.rejected.delete_many({"exporter": exporter})
            return dropped.deleted_count == 1

    def rejections(self, exporter: str, /, *, timeout: timedelta | None = None) -> Iterable[Rejection]:
        """Return what was set aside for *exporter*, oldest first; past *timeout*, raise `QueryTimeout`."""
        with self._collections.answering(timeout=timeout) as collections:
            found = collections.rejected.find(
                {"exporter": exporter}, sort=[("token", ASCENDING), ("number", ASCENDING)]
            )
            return [
                Rejection(
                    exporter=exporter,
                    record_id=each["record_id"],
                    reason=each["reason"],
                    time_unix_nano=int(each["time_unix_nano"]),
                )
                for each in found
            ]

    def discard(self, exporter: str, record_ids: Sequence[str], /) -> int:
        """Forget that these records were set aside for *exporter*; return how many were."""
        count = 0
        with self._collections.checked() as collections:
            for chunk in in_chunks(record_ids, CHUNK):
                found = collections.rejected.delete_many(
                    {"exporter": exporter, "record_id": {"$in": list(chunk)}}
                )
                count += found.deleted_count
        return count

    def _register(self, exporter: str, *, position: int) -> None:
        # Epochs begin at the clock: one that is dropped and registered again must not repeat the tokens it had.
        beginning = {"position": Int64(position), "epoch": NOW, **_UNCLAIMED, "last_success": None}
        kept = {name: {"$ifNull": [f"${name}", value]} for name, value in beginning.items()}
        self._collections.exporters.update_one(
            {"_id": exporter}, [{"$set": {**kept, "last_seen": NOW}}], upsert=True
        )

    def _take(self, exporter: str, lease: timedelta) -> Document | None:
        is_free = {"$or": [{"lease_until": None}, {"$expr": ended("$lease_until", lease=lease)}]}
        taken = {
            "epoch": {"$add": ["$epoch", Int64(1)]},
            "holder": f"{socket.gethostname()}:{os.getpid()}",
            "lease_until": after(lease),
        }
        return self._collections.exporters.find_one_and_update(
            {"_id": exporter, **is_free}, [{"$set": taken}], return_document=ReturnDocument.AFTER
        )

    def _busy(self, exporter: str) -> Busy | None:
        place = self._collections.exporters.find_one({"_id": exporter})
        if place is None or place["lease_until"] is None:
            return None  # it has ended in this very moment, or was dropped: the next call will get it
        return Busy(holder=place["holder"], until_unix_nano=unix_nano(place["lease_until"]))

    def _batch(self, place: Document, limit: int) -> list[Document]:
        numbered = self._number_all()
        records = self._collections.records
        order = [("position", ASCENDING)]
        after = place["position"]
        if place["boundary"] is not None:
            again = {"$gt": after, "$lte": place["boundary"]}
            if batch := list(records.find({"position": again}, sort=order)):
                return batch
            after = place["boundary"]  # the whole batch was deleted meanwhile
        following = {"$gt": after, "$lte": Int64(numbered)}
        return list(records.find({"position": following}, sort=order, limit=limit, batch_size=limit))

    def _skip(self, place: Document) -> None:
        """Let go, and go past a claimed batch whose records were all deleted."""
        position = place["position"] if place["boundary"] is None else place["boundary"]
        self._collections.exporters.update_one(
            {"_id": place["_id"], "epoch": place["epoch"]},
            {"$set": {"position": position, **_UNCLAIMED}},
        )

    def _number_all(self) -> int:
        """Return every record a position; return the one up to which all are numbered."""
        schema, records = self._collections.schema, self._collections.records
        while True:
            numbering = schema.find_one({"_id": NUMBERING}) or {"position": 0, "following": []}
            position, following = int(numbering["position"]), numbering["following"]
            if following:
                steps = [
                    UpdateOne({"_id": record_id, "position": None}, {"$set": {"position": Int64(number)}})
                    for number, record_id in enumerate(following, position + 1)
                ]
                records.bulk_write(steps, ordered=False)
                schema.update_one(
                    {"_id": NUMBERING, "position": position, "following": following},
                    {"$set": {"position": position + len(following), "following": []}},
                )
                continue
            unnumbered = records.find(
                {"position": None},
                {"_id": 1},
                sort=[("written_unix_nano", ASCENDING), ("_id", ASCENDING)],
                limit=NUMBERED_AT_ONCE,
                batch_size=NUMBERED_AT_ONCE,  # else the server answers in two parts, and keeps a cursor between
            )
            following = [document["_id"] for document in unnumbered]
            if not following:
                return position
            schema.update_one(
                {"_id": NUMBERING, "position": position, "following": []}, {"$set": {"following": following}}
            )

    def _set_aside(self, claim: Claim, rejected: Mapping[str, str]) -> None:
        now = Int64(self._collections.now_unix_nano()) if rejected else None
        steps = [
            UpdateOne(
                {"_id": {"exporter": claim.exporter, "record_id": record.id}},
                {
                    "$setOnInsert": {
                        "exporter": claim.exporter,
                        "record_id": record.id,
                        "reason": storable_reason(rejected[record.id]),
                        "time_unix_nano": now,
                        "token": Int64(claim.token),
                        "number": number,
                    }
                },
                upsert=True,
            )
            for number, record in enumerate(claim.records)
            if record.id in rejected
        ]
        if steps:
            self._collections.rejected.bulk_write(steps)

    def _lost_meanwhile(self, claim: Claim) -> bool:
        place = self._collections.exporters.find_one(_held(claim))
        if place is not None:  # acknowledged by a repetition of this very call
            return True
        self._collections.rejected.delete_many({"exporter": claim.exporter, "token": Int64(claim.token)})
        return False

    def _let_expire(self) -> None:
        expire_after = self._collections.expire_after
        if expire_after is None:
            return
        slowest = self._collections.exporters.find_one(sort=[("position", ASCENDING)])
        if slowest is not None:
            self._collections.records.update_many(
                {"position": {"$gte": 0, "$lte": slowest["position"]}, "expire_at": None},
                [{"$set": {"expire_at": after(expire_after, now="$$NOW")}}],
            )


def _held(claim: Claim) -> Document:
    return {"_id": claim.exporter, "epoch": Int64(claim.token)}


def _optional(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else unix_nano(milliseconds)
