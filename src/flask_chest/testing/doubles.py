"""Stand-ins for what an application's tests do not have: a target for exports, and a view of what is new."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import SupportsIndex, overload

from flask_chest._clocks import nanoseconds
from flask_chest.errors import ExportError
from flask_chest.extension.chest import FlaskChest
from flask_chest.record import Record


class RecordingExporter:
    """An `Exporter` that keeps what it is given, and fails when it is told to.

    ``exporter.failures.append(TargetUnavailable("away"))`` makes the next delivery raise that.
    """

    def __init__(self, name: str = "recording") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._delivered: dict[str, Record] = {}
        self.failures: list[ExportError] = []
        self.closed = False

    @property
    def name(self) -> str:
        """The name it was made with."""
        return self._name

    @property
    def delivered(self) -> list[Record]:
        """What was delivered, each record once, in the order of its first delivery."""
        with self._lock:
            return list(self._delivered.values())

    def export(self, records: Sequence[Record], /) -> None:
        """Keep *records*, or raise the next of the planned failures."""
        with self._lock:
            if self.failures:
                raise self.failures.pop(0)
            for record in records:
                self._delivered.setdefault(record.id, record)

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True


class ManualClock:
    """A clock for a `MemoryStore` that stands still until it is moved: leases end when a test says so.

    ``clock.advance(timedelta(minutes=5))`` lets five minutes go by. It begins at the present time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = time.time_ns()

    def __call__(self) -> int:
        """Return the nanoseconds since 1970."""
        with self._lock:
            return self._now

    def advance(self, duration: timedelta) -> None:
        """Move on by *duration*."""
        with self._lock:
            self._now += nanoseconds(duration)


class _Recorded(list[Record]):
    """A list that says why a record is not there."""

    filled = False

    def __iter__(self) -> Iterator[Record]:
        if not self.filled:
            raise RuntimeError(_TOO_EARLY)
        return super().__iter__()

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Record: ...

    @overload
    def __getitem__(self, index: slice, /) -> list[Record]: ...

    def __getitem__(self, index: SupportsIndex | slice, /) -> Record | list[Record]:
        if not self.filled:
            raise RuntimeError(_TOO_EARLY)
        try:
            return super().__getitem__(index)
        except IndexError:
            raise IndexError(_TOO_FEW.format(count=len(self), index=index)) from None


_TOO_EARLY = "the records are there when the block of recorded() ends: look at them after it"
_TOO_FEW = (
    "{count} were recorded in the block, so there is none at {index}: is the view decorated, or the chest given "
    "tracked_vars? A streamed response is recorded when it closes: with client.get(...) as response: ..."
)


@contextmanager
def recorded(chest: FlaskChest) -> Iterator[list[Record]]:
    """Collect what *chest* records inside the ``with`` block; the list is filled, oldest first, at its end.

    ::

        with recorded(chest) as records:
            client.get("/")
        assert records[0].variables["user_id"] == "123"

    A streamed response is recorded when it closes, which the test client does at the end of
    ``with client.get("/stream") as response:``. To look at the list inside the block raises ``RuntimeError``.
    """
    since = RecordedSince(chest)
    records = _Recorded()
    yield records
    records.filled = True
    records.extend(since.records())


class RecordedSince:
    """What *chest* has recorded since this was made."""

    def __init__(self, chest: FlaskChest) -> None:
        self._chest = chest
        self._began = _moment(time.time_ns() // 1_000 * 1_000)
        self._before = {record.id for record in chest.iter(since=self._began)}

    def records(self) -> list[Record]:
        """Return the records, oldest first."""
        self._chest.flush()
        new = [each for each in self._chest.iter(since=self._began) if each.id not in self._before]
        return new[::-1]


def _moment(unix_nano: int) -> datetime:
    seconds, nanoseconds = divmod(unix_nano, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanoseconds // 1_000)
