"""What may be wrong with the time: how far a clock may be off, and whether a host's has jumped."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Self

import msgspec

MAX_STEP_NANO = 1_000_000_000
"""A clock that is set back by more has been ahead: what goes on from its last time would stay ahead too."""
MAX_SKEW_NANO = 60_000_000_000
"""Two clocks that differ by more: one of them is wrong, and nobody knows which."""
_LONGEST_OFF_NANO = 24 * 3600 * 1_000_000_000
"""A host that was off for longer may as well have a clock that is ahead."""
_DRIFT_SHARE = 1_000
"""The part of the time by which two clocks of one host may drift apart."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_UPTIME = Path("/proc/uptime")


def nanoseconds(span: timedelta) -> int:
    """Return *span* in nanoseconds."""
    return span // timedelta(microseconds=1) * 1_000


def is_held(until_unix_nano: int, now_unix_nano: int, *, lease: timedelta) -> bool:
    """Return whether a lease lasts until then, where one that begins now would have the length *lease*.

    One that ends much later was given by a clock that was ahead, perhaps by years: its holder may be gone, and
    if not, it finds that it has lost it.
    """
    return now_unix_nano < until_unix_nano <= now_unix_nano + nanoseconds(lease) + MAX_SKEW_NANO


class ClockNote(msgspec.Struct, frozen=True, kw_only=True):
    """What the clocks of a host told at a look: the one that people set, and the one that nobody can."""

    boot: str
    """The time between two starts of the host in which that was; empty where it has no name."""
    uptime_nano: int
    unix_nano: int
    doubted_until_nano: int = 0
    """The uptime up to which the clock is not believed."""

    @property
    def doubted(self) -> bool:
        """Whether the clock was not to be believed then."""
        return self.doubted_until_nano > self.uptime_nano

    @classmethod
    def taken(cls, unix_nano: int, former: ClockNote | None = None, *, doubt: timedelta = timedelta(0)) -> Self:
        """Look at the clocks of this host, where it is *unix_nano*.

        Where the time has moved since *former* as no running or switching off explains, it is doubted for the
        time of *doubt*.
        """
        boot, uptime = _boot(), _uptime_nano()
        if former is None:
            return cls(boot=boot, uptime_nano=uptime, unix_nano=unix_nano)
        moved, until = unix_nano - former.unix_nano, former.doubted_until_nano
        if boot == former.boot and uptime >= former.uptime_nano:
            elapsed = uptime - former.uptime_nano
            explained = abs(moved - elapsed) <= MAX_SKEW_NANO + elapsed // _DRIFT_SHARE
        else:
            # It was restarted since, or this is another host, which may have been up for long.
            off = moved - uptime if uptime <= moved else moved
            explained = -MAX_SKEW_NANO <= off <= _LONGEST_OFF_NANO and not former.doubted
            until = 0
        if not explained:
            until = uptime + nanoseconds(doubt)
        return cls(boot=boot, uptime_nano=uptime, unix_nano=unix_nano, doubted_until_nano=until)


def encode_note(note: ClockNote) -> str:
    """Make the text that `decode_note` makes the note of."""
    return msgspec.json.encode(note).decode()


def decode_note(text: str | None) -> ClockNote | None:
    """Decode what `encode_note` made; ``None`` for anything else."""
    with suppress(msgspec.DecodeError):
        return None if text is None else msgspec.json.decode(text, type=ClockNote)
    return None


def _boot() -> str:
    with suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return ""


def _uptime_nano() -> int:
    """Return how long the host has been running, time asleep included, as far as the system knows."""
    with suppress(OSError, ValueError):
        return int(float(_UPTIME.read_text().split()[0]) * 1e9)
    uptime = time.monotonic_ns()
    if sys.platform == "darwin":
        uptime = time.clock_gettime_ns(time.CLOCK_MONOTONIC)  # which goes on in its sleep, as Python's does not
    return uptime
