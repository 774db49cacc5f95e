"""Intakes: the ways of a record from a request to the store.

`Writer` is the usual one: the request appends to a journal, and one thread of the process moves what it holds to
the store. `JournalOnly` leaves the moving to another process, and `WriteThrough` does without a journal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from flask_chest._process import native_lock, start_native_thread
from flask_chest.background.backoff import pause_seconds
from flask_chest.background.poison import PATIENCE, Poison, deliver_isolating_poison
from flask_chest.background.stats import Tally
from flask_chest.background.suppression import suppress_instrumentation
from flask_chest.errors import JournalClosed, JournalError, JournalFull, RecordRefused
from flask_chest.journal.losses import JOURNAL_FULL, JOURNAL_REFUSED, LEFT_IN_MEMORY, NOT_SET_ASIDE
from flask_chest.journal.memory import MemoryJournal
from flask_chest.journal.protocols import Appendable, Intake, Journal
from flask_chest.protocols import CountsDropped, Sink, hand_over
from flask_chest.record import Record

BATCH_RECORDS = 1_000
COLLECT_SECONDS = 0.25
"""Seconds for which the writer waits after the first record, so that one transaction takes many."""
ADOPT_SECONDS = 15.0
"""Seconds between two looks for what other processes have left."""
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30.0
SHORT_PAUSE_SECONDS = 2.0
"""Pause up to which pauses double, however short the outage has been."""
HURRIED_PAUSE_SECONDS = 0.1
"""Pause between attempts while somebody waits in `Writer.flush`."""
RECORDS_A_TURN = 32
"""Number of records after which a busy process lets the writer's thread run."""
_TURN_SECONDS = 1e-6
"""Shortest wait that lets another thread run: the system makes some 60 µs of it."""
_POLL_SECONDS = 0.001
_LONGEST_POLL_SECONDS = 0.02


def store_pause_seconds(failures: int, *, away: float) -> float:
    """Return a random pause in seconds after *failures* in a row, the first of them *away* seconds ago.

    It is at most half as long as the outage, once that is long: a store that was away for five seconds is found
    within ten more, even if the attempt during which it returns needs five seconds to fail.
    """
    longest = min(LONGEST_PAUSE_SECONDS, max(SHORT_PAUSE_SECONDS, away / 2))
    return pause_seconds(failures, first=FIRST_PAUSE_SECONDS, longest=longest)


class WriteThrough(Intake):
    """Writes each record to the store at once, in the request: what fails is raised there."""

    def __init__(self, open_store: Callable[[], Sink], tally: Tally) -> None:
        self._open_store = open_store
        self._tally = tally

    def take(self, record: Record, /) -> None:
        """Write *record*."""
        try:
            dropped = _write(self._open_store(), (record,))
        except RecordRefused:
            raise
        except Exception:
            self._tally.store_failed()
            raise
        self._tally.store_took()
        self._tally.stored(1 - dropped)
        self._tally.dropped(dropped)

    def take_opened(self, record: Record, /) -> None:
        """Do nothing: the complete record will be written."""

    def wake(self) -> None:
        """Do nothing: requests do all there is to do."""

    def flush(self, timeout: float, /) -> bool:  # noqa: ARG002
        """Do nothing: all is stored."""
        return True

    def waiting(self) -> int:
        """Return 0."""
        return 0

    def close(self, timeout: float, /) -> bool:  # noqa: ARG002
        """Do nothing: the store is closed by its owner."""
        return True

    def abandon(self) -> None:
        """Do nothing."""


