"""One file of a journal: written at its end by its owner, read from its beginning, dropped when it is stored."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from flask_chest.journal._frames import (
    COMPLETE,
    HEADER_BYTES,
    MARKER_BYTES,
    MAX_PAYLOAD_BYTES,
    STORED_AT,
    Frame,
    Header,
    Identity,
    Skipped,
    frame_maker,
    make_header,
    pack_passed,
    read_header,
    read_stored,
    scan,
)

CHUNK_BYTES = 256 * 1024
_NAME = re.compile(r"(?P<slot>[0-9]+)-(?P<serial>[0-9]+)-(?P<marker>[0-9a-f]{16})\.journal")
_TEMPORARY_SUFFIX = ".new"


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """What a segment's file name says; ordered as the segments were written."""

    slot: int
    serial: int
    marker: bytes

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Read the name of a file; ``None`` for a file that is no segment."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        parsed = cls(int(found["slot"]), int(found["serial"]), bytes.fromhex(found["marker"]))
        return parsed if str(parsed) == name else None

    def __str__(self) -> str:
        return f"{self.slot}-{self.serial:08d}-{self.marker.hex()}.journal"


def segments_in(folder: Path, *, slot: int | None = None) -> list[SegmentName]:
    """List the segments in *folder*, of one *slot* or of all, oldest first within a slot."""
    names = map(SegmentName.parse, os.listdir(folder))  # noqa: PTH208 - names are wanted, not paths
    return sorted(name for name in names if name is not None and slot in (None, name.slot))


def read_identity(folder: Path, name: SegmentName) -> Header | None:
    """Read what a segment says of itself; ``None`` when that is damaged."""
    with (folder / str(name)).open("rb") as file:
        return read_header(file.read(HEADER_BYTES))


def remove_unfinished(folder: Path, *, slot: int) -> None:
    """Remove what a former owner of *slot* left in the middle of making a segment."""
    for path in folder.glob(f"{slot}-*{_TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


class SegmentWriter:
    """The end of a segment, where its owner appends."""

    def __init__(self, name: SegmentName, descriptor: int, *, synchronous: bool) -> None:
        self.name = name
        self.committed = HEADER_BYTES
        """Up to here every frame is whole."""
        self.records = 0
        """How many complete records it holds."""
        self.sealed = False
        """Whether `committed` is final."""
        self._make_frame = frame_maker(name.marker)
        self._descriptor = descriptor
        self._synchronous = synchronous

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        slot: int,
        serial: int,
        identity: Identity,
        store_id: str | None,
        synchronous: bool,
    ) -> Self:
        """Make a new segment; ``OSError`` leaves nothing behind. Nobody sees one without its header.

        A *synchronous* one survives a power cut, and so does each of its frames.
        """
        name = SegmentName(slot, serial, secrets.token_bytes(MARKER_BYTES))
        path = folder / str(name)
        unfinished = path.with_name(path.name + _TEMPORARY_SUFFIX)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(unfinished, flags, 0o600)
        try:
            _write_whole(descriptor, make_header(identity, store_id))
            if synchronous:
                _synchronise(descriptor)
            unfinished.rename(path)
            if synchronous:
                _synchronise_folder(folder)
        except BaseException:
            os.close(descriptor)
            unfinished.unlink(missing_ok=True)
            raise
        return cls(name, descriptor, synchronous=synchronous)

    def append(self, kind: int, payload: bytes) -> None:
        """Append a whole frame; after an exception `cut` or `seal` must follow."""
        frame = self._make_frame(kind, payload)
        written = os.write(self._descriptor, frame)
        if written != len(frame):
            raise OSError(f"only {written} of {len(frame)} bytes were written")
        if self._synchronous:
            _synchronise(self._descriptor)
        # Between these two no signal handler can raise, and a reader never counts what it cannot read yet.
        self.committed += written
        if kind == COMPLETE:
            self.records += 1

    def cut(self) -> bool:
        """Cut off what a failed append left behind; False when the disk refuses even that."""
        try:
            os.ftruncate(self._descriptor, self.committed)
        except OSError:
            return False
        return True

    def seal(self) -> None:
        """End the segment at its last whole frame, and close it."""
        self.sealed = True
        self.cut()  # a reader skips what else is there
        self.abandon()

    def abandon(self) -> None:
        """Close the file as it is: a forked child leaves it to its parent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class SegmentReader:
    """The frames of a segment, from where they are stored on."""

    def __init__(self, folder: Path, name: SegmentName) -> None:
        self.name = name
        self._path = folder / str(name)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        header = os.pread(self._descriptor, HEADER_BYTES, 0)
        self.position = read_stored(header, size=self.size())
        """Up to where it was read."""
        self._noted: tuple[int, int, str | None] = (self.position, self.position, None)

    def size(self) -> int:
        """Tell how long the file is now."""
        return os.fstat(self._descriptor).st_size

    def read(self, end: int, *, final: bool = True) -> Iterator[Frame | Skipped]:
        """Yield what lies between the position and *end*, and move the position.

        What is not taken from the iterator comes again. Unless *end* is *final*, an owner in another process may
        be in the middle of a frame there, which is left for later.
        """
        wanted = CHUNK_BYTES
        while self.position < end:
            base = self.position
            asked = min(wanted, end - base)
            data = os.pread(self._descriptor, asked, base)
            if not data:  # somebody has cut the file
                if final:
                    self.position = end
                    yield Skipped(end - base, end)
                return
            last = base + asked == end or len(data) < asked
            for found in scan(data, self.name.marker, complete=last and final, base=base):
                self.position = found.end
                yield found
            if last and not final:
                return
            if self.position == base:  # a frame longer than what was read, or whose damaged length says so
                wanted = min(wanted * 4, MAX_PAYLOAD_BYTES + CHUNK_BYTES)

    def note_stored(self, offset: int, store_id: str | None) -> None:
        """Write down that all before *offset* is stored, if the disk lets us: stored twice is kept once.

        And that of what was read only that is needed which opened a record; and in which store it is.
        """
        noted = (offset, self.position, store_id)
        if noted != self._noted:
            with suppress(OSError):
                os.pwrite(self._descriptor, pack_passed(*noted), STORED_AT)
            self._noted = noted

    def drop(self) -> None:
        """Remove the file."""
        self.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file and leave it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _write_whole(descriptor: int, data: bytes) -> None:
    written = os.write(descriptor, data)
    if written != len(data):
        raise OSError(f"only {written} of {len(data)} bytes were written")


def append_line(descriptor: int, line: bytes) -> None:
    """Append *line* durably to a file of which the caller holds the lock; ``OSError`` leaves no half of it."""
    size = os.fstat(descriptor).st_size
    try:
        _write_whole(descriptor, line)
        _synchronise(descriptor)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


def _synchronise_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_synchronise = os.fdatasync if hasattr(os, "fdatasync") else os.fsync  # macOS has only the latter
