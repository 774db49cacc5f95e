"""Records in ClickHouse: for many millions of them, and questions about all."""
# ruff: noqa: S608 - all that comes from outside is a literal

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from flask_chest.errors import ConfigurationError, MissingDriverError
from flask_chest.protocols import HasNeighbours, Store, StoreStatus
from flask_chest.record import Query, Record
from flask_chest.stores._clients import Clients
from flask_chest.stores._records import DuplicateIds, in_chunks
from flask_chest.stores._time_limit import naming_indexes
from flask_chest.stores.options import CONNECT_TIMEOUT, DEFAULT_NAME, check_name, check_options

try:
    from flask_chest.stores.clickhouse.aggregates import ClickHouseAggregation
    from flask_chest.stores.clickhouse.client import (
        LITTLE,
        Client,
        Database,
        check_client_options,
        make_client,
    )
    from flask_chest.stores.clickhouse.deletion import ClickHouseDeletion
    from flask_chest.stores.clickhouse.indexes import ClickHouseIndexes
    from flask_chest.stores.clickhouse.native import block_of
    from flask_chest.stores.clickhouse.query import find
    from flask_chest.stores.clickhouse.rows import COLUMNS, record_of
    from flask_chest.stores.clickhouse.schema import DAY_NANO, ClickHouseSchema
    from flask_chest.stores.clickhouse.text import listed
    from flask_chest.stores.clickhouse.views import ClickHouseViews
except ImportError as exc:
    raise MissingDriverError("clickhouse-connect", extra="clickhouse") from exc

MAX_DAYS = 100
"""Days of which records are written at once, each of them a partition: a server takes no more unless told to."""
GAP_NANO = 1_000_000_000
"""Time without a record of a batch after which another span of time is looked at."""
MAX_SPANS = 20
"""Spans from which on it takes less to look for a thousand times."""

_DATABASE = re.compile(r"[^\0/\\`\s]{1,63}")
_CLUSTER = re.compile(r"[^\0/\\`'\s]{1,63}")
_SCHEMES = {"clickhouse": 8123, "clickhouses": 8443}
"""Schemes, each with the port that is meant where none is named; the second one is with TLS."""
_OPTIONS = frozenset({"ca_cert", "client_cert", "client_cert_key", "compress", "server_host_name", "verify"})
"""What may follow the question mark and is for clickhouse-connect."""
_COMPLAINT = (
    "db_uri must be like clickhouse://user:password@host:8123/database, or clickhouses:// for TLS; got something "
    "else (in user and password : / ? # % and @ are written as %3A %2F %3F %23 %25 and %40)"
)


