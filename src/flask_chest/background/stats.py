"""What happened to records in this process: counts by reason, and log lines that cannot flood."""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType

import msgspec

from flask_chest._process import native_lock
from flask_chest.errors import describe
from flask_chest.journal.losses import REASONS, Losses

LOG_INTERVAL_SECONDS = 60.0
DATED_AHEAD = "records are dated ahead of the clock, by a machine whose clock was: retention leaves them"
DELETED_BEFORE = "records were not stored, as they had been deleted before they came, by retention or by forget"
STORE_AWAY = "the store takes nothing; records wait in the journal"


class ExportCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What one exporter did in this process."""

    runs: int = 0
    """Number of runs that found something to do."""
    delivered: int = 0
    filtered: int = 0
    rejected: int = 0
    failures: int = 0
    """Runs that ended early."""


class ChestStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since this process began."""

    captured: int = 0
    """Records made from requests."""
    stored: int = 0
    """Records that the store took, also from processes that are gone."""
    waiting: int = 0
    """Records of this process that wait in its journal."""
    sampled_out: int = 0
    """Requests that were not recorded because of ``sample``."""
    deleted: int = 0
    """Records that retention deleted in this process."""
    spared: int = 0
    """Records that the last run of retention found dated ahead of the clock: no limit holds for them yet."""
    dropped: int = 0
    """Records that were not stored, as they had been deleted before they came, by retention or by `forget`."""
    set_aside: int = 0
    """Records that the store will never take: they are in the journal's file ``rejected``, with the reason."""
    lost: Mapping[str, int] = {}
    """Records of this process that nobody took, by reason; those of all processes: `Health.lost`."""
    faults: Mapping[str, int] = {}
    """Mishaps that lost nothing, by reason: a generator that raised, a value that could not be read."""
    exports: Mapping[str, ExportCounts] = {}
    """Counts by the name of the exporter."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a chest is, as far as it can be seen without asking the store.

    Losses are those of all processes that share the folder of the journal, also of those that are gone. Where the
    journal is in memory, and under ``strict``, a process knows its own alone.
    """

    ok: bool
    """Whether nothing was lost in the last minute: what is recorded now is kept, in the store or for it."""
    store_answers: bool
    """False while the store took nothing when this process tried last; then records wait in the journal."""
    waiting: int
    """Records of this process that wait in its journal."""
    lost: int
    """Records that nobody took, since the folder of the journal was made."""


class LogLimit:
    """Lets a line of the log pass once a minute for each reason."""

    def __init__(self) -> None:
        self._lock = native_lock()
        self._last: dict[str, float] = {}

    def passes(self, reason: str) -> bool:
        """Return whether *reason* is to be logged now."""
        now = time.monotonic()
        with self._lock:
            if now - self._last.get(reason, -LOG_INTERVAL_SECONDS) < LOG_INTERVAL_SECONDS:
                return False
            self._last[reason] = now
        return True


