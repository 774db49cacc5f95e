"""What every SQL store does alike: all but how records are written."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import LiteralString

from flask_chest.aggregates import AggregateQuery, Answer
from flask_chest.protocols import (
    ColumnReader,
    Columns,
    HasNeighbours,
    IndexesBySQL,
    LoadsHistory,
    Store,
    StoreStatus,
    VariableIndex,
)
from flask_chest.record import Query, Record
from flask_chest.stores._records import DuplicateIds, Row
from flask_chest.stores._time_limit import naming_indexes
from flask_chest.stores.sql.aggregates import SQLAggregation
from flask_chest.stores.sql.deletion import SQLDeletion
from flask_chest.stores.sql.outbox import SQLOutbox
from flask_chest.stores.sql.query import find, find_columns
from flask_chest.stores.sql.schema import SQLSchema
from flask_chest.stores.sql.tables import Database, Session
from flask_chest.stores.sql.views import SQLViews

LOWEST_POSITION: LiteralString = "SELECT min(position) FROM {records}"


def numbered_before(rows: Sequence[Row], lowest: int | None) -> list[Row]:
    """Return *rows* with positions in front that are below *lowest* and 0, from where every exporter begins."""
    first = min(lowest or 0, 0) - len(rows)
    return [(number, *row) for number, row in enumerate(rows, first)]


class SQLStore(
    SQLOutbox,
    SQLDeletion,
    SQLAggregation,
    SQLViews,
    ColumnReader,
    LoadsHistory,
    IndexesBySQL,
    HasNeighbours,
    Store,
):
    """A store on the tables of *schema* in *database*, with *indexes* on variables."""

    def __init__(self, database: Database, schema: SQLSchema, indexes: IndexesBySQL) -> None:
        super().__init__(database, schema.tables)
        self._indexes = indexes
        self._schema = schema
        self._conflicts = DuplicateIds()

    @property
    def store_id(self) -> str | None:
        """The id that was made with the tables; ``None`` until they are known."""
        return self._schema.store_id

    def query(self, query: Query, /, *, timeout: timedelta | None = None) -> Iterable[Record]:
        """Yield the records that match, newest first; nothing is locked while the caller iterates."""
        with naming_indexes(query, self):
            yield from find(self._database, self._tables, query, timeout=timeout)

    def columns(self, query: Query, /, *, timeout: timedelta | None = None) -> Iterable[Columns]:
        """Yield the columns of the records that match, newest first; *query* asks for time alone."""
        return find_columns(self._database, self._tables, query, timeout=timeout)

    def aggregate(self, query: AggregateQuery, /, *, timeout: timedelta | None = None) -> Answer:
        """Return the answer, of one moment; past *timeout*, raise `QueryTimeout`."""
        with naming_indexes(query.query, self):
            return super().aggregate(query, timeout=timeout)

    def status(self) -> StoreStatus:
        """Count the records that are kept, and measure the room they take with their indexes."""
        with self._database.reading() as session:
            ((count, oldest, newest),) = session.rows(
                self._tables.sql("SELECT count(*), min(time_unix_nano), max(time_unix_nano) FROM {records}")
            )
            size = self._size_bytes(session)
        return StoreStatus(
            description=self._schema.place,
            records=int(count),
            oldest_unix_nano=oldest,
            newest_unix_nano=newest,
            size_bytes=size,
            conflicts=self._conflicts.count,
        )

    def has_table(self, name: str, /) -> bool:
        """Return whether the database has a table *name*."""
        with self._database.reading() as session:
            return self._schema.has_table(session, name)

    def indexes(self) -> Sequence[VariableIndex]:
        """Return the indexes on variables, by name of the variable; other indexes are not mentioned."""
        return self._indexes.indexes()

    def add_index(self, variable: str, /) -> bool:
        """Make the index on *variable*, and return whether there was none; one that is not valid is made again.

        Others go on writing meanwhile on a server. In an SQLite file they wait for ``busy_timeout``; what they
        could not write by then waits in their journals.
        """
        return self._indexes.add_index(variable)

    def index_sql(self, variable: str, /) -> str:
        """Return the statements that `add_index` would run now, or an empty text where there is nothing to do."""
        return self._indexes.index_sql(variable)

    def index_progress(self, variable: str, /) -> float | None:
        """Return the share of the index on *variable* that is made, from 0 to 1, while `add_index` runs.

        Return ``None`` where nobody makes it; MySQL, MariaDB and SQLite never say.
        """
        return self._indexes.index_progress(variable)

    def remove_index(self, variable: str, /) -> bool:
        """Remove the index on *variable*, and return whether there was one."""
        return self._indexes.remove_index(variable)

    def close(self) -> None:
        """Close this process's connections, those in use when they come back; the store may be used again."""
        self._database.close()

    @abstractmethod
    def _size_bytes(self, session: Session) -> int | None:
        """Return the bytes on the disk, or ``None`` where the database does not tell."""