class ClickHouseStore(
    ClickHouseDeletion, ClickHouseAggregation, ClickHouseIndexes, ClickHouseViews, HasNeighbours, Store
):
    """Keeps records in the ClickHouse database at *uri*, in the table *name*.

    *database* takes the place of the one in *uri*. With ``create=False`` nothing is made: the tables must be
    there. *connect_timeout* and *timeout* are seconds: to reach the server, and for its answer.

    *engine* is the family of table engines, such as ``"ReplicatedMergeTree"``, with ``('path', 'replica')`` where
    the server has no default for them, and *cluster* the cluster on whose nodes tables are made and changed; both
    may also stand in *uri*, after a question mark. *options* are those of
    clickhouse-connect, as ``{"ca_cert": "ca.pem"}``. A *client* that the app made is used in place of our own
    and never closed; *uri* says where it connects to. A wrong option raises `ConfigurationError`; nothing
    connects before the store is used.
    """

    def __init__(
        self,
        uri: str = "clickhouse://localhost",
        *,
        name: str = DEFAULT_NAME,
        database: str | None = None,
        create: bool = True,
        connect_timeout: float = CONNECT_TIMEOUT,
        timeout: float = 30.0,
        engine: str | None = None,
        cluster: str | None = None,
        client: Client | None = None,
        options: Mapping[str, object] | None = None,
    ) -> None:
        check_options(pool_size=1, connect_timeout=connect_timeout, timeout=timeout)
        check_name(name)
        address = _Address(uri)
        chosen = _checked("database", database or address.database or "default", _DATABASE)
        cluster = cluster or address.options.pop("cluster", None)
        engine = engine or address.options.pop("engine", None) or "MergeTree"
        if cluster is not None:
            _checked("cluster", cluster, _CLUSTER)
        if unknown := sorted(address.options.keys() - _OPTIONS):
            raise ConfigurationError(
                f"db_uri has the option {unknown[0]!r}, which is not known; it may have "
                f"{', '.join(sorted({'cluster', 'engine', *_OPTIONS}))}"
            )
        given = {**address.options, **(options or {})}
        check_client_options(given)
        connection = {
            "host": address.host,
            "port": address.port,
            "username": address.user,
            "password": address.password,
            "interface": "https" if address.secure else "http",
            # Waits for whole seconds, and takes 0 for no limit.
            "connect_timeout": max(1, round(connect_timeout)),
            "send_receive_timeout": max(1, round(timeout)),
            **given,
        }
        self._name = name
        self._create = create
        self._where = f"{address.netloc}/{chosen}"
        place = self._where if client is None else f"{chosen} of the client that was given"
        self._clients = Clients(partial(make_client, connection), given=client)
        tables = Database(self._clients, chosen, name, place=f"ClickHouse {place}", cluster=cluster)
        super().__init__(tables, ClickHouseSchema(tables, engine=engine, creates=create))
        self._given = client is not None
        self._conflicts = DuplicateIds()

    @property
    def address(self) -> str:
        """The place: nothing else chooses the tables."""
        return self.place

    @property
    def place(self) -> str:
        """Server, database and table; with a client of the app's own what *uri* says of it."""
        return f"clickhouse:{'client:' if self._given else ''}{self._where}#{self._name}"

    @property
    def store_id(self) -> str | None:
        """The id that the database gave the table; ``None`` until it is known."""
        return self._schema.store_id

    def __repr__(self) -> str:
        return f"<ClickHouseStore {self._where} name={self._name!r}>"

    def open(self) -> None:
        """Create the tables where they are missing; or only look for them."""
        if self._create:
            self._schema.make()
        else:
            self._schema.check()

    def write(self, records: Sequence[Record], /) -> None:
        """Keep *records* on the disk; those whose id is kept already are skipped."""
        if not records:
            return
        block = block_of(records)  # refuses what would not come back equal
        self._schema.check()
        notes = self._known.get() or self._notes()
        left = self._spared(records, notes)
        if len(left) < len(records):
            # A former attempt may have kept some, before they were deleted.
            self._delete_late(records, notes)
        if left and (new := self._new_of(left)):
            for part in _in_few_days(new):
                self._database.insert(block if part is records else block_of(part))
            later = self._notes()
            if later != notes:
                left = self._spared(left, later)
                self._delete_late(new, later)
        self._dropped.add(len(records) - len(left))

    def query(self, query: Query, /, *, timeout: timedelta | None = None) -> Iterable[Record]:
        """Yield the records that match, newest first; no statement is open while the caller iterates."""
        self._schema.check()
        with naming_indexes(query, self):
            yield from find(self._database, query, timeout=timeout)

    def status(self) -> StoreStatus:
        """Count what is kept; the size is that of the table on the disk."""
        self._schema.check()
        database = self._database
        ((count, oldest, newest, size),) = database.rows(
            "SELECT count(), minOrNull(time_unix_nano), maxOrNull(time_unix_nano),"
            f" (SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND {database.of_records})"
            f" FROM {database.records} FINAL WHERE time_unix_nano >= {database.cut_off}"
        )
        return StoreStatus(
            description=database.place,
            records=int(count),
            oldest_unix_nano=oldest,
            newest_unix_nano=newest,
            size_bytes=None if size is None else int(size),
            conflicts=self._conflicts.count,
        )

    def has_table(self, name: str, /) -> bool:
        """Return whether the database has a table *name*."""
        return name in self._database.tables(name)

    def close(self) -> None:
        """Close this process's own client; the store may be used again."""
        self._clients.close()

    def _new_of(self, records: Sequence[Record]) -> Sequence[Record]:
        """Leave out what is kept already or is in *records* twice; tell what differs from what was kept first."""
        first: dict[tuple[int, str], Record] = {}
        for record in records:
            first.setdefault((record.time_unix_nano, record.id), record)
        kept = self._kept_of(records)
        if not kept and len(first) == len(records):
            return records
        first |= kept
        self._conflicts.note(
            [record.id for record in records if first[record.time_unix_nano, record.id] != record]
        )
        return [record for key, record in first.items() if key not in kept]

    def _kept_of(self, records: Sequence[Record]) -> dict[tuple[int, str], Record]:
        """Return those of *records* that the database has, as it has them."""
        database = self._database
        # Of new records none began when another one did: to see that takes one column of numbers.
        rows = database.rows(
            f"SELECT time_unix_nano FROM {database.records} WHERE {_at_the_times_of(records)}", settings=LITTLE
        )
        times = {time for (time,) in rows}
        if not (suspects := [record for record in records if record.time_unix_nano in times]):
            return {}
        rows = database.rows(
            f"SELECT {', '.join(COLUMNS)} FROM {database.records} FINAL WHERE {_at_the_times_of(suspects)}"
        )
        kept = {(record.time_unix_nano, record.id): record for record in map(record_of, rows)}
        keys = {(record.time_unix_nano, record.id) for record in suspects}
        return {key: record for key, record in kept.items() if key in keys}


