"""Records in MongoDB, of release 5 or later."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from urllib.parse import parse_qsl

from flask_chest.errors import ConfigurationError, MissingDriverError, RecordRefused, StoreError
from flask_chest.protocols import LoadsHistory, Store, StoreStatus
from flask_chest.record import Query, Record
from flask_chest.stores._records import DuplicateIds, in_chunks, storable_rows
from flask_chest.stores._time_limit import naming_indexes
from flask_chest.stores.options import CONNECT_TIMEOUT, DEFAULT_NAME, POOL_SIZE

try:
    from bson.errors import InvalidDocument
    from pymongo import ASCENDING, DESCENDING
    from pymongo import errors as mongo
    from pymongo.uri_parser import parse_uri

    from flask_chest.stores.mongodb.aggregates import MongoDBAggregation
    from flask_chest.stores.mongodb.client import NOT_PRIMARY, Client, Collections, clients_of
    from flask_chest.stores.mongodb.deletion import MongoDBDeletion
    from flask_chest.stores.mongodb.documents import Document, document_of, record_of
    from flask_chest.stores.mongodb.indexes import MongoDBIndexes
    from flask_chest.stores.mongodb.outbox import MongoDBOutbox
    from flask_chest.stores.mongodb.query import CHUNK, find
    from flask_chest.stores.options import check_name, check_options, full_address
except ImportError as exc:
    raise MissingDriverError("pymongo", extra="mongodb") from exc

DUPLICATE_KEY = 11000
OF_THE_SERVER = NOT_PRIMARY | {6, 7, 13, 24, 50, 64, 89, 112, 262, 9001, 14031}
"""Error codes for which a faultless document is not written: network, rights, locks, time, disk."""
_DATABASE = re.compile(r'[^\0/\\. "$]{1,63}')
_CHOOSING = ("directconnection", "replicaset", "srvservicename")
"""Options that choose the servers beside their names."""
_COMPLAINT = (
    "db_uri must be like mongodb://user:password@host:27017/database; got something else"
    " (in user and password : / ? # % and @ are written as %3A %2F %3F %23 %25 and %40)"
)


class MongoDBStore(MongoDBOutbox, MongoDBDeletion, MongoDBAggregation, MongoDBIndexes, LoadsHistory, Store):
    """Keeps records in the MongoDB database at *uri*, one document a record, in the collection *name*.

    *database* takes the place of the one in *uri*. With ``create=False`` nothing is made: the collections must be
    there.

    *connect_timeout* and *timeout* are seconds: to find and reach the server, and for its answer. *expire_after*
    is how long a record is kept after every registered exporter has had it. *options* are pymongo's, as
    ``{"tlsCAFile": "ca.pem"}``. A *client* that the app made is used in place of our own and never closed; where
    there are several clients, *uri* says where each connects to. A wrong option raises `ConfigurationError`;
    nothing connects before the store is used.
    """

    def __init__(
        self,
        uri: str = "mongodb://localhost",
        *,
        name: str = DEFAULT_NAME,
        database: str | None = None,
        create: bool = True,
        connect_timeout: float = CONNECT_TIMEOUT,
        timeout: float = 30.0,
        pool_size: int = POOL_SIZE,
        expire_after: timedelta | None = None,
        client: Client | None = None,
        options: Mapping[str, object] | None = None,
    ) -> None:
        check_options(pool_size=pool_size, connect_timeout=connect_timeout, timeout=timeout)
        if expire_after is not None and expire_after <= timedelta(0):
            raise ConfigurationError(f"expire_after must be more than 0, got {expire_after!r}")
        check_name(name)
        hosts, named = _address(uri)
        chosen = database or named
        if chosen is None:
            raise ConfigurationError(
                "db_uri names no database; it must be like mongodb://user:password@host:27017/database"
            )
        if not _DATABASE.fullmatch(chosen):
            raise ConfigurationError(
                'database must be at most 63 characters, none of them a space or one of . $ / \\ and ", '
                f"got {chosen!r}"
            )
        milliseconds = max(1, round(timeout * 1000))  # 0 is no limit
        connect_milliseconds = max(1, round(connect_timeout * 1000))
        limits: dict[str, object] = {
            "serverSelectionTimeoutMS": connect_milliseconds,
            "connectTimeoutMS": connect_milliseconds,
            "socketTimeoutMS": milliseconds,
            "maxPoolSize": pool_size,
            "waitQueueTimeoutMS": connect_milliseconds,
            "appname": "flask_chest",
        }
        self._name = name
        self._create = create
        self._where = f"{hosts}/{chosen}" if client is None else f"client/{chosen}"
        self._identity = f"{hosts}/{chosen}" if client is None else f"client:{hosts}/{chosen}"
        given = {
            name.lower(): value for name, value in [*parse_qsl(uri.partition("?")[2]), *(options or {}).items()]
        }
        self._choosing = {name: given.get(name) for name in _CHOOSING}
        if client is not None:
            self._choosing["seeds"] = _seeds(client)
        place = f"MongoDB {self._where}" if client is None else f"MongoDB {chosen} of the client that was given"
        self._clients = clients_of(uri, {**limits, **(options or {})}, given=client)
        super().__init__(
            Collections(
                self._clients,
                chosen,
                name,
                place=place,
                timeout_ms=milliseconds,
                creates=create,
                expire_after=expire_after,
            )
        )
        self._conflicts = DuplicateIds()

    @property
    def address(self) -> str:
        """The place, and a digest of what else chooses the servers."""
        return full_address(self.place, self._choosing)

    @property
    def place(self) -> str:
        """Servers, database and collection; with a client of the app's own what *uri* says of it."""
        return f"mongodb:{self._identity}#{self._name}"

    @property
    def store_id(self) -> str | None:
        """The id that was made with the collections; ``None`` until they are known."""
        return self._collections.store_id

    def __repr__(self) -> str:
        return f"<MongoDBStore {self._where} name={self._name!r}>"

    def open(self) -> None:
        """Create the collections and indexes where they are missing; or only look for them."""
        if not self._create:
            with self._collections.checked():
                return
        with self._collections.unchecked() as collections:
            collections.make()

    def write(self, records: Sequence[Record], /) -> None:
        """Keep *records* on the disks of most servers; those whose id is kept already are skipped."""
        self._keep(records, position=None)

    def load(self, records: Sequence[Record], /) -> None:
        """Keep *records* as `write` does, but at the position that every exporter has behind it."""
        self._keep(records, position=0)

    def _keep(self, records: Sequence[Record], *, position: int | None) -> None:
        if not records:
            return
        storable_rows(records)  # refuses what would not come back equal
        with self._collections.checked():
            notes = self._notes()
            left = self._spared(records, notes)
            if len(left) < len(records):
                # A former attempt may have kept some, before they were deleted.
                self._delete_forgotten(records, notes)
            if left:
                there = self._insert(left, position=position)
                self._conflicts.note(self._conflicting(there))
                if (later := self._notes()) != notes:
                    self._delete_late(left, there, later)
            self._dropped.add(len(records) - len(left))

    def query(self, query: Query, /, *, timeout: timedelta | None = None) -> Iterable[Record]:
        """Yield the records that match, newest first; no cursor is open while the caller iterates."""
        with naming_indexes(query, self):
            yield from find(self._collections, query, timeout=timeout)

    def status(self) -> StoreStatus:
        """Count what is kept; the size is that of the collection with its indexes."""
        with self._collections.checked() as collections:
            return StoreStatus(
                description=collections.place,
                records=collections.records.count_documents({}),
                oldest_unix_nano=collections.began_unix_nano([("time_unix_nano", ASCENDING)]),
                newest_unix_nano=collections.began_unix_nano([("time_unix_nano", DESCENDING)]),
                size_bytes=self._size(),
                conflicts=self._conflicts.count,
            )

    def close(self) -> None:
        """Close this process's own client; the store may be used again."""
        self._clients.close()

    def _insert(self, records: Sequence[Record], *, position: int | None = None) -> Sequence[Record]:
        """Insert *records*; return those whose id was there already."""
        now = time.time_ns()
        documents = [
            document_of(record, written_unix_nano=now + i, position=position) for i, record in enumerate(records)
        ]
        try:
            self._collections.records.insert_many(documents, ordered=False)
        except mongo.BulkWriteError as exc:
            errors: list[Document] = (exc.details or {}).get("writeErrors", [])
            others = [error for error in errors if error["code"] != DUPLICATE_KEY]
            if not errors or any(error["code"] in OF_THE_SERVER for error in others):
                raise  # a write concern was not met, or it is no record's fault
            if others:
                # Without its words, which may quote a value.
                reasons = {records[each["index"]].id: f"MongoDB refused it ({each['code']})" for each in others}
                raise RecordRefused(f"{self._collections.place} refused {len(reasons)} records", reasons) from exc
            return [records[each["index"]] for each in errors]
        except (mongo.DocumentTooLarge, InvalidDocument) as exc:
            raise RecordRefused(f"{self._collections.place} refused the records ({type(exc).__name__})") from exc
        return []

    def _conflicting(self, records: Sequence[Record]) -> list[str]:
        ids = list({record.id for record in records})
        kept: dict[str, Record] = {}
        for chunk in in_chunks(ids, CHUNK):
            found = self._collections.records.find({"_id": {"$in": list(chunk)}})
            kept |= {document["_id"]: record_of(document) for document in found}
        return [record.id for record in records if kept.get(record.id, record) != record]

    def _size(self) -> int | None:
        try:
            stats = self._collections.database.command("collStats", self._name)
            return int(stats["storageSize"]) + int(stats["totalIndexSize"])
        except (mongo.PyMongoError, KeyError, StoreError):  # not every server that speaks its protocol tells
            return None


