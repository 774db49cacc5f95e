"""The delivering half of an SQL store: what each exporter has had, and what was set aside for it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from flask_chest._clocks import is_held, nanoseconds
from flask_chest.protocols import (
    Busy,
    Claim,
    ExporterRegistry,
    ExporterStatus,
    Outbox,
    Rejection,
    Rejections,
    StartAt,
)
from flask_chest.stores._records import in_chunks, storable_reason
from flask_chest.stores.sql.tables import MANY_IDS, Session, SQLPart, row_record

S = TypeVar("S", bound=msgspec.Struct)


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """An exporter's row."""

    position: int
    """Position of the last record that the exporter has had."""
    boundary: int | None
    """Position of the last record in the claimed batch; ``None`` when no batch is claimed."""
    epoch: int
    holder: str | None
    lease_until_unix_nano: int | None


class SQLOutbox(SQLPart, Outbox, ExporterRegistry, Rejections):
    """One row an exporter: up to which position it had the records, and who delivers up to which boundary.

    The store gives positions so that their order is the order in which records become visible. Who changes an
    exporter's row has locked it first, so that two never decide by the same state.
    """

    def claim(self, exporter: str, /, *, limit: int, lease: timedelta) -> Claim | Busy | None:
        """Take the next records, or again the batch whose holder did not acknowledge it in time."""
        with self._database.writing() as session:
            now = session.now_unix_nano()
            self._register(session, exporter, position=0, now=now)
            place = self._place(session, exporter)
            if place is None:
                return None  # dropped in this very moment: the next call makes it known again
            until = place.lease_until_unix_nano
            if until is not None and is_held(until, now, lease=lease):
                return Busy(holder=place.holder or "", until_unix_nano=until)
            batch = self._batch(session, place, limit)
            if not batch:
                self._skip(session, exporter, place)
                return None
            claim = Claim(
                exporter=exporter,
                records=[row_record(row) for _, *row in batch],
                token=place.epoch + 1,
                deadline_unix_nano=now + nanoseconds(lease),
            )
            self._hold(session, claim, boundary=batch[-1][0])
            return claim

    def renew(self, claim: Claim, /, *, lease: timedelta) -> bool:
        """Move the deadline to *lease* from now; return False when the claim is lost or has ended."""
        with self._database.writing() as session:
            place = self._held(session, claim)
            if place is None or place.boundary is None:
                return False
            session.change(
                self._tables.sql("UPDATE {exporters} SET lease_until_unix_nano = ? WHERE name = ?"),
                (session.now_unix_nano() + nanoseconds(lease), claim.exporter),
            )
            return True

    def acknowledge(self, claim: Claim, /, *, rejected: Mapping[str, str] = MappingProxyType({})) -> bool:
        """Count the claimed records as had; a deadline that passed matters only once another has claimed."""
        with self._database.writing() as session:
            place = self._held(session, claim)
            if place is None:
                return False
            if place.boundary is not None:
                now = session.now_unix_nano()
                session.change(
                    self._tables.sql(
                        "UPDATE {exporters} SET position = ?, boundary = NULL, holder = NULL,"
                        " lease_until_unix_nano = NULL, last_error = NULL, last_seen_unix_nano = ?,"
                        " last_success_unix_nano = ?"
                        " WHERE name = ?"
                    ),
                    (place.boundary, now, now, claim.exporter),
                )
                self._set_aside(session, claim, rejected, now)
            return True

    def release(self, claim: Claim, /, *, error: str | None = None) -> None:
        """End the claim without delivery, for the reason *error*; its token is void from here on."""
        with self._database.writing() as session:
            place = self._held(session, claim)
            if place is not None and place.boundary is not None:
                session.change(
                    self._tables.sql(
                        "UPDATE {exporters} SET epoch = ?, holder = NULL, lease_until_unix_nano = NULL,"
                        " last_error = ? WHERE name = ?"
                    ),
                    (place.epoch + 1, None if error is None else storable_reason(error), claim.exporter),
                )

    def register(self, exporter: str, /, *, start_at: StartAt = "beginning") -> None:
        """Make *exporter* known; one that is known stays where it is."""
        with self._database.writing() as session:
            position = 0
            if start_at == "now":
                newest = self._tables.sql("SELECT coalesce(max(position), 0) FROM {records}")
                ((position,),) = session.rows(newest)
            self._register(session, exporter, position=position, now=session.now_unix_nano())

    def exporters(self, *, timeout: timedelta | None = None) -> Sequence[ExporterStatus]:
        """List the known exporters by name; past *timeout*, raise `QueryTimeout`."""
        with self._looking(timeout) as session:
            rows = session.rows(
                self._tables.sql(
                    "SELECT name,"
                    " (SELECT count(*) FROM {records} AS record WHERE record.position > exporter.position),"
                    " (SELECT count(*) FROM {rejected} AS rejected WHERE rejected.exporter = exporter.name),"
                    " last_seen_unix_nano, last_success_unix_nano,"
                    " (SELECT time_unix_nano FROM {records} AS record"
                    " WHERE record.position > exporter.position ORDER BY record.position LIMIT 1),"
                    " last_error, holder, lease_until_unix_nano FROM {exporters} AS exporter ORDER BY name"
                )
            )
        return [_from_row(row, ExporterStatus) for row in rows]

    def _looking(self, timeout: timedelta | None) -> AbstractContextManager[Session]:
        return self._database.reading() if timeout is None else self._database.answering(timeout=timeout)

    def drop(self, exporter: str, /) -> bool:
        """Forget *exporter*, its place and what was set aside for it; return False when it is not known."""
        with self._database.writing() as session:
            known = session.change(self._tables.sql("DELETE FROM {exporters} WHERE name = ?"), (exporter,)) == 1
            session.change(self._tables.sql("DELETE FROM {rejected} WHERE exporter = ?"), (exporter,))
            return known

    def rejections(self, exporter: str, /, *, timeout: timedelta | None = None) -> Iterable[Rejection]:
        """Return what was set aside for *exporter*, oldest first; past *timeout*, raise `QueryTimeout`."""
        with self._looking(timeout) as session:
            rows = session.rows(
                self._tables.sql(
                    "SELECT exporter, record_id, reason, time_unix_nano FROM {rejected}"
                    " WHERE exporter = ? ORDER BY number"
                ),
                (exporter,),
            )
        return [_from_row(row, Rejection) for row in rows]

    def discard(self, exporter: str, record_ids: Sequence[str], /) -> int:
        """Forget that these records were set aside for *exporter*; return how many were."""
        count = 0
        with self._database.writing() as session:
            for chunk in in_chunks(record_ids, MANY_IDS):
                delete = "DELETE FROM {rejected} WHERE exporter = ? AND record_id IN ({many})"
                count += session.change(self._tables.sql(delete, many=len(chunk)), (exporter, *chunk))
        return count

    def _register(self, session: Session, exporter: str, *, position: int, now: int) -> None:
        # Epochs begin at the clock: one that is dropped and registered again must not repeat the tokens it had.
        statement = self._tables.upsert(
            "INSERT INTO {exporters} (name, position, epoch, last_seen_unix_nano) VALUES (?, ?, ?, ?)",
            key="name",
            assignments="last_seen_unix_nano = ?",
        )
        session.change(statement, (exporter, position, now, now, now))

    def _place(self, session: Session, exporter: str) -> _Place | None:
        """Read an exporter's row, and lock it until the transaction ends."""
        rows = session.rows(
            self._tables.sql(
                "SELECT position, boundary, epoch, holder, lease_until_unix_nano"
                " FROM {exporters} WHERE name = ?{lock}"
            ),
            (exporter,),
        )
        return _from_row(rows[0], _Place) if rows else None

    def _held(self, session: Session, claim: Claim) -> _Place | None:
        """Find the row that *claim* still has the right to change."""
        place = self._place(session, claim.exporter)
        return place if place is not None and place.epoch == claim.token else None

    def _batch(self, session: Session, place: _Place, limit: int) -> list[tuple[Any, ...]]:
        """Fetch rows, each with its position in front."""
        after = place.position
        if place.boundary is not None:
            again = self._tables.sql(
                "SELECT position, {columns} FROM {records} WHERE position > ? AND position <= ? ORDER BY position"
            )
            if rows := session.rows(again, (after, place.boundary)):
                return rows
            after = place.boundary  # the whole batch was deleted meanwhile
        following = self._tables.sql(
            "SELECT position, {columns} FROM {records} WHERE position > ? ORDER BY position LIMIT ?"
        )
        return session.rows(following, (after, limit))

    def _hold(self, session: Session, claim: Claim, *, boundary: int) -> None:
        session.change(
            self._tables.sql(
                "UPDATE {exporters} SET boundary = ?, epoch = ?, holder = ?, lease_until_unix_nano = ?"
                " WHERE name = ?"
            ),
            (boundary, claim.token, _holder(), claim.deadline_unix_nano, claim.exporter),
        )

    def _skip(self, session: Session, exporter: str, place: _Place) -> None:
        """Go past a claimed batch whose records were all deleted."""
        if place.boundary is not None:
            session.change(
                self._tables.sql(
                    "UPDATE {exporters} SET position = ?, boundary = NULL, epoch = ?,"
                    " holder = NULL, lease_until_unix_nano = NULL WHERE name = ?"
                ),
                (place.boundary, place.epoch + 1, exporter),
            )

    def _set_aside(self, session: Session, claim: Claim, rejected: Mapping[str, str], now: int) -> None:
        statement = self._tables.insert_new(
            "INSERT INTO {rejected} (exporter, record_id, reason, time_unix_nano) VALUES (?, ?, ?, ?)",
            key="exporter, record_id",
        )
        rows = [
            (claim.exporter, record.id, storable_reason(rejected[record.id]), now)
            for record in claim.records
            if record.id in rejected
        ]
        if rows:
            session.change_many(statement, rows)


def _from_row(row: Sequence[Any], kind: type[S]) -> S:
    """Make a *kind* from a *row* whose columns are its fields, in their order of definition."""
    return msgspec.convert(dict(zip(kind.__struct_fields__, row, strict=True)), kind)


def _holder() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
