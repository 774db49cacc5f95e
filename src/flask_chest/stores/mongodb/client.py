"""MongoDB's client in each process, the collections of a chest, and what errors mean."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TypeAlias

import pymongo
from bson.codec_options import CodecOptions
from bson.int64 import Int64
from pymongo import ASCENDING, IndexModel, MongoClient, ReadPreference, WriteConcern
from pymongo import errors as mongo
from pymongo.collection import Collection
from pymongo.database import Database

from flask_chest._clocks import MAX_SKEW_NANO, nanoseconds
from flask_chest._process import PerProcess
from flask_chest.errors import ConfigurationError, SchemaError, StoreAbsent, StoreUnavailable
from flask_chest.stores._clients import Clients
from flask_chest.stores._time_limit import TimeLimit
from flask_chest.stores.mongodb.documents import Document

Client: TypeAlias = "MongoClient[Document]"

PROGRAM = "flask_chest"
VERSION = 1
SCHEMA = "schema"
"""Id of the document with the program that made the collections, and their version."""
NUMBERING = "numbering"
"""Id of the document with the position up to which records are numbered."""
NOW = {"$toLong": "$$NOW"}
"""Expression for the server's clock in milliseconds, as times are kept: numbers compare alike in every engine."""
_CODEC_OPTIONS: CodecOptions[Document] = CodecOptions(document_class=dict)
_INDEXES: Mapping[str, Sequence[str]] = {
    "time": ["time_unix_nano", "_id"],
    "request": ["request_id", "time_unix_nano", "_id"],
    "trace": ["trace_id", "time_unix_nano", "_id"],
    "route": ["route", "time_unix_nano", "_id"],
    "status": ["status_code", "time_unix_nano", "_id"],
    "position": ["position", "written_unix_nano", "_id"],
}


def clients_of(uri: str, options: Mapping[str, object], *, given: Client | None) -> Clients[Client]:
    """Return the clients of *uri*; raise `ConfigurationError` unless pymongo takes the *options*."""
    if given is None:
        # Connects to nothing, but tells wrong options where they are set.
        try:
            _make_client("mongodb://localhost", {**options, "connect": False}).close()
        except mongo.PyMongoError as exc:
            raise ConfigurationError(f"pymongo does not take the options: {exc}") from exc
    return Clients(partial(_make_client, uri, options), given=given)


def _make_client(uri: str, options: Mapping[str, object]) -> Client:
    try:
        return MongoClient(uri, **dict(options))  # type: ignore[arg-type]  # checked by it
    except (TypeError, ValueError, OSError) as exc:
        raise ConfigurationError(f"pymongo does not take the options: {exc}") from exc


class _Named:
    """A collection of a chest, whose name ends with *suffix*, by the client of the process that asks."""

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix

    def __get__(self, chest: Collections, _: type[Collections]) -> Collection[Document]:
        return chest.database[chest.name + self.suffix]


