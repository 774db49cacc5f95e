"""Records in an SQLite file: for one host, with any number of processes and threads."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from flask_chest._clocks import MAX_STEP_NANO
from flask_chest.errors import ConfigurationError, StoreAbsent, StoreUnavailable
from flask_chest.protocols import HasNeighbours, HostClocked, Store, StoreStatus
from flask_chest.record import Query, Record
from flask_chest.stores._deletions import Dropped
from flask_chest.stores._records import DuplicateIds, storable_rows
from flask_chest.stores.sql.deletion import SQLDeletion
from flask_chest.stores.sql.leases import SQLLeases
from flask_chest.stores.sql.outbox import SQLOutbox
from flask_chest.stores.sql.query import find
from flask_chest.stores.sql.statistics import SQLStatistics
from flask_chest.stores.sql.tables import Tables, row_record
from flask_chest.stores.sqlite.connections import Connections, SQLiteSession
from flask_chest.stores.sqlite.dialect import SQLITE
from flask_chest.stores.sqlite.insertion import Insertion
from flask_chest.stores.sqlite.schema import SQLiteSchema

logger = logging.getLogger("flask_chest.stores")

MAX_BUSY_TIMEOUT = 3600
PAGES_GIVEN_BACK = 1_000
"""At a time: 4 MB, which others wait for as long as for a batch of records."""


class SQLiteStore(SQLOutbox, SQLDeletion, SQLLeases, SQLStatistics, HasNeighbours, HostClocked, Store):
    """Keeps records in the SQLite file at *path*, in tables whose names begin with *name*.

    Kept means on the disk: the log is synchronised at every commit. The file must lie on a local file system.
    *busy_timeout* is in seconds: how long one writer waits for another before it raises `StoreUnavailable`.
    After `close` the store may be used again. Other SQLite users of the same file in this process must close
    their connections before a fork, as this store does.
    """

    skew_nano = MAX_STEP_NANO  # who shares the file shares the clock

    def __init__(
        self, path: str | os.PathLike[str], *, name: str = "flask_chest", busy_timeout: float = 5.0
    ) -> None:
        location = os.fspath(path)
        if location in {"", ":memory:"} or location.startswith("file:"):
            raise ConfigurationError(
                f"path must be the path of a file, got {location!r}; MemoryStore keeps records in memory"
            )
        if not 0 <= busy_timeout <= MAX_BUSY_TIMEOUT:
            raise ConfigurationError(
                f"busy_timeout must be from 0 to {MAX_BUSY_TIMEOUT} seconds, got {busy_timeout!r}"
            )
        self._path = Path(location).absolute()
        tables = Tables(name, SQLITE)
        self._schema = SQLiteSchema(tables, self._path)
        self._connections = Connections(self._path, busy_timeout=busy_timeout, check=self._schema.check)
        super().__init__(self._connections, tables)
        self._insertion = Insertion(tables)
        self._conflicts = DuplicateIds()
        self._dropped = Dropped()

    @property
    def address(self) -> str:
        """The file, wherever links lead to it from, and the table."""
        return f"sqlite:{self._path.resolve()}#{self._tables.name}"

    @property
    def place(self) -> str:
        """The address, which has no parameters."""
        return self.address

    @property
    def store_id(self) -> str | None:
        """What was made with the tables."""
        return self._schema.store_id

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
        self._connections.make(self._schema.make)

    def write(self, records: Sequence[Record], /) -> None:
        """Keep *records* durably in one transaction; those whose id is kept already are skipped."""
        if not records:
            return
        try:
            self._write(records)
        except StoreAbsent:
            if self.store_id is None:
                raise  # it was never there
            logger.warning("SQLite %s was removed while it was in use: it is made anew", self._path)
            self.open()
            self._write(records)

    def _write(self, records: Sequence[Record]) -> None:
        rows = storable_rows(records)
        with self._connections.recording() as session:
            left = self._spared(session, records)
            if len(left) < len(records):
                rows = storable_rows(left)
            inserted = self._insertion.insert(session.connection, rows)
            conflicts = self._conflicting(session, left) if inserted < len(rows) else []
        self._dropped.add(len(records) - len(left))
        self._conflicts.note(conflicts)

    def query(self, query: Query, /) -> Iterable[Record]:
        """Yield the records that match, newest first; nothing is locked while the caller iterates."""
        return find(self._connections, self._tables, query)

    def status(self) -> StoreStatus:
        """Count what is kept; the size is that of the file and of its write-ahead log."""
        with self._connections.reading() as session:
            ((count, oldest, newest),) = session.rows(
                self._tables.sql("SELECT count(*), min(time_unix_nano), max(time_unix_nano) FROM {records}")
            )
        return StoreStatus(
            description=f"SQLite {self._path}",
            records=count,
            oldest_unix_nano=oldest,
            newest_unix_nano=newest,
            size_bytes=_size(self._path) + _size(Path(f"{self._path}-wal")),
            conflicts=self._conflicts.count,
        )

    def has_table(self, name: str, /) -> bool:
        """Tell whether the file has a table *name*."""
        with self._connections.reading() as session:
            return self._schema.has_table(session, name)

    def prune(self, before_unix_nano: int, /, *, limit: int, keep_unexported: bool = True) -> int:
        """Delete the oldest records that began before that time, and give free pages back to the file system.

        That works in a file that this store has made; another one needs ``PRAGMA auto_vacuum = INCREMENTAL`` and
        then a ``VACUUM``, which locks it, by its owner. Free pages are used again in any case.
        """
        count = super().prune(before_unix_nano, limit=limit, keep_unexported=keep_unexported)
        if count:
            # Free pages do no harm; where others write without a pause, they wait for the next batch.
            with suppress(StoreUnavailable), self._connections.connection() as connection:
                # Not execute, which takes the first step of the statement, and gives one page back.
                connection.executescript(f"PRAGMA incremental_vacuum({PAGES_GIVEN_BACK})")
        return count

    def forget(self, query: Query, /) -> int:
        """Delete every record that matches, and what was set aside of them; give how many those were.

        Their bytes are overwritten in the file, and go from the write-ahead log unless somebody reads meanwhile.
        """
        count = super().forget(query)
        if count:
            with suppress(StoreUnavailable):
                self._connections.empty_log()
        return count

    def clock_note(self) -> str | None:
        """Give what the host's clock told at the last run of retention, or when the tables were made."""
        with self._connections.reading() as session:
            ((note,),) = session.rows(self._tables.sql("SELECT clock FROM {schema}"))
        return None if note is None else str(note)

    def note_clock(self, note: str, /) -> None:
        """Keep *note*."""
        with self._connections.writing() as session:
            session.change(self._tables.sql("UPDATE {schema} SET clock = ?"), (note,))

    def close(self) -> None:
        """Close all connections, those in use as soon as they come back."""
        self._connections.close()

    def _conflicting(self, session: SQLiteSession, records: Sequence[Record]) -> list[str]:
        select = self._tables.sql("SELECT {columns} FROM {records} WHERE id = ?")
        return [record.id for record in records if row_record(*session.rows(select, (record.id,))) != record]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
