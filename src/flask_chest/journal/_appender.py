"""The appending end of a journal on disk: a slot, and the segments that its owner fills one after the other.

The folder has a bound that all its processes share, so it is looked at now and then, and not on each append.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from flask_chest._clocks import MAX_STEP_NANO
from flask_chest._process import native_lock
from flask_chest.errors import JournalClosed, JournalError, JournalFull
from flask_chest.journal import JournalConfig, used_bytes
from flask_chest.journal._frames import FRAME_HEAD_BYTES, HEADER_BYTES, MAX_PAYLOAD_BYTES, OPENED, Identity
from flask_chest.journal._segments import SegmentName, SegmentWriter, remove_unfinished, segments_in
from flask_chest.journal._slots import take_again, take_lowest
from flask_chest.journal.accounts import make_folder
from flask_chest.journal.protocols import Appendable

MAX_SEGMENT_BYTES = 4 * 1024 * 1024
"""Size of a segment: it is dropped as a whole, so this is what stored records may still occupy."""
SEGMENTS_AT_LEAST = 8
"""Number of segments that fit into the bound of a folder: a full one has room again long before it is empty."""
LOOK_BYTES = 256 * 1024
"""Bytes appended between two looks at the folder, hence by how much each process may exceed the bound."""
FULL_SECONDS = 0.1
"""Seconds for which a folder that was found full is taken to be full."""
MTIME_LAG_NS = 10_000_000
"""Nanoseconds by which a file's time, which the kernel's coarse clock tells, may lie behind the clock's."""


