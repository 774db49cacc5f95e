"""The forgetting half of an SQL store: retention and erasure, and that what is deleted stays deleted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import msgspec

from flask_chest.protocols import Erasure, Retention
from flask_chest.record import Query, Record
from flask_chest.stores._deletions import Deletion, decode_query, encode_query, spared
from flask_chest.stores._sql import Database, Session, Tables
from flask_chest.stores._sql_query import CHUNK, find


class SQLDeletion(Retention, Erasure):
    """Notes what is deleted, in a transaction beside which none writes records: each later one reads the note."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._database = database
        self._tables = tables

    def prune(self, before_unix_nano: int, /, *, limit: int, keep_unexported: bool = True) -> int:
        """Delete the oldest records that began before that time, at most *limit*; give how many those were."""
        select = "SELECT time_unix_nano, id FROM {records} WHERE time_unix_nano < ?"
        had_by_all = " AND position <= coalesce((SELECT min(position) FROM {exporters}), position)"
        order = " ORDER BY time_unix_nano, id LIMIT ?"
        oldest = self._tables.sql(f"{select}{had_by_all if keep_unexported else ''}{order}")
        with self._database.recording() as session:
            found = session.rows(oldest, (before_unix_nano, limit))
            cut_off: int = before_unix_nano if len(found) < limit else found[-1][0] + 1
            self._delete(session, [record_id for _, record_id in found])
            # What was forgotten before that is cut off now.
            session.change(self._tables.sql("DELETE FROM {deletions} WHERE before_unix_nano <= ?"), (cut_off,))
            self._note(session, Deletion(before_unix_nano=cut_off))
        return len(found)

    def boundary(self, newest: int, /) -> int | None:
        """Give the time before which all began but so many *newest* records; ``None`` if there are no more."""
        select = "SELECT time_unix_nano FROM {records} ORDER BY time_unix_nano DESC, id DESC LIMIT 1 OFFSET ?"
        with self._database.reading() as session:
            found = session.rows(self._tables.sql(select), (newest,))
        return int(found[0][0]) + 1 if found else None

    def forget(self, query: Query, /) -> int:
        """Delete every record that matches, and what was set aside of them; give how many those were.

        After an error some may be left: they are not taken again, and are deleted by the next call.
        """
        everything = msgspec.structs.replace(query, limit=None)
        with self._database.recording() as session:
            self._note(session, Deletion(before_unix_nano=session.now_unix_nano(), query=everything))
        found = find(self._database, self._tables, everything)
        count = 0
        while chunk := [record.id for record in islice(found, CHUNK)]:
            with self._database.writing() as session:
                self._delete(session, chunk)
            count += len(chunk)
        return count

    def _spared(self, session: Session, records: Sequence[Record]) -> Sequence[Record]:
        """Leave out of *records* what was deleted."""
        rows = session.rows(self._tables.sql("SELECT before_unix_nano, query FROM {deletions}"))
        return spared(
            records,
            [
                Deletion(before_unix_nano=before, query=None if text is None else decode_query(text))
                for before, text in rows
            ],
        )

    def _note(self, session: Session, deletion: Deletion) -> None:
        text = None if deletion.query is None else encode_query(deletion.query).decode()
        session.change(
            self._tables.sql("INSERT INTO {deletions} (before_unix_nano, query) VALUES (?, ?)"),
            (deletion.before_unix_nano, text),
        )

    def _delete(self, session: Session, record_ids: Sequence[str]) -> None:
        for first in range(0, len(record_ids), CHUNK):
            chunk = record_ids[first : first + CHUNK]
            of_records = self._tables.sql("DELETE FROM {records} WHERE id IN ({many})", many=len(chunk))
            of_rejected = self._tables.sql("DELETE FROM {rejected} WHERE record_id IN ({many})", many=len(chunk))
            session.change(of_records, chunk)
            session.change(of_rejected, chunk)
