"""The journal in memory: for tests, for stores that keep nothing either, and where no folder can be written."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping

from flask_chest._process import native_lock
from flask_chest.errors import JournalClosed, JournalError, JournalFull
from flask_chest.journal._frames import decode_record, encode_record
from flask_chest.journal.protocols import Journal
from flask_chest.record import Record

MAX_BYTES = 32 * 1024 * 1024
"""Most bytes of encoded records that a journal in memory takes, whatever the bound of the folder."""
PARTS = 8
"""Number of reads that a full journal takes at least: it has room again long before it is empty."""


class MemoryJournal(Journal):
    """Keeps records until they are stored or the process ends; at most *max_bytes* of them.

    They are kept encoded: a tenth of the memory that objects take.
    """

    def __init__(self, *, instance: str, max_bytes: int = MAX_BYTES) -> None:
        self._instance = instance
        self._max_bytes = max_bytes
        self._lock = native_lock()
        self._payloads: deque[bytes] = deque()
        self._bytes = 0
        self._part_bytes = max_bytes // PARTS
        self._filling: Callable[[], None] = lambda: None
        self._out = 0
        self._closed = False

    @property
    def instance(self) -> str:
        """Name that it was made with."""
        return self._instance

    @property
    def latest_unix_nano(self) -> int:
        """0: nothing is known of former processes."""
        return 0

    @property
    def durable(self) -> bool:
        """False."""
        return False

    def append(self, record: Record, /) -> int:
        """Keep *record* until this process ends, and return how many records wait."""
        payload = encode_record(record)
        with self._lock:
            if self._closed:
                raise JournalClosed("the journal in memory is closed")
            if self._bytes + len(payload) > self._max_bytes:
                raise JournalFull(
                    f"the journal in memory holds its {self._max_bytes} bytes, since the store takes too little; "
                    "see why, or give it a folder by journal_dir"
                )
            if self._bytes % self._part_bytes + len(payload) >= self._part_bytes:
                self._filling()
            self._bytes += len(payload)
            self._payloads.append(payload)
            return len(self._payloads)

    def append_opened(self, record: Record, /) -> None:
        """Do nothing: it would end with the process that might interrupt the response."""

    def call_when_renamed(self, tell: Callable[[str], None], /) -> None:
        """Do nothing: the name stays."""

    def call_when_filling(self, tell: Callable[[], None], /) -> None:
        """Call *tell* whenever another eighth of the bound is taken."""
        self._filling = tell

    def read(self, limit: int, /) -> list[Record]:
        """Return the oldest records, at most *limit* and an eighth of the bound, or one."""
        with self._lock:
            payloads = list(itertools.islice(self._payloads, limit))
            sizes = itertools.accumulate(map(len, payloads))
            fitting = sum(1 for size in sizes if size <= self._part_bytes)
            self._out = min(len(payloads), max(fitting, 1))
        return list(map(decode_record, payloads[: self._out]))

    def stored(self) -> None:
        """Remove what `read` returned last."""
        with self._lock:
            for _ in range(self._out):
                self._bytes -= len(self._payloads.popleft())
            self._out = 0

    def set_aside(self, record: Record, reason: str, /) -> None:
        """Refuse: there is nowhere to keep it."""
        raise JournalError(f"record {record.id} cannot be set aside in memory ({reason})")

    def waiting(self) -> int:
        """Return how many records are not stored."""
        return len(self._payloads)

    def note_losses(self, counts: Mapping[str, int], /) -> bool:  # noqa: ARG002
        """Refuse: no other process could see them."""
        return False

    def is_anything_left(self) -> bool:
        """Return False: nothing outlives a process."""
        return False

    def adopt(self) -> None:
        """Do nothing: nothing outlives a process."""

    def close(self) -> None:
        """Take nothing any more."""
        self._closed = True

    def abandon(self) -> None:
        """Forget what is the parent's to store."""
        self._closed = True
        self._payloads.clear()