class Collections:
    """The collections of one chest."""

    records = _Named("")
    """One document a record."""
    exporters = _Named("_exporters")
    """One document an exporter."""
    rejected = _Named("_rejected")
    """One document for each record that was set aside for an exporter."""
    deletions = _Named("_deletions")
    """Up to when what was deleted for good: by retention, and by each kind of query."""
    forgotten = _Named("_forgotten")
    """One document for each digest of what was forgotten."""
    leases = _Named("_leases")
    """One document for each task that one process at a time has."""
    schema = _Named("_schema")
    """The documents `SCHEMA` and `NUMBERING`."""

    def __init__(
        self,
        clients: Clients[Client],
        database: str,
        name: str,
        *,
        place: str,
        timeout_ms: int,
        creates: bool,
        expire_after: timedelta | None,
    ) -> None:
        self.place = place
        self.expire_after = expire_after
        """Time for which a record is kept after every registered exporter has had it; ``None`` for ever."""
        self._clients = clients
        self._database = database
        self.name = name
        self._by_whom = "when the first record is written" if creates else "by a store that may, with create=True"
        self._checked = PerProcess(lambda: False)
        """Whether this process has looked at the schema."""
        self.store_id: str | None = None
        """The id made with the collections; where they are made again, they keep the one that is known."""
        self._first_unix_nano: int | None = None
        # Kept means on the disks of most.
        self._concern = WriteConcern(w="majority", j=True, wtimeout=timeout_ms)

    @property
    def database(self) -> Database[Document]:
        """The database, read and written as no setting of a client of the app's own changes."""
        return self._clients.get().get_database(
            self._database,
            codec_options=_CODEC_OPTIONS,
            read_preference=ReadPreference.PRIMARY,  # another may be behind, and leave records out
            write_concern=self._concern,
        )

    @contextmanager
    def checked(self) -> Iterator[Collections]:
        """Let the collections be used; raise `SchemaError` unless they are there, in this release's version."""
        with self.unchecked():
            if not self._checked.get():
                version = self._version()
                if version is None:
                    raise StoreAbsent(
                        f"the collections of {self.name!r} in {self.place} do not exist yet; "
                        f"they are made {self._by_whom}"
                    )
                self._checked.set(True)
            yield self

    @contextmanager
    def answering(self, *, timeout: timedelta | None) -> Iterator[Collections]:
        """Let the collections be read for one answer.

        When *timeout* is over, from the beginning of the block, what runs is ended in the server and raises
        `QueryTimeout`, and so does all that is read later.
        """
        limit = TimeLimit(timeout)
        # Of None pymongo would make the client's own time-out.
        with self.checked(), pymongo.timeout(NO_LIMIT if timeout is None else limit.seconds()):
            try:
                yield self
            except mongo.PyMongoError as exc:
                # Else it waited for a connection, and the server may be away.
                if MAX_TIME_EXPIRED in _codes(exc) or (isinstance(exc, mongo.NetworkTimeout) and limit.is_over):
                    raise limit.exceeded() from exc
                raise

    @contextmanager
    def unchecked(self) -> Iterator[Collections]:
        """Let the collections be used, whatever is there; the driver's errors come out as ours."""
        try:
            yield self
        except mongo.PyMongoError as exc:
            if _codes(exc) & NOT_PRIMARY:
                # It would go on with the server that it has: where one address follows the primary, the old one.
                self._clients.close()
            raise self._store_error(exc) from exc
        except ValueError as exc:
            if not str(exc).startswith("SASLprep"):
                raise
            raise StoreUnavailable(f"{self.place}: {exc}; {_PASSWORD}") from exc

    def make(self) -> None:
        """Make collections and indexes where they are missing; in many processes at once, too."""
        if self._version() is None:
            made = {"program": PROGRAM, "version": VERSION, "store_id": self.store_id or uuid.uuid4().hex}
            self.schema.update_one({"_id": SCHEMA}, {"$setOnInsert": made}, upsert=True)
            self._version()
        self.schema.update_one(
            {"_id": NUMBERING}, {"$setOnInsert": {"position": 0, "following": []}}, upsert=True
        )
        # In one command: one by one, some engines read the whole collection for each.
        expiring = IndexModel("expire_at", name=f"{self.name}_expire", expireAfterSeconds=0, sparse=True)
        indexes = [IndexModel(fields, name=f"{self.name}_{name}") for name, fields in _INDEXES.items()]
        self.records.create_indexes([*indexes, expiring])
        self.rejected.create_index(["exporter", "token", "number"], name="exporter")

    def now_unix_nano(self) -> int:
        """Return the time by the server's clock."""
        found = self.schema.aggregate([{"$match": {"_id": SCHEMA}}, {"$project": {"now": NOW}}])
        return unix_nano(next(iter(found))["now"])

    def began_unix_nano(self, sort: Sequence[tuple[str, int]], of: Document | None = None) -> int | None:
        """Return when the first record began in the order *sort*, of all or those with the filter *of*."""
        found = self.records.find_one(of, {"time_unix_nano": 1}, sort=sort)
        return None if found is None else int(found["time_unix_nano"])

    def first_unix_nano(self) -> int | None:
        """Return when the oldest record began of those that were there when this was asked first.

        It is the one with the first id: engines that sort all for the first time do not for that.
        """
        if self._first_unix_nano is None:
            self._first_unix_nano = self.began_unix_nano([("_id", ASCENDING)])
        return self._first_unix_nano

    def _version(self) -> int | None:
        found = self.schema.find_one({"_id": SCHEMA})
        if found is None:
            ours = {self.name + each.suffix for each in vars(Collections).values() if isinstance(each, _Named)}
            taken = sorted(ours.intersection(self.database.list_collection_names()))
            found = self.schema.find_one({"_id": SCHEMA})  # another process may make them just now
            if found is None and taken:
                raise self._foreign(taken[0])
        if found is None:
            return None
        if found.get("program") != PROGRAM:
            raise self._foreign(self.schema.name)
        version = int(found["version"])
        if version > VERSION:
            raise SchemaError(
                f"the collections of {self.name!r} in {self.place} are of version {version}, which this release "
                f"does not know (its own is {VERSION}); upgrade flask_chest"
            )
        self.store_id = found.get("store_id")
        return version

    def _foreign(self, collection: str) -> SchemaError:
        return SchemaError(
            f"{self.place} has a collection {collection!r} that flask_chest did not make; "
            "choose another name= for the chest, or another database"
        )

    def _store_error(self, exc: mongo.PyMongoError) -> StoreUnavailable:
        code = next(iter(_codes(exc) & NOT_PRIMARY), getattr(exc, "code", None))
        if isinstance(exc, mongo.OperationFailure | mongo.NotPrimaryError):
            details = exc.details if isinstance(exc.details, Mapping) else {}
            said = f"{details.get('codeName', 'error')} ({code})"
        else:
            # Without what follows: the driver's description of all it knows of the servers.
            said = " ".join(str(exc).split()).partition(" (configured")[0].partition(", Timeout:")[0]
        return StoreUnavailable(f"{self.place}: {said}; {_ADVICE.get(code, _advice(exc))}")


