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
from zlib import crc32

from flask_chest.journal._files import (
    OpenFile,
    is_locked,
    lock,
    open_file,
    open_own_file,
    read_at,
    synchronise,
    synchronise_folder,
    write_at,
    write_whole,
)
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
    make_header,
    pack_crc,
    pack_length_and_kind,
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
        """Return what a file's name says; ``None`` for a file that is no segment."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        parsed = cls(int(found["slot"]), int(found["serial"]), bytes.fromhex(found["marker"]))
        return parsed if str(parsed) == name else None

    def __str__(self) -> str:
        return f"{self.slot}-{self.serial:08d}-{self.marker.hex()}.journal"


def segments_in(folder: Path, *, slot: int | None = None) -> list[SegmentName]:
    """Return the segments in *folder*, of one *slot* or of all, oldest first within a slot."""
    names = map(SegmentName.parse, os.listdir(folder))  # noqa: PTH208 - names are wanted, not paths
    return sorted(name for name in names if name is not None and slot in (None, name.slot))


def read_identity(folder: Path, name: SegmentName) -> Header | None:
    """Return what a segment says of itself; ``None`` when that is damaged."""
    with open(open_own_file(folder / str(name), os.O_RDONLY), "rb") as file:  # noqa: PTH123 - it is open
        return read_header(file.read(HEADER_BYTES))


def is_owned(folder: Path, name: SegmentName) -> bool:
    """Return whether the owner of a segment lives: it holds the segment's lock while it appends to it."""
    try:
        return is_locked(folder / str(name))
    except OSError:  # it is gone, or nobody's business
        return False


def remove_unfinished(folder: Path, *, slot: int) -> None:
    """Remove what a former owner of *slot* left in the middle of making a segment."""
    for path in folder.glob(f"{slot}-*{_TEMPORARY_SUFFIX}"):
        with suppress(OSError):  # it is gone, or nothing that was made here
            path.unlink()


class SegmentWriter(OpenFile):
    """The end of a segment, where its owner appends.

    The owner holds a lock on it, which tells that it lives also where somebody has removed its slot's file.
    """

    def __init__(self, name: SegmentName, descriptor: int, *, synchronous: bool) -> None:
        super().__init__(descriptor)
        self.name = name
        self.committed = HEADER_BYTES
        """Offset up to which every frame is whole."""
        self.records = 0
        """Number of complete records that it holds."""
        self.sealed = False
        """Whether `committed` is final."""
        self._marker = name.marker
        self._seed = crc32(name.marker)
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
        """Return a new segment; ``OSError`` leaves nothing behind. Nobody sees one without its header.

        A *synchronous* one survives a power cut, and so does each of its frames.
        """
        name = SegmentName(slot, serial, secrets.token_bytes(MARKER_BYTES))
        path = folder / str(name)
        unfinished = path.with_name(path.name + _TEMPORARY_SUFFIX)
        descriptor = open_file(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            lock(descriptor)
            write_whole(descriptor, make_header(identity, store_id))
            if synchronous:
                synchronise(descriptor)
            unfinished.rename(path)
            if synchronous:
                synchronise_folder(folder)
        except BaseException:
            os.close(descriptor)
            unfinished.unlink(missing_ok=True)
            raise
        return cls(name, descriptor, synchronous=synchronous)

    def append(self, kind: int, payload: bytes) -> None:
        """Append a whole frame; after an exception `cut` or `seal` must follow."""
        # A frame is made in no function of its own: every request pays for this.
        body = pack_length_and_kind(len(payload), kind) + payload
        frame = self._marker + pack_crc(crc32(body, self._seed)) + body
        written = write_at(self._descriptor, frame, self.committed)
        if written != len(frame):
            raise OSError(f"only {written} of {len(frame)} bytes were written")
        if self._synchronous:
            synchronise(self._descriptor)
        # Between these two no signal handler can raise, and a reader never counts what it cannot read yet.
        self.committed += written
        if kind == COMPLETE:
            self.records += 1

    def duplicate(self) -> int | None:
        """Return another descriptor of the file, to read by; ``None`` when it is closed or none is free.

        Who calls holds the lock of those that append.
        """
        try:
            return os.dup(self._descriptor) if self.held else None
        except OSError:
            return None

    def cut(self) -> bool:
        """Cut off what a failed append left behind; return whether the disk takes even that."""
        try:
            os.ftruncate(self._descriptor, self.committed)
        except OSError:
            return False
        return True

    def seal(self) -> None:
        """End the segment at its last whole frame, and close it."""
        self.sealed = True
        self.cut()  # a reader skips what else is there
        self.unlock()
        if not self.removed:  # else its owner alone finds what is in it
            self.close()


class SegmentReader(OpenFile):
    """The frames of a segment, from where they are stored on."""

    def __init__(self, folder: Path, name: SegmentName, *, descriptor: int | None = None) -> None:
        """Read by *descriptor*, which is closed with the reader, or open the file."""
        self._path = folder / str(name)
        super().__init__(open_own_file(self._path, os.O_RDWR) if descriptor is None else descriptor)
        self.name = name
        header = read_at(self._descriptor, HEADER_BYTES, 0)
        self.position = read_stored(header, size=self.size())
        """Offset up to which it was read."""
        self._noted: tuple[int, int, str | None] = (self.position, self.position, None)

    def size(self) -> int:
        """Return how many bytes the file has now."""
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
            data = read_at(self._descriptor, asked, base)
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

        Of what was read behind it only frames that open a record are needed. *store_id* says which store has it.
        """
        noted = (offset, self.position, store_id)
        if noted != self._noted:
            with suppress(OSError):
                write_at(self._descriptor, pack_passed(*noted), STORED_AT)
            self._noted = noted

    def drop(self) -> None:
        """Remove the file."""
        self.close()
        self._path.unlink(missing_ok=True)
