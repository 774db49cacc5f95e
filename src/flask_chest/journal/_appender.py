"""The writing end of a journal: segments one after the other, within the bound of their folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from flask_chest.errors import JournalClosed, JournalError, JournalFull
from flask_chest.journal._frames import FRAME_HEAD_BYTES, HEADER_BYTES, MAX_PAYLOAD_BYTES, OPENED, Identity
from flask_chest.journal._segments import SegmentWriter

MAX_SEGMENT_BYTES = 4 * 1024 * 1024
"""A segment is dropped as a whole, so this is what stored records may still occupy."""
SEGMENTS_AT_LEAST = 8
"""Of a journal with a small bound: one that is full gets room again long before it is empty."""
LOOK_BYTES = 256 * 1024
"""How much is appended between two looks at the folder, hence by how much each process may exceed the bound."""
LOOK_SECONDS = 0.1
"""How long a folder that was found full is taken to be full."""


class Room:
    """How much more the folder may hold; several processes fill it, so it is looked at now and then."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._full_until = 0.0

    def used(self) -> int:
        """Count the bytes in the folder; none where it cannot be looked at, which says nothing about its room."""
        try:
            with os.scandir(self.folder) as entries:
                return sum(map(_size, entries))
        except OSError:
            return 0

    def grant(self, size: int) -> int:
        """Tell how many bytes may be appended until the next look, at least *size*, or raise `JournalFull`."""
        now = time.monotonic()
        left = self.max_bytes - self.used() if now >= self._full_until else 0
        if left < size:
            self._full_until = self._full_until if now < self._full_until else now + LOOK_SECONDS
            raise JournalFull(
                f"the journal {self.folder} holds its {self.max_bytes} bytes, since the store takes too little; "
                "see why, or raise journal_bytes"
            )
        return min(left, max(size, LOOK_BYTES))

    def look_again(self) -> None:
        """Take nothing for granted: something was dropped."""
        self._full_until = 0.0


class Appender:
    """Appends frames to the newest segment of one owner. Its callers hold a lock."""

    def __init__(
        self,
        room: Room,
        *,
        slot: int,
        serial: int,
        identity: Identity,
        synchronous: bool,
        announce: Callable[[SegmentWriter], None],
        restore: Callable[[], None],
    ) -> None:
        """Begin with segment number *serial*; *announce* each segment before anything is appended to it.

        Call *restore* where the folder is gone.
        """
        self._room = room
        self._slot = slot
        self._serial = serial
        self._identity = identity
        self.store_id: str | None = None
        """Which store is there, for the segments to come; ``None``: it was not reached yet."""
        self._synchronous = synchronous
        self._announce = announce
        self._restore = restore
        self._segment_bytes = min(MAX_SEGMENT_BYTES, room.max_bytes // SEGMENTS_AT_LEAST)
        self._writer: SegmentWriter | None = None
        self._granted = 0
        """Up to where the newest segment may grow without a look at the folder."""
        self._sealed_records = 0
        self._closed = False

    @property
    def records(self) -> int:
        """How many complete records were appended."""
        writer = self._writer
        return self._sealed_records + (0 if writer is None else writer.records)

    def append(self, kind: int, payload: bytes) -> None:
        """Append *payload*; raise `JournalError`, with nothing half done, when that is not possible."""
        size = FRAME_HEAD_BYTES + len(payload)
        writer = self._writer
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

    def carry(self, payload: bytes) -> None:
        """Append *payload* as what an older segment opened, also beyond the bound: that segment then goes."""
        if self._closed:
            raise JournalClosed(f"the journal {self._room.folder} is closed")
        self._append_again(OPENED, payload, FRAME_HEAD_BYTES + len(payload))

    def move(self, *, slot: int, instance: str) -> int:
        """Make the next segments in another *slot*, under another name; return the number of the first."""
        self._slot, self._identity = slot, msgspec.structs.replace(self._identity, instance=instance)
        return self._serial

    @property
    def newest(self) -> SegmentWriter | None:
        """The segment that the next record goes to."""
        return self._writer

    def leave_removed(self) -> bool:
        """End the newest segment if somebody has removed it: nobody would find there what this process leaves."""
        removed = self._writer is not None and self._writer.removed
        if removed:
            self.seal()
        return removed

    def seal(self) -> None:
        """End the newest segment; the next record begins another."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.seal()
            self._sealed_records += writer.records

    def close(self) -> None:
        """End the newest segment, and take nothing any more."""
        self._closed = True
        self.seal()

    def abandon(self) -> None:
        """Leave the newest segment to the parent of this forked child."""
        self._closed = True
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abandon()

    def _make_space(self, size: int) -> SegmentWriter:
        if self._closed:
            raise JournalClosed(f"the journal {self._room.folder} is closed")
        if size > FRAME_HEAD_BYTES + MAX_PAYLOAD_BYTES:
            raise JournalError(f"a record of {size} bytes is too long, at most {MAX_PAYLOAD_BYTES} fit")
        granted = self._room.grant(size)
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
        return JournalError(f"the journal {self._room.folder} takes nothing: {error.strerror or error}")

    def _with_space_for(self, size: int) -> SegmentWriter:
        writer = self._writer
        if writer is not None and (
            writer.committed + size <= self._segment_bytes or writer.committed == HEADER_BYTES
        ):
            return writer
        try:
            created = self._create()
        except FileNotFoundError:
            self._restore()
            created = self._create()
        except OSError:
            if writer is None:
                raise
            return writer  # it grows beyond its size, as no descriptor is free for another
        self.seal()
        self._serial += 1
        self._granted = 0
        self._announce(created)
        self._writer = created
        return created

    def _create(self) -> SegmentWriter:
        return SegmentWriter.create(
            self._room.folder,
            slot=self._slot,
            serial=self._serial,
            identity=self._identity,
            store_id=self.store_id,
            synchronous=self._synchronous,
        )


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