class JournalOnly(Intake):
    """Appends to *journal*, and leaves it to another process to store what is there."""

    def __init__(
        self, journal: Appendable, tally: Tally, *, reopen: Callable[[], Appendable | None] = lambda: None
    ) -> None:
        """Call *reopen* now and then for a journal on disk if *journal* is in memory: nobody can store that."""
        self._journal = journal
        self._in_memory = journal if isinstance(journal, MemoryJournal) else None
        """The journal if it is in memory."""
        if self._in_memory is None:
            # Each request calls it; there is nothing to do but to append.
            self.take = journal.append  # type: ignore[method-assign, assignment]  # its count is not needed
        self._tally = tally
        self._reopen = reopen
        self._lock = native_lock()
        self._next_try = time.monotonic() + ADOPT_SECONDS

    def take(self, record: Record, /) -> None:
        """Append *record*."""
        journal = self._journal
        if self._in_memory is not None and time.monotonic() >= self._next_try:
            self._try_disk(self._in_memory)
        try:
            journal.append(record)
        except JournalClosed:
            if journal is self._journal:
                raise
            self._journal.append(record)  # it has just moved to the disk

    def _try_disk(self, former: MemoryJournal) -> None:
        with self._lock:
            if time.monotonic() < self._next_try:
                return  # another request has just tried
            self._next_try = time.monotonic() + ADOPT_SECONDS
            if (on_disk := self._reopen()) is not None:
                self._journal, self._in_memory = on_disk, None
                former.close()
                _append_all(former, on_disk, self._tally)

    def take_opened(self, record: Record, /) -> None:
        """Append *record* as one that is to be completed."""
        self._journal.append_opened(record)

    def wake(self) -> None:
        """Do nothing: requests do all there is to do in this process."""

    def flush(self, timeout: float, /) -> bool:
        """Wait until another process has stored what waits; return False if that takes over *timeout* seconds."""
        if not self._journal.durable:
            return self.waiting() == 0  # no other process can see it
        deadline = time.monotonic() + timeout
        pause = _POLL_SECONDS
        while self.waiting() > 0:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)
        return True

    def waiting(self) -> int:
        """Count what was appended."""
        return self._journal.waiting()

    def close(self, timeout: float, /) -> bool:  # noqa: ARG002
        """Leave the journal's segments to other processes."""
        self._journal.close()
        return True

    def abandon(self) -> None:
        """Leave the journal to the parent."""
        self._journal.abandon()


