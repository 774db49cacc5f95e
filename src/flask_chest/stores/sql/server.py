"""What the stores on a database server share: checked connections, and how records are written."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from typing import Any, Generic, LiteralString, Protocol, TypeAlias, TypeVar

from flask_chest._process import PerProcess
from flask_chest.errors import SchemaError
from flask_chest.protocols import IndexesBySQL, Partitioned, PartitionStatus
from flask_chest.record import Record
from flask_chest.stores._records import Row, storable_rows
from flask_chest.stores._time_limit import TimeLimit
from flask_chest.stores.options import full_address
from flask_chest.stores.sql.partitions import Partition, PartitionMissing, Partitions
from flask_chest.stores.sql.pool import Lender, ServerReadOnly
from flask_chest.stores.sql.schema import SQLSchema
from flask_chest.stores.sql.store import LOWEST_POSITION, SQLStore, numbered_before
from flask_chest.stores.sql.tables import Database, Session, Tables, row_record

MOST_AMONG = 5_000
"""Ids that are read at most between the first and the last of a batch: writers are many, and write at once."""


class ServerSession(Session, Protocol):
    """A session on a server, where several transactions write at once."""

    position: int
    """Position of the last record; 0 but in the transaction that holds the lock on it."""

    @abstractmethod
    def insert(self, tables: Tables, rows: Sequence[Row], /) -> bool:
        """Insert *rows*, each with its position in front; return False, with none inserted, if an id is there."""

    @abstractmethod
    def rows_of(self, tables: Tables, ids: Sequence[str], /) -> list[tuple[Any, ...]]:
        """Fetch the rows of the records that have one of *ids*."""


C_co = TypeVar("C_co", covariant=True)
S_co = TypeVar("S_co", bound=ServerSession, covariant=True)


class ServerConnections(Database, Generic[C_co, S_co]):
    """Lends sessions on connections of *pool*, after it has looked at the tables once in each process."""

    def __init__(self, pool: Lender[C_co], schema: SQLSchema) -> None:
        self._pool = pool
        self._schema = schema
        self._tables = schema.tables
        self._place = schema.place
        self._checked = PerProcess(lambda: False)
        """Whether this process has looked at the tables."""

    @property
    def most_stale(self) -> int:
        """Connections to a former primary that may be lent in a row."""
        return self._pool.most_stale

    @contextmanager
    def reading(self) -> Iterator[S_co]:
        """Lend a session for single statements."""
        with self.unchecked() as session:
            if not self._checked.get():
                self._schema.check(session)
                self._checked.set(True)
            yield session

    @contextmanager
    def answering(self, *, timeout: timedelta | None) -> Iterator[S_co]:
        """Lend a session for the statements of one answer, on one snapshot; see `Database.answering`."""
        limit = TimeLimit(timeout)
        if not self._checked.get():
            with self.reading():
                pass
        with self.snapshot(limit) as session:
            yield session

    @abstractmethod
    def snapshot(self, limit: TimeLimit) -> AbstractContextManager[S_co]:
        """Lend a session in a transaction that only reads, and whose statements take no longer than *limit*."""

    @abstractmethod
    def recording(self) -> AbstractContextManager[S_co]:
        """Lend a session that holds the lock on the position of the last record."""

    @abstractmethod
    def unchecked(self) -> AbstractContextManager[S_co]:
        """Lend a session for single statements, whatever tables there are."""

    def close(self) -> None:
        """Close our own connections, those in use when they come back; a pool that was given stays open."""
        self._pool.close()

    def _tables_changed(self, said: str) -> SchemaError:
        """Return the error for a table or column that is missing, in the server's own words."""
        return SchemaError(
            f"{self._place}: {said}; another program changed the tables of this chest, or drops them"
        )


class ServerAddress(Protocol):
    """Where a server is, as the user said it; as text, without what is secret."""

    @abstractmethod
    def choosing(self) -> Mapping[str, object]:
        """Return the other parameters that choose the tables, by name; no password is among them."""


_WITHOUT_RECORD: LiteralString = (
    "DELETE FROM {rejected} WHERE NOT EXISTS (SELECT 1 FROM {records} AS record WHERE record.id = record_id)"
)
"""Deletes what was set aside of records that are dropped."""


