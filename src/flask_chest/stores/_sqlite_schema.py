"""The tables of a chest in SQLite: how they are made, migrated and recognised."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import LiteralString, TypeAlias

from flask_chest.errors import SchemaError, StoreAbsent, StoreUnavailable
from flask_chest.stores._sql import Tables
from flask_chest.stores._sqlite_connections import immediate

_FIRST: tuple[LiteralString, ...] = (
    "CREATE TABLE {schema} (program TEXT NOT NULL, version INTEGER NOT NULL)",
    "INSERT INTO {schema} (program, version) VALUES ('flask_chest', 0)",
    # AUTOINCREMENT: a position that was deleted is not given again to a record that an exporter then misses.
    """
    CREATE TABLE {records} (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        request_id TEXT NOT NULL,
        time_unix_nano INTEGER NOT NULL,
        duration_ns INTEGER NOT NULL,
        method TEXT NOT NULL,
        route TEXT,
        endpoint TEXT,
        status_code INTEGER NOT NULL,
        error TEXT,
        trace_id TEXT,
        span_id TEXT,
        trace_flags INTEGER,
        trace_remote INTEGER,
        instance TEXT NOT NULL,
        variables TEXT NOT NULL
    )
    """,
    'CREATE INDEX "{name}_time" ON {records} (time_unix_nano, id)',
    'CREATE INDEX "{name}_request" ON {records} (request_id)',
    'CREATE INDEX "{name}_trace" ON {records} (trace_id) WHERE trace_id IS NOT NULL',
    'CREATE INDEX "{name}_route" ON {records} (route, time_unix_nano, id)',
    'CREATE INDEX "{name}_status" ON {records} (status_code, time_unix_nano, id)',
    """
    CREATE VIEW {variables} AS
    SELECT
        record.id, request_id, time_unix_nano,
        strftime('%Y-%m-%dT%H:%M:%S', time_unix_nano / 1000000000, 'unixepoch')
            || printf('.%03dZ', time_unix_nano / 1000000 % 1000) AS time,
        duration_ns, method, route, endpoint, status_code, error,
        trace_id, span_id, trace_flags, trace_remote, instance,
        variable.key AS name,
        CASE variable.type
            WHEN 'true' THEN 'boolean' WHEN 'false' THEN 'boolean'
            WHEN 'real' THEN 'number' WHEN 'text' THEN 'string'
            ELSE variable.type
        END AS type,
        CASE variable.type
            WHEN 'integer' THEN variable.value WHEN 'real' THEN variable.value
            WHEN 'true' THEN 1 WHEN 'false' THEN 0
        END AS number,
        CASE WHEN variable.type IN ('text', 'array', 'object') THEN variable.value END AS text
    FROM {records} AS record, json_each(record.variables) AS variable
    """,
    """
    CREATE TABLE {exporters} (
        name TEXT NOT NULL PRIMARY KEY,
        position INTEGER NOT NULL,
        boundary INTEGER,
        epoch INTEGER NOT NULL,
        holder TEXT,
        lease_until_unix_nano INTEGER,
        last_seen_unix_nano INTEGER NOT NULL,
        last_success_unix_nano INTEGER
    )
    """,
    """
    CREATE TABLE {rejected} (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        exporter TEXT NOT NULL,
        record_id TEXT NOT NULL,
        reason TEXT NOT NULL,
        time_unix_nano INTEGER NOT NULL,
        UNIQUE (exporter, record_id)
    )
    """,
    """
    CREATE TABLE {deletions} (
        before_unix_nano INTEGER NOT NULL,
        query TEXT
    )
    """,
)

Migrations: TypeAlias = tuple[tuple[LiteralString, ...], ...]

MIGRATIONS: Migrations = (_FIRST,)
"""What brings the tables from version 0 to 1, 1 to 2, …; what was released is not changed any more."""

_INDEXES = ("_time", "_request", "_trace", "_route", "_status")


class Schema:
    """What one chest's part of the file at *path* must look like."""

    def __init__(self, tables: Tables, path: Path, *, migrations: Migrations = MIGRATIONS) -> None:
        self._tables = tables
        self._path = path
        self._migrations = migrations
        self._newest = len(migrations)

    def check(self, connection: sqlite3.Connection) -> None:
        """Raise `SchemaError` unless our tables are there, in the version of this release."""
        version = self._version(connection)
        if version is None:
            raise StoreAbsent(
                f"the tables of {self._tables.name!r} in SQLite {self._path} do not exist yet; "
                "they are made when the first record is written"
            )
        if version < self._newest:
            raise SchemaError(
                f"the tables of {self._tables.name!r} in SQLite {self._path} are of the older "
                f"version {version}; they are migrated when the first record is written"
            )

    def migrate(self, connection: sqlite3.Connection, *, patience: float) -> None:
        """Make or migrate our tables; of several processes one does it, and the others wait for it."""
        if self._version(connection) != self._newest:
            with immediate(connection):
                for migration in self._migrations[self._version(connection) or 0 :]:
                    for statement in migration:
                        connection.execute(self._tables.sql(statement))
                connection.execute(self._tables.sql("UPDATE {schema} SET version = ?"), (self._newest,))
        self._write_ahead(connection, patience)

    def _write_ahead(self, connection: sqlite3.Connection, patience: float) -> None:
        deadline = time.monotonic() + patience
        while (mode := _switched_mode(connection)) is None:
            if time.monotonic() >= deadline:
                raise StoreUnavailable(
                    f"SQLite {self._path}: database is locked; try again, or raise busy_timeout"
                )
            time.sleep(0.01)
        if mode != "wal":
            raise StoreUnavailable(
                f"SQLite {self._path}: its file system has no shared memory (journal mode {mode}); "
                "choose a file on a local disk"
            )

    def _version(self, connection: sqlite3.Connection) -> int | None:
        """Read the version; ``None`` where none of our names is taken."""
        taken = self._taken(connection)
        if not taken:
            return None
        if self._tables.names["schema"].lower() not in taken:
            raise self._foreign(min(taken))
        try:
            row = connection.execute(
                self._tables.sql("SELECT version FROM {schema} WHERE program = 'flask_chest'")
            ).fetchone()
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                raise
            raise self._foreign(self._tables.names["schema"]) from exc
        if row is None:
            raise self._foreign(self._tables.names["schema"])
        version = int(row[0])
        if version > self._newest:
            raise SchemaError(
                f"the tables of {self._tables.name!r} in SQLite {self._path} are of version {version}, which "
                f"this release does not know (its own is {self._newest}); upgrade flask_chest"
            )
        return version

    def _taken(self, connection: sqlite3.Connection) -> set[str]:
        names = [*self._tables.names.values(), *(self._tables.name + suffix for suffix in _INDEXES)]
        marks = ", ".join("?" * len(names))
        rows = connection.execute(
            f"SELECT lower(name) FROM sqlite_master WHERE lower(name) IN ({marks})",  # noqa: S608 - marks are ?, ?
            [name.lower() for name in names],
        )
        return {name for (name,) in rows}

    def _foreign(self, table: str) -> SchemaError:
        return SchemaError(
            f"SQLite {self._path} has a table {table!r} that flask_chest did not make; "
            "choose another name= for the chest, or another file"
        )


def _switched_mode(connection: sqlite3.Connection) -> str | None:
    """Switch to the write-ahead log; ``None`` if locked, which SQLite reports here without its own wait."""
    try:
        row = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return None
    return str(row[0])
