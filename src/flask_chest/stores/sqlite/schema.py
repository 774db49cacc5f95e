"""The tables of a chest in SQLite: how they are made, migrated and recognised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import LiteralString

from flask_chest._clocks import ClockNote, encode_note
from flask_chest.errors import StoreUnavailable
from flask_chest.stores.sql.schema import PARTIAL_INDEXES, Migrations, SQLSchema, column_of_records
from flask_chest.stores.sql.tables import Session

_VIEW: LiteralString = """
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
    CASE WHEN variable.type IN ('text', 'array', 'object') THEN variable.value END AS text,
    sample_rate
FROM {records} AS record, json_each(record.variables) AS variable
"""

_FIRST: tuple[LiteralString, ...] = (
    "CREATE TABLE {schema} (program TEXT NOT NULL, version INTEGER NOT NULL, store_id TEXT, clock TEXT)",
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
        variables TEXT NOT NULL,
        sample_rate REAL NOT NULL DEFAULT 1.0
    )
    """,
    'CREATE INDEX "{name}_time" ON {records} (time_unix_nano, id)',
    *PARTIAL_INDEXES,
    _VIEW,
    """
    CREATE TABLE {exporters} (
        name TEXT NOT NULL PRIMARY KEY,
        position INTEGER NOT NULL,
        boundary INTEGER,
        epoch INTEGER NOT NULL,
        holder TEXT,
        lease_until_unix_nano INTEGER,
        last_seen_unix_nano INTEGER NOT NULL,
        last_success_unix_nano INTEGER,
        last_error TEXT
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
        kind TEXT NOT NULL PRIMARY KEY,
        query TEXT,
        secret TEXT,
        before_unix_nano INTEGER NOT NULL,
        dropped INTEGER NOT NULL DEFAULT 0,
        dropped_unix_nano INTEGER
    )
    """,
    """
    CREATE TABLE {forgotten} (
        digest TEXT NOT NULL PRIMARY KEY,
        before_unix_nano INTEGER NOT NULL,
        noted_unix_nano INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
)

_SECOND: tuple[LiteralString, ...] = (
    """
    CREATE TABLE {leases} (
        task TEXT NOT NULL PRIMARY KEY, owner TEXT NOT NULL, until_unix_nano INTEGER NOT NULL
    )
    """,
)


class SQLiteSchema(SQLSchema):
    """What one chest's part of an SQLite file must look like."""

    _migrations: Migrations = (_FIRST, _SECOND)
    _additions = column_of_records(
        "sample_rate", "REAL NOT NULL DEFAULT 1.0", view=("DROP VIEW {variables}", _VIEW)
    )
    _columns = "SELECT name FROM pragma_table_info(?)"
    _elsewhere = "another file"

    def make(self, session: Session) -> None:
        """Make or migrate our tables; of several processes one does it, and the others find the file locked."""
        super().make(session)
        ((mode,),) = session.rows("PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise StoreUnavailable(
                f"{self.place}: its file system has no shared memory (journal mode {mode}); "
                "choose a file on a local disk"
            )

    @contextmanager
    def alone(self, session: Session) -> Iterator[None]:
        """Keep other processes from making tables meanwhile."""
        # Takes effect in an empty file alone, and then for good: what is pruned makes the file smaller.
        session.change("PRAGMA auto_vacuum = INCREMENTAL")
        session.change("BEGIN IMMEDIATE")
        yield
        session.change("COMMIT")

    def _migrate(self, session: Session) -> None:
        super()._migrate(session)
        note = encode_note(ClockNote.taken(session.now_unix_nano()))
        session.change(self.tables.sql("UPDATE {schema} SET clock = ? WHERE clock IS NULL"), (note,))

    def _taken(self, session: Session, names: Sequence[str]) -> set[str]:
        rows = session.rows(
            self.tables.sql(
                "SELECT lower(name) FROM sqlite_master WHERE lower(name) IN ({many})", many=len(names)
            ),
            [name.lower() for name in names],
        )
        return {name for (name,) in rows}