class MongoDBPart:
    """A part of a MongoDB store: what all parts work on."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections


def after(time: timedelta, *, now: object = NOW) -> Document:
    """Return the expression for *time* after *now*, by the server's clock."""
    return {"$add": [now, Int64(time // timedelta(milliseconds=1))]}


def ended(until: str, *, lease: timedelta) -> Document:
    """Return the expression that is true if a lease has ended that lasts until the time in the field *until*.

    One that ends much later than after *lease* from now was given by a clock that was ahead.
    """
    latest = (nanoseconds(lease) + MAX_SKEW_NANO) // 1_000_000
    return {"$or": [{"$lte": [until, NOW]}, {"$gt": [until, {"$add": [NOW, Int64(latest)]}]}]}


MAX_TIME_EXPIRED = 50
"""The code of what a server ended because it took too long."""
NO_LIMIT = 24 * 60 * 60
"""Seconds after which an answer that may take any time is given up."""
NOT_PRIMARY = frozenset({91, 189, 10058, 10107, 11600, 11602, 13435, 13436})
"""The codes of a server that is no longer the primary, or is about to end."""


def _codes(exc: mongo.PyMongoError) -> set[int]:
    """Return the error codes in *exc*: of a command, of its documents, and of the write concern."""
    details: Mapping[str, object] = getattr(exc, "details", None) or {}
    parts: list[object] = [details]
    for name in ("writeErrors", "writeConcernErrors"):
        found = details.get(name)
        parts += found if isinstance(found, list) else []
    codes = (part.get("code") for part in parts if isinstance(part, Mapping))
    return {code for code in codes if isinstance(code, int)}


def unix_nano(milliseconds: int) -> int:
    """Return the nanoseconds of a time by the server's clock."""
    return int(milliseconds) * 1_000_000


_PASSWORD = "correct the user or the password"  # noqa: S105 - advice
_ADVICE: Mapping[int | None, str] = {
    **dict.fromkeys(NOT_PRIMARY, "try again; if this persists, point db_uri at the primary"),
    13: "grant what docs/mongodb.md lists",
    18: _PASSWORD,
    8000: _PASSWORD,
}


def _advice(exc: mongo.PyMongoError) -> str:
    if isinstance(exc, mongo.InvalidOperation):
        return "give a client that is open"
    if isinstance(exc, mongo.ConnectionFailure | mongo.ConfigurationError):  # a name that DNS does not know
        return "see whether it runs, and whether its address is right"
    return "try again"
