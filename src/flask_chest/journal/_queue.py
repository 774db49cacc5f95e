"""The queue of one owner: what its segments hold that is not stored yet, in the order in which it was written.

A record whose response streams is written twice, opened and completed; a segment stays while it alone has one.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from flask_chest.journal._frames import COMPLETE, HEADER_BYTES, OPENED, Frame, Skipped, decode_record
from flask_chest.journal._segments import SegmentName, SegmentReader, SegmentWriter
from flask_chest.journal.losses import DAMAGED, REMOVED, UNREADABLE
from flask_chest.record import Record

_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN})
"""Errors that pass, and say nothing about the file itself."""

INTERRUPTED = "interrupted"
"""`Record.error` of a streamed response whose process ended before it did."""


WORTH = 2
"""Bytes that must be dropped for each one that is written again."""


class _Held(NamedTuple):
    record: Record
    size: int
    """Size of its frame in bytes."""


@dataclass(eq=False, repr=False)
class _Part:
    """One segment: how far it was read, and the frames of streamed responses in it, by record id."""

    folder: Path
    name: SegmentName
    writer: SegmentWriter | None
    """Its end, if its owner is this process."""
    share: Callable[[SegmentWriter], int | None]
    exhausted: bool = False
    """Whether all of it was read, and no more will come."""
    given: int = 0
    """Number of complete records that were read."""
    opened: dict[str, int] = field(default_factory=dict)
    """Offset of the frame that opened a record, while the segment is needed for it."""
    settled: dict[str, int] = field(default_factory=dict)
    """Offset of a frame that is not needed: a completion is stored, or a later segment opens it again."""
    completed: dict[str, int] = field(default_factory=dict)
    """Offset of the frame that completed a record."""
    final: bool = True
    """Whether no other process appends to it any more."""
    _reader: SegmentReader | None = None
    _passed: int = 0

    def read(self) -> Iterator[Frame | Skipped]:
        """Yield what was not read yet; ``FileNotFoundError`` when somebody removed the file."""
        if self._reader is None:
            # By its owner's own descriptor, where there is one: it reads what somebody has removed, too.
            shared = self.share(self.writer) if self.writer is not None else None
            self._reader = SegmentReader(self.folder, self.name, descriptor=shared)
            if (cut := HEADER_BYTES - self._reader.size()) > 0:
                yield Skipped(cut, HEADER_BYTES)
        writer = self.writer
        if writer is None:
            final = self.final
            yield from self._reader.read(self._reader.size(), final=final)
            self.exhausted = final
        else:
            # In this order: once it is sealed, the others are final; and no record is counted before its frame.
            final, records, end = writer.sealed, writer.records, writer.committed
            yield from self._reader.read(end)
            self.exhausted, self._passed = final, records

    @property
    def live(self) -> bool:
        """Whether its owner may still append to it."""
        return self.writer is not None and not self.writer.sealed

    @property
    def done(self) -> int:
        """Number of its owner's records that nobody waits for once those that were read are stored."""
        return max(self.given, self._passed)  # what is damaged was passed, and not given

    @property
    def records(self) -> int:
        """Number of records that its owner appended."""
        return self.given if self.writer is None else self.writer.records

    @property
    def size(self) -> int:
        """Number of its bytes that were read."""
        return 0 if self._reader is None else self._reader.position

    def settle(self, record_id: str) -> None:
        """Need the segment no more for an opened record."""
        begin = self.opened.pop(record_id, None)
        if begin is not None:
            self.settled[record_id] = begin

    def needed_from(self, again: AbstractSet[str]) -> int:
        """Return where reading must begin again, as the frames that open the records in *again* will be read."""
        completions = [self.completed[record_id] for record_id in again if record_id in self.completed]
        return min([*self.opened.values(), *completions], default=self.size)

    def note_stored(self, offset: int, store_id: str | None) -> AbstractSet[str]:
        """Write down that it is stored up to *offset*; return the settled records that were opened behind it."""
        if self._reader is not None:
            self._reader.note_stored(offset, store_id)
        self.settled = {record_id: begin for record_id, begin in self.settled.items() if begin >= offset}
        return self.settled.keys()

    def drop(self) -> None:
        """Remove the segment."""
        if self._reader is not None:
            self._reader.drop()
        self.close()

    def close(self) -> None:
        """Close the file and leave it."""
        if self._reader is not None:
            self._reader.close()
        if self.writer is not None and self.writer.sealed:
            self.writer.close()


