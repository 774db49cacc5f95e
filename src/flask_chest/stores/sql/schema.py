"""The tables of a chest in an SQL database: in which version they are, and whether they are ours at all."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import LiteralString, TypeAlias

from flask_chest.errors import SchemaError, StoreAbsent
from flask_chest.stores.sql.tables import Session, Tables

PROGRAM = "flask_chest"
"""The first column of the one row of ``{schema}``; the second is the version."""

INDEXES = ("_time", "_request", "_trace", "_route", "_status", "_errors")
"""Ends of the indexes' names."""

PARTIAL_INDEXES: tuple[LiteralString, ...] = (
    'CREATE INDEX "{name}_request" ON {records} (request_id)',
    'CREATE INDEX "{name}_trace" ON {records} (trace_id) WHERE trace_id IS NOT NULL',
    'CREATE INDEX "{name}_route" ON {records} (route, time_unix_nano, id)',
    'CREATE INDEX "{name}_status" ON {records} (status_code, time_unix_nano, id) WHERE status_code <> 200',
    """
    CREATE INDEX "{name}_errors" ON {records} (time_unix_nano, id) WHERE error IS NOT NULL OR status_code >= 500
    """,
)
"""Statements for the indexes beside that of the time, where a database has partial ones; see `Migrations`."""

Migrations: TypeAlias = tuple[tuple[LiteralString, ...], ...]
"""Statements that bring the tables from version 0 to 1, …; a released one changes by an `Addition` alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """A column that tables of an earlier release lack until *statements* have been run.

    It has a default and leaves the version as it is: a process of that release, which stops at a newer version,
    goes on writing and reading beside this one while an app is deployed. New tables are made with it.
    """

    table: str
    """Role of the table, or of the view."""
    column: str
    statements: tuple[LiteralString, ...]


def column_of_records(
    column: LiteralString, definition: LiteralString, *, view: tuple[LiteralString, ...]
) -> tuple[Addition, ...]:
    """Return the additions of a *column* of records, and of the same to the view, which *view* makes again."""
    add: LiteralString = f"ALTER TABLE {{records}} ADD COLUMN {column} {definition}"
    return (
        Addition(table="records", column=column, statements=(add,)),
        Addition(table="variables", column=column, statements=view),
    )


class SQLSchema(ABC):
    """What the part of a database that belongs to one chest must look like."""

    _migrations: Migrations
    _additions: tuple[Addition, ...]
    """Made in their order, each of them if the table is there without its column."""
    _columns: LiteralString
    """A SELECT of the names of the columns of a table, or of a view."""
    _elsewhere = "another database"
    """Way out, for messages, where another program has a table of such a name."""

    def __init__(self, tables: Tables, *, place: str, creates: bool = True) -> None:
        """Name the *place* as for people, ``SQLite /var/lib/db``; without *creates* others make the tables."""
        self.tables = tables
        self.place = place
        self.creates = creates
        self._newest = len(self._migrations)
        self._by_whom = "when the first record is written" if creates else "by a store that may, with create=True"
        self._migrated = (
            f"they are migrated {self._by_whom}{', or' if creates else ':'} run flask chest migrate"
            f"{'' if creates else ' there'}"
        )
        self._ours = f"the tables of {tables.name!r} in {place}"
        self.store_id: str | None = None
        """The id that was made with the tables; where they are made again, they keep the one that is known."""

    def check(self, session: Session) -> None:
        """Raise `SchemaError` unless our tables are there, in the version of this release."""
        version = self.version(session)
        if version is None:
            raise StoreAbsent(f"{self._ours} do not exist yet; they are made {self._by_whom}")
        if version < self._newest:
            raise SchemaError(f"{self._ours} are of the older version {version}; {self._migrated}")
        for addition in self._additions:
            if addition.table == "records" and self._lacks(session, addition):
                raise SchemaError(
                    f"{self._ours} are of an earlier release, without the column {addition.column}; "
                    f"{self._migrated}"
                )

    def has_table(self, session: Session, name: str) -> bool:
        """Return whether there is a table *name*, whoever made it."""
        return name.lower() in self._taken(session, [name])

    def make(self, session: Session) -> None:
        """Make or migrate our tables; of several processes one does it, and the others wait for it."""
        if self.version(session) != self._newest or any(self._lacks(session, each) for each in self._additions):
            with self.alone(session):
                self._migrate(session)

    @abstractmethod
    def alone(self, session: Session) -> AbstractContextManager[None]:
        """Let no other process make the tables until the block, or the session's transaction, has ended."""

    def _migrate(self, session: Session) -> None:
        for addition in self._additions:  # first, as migrations that come again show what is added
            # None if another process was first.
            for statement in addition.statements if self._lacks(session, addition) else ():
                session.change(self._adapted(self.tables.sql(statement), session))
        version = self.version(session)
        if version == self._newest:
            return  # here too
        for migration in self._migrations[version or 0 :]:
            for statement in migration:
                session.change(self._adapted(self.tables.sql(statement), session))
        session.change(
            self.tables.sql("UPDATE {schema} SET version = ?, store_id = coalesce(store_id, ?)"),
            (self._newest, self.store_id or uuid.uuid4().hex),
        )
        self._read_id(session)

    def _lacks(self, session: Session, addition: Addition) -> bool:
        """Return whether *addition* is to be made; not in a view that was dropped, or may not be seen."""
        rows = session.rows(self.tables.sql(self._columns), (self.tables.names[addition.table],))
        return bool(rows) and (addition.column,) not in rows

    def version(self, session: Session) -> int | None:
        """Read the version; ``None`` where none of our names is taken."""
        names = [*self.tables.names.values(), *(self.tables.name + ending for ending in INDEXES)]
        taken = self._taken(session, names)
        if not taken:
            return None
        if self.tables.names["schema"].lower() not in taken:
            raise self._foreign(min(taken))
        rows = session.rows(self.tables.sql("SELECT * FROM {schema} LIMIT 2"))
        if [row[0] for row in rows] != [PROGRAM]:
            raise self._foreign(self.tables.names["schema"])
        version = int(rows[0][1])
        if version > self._newest:
            raise SchemaError(
                f"{self._ours} are of version {version}, which "
                f"this release does not know (its own is {self._newest}); upgrade flask_chest"
            )
        if version == self._newest:
            self._read_id(session)
        return version

    def _read_id(self, session: Session) -> None:
        ((self.store_id,),) = session.rows(self.tables.sql("SELECT store_id FROM {schema}"))

    def _adapted(self, statement: str, session: Session) -> str:  # noqa: ARG002 - for those that differ
        """Fit a migration's *statement* to the release of the server."""
        return statement

    @abstractmethod
    def _taken(self, session: Session, names: Sequence[str]) -> set[str]:
        """Find, in lower case, which of *names* the database has as tables, views or indexes."""

    def _foreign(self, table: str) -> SchemaError:
        return SchemaError(
            f"{self.place} has a table {table!r} that flask_chest did not make; "
            f"choose another name= for the chest, or {self._elsewhere}"
        )
