"""The rows of records into an SQLite table, many with each statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain

from flask_chest.stores.sql.tables import COLUMNS, SQLValue, Tables

ROWS_AT_ONCE = (500, 50, 5, 1)
"""How many rows a statement may have, most first: a connection keeps one compiled for each of these."""


class Insertion:
    """Inserts rows into the table of records.

    A statement frees Python's lock once, and then waits until it has it back: 5 ms beside a thread that computes,
    and much longer beside one that frees it often and at once takes it again, as that of a busy server does.
    With ``executemany``, which frees it at each row, a chest in a gevent server stored less than came in.
    """

    def __init__(self, tables: Tables) -> None:
        # OR FAIL: to undo one statement of several rows SQLite would copy every page into a temporary file first.
        # What fails undoes the whole transaction here.
        insert = "INSERT OR FAIL INTO {records} ({columns}) VALUES {rows} ON CONFLICT (id) DO NOTHING"
        self._statements = [(count, tables.sql(insert, rows=count)) for count in ROWS_AT_ONCE]

    def insert(self, connection: sqlite3.Connection, rows: Sequence[Sequence[SQLValue]]) -> int:
        """Insert *rows*, but none whose id is there already; give how many were inserted."""
        most = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // len(COLUMNS)
        begin = inserted = 0
        for count, statement in self._statements:
            while count <= min(most, len(rows) - begin):
                values = list(chain.from_iterable(rows[begin : begin + count]))
                inserted += connection.execute(statement, values).rowcount
                begin += count
        return inserted
