"""Indexes on variables in SQLite."""

from __future__ import annotations

import re
from typing import LiteralString

from flask_chest.protocols import VariableIndex
from flask_chest.stores._indexes import is_indexable
from flask_chest.stores.sql.indexes import SQLIndexes, foreign_name, index_name
from flask_chest.stores.sql.tables import Session
from flask_chest.stores.sqlite.connections import SQLiteConnections
from flask_chest.stores.sqlite.variables import value

_NAMED = re.compile(r"""'\$\."([A-Za-z0-9_]+)"'""")


class SQLiteIndexes(SQLIndexes[SQLiteConnections]):
    """Indexes on an expression.

    Who writes waits while one is made, as for any other writer: where that takes longer than ``busy_timeout``,
    the records wait in their journals.
    """

    def _add(self, variable: LiteralString) -> bool:
        name = index_name(self._tables.name, variable)
        with self._database.writing() as session:
            if self._index(session, variable) is not None:
                return False
            if self._schema.has_table(session, name):
                raise foreign_name(self._schema.place, name)
            session.change(self._definition(variable))
        return True

    def _statements(self, session: Session, variable: LiteralString, index: VariableIndex | None) -> list[str]:  # noqa: ARG002 - there is none that is not valid
        return [self._definition(variable)]

    def _remove(self, variable: str) -> bool:
        with self._database.writing() as session:
            index = self._index(session, variable)
            if index is not None:
                session.change(f'DROP INDEX "{index.name}"')
        return index is not None

    def _found(self, session: Session) -> list[VariableIndex]:
        select = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND lower(tbl_name) = lower('{name}')"
        rows = session.rows(self._tables.sql(f"{select} AND sql IS NOT NULL"))
        return [
            VariableIndex(variable=variable, name=name)
            for name, sql in rows
            for variable in _NAMED.findall(sql)[:1]
            if is_indexable(variable) and sql == self._definition(variable)  # SQLite keeps the words
        ]

    def _definition(self, variable: LiteralString) -> str:
        on = self._tables.sql(f"{{records}} ({value(variable)}, time_unix_nano, id)")
        return f'CREATE INDEX "{index_name(self._tables.name, variable)}" ON {on}'
