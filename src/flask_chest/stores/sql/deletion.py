"""The forgetting half of an SQL store: retention and erasure, and that what is deleted stays deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import islice

import msgspec

from flask_chest._clocks import MAX_SKEW_NANO, is_held, nanoseconds
from flask_chest.protocols import CountsDropped, CutOff, Erasure, Leases, Retention
from flask_chest.record import Query, Record
from flask_chest.stores._deletions import (
    CUT_OFF,
    NOTE_LIFE_NANO,
    Dropped,
    Notes,
    Shape,
    cut_off_from,
    encode_shape,
    new_secret,
    notes_of,
    spared,
)
from flask_chest.stores._records import in_chunks
from flask_chest.stores.sql.query import CHUNK, find
from flask_chest.stores.sql.tables import MANY_IDS, Database, Session, SQLPart, Tables


class SQLDeletion(SQLPart, Retention, Erasure, CountsDropped, Leases):
    """Notes what is deleted, in a transaction beside which none writes records: each later one reads the note.

    There is one row for the cut-off of retention and for each kind of query by which something was forgotten;
    every batch reads them all. There is one row for each digest of what was forgotten, and those are looked up.
    """

    skew_nano = MAX_SKEW_NANO
    """Nanoseconds by which the clocks of writers may be ahead of the database's."""

    def __init__(self, database: Database, tables: Tables) -> None:
        super().__init__(database, tables)
        self._dropped = Dropped()

    @property
    def dropped(self) -> int:
        """Records that this process wrote and that were left out, as they were deleted before they came."""
        return self._dropped.count

    def cut_off(self) -> CutOff | None:
        """Return up to when retention has deleted; ``None`` if it never has."""
        select = "SELECT before_unix_nano, dropped, dropped_unix_nano FROM {deletions} WHERE kind = ?"
        with self._database.reading() as session:
            rows = session.rows(self._tables.sql(select), (CUT_OFF,))
        if not rows:
            return None
        ((before, dropped, last),) = rows
        return CutOff(before_unix_nano=before, dropped=dropped, last_dropped_unix_nano=last)

    def prune(self, before_unix_nano: int, /, *, limit: int, keep_unexported: bool = True) -> int:
        """Delete the oldest records that began before that time, at most *limit*; return their number."""
        select = "SELECT time_unix_nano, id FROM {records} WHERE time_unix_nano < ?"
        had_by_all = " AND position <= coalesce((SELECT min(position) FROM {exporters}), position)"
        order = " ORDER BY time_unix_nano, id LIMIT ?"
        oldest = self._tables.sql(f"{select}{had_by_all if keep_unexported else ''}{order}")
        with self._database.recording() as session:
            latest = self._latest_cut_off(session)
            before = min(before_unix_nano, latest)
            found = session.rows(oldest, (before, limit))
            cut_off: int = before if len(found) < limit else found[-1][0] + 1
            self._delete(session, [record_id for _, record_id in found])
            self._cut_off_at(session, cut_off, latest=latest)
        return len(found)

    def boundary(self, newest: int, /) -> int | None:
        """Return the time before which all but *newest* records began; ``None`` if there are no more."""
        select = (
            "SELECT time_unix_nano FROM {records} WHERE time_unix_nano <= ?"
            " ORDER BY time_unix_nano DESC, id DESC LIMIT 1 OFFSET ?"
        )
        with self._database.reading() as session:
            found = session.rows(self._tables.sql(select), (self._latest_cut_off(session), newest))
        return int(found[0][0]) + 1 if found else None

    def forget(self, query: Query, /) -> int:
        """Delete every record that matches, and what was set aside of them; return their number.

        After an error some may be left: they are not taken again, and are deleted by the next call.
        """
        everything = msgspec.structs.replace(query, limit=None)
        with self._database.recording() as session:
            self._note(session, everything)
        found = find(self._database, self._tables, everything)
        count = 0
        while chunk := [record.id for record in islice(found, CHUNK)]:
            with self._database.writing() as session:
                self._delete(session, chunk)
            count += len(chunk)
        return count

    def hold(self, task: str, /, *, owner: str, lease: timedelta) -> bool:
        """Lease *task* to *owner* for *lease* from now; return False when another owner holds it."""
        with self._database.writing() as session:
            now = session.now_unix_nano()
            make = self._tables.insert_new(
                "INSERT INTO {leases} (task, owner, until_unix_nano) VALUES (?, ?, ?)", key="task"
            )
            session.change(make, (task, owner, now))
            ((holder, until),) = session.rows(
                self._tables.sql("SELECT owner, until_unix_nano FROM {leases} WHERE task = ?{lock}"), (task,)
            )
            if holder != owner and is_held(until, now, lease=lease):
                return False
            session.change(
                self._tables.sql("UPDATE {leases} SET owner = ?, until_unix_nano = ? WHERE task = ?"),
                (owner, now + nanoseconds(lease), task),
            )
            return True

    def let_go(self, task: str, /, *, owner: str) -> None:
        """Let others have *task* at once, if *owner* has it."""
        with self._database.writing() as session:
            session.change(
                self._tables.sql("UPDATE {leases} SET until_unix_nano = 0 WHERE task = ? AND owner = ?"),
                (task, owner),
            )

    def now_unix_nano(self) -> int:
        """Return the time by the database's clock."""
        with self._database.reading() as session:
            return session.now_unix_nano()

    def _spared(self, session: Session, records: Sequence[Record]) -> Sequence[Record]:
        """Leave out of *records* what was deleted."""

        def look_up(digests: Sequence[str]) -> Mapping[str, int]:
            found: dict[str, int] = {}
            for chunk in in_chunks(digests, MANY_IDS):
                select = "SELECT digest, before_unix_nano FROM {forgotten} WHERE digest IN ({many})"
                found |= dict(session.rows(self._tables.sql(select, many=len(chunk)), chunk))
            return found

        notes = self._notes(session)
        left = spared(records, notes, latest_cut_off=lambda: self._latest_cut_off(session), look_up=look_up)
        if late := cut_off_from(records, left, notes):
            count = "UPDATE {deletions} SET dropped = dropped + ?, dropped_unix_nano = ? WHERE kind = ?"
            session.change(self._tables.sql(count), (late, session.now_unix_nano(), CUT_OFF))
        return left

    def _cut_off_at(self, session: Session, cut_off: int, *, latest: int) -> None:
        """Note that nothing is taken any more that began before *cut_off*."""
        noted = self._notes(session).cut_off_unix_nano
        if noted is None:
            self._put(session, CUT_OFF, before_unix_nano=cut_off)
        elif noted < cut_off or noted > latest:
            move = self._tables.sql("UPDATE {deletions} SET before_unix_nano = ? WHERE kind = ?")
            session.change(move, (cut_off, CUT_OFF))
        # What was forgotten before that is cut off now.
        for note in ("DELETE FROM {forgotten}", "DELETE FROM {deletions}"):
            session.change(self._tables.sql(f"{note} WHERE before_unix_nano < ?"), (cut_off,))

    def _latest_cut_off(self, session: Session) -> int:
        return session.now_unix_nano() + self.skew_nano

    def _notes(self, session: Session) -> Notes:
        rows = session.rows(self._tables.sql("SELECT kind, query, secret, before_unix_nano FROM {deletions}"))
        return notes_of((kind, shape, secret, before, 0) for kind, shape, secret, before in rows)

    def _note(self, session: Session, query: Query) -> None:
        """Note that what matches *query* is forgotten, and delete the notes that are too old to matter."""
        now = session.now_unix_nano()
        ((newest,),) = session.rows(self._tables.sql("SELECT max(time_unix_nano) FROM {records}"))
        before = (now if newest is None else max(now, newest)) + self.skew_nano
        # By the records too: a clock that is ahead ends no note.
        long_ago = (now if newest is None else min(now, newest)) - NOTE_LIFE_NANO
        session.change(self._tables.sql("DELETE FROM {forgotten} WHERE noted_unix_nano < ?"), (long_ago,))
        shape = Shape.of(query)
        known = {kind.shape: kind for kind in self._notes(session).kinds}.get(shape)
        secret = new_secret() if known is None else known.secret
        latest = before if known is None else max(before, known.before_unix_nano)
        self._put(session, shape.key, shape=encode_shape(shape).decode(), secret=secret, before_unix_nano=latest)
        digest = shape.of_query(query, secret)
        session.change(self._tables.sql("DELETE FROM {forgotten} WHERE digest = ?"), (digest,))
        session.change(
            self._tables.sql(
                "INSERT INTO {forgotten} (digest, before_unix_nano, noted_unix_nano) VALUES (?, ?, ?)"
            ),
            (digest, before, now),
        )

    def _put(
        self,
        session: Session,
        kind: str,
        *,
        before_unix_nano: int,
        shape: str | None = None,
        secret: str | None = None,
    ) -> None:
        session.change(self._tables.sql("DELETE FROM {deletions} WHERE kind = ?"), (kind,))
        session.change(
            self._tables.sql(
                "INSERT INTO {deletions} (kind, query, secret, before_unix_nano) VALUES (?, ?, ?, ?)"
            ),
            (kind, shape, secret, before_unix_nano),
        )

    def _delete(self, session: Session, record_ids: Sequence[str]) -> None:
        for chunk in in_chunks(record_ids, MANY_IDS):
            of_records = self._tables.sql("DELETE FROM {records} WHERE id IN ({many})", many=len(chunk))
            of_rejected = self._tables.sql("DELETE FROM {rejected} WHERE record_id IN ({many})", many=len(chunk))
            session.change(of_records, chunk)
            session.change(of_rejected, chunk)
