"""ClickHouse's client in each process, the database of a chest, and what errors mean."""

from __future__ import annotations

import inspect
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import clickhouse_connect
from clickhouse_connect.driver import exceptions as clickhouse
from clickhouse_connect.driver.client import Client as _Client
from clickhouse_connect.driver.httpclient import HttpClient

from flask_chest._clocks import MAX_SKEW_NANO
from flask_chest.errors import ConfigurationError, RecordRefused, SchemaError, StoreError, StoreUnavailable
from flask_chest.stores._clients import Clients
from flask_chest.stores._time_limit import TimeLimit
from flask_chest.stores.clickhouse.native import NATIVE
from flask_chest.stores.clickhouse.rows import COLUMNS
from flask_chest.stores.clickhouse.text import listed, literal, quoted

Client: TypeAlias = _Client
Setting: TypeAlias = "str | int | float"

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.005, 0.5
UNKNOWN_TABLE = 60
TIMEOUT_EXCEEDED = 159
NO_DATABASE = 81
ACCESS_DENIED = 497

NOW = "toUnixTimestamp64Nano(now64(9))"
"""The server's clock."""
LATEST = f"({NOW} + {MAX_SKEW_NANO})"
"""Time up to which a cut-off may be: one that is later was noted by a clock that was ahead."""

LITTLE: Mapping[str, Setting] = {"max_threads": 1}
"""Settings for a statement that reads little of one table: to begin threads would take longer than it does."""

_READING: Mapping[str, Setting] = {
    # A record that comes again began at the same time, so it is in the same partition.
    "do_not_merge_across_partitions_select_final": 1,
    # All that one statement reads of a table is of one moment.
    "enable_shared_storage_snapshot_in_query": 1,
    "join_use_nulls": 0,
}
_LONG = 50_000
_SIZES: Mapping[str, Setting] = {"max_query_size": 1 << 26, "max_ast_elements": 10_000_000}
"""Settings for statements with thousands of ids, which have more than `_LONG` characters."""
_WRITING: Mapping[str, Setting] = {
    **LITTLE,
    # The server would collect what several clients write, and each of them would wait for that.
    "async_insert": 0,
    # Nothing is in a batch twice.
    "optimize_on_insert": 0,
}
_SOON: Mapping[str, Setting] = {"mutations_sync": 0}
"""Settings for a change: its answer may take longer than the driver waits; whether it is done is asked for."""

_FILES = ("ca_cert", "client_cert", "client_cert_key")


def make_client(options: Mapping[str, Any]) -> Client:
    """Connect as *options* say, by sockets that no other client uses."""
    try:
        return clickhouse_connect.get_client(
            **options,
            # Without a session of its own each statement goes by itself, from many threads at once.
            autogenerate_session_id=False,
            dedicated_pool=True,
            query_retries=0,
            client_name="flask_chest",
        )
    except (TypeError, ValueError, clickhouse.ProgrammingError):
        raise ConfigurationError(
            "clickhouse-connect does not take the options of db_uri or client_options"
        ) from None


def check_client_options(options: Mapping[str, object]) -> None:
    """Raise `ConfigurationError` unless clickhouse-connect has the *options*, and their files are there."""
    known = inspect.signature(HttpClient.__init__).parameters.keys() | {"secure"}
    if unknown := sorted(options.keys() - known):
        raise ConfigurationError(f"clickhouse-connect has no option {unknown[0]!r}; correct client_options")
    for name in _FILES:
        path = str(options.get(name) or "")
        if path not in {"", "certifi"} and not Path(path).is_file():
            raise ConfigurationError(f"{name} must be a file that is there, got {path!r}")


class Table(NamedTuple):
    """What the database tells of a table or view."""

    name: str
    comment: str
    uuid: UUID


