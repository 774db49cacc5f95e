"""The delivering half of `SQLiteStore`: what each exporter has had, and what was set aside for it."""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import NamedTuple

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
from flask_chest.stores._sql import Tables, row_record, storable_reason
from flask_chest.stores._sqlite_connections import Connections


class _Place(NamedTuple):
    """An exporter's row."""

    position: int
    """The last record that it had."""
    boundary: int | None
    """The last record of the batch that was claimed; ``None`` when none is."""
    epoch: int
    holder: str
    lease_until: int | None


class SQLiteOutbox(Outbox, ExporterRegistry, Rejections):
    """One row an exporter: up to which position it had the records, and who delivers up to which boundary.

    A position is given in the transaction that inserts the record, and SQLite has one writer at a time: the
    order of the positions is the order in which records became visible.
    """

    def __init__(self, connections: Connections, tables: Tables) -> None:
        self._connections = connections
        self._tables = tables

    def claim(self, exporter: str, /, *, limit: int, lease: timedelta) -> Claim | Busy | None:
        """Take the next records, or again the batch whose holder did not acknowledge it in time."""
        with self._connections.transaction() as connection:
            now = _now_unix_nano()
            self._register(connection, exporter, position=0, now=now)
            place = self._place(connection, exporter)
            if place.lease_until is not None and place.lease_until > now:
                return Busy(holder=place.holder, until_unix_nano=place.lease_until)
            batch = self._batch(connection, place, limit)
            if not batch:
                self._skip(connection, exporter, place)
                return None
            claim = Claim(
                exporter=exporter,
                records=[row_record(row) for _, *row in batch],
                token=place.epoch + 1,
                deadline_unix_nano=now + _nanoseconds(lease),
            )
            last: int = batch[-1][0]
            self._hold(connection, claim, boundary=last)
            return claim

    def renew(self, claim: Claim, /, *, lease: timedelta) -> bool:
        """Move the deadline to *lease* from now; False when the claim is lost or has ended."""
        with self._connections.transaction() as connection:
            renewed = connection.execute(
                self._tables.sql(
                    "UPDATE {exporters} SET lease_until_unix_nano = ?"
                    " WHERE name = ? AND epoch = ? AND boundary IS NOT NULL"
                ),
                (_now_unix_nano() + _nanoseconds(lease), claim.exporter, claim.token),
            )
            return renewed.rowcount == 1

    def acknowledge(self, claim: Claim, /, *, rejected: Mapping[str, str] = MappingProxyType({})) -> bool:
        """Count the claimed records as had; a deadline that passed matters only once another has claimed."""
        with self._connections.transaction() as connection:
            now = _now_unix_nano()
            ended = connection.execute(
                self._tables.sql(
                    "UPDATE {exporters} SET position = boundary, boundary = NULL, holder = NULL,"
                    " lease_until_unix_nano = NULL, last_seen_unix_nano = ?, last_success_unix_nano = ?"
                    " WHERE name = ? AND epoch = ? AND boundary IS NOT NULL"
                ),
                (now, now, claim.exporter, claim.token),
            )
            if ended.rowcount == 1:
                self._set_aside(connection, claim, rejected, now)
                return True
            acknowledged = self._tables.sql("SELECT 1 FROM {exporters} WHERE name = ? AND epoch = ?")
            return connection.execute(acknowledged, (claim.exporter, claim.token)).fetchone() is not None

    def release(self, claim: Claim, /) -> None:
        """End the claim without delivery; its token is void from here on."""
        with self._connections.transaction() as connection:
            connection.execute(
                self._tables.sql(
                    "UPDATE {exporters} SET epoch = epoch + 1, holder = NULL, lease_until_unix_nano = NULL"
                    " WHERE name = ? AND epoch = ? AND boundary IS NOT NULL"
                ),
                (claim.exporter, claim.token),
            )

    def register(self, exporter: str, /, *, start_at: StartAt = "beginning") -> None:
        """Make *exporter* known; one that is known stays where it is."""
        with self._connections.transaction() as connection:
            position = 0
            if start_at == "now":
                newest = self._tables.sql("SELECT coalesce(max(position), 0) FROM {records}")
                (position,) = connection.execute(newest).fetchone()
            self._register(connection, exporter, position=position, now=_now_unix_nano())

    def exporters(self) -> Sequence[ExporterStatus]:
        """List the known exporters by name."""
        with self._connections.connection() as connection:
            rows = connection.execute(
                self._tables.sql(
                    "SELECT name, holder, lease_until_unix_nano, last_seen_unix_nano, last_success_unix_nano,"
                    " (SELECT count(*) FROM {records} AS record WHERE record.position > exporter.position),"
                    " (SELECT count(*) FROM {rejected} AS rejected WHERE rejected.exporter = exporter.name)"
                    " FROM {exporters} AS exporter ORDER BY name"
                )
            ).fetchall()
        return [
            ExporterStatus(
                name=name,
                holder=holder,
                lease_until_unix_nano=lease_until,
                last_seen_unix_nano=last_seen,
                last_success_unix_nano=last_success,
                backlog=backlog,
                rejected=rejected,
            )
            for name, holder, lease_until, last_seen, last_success, backlog, rejected in rows
        ]

    def drop(self, exporter: str, /) -> bool:
        """Forget *exporter*, its place and what was set aside for it; False when it is not known."""
        with self._connections.transaction() as connection:
            connection.execute(self._tables.sql("DELETE FROM {rejected} WHERE exporter = ?"), (exporter,))
            dropped = connection.execute(self._tables.sql("DELETE FROM {exporters} WHERE name = ?"), (exporter,))
            return dropped.rowcount == 1

    def rejections(self, exporter: str, /) -> Iterable[Rejection]:
        """Yield what was set aside for *exporter*, oldest first."""
        with self._connections.connection() as connection:
            rows = connection.execute(
                self._tables.sql(
                    "SELECT record_id, reason, time_unix_nano FROM {rejected} WHERE exporter = ? ORDER BY number"
                ),
                (exporter,),
            ).fetchall()
        return [
            Rejection(exporter=exporter, record_id=record_id, reason=reason, time_unix_nano=at)
            for record_id, reason, at in rows
        ]

    def _register(self, connection: sqlite3.Connection, exporter: str, *, position: int, now: int) -> None:
        # Epochs begin at the clock: one that is dropped and known anew must not repeat the tokens it had.
        connection.execute(
            self._tables.sql(
                "INSERT INTO {exporters} (name, position, epoch, last_seen_unix_nano) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET last_seen_unix_nano = excluded.last_seen_unix_nano"
            ),
            (exporter, position, now, now),
        )

    def _place(self, connection: sqlite3.Connection, exporter: str) -> _Place:
        row = connection.execute(
            self._tables.sql(
                "SELECT position, boundary, epoch, coalesce(holder, ''), lease_until_unix_nano"
                " FROM {exporters} WHERE name = ?"
            ),
            (exporter,),
        ).fetchone()
        return _Place(*row)

    def _batch(self, connection: sqlite3.Connection, place: _Place, limit: int) -> Sequence[tuple[int, ...]]:
        """Fetch rows, each with its position in front."""
        after = place.position
        if place.boundary is not None:
            again = self._tables.sql(
                "SELECT position, {columns} FROM {records} WHERE position > ? AND position <= ? ORDER BY position"
            )
            if rows := connection.execute(again, (after, place.boundary)).fetchall():
                return rows
            after = place.boundary  # the whole batch was deleted meanwhile
        following = self._tables.sql(
            "SELECT position, {columns} FROM {records} WHERE position > ? ORDER BY position LIMIT ?"
        )
        return connection.execute(following, (after, limit)).fetchall()

    def _hold(self, connection: sqlite3.Connection, claim: Claim, *, boundary: int) -> None:
        connection.execute(
            self._tables.sql(
                "UPDATE {exporters} SET boundary = ?, epoch = ?, holder = ?, lease_until_unix_nano = ?"
                " WHERE name = ?"
            ),
            (boundary, claim.token, _holder(), claim.deadline_unix_nano, claim.exporter),
        )

    def _skip(self, connection: sqlite3.Connection, exporter: str, place: _Place) -> None:
        """Go past a claimed batch of which nothing is left."""
        if place.boundary is not None:
            connection.execute(
                self._tables.sql(
                    "UPDATE {exporters} SET position = boundary, boundary = NULL, epoch = epoch + 1,"
                    " holder = NULL, lease_until_unix_nano = NULL WHERE name = ?"
                ),
                (exporter,),
            )

    def _set_aside(
        self, connection: sqlite3.Connection, claim: Claim, rejected: Mapping[str, str], now: int
    ) -> None:
        connection.executemany(
            self._tables.sql(
                "INSERT INTO {rejected} (exporter, record_id, reason, time_unix_nano) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (exporter, record_id) DO NOTHING"
            ),
            [
                (claim.exporter, record.id, storable_reason(rejected[record.id]), now)
                for record in claim.records
                if record.id in rejected
            ],
        )


def _nanoseconds(lease: timedelta) -> int:
    return lease // timedelta(microseconds=1) * 1_000


def _now_unix_nano() -> int:
    return time.time_ns()


def _holder() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
