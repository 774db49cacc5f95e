"""The statements by which SQL stores find records, to be explained."""

from __future__ import annotations

from flask_chest.record import Query, Record
from flask_chest.stores.sql.narrowing import narrowing
from flask_chest.stores.sql.query import chunk
from flask_chest.stores.sql.store import SQLStore
from flask_chest.stores.sql.tables import SQLValue


def statement_of(
    store: SQLStore, query: Query, *, before: Record | None = None, size: int = 50
) -> tuple[str, tuple[SQLValue, ...]]:
    """Return what *store* asks its database for the *size* candidates after *before*."""
    tables = store._tables
    with store._database.reading() as session:
        narrowed = list(narrowing(query, tables.dialect.variables(session, tables)))
    return chunk(tables, query, narrowed=narrowed, before=before, size=size)
