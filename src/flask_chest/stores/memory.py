"""Records in memory: for tests and experiments."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType

import msgspec

from flask_chest._clocks import MAX_STEP_NANO, ClockNote, encode_note, is_held, nanoseconds
from flask_chest._process import PerProcess
from flask_chest.aggregates import AggregateQuery, Answer
from flask_chest.errors import StoreAbsent
from flask_chest.protocols import (
    Aggregation,
    Busy,
    Claim,
    CountsDropped,
    CutOff,
    Erasure,
    ExporterRegistry,
    ExporterStatus,
    HostClocked,
    Leases,
    LoadsHistory,
    Outbox,
    Rejection,
    Rejections,
    Retention,
    StartAt,
    Store,
    StoreStatus,
)
from flask_chest.record import Query, Record, decode_variables, encode_variables
from flask_chest.stores._deletions import Dropped, Kind, Notes, Shape, cut_off_from, new_secret, spared
from flask_chest.stores._records import DuplicateIds, storable_rows
from flask_chest.stores._time_limit import TimeLimit
from flask_chest.stores.reference import aggregate


def _copy(record: Record) -> Record:
    """Return a copy that the receiver may change without changing what is kept."""
    return msgspec.structs.replace(record, variables=decode_variables(encode_variables(record.variables)))


@dataclass(slots=True, kw_only=True)
class _Place:
    """How far one exporter is, in numbers of records."""

    position: int
    last_seen: int
    boundary: int | None = None
    token: int = 0
    holder: str | None = None
    lease_until: int | None = None
    last_success: int | None = None
    last_error: str | None = None
    rejected: dict[str, Rejection] = field(default_factory=dict)

    def end(self) -> None:
        self.holder = self.lease_until = None


class MemoryStore(
    Store,
    Outbox,
    ExporterRegistry,
    Rejections,
    Retention,
    Erasure,
    Aggregation,
    Leases,
    HostClocked,
    CountsDropped,
    LoadsHistory,
):
    """Keeps records in this process alone: they are lost with it, or with the store object.

    `close` forgets nothing, and the store may be used after it. A forked child goes on with its own copy.
    *clock* tells the nanoseconds since 1970; a test can set its own (`flask_chest.testing.ManualClock`).
    """

    def __init__(self, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._now = clock
        self._opened = False
        self._kept: dict[str, Record] = {}
        self._order: list[Record | None] = []
        """Records in the order of their arrival, what was loaded first; a deleted one leaves its place empty."""
        self._loaded = 0
        """Number of places of what was loaded, behind which every exporter begins."""
        self._cut_off: int | None = None
        self._kinds: dict[Shape, Kind] = {}
        self._forgotten: dict[str, int] = {}
        """Digest of what was forgotten → the time before which it began."""
        self._dropped = Dropped()
        self._late = 0
        self._last_late: int | None = None
        self._clock_note: str | None = None
        self._places: dict[str, _Place] = {}
        self._tokens = itertools.count(1)
        self._leases: dict[str, tuple[str, int]] = {}
        """Task → its owner, and until when."""
        self._conflicts = DuplicateIds()
        self._lock = PerProcess(threading.Lock)
        """Lock of this process: the parent's may be held by a thread which a forked child does not have."""

    @property
    def address(self) -> None:
        """``None``: there is nothing that a journal could be for."""

    def __repr__(self) -> str:
        return f"<MemoryStore records={len(self._kept)}>"

    def open(self) -> None:
        """Allow the use of the store."""
        self._opened = True
        if self._clock_note is None:
            self._clock_note = encode_note(ClockNote.taken(self._now()))

    def write(self, records: Sequence[Record], /) -> None:
        """Keep *records*; those whose id is kept already are skipped."""
        if records:
            with self._alone():
                self._order += self._new(records)

    def load(self, records: Sequence[Record], /) -> None:
        """Keep *records* as `write` does, but in front of what any exporter comes to."""
        if not records:
            return
        with self._alone():
            loaded = self._new(records)
            self._order[:0] = loaded
            self._loaded += len(loaded)
            for place in self._places.values():
                place.position += len(loaded)
                place.boundary = None if place.boundary is None else place.boundary + len(loaded)

    def _new(self, records: Sequence[Record]) -> list[Record]:
        """Keep *records*, and return those that were not kept before, which have no place in the order yet."""
        new: list[Record] = []
        notes = Notes(cut_off_unix_nano=self._cut_off, kinds=tuple(self._kinds.values()))
        for record, (*_, variables) in zip(records, storable_rows(records), strict=True):
            left = spared([record], notes, latest_cut_off=self._latest_cut_off, look_up=self._noted)
            if not left:
                self._dropped.add(1)
                if cut_off_from([record], left, notes):
                    self._late, self._last_late = self._late + 1, self._now()
                continue
            if (kept := self._kept.get(record.id)) is None:
                # From the encoded text: the caller may go on to change its own variables.
                kept = msgspec.structs.replace(record, variables=decode_variables(str(variables)))
                self._kept[record.id] = kept
                new.append(kept)
            elif kept != record:
                self._conflicts.note([record.id])
        return new

    def query(self, query: Query, /, *, timeout: timedelta | None = None) -> Iterable[Record]:
        """Yield the records that match, newest first, of those that are kept at the first step."""
        found: list[Record] = []
        with self._alone():
            limit = TimeLimit(timeout)
            for record in self._kept.values():
                limit.seconds()  # raises when none are left
                if query.matches(record):
                    found.append(record)
        found.sort(key=lambda record: (record.time_unix_nano, record.id), reverse=True)
        for record in found if query.limit is None else found[: max(0, query.limit)]:
            yield _copy(record)

    def status(self) -> StoreStatus:
        """Count what is kept."""
        with self._alone():
            times = [record.time_unix_nano for record in self._kept.values()]
            return StoreStatus(
                description="memory",
                records=len(times),
                oldest_unix_nano=min(times, default=None),
                newest_unix_nano=max(times, default=None),
                conflicts=self._conflicts.count,
            )

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def claim(self, exporter: str, /, *, limit: int, lease: timedelta) -> Claim | Busy | None:
        """Take the next records, or again the batch whose holder did not acknowledge it in time."""
        with self._alone():
            now = self._now()
            place = self._place(exporter, position=self._loaded)
            if (
                place.holder is not None
                and place.lease_until is not None
                and is_held(place.lease_until, now, lease=lease)
            ):
                return Busy(holder=place.holder, until_unix_nano=place.lease_until)
            if place.boundary is None or not self._between(place.position, place.boundary):
                place.boundary = self._boundary(place.boundary or place.position, limit)
            records = self._between(place.position, place.boundary)
            if not records:
                place.position, place.boundary = place.boundary, None
                return None
            place.token = next(self._tokens)
            place.holder = f"{socket.gethostname()}:{os.getpid()}"
            place.lease_until = now + nanoseconds(lease)
            return Claim(
                exporter=exporter,
                records=[_copy(record) for record in records],
                token=place.token,
                deadline_unix_nano=place.lease_until,
            )

    def renew(self, claim: Claim, /, *, lease: timedelta) -> bool:
        """Move the deadline to *lease* from now; return False when the claim is lost or has ended."""
        with self._alone():
            place = self._held(claim)
            if place is None or place.boundary is None:
                return False
            place.lease_until = self._now() + nanoseconds(lease)
            return True

    def acknowledge(self, claim: Claim, /, *, rejected: Mapping[str, str] = MappingProxyType({})) -> bool:
        """Count the claimed records as had; a deadline that passed matters only once another has claimed."""
        with self._alone():
            place = self._held(claim)
            if place is None:
                return False
            if place.boundary is not None:
                now = self._now()
                place.position, place.boundary = place.boundary, None
                place.end()
                place.last_seen = place.last_success = now
                place.last_error = None
                _set_aside(place, claim, rejected, now)
            return True

    def release(self, claim: Claim, /, *, error: str | None = None) -> None:
        """End the claim without delivery, for the reason *error*; its token is void from here on."""
        with self._alone():
            place = self._held(claim)
            if place is not None and place.boundary is not None:
                place.token, place.last_error = next(self._tokens), error
                place.end()

    def register(self, exporter: str, /, *, start_at: StartAt = "beginning") -> None:
        """Make *exporter* known; one that is known stays where it is."""
        with self._alone():
            self._place(exporter, position=len(self._order) if start_at == "now" else self._loaded)

    def exporters(self, *, timeout: timedelta | None = None) -> Sequence[ExporterStatus]:  # noqa: ARG002 - it takes no time
        """List the known exporters by name; past *timeout*, raise `QueryTimeout`."""
        with self._alone():
            return [
                ExporterStatus(
                    name=name,
                    backlog=len(self._between(place.position, len(self._order))),
                    rejected=len(place.rejected),
                    last_seen_unix_nano=place.last_seen,
                    last_success_unix_nano=place.last_success,
                    next_unix_nano=next(
                        (each.time_unix_nano for each in self._between(place.position, len(self._order))), None
                    ),
                    last_error=place.last_error,
                    holder=place.holder,
                    lease_until_unix_nano=place.lease_until,
                )
                for name, place in sorted(self._places.items())
            ]

    def drop(self, exporter: str, /) -> bool:
        """Forget *exporter*, its place and what was set aside for it; return False when it is not known."""
        with self._alone():
            return self._places.pop(exporter, None) is not None

    def rejections(self, exporter: str, /, *, timeout: timedelta | None = None) -> Iterable[Rejection]:  # noqa: ARG002
        """Return what was set aside for *exporter*, oldest first; past *timeout*, raise `QueryTimeout`."""
        with self._alone():
            place = self._places.get(exporter)
            return [] if place is None else list(place.rejected.values())

    def discard(self, exporter: str, record_ids: Sequence[str], /) -> int:
        """Forget that these records were set aside for *exporter*; return how many were."""
        with self._alone():
            place = self._places.get(exporter)
            found = [] if place is None else [place.rejected.pop(each, None) for each in record_ids]
            return sum(rejection is not None for rejection in found)

    def prune(self, before_unix_nano: int, /, *, limit: int, keep_unexported: bool = True) -> int:
        """Delete the oldest records that began before that time, at most *limit*; return their number."""
        with self._alone():
            had_by_all = min((place.position for place in self._places.values()), default=len(self._order))
            candidates = self._between(0, had_by_all if keep_unexported else len(self._order))
            latest = self._latest_cut_off()
            before = min(before_unix_nano, latest)
            old = [record for record in candidates if record.time_unix_nano < before]
            old = sorted(old, key=lambda record: (record.time_unix_nano, record.id))[:limit]
            cut_off = before if len(old) < limit else old[-1].time_unix_nano + 1
            if self._cut_off is None or self._cut_off < cut_off or self._cut_off > latest:
                self._cut_off = cut_off
            self._delete(old)
            return len(old)

    def forget(self, query: Query, /) -> int:
        """Delete every record that matches, and what was set aside of them; return their number."""
        with self._alone():
            newest = max((record.time_unix_nano for record in self._kept.values()), default=0)
            before = max(self._now(), newest) + MAX_STEP_NANO
            shape = Shape.of(query)
            kind = self._kinds.get(shape) or Kind(shape=shape, secret=new_secret(), before_unix_nano=before)
            latest = max(before, kind.before_unix_nano)
            self._kinds[shape] = msgspec.structs.replace(kind, before_unix_nano=latest)
            self._forgotten[shape.of_query(query, kind.secret)] = before
            found = [record for record in self._kept.values() if query.matches(record)]
            self._delete(found)
            return len(found)

    def aggregate(self, query: AggregateQuery, /, *, timeout: timedelta | None = None) -> Answer:
        """Return the answer from the records that match; their number is bounded by the memory of the process."""
        return aggregate(self.query(msgspec.structs.replace(query.query, limit=None), timeout=timeout), query)

    def boundary(self, newest: int, /) -> int | None:
        """Return the time before which all but *newest* records began; ``None`` if there are no more."""
        with self._alone():
            latest = self._latest_cut_off()
            times = [record.time_unix_nano for record in self._kept.values() if record.time_unix_nano <= latest]
            times.sort(reverse=True)
            return times[newest] + 1 if newest < len(times) else None

    def hold(self, task: str, /, *, owner: str, lease: timedelta) -> bool:
        """Lease *task* to *owner* for *lease* from now; return False when another owner holds it."""
        with self._alone():
            now = self._now()
            holder, until = self._leases.get(task, (owner, now))
            if holder != owner and is_held(until, now, lease=lease):
                return False
            self._leases[task] = owner, now + nanoseconds(lease)
            return True

    def let_go(self, task: str, /, *, owner: str) -> None:
        """Let others have *task* at once, if *owner* has it."""
        with self._alone():
            if self._leases.get(task, ("", 0))[0] == owner:
                del self._leases[task]

    def now_unix_nano(self) -> int:
        """Return the time by the clock that the store was made with."""
        return self._now()

    def clock_note(self) -> str | None:
        """Return what the clock told at the last run of retention, or when the store was opened."""
        return self._clock_note

    def note_clock(self, note: str, /) -> None:
        """Keep *note*."""
        self._clock_note = note

    def cut_off(self) -> CutOff | None:
        """Return up to when retention has deleted; ``None`` if it never has."""
        if self._cut_off is None:
            return None
        return CutOff(before_unix_nano=self._cut_off, dropped=self._late, last_dropped_unix_nano=self._last_late)

    @property
    def dropped(self) -> int:
        """Records that were left out, as they were deleted before they came."""
        return self._dropped.count

    def _latest_cut_off(self) -> int:
        return self._now() + MAX_STEP_NANO

    def _noted(self, digests: Sequence[str]) -> Mapping[str, int]:
        return {digest: self._forgotten[digest] for digest in digests if digest in self._forgotten}

    def _delete(self, records: Sequence[Record]) -> None:
        gone = {record.id for record in records}
        for record_id in gone:
            del self._kept[record_id]
        self._order = [None if record is None or record.id in gone else record for record in self._order]
        for place in self._places.values():
            place.rejected = {key: value for key, value in place.rejected.items() if key not in gone}

    def _between(self, begin: int, end: int) -> list[Record]:
        return [record for record in self._order[begin:end] if record is not None]

    def _boundary(self, begin: int, limit: int) -> int:
        """Return the end of the next *limit* records from *begin* on."""
        numbers = (number for number in range(begin, len(self._order)) if self._order[number] is not None)
        return max(itertools.islice(numbers, limit), default=len(self._order) - 1) + 1

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock.get():
            if not self._opened:
                raise StoreAbsent(
                    "records in memory are seen by the process that keeps them alone, "
                    "and this one has not opened the store"
                )
            yield

    def _place(self, exporter: str, *, position: int) -> _Place:
        now = self._now()
        place = self._places.setdefault(exporter, _Place(position=position, last_seen=now))
        place.last_seen = now
        return place

    def _held(self, claim: Claim) -> _Place | None:
        """Find the place that *claim* still has the right to change."""
        place = self._places.get(claim.exporter)
        return place if place is not None and place.token == claim.token else None


def _set_aside(place: _Place, claim: Claim, rejected: Mapping[str, str], now: int) -> None:
    for record in claim.records:
        if record.id in rejected:
            place.rejected[record.id] = Rejection(
                exporter=claim.exporter,
                record_id=record.id,
                reason=rejected[record.id],
                time_unix_nano=now,
            )
