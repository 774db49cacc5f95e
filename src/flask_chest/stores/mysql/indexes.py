"""Indexes on variables in MySQL and MariaDB."""

from __future__ import annotations

from typing import LiteralString

from pymysql import err

from flask_chest.protocols import VariableIndex
from flask_chest.stores.mysql.connections import MySQLConnections
from flask_chest.stores.mysql.variables import collation, column_comment, columns_of, is_mariadb, key
from flask_chest.stores.sql.indexes import SQLIndexes, foreign_name, index_name
from flask_chest.stores.sql.tables import Session

_NAME_TAKEN = {1060, 1061}
"""Codes for a column and for an index whose name there is already."""
_GONE = {1091}
"""Code for one that is not there."""
_NOT_SO = {1845, 1846, 4192}
"""Codes for a way of changing a table that does not do for this change."""
_IN_PLACE = ("ALGORITHM = INPLACE, LOCK = NONE",)
_AT_ONCE = ("ALGORITHM = INSTANT", *_IN_PLACE, "ALGORITHM = COPY, LOCK = SHARED")
"""Ways for a generated column; MariaDB takes none but the last on a table with partitions."""


class MySQLIndexes(SQLIndexes[MySQLConnections]):
    """Indexes on a generated column, which is named like its index and takes no room; others write meanwhile."""

    def _found(self, session: Session) -> list[VariableIndex]:
        # What has a generated column; it is valid with an index on that.
        select = """
            SELECT index_name FROM information_schema.statistics
            WHERE table_schema = database() AND table_name = '{name}'
                AND index_name = column_name AND seq_in_index = 1
        """
        indexed = {name for (name,) in session.rows(self._tables.sql(select))}
        return [
            VariableIndex(variable=variable, name=name, valid=name in indexed)
            for variable, name in columns_of(session, self._tables).items()
        ]

    def _add(self, variable: LiteralString) -> bool:
        name = index_name(self._tables.name, variable)
        with self._database.altering() as session:
            is_taken = self._is_taken(session, name)
            index = self._index(session, variable)  # later: whose name was taken is listed by now if it is ours
            if index is not None and index.valid:
                return False
            if index is None:
                if is_taken:
                    raise foreign_name(self._schema.place, name)
                self._alter(session, self._column(session, variable), ways=_AT_ONCE, harmless=_NAME_TAKEN)
            made = self._alter(session, self._key(variable), ways=_IN_PLACE, harmless=_NAME_TAKEN)
            if self._index(session, variable) is None:
                raise foreign_name(self._schema.place, name)
            return made  # if not, another process was first

    def _statements(self, session: Session, variable: LiteralString, index: VariableIndex | None) -> list[str]:
        changes = [self._key(variable)] if index else [self._column(session, variable), self._key(variable)]
        return [f"ALTER TABLE {self._tables.sql('{records}')} {change}" for change in changes]

    def _column(self, session: Session, variable: LiteralString) -> str:
        mariadb = is_mariadb(session)
        return (
            f"ADD COLUMN `{index_name(self._tables.name, variable)}` varchar(255)"
            f" CHARACTER SET utf8mb4 COLLATE {collation(mariadb=mariadb)}"
            f" GENERATED ALWAYS AS ({key(variable, mariadb=mariadb)}) VIRTUAL"
            f" COMMENT '{column_comment(variable)}'"
        )

    def _key(self, variable: LiteralString) -> str:
        name = index_name(self._tables.name, variable)
        return f"ADD INDEX `{name}` (`{name}`, time_unix_nano, id)"

    def _remove(self, variable: str) -> bool:
        with self._database.altering() as session:
            index = self._index(session, variable)
            if index is None:
                return False
            if index.valid:
                self._alter(session, f"DROP INDEX `{index.name}`", ways=_IN_PLACE, harmless=_GONE)
            return self._alter(session, f"DROP COLUMN `{index.name}`", ways=_AT_ONCE, harmless=_GONE)

    def _alter(self, session: Session, change: str, *, ways: tuple[str, ...], harmless: set[int]) -> bool:
        """Make *change* to the table in the first of *ways* that does; return False after a *harmless* error."""
        for way in ways:
            try:
                session.change(f"ALTER TABLE {self._tables.sql('{records}')} {change}, {way}")
            except err.MySQLError as exc:
                code = exc.args[0] if exc.args else 0
                if code in harmless:
                    return False
                if code not in _NOT_SO or way == ways[-1]:
                    raise
            else:
                return True
        return False

    def _is_taken(self, session: Session, name: str) -> bool:
        columns = "SELECT 1 FROM information_schema.columns WHERE column_name = ?"
        indexes = "SELECT 1 FROM information_schema.statistics WHERE index_name = ?"
        ours = "AND table_schema = database() AND table_name = '{name}'"
        return bool(session.rows(self._tables.sql(f"{columns} {ours} UNION {indexes} {ours}"), (name, name)))
