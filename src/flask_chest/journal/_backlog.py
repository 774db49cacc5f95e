"""What one owner's segments hold that is not stored yet."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from flask_chest.journal._frames import COMPLETE, OPENED, Frame, Skipped, decode_record
from flask_chest.journal._segments import SegmentName, SegmentReader, SegmentWriter
from flask_chest.record import Record

INTERRUPTED = "interrupted"
"""`Record.error` of a streamed response whose process ended before it did."""


class _Part:
    """One segment, and the opened records in it that wait for their completion."""

    def __init__(self, folder: Path, name: SegmentName, writer: SegmentWriter | None) -> None:
        self.opened: dict[str, int] = {}
        """Record id → where its frame begins."""
        self.given = 0
        """Complete records that were read."""
        self._folder = folder
        self._name = name
        self._writer = writer
        self._reader: SegmentReader | None = None
        self._end = 0
        """Where it ends, known once all was read and no more will come; 0 before."""

    def read(self) -> Iterator[Frame | Skipped]:
        """Yield what was not read yet; ``FileNotFoundError`` when somebody removed the file."""
        if self._reader is None:
            self._reader = SegmentReader(self._folder, self._name)
        # In this order: once it is sealed, what is committed is final.
        final = self._writer is None or self._writer.sealed
        end = self._reader.size() if self._writer is None else self._writer.committed
        yield from self._reader.read(end)
        self._end = end if final else 0

    @property
    def exhausted(self) -> bool:
        """Whether all of it was read, and no more will come."""
        return self._reader is not None and 0 < self._end <= self._reader.position

    @property
    def missing(self) -> int:
        """How many of the records that its owner appended were never read, for they are damaged."""
        return 0 if self._writer is None else self._writer.records - self.given

    def note_stored(self) -> None:
        """Write down how far it is stored: up to the first opened record that is still to be completed."""
        if self._reader is not None:
            self._reader.note_stored(min(self.opened.values(), default=self._reader.position))

    def drop(self) -> None:
        """Remove the segment."""
        if self._reader is not None:
            self._reader.drop()

    def close(self) -> None:
        """Close the file and leave it."""
        if self._reader is not None:
            self._reader.close()


class Backlog:
    """Reads one owner's segments in the order in which they were written.

    `read` gives what comes next, and `stored` says that it is stored; in between nothing else is read.
    """

    def __init__(self, folder: Path, *, report: Callable[[str], None]) -> None:
        self.done = 0
        """Records that nobody waits for any more: stored, set aside, or damaged."""
        self.latest_unix_nano = 0
        """The latest time among the records that were read."""
        self._folder = folder
        self._report = report
        self._parts: list[_Part] = []
        self._held: dict[str, Record] = {}
        """Opened records that were read, and not their completion."""
        self._out = 0
        self._completed: list[str] = []
        """What was held until its completion came, in the batch that is out."""

    def add(self, name: SegmentName, writer: SegmentWriter | None = None) -> None:
        """Add the owner's next segment, with its *writer* if the owner is alive."""
        self._parts.append(_Part(self._folder, name, writer))

    def read(self, limit: int) -> list[Record]:
        """Read at most *limit* complete records."""
        records: list[Record] = []
        for part in tuple(self._parts):
            records += itertools.islice(self._complete(part), limit - len(records))
            if len(records) == limit:
                break
        self._out = len(records)
        self._completed = [record.id for record in records if record.id in self._held]
        self.latest_unix_nano = max([self.latest_unix_nano, *(record.time_unix_nano for record in records)])
        return records

    def interrupted(self, limit: int) -> list[Record]:
        """Give what was opened and will not be completed: the owner is gone, and all else was read."""
        self._out = 0
        self._completed = list(itertools.islice(self._held, limit))
        return [
            msgspec.structs.replace(self._held[record_id], error=INTERRUPTED) for record_id in self._completed
        ]

    def stored(self) -> None:
        """Write down that the last batch is stored, and drop the segments that nobody needs any more."""
        self.done += self._out
        self._out = 0
        for record_id in self._completed:
            self._held.pop(record_id, None)
            self.release(record_id)
        self._completed = []
        # Oldest first: as long as the frame that opened a record is there, that which completed it must be.
        for part in tuple(self._parts):
            if part.exhausted and not part.opened:
                part.drop()
                self._forget(part)
            else:
                part.note_stored()

    def unfinished(self) -> list[Record]:
        """List the opened records that alone keep a segment from being dropped."""
        return [self._held[record_id] for part in self._parts if part.exhausted for record_id in part.opened]

    def release(self, record_id: str) -> None:
        """Let go of an opened record: a later segment has it again, or has its completion."""
        for part in self._parts:
            part.opened.pop(record_id, None)

    @property
    def empty(self) -> bool:
        """Whether nothing is left."""
        return not self._parts

    def close(self) -> None:
        """Close the files and leave them; may be called again."""
        for part in self._parts:
            part.close()

    def _complete(self, part: _Part) -> Iterator[Record]:
        try:
            for found in part.read():
                record = self._record(found, part)
                if record is not None:
                    part.given += 1
                    yield record
        except FileNotFoundError:
            self._report("a segment of the journal was removed before its records were stored")
            self._forget(part)

    def _record(self, found: Frame | Skipped, part: _Part) -> Record | None:
        if isinstance(found, Skipped):
            self._report("bytes of the journal were damaged, and skipped")
            return None
        try:
            record = decode_record(found.payload)
        except (ValueError, TypeError):
            self._report("a frame of the journal holds no record of this release, and was skipped")
            return None
        if found.kind == OPENED:
            self.release(record.id)
            self._held[record.id] = record
            part.opened[record.id] = found.begin
        return record if found.kind == COMPLETE else None

    def _forget(self, part: _Part) -> None:
        self._parts.remove(part)
        self.done += part.missing
