"""Indexes on variables in PostgreSQL."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import LiteralString

from psycopg import errors

from flask_chest.errors import StoreUnavailable
from flask_chest.protocols import VariableIndex
from flask_chest.stores.postgresql.connections import PostgreSQLConnections
from flask_chest.stores.postgresql.variables import key
from flask_chest.stores.sql.indexes import SQLIndexes, foreign_name, index_name
from flask_chest.stores.sql.tables import Session

_NAMED = re.compile(r"->> '([A-Za-z0-9_]+)'")
_SAME = ("strpos(", r"'\u005c'", r"'\u0001'", "255", 'COLLATE "C"', "time_unix_nano DESC, id DESC)")
"""What the server's own words for our index hold, in whatever release."""
_OF_PARTS = "parts"
_STAGES = {_OF_PARTS: (0.0, 1.0), "building index": (0.0, 0.7), "index validation": (0.7, 0.3)}
"""Beginnings of the phases that tell how far they are → share that is made before, and share that they are."""


class PostgreSQLIndexes(SQLIndexes[PostgreSQLConnections]):
    """Indexes on an expression, made while others write.

    PostgreSQL does that outside of transactions, and waits for those that have begun before; where it was
    interrupted, it leaves an index behind that is not valid.
    """

    def _found(self, session: Session) -> list[VariableIndex]:
        select = """
            SELECT class.relname, indisvalid, pg_get_indexdef(indexrelid)
            FROM pg_index JOIN pg_class AS class ON class.oid = indexrelid
            WHERE indrelid = '{records}'::regclass AND indexprs IS NOT NULL
        """
        return [
            VariableIndex(variable=variable, name=name, valid=valid)
            for name, valid, definition in session.rows(self._tables.sql(select))
            for variable in _NAMED.findall(definition)[:1]
            if name == index_name(self._tables.name, variable) and all(words in definition for words in _SAME)
        ]

    def _add(self, variable: LiteralString) -> bool:
        name = index_name(self._tables.name, variable)
        with self._database.reading() as session:
            is_taken = self._schema.has_table(session, name)
            index = self._index(session, variable)  # later: whose name was taken is listed by now if it is ours
            is_partitioned = self._is_partitioned(session)
        if index is None and is_taken:
            raise foreign_name(self._schema.place, name)
        if index is not None and not index.valid:
            if self._progress(variable) is not None:
                raise StoreUnavailable(f"{self._schema.place}: another process makes the index; try again later")
            with self._database.reading() as session:
                index = self._index(session, variable)  # it may have been finished just now
        if index is not None and index.valid:
            return False
        if is_partitioned:
            return self._add_to_each(variable, index)
        with self._database.outside() as session:
            try:
                for statement in self._at_once(variable, index):
                    session.change(statement)
            except errors.DuplicateTable:  # another process was first
                return False
        return True

    def _statements(self, session: Session, variable: LiteralString, index: VariableIndex | None) -> list[str]:
        if not self._is_partitioned(session):
            return self._at_once(variable, index)
        missing = self._without(session, index_name(self._tables.name, variable))
        anew = index is not None and not missing
        parts = self._without(session, "") if anew else missing
        parent = self._on_parent(variable, anew=anew) if index is None or anew else []
        return [*parent, *(statement for part in parts for statement in self._on_part(variable, part))]

    def _remove(self, variable: str) -> bool:
        with self._database.reading() as session:
            index, is_partitioned = self._index(session, variable), self._is_partitioned(session)
        if index is None:
            return False
        if is_partitioned:
            with self._database.writing() as session:  # there is no other way
                session.change(f'DROP INDEX IF EXISTS "{index.name}"')
            return True
        with self._database.outside() as session:
            session.change(f'DROP INDEX CONCURRENTLY IF EXISTS "{index.name}"')
        return True

    def _at_once(self, variable: LiteralString, index: VariableIndex | None) -> list[str]:
        name = index_name(self._tables.name, variable)
        create = f'CREATE INDEX CONCURRENTLY "{name}" ON {self._tables.sql("{records}")} {_on(variable)}'
        return [create] if index is None else [f'DROP INDEX CONCURRENTLY IF EXISTS "{name}"', create]

    def _on_parent(self, variable: LiteralString, *, anew: bool) -> list[str]:
        name, records = index_name(self._tables.name, variable), self._tables.sql("{records}")
        create = f'CREATE INDEX "{name}" ON ONLY {records} {_on(variable)}'
        return [f'DROP INDEX IF EXISTS "{name}"', create] if anew else [create]

    def _on_part(self, variable: LiteralString, table: str) -> list[str]:
        name, part = index_name(self._tables.name, variable), index_name(table, variable)
        return [
            f'DROP INDEX CONCURRENTLY IF EXISTS "{part}"',
            f'CREATE INDEX CONCURRENTLY "{part}" ON "{table}" {_on(variable)}',
            f'ALTER INDEX "{name}" ATTACH PARTITION "{part}"',
        ]

    def _add_to_each(self, variable: LiteralString, index: VariableIndex | None) -> bool:
        """Make the index on each partition, and then attach it: on all at once, others could not write.

        A partition that is made meanwhile has it already.
        """
        name = index_name(self._tables.name, variable)
        with self._database.writing() as session:
            missing = [] if index is None else self._without(session, name)
            if not missing:  # of an index that is there, the last partition was dropped before it had its own
                try:
                    for statement in self._on_parent(variable, anew=index is not None):
                        session.change(statement)
                except errors.DuplicateTable as exc:
                    raise StoreUnavailable(f"{self._schema.place}: another process makes the index") from exc
                missing = self._without(session, name)
        with self._database.outside() as session:
            for table in missing:
                # Retention has dropped the partition, or another process has attached its part.
                with suppress(errors.UndefinedTable, errors.DependentObjectsStillExist):
                    for statement in self._on_part(variable, table):
                        session.change(statement)
        return True

    def _is_partitioned(self, session: Session) -> bool:
        select = "SELECT relkind = 'p' FROM pg_class WHERE oid = '{records}'::regclass"
        return session.rows(self._tables.sql(select)) == [(True,)]

    def _without(self, session: Session, name: str) -> list[str]:
        """Return the partitions on which there is no part of the index *name*."""
        select = """
            SELECT relname FROM pg_inherits AS part JOIN pg_class ON pg_class.oid = part.inhrelid
            WHERE part.inhparent = '{records}'::regclass AND NOT EXISTS (
                SELECT 1 FROM pg_index JOIN pg_inherits AS attached ON attached.inhrelid = indexrelid
                WHERE indrelid = part.inhrelid AND attached.inhparent = to_regclass(?)
            )
            ORDER BY relname DESC
        """
        return [str(table) for (table,) in session.rows(self._tables.sql(select), (f'"{name}"',))]

    def _progress(self, variable: str) -> float | None:
        select = """
            SELECT phase, blocks_done, blocks_total FROM pg_stat_progress_create_index
            WHERE relid = '{records}'::regclass AND index_relid = to_regclass(?)
        """
        name = index_name(self._tables.name, variable)
        with self._database.reading() as session:
            rows = session.rows(self._tables.sql(select), (f'"{name}"',))
            if not rows:
                rows = self._progress_of_part(session, name, variable)
        return max((_share(str(phase), done or 0, total or 0) for phase, done, total in rows), default=None)

    def _progress_of_part(self, session: Session, name: str, variable: str) -> list[tuple[str, int, int]]:
        """Return how far the parts are together, as a phase and its blocks, where one of them is being made."""
        select = """
            SELECT pg_class.relname, index.relname FROM pg_stat_progress_create_index
            JOIN pg_inherits ON inhrelid = relid JOIN pg_class ON pg_class.oid = relid
            JOIN pg_class AS index ON index.oid = index_relid
            WHERE inhparent = '{records}'::regclass
        """
        rows = session.rows(self._tables.sql(select))
        if not any(part == index_name(table, variable) for table, part in rows):
            return []
        count = "SELECT count(*) FROM pg_inherits WHERE inhparent = '{records}'::regclass"
        ((total,),) = session.rows(self._tables.sql(count))
        return [(_OF_PARTS, int(total) - len(self._without(session, name)), int(total))]


def _on(variable: LiteralString) -> LiteralString:
    return f"({key(variable)}, time_unix_nano DESC, id DESC)"


def _share(phase: str, done: int, total: int) -> float:
    for begin, (before, share) in _STAGES.items():
        if phase.startswith(begin):
            return before + share * (min(1.0, done / total) if total else 0.0)
    return 0.0 if phase in {"initializing", "waiting for writers before build"} else 0.7