class ServerStore(SQLStore, Partitioned):
    """Writes records one transaction after the other, whoever writes them, and numbers them in that order."""

    _database: ServerConnections[object, ServerSession]

    _size: LiteralString
    """A SELECT of the bytes that the table of the records takes with its indexes."""

    _kind: str
    """Scheme of addresses: the name of the database system."""

    def __init__(
        self,
        database: ServerConnections[object, ServerSession],
        schema: SQLSchema,
        indexes: IndexesBySQL,
        partitions: Partitions[ServerConnections[object, ServerSession]],
        *,
        where: ServerAddress,
    ) -> None:
        super().__init__(database, schema, indexes)
        self._partitions = partitions
        self._where = where

    @property
    def place(self) -> str:
        """Server, database and table."""
        return f"{self._kind}:{self._where}#{self._tables.name}"

    @property
    def address(self) -> str:
        """The place, and a digest of what else chooses the table."""
        return full_address(self.place, self._where.choosing())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._kind}:{self._where} name={self._tables.name!r}>"

    def open(self) -> None:
        """Create the tables where they are missing and migrate older ones; with ``create=False`` check them."""
        with self._database.unchecked() as session:
            if self._schema.creates:
                self._schema.make(session)
            else:
                self._schema.check(session)
        self._partitions.make_ahead()

    def write(self, records: Sequence[Record], /) -> None:
        """Keep *records* durably in one transaction; those whose id is kept already are skipped."""
        self._keep(records, _insert_behind)

    def load(self, records: Sequence[Record], /) -> None:
        """Keep *records* as `write` does, but at positions that no exporter comes to."""
        self._keep(records, _insert_before)

    def _keep(self, records: Sequence[Record], insert: _Insert) -> None:
        # All that can be done before is: others wait while the transaction lasts.
        rows: dict[str, Row] = {}
        for row in storable_rows(records):
            rows.setdefault(str(row[0]), row)
        conflicts: list[str] = []
        if len(rows) < len(records):
            firsts = {record.id: record for record in reversed(records)}
            conflicts = [record.id for record in records if record != firsts[record.id]]
        if rows:
            try:
                conflicts += self._write_again(rows, records, insert)
            except PartitionMissing:  # dropped by hand
                self._partitions.look_again()
                conflicts += self._write_again(rows, records, insert)
        self._conflicts.note(conflicts)

    def _write_again(self, rows: dict[str, Row], records: Sequence[Record], insert: _Insert) -> list[str]:
        """Write; at once again where only a connection from before a failover was to blame."""
        for _ in range(self._database.most_stale):
            with suppress(ServerReadOnly):  # which closes it
                return self._write(rows, records, insert)
        return self._write(rows, records, insert)

    def _write(self, rows: dict[str, Row], records: Sequence[Record], insert: _Insert) -> list[str]:
        # Before: to make one would end the transaction on some servers, and its lock.
        parted = self._partitions.prepare([record.time_unix_nano for record in records])
        with self._database.recording() as session:
            left = self._spared(session, records)
            if len(left) < len(records):
                ids = {record.id for record in left}
                rows = {record_id: row for record_id, row in rows.items() if record_id in ids}
            conflicts = self._insert_new(session, rows, left, insert, look_first=parted)
        self._dropped.add(len(records) - len(left))
        return conflicts

    def _insert_new(
        self,
        session: ServerSession,
        rows: dict[str, Row],
        records: Sequence[Record],
        insert: _Insert,
        *,
        look_first: bool,
    ) -> list[str]:
        """Insert those of *rows* that are not there yet; return the ids that are there with other content.

        With *look_first*, no key of the table tells an id that is there with another time.
        """
        conflicts: list[str] = []
        if look_first or not insert(session, self._tables, list(rows.values())):
            kept = self._kept(session, self._perhaps_kept(session, rows) if look_first else list(rows))
            conflicts = [each.id for each in records if each.id in kept and kept[each.id] != each]
            rows = {record_id: row for record_id, row in rows.items() if record_id not in kept}
            insert(session, self._tables, list(rows.values()))
        return conflicts

    def _perhaps_kept(self, session: Session, ids: Iterable[str]) -> list[str]:
        """Return those of *ids* that are there, or all where too many others lie among them.

        To look for each of a thousand in each partition takes long. But ids are in the order of time, so nearly
        all partitions hold none between the first and the last of a batch, which one look shows.
        """
        asked = [each for each in ids if "\0" not in each]  # which no database has to take; all can be encoded
        if not asked:
            return []
        select = "SELECT id FROM {records} WHERE id >= ? AND id <= ? ORDER BY id LIMIT ?"
        among = session.rows(self._tables.sql(select), (min(asked), max(asked), MOST_AMONG))
        there = {record_id for (record_id,) in among}
        return asked if len(among) == MOST_AMONG else [each for each in asked if each in there]

    def _kept(self, session: ServerSession, ids: Sequence[str]) -> dict[str, Record]:
        rows = session.rows_of(self._tables, ids) if ids else ()
        return {record.id: record for record in map(row_record, rows)}

    def partitions(self) -> PartitionStatus:
        """Return how the records are parted by time, and up to when."""
        return self._partitions.status()

    def partitions_sql(self) -> str:
        """Return the statements that make the partitions that are missing from now on, or an empty text."""
        return "".join(f"{statement};\n" for statement in self._partitions.sql())

    def reach(self, before_unix_nano: int, /) -> int:
        """Return the time before which `prune` deletes when given this one: it, or where a partition begins."""
        layout = self._partitions.layout()
        return before_unix_nano if layout is None else layout.reach(before_unix_nano)

    def prune(self, before_unix_nano: int, /, *, limit: int, keep_unexported: bool = True) -> int:
        """Delete the oldest records that began before that time; return their number.

        Partitions that all exporters have had are dropped as a whole, until those hold *limit* records; the rest
        is deleted as if there were none, and so is all where this process may change no table.
        """
        layout = self._partitions.layout()
        if layout is None:
            return super().prune(before_unix_nano, limit=limit, keep_unexported=keep_unexported)
        with self._database.recording() as session:
            latest = self._latest_cut_off(session)
            reach = layout.reach(min(before_unix_nano, latest))
            doomed = layout.droppable(reach) if self._schema.creates else []
            if keep_unexported:
                doomed = [each for each in doomed if self._is_had_by_all(session, each)]
            if doomed:  # before they go, since others write into them until then
                self._cut_off_at(session, reach, latest=latest)
        count = 0
        for partition in doomed:
            if count < limit:
                held = self._count(partition)
                if not self._partitions.drop(partition):
                    return count  # somebody reads it: the next run finds it again
                count += held
        if doomed:
            self._partitions.look_again()
            with self._database.writing() as session:
                session.change(self._tables.sql(_WITHOUT_RECORD))
        if count >= limit:
            return count
        return count + super().prune(reach, limit=limit - count, keep_unexported=keep_unexported)

    def _is_had_by_all(self, session: Session, partition: Partition) -> bool:
        newest = (
            "SELECT position FROM {records} WHERE time_unix_nano >= ? AND time_unix_nano < ?"
            " AND position > (SELECT min(position) FROM {exporters}) LIMIT 1"
        )
        return not session.rows(self._tables.sql(newest), (partition.lower, partition.upper))

    def _count(self, partition: Partition) -> int:
        select = "SELECT count(*) FROM {records} WHERE time_unix_nano >= ? AND time_unix_nano < ?"
        with self._database.reading() as session:
            ((count,),) = session.rows(self._tables.sql(select), (partition.lower, partition.upper))
        return int(count)

    def _size_bytes(self, session: Session) -> int | None:
        ((size,),) = session.rows(self._tables.sql(self._size))
        return None if size is None else int(size)


_Insert: TypeAlias = Callable[[ServerSession, Tables, Sequence[Row]], bool]
"""Inserts rows as `ServerSession.insert` does, at positions of its own choice."""


def _insert_behind(session: ServerSession, tables: Tables, rows: Sequence[Row]) -> bool:
    numbered: list[Row] = [(number, *row) for number, row in enumerate(rows, session.position + 1)]
    if not session.insert(tables, numbered):
        return False
    session.change(tables.sql("UPDATE {schema} SET position = position + ?"), (len(rows),))
    return True


def _insert_before(session: ServerSession, tables: Tables, rows: Sequence[Row]) -> bool:
    ((lowest,),) = session.rows(tables.sql(LOWEST_POSITION))
    return session.insert(tables, numbered_before(rows, lowest))
