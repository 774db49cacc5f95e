"""One run of retention: what is beyond the limits goes, in small batches."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Self

import msgspec

from flask_chest._clocks import MAX_SKEW_NANO, ClockNote, decode_note, encode_note, nanoseconds
from flask_chest.errors import CapabilityMissing, ConfigurationError
from flask_chest.protocols import ExporterRegistry, HostClocked, Leases, Retention, Store
from flask_chest.record import Query

TASK = "retention"
INTERVAL = timedelta(minutes=15)
"""Time between two runs, and for which nothing is deleted after a host's clock has jumped."""
LEASE = timedelta(seconds=60)
BATCH = 1_000
"""Records that are deleted at a time: no lock lasts longer than that takes."""
LONGEST_PAUSE_SECONDS = 0.5
SAMPLE = 1_000
"""Records whose mean size stands for that of all."""
ABSENT = timedelta(days=7)
"""An exporter that was not seen for so long is told of where it keeps records from being deleted."""
_SPANS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SIZES = {
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SPAN = re.compile(r"(?P<count>\d+)(?P<unit>[smhdw])")
_ROWS = re.compile(r"(?P<count>\d[\d_]*) ?rows")
_BYTES = re.compile(r"(?P<count>\d+) ?(?P<unit>[KMGT]i?B)", re.IGNORECASE)
_EXAMPLE = 'as "30d", "1_000_000 rows", "2 GB", or several: "30d, 2 GB"'


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """What is beyond any of these is too much; ``None`` is no limit."""

    age: timedelta | None = None
    rows: int | None = None
    size: int | None = None
    """Bytes of the records as JSON lines; tables and indexes take more."""

    @classmethod
    def parse(cls, value: object, setting: str) -> Self:
        """Read ``"30d, 1_000_000 rows, 2 GB"``, or a timedelta; raise `ConfigurationError`."""
        if isinstance(value, timedelta):
            return cls._checked(value, setting, age=value)
        if not isinstance(value, str):
            raise ConfigurationError(f"{setting} must be a text, {_EXAMPLE}, got {value!r}")
        found: dict[str, object] = {}
        for part in value.split(","):
            name, limit = _limit(part.strip(), setting)
            if name in found:
                raise ConfigurationError(f"{setting} has two limits of one kind: {value!r}")
            found[name] = limit
        return cls._checked(value, setting, **found)

    @classmethod
    def _checked(cls, value: object, setting: str, **found: object) -> Self:
        policy = cls(**found)  # type: ignore[arg-type]  # of the types that `_limit` gives
        if (policy.age is not None and policy.age <= timedelta(0)) or policy.rows == 0 or policy.size == 0:
            raise ConfigurationError(f"{setting} must leave something, got {value!r}")
        return policy


def parse_span(text: str) -> timedelta | None:
    """Read a span of time, as ``90s``, ``15m``, ``2h``, ``30d`` or ``4w``; ``None`` for anything else."""
    found = _SPAN.fullmatch(text)
    if found is None:
        return None
    try:
        return timedelta(**{_SPANS[found["unit"]]: int(found["count"])})
    except OverflowError:
        return None


def _limit(text: str, setting: str) -> tuple[str, object]:
    if (age := parse_span(text)) is not None:
        return "age", age
    if (rows := _ROWS.fullmatch(text)) is not None:
        return "rows", int(rows["count"])
    if (size := _BYTES.fullmatch(text)) is not None:
        return "size", int(size["count"]) * _SIZES[size["unit"].upper()]
    raise ConfigurationError(f"{setting} must be limits, {_EXAMPLE}, got {text!r}")


class RetentionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one run did."""

    deleted: int = 0
    unexported: int = 0
    """Number of deleted records that an exporter had not had: the hard cap took them."""
    busy: bool = False
    """Whether another process does it."""
    left: bool = False
    """Whether records beyond the limits stay: an exporter has not had them, or the run had to end."""
    spared: int = 0
    """Records that are dated ahead of the clock, so that no limit holds for them."""
    doubt: str | None = None
    """Reason for which nothing was deleted: the clock that cannot be right."""
    absent: tuple[str, ...] = ()
    """Exporters that keep records beyond the limits, and were not seen for a week."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRun:
    """Deletes what is beyond *policy* and every exporter has had, and what is beyond *cap* in any case."""

    store: Store
    policy: RetentionPolicy
    cap: RetentionPolicy
    owner: str
    """A text that no other process has."""
    go_on: Callable[[], bool]
    """Asked before each batch."""

    def report(self) -> RetentionReport:
        """Delete, and return what was deleted; raise `CapabilityMissing` or what the store raises."""
        store = self.store
        if not isinstance(store, Retention):
            raise CapabilityMissing(store, "Retention")
        if not isinstance(store, Leases):
            return self._delete(store)
        if not store.hold(TASK, owner=self.owner, lease=LEASE):
            return RetentionReport(busy=True)
        try:
            return self._delete(store)
        finally:
            store.let_go(TASK, owner=self.owner)

    def _delete(self, store: Retention) -> RetentionReport:
        time_told = tell_time(self.store)
        now, doubt = time_told.unix_nano, time_told.doubt
        spared = sum(1 for _ in self.store.query(Query(since_unix_nano=now + MAX_SKEW_NANO, limit=None)))
        if doubt is not None:
            return RetentionReport(spared=spared, doubt=doubt)
        before = self._end_of(self.policy, store, now)
        capped = self._end_of(self.cap, store, now)
        deleted = unexported = 0
        if before is not None or capped is not None:
            deleted = self._prune(store, max(before or 0, capped or 0), keep_unexported=True)
        if capped is not None:
            unexported = self._prune(store, capped, keep_unexported=False)
        left = before is not None and any(self.store.query(Query(until_unix_nano=before, limit=1)))
        return RetentionReport(
            deleted=deleted + unexported,
            unexported=unexported,
            left=left,
            spared=spared,
            absent=self._absent(now) if left else (),
        )

    def _prune(self, store: Retention, before: int, *, keep_unexported: bool) -> int:
        return sum(in_batches(store, before, keep_unexported=keep_unexported, go_on=self._goes_on))

    def _goes_on(self) -> bool:
        if not self.go_on():
            return False
        return not isinstance(self.store, Leases) or self.store.hold(TASK, owner=self.owner, lease=LEASE)

    def _end_of(self, policy: RetentionPolicy, store: Retention, now: int) -> int | None:
        """Find the time before which all is beyond *policy*; ``None`` if nothing is."""
        ends: list[int | None] = []
        if policy.age is not None:
            ends.append(now - nanoseconds(policy.age))
        if policy.rows is not None:
            ends.append(store.boundary(policy.rows))
        if policy.size is not None:
            ends.append(store.boundary(int(policy.size // self._mean_size())))
        return max((end for end in ends if end is not None), default=None)

    def _mean_size(self) -> float:
        # Not what the database says of its files: where a server's do not shrink, all would go.
        newest = islice(self.store.query(Query(limit=SAMPLE)), SAMPLE)
        sizes = [len(msgspec.json.encode(msgspec.structs.asdict(record))) + 1 for record in newest]
        return max(1.0, sum(sizes) / len(sizes)) if sizes else 1.0

    def _absent(self, now: int) -> tuple[str, ...]:
        store = self.store
        if not isinstance(store, ExporterRegistry):
            return ()
        # Far ahead, it was seen by a clock that was, and not since.
        return tuple(
            each.name
            for each in store.exporters()
            if each.backlog and abs(now - each.last_seen_unix_nano) > nanoseconds(ABSENT)
        )


class TimeTold(msgspec.Struct, frozen=True, kw_only=True):
    """What time it is for a store."""

    unix_nano: int
    doubt: str | None = None
    """Reason for which nothing should be deleted by this clock."""


def tell_time(store: Store, *, note: bool = True) -> TimeTold:
    """Return the time by the clock of *store*, and whether to believe it.

    It is compared with this machine's; where the two are one, also with what it told before, and that is noted if
    *note* is set. A store that tells no time is taken to go by this machine's clock.
    """
    before = time.time_ns()
    now = store.now_unix_nano() if isinstance(store, Leases) else before
    if isinstance(store, HostClocked):
        former = decode_note(store.clock_note())
        taken = ClockNote.taken(now, former, doubt=INTERVAL)
        if note:
            store.note_clock(encode_note(taken))
        if taken.doubted:
            return TimeTold(unix_nano=now, doubt=_JUMPED)
    # The answer may have taken long: so much they differ at least.
    skew = max(before - now, now - time.time_ns())
    if skew <= MAX_SKEW_NANO:
        return TimeTold(unix_nano=now)
    direction = "ahead of" if before > now else "behind"
    return TimeTold(
        unix_nano=now,
        doubt=f"this machine's clock is {skew / 1e9:,.0f} s {direction} that of the store, so retention deletes "
        "nothing; let both be set by NTP",
    )


_JUMPED = (
    "this machine's clock has jumped, or the machine was off for more than a day, so retention deletes nothing "
    f"for {INTERVAL // timedelta(minutes=1)} minutes; see whether the clock is right"
)


def in_batches(
    store: Retention, before_unix_nano: int, *, keep_unexported: bool, go_on: Callable[[], bool]
) -> Iterator[int]:
    """Delete what began before that time, batch by batch; yield how many each took."""
    while go_on():
        began = time.monotonic()
        count = store.prune(before_unix_nano, limit=BATCH, keep_unexported=keep_unexported)
        yield count
        if count < BATCH:
            return
        # As long as it took, others have their turn: who waits for SQLite's lock stands in no queue.
        time.sleep(min(time.monotonic() - began, LONGEST_PAUSE_SECONDS))