class Writer(Intake):
    """Appends to *journal* in the request, and moves what it holds to the store in a thread of its own.

    The thread begins with the first record. Nothing that a store raises ends it: while the store is away it tries
    again, ever more seldom, and the records wait in the journal. A record that the store refuses for good is set
    aside, so that it does not hold up the others.
    """

    def __init__(
        self,
        journal: Journal,
        open_store: Callable[[], Sink],
        tally: Tally,
        *,
        gather: Callable[[], None] = lambda: None,
        adopt_seconds: float = ADOPT_SECONDS,
        reopen: Callable[[], Journal | None] = lambda: None,
    ) -> None:
        """Call *gather* for the records that no request can bring, and look for what others left in the journal.

        The latter happens every *adopt_seconds*. If *journal* is in memory, *reopen* is called then for one on
        disk.
        """
        self._reopen = reopen
        self._former: Journal | None = None
        """The journal in memory, while what waits there moves to the disk."""
        self._gather = gather
        self._gathering = False
        """Whether the thread may hold a record that does not wait in the journal yet."""
        self._adopt_seconds = adopt_seconds
        self._journal = journal
        self._open_store = open_store
        self._tally = tally
        self._bell = native_lock()
        self._bell.acquire()
        self._lock = native_lock()
        self._started = False
        self._stopping = False
        self._ended = False
        self._hurried = 0
        """Number of threads that wait in `flush`."""
        self._ring_at = 1
        """Number of waiting records from which on to ring: a comparison is cheaper than a syscall."""
        self._rung = False
        """Whether the thread was rung for and has not come yet."""
        self._turn = native_lock()
        self._turn.acquire()
        self._failures = 0
        self._failing_since = 0.0
        self._next_adoption = 0.0
        self._dropped = 0
        """Number of records in the current batch that had been deleted before they came."""
        self._filling = False
        """Whether another part of the journal is full since the thread last came."""
        journal.call_when_filling(self._ring_soon)

    def take(self, record: Record, /) -> None:
        """Append *record*, and ring for the thread if enough records wait."""
        journal = self._journal
        try:
            waiting = journal.append(record)
        except JournalClosed:
            if journal is self._journal:
                raise
            waiting = self._journal.append(record)  # it has just moved to the disk
        except JournalFull:
            if self._failures:
                raise  # the store is away: to let the thread run makes no room
            self._call(BATCH_RECORDS)
            waiting = self._journal.append(record)
        if waiting >= self._ring_at:
            self._call(waiting)
        if not self._started:
            self.start()

    def take_opened(self, record: Record, /) -> None:
        """Append *record* as one that is to be completed."""
        self._journal.append_opened(record)
        if not self._started:
            self.start()

    def wake(self) -> None:
        """Ring for the thread."""
        self._ring()

    def flush(self, timeout: float, /) -> bool:
        """Wait until what waits now is stored; return False if that takes over *timeout* seconds."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._hurried += 1
        try:
            pause = _POLL_SECONDS
            while self.waiting() > 0 or self._gathering:
                left = deadline - time.monotonic()
                if left <= 0 or self._ended:
                    return False
                self.start()
                self._ring()
                # Not an event: under gevent this thread and the writer's have no kind of it in common.
                time.sleep(min(pause, left))
                pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)
        finally:
            with self._lock:
                self._hurried -= 1
        return True

    def waiting(self) -> int:
        """Count the records that are taken and not stored."""
        former = self._former
        return self._journal.waiting() + (former.waiting() if former is not None else 0)

    def close(self, timeout: float, /) -> bool:
        """Store what can be stored in *timeout* seconds, then end the thread; return False if some is left."""
        deadline = time.monotonic() + timeout
        flushed = self.flush(timeout)
        self._stopping = True
        with self._lock:
            started, self._started = self._started, True
        if not started:
            self._close_journal()
        while not self._ended and time.monotonic() < deadline:
            self._ring()
            time.sleep(_POLL_SECONDS)
        # A store that hangs keeps the thread, which closes the journal should the store ever answer.
        return flushed and self._ended

    def abandon(self) -> None:
        """Leave the journal to the parent, whose thread does not exist in this process."""
        self._stopping = self._started = self._ended = True
        self._journal.abandon()

    def recover(self) -> int:
        """Store what others have left, in this thread, and return the number of records.

        Raises what the store raises. Not to be called once the writer's thread has begun.
        """
        self._journal.adopt()
        count = 0
        while moved := self._move():
            count += moved
        return count

    def start_if_needed(self) -> bool:
        """Begin the thread if other processes have left something, though nothing is recorded in this one.

        Returns False if it is needed and could not be started.
        """
        return not self._journal.is_anything_left() or self.start()

    def start(self) -> bool:
        """Begin the thread, as the first record does otherwise; return False if none can be started."""
        with self._lock:
            if self._started:
                return True
            self._started = True
        try:
            start_native_thread(self._run)
        except RuntimeError as exc:
            self._started = False
            self._tally.problem("the writer's thread did not start; records wait in the journal", exc)
            return False
        return True

    def _call(self, waiting: int) -> None:
        """Ring for the thread; if it has not come since the last ring, let it run first."""
        rung, self._rung = self._rung, True
        self._ring_at = waiting + RECORDS_A_TURN  # before the ring: who hears it sets it again
        self._ring()
        if rung:
            # A loop of requests that never rests lets go of Python's lock for its writes alone, and has it back
            # before a thread has woken up: nothing would be stored until the journal is full.
            self._turn.acquire(timeout=_TURN_SECONDS)

    def _ring_soon(self) -> None:
        """Have the next record ring: of long records, so many as make a batch may not fit into the journal."""
        self._filling = True  # first, since the thread may be about to listen for a whole batch
        self._ring_at = 1

    def _listen(self, ring_at: int) -> None:
        """Have the next ring come once *ring_at* records wait."""
        self._ring_at, self._rung = ring_at, False

    def _ring(self) -> None:
        with suppress(RuntimeError):  # it rings already
            self._bell.release()

    def _wait(self, seconds: float) -> None:
        self._bell.acquire(timeout=seconds)

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._await_records()
                self._gather_all()
                self._adopt_at_times()
                self._move_all()
            except BaseException as exc:  # noqa: BLE001 - a third-party store may even exit; the next records wait for us
                self._pause_after(exc)
        self._close_journal()

    def _close_journal(self) -> None:
        left = self._journal.waiting()
        if left > 0 and not self._journal.durable:
            self._tally.lost(LEFT_IN_MEMORY, count=left)
        try:
            self._journal.close()
        except OSError as exc:
            self._tally.problem("the journal did not close", exc)
        self._ended = True

    def _gather_all(self) -> None:
        self._gathering = True  # before anything is taken from where `flush` would look for it
        try:
            self._gather()
        finally:
            self._gathering = False

    def _await_records(self) -> None:
        self._listen(1)
        left = self._next_adoption - time.monotonic()
        if left > 0 and self._journal.waiting() == 0:
            self._wait(left)
        self._listen(BATCH_RECORDS)
        full = self._filling or self._journal.waiting() >= BATCH_RECORDS
        if not self._hurried and not self._stopping and not full:
            self._wait(COLLECT_SECONDS)
        self._filling = False

    def _adopt_at_times(self) -> None:
        now = time.monotonic()
        if now >= self._next_adoption:
            self._next_adoption = now + self._adopt_seconds
            if not self._journal.durable and (on_disk := self._reopen()) is not None:
                self._move_to(on_disk)
            self._journal.adopt()

    def _move_to(self, on_disk: Journal) -> None:
        """Go on with a journal on disk, which was not possible before, and move there what waits in memory."""
        on_disk.call_when_filling(self._ring_soon)
        self._former, self._journal = self._journal, on_disk
        self._former.close()  # who appended to it takes the other one now
        _append_all(self._former, on_disk, self._tally)
        self._former = None

    def _move_all(self) -> None:
        while not self._stopping and (moved := self._move()):
            if 0 < self._journal.waiting() < moved and not self._hurried:
                return  # these are written with those that come, for the price of one transaction

    def _move(self) -> int:
        """Move one batch; return how many records it had, 0 if nothing waits."""
        records = self._journal.read(BATCH_RECORDS)
        refused: Mapping[str, Poison] = {}
        self._dropped = 0
        if records:
            with suppress_instrumentation():
                # One record may be to blame without the store saying so; but more likely the store fails.
                refused = deliver_isolating_poison(
                    self._hand_over, records, suspicious=self._failures >= PATIENCE
                )
            self._tally.store_took()
        culprits = [record for record in records if record.id in refused]
        for record in culprits:
            self._set_aside(record, refused[record.id].reason)
        # Before `flush` may see that nothing waits.
        self._tally.dropped(self._dropped)
        self._tally.stored(len(records) - len(culprits) - self._dropped)
        self._journal.stored()
        self._failures = 0
        return len(records)

    def _hand_over(self, records: Sequence[Record]) -> None:
        self._dropped += _write(self._open_store(), records)

    def _set_aside(self, record: Record, reason: str) -> None:
        try:
            self._journal.set_aside(record, reason)
        except JournalError as exc:
            self._tally.lost(NOT_SET_ASIDE, exc)
        else:
            self._tally.set_aside()

    def _pause_after(self, error: BaseException) -> None:
        self._failures += 1
        if isinstance(error, JournalError):
            self._tally.problem("the journal cannot be read just now; its records wait", error)
        else:
            self._tally.store_took_nothing(error)
        began = time.monotonic()
        if self._failures == 1:
            self._failing_since = began
        pause = store_pause_seconds(self._failures, away=began - self._failing_since)
        self._listen(1 << 62)
        while not self._stopping:
            # `flush` rings all the time: that shortens the pause, and does not end it.
            seconds = min(pause, HURRIED_PAUSE_SECONDS) if self._hurried else pause
            left = began + seconds - time.monotonic()
            if left <= 0:
                return
            self._wait(left)


def _append_all(former: Journal, journal: Appendable, tally: Tally) -> None:
    """Append to *journal* what waits in *former*; what finds no room is lost, and counted."""
    while records := former.read(BATCH_RECORDS):
        for record in records:
            try:
                journal.append(record)
            except JournalError as exc:
                tally.lost(JOURNAL_FULL if isinstance(exc, JournalFull) else JOURNAL_REFUSED, exc)
        former.stored()


def _write(store: Sink, records: Sequence[Record]) -> int:
    """Write *records* to *store*; return how many it left out, as they had been deleted before they came."""
    if not isinstance(store, CountsDropped):
        hand_over(store.write, records)
        return 0
    before = store.dropped
    hand_over(store.write, records)
    return store.dropped - before