def _seeds(client: Client) -> str | None:
    """Return the servers that the app's *client* asks first; in public it names them once it is connected."""
    settings: object = vars(client).get("_topology_settings")
    seeds: object = getattr(settings, "seeds", None)
    return ",".join(sorted(map(str, seeds))) if isinstance(seeds, Iterable) else None


def _address(uri: str) -> tuple[str, str | None]:
    """Return the hosts in *uri* and the database, without user and password."""
    lookup = uri.startswith("mongodb+srv://")  # of the hosts, when it connects
    place, _, rest = uri.partition("?")
    # No message quotes a bad URI and no cause is kept: what is wrong may be a password with a slash in it.
    try:
        parsed = parse_uri(place.replace("mongodb+srv://", "mongodb://", 1), validate=False)
    except (mongo.PyMongoError, ValueError):
        raise ConfigurationError(_COMPLAINT) from None
    # After the host, an @ is the end of a password that has a question mark in it.
    if "@" in rest or parsed["collection"] is not None:
        raise ConfigurationError(_COMPLAINT)
    if not lookup:
        try:
            parse_uri(uri)
        except (mongo.PyMongoError, ValueError, OSError) as exc:
            raise ConfigurationError(f"db_uri has an option that pymongo does not take: {exc}") from None
    hosts = (host if lookup or port is None else f"{host}:{port}" for host, port in parsed["nodelist"])
    return ",".join(hosts), parsed["database"]
