"""The journal on disk of a process whose records others store: it appends, and reads nothing."""

from __future__ import annotations

import itertools
import os
import time

from flask_chest.errors import JournalError
from flask_chest.journal import JournalConfig
from flask_chest.journal._appender import Appender, DiskJournal
from flask_chest.journal._files import open_file
from flask_chest.journal._frames import COMPLETE, HEADER_BYTES, OPENED, Frame, encode_record, read_passed
from flask_chest.journal._segments import SegmentReader, SegmentWriter
from flask_chest.record import Record

LOOK_SECONDS = 1.0
"""Seconds between two looks of a process that appends whether its files are still there."""


class AppendOnlyJournal(DiskJournal):
    """Appends records to a folder, where the writer of another process finds them while this one lives."""

    def __init__(self, config: JournalConfig) -> None:
        """Take a slot in the folder, which is made if need be; raise ``OSError`` where that is not possible."""
        super().__init__(Appender(config, left=True, begin=self._begin_segment))
        self._folder = self._appender.folder
        self._segments: tuple[SegmentWriter, ...] = ()
        """Segments that were there when the newest began; replaced as a whole, so that no look takes a lock."""
        self._next_look = time.monotonic() + LOOK_SECONDS

    def append(self, record: Record, /) -> int:
        """Keep *record* against the end of this process, and return 0: nobody here waits to be rung."""
        payload = encode_record(record)
        with self._lock:
            self._appender.append(COMPLETE, payload, record.time_unix_nano)
            if time.monotonic() >= self._next_look:
                self._look_after_files()
        return 0

    def append_opened(self, record: Record, /) -> None:
        """Keep *record* for the case that no complete one with its id follows."""
        payload = encode_record(record)
        with self._lock:
            self._appender.append(OPENED, payload, record.time_unix_nano)

    def waiting(self) -> int:
        """Return how many records nobody has stored, estimated by bytes for a segment that is stored in part."""
        waiting = 0
        for segment in self._segments:
            stored = self._stored(segment)
            if stored is None:
                if segment.sealed:
                    continue
                stored = HEADER_BYTES  # nobody who stores it removes one that is appended to
            appended = segment.committed - HEADER_BYTES
            left = max(0, segment.committed - max(stored, HEADER_BYTES))
            waiting += -(-segment.records * left // appended) if appended else 0
        return waiting

    def close(self) -> None:
        """Leave what waits to another process; may be called again."""
        if self._appender.slot.held:
            with self._lock:
                self._look_after_files()
                self._appender.close()
            self._appender.release()

    def abandon(self) -> None:
        """Leave everything to the parent of this forked child."""
        self._appender.abandon()

    def _look_after_files(self) -> None:
        """Restore what somebody has removed: who stores the records has no other way to them than names."""
        self._next_look = time.monotonic() + LOOK_SECONDS
        self._appender.retake_slot()
        newest = self._appender.newest
        if newest is not None and newest.removed:
            self._rescue(newest)

    def _rescue(self, removed: SegmentWriter) -> None:
        """Append again what is not stored of a segment that somebody has removed."""
        descriptor = removed.duplicate()
        self._appender.seal_removed()
        if descriptor is None:
            raise JournalError(
                f"a segment of the journal {self._folder} was removed, and cannot be read any more"
            )
        reader = SegmentReader(self._folder, removed.name, descriptor=descriptor)
        try:
            for found in reader.read(reader.size()):
                if isinstance(found, Frame):
                    self._appender.append(found.kind, found.payload)
        finally:
            reader.close()

    def _begin_segment(self, writer: SegmentWriter) -> None:
        # It is called by who holds the lock. Those that are gone need no place any more.
        left = itertools.dropwhile(lambda segment: self._stored(segment) is None, self._segments)
        self._segments = (*left, writer)

    def _stored(self, segment: SegmentWriter) -> int | None:
        """Return up to where the complete records of *segment* are stored; ``None`` if it is stored and gone."""
        try:
            path = self._folder / str(segment.name)
            with open(open_file(path, os.O_RDONLY), "rb") as file:  # noqa: PTH123 - it is open
                header = file.read(HEADER_BYTES)
                return read_passed(header, size=os.fstat(file.fileno()).st_size)
        except FileNotFoundError:
            return None
        except OSError:  # no descriptor is free: nothing is known, and a count is no reason to raise
            return HEADER_BYTES