class _Address:
    """What a URI says."""

    def __init__(self, uri: str) -> None:
        # No message quotes a bad URI and no cause is kept: what is wrong may be a password with a slash in it.
        try:
            parts = urlsplit(uri)
            scheme, port = parts.scheme, parts.port
        except ValueError:
            raise ConfigurationError(_COMPLAINT) from None
        if scheme not in _SCHEMES or not _is_plain(parts):
            raise ConfigurationError(_COMPLAINT)
        self.secure = scheme == "clickhouses"
        self.host = parts.hostname or "localhost"
        self.port = port or _SCHEMES[scheme]
        self.netloc = f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"
        self.user = unquote(parts.username or "") or "default"
        self.password = unquote(parts.password or "")
        self.database = unquote(parts.path.removeprefix("/"))
        self.options = dict(parse_qsl(parts.query))


def _is_plain(parts: SplitResult) -> bool:
    """Return whether nothing of a password can have become another part."""
    return not ("@" in parts.query + parts.fragment + parts.path or parts.fragment or parts.path.count("/") > 1)


def _checked(option: str, value: str, pattern: re.Pattern[str]) -> str:
    if not pattern.fullmatch(value):
        raise ConfigurationError(
            f"{option} must be at most 63 characters, none of them a space, / or \\ or a quote, got {value!r}"
        )
    return value


def _at_the_times_of(records: Sequence[Record]) -> str:
    """Return a condition that all meet which began when one of *records* did, and few others."""
    times = [record.time_unix_nano for record in records]
    first, last = min(times), max(times)
    if last - first <= GAP_NANO:
        return f"time_unix_nano BETWEEN {first} AND {last}"
    times.sort()
    breaks = [place for place in range(1, len(times)) if times[place] - times[place - 1] > GAP_NANO]
    if len(breaks) >= MAX_SPANS:
        return f"time_unix_nano IN ({listed(times)})"
    bounds = zip([0, *breaks], [*breaks, len(times)], strict=True)
    spans = [f"time_unix_nano BETWEEN {times[begin]} AND {times[end - 1]}" for begin, end in bounds]
    return " OR ".join(spans)


def _in_few_days(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Cut *records* into parts of which each is of `MAX_DAYS` days at most."""
    days = {record.time_unix_nano // DAY_NANO for record in records}
    if len(days) <= MAX_DAYS:
        yield records
        return
    for chosen in map(set, in_chunks(sorted(days), MAX_DAYS)):
        yield [record for record in records if record.time_unix_nano // DAY_NANO in chosen]
