"""Why records are lost, and how many were: what the processes of a chest tell each other of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Self

import msgspec

RECENT_NS = 60 * 1_000_000_000
"""How long a loss is news: a chest that lost nothing meanwhile is well."""

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
"""In the order in which a slot's file counts them: new ones come last, and none is taken out.

Damage counts once for each hole that was found: how many records it was, if any, nobody can tell.
"""


class Losses(msgspec.Struct, frozen=True, kw_only=True):
    """How many records nobody took, by reason, and when the last of them was lost."""

    counts: Mapping[str, int] = MappingProxyType({})
    last_unix_nano: int | None = None

    @classmethod
    def sum(cls, parts: Iterable[Losses]) -> Self:
        """Add up *parts*; a time that is still to come was a clock's error, and hides none that is possible."""
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
        """All of them."""
        return sum(self.counts.values())

    def recent(self, within_ns: int = RECENT_NS) -> bool:
        """Tell whether the last one is not older than *within_ns*; a clock that was set back makes it old."""
        return self.last_unix_nano is not None and abs(time.time_ns() - self.last_unix_nano) < within_ns
