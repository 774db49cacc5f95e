"""What happened to records in this process: counts by reason, and log lines that cannot flood."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType

import msgspec

from flask_chest.terminal import printable
from flask_chest.threads import native_lock

LOG_INTERVAL_SECONDS = 60.0
UNWELL_SECONDS = 60.0
"""How long a loss counts for `Health`."""


class ExportCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What one exporter did in this process."""

    runs: int = 0
    """Those that found something to do."""
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
    set_aside: int = 0
    """Records that the store will never take: they are in the journal's file ``rejected``, with the reason."""
    lost: Mapping[str, int] = {}
    """Records that nobody took, by reason."""
    faults: Mapping[str, int] = {}
    """Mishaps that lost nothing, by reason: a generator that raised, a value that could not be read."""
    exports: Mapping[str, ExportCounts] = {}
    """By the name of the exporter."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a chest is in this process."""

    ok: bool
    """Whether nothing was lost in the last minute: what is recorded now is kept, in the store or for it."""
    store_answers: bool
    """If not, records wait in the journal; that alone is no reason to take a process out of service."""
    waiting: int
    lost: int
    """Records that nobody took, since this process began."""


class Tally:
    """Counts for one chest in one process; each reason is logged at most once a minute."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._lock = native_lock()  # the writer's thread counts too, and is one also under gevent
        self._captures = itertools.count(1)
        # Without the lock and a call of our own, which every request would pay.
        self.captured: Callable[[], int] = self._captures.__next__
        """Count a record that was made."""
        self._looks = 0
        self._sampled_out = 0
        self._stored = 0
        self._deleted = 0
        self._set_aside = 0
        self._lost: dict[str, int] = {}
        self._faults: dict[str, int] = {}
        self._last_loss: float | None = None
        self._last_logged: dict[str, float] = {}

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

    def set_aside(self) -> None:
        """Count a record that the store will never take, and say so."""
        with self._lock:
            self._set_aside += 1
            total = self._set_aside
        self._say(logging.ERROR, "the store refused a record, which was set aside", f"{total} so far", None)

    def lost(self, reason: str, error: BaseException | None = None, *, count: int = 1) -> None:
        """Count *count* records as lost and say so."""
        with self._lock:
            total = self._lost[reason] = self._lost.get(reason, 0) + count
            self._last_loss = time.monotonic()
        self._say(logging.ERROR, reason, f"{total} records lost so far", error)

    def fault(self, reason: str, error: BaseException | None = None, *, count: int = 1) -> None:
        """Count *count* mishaps that lost no record and say so."""
        with self._lock:
            total = self._faults[reason] = self._faults.get(reason, 0) + count
        self._say(logging.WARNING, reason, f"{total} times so far", error)

    def has_just_lost(self) -> bool:
        """Tell whether a record was lost in the last minute."""
        with self._lock:
            return self._last_loss is not None and time.monotonic() - self._last_loss < UNWELL_SECONDS

    def snapshot(self, *, waiting: int = 0) -> ChestStats:
        """Copy the counts."""
        with self._lock:
            self._looks += 1
            return ChestStats(
                captured=next(self._captures) - self._looks,
                stored=self._stored,
                waiting=waiting,
                sampled_out=self._sampled_out,
                deleted=self._deleted,
                set_aside=self._set_aside,
                lost=MappingProxyType(dict(self._lost)),
                faults=MappingProxyType(dict(self._faults)),
            )

    def _say(self, level: int, reason: str, count: str, error: BaseException | None) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._last_logged.get(reason, -LOG_INTERVAL_SECONDS) < LOG_INTERVAL_SECONDS:
                return
            self._last_logged[reason] = now
        # A filter of the app may raise, and this may be a request's thread; the count stands.
        with suppress(Exception):
            self._logger.log(level, "%s (%s)%s", reason, count, describe(error))


def describe(error: BaseException | None) -> str:
    """Say what *error* is: in full when it is ours, by its type when it is not.

    The text of somebody else's exception may hold a value, a password or a token.
    """
    if error is None:
        return ""
    if type(error).__module__.partition(".")[0] == "flask_chest":
        return f": {printable(str(error))}"  # a target's answer may stand in it
    return f": {type(error).__module__}.{type(error).__qualname__}"
