"""The forgetting half of `SQLiteStore`: retention and erasure, and that what is deleted stays deleted."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice

import msgspec

from flask_chest.protocols import Erasure, Retention
from flask_chest.record import Query, Record
from flask_chest.stores._deletions import Deletion, decode_query, encode_query, spared
from flask_chest.stores._sql import Tables
from flask_chest.stores._sqlite_connections import Connections
from flask_chest.stores._sqlite_query import CHUNK, find


class SQLiteDeletion(Retention, Erasure):
    """Deletes in one transaction with the note of what is deleted, which every later write reads in its own."""

    def __init__(self, connections: Connections, tables: Tables) -> None:
        self._connections = connections
        self._tables = tables

    def prune(self, before_unix_nano: int, /, *, limit: int, keep_unexported: bool = True) -> int:
        """Delete the oldest records that began before that time, at most *limit*; give how many those were."""
        oldest = self._tables.sql(
            "SELECT position, time_unix_nano, id FROM {records} WHERE time_unix_nano < ?"
            " AND (? OR position <= coalesce((SELECT min(position) FROM {exporters}), position))"
            " ORDER BY time_unix_nano, id LIMIT ?"
        )
        with self._connections.transaction() as connection:
            found = connection.execute(oldest, (before_unix_nano, not keep_unexported, limit)).fetchall()
            cut_off: int = before_unix_nano if len(found) < limit else found[-1][1] + 1
            self._delete(connection, [record_id for _, _, record_id in found])
            # What was forgotten before that is cut off now.
            connection.execute(
                self._tables.sql("DELETE FROM {deletions} WHERE before_unix_nano <= ?"), (cut_off,)
            )
            self._note(connection, Deletion(before_unix_nano=cut_off))
        return len(found)

    def forget(self, query: Query, /) -> int:
        """Delete every record that matches, and what was set aside of them; give how many those were."""
        everything = msgspec.structs.replace(query, limit=None)
        count = 0
        with self._connections.transaction() as connection:
            self._note(connection, Deletion(before_unix_nano=time.time_ns(), query=everything))
            found = find(lambda: nullcontext(connection), self._tables, everything)
            while chunk := [record.id for record in islice(found, CHUNK)]:
                self._delete(connection, chunk)
                count += len(chunk)
        return count

    def _spared(self, connection: sqlite3.Connection, records: Sequence[Record]) -> Sequence[Record]:
        """Leave out of *records* what was deleted."""
        rows = connection.execute(self._tables.sql("SELECT before_unix_nano, query FROM {deletions}")).fetchall()
        return spared(
            records,
            [
                Deletion(before_unix_nano=before, query=None if text is None else decode_query(text))
                for before, text in rows
            ],
        )

    def _note(self, connection: sqlite3.Connection, deletion: Deletion) -> None:
        text = None if deletion.query is None else encode_query(deletion.query).decode()
        connection.execute(
            self._tables.sql("INSERT INTO {deletions} (before_unix_nano, query) VALUES (?, ?)"),
            (deletion.before_unix_nano, text),
        )

    def _delete(self, connection: sqlite3.Connection, record_ids: Sequence[str]) -> None:
        rows = [(record_id,) for record_id in record_ids]
        connection.executemany(self._tables.sql("DELETE FROM {records} WHERE id = ?"), rows)
        connection.executemany(self._tables.sql("DELETE FROM {rejected} WHERE record_id = ?"), rows)
