"""Indexes on variables in an SQL database."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from hashlib import sha256
from typing import Generic, LiteralString, TypeVar

from flask_chest.errors import SchemaError
from flask_chest.protocols import IndexesBySQL, VariableIndex
from flask_chest.stores._indexes import check_indexable
from flask_chest.stores.sql.schema import SQLSchema
from flask_chest.stores.sql.tables import MAX_IDENTIFIER, Database, Session

_DIGITS = 16


D = TypeVar("D", bound=Database)


class SQLIndexes(IndexesBySQL, Generic[D]):
    """Knows its indexes by name and by what they are on; what others made is not touched."""

    def __init__(self, database: D, schema: SQLSchema) -> None:
        self._database = database
        self._schema = schema
        self._tables = schema.tables

    def indexes(self) -> Sequence[VariableIndex]:
        """Return the indexes on variables, by name of the variable; other indexes are not mentioned."""
        with self._database.reading() as session:
            found = self._found(session)
        return sorted(found, key=lambda index: index.variable)

    def add_index(self, variable: str, /) -> bool:
        """Make the index on *variable*, and return whether there was none; an invalid one is made again."""
        return self._add(check_indexable(variable))

    def index_sql(self, variable: str, /) -> str:
        """Return the statements that `add_index` would run now, or an empty text."""
        indexable = check_indexable(variable)
        with self._database.reading() as session:
            index = self._index(session, indexable)
            if index is not None and index.valid:
                return ""
            return "".join(f"{statement};\n" for statement in self._statements(session, indexable, index))

    def index_progress(self, variable: str, /) -> float | None:
        """Return the share of the index on *variable* that is made, from 0 to 1, while `add_index` runs.

        Return ``None`` where nobody makes it, or the database does not say.
        """
        check_indexable(variable)
        return self._progress(variable)

    def remove_index(self, variable: str, /) -> bool:
        """Remove the index on *variable*, and return whether there was one."""
        check_indexable(variable)
        return self._remove(variable)

    @abstractmethod
    def _found(self, session: Session) -> list[VariableIndex]:
        """Look up the indexes."""

    @abstractmethod
    def _add(self, variable: LiteralString) -> bool:
        """Do what `add_index` promises; the variable can be indexed."""

    @abstractmethod
    def _statements(
        self, session: Session, variable: LiteralString, index: VariableIndex | None
    ) -> Sequence[str]:
        """Return what makes the index from *index*, one that is not valid, or from nothing."""

    @abstractmethod
    def _remove(self, variable: str) -> bool:
        """Do what `remove_index` promises; the variable can be indexed."""

    def _index(self, session: Session, variable: str) -> VariableIndex | None:
        return next((index for index in self._found(session) if index.variable == variable), None)

    def _progress(self, variable: str) -> float | None:  # noqa: ARG002 - for those that say
        return None


def index_name(table: str, variable: str) -> str:
    """Return the name of the index on *variable* in *table*, of at most `MAX_IDENTIFIER` characters.

    Databases may take two names for one that differ in case alone.
    """
    name = f"{table}_by_{variable}"
    if len(name) <= MAX_IDENTIFIER and variable == variable.lower():
        return name
    digest = sha256(name.encode()).hexdigest()[:_DIGITS]
    return f"{name[: MAX_IDENTIFIER - _DIGITS - 1]}_{digest}"


def foreign_name(place: str, name: str) -> SchemaError:
    """Return the error for a *name* that an index is to have, and somebody has given to something else."""
    return SchemaError(
        f"{place} has a {name!r} that flask_chest did not make, where the index would be; rename or drop it"
    )