@dataclass(eq=False, repr=False)
class SegmentQueue:
    """Reads one owner's segments in the order in which they were written.

    `read` returns what comes next, and `stored` says that it is stored; in between nothing else is read.
    """

    folder: Path
    report: Callable[[str], None]
    """Callable that is told a reason for whatever is found damaged or is left alone."""
    seal: Callable[[], None] = lambda: None
    """Callable that ends the segment that the owner still appends to, once that is damaged."""
    share: Callable[[SegmentWriter], int | None] = lambda _: None
    """Callable that returns a descriptor of a segment that the owner appends to."""
    done: int = 0
    """Number of the owner's records that nobody waits for any more: stored, set aside, damaged or removed."""
    latest_unix_nano: int = 0
    """Latest time among the records that were read."""
    _parts: list[_Part] = field(default_factory=list)
    _forgotten: int = 0
    """Part of `done` in segments that were dropped or left."""
    _held: dict[str, _Held] = field(default_factory=dict)
    """Opened records that were read, and whose completion is not stored."""
    _out: list[Record] = field(default_factory=list)
    _unreadable: bool = False

    def add(self, name: SegmentName, writer: SegmentWriter | None = None) -> None:
        """Add the owner's next segment, with its *writer* if the owner is alive."""
        self._parts.append(_Part(self.folder, name, writer, self.share))

    def follow(self, names: Iterable[SegmentName]) -> None:
        """Add *names*, the next segments of an owner that lives, and appends to the last."""
        for name in names:
            self.add(name)
        for part in self._parts:
            part.final = part is not self._parts[-1]

    @property
    def names(self) -> frozenset[SegmentName]:
        """Names of the segments that are not dropped or left yet."""
        return frozenset(part.name for part in self._parts)

    def read(self, limit: int) -> list[Record]:
        """Read on until *limit* records or those of one more segment are out; return all that are."""
        self._out += itertools.islice(self._complete(), max(0, limit - len(self._out)))
        return list(self._out)

    def interrupted(self, limit: int) -> list[Record]:
        """Return what was opened and will not be completed: the owner is gone, and all else was read."""
        held = () if self._unreadable else itertools.islice(self._held.values(), limit)
        self._out = [msgspec.structs.replace(each.record, error=INTERRUPTED) for each in held]
        return self._out

    def stored(self, store_id: str | None = None) -> None:
        """Write down that what was read is stored, and drop the segments that nobody needs any more.

        *store_id* says in which store, as far as it is known.
        """
        for record in self._out:
            if self._held.pop(record.id, None) is not None:
                self.settle(record.id)
        self._out = []
        # As long as a frame that opens a record can be read again, that which completes it must be.
        again: set[str] = set()
        for part in tuple(self._parts):
            offset = part.needed_from(again)
            again |= part.note_stored(offset, store_id)
            if part.exhausted and not part.opened and not again & part.completed.keys():
                self._drop(part)
        self.done = self._forgotten + sum(part.done for part in self._parts)

    def unfinished(self) -> list[Record]:
        """Return the opened records that alone keep segments, if dropping those is worth writing them again.

        Of thousands of streams the segment that takes them is full of them, and an old one at once: were they
        written again whatever they keep, that would go on for as long as they are open.
        """
        old = [part for part in self._parts if part.exhausted]
        held = [self._held[record_id] for part in old for record_id in part.opened]
        if WORTH * sum(each.size for each in held) > sum(part.size for part in old):
            return []
        return [each.record for each in held]

    def settle(self, record_id: str) -> None:
        """Need no segment for an opened record: a later one has it again, or its completion is stored."""
        for part in self._parts:
            part.settle(record_id)

    @property
    def empty(self) -> bool:
        """Whether nothing is left."""
        return not self._parts

    def close(self) -> None:
        """Close the files and leave them; may be called again."""
        for part in self._parts:
            part.close()

    def _complete(self) -> Iterator[Record]:
        for part in tuple(self._parts):
            given = part.given
            try:
                for found in part.read():
                    record = self._record(found, part)
                    if record is not None:
                        part.given += 1
                        yield record
            except FileNotFoundError:
                self.report(REMOVED)
                self._leave(part)
            except OSError as exc:
                if exc.errno in _PASSING:
                    raise  # its records wait, and it is tried again
                # Another user's, or on a bad disk.
                self.report("a segment of the journal cannot be read, and is left alone")
                self._unreadable = True
                self._leave(part)
            if part.exhausted and part.given > given:
                return  # once these are stored it is dropped, and a small journal has room again

    def _record(self, found: Frame | Skipped, part: _Part) -> Record | None:
        if isinstance(found, Skipped):
            self.report(DAMAGED)
            if part.live:
                self.seal()  # whatever befell the file, nothing more goes there
            return None
        try:
            record = decode_record(found.payload)
        except (ValueError, TypeError):
            self.report(UNREADABLE)
            return None
        if record.time_unix_nano > self.latest_unix_nano:  # noqa: PLR1730 - a call of max for each record is dearer
            self.latest_unix_nano = record.time_unix_nano
        if found.kind == COMPLETE:
            if self._held and record.id in self._held:
                part.completed[record.id] = found.begin
            return record
        if found.kind == OPENED:
            self.settle(record.id)
            self._held[record.id] = _Held(record, found.end - found.begin)
            part.opened[record.id] = found.begin
        return None

    def _drop(self, part: _Part) -> None:
        try:
            part.drop()
        except OSError:
            self.report("a segment of the journal is stored, and cannot be removed")
        self._forget(part)

    def _leave(self, part: _Part) -> None:
        if part.live:
            self.seal()
        part.close()
        self._forget(part)

    def _forget(self, part: _Part) -> None:
        self._parts.remove(part)
        self._forgotten += part.records
