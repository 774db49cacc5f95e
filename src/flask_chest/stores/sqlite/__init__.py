"""Records in an SQLite file: for one host, with any number of processes and threads."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import LiteralString

from flask_chest._clocks import MAX_STEP_NANO
from flask_chest.errors import ConfigurationError, StoreAbsent, StoreUnavailable
from flask_chest.protocols import Backup, HostClocked
from flask_chest.record import Query, Record
from flask_chest.stores._records import Row, storable_rows
from flask_chest.stores.options import BUSY_TIMEOUT, DEFAULT_NAME, MAX_TIMEOUT
from flask_chest.stores.sql.store import LOWEST_POSITION, SQLStore, numbered_before
from flask_chest.stores.sql.tables import COLUMNS, Session, Tables, row_record
from flask_chest.stores.sqlite.backup import copy_from, copy_into
from flask_chest.stores.sqlite.connections import SQLITE, SQLiteConnections, SQLiteSession
from flask_chest.stores.sqlite.indexes import SQLiteIndexes
from flask_chest.stores.sqlite.schema import SQLiteSchema

logger = logging.getLogger("flask_chest.stores")

PAGES_GIVEN_BACK = 1_000
"""Pages freed at a time: 4 MB, which others wait for as long as for a batch of records."""


ROWS_AT_ONCE = (500, 50, 5, 1)
"""Numbers of rows in a statement, largest first: a connection keeps one compiled for each."""


class Insertion:
    """Inserts rows into the table of records.

    A statement frees Python's lock once, and then waits until it has it back: 5 ms beside a thread that computes,
    and much longer beside one that frees it often and at once takes it again, as that of a busy server does.
    With ``executemany``, which frees it at each row, a chest in a gevent server stored less than came in.
    """

    def __init__(self, tables: Tables, *, numbered: bool = False) -> None:
        """Take rows with their position in front where they are *numbered*."""
        # OR FAIL: to undo one statement of several rows SQLite would copy every page into a temporary file first.
        # What fails undoes the whole transaction here.
        insert: LiteralString = "INSERT OR FAIL INTO {records} ({columns}) VALUES {rows}"
        if numbered:
            insert = insert.replace("({columns})", "(position, {columns})")
        insert += " ON CONFLICT (id) DO NOTHING"
        self._width = len(COLUMNS) + numbered
        self._statements = [(count, tables.sql(insert, rows=count, width=self._width)) for count in ROWS_AT_ONCE]

    def insert(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> int:
        """Insert *rows*, but none whose id is there already; return how many were inserted."""
        most = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // self._width
        begin = inserted = 0
        for count, statement in self._statements:
            while count <= min(most, len(rows) - begin):
                values = list(chain.from_iterable(rows[begin : begin + count]))
                inserted += connection.execute(statement, values).rowcount
                begin += count
        return inserted


class SQLiteStore(SQLStore, HostClocked, Backup):
    """Keeps records in the SQLite file at *path*, in tables whose names begin with *name*.

    Kept means on the disk: the log is synchronised at every commit. The file must lie on a local file system.
    *busy_timeout* is in seconds: how long one writer waits for another before it raises `StoreUnavailable`.
    After `close` the store may be used again. Other SQLite users of the same file in this process must close
    their connections before a fork, as this store does.
    """

    _database: SQLiteConnections

    skew_nano = MAX_STEP_NANO  # who shares the file shares the clock

    def __init__(
        self, path: str | os.PathLike[str], *, name: str = DEFAULT_NAME, busy_timeout: float = BUSY_TIMEOUT
    ) -> None:
        location = os.fspath(path)
        if location in {"", ":memory:"} or location.startswith("file:"):
            raise ConfigurationError(
                f"path must be the path of a file, got {location!r}; MemoryStore keeps records in memory"
            )
        if not 0 <= busy_timeout <= MAX_TIMEOUT:
            raise ConfigurationError(
                f"busy_timeout must be from 0 to {MAX_TIMEOUT} seconds, got {busy_timeout!r}"
            )
        self._path = Path(location).absolute()
        schema = SQLiteSchema(Tables(name, SQLITE), place=f"SQLite {self._path}")
        database = SQLiteConnections(self._path, schema=schema, busy_timeout=busy_timeout)
        super().__init__(database, schema, SQLiteIndexes(database, schema))
        self._insertion = Insertion(schema.tables)
        self._numbered = Insertion(schema.tables, numbered=True)

    @property
    def address(self) -> str:
        """The file, wherever links lead to it from, and the table."""
        return f"sqlite:{self._path.resolve()}#{self._tables.name}"

    @property
    def place(self) -> str:
        """The address, which has no parameters."""
        return self.address

    def __repr__(self) -> str:
        return f"<SQLiteStore {str(self._path)!r} name={self._tables.name!r}>"

    def open(self) -> None:
        """Create the folder, the file and the tables where they are missing; migrate older tables."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StoreUnavailable(
                f"SQLite {self._path}: the folder cannot be made ({exc.strerror}); "
                "make it, or choose another file"
            ) from exc
        self._database.make()

    def write(self, records: Sequence[Record], /) -> None:
        """Keep *records* durably in one transaction; those whose id is kept already are skipped."""
        if not records:
            return
        try:
            self._write(records, self._insertion.insert)
        except StoreAbsent:
            if self.store_id is None:
                raise  # it was never there
            logger.warning("SQLite %s was removed while it was in use: it is made again", self._path)
            self.open()
            self._write(records, self._insertion.insert)

    def load(self, records: Sequence[Record], /) -> None:
        """Keep *records* as `write` does, but at positions that no exporter comes to."""
        if records:
            self._write(records, self._insert_before)

    def _insert_before(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> int:
        ((lowest,),) = connection.execute(self._tables.sql(LOWEST_POSITION)).fetchall()
        return self._numbered.insert(connection, numbered_before(rows, lowest))

    def _write(
        self, records: Sequence[Record], insert: Callable[[sqlite3.Connection, Sequence[Row]], int]
    ) -> None:
        rows = storable_rows(records)
        with self._database.recording() as session:
            left = self._spared(session, records)
            if len(left) < len(records):
                rows = storable_rows(left)
            inserted = insert(session.connection, rows)
            conflicts = self._conflicting(session, left) if inserted < len(rows) else []
        self._dropped.add(len(records) - len(left))
        self._conflicts.note(conflicts)

    def prune(self, before_unix_nano: int, /, *, limit: int, keep_unexported: bool = True) -> int:
        """Delete the oldest records that began before that time, and give free pages back to the file system.

        That works in a file that this store has made; another one needs ``PRAGMA auto_vacuum = INCREMENTAL`` and
        then a ``VACUUM``, which locks it, by its owner. Free pages are used again in any case.
        """
        count = super().prune(before_unix_nano, limit=limit, keep_unexported=keep_unexported)
        if count:
            # Free pages do no harm; where others write without a pause, they wait for the next batch.
            with suppress(StoreUnavailable), self._database.connection() as connection:
                # Not execute, which takes the first step of the statement, and gives one page back.
                connection.executescript(f"PRAGMA incremental_vacuum({PAGES_GIVEN_BACK})")
        return count

    def forget(self, query: Query, /) -> int:
        """Delete every record that matches, and what was set aside of them; return their number.

        Their bytes are overwritten in the file, and go from the write-ahead log unless somebody reads meanwhile.
        """
        count = super().forget(query)
        if count:
            with suppress(StoreUnavailable):
                self._database.empty_log()
        return count

    def backup(self, path: Path, /, *, progress: Callable[[float], object]) -> None:
        """Write all that the file holds now, tables of others too, into the file *path*; others go on writing."""
        copy_into(self._database, path, progress=progress)

    def restore(self, path: Path, /, *, overwrite: bool = False) -> None:
        """Put what `backup` wrote in place of all that the file holds, also while others have it open."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        copy_from(self._database, path, schema=self._schema, overwrite=overwrite)

    def clock_note(self) -> str | None:
        """Return what the host's clock told at the last run of retention, or when the tables were made."""
        with self._database.reading() as session:
            ((note,),) = session.rows(self._tables.sql("SELECT clock FROM {schema}"))
        return None if note is None else str(note)

    def note_clock(self, note: str, /) -> None:
        """Keep *note*."""
        with self._database.writing() as session:
            session.change(self._tables.sql("UPDATE {schema} SET clock = ?"), (note,))

    def _conflicting(self, session: SQLiteSession, records: Sequence[Record]) -> list[str]:
        select = self._tables.sql("SELECT {columns} FROM {records} WHERE id = ?")
        return [record.id for record in records if row_record(*session.rows(select, (record.id,))) != record]

    def _size_bytes(self, session: Session) -> int:  # noqa: ARG002 - the files tell, the write-ahead log with them
        return _size(self._path) + _size(Path(f"{self._path}-wal"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
