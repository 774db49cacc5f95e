"""The journal on disk: one process's queue, in a folder that several processes share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import msgspec

from flask_chest.errors import JournalError, JournalFull
from flask_chest.journal import REFUSED, JournalConfig
from flask_chest.journal._files import lock, open_own_file
from flask_chest.journal._frames import COMPLETE, OPENED, encode_record
from flask_chest.journal._queue import SegmentQueue
from flask_chest.journal._recovery import Recovery
from flask_chest.journal._segments import SegmentWriter, append_line
from flask_chest.journal._writing import WritingEnd
from flask_chest.journal.protocols import Journal
from flask_chest.record import Record


class FileJournal(WritingEnd, Journal):
    """Keeps records in *folder* until they are stored; several processes and journals share it.

    A record that was taken survives this process. What other owners left is replayed once they are gone, or at
    once if they say so.
    *store* is a digest of the store's address, ``None`` to take what is there for any; *identify* gives the id of
    the store where it can be asked for it, and is not called by requests. *host* is the first part of `instance`.
    *max_bytes* bounds the folder. With *synchronous* a record also survives a power cut, at the price of the
    disk's answer to each.
    """

    def __init__(
        self,
        config: JournalConfig,
        *,
        report: Callable[[str], None],
        identify: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Take a slot in *folder*, which is made if need be; ``OSError`` where that cannot be done."""
        self._report = report
        self._open: set[str] = set()
        super().__init__(config, left=False)
        self._queue = SegmentQueue(self._folder, report=report, seal=self._seal, share=self._share)
        self._current = self._queue
        self._out: list[Record] = []
        """What was read last and is not stored: it is given again until it is."""
        self._identify = identify
        self._recovery = Recovery(
            self._folder, store=config.store, identify=identify, own=self._slot.number, report=report
        )
        self._adopted_first = False

    def append(self, record: Record, /) -> int:
        """Keep *record* against the end of this process; give how many records wait."""
        payload = encode_record(record)
        with self._lock:
            self._appender.append(COMPLETE, payload)
            if record.time_unix_nano > self._latest_unix_nano:  # noqa: PLR1730 - a call of max is dearer
                self._latest_unix_nano = record.time_unix_nano
            if self._open:
                self._open.discard(record.id)
            return self.waiting()

    def append_opened(self, record: Record, /) -> None:
        """Keep *record* for the case that no complete one with its id follows."""
        payload = encode_record(record)
        with self._lock:
            self._appender.append(OPENED, payload)
            self._latest_unix_nano = max(self._latest_unix_nano, record.time_unix_nano)
            self._open.add(record.id)

    def read(self, limit: int, /) -> list[Record]:
        """Give the oldest records that wait, at most *limit*: by turns this process's own and adopted ones."""
        try:
            return self._read(limit)
        except OSError as exc:
            raise JournalError(f"{self._folder} cannot be read: {exc.strerror or exc}") from exc

    def _read(self, limit: int) -> list[Record]:
        if self._out:
            # And what came since: a record that fails alone says nothing about itself or the store.
            self._out = self._current.read(limit)
        if not self._out and self._adopted_first:
            self._out = self._read_others(limit)
        if not self._out:
            self._out = self._read_own(limit) or self._read_others(limit)
        return self._out

    def stored(self) -> None:
        """Remove what `read` gave last: it is stored, or set aside."""
        self._adopted_first = self._current is self._queue
        self._appender.store_id = store_id = self._identify()
        self._current.stored(store_id)
        self._out = []
        self._keep_place()
        self._note_time()
        self._carry_on()
        self._room.look_again()

    def set_aside(self, record: Record, reason: str, /) -> None:
        """Write *record*, and why the store will never take it, into the file ``refused``."""
        described = {"time_unix_nano": time.time_ns(), "reason": reason, "record": msgspec.structs.asdict(record)}
        line = msgspec.json.encode(described) + b"\n"
        if self._room.used() + len(line) > self._room.max_bytes:
            raise JournalFull(f"the journal {self._folder} is full; make room, or raise journal_bytes")
        try:
            descriptor = open_own_file(self._folder / REFUSED, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                lock(descriptor, wait=True)  # or who cuts off half a line might cut off another's
                append_line(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise JournalError(f"{self._folder / REFUSED} takes nothing: {exc.strerror or exc}") from exc

    def waiting(self) -> int:
        """Count the records of this process that are not stored."""
        return self._appender.records - self._queue.done

    def is_anything_left(self) -> bool:
        """Return whether there are segments that nobody else stores; what cannot be looked at is not."""
        try:
            return bool(self._former) or self._recovery.are_any_left()
        except OSError:
            return False

    def adopt(self) -> None:
        """Look for segments that others do not store; they come after what waits."""
        self._keep_place()
        try:
            self._adopt_former()
            self._recovery.poll(busy=self._current if self._out else None)
        except OSError:  # it is theirs, and our own records wait
            self._report("what others have left in the journal cannot be looked for")

    def close(self) -> None:
        """Leave what waits to the next owner; may be called again."""
        if not self._slot.held:
            return
        with self._lock:
            self._appender.close()
        if not self._out and not self._queue.read(1):
            self._queue.stored()
        self._queue.close()
        self._recovery.close()
        self._release()

    def abandon(self) -> None:
        """Close what this forked child inherited, and leave everything to the parent."""
        self._appender.abandon()
        self._queue.close()
        self._recovery.abandon()
        self._slot.abandon()

    def _read_own(self, limit: int) -> list[Record]:
        self._current = self._queue
        return self._queue.read(limit)

    def _adopt_former(self) -> None:
        """Take over what former owners of the slot left: no sooner, since the store may be asked for it."""
        if self._former and self._recovery.adopt(self._former):
            self._former = []

    def _read_others(self, limit: int) -> list[Record]:
        self._adopt_former()
        found = self._recovery.read(limit)
        if found is None:
            self._current = self._queue
            return []
        self._current, records = found
        return records

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
            self._queue.release(opened.id)

    def _share(self, writer: SegmentWriter) -> int | None:
        with self._lock:
            return writer.duplicate()

    def _seal(self) -> None:
        with self._lock:
            self._appender.seal()

    def _begin_segment(self, writer: SegmentWriter) -> None:
        self._queue.add(writer.name, writer)
