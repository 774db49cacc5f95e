"""Retention: deletes the records that exceed the limits, in small batches."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice
from typing import Self

import msgspec

from flask_chest._clocks import MAX_SKEW_NANO, ClockNote, decode_note, encode_note, nanoseconds
from flask_chest.errors import CapabilityMissing, ConfigurationError
from flask_chest.protocols import ExporterRegistry, HostClocked, Leases, Partitioned, Retention, Store
from flask_chest.record import Query

TASK = "retention"
INTERVAL = timedelta(minutes=15)
"""Time between two runs, and from a jump of the host's clock until something is deleted again."""
LEASE = timedelta(seconds=60)
BATCH = 1_000
"""Number of records that are deleted at a time, so that no lock is held for long."""
LONGEST_PAUSE_SECONDS = 0.5
SAMPLE = 1_000
"""Number of the newest records whose mean size stands for that of all."""
ABSENT = timedelta(days=7)
"""Time after which an exporter that was not seen, and keeps records from being deleted, is reported."""
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
# Compiled when a setting is first read: that takes a millisecond, and most processes import this in vain.
_SPAN = r"(?P<count>\d{1,12})(?P<unit>[smhdw])"
_ROWS = r"(?P<count>\d[\d_]*) ?rows"
_BYTES = r"(?P<count>\d+) ?(?P<unit>[KMGT]i?B)"
_EXAMPLE = 'as "30d", "1_000_000 rows", "2 GB", or several: "30d, 2 GB"'


class RetentionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Limits for the records of a chest: those beyond any of them are deleted; ``None`` is no limit."""

    age: timedelta | None = None
    rows: int | None = None
    size: int | None = None
    """Number of bytes of the records as JSON lines; tables and indexes take more."""

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
            raise ConfigurationError(f"{setting} must have limits above zero, got {value!r}")
        return policy


def parse_span(text: str) -> timedelta | None:
    """Read a span of time, as ``90s``, ``15m``, ``2h``, ``30d`` or ``4w``; ``None`` for anything else."""
    found = re.fullmatch(_SPAN, text)
    if found is None:
        return None
    try:
        return timedelta(**{_SPANS[found["unit"]]: int(found["count"])})
    except OverflowError:
        return None


def _limit(text: str, setting: str) -> tuple[str, object]:
    if (age := parse_span(text)) is not None:
        return "age", age
    if (rows := re.fullmatch(_ROWS, text)) is not None:
        return "rows", int(rows["count"])
    if (size := re.fullmatch(_BYTES, text, re.IGNORECASE)) is not None:
        return "size", int(size["count"]) * _SIZES[size["unit"].upper()]
    raise ConfigurationError(f"{setting} must be limits, {_EXAMPLE}, got {text!r}")


class RetentionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one run did."""

    deleted: int = 0
    unexported: int = 0
    """Number of records that the hard cap deleted before an exporter had them."""
    busy: bool = False
    """Whether another process is deleting, because of which this run did nothing."""
    left: bool = False
    """Whether records beyond the limits stayed: an exporter has not had them, or the run had to end."""
    spared: int = 0
    """Number of records that are dated ahead of the clock, so that no limit applies to them."""
    doubt: str | None = None
    """Reason to doubt the clock, because of which nothing was deleted."""
    absent: tuple[str, ...] = ()
    """Names of the exporters that keep records beyond the limits and were not seen for a week."""


class RetentionRun(msgspec.Struct, frozen=True, kw_only=True):
    """Deletes what is beyond *policy* and every exporter has had, and what is beyond *cap* in any case."""

    store: Store
    policy: RetentionPolicy
    cap: RetentionPolicy
    owner: str
    """Name for the lease, which no other process uses."""
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
        left = before is not None and leaves_some(self.store, before)
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
        # A time far ahead was told by a clock that was ahead; it was not seen since.
        return tuple(
            each.name
            for each in store.exporters()
            if each.backlog and abs(now - each.last_seen_unix_nano) > nanoseconds(ABSENT)
        )


def leaves_some(store: Store, before_unix_nano: int) -> bool:
    """Return whether *store* has records that a run of retention up to that time should have deleted."""
    if isinstance(store, Partitioned):
        before_unix_nano = store.reach(before_unix_nano)
    return any(store.query(Query(until_unix_nano=before_unix_nano, limit=1)))


class TimeTold(msgspec.Struct, frozen=True, kw_only=True):
    """Time by a store's clock, and whether to believe it."""

    unix_nano: int
    doubt: str | None = None
    """Reason not to delete anything by this clock; ``None`` if it is believed."""


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
    # The answer may have taken long, so this is the least by which they differ.
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
        # Others have as much time as the batch took: whoever waits for SQLite's lock is in no queue.
        time.sleep(min(time.monotonic() - began, LONGEST_PAUSE_SECONDS))
