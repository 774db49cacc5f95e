"""Why records are lost, and how many were: what the processes of a chest tell each other of it.

The counts lie in each slot's file, at a fixed place and of a fixed size, so that a full disk takes them too.
"""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Self

import msgspec

from flask_chest.journal._files import read_file

RECENT_NS = 60 * 1_000_000_000
"""Nanoseconds for which a loss is news: a chest that lost nothing meanwhile is well."""

JOURNAL_FULL = "the journal is full"
JOURNAL_REFUSED = "the journal did not take a record"
NOT_TAKEN_BY_STORE = "a record was not taken by the store"
NOT_SET_ASIDE = "the store refused a record, which could not be set aside"
LEFT_IN_MEMORY = "records that waited in memory were not stored before the end"
NOT_BEGUN = "recording a request did not begin"
NOT_CAPTURED = "the variables of a request were not captured"
TEARDOWN_NOT_CAPTURED = "the variables that a teardown set were not captured"
STREAM_NOT_CAPTURED = "the variables of a streamed response were not captured"
DAMAGED = "bytes of the journal were damaged, and skipped"
UNREADABLE = "a frame of the journal holds no record of this release, and was skipped"
REMOVED = "a segment of the journal was removed before its records were stored"
OTHERS = "other reasons"

REASONS = (
    OTHERS,
    JOURNAL_FULL,
    JOURNAL_REFUSED,
    NOT_TAKEN_BY_STORE,
    NOT_SET_ASIDE,
    LEFT_IN_MEMORY,
    NOT_BEGUN,
    NOT_CAPTURED,
    TEARDOWN_NOT_CAPTURED,
    STREAM_NOT_CAPTURED,
    DAMAGED,
    UNREADABLE,
    REMOVED,
)
"""Reasons in the order in which a slot's file counts them: new ones come last, and none is taken out.

Damage counts once for each hole that was found: how many records it was, if any, nobody can tell.
"""


SLOT_FILES = "slot-*.lock"
LOSSES_AT = 64
_MAGIC = b"losses1\n"
_COUNTERS = 32
"""Number of counters, more than there are reasons, so that a later release needs no other size."""
_FORMAT = struct.Struct(f"<8sQ{_COUNTERS}Q")
"""Magic bytes, the wall clock's time of the last loss, and a counter for each of `REASONS`."""
LOSSES_BYTES = _FORMAT.size
_MOST = 2**64 - 1


class Losses(msgspec.Struct, frozen=True, kw_only=True):
    """How many records nobody took, by reason, and when the last of them was lost."""

    counts: Mapping[str, int] = MappingProxyType({})
    last_unix_nano: int | None = None

    @classmethod
    def sum(cls, parts: Iterable[Losses]) -> Self:
        """Return the sum of *parts*; a time that is still to come was a clock's error, and is ignored."""
        counts: Counter[str] = Counter()
        times: list[int] = []
        possible = time.time_ns() + RECENT_NS
        for part in parts:
            counts.update(part.counts)
            if part.last_unix_nano is not None and part.last_unix_nano < possible:
                times.append(part.last_unix_nano)
        return cls(counts=counts, last_unix_nano=max(times, default=None))

    @property
    def total(self) -> int:
        """Number of lost records, for whatever reason."""
        return sum(self.counts.values())

    def recent(self, within_ns: int = RECENT_NS) -> bool:
        """Return whether the last loss is at most *within_ns* old; a clock that was set back makes it old."""
        return self.last_unix_nano is not None and abs(time.time_ns() - self.last_unix_nano) < within_ns


def are_losses(data: bytes) -> bool:
    """Return whether *data*, which was read at `LOSSES_AT`, are counts."""
    return _fields(data) is not None


def with_losses(data: bytes, counts: Mapping[str, int]) -> bytes:
    """Return *data*, which was read at `LOSSES_AT`, with *counts* added; what holds no counts begins at zero."""
    last, *counters = _fields(data) or (0, *[0] * _COUNTERS)
    for reason, count in counts.items():
        index = REASONS.index(reason if reason in REASONS else OTHERS)
        counters[index] = min(_MOST, counters[index] + count)
    return _FORMAT.pack(_MAGIC, time.time_ns() if counts else last, *counters)


def losses_in(folder: Path | None) -> Losses:
    """Return what all slots of *folder* have counted, also those of processes that are gone; take no lock."""
    if folder is None:
        return Losses()
    found: list[Losses] = []
    with suppress(OSError):  # the folder is not there, or another user's
        for path in folder.glob(SLOT_FILES):
            with suppress(OSError):
                found.append(_read(path))
    return Losses.sum(found)


def _read(path: Path) -> Losses:
    fields = _fields(read_file(path)[LOSSES_AT : LOSSES_AT + LOSSES_BYTES])
    if fields is None:
        return Losses()
    last, *counters = fields
    counts = {reason: count for reason, count in zip(REASONS, counters, strict=False) if count}
    unknown = sum(counters[len(REASONS) :])  # a later release's
    if unknown:
        counts[OTHERS] = counts.get(OTHERS, 0) + unknown
    return Losses(counts=counts, last_unix_nano=last or None)


def _fields(data: bytes) -> tuple[int, ...] | None:
    if len(data) != _FORMAT.size or not data.startswith(_MAGIC):
        return None
    _, *numbers = _FORMAT.unpack(data)
    return tuple(numbers)
