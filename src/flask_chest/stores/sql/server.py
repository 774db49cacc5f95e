"""What the stores on a database server share: how records are written, and asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import LiteralString, Protocol

from flask_chest.protocols import HasNeighbours, Store, StoreStatus
from flask_chest.record import Query, Record
from flask_chest.stores._addresses import full_address
from flask_chest.stores._deletions import Dropped
from flask_chest.stores._records import DuplicateIds, storable_rows
from flask_chest.stores.sql.deletion import SQLDeletion
from flask_chest.stores.sql.leases import SQLLeases
from flask_chest.stores.sql.outbox import SQLOutbox
from flask_chest.stores.sql.pool import ServerReadOnly
from flask_chest.stores.sql.query import find
from flask_chest.stores.sql.schema import SQLSchema
from flask_chest.stores.sql.statistics import SQLStatistics
from flask_chest.stores.sql.tables import MANY_IDS, Database, Session, SQLValue, Tables, row_record

Row = tuple[SQLValue, ...]


class RecordingSession(Session, Protocol):
    """A session in the one transaction that may write records."""

    position: int
    """Of the last record."""

    @abstractmethod
    def insert(self, tables: Tables, rows: Sequence[Row], /) -> bool:
        """Insert *rows*, each with its position in front; False, and none is, when one of the ids is there."""


class ServerDatabase(Database, Protocol):
    """A server, on which several transactions write at once."""

    @abstractmethod
    def recording(self) -> AbstractContextManager[RecordingSession]:
        """Lend a session that holds the lock on the position of the last record."""

    @property
    @abstractmethod
    def most_stale(self) -> int:
        """How many connections to a server that is no longer the primary may be lent in a row."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections, those in use when they come back."""


class ServerAddress(Protocol):
    """Where a server is, as the user said it; as text, without what is secret."""

    @abstractmethod
    def choosing(self) -> Mapping[str, object]:
        """Give what beside that chooses the tables; no password."""


class ServerStore(SQLOutbox, SQLDeletion, SQLLeases, SQLStatistics, HasNeighbours, Store):
    """Writes records one transaction after the other, whoever writes them, and numbers them in that order."""

    _size: LiteralString
    """A SELECT of the bytes that the table of the records takes, by its name."""

    _kind: str
    """How addresses begin."""

    def __init__(
        self,
        database: ServerDatabase,
        tables: Tables,
        schema: SQLSchema,
        *,
        description: str,
        where: ServerAddress,
    ) -> None:
        super().__init__(database, tables)
        self._server = database
        self._schema_of_server = schema
        self._description = description
        self._where = where
        self._conflicts = DuplicateIds()
        self._dropped = Dropped()

    @property
    def place(self) -> str:
        """Server, database and table."""
        return f"{self._kind}:{self._where}#{self._tables.name}"

    @property
    def address(self) -> str:
        """The same, and a digest of what else chooses the table."""
        return full_address(self.place, self._where.choosing())

    @property
    def store_id(self) -> str | None:
        """What was made with the tables."""
        return self._schema_of_server.store_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._kind}:{self._where} name={self._tables.name!r}>"

    def write(self, records: Sequence[Record], /) -> None:
        """Keep *records* durably in one transaction; those whose id is kept already are skipped."""
        # All that can be done before is: others wait while the transaction lasts.
        rows: dict[str, Row] = {}
        for row in storable_rows(records):
            rows.setdefault(str(row[0]), row)
        conflicts: list[str] = []
        if len(rows) < len(records):
            firsts = {record.id: record for record in reversed(records)}
            conflicts = [record.id for record in records if record != firsts[record.id]]
        if rows:
            conflicts += self._write_anew(rows, records)
        self._conflicts.note(conflicts)

    def query(self, query: Query, /) -> Iterable[Record]:
        """Yield the records that match, newest first; nothing is locked while the caller iterates."""
        return find(self._server, self._tables, query)

    def status(self) -> StoreStatus:
        """Count what is kept; the size is that of the records with their indexes."""
        with self._server.reading() as session:
            ((count, oldest, newest),) = session.rows(
                self._tables.sql("SELECT count(*), min(time_unix_nano), max(time_unix_nano) FROM {records}")
            )
            ((size,),) = session.rows(self._tables.sql(self._size))
        return StoreStatus(
            description=self._description,
            records=int(count),
            oldest_unix_nano=oldest,
            newest_unix_nano=newest,
            size_bytes=None if size is None else int(size),
            conflicts=self._conflicts.count,
        )

    def has_table(self, name: str, /) -> bool:
        """Tell whether the database has a table *name*."""
        with self._server.reading() as session:
            return self._schema_of_server.has_table(session, name)

    def close(self) -> None:
        """Close this process's connections; the store may be used again."""
        self._server.close()

    def _write_anew(self, rows: dict[str, Row], records: Sequence[Record]) -> list[str]:
        """Write; at once again where only a connection from before a failover was to blame."""
        for _ in range(self._server.most_stale):
            with suppress(ServerReadOnly):  # which closes it
                return self._write(rows, records)
        return self._write(rows, records)

    def _write(self, rows: dict[str, Row], records: Sequence[Record]) -> list[str]:
        with self._server.recording() as session:
            left = self._spared(session, records)
            if len(left) < len(records):
                ids = {record.id for record in left}
                rows = {record_id: row for record_id, row in rows.items() if record_id in ids}
            conflicts = self._insert_new(session, rows, left)
        self._dropped.add(len(records) - len(left))
        return conflicts

    def _insert_new(
        self, session: RecordingSession, rows: dict[str, Row], records: Sequence[Record]
    ) -> list[str]:
        """Insert those of *rows* that are not there yet; give the ids that are there with other content."""
        conflicts: list[str] = []
        if not session.insert(self._tables, _numbered(rows.values(), session.position)):
            kept = self._kept(session, list(rows))
            conflicts = [record.id for record in records if kept.get(record.id, record) != record]
            rows = {record_id: row for record_id, row in rows.items() if record_id not in kept}
            session.insert(self._tables, _numbered(rows.values(), session.position))
        session.change(self._tables.sql("UPDATE {schema} SET position = position + ?"), (len(rows),))
        return conflicts

    def _kept(self, session: Session, ids: Sequence[str]) -> dict[str, Record]:
        kept: dict[str, Record] = {}
        for first in range(0, len(ids), MANY_IDS):
            chunk = ids[first : first + MANY_IDS]
            select = self._tables.sql("SELECT {columns} FROM {records} WHERE id IN ({many})", many=len(chunk))
            kept |= {record.id: record for record in map(row_record, session.rows(select, chunk))}
        return kept


def _numbered(rows: Iterable[Row], position: int) -> list[Row]:
    return [(number, *row) for number, row in enumerate(rows, position + 1)]