class Room:
    """How much more the folder may hold; several processes fill it, so it is looked at now and then."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._full_until = 0.0

    def fits(self, size: int) -> bool:
        """Return whether *size* more bytes are within the bound just now."""
        return used_bytes(self._folder) + size <= self._max_bytes

    def grant(self, size: int) -> int:
        """Return how many bytes may be appended until the next look, at least *size*, or raise `JournalFull`."""
        now = time.monotonic()
        left = self._max_bytes - used_bytes(self._folder) if now >= self._full_until else 0
        if left < size:
            self._full_until = self._full_until if now < self._full_until else now + FULL_SECONDS
            raise JournalFull(
                f"the journal {self._folder} holds its {self._max_bytes} bytes, "
                "since the store takes too little; see why, or raise journal_bytes"
            )
        return min(left, max(size, LOOK_BYTES))

    def look_again(self) -> None:
        """Look at the folder before the next grant: something was dropped."""
        self._full_until = 0.0


class Appender:
    """Owns a slot in the journal's folder, and appends frames to segments of its own.

    Only `note_time`, `release` and `abandon` are called without `lock`.
    """

    def __init__(self, config: JournalConfig, *, left: bool, begin: Callable[[SegmentWriter], None]) -> None:
        """Take a slot in the folder, which is made if need be; raise ``OSError`` where that is not possible.

        *left* tells other processes to store what is appended here while this one lives. *begin* is called with
        each new segment, before anything is appended to it.
        """
        if config.folder is None:
            raise ValueError("a journal on disk needs a folder")
        self.folder = config.folder
        self.lock = native_lock()
        self.room = Room(self.folder, config.max_bytes)
        self.newest: SegmentWriter | None = None
        """Segment that the next record goes to."""
        self.store_id: str | None = None
        """Id of the store, for the headers of new segments; ``None`` until it was reached."""
        self.renamed: Callable[[str], None] = lambda _: None
        """Callable that is told `instance` whenever that changes."""
        self._config = config
        self._left = left
        self._begin = begin
        self._segment_bytes = min(MAX_SEGMENT_BYTES, config.max_bytes // SEGMENTS_AT_LEAST)
        self._granted = 0
        """Offset up to which the newest segment may grow without a look at the folder."""
        self._sealed_records = 0
        self._closed = False
        make_folder(self.folder)
        self.slot = take_lowest(self.folder)
        self.instance = f"{config.host}:{self.slot.number}"
        """Name that is unique among the live processes that share the folder."""
        try:
            self.former = segments_in(self.folder, slot=self.slot.number)
            """Segments that former owners of the slot left."""
            self.latest_unix_nano = self._continued_time()
            """Latest time of a record, of former owners of the slot too."""
            self._serial = self._first_serial = 1 + max((name.serial for name in self.former), default=0)
            self.slot.begin(serial=self._serial, left=left)
            remove_unfinished(self.folder, slot=self.slot.number)
        except BaseException:
            self.slot.release()
            raise

    @property
    def records(self) -> int:
        """Number of complete records that were appended."""
        newest = self.newest
        return self._sealed_records + (0 if newest is None else newest.records)

    def append(self, kind: int, payload: bytes, unix_nano: int = 0) -> None:
        """Append *payload*, a record of that time; raise `JournalError`, with nothing half done, if it cannot."""
        size = FRAME_HEAD_BYTES + len(payload)
        writer = self.newest
        if writer is None or writer.committed + size > self._granted:
            writer = self._make_space(size)
        try:
            writer.append(kind, payload)
        except OSError:
            # A full disk took half of it, which is cut off: that made a little room, or a new segment has it.
            self._mend(writer)
            self._append_again(kind, payload, size)
        except BaseException:  # a signal handler's: how much was written is not known then
            self._mend(writer)
            raise
        if unix_nano > self.latest_unix_nano:  # noqa: PLR1730 - a call of max is dearer
            self.latest_unix_nano = unix_nano

    def carry(self, payload: bytes) -> None:
        """Append *payload* as what an older segment opened, also beyond the bound: that segment then goes."""
        self._check_open()
        self._append_again(OPENED, payload, FRAME_HEAD_BYTES + len(payload))

    def seal(self) -> None:
        """End the newest segment; the next record begins another."""
        writer, self.newest = self.newest, None
        if writer is not None:
            writer.seal()
            self._sealed_records += writer.records

    def seal_removed(self) -> None:
        """End the newest segment if somebody has removed it: nobody would find there what this process leaves."""
        if self.newest is not None and self.newest.removed:
            self.seal()

    def retake_slot(self) -> None:
        """Take the slot and the folder again where somebody removed them, or another slot if that is taken."""
        former = self.slot
        if not former.removed:
            return
        try:
            make_folder(self.folder)
            slot = take_again(self.folder, former.number)
            if slot is None and (self.newest is None or self.newest.removed):
                slot = take_lowest(self.folder)  # somebody else has the number: nothing shows that it was ours
        except OSError:
            return  # it is tried again
        if slot is None:
            return  # somebody looks just now whether the owner lives; likewise
        self.slot = slot
        former.close()
        if slot.number != former.number:
            self._first_serial = self._serial
            self.instance = f"{self._config.host}:{slot.number}"
            self.renamed(self.instance)
        slot.begin(serial=self._first_serial, left=self._left)

    def close(self) -> None:
        """End the newest segment; appending raises `JournalClosed` from now on."""
        self._closed = True
        self.seal()

    def note_time(self) -> None:
        """Write down the latest time for the next owner of the slot, but none of a clock that was ahead."""
        with self.lock:
            now = time.time_ns()
            if self.latest_unix_nano >= now + MAX_STEP_NANO:
                self.latest_unix_nano = now
            latest = self.latest_unix_nano
        self.slot.note_time(latest)

    def release(self) -> None:
        """Leave the slot, and what waits, to the next owner."""
        self.note_time()
        self.slot.release()

    def abandon(self) -> None:
        """Leave the newest segment and the slot to the parent of this forked child."""
        self._closed = True
        writer, self.newest = self.newest, None
        if writer is not None:
            writer.close()
        self.slot.close()

    def _check_open(self) -> None:
        if self._closed:
            raise JournalClosed(f"the journal {self.folder} is closed")

    def _make_space(self, size: int) -> SegmentWriter:
        self._check_open()
        if size > FRAME_HEAD_BYTES + MAX_PAYLOAD_BYTES:
            raise JournalError(f"a record of {size} bytes is too long: at most {MAX_PAYLOAD_BYTES} fit")
        granted = self.room.grant(size)
        try:
            writer = self._with_space_for(size)
        except OSError as exc:
            raise self._error(exc) from exc
        self._granted = min(self._segment_bytes, writer.committed + granted)
        return writer

    def _append_again(self, kind: int, payload: bytes, size: int) -> None:
        try:
            writer = self._with_space_for(size)
            try:
                writer.append(kind, payload)
            except BaseException:
                self._mend(writer)
                raise
        except OSError as exc:
            raise self._error(exc) from exc

    def _mend(self, writer: SegmentWriter) -> None:
        # An empty one is used again: a disk that stays full would fill the folder with empty segments.
        if writer.committed > HEADER_BYTES or not writer.cut():
            self.seal()

    def _error(self, error: OSError) -> JournalError:
        return JournalError(f"the journal {self.folder} takes nothing: {error.strerror or error}")

    def _with_space_for(self, size: int) -> SegmentWriter:
        writer = self.newest
        if writer is not None and (
            writer.committed + size <= self._segment_bytes or writer.committed == HEADER_BYTES
        ):
            return writer
        try:
            created = self._create()
        except FileNotFoundError:
            self.retake_slot()
            created = self._create()
        except OSError:
            if writer is None:
                raise
            return writer  # it grows beyond its size, as no descriptor is free for another
        self.seal()
        self._serial += 1
        self._granted = 0
        self._begin(created)
        self.newest = created
        return created

    def _create(self) -> SegmentWriter:
        config = self._config
        # What people read in a header is cut to what fits there.
        identity = Identity(chest=config.chest[:30], store=config.store or "", instance=self.instance[-30:])
        return SegmentWriter.create(
            self.folder,
            slot=self.slot.number,
            serial=self._serial,
            identity=identity,
            store_id=self.store_id,
            synchronous=config.synchronous,
        )

    def _continued_time(self) -> int:
        """Return the time from which on to continue: what is further ahead was an error of the clock."""
        times = [self.slot.last_time_unix_nano(), *map(self._changed, self.former)]
        possible = time.time_ns() + MAX_STEP_NANO
        return max((unix_nano for unix_nano in times if unix_nano < possible), default=0)

    def _changed(self, name: SegmentName) -> int:
        try:
            return (self.folder / str(name)).lstat().st_mtime_ns + MTIME_LAG_NS
        except FileNotFoundError:  # stored by another process meanwhile
            return 0


class DiskJournal(Appendable):
    """What the journals on disk have in common, whoever stores the records."""

    def __init__(self, appender: Appender) -> None:
        self._appender = appender
        self._lock = appender.lock

    @property
    def instance(self) -> str:
        """``host:slot``, unique among the live processes that share the folder."""
        return self._appender.instance

    def call_when_renamed(self, tell: Callable[[str], None], /) -> None:
        """Call *tell* with the new `instance` whenever the slot must be another one."""
        self._appender.renamed = tell

    @property
    def latest_unix_nano(self) -> int:
        """Latest time of a record, of former owners of the slot too."""
        return self._appender.latest_unix_nano

    @property
    def durable(self) -> bool:
        """True."""
        return True

    def note_losses(self, counts: Mapping[str, int], /) -> bool:
        """Add *counts*, by reason, to the losses that the folder tells; return whether that was possible."""
        return self._appender.slot.note_losses(counts)