class Tally:
    """Counts for one chest in one process; each reason is logged at most once a minute."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._lock = native_lock()  # the writer's thread counts too, and is one also under gevent
        self._captures = itertools.count(1)
        # Without the lock and a call of our own, which every request would pay.
        self.captured: Callable[[], int] = self._captures.__next__
        """Count a record that was made."""
        self._sampled_out = 0
        self._stored = 0
        self._deleted = 0
        self._spared = 0
        self._dropped = 0
        self._set_aside = 0
        self._lost: dict[str, int] = {}
        self._faults: dict[str, int] = {}
        self._last_loss_unix_nano: int | None = None
        self._unnoted: Counter[str] = Counter()
        """Losses that no other process can see yet."""
        self._note: Callable[[Mapping[str, int]], bool] | None = None
        self._limit = LogLimit()
        self._away_since: float | None = None
        self._outage_said = False

    def sampled_out(self) -> None:
        """Count a request that is not recorded."""
        with self._lock:
            self._sampled_out += 1

    def stored(self, count: int = 1) -> None:
        """Count *count* records that the store took."""
        with self._lock:
            self._stored += count

    def deleted(self, count: int) -> None:
        """Count *count* records that retention deleted."""
        with self._lock:
            self._deleted += count

    def spared(self, count: int) -> None:
        """Note that *count* records are dated ahead of the clock, and say so."""
        with self._lock:
            self._spared = count
        if count:
            self._say(logging.WARNING, DATED_AHEAD, f"{count} now", None)

    def dropped(self, count: int) -> None:
        """Count *count* records that had been deleted before they came, and say so."""
        if count:
            with self._lock:
                self._dropped += count
                total = self._dropped
            self._say(logging.WARNING, DELETED_BEFORE, f"{total} so far", None)

    def set_aside(self) -> None:
        """Count a record that the store will never take, and say so."""
        with self._lock:
            self._set_aside += 1
            total = self._set_aside
        self._say(logging.ERROR, "the store refused a record, which was set aside", f"{total} so far", None)

    def lost(self, reason: str, error: BaseException | None = None, *, count: int = 1) -> None:
        """Count *count* records as lost, where other processes see it too, and say so."""
        with self._lock:
            total = self._lost[reason] = self._lost.get(reason, 0) + count
            self._unnoted[reason] += count
            with suppress(Exception):  # this may be a request's thread, and the count stands
                self._last_loss_unix_nano = time.time_ns()
                self._note_losses()
        self._say(logging.ERROR, reason, f"{total} records lost so far", error)

    def note_losses_by(self, note: Callable[[Mapping[str, int]], bool]) -> None:
        """Let *note* tell other processes what is lost from now on, and what it could not be told before."""
        with self._lock:
            self._note = note
            self._note_losses()

    def losses(self) -> Losses:
        """Copy what was lost in this process, and no other process can see."""
        unnoted = dict(self._unnoted)
        return Losses(counts=unnoted, last_unix_nano=self._last_loss_unix_nano)

    def problem(self, reason: str, error: BaseException | None = None, *, count: int = 1) -> None:
        """Count *count* mishaps that lost no record and say so."""
        with self._lock:
            total = self._faults[reason] = self._faults.get(reason, 0) + count
        self._say(logging.WARNING, reason, f"{total} times so far", error)

    def found_in_journal(self, what: str) -> None:
        """Count *what* a journal found: as a loss where records may be gone, else as a mishap."""
        if what in REASONS:
            self.lost(what)
        else:
            self.problem(what)

    @property
    def store_answers(self) -> bool:
        """Whether the store took something when it was tried last, or was not tried."""
        return self._away_since is None

    def store_failed(self) -> None:
        """Note that the store took nothing; its caller says so."""
        if self._away_since is None:
            self._away_since = time.monotonic()

    def store_took_nothing(self, error: BaseException) -> None:
        """Count that the store is away, and say so."""
        self.store_failed()
        with self._lock:
            total = self._faults[STORE_AWAY] = self._faults.get(STORE_AWAY, 0) + 1
        if self._say(logging.WARNING, STORE_AWAY, f"{total} times so far", error):
            self._outage_said = True

    def store_took(self) -> None:
        """Note that the store answers, and say so to whom was told that it does not."""
        since = self._away_since
        if since is None:
            return
        with self._lock:
            self._away_since = None
            said, self._outage_said = self._outage_said, False
        if said:  # else its absence was too short to be told, and so is its return
            seconds = time.monotonic() - since
            self._log(logging.WARNING, "the store takes records again", f"after {seconds:.0f} s", None)

    def snapshot(self, *, waiting: int = 0) -> ChestStats:
        """Copy the counts; without a lock, so that a signal handler may ask in the middle of a count."""
        return ChestStats(
            captured=_count_so_far(self._captures) - 1,
            stored=self._stored,
            waiting=waiting,
            sampled_out=self._sampled_out,
            deleted=self._deleted,
            spared=self._spared,
            dropped=self._dropped,
            set_aside=self._set_aside,
            lost=MappingProxyType(self._lost.copy()),
            faults=MappingProxyType(self._faults.copy()),
        )

    def _note_losses(self) -> None:
        if self._unnoted and self._note is not None and self._note(self._unnoted):
            self._unnoted = Counter()

    def _say(self, level: int, reason: str, count: str, error: BaseException | None) -> bool:
        """Log it, at most once a minute for each reason; return whether it was."""
        passes = self._limit.passes(reason)
        if passes:
            self._log(level, reason, count, error)
        return passes

    def _log(self, level: int, reason: str, count: str, error: BaseException | None) -> None:
        # A filter of the app may raise, and this may be a request's thread; the count stands.
        with suppress(Exception):
            cause = f": {describe(error)}" if error is not None else ""
            self._logger.log(level, "%s (%s)%s", reason, count, cause)


def _count_so_far(counter: itertools.count[int]) -> int:
    """Return what *counter* would give next, without counting: only its text tells that."""
    return int(repr(counter).removeprefix("count(").removesuffix(")"))
