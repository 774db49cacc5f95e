"""Tables on a server that many tests share: a server takes longer to make them than most tests take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from types import MappingProxyType
from typing import Any, LiteralString

import pytest

from flask_chest.stores.mysql import MySQLStore
from flask_chest.stores.postgresql import PostgreSQLStore
from flask_chest.stores.sql.server import ServerStore
from servers import DatabaseServer

TABLES: tuple[LiteralString, ...] = ("records", "exporters", "rejected", "deletions", "forgotten", "leases")
"""Roles of the tables whose rows a test leaves behind."""


class EmptiedTables:
    """Gives each test a store of its own over the tables of the class, emptied; needs the fixture *database*."""

    options: Mapping[str, Any] = MappingProxyType({})
    """Options of the stores."""

    @pytest.fixture(scope="class")
    @classmethod
    def tables(cls, database: DatabaseServer) -> str:
        """Make the tables; give their name."""
        name = cls.__name__.lower()
        with closing(cls._store(database, name)) as store:
            store.open()
        return name

    @pytest.fixture
    def store(self, database: DatabaseServer, tables: str) -> Iterator[ServerStore]:
        with closing(self._store(database, tables)) as store:
            yield store
            with store._database.recording() as session:
                for table in TABLES:
                    session.change(store._tables.sql(f"DELETE FROM {{{table}}}"))
                session.change(store._tables.sql("UPDATE {schema} SET position = 0"))

    @classmethod
    def _store(cls, database: DatabaseServer, name: str) -> ServerStore:
        kind = PostgreSQLStore if database.scheme == "postgresql" else MySQLStore
        return kind(database.uri, name=name, **cls.options)
