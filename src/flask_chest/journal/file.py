"""The journal on disk: the queue between the requests and the writer of one process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import msgspec

from flask_chest.errors import JournalError, JournalFull
from flask_chest.journal import REFUSED, JournalConfig
from flask_chest.journal._appender import Appender, DiskJournal
from flask_chest.journal._files import append_line, lock, open_own_file
from flask_chest.journal._frames import COMPLETE, OPENED, encode_record
from flask_chest.journal._queue import SegmentQueue
from flask_chest.journal._recovery import Recovery
from flask_chest.journal._segments import SegmentWriter
from flask_chest.journal.protocols import Journal
from flask_chest.record import Record


class FileJournal(DiskJournal, Journal):
    """Keeps records in a folder until they are stored; several processes and journals share it.

    A record that was taken survives this process. What other owners left is replayed once they are gone, or at
    once if they say so.
    """

    def __init__(
        self,
        config: JournalConfig,
        *,
        report: Callable[[str], None],
        identify: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Take a slot in the folder, which is made if need be; raise ``OSError`` where that is not possible.

        *report* is called with a reason for whatever is found damaged or is left alone. *identify* returns the id
        of the store, asking it if need be, or ``None`` while that is not possible; requests never call it.
        """
        appender = Appender(config, left=False, begin=self._begin_segment)
        super().__init__(appender)
        self._open: set[str] = set()
        """Ids of records that were opened and not completed."""
        self._report = report
        self._identify = identify
        self._queue = SegmentQueue(appender.folder, report=report, seal=self._seal, share=self._share)
        self._recovery = Recovery(
            appender.folder, store=config.store, identify=identify, own=appender.slot.number, report=report
        )
        self._former = appender.former
        """Segments of former owners of the slot that are not adopted yet."""
        self._current = self._queue
        """Queue that the last records were read from."""
        self._out: list[Record] = []
        """Records that were read last and are not stored: they are read again until they are."""
        self._adopted_first = False
        self._filling: Callable[[], None] = lambda: None

    def call_when_filling(self, tell: Callable[[], None], /) -> None:
        """Call *tell* whenever a segment is full."""
        self._filling = tell

    def append(self, record: Record, /) -> int:
        """Keep *record* against the end of this process, and return how many records wait."""
        payload = encode_record(record)
        appender = self._appender
        with self._lock:
            appender.append(COMPLETE, payload, record.time_unix_nano)
            if self._open:
                self._open.discard(record.id)
            return appender.records - self._queue.done

    def append_opened(self, record: Record, /) -> None:
        """Keep *record* for the case that no complete one with its id follows."""
        payload = encode_record(record)
        with self._lock:
            self._appender.append(OPENED, payload, record.time_unix_nano)
            self._open.add(record.id)

    def waiting(self) -> int:
        """Return how many records of this process are not stored."""
        return self._appender.records - self._queue.done

    def read(self, limit: int, /) -> list[Record]:
        """Return the oldest records that wait, at most *limit*: by turns this process's own and adopted ones."""
        try:
            return self._read(limit)
        except OSError as exc:
            raise JournalError(f"{self._appender.folder} cannot be read: {exc.strerror or exc}") from exc

    def _read(self, limit: int) -> list[Record]:
        if self._out:
            # And what came since: a record that fails alone says nothing about itself or the store.
            self._out = self._current.read(limit)
        if not self._out and self._adopted_first:
            self._out = self._read_adopted(limit)
        if not self._out:
            self._out = self._read_own(limit) or self._read_adopted(limit)
        return self._out

    def _read_own(self, limit: int) -> list[Record]:
        self._current = self._queue
        return self._queue.read(limit)

    def _read_adopted(self, limit: int) -> list[Record]:
        self._adopt_former()
        found = self._recovery.read(limit)
        if found is None:
            self._current = self._queue
            return []
        self._current, records = found
        return records

    def stored(self) -> None:
        """Remove what `read` returned last: it is stored, or set aside."""
        appender = self._appender
        self._adopted_first = self._current is self._queue
        appender.store_id = store_id = self._identify()
        self._current.stored(store_id)
        self._out = []
        self._look_after_files()
        appender.note_time()
        self._carry_on()
        appender.room.look_again()

    def _carry_on(self) -> None:
        """Write what still streams into the newest segment, so that an older one can be dropped."""
        for opened in self._queue.unfinished():
            payload = encode_record(opened)
            try:
                with self._lock:
                    if opened.id not in self._open:
                        continue  # its completion will be read
                    self._appender.carry(payload)
            except JournalError:
                return  # its segment stays, and it is tried again
            self._queue.settle(opened.id)

    def set_aside(self, record: Record, reason: str, /) -> None:
        """Write *record*, and why the store will never take it, into the file ``refused``."""
        described = {"time_unix_nano": time.time_ns(), "reason": reason, "record": msgspec.structs.asdict(record)}
        line = msgspec.json.encode(described) + b"\n"
        folder = self._appender.folder
        if not self._appender.room.fits(len(line)):
            raise JournalFull(f"the journal {folder} is full; make room, or raise journal_bytes")
        try:
            descriptor = open_own_file(folder / REFUSED, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                lock(descriptor, wait=True)  # or who cuts off half a line might cut off another's
                append_line(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise JournalError(f"{folder / REFUSED} takes nothing: {exc.strerror or exc}") from exc

    def is_anything_left(self) -> bool:
        """Return whether there are segments that nobody else stores; what cannot be looked at does not count."""
        try:
            return bool(self._former) or self._recovery.are_any_left()
        except OSError:
            return False

    def adopt(self) -> None:
        """Look for segments that others do not store; they are read in turn with this process's own."""
        self._look_after_files()
        try:
            self._adopt_former()
            self._recovery.poll(busy=self._current if self._out else None)
        except OSError:  # it is theirs, and our own records wait
            self._report("what others have left in the journal cannot be looked for")

    def _adopt_former(self) -> None:
        """Adopt what former owners of the slot left: no sooner, since the store may be asked for its id."""
        if self._former and self._recovery.adopt(self._former):
            self._former = []

    def close(self) -> None:
        """Leave what waits to the next owner; may be called again."""
        if not self._appender.slot.held:
            return
        with self._lock:
            self._appender.close()
        if not self._out and not self._queue.read(1):
            self._queue.stored()
        self._queue.close()
        self._recovery.close()
        self._appender.release()

    def abandon(self) -> None:
        """Close the files that this forked child got from its parent, and leave everything to the parent."""
        self._appender.abandon()
        self._queue.close()
        self._recovery.abandon()

    def _look_after_files(self) -> None:
        with self._lock:
            self._appender.retake_slot()
            self._appender.seal_removed()

    def _begin_segment(self, writer: SegmentWriter) -> None:
        self._queue.add(writer.name, writer)
        self._filling()

    def _share(self, writer: SegmentWriter) -> int | None:
        with self._lock:
            return writer.duplicate()

    def _seal(self) -> None:
        with self._lock:
            self._appender.seal()
