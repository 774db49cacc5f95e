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
    """Number of runs that ended early."""


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
    """Problems that lost no record, by reason: a generator that raised, a value that could not be read."""
    exports: Mapping[str, ExportCounts] = {}
    """Counts by the name of the exporter."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """State of a chest, as far as it is known without asking the store.

    Losses are those of all processes that share the journal's folder, also of those that are gone. Where the
    journal is in memory, and under ``strict``, a process knows only its own.
    """

    ok: bool
    """Whether nothing was lost in the last minute, so that what is recorded now is kept for the store."""
    store_answers: bool
    """Whether the store took records when this process tried last, or was not tried; else they wait."""
    waiting: int
    """Records of this process that wait in its journal."""
    lost: int
    """Number of records that were lost since the journal's folder was made."""


class LogLimit:
    """Limit of one log line a minute for each reason."""

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
        """Callable that counts a record that was made."""
        self._counts: Counter[str] = Counter()
        """Counts by the name of their field in `ChestStats`."""
        self._lost: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
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
            self._counts["sampled_out"] += 1

    def stored(self, count: int = 1) -> None:
        """Count *count* records that the store took."""
        self._add(self._counts, "stored", count)

    def deleted(self, count: int) -> None:
        """Count *count* records that retention deleted."""
        self._add(self._counts, "deleted", count)

    def spared(self, count: int) -> None:
        """Note that *count* records are dated ahead of the clock, and say so."""
        self._counts["spared"] = count
        if count:
            self._say(logging.WARNING, DATED_AHEAD, f"{count} now")

    def dropped(self, count: int) -> None:
        """Count *count* records that had been deleted before they came, and say so."""
        if count:
            total = self._add(self._counts, "dropped", count)
            self._say(logging.WARNING, DELETED_BEFORE, f"{total} so far")

    def set_aside(self) -> None:
        """Count a record that the store will never take, and say so."""
        total = self._add(self._counts, "set_aside")
        self._say(logging.ERROR, "the store refused a record, which was set aside", f"{total} so far")

    def lost(self, reason: str, error: BaseException | None = None, *, count: int = 1) -> None:
        """Count *count* records as lost, where other processes see it too, and say so."""
        with self._lock:
            self._lost[reason] += count
            total = self._lost[reason]
            self._unnoted[reason] += count
            with suppress(Exception):  # this may be a request's thread, and the count stands
                self._last_loss_unix_nano = time.time_ns()
                self._note_losses()
        self._say(logging.ERROR, reason, f"{total} records lost so far", error)

    def note_losses_by(self, note: Callable[[Mapping[str, int]], bool]) -> None:
        """Call *note* with what is lost from now on, for other processes, and with what was lost before."""
        with self._lock:
            self._note = note
            self._note_losses()

    def losses(self) -> Losses:
        """Return what was lost in this process and is not visible to others."""
        unnoted = dict(self._unnoted)
        return Losses(counts=unnoted, last_unix_nano=self._last_loss_unix_nano)

    def problem(self, reason: str, error: BaseException | None = None, *, count: int = 1) -> bool:
        """Count *count* problems that lost no record; return whether that was logged."""
        total = self._add(self._faults, reason, count)
        return self._say(logging.WARNING, reason, f"{total} times so far", error)

    def found_in_journal(self, what: str) -> None:
        """Count *what* a journal found: as a loss if records may be gone, else as a problem."""
        if what in REASONS:
            self.lost(what)
        else:
            self.problem(what)

    @property
    def store_answers(self) -> bool:
        """Whether the store took something when it was tried last, or was not tried."""
        return self._away_since is None

    def store_failed(self) -> None:
        """Note that the store took nothing, without a count or a log line."""
        if self._away_since is None:
            self._away_since = time.monotonic()

    def store_took_nothing(self, error: BaseException) -> None:
        """Count and log that the store is away."""
        self.store_failed()
        if self.problem(STORE_AWAY, error):
            self._outage_said = True

    def store_took(self) -> None:
        """Note that the store answers; log it if it was logged that it did not."""
        since = self._away_since
        if since is None:
            return
        with self._lock:
            self._away_since = None
            said, self._outage_said = self._outage_said, False
        if said:  # else the outage was too short to be logged, and so is its end
            seconds = time.monotonic() - since
            self._log(logging.WARNING, "the store takes records again", f"after {seconds:.0f} s")

    def snapshot(self, *, waiting: int = 0) -> ChestStats:
        """Copy the counts; without a lock, so that a signal handler may ask in the middle of a count."""
        return ChestStats(
            captured=_count_so_far(self._captures) - 1,
            stored=self._counts["stored"],
            waiting=waiting,
            sampled_out=self._counts["sampled_out"],
            deleted=self._counts["deleted"],
            spared=self._counts["spared"],
            dropped=self._counts["dropped"],
            set_aside=self._counts["set_aside"],
            lost=MappingProxyType(dict(self._lost)),
            faults=MappingProxyType(dict(self._faults)),
        )

    def _add(self, counts: Counter[str], key: str, count: int = 1) -> int:
        with self._lock:
            counts[key] += count
            return counts[key]

    def _note_losses(self) -> None:
        if self._unnoted and self._note is not None and self._note(self._unnoted):
            self._unnoted = Counter()

    def _say(self, level: int, reason: str, count: str, error: BaseException | None = None) -> bool:
        """Log *reason* unless it was logged in the last minute; return whether it is now."""
        passes = self._limit.passes(reason)
        if passes:
            self._log(level, reason, count, error)
        return passes

    def _log(self, level: int, reason: str, count: str, error: BaseException | None = None) -> None:
        # A filter of the app may raise, and this may be a request's thread; the count stands.
        with suppress(Exception):
            cause = f": {describe(error)}" if error is not None else ""
            self._logger.log(level, "%s (%s)%s", reason, count, cause)


def _count_so_far(counter: itertools.count[int]) -> int:
    """Return the next value of *counter* without counting: only its text shows it."""
    return int(repr(counter).removeprefix("count(").removesuffix(")"))
