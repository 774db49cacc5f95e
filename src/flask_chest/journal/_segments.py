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
    HEADER_BYTES,
    MARKER_BYTES,
    MAX_PAYLOAD_BYTES,
    STORED_AT,
    Frame,
    Header,
    Identity,
    Skipped,
    make_header,
    pack_stored,
    read_header,
    read_stored,
    scan,
)

CHUNK_BYTES = 256 * 1024
_NAME = re.compile(r"(?P<slot>\d+)-(?P<serial>\d+)-(?P<marker>[0-9a-f]{16})\.journal")
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
        return cls(int(found["slot"]), int(found["serial"]), bytes.fromhex(found["marker"]))

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

    def __init__(self, name: SegmentName, descriptor: int) -> None:
        self.name = name
        self.marker = name.marker
        self.committed = HEADER_BYTES
        """Up to here every frame is whole."""
        self.records = 0
        """How many complete records it holds."""
        self.sealed = False
        """Whether `committed` is final."""
        self._descriptor = descriptor

    @classmethod
    def create(cls, folder: Path, *, slot: int, serial: int, identity: Identity) -> Self:
        """Make a new segment; ``OSError`` leaves nothing behind. Nobody sees one without its header."""
        name = SegmentName(slot, serial, secrets.token_bytes(MARKER_BYTES))
        path = folder / str(name)
        unfinished = path.with_name(path.name + _TEMPORARY_SUFFIX)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(unfinished, flags, 0o600)
        try:
            _write_whole(descriptor, make_header(identity))
            unfinished.rename(path)
        except BaseException:
            os.close(descriptor)
            unfinished.unlink(missing_ok=True)
            raise
        return cls(name, descriptor)

    def append(self, frame: bytes) -> None:
        """Append a whole *frame*; after ``OSError`` the segment must be sealed."""
        _write_whole(self._descriptor, frame)
        self.committed += len(frame)

    def synchronise(self) -> None:
        """Wait until the disk has what was appended."""
        _synchronise(self._descriptor)

    def seal(self) -> None:
        """End the segment at its last whole frame, and close it."""
        self.sealed = True
        # Should the disk refuse even that, the reader skips what a failed append left behind.
        with suppress(OSError):
            os.ftruncate(self._descriptor, self.committed)
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
        self.position = self._stored = read_stored(header, size=self.size())
        """Up to where it was read."""

    def size(self) -> int:
        """Tell how long the file is now."""
        return os.fstat(self._descriptor).st_size

    def read(self, end: int) -> Iterator[Frame | Skipped]:
        """Yield what lies between the position and *end*, which is the end of a frame; move the position.

        Frames are numbered within the file. What is not taken from the iterator comes again.
        """
        wanted = CHUNK_BYTES
        while self.position < end:
            base = self.position
            data = os.pread(self._descriptor, min(wanted, end - base), base)
            if not data:  # somebody has cut the file
                self.position = end
                yield Skipped(count=end - base, end=end)
                return
            for found in scan(data, self.name.marker, complete=base + len(data) >= end):
                self.position = base + found.end
                yield _moved(found, base)
            if self.position == base:  # a frame longer than what was read, or whose damaged length says so
                wanted = min(wanted * 4, MAX_PAYLOAD_BYTES + CHUNK_BYTES)

    def note_stored(self, offset: int) -> None:
        """Write down that all before *offset* is stored; not synchronised, for stored twice is kept once."""
        if offset != self._stored:
            os.pwrite(self._descriptor, pack_stored(offset), STORED_AT)
            self._stored = offset

    def drop(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close the file and leave it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _moved(found: Frame | Skipped, base: int) -> Frame | Skipped:
    if isinstance(found, Skipped):
        return Skipped(count=found.count, end=found.end + base)
    return Frame(kind=found.kind, payload=found.payload, begin=found.begin + base, end=found.end + base)


def _write_whole(descriptor: int, data: bytes) -> None:
    written = os.write(descriptor, data)
    if written != len(data):
        raise OSError(f"only {written} of {len(data)} bytes were written")


_synchronise = os.fdatasync if hasattr(os, "fdatasync") else os.fsync  # macOS has only the latter