class Database:
    """Runs the statements of one chest; what the driver raises comes out as one of our errors."""

    def __init__(
        self, clients: Clients[Client], database: str, name: str, *, place: str, cluster: str | None
    ) -> None:
        self.place = place
        self.name = name
        self.database = database
        self.cluster = cluster
        self.on_cluster = "" if cluster is None else f" ON CLUSTER {quoted(cluster)}"
        self._clients = clients
        self.records = self.table("")
        self.deletions = self.table("_deletions")
        self.forgotten = self.table("_forgotten")
        self.of_records = f"database = {literal(database)} AND table = {literal(name)}"
        """Condition that a row of a table of the system's is of the table of the records."""
        self.cut_off = (
            f"(SELECT coalesce(maxOrNull(before_unix_nano), toInt64({-(1 << 63)})) FROM {self.deletions}"  # noqa: S608 - names are quoted
            f" WHERE kind = 'cut-off' AND before_unix_nano <= {LATEST})"
        )
        """The time before which retention has deleted all, whatever is still there of its day."""

    def table(self, suffix: str) -> str:
        """Return the table of the chest's name and *suffix*, as statements name it."""
        return f"{quoted(self.database)}.{quoted(self.name + suffix)}"

    def rows(
        self, select: str, *, limit: TimeLimit | None = None, settings: Mapping[str, Setting] = _READING
    ) -> list[tuple[Any, ...]]:
        """Fetch all that *select* finds; the server ends it when *limit* is over, which raises `QueryTimeout`."""
        given: dict[str, Setting] = {**_sizes(select), **settings}
        if limit is not None and (seconds := limit.seconds()) is not None:
            given["max_execution_time"] = seconds
            given["timeout_overflow_mode"] = "throw"
        with self._translated(limit):
            return [tuple(row) for row in self._clients.get().query(select, settings=given).result_rows]

    def run(self, command: str) -> None:
        """Run a statement that answers nothing; what it changes may be done later, see `await_mutations`."""
        with self._translated():
            self._clients.get().command(command, settings={**_sizes(command), **_SOON})

    def insert(self, block: bytes) -> None:
        """Write the records in *block*; the same ones are left out if they come soon again."""
        token = sha256(block).hexdigest()
        with self._translated():
            self._clients.get().raw_insert(
                self.records,
                COLUMNS,
                block,
                settings={**_WRITING, "insert_deduplication_token": token},
                fmt=NATIVE,
            )

    def now_unix_nano(self) -> int:
        """Return the time by the server's clock."""
        return int(self.rows(f"SELECT {NOW}")[0][0])

    def tables(self, *names: str) -> dict[str, Table]:
        """Return those of *names* that the database has as tables or views."""
        rows = self.rows(
            "SELECT name, comment, uuid FROM system.tables"  # noqa: S608 - of literals
            f" WHERE database = {literal(self.database)} AND name IN ({listed(names)})"
        )
        return {table.name: table for table in (Table(*row) for row in rows)}

    def columns_of(self, prefix: str) -> Mapping[str, str]:
        """Return the variables that have a column named so after *prefix*, each with that name.

        It is asked each time, as other processes make them.
        """
        rows = self.rows(
            f"SELECT name FROM system.columns WHERE {self.of_records}"  # noqa: S608 - of literals
            f" AND startsWith(name, {literal(prefix)})"
        )
        return {str(name).removeprefix(prefix): str(name) for (name,) in rows}

    def await_mutations(self, table: str) -> None:
        """Wait until all that *table* is changed by is done, however long that takes."""
        pause = _SHORTEST_PAUSE
        while unfinished := self._unfinished(table):
            if any(unfinished):
                raise StoreUnavailable(
                    f"{self.place} could not change its table; see latest_fail_reason in its system.mutations"
                )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _unfinished(self, table: str) -> list[str]:
        name = table.rpartition(".")[2].strip("`")
        source = "system.mutations"
        if self.cluster is not None:
            source = f"clusterAllReplicas({literal(self.cluster)}, system.mutations)"
        rows = self.rows(
            f"SELECT latest_fail_reason FROM {source} WHERE NOT is_done AND NOT is_killed"  # noqa: S608 - of literals
            f" AND database = {literal(self.database)} AND table = {literal(name)}"
        )
        return [str(reason) for (reason,) in rows]

    @contextmanager
    def _translated(self, limit: TimeLimit | None = None) -> Iterator[None]:
        try:
            yield
        except clickhouse.DataError as exc:
            raise RecordRefused(f"{self.place} refused the records ({type(exc).__name__})") from exc
        except clickhouse.ClickHouseError as exc:
            code: int | None = getattr(exc, "code", None)
            # Where it says nothing, it did not answer in time.
            if limit is not None and (code == TIMEOUT_EXCEEDED or (code is None and limit.is_over)):
                raise limit.exceeded() from exc
            raise self._store_error(exc, code) from exc
        except OSError as exc:  # a certificate that is not there
            raise StoreUnavailable(f"{self.place}: {type(exc).__name__}; {_UNREACHABLE}") from exc

    def _store_error(self, exc: clickhouse.ClickHouseError, code: int | None) -> StoreError:
        # Its own words may quote the statement, and with it what a variable holds.
        name = getattr(exc, "name", None) or "error"
        if code == UNKNOWN_TABLE:
            return SchemaError(
                f"{self.place} lacks a table of {self.name!r}; it is made when a store with create=True opens"
            )
        if code is None and (fault := _tls_fault(exc)) is not None:
            return StoreUnavailable(
                f"TLS with {self.place} failed: {fault}; pass the certificate of its authority as ca_cert, "
                "or correct the host in db_uri"
            )
        if code is None:
            return StoreUnavailable(f"{self.place} does not answer; {_UNREACHABLE}")
        advice = _ADVICE.get(code, "try again")
        if code == ACCESS_DENIED and (lacking := _LACKING.search(str(exc))):
            advice = f"grant its user {lacking[1]} ON {lacking[2]}; docs/clickhouse.md lists all that it needs"
        return StoreUnavailable(f"{self.place}: {name} ({code}); {advice}")


_LACKING = re.compile(
    r"necessary to have the grant ([A-Z]+(?: [A-Z]+)*)(?:\([^)]*\))? ON ([\w*-]+(?:\.[\w*-]+)*)"
)
"""A privilege and what it is for, as the server names them; the columns of a table are left out."""


def _tls_fault(error: BaseException | None) -> str | None:
    """Return what was wrong with TLS, if that is what led to *error*."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return str(getattr(error, "verify_message", "") or error.reason or type(error).__name__)
        error = error.__cause__ or error.__context__
    return None


def _sizes(statement: str) -> Mapping[str, Setting]:
    return _SIZES if len(statement) > _LONG else {}


_UNREACHABLE = "see whether it runs, and whether its address is right"
_PASSWORD = "correct the user or the password"  # noqa: S105 - advice
_ADVICE: Mapping[int, str] = {
    NO_DATABASE: "create the database, or correct its name in db_uri",
    TIMEOUT_EXCEEDED: "raise timeout, or see what keeps the server busy",
    164: "let its user change settings and data: flask_chest sets some for each statement",
    192: _PASSWORD,
    193: _PASSWORD,
    194: _PASSWORD,
    241: "give it more memory, or ask for a narrower range of time",
    242: "see why its table is read only",
    243: "free space on its disk",
    252: "write larger batches, or see why its merges do not keep up",
    ACCESS_DENIED: "grant what docs/clickhouse.md lists",
    516: _PASSWORD,
}
