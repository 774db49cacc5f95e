"""Tasks that one process at a time has, in MongoDB."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from bson.int64 import Int64
from pymongo.errors import DuplicateKeyError

from flask_chest.protocols import Leases
from flask_chest.stores.mongodb.client import NOW, Collections, ended


class MongoDBLeases(Leases):
    """One document a task."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections

    def hold(self, task: str, /, *, owner: str, lease: timedelta) -> bool:
        """Give *task* to *owner* for the time of *lease*, unless another has it."""
        with self._collections.checked() as collections:
            with suppress(DuplicateKeyError):  # two make it at once
                collections.leases.update_one(
                    {"_id": task}, {"$setOnInsert": {"owner": owner, "until": Int64(0)}}, upsert=True
                )
            until = {"$add": [NOW, Int64(lease // timedelta(milliseconds=1))]}
            taken = collections.leases.update_one(
                {"_id": task, "$or": [{"owner": owner}, {"$expr": ended("$until", lease=lease)}]},
                [{"$set": {"owner": owner, "until": until}}],
            )
            return taken.matched_count == 1

    def let_go(self, task: str, /, *, owner: str) -> None:
        """Let others have *task* at once, if *owner* has it."""
        with self._collections.checked() as collections:
            collections.leases.update_one({"_id": task, "owner": owner}, {"$set": {"until": Int64(0)}})

    def now_unix_nano(self) -> int:
        """Read the server's clock."""
        with self._collections.checked() as collections:
            return collections.now_unix_nano()
