"""The journal on disk: one process's queue, in a folder that several processes share."""

from __future__ import annotations

import fcntl
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from flask_chest.errors import JournalError, JournalFull
from flask_chest.journal._appender import Appender, Room
from flask_chest.journal._backlog import Backlog
from flask_chest.journal._frames import COMPLETE, OPENED, Identity, encode_record
from flask_chest.journal._segments import SegmentName, append_line, read_identity, remove_unfinished, segments_in
from flask_chest.journal._slots import Slot, take, take_lowest
from flask_chest.protocols import Journal
from flask_chest.record import Record
from flask_chest.threads import native_lock

MTIME_LAG_NS = 10_000_000
"""By how much a file's time, which the kernel's coarse clock tells, may lie behind the clock's."""
MAX_CLOCK_STEP_NS = 24 * 3600 * 1_000_000_000
"""A former time further ahead than this was a clock's error, and is not continued."""
REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inherited:
    """What a former owner left, and the slot that was taken for it; ``None``: it is this journal's own."""

    backlog: Backlog
    slot: Slot | None

    def end(self) -> None:
        self.backlog.close()
        if self.slot is not None:
            self.slot.note_time(max(self.slot.last_time_unix_nano(), self.backlog.latest_unix_nano))
            self.slot.release()


class FileJournal(Journal):
    """Keeps records in *folder* until they are stored; several processes and journals share it.

    A record that was taken survives this process. What other owners left is replayed once they are gone.
    *store* is a digest of the store's address, and *host* the first part of `instance`. *max_bytes* bounds the
    folder. With *synchronous* a record also survives a power cut, at the price of the disk's answer to each.
    """

    def __init__(
        self,
        folder: Path,
        *,
        chest: str,
        store: str,
        host: str,
        max_bytes: int,
        report: Callable[[str], None],
        synchronous: bool = False,
    ) -> None:
        """Take a slot in *folder*, which is made if need be; ``OSError`` where that cannot be done."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._report = report
        self._store = store
        self._slot = take_lowest(folder)
        self._instance = f"{host}:{self._slot.number}"
        self._lock = native_lock()
        self._room = Room(folder, max_bytes)
        self._backlog = Backlog(folder, report=report, seal=self._seal)
        self._current = self._backlog
        self._out: list[Record] = []
        """What was read last and is not stored: it is given again until it is."""
        self._inherited: deque[_Inherited] = deque()
        self._inherited_first = False
        self._left_alone: set[SegmentName] = set()
        self._open: set[str] = set()
        try:
            former = segments_in(folder, slot=self._slot.number)
            self._latest_unix_nano = self._continued_time(former)
            remove_unfinished(folder, slot=self._slot.number)
            self._add_inherited(former, slot=None)
        except BaseException:
            self._slot.release()
            raise
        self._appender = Appender(
            self._room,
            slot=self._slot.number,
            serial=1 + max((name.serial for name in former), default=0),
            # What people read in it is cut to what fits into a header.
            identity=Identity(chest=chest[:32], store=store, instance=self._instance[-32:]),
            synchronous=synchronous,
            announce=lambda writer: self._backlog.add(writer.name, writer),
        )

    @property
    def instance(self) -> str:
        """``host:slot``, unique among the live processes that share the folder."""
        return self._instance

    @property
    def latest_unix_nano(self) -> int:
        """The latest time of a record, of former owners of the slot too."""
        return self._latest_unix_nano

    @property
    def durable(self) -> bool:
        """True."""
        return True

    def append(self, record: Record, /) -> int:
        """Keep *record* against the end of this process; give how many records wait."""
        payload = encode_record(record)
        with self._lock:
            self._appender.append(COMPLETE, payload)
            self._latest_unix_nano = max(self._latest_unix_nano, record.time_unix_nano)
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
        """Give the oldest records that wait, at most *limit*: by turns this process's own and inherited ones."""
        if self._out:
            # And what came since: a record that fails alone says nothing about itself or the store.
            self._out = self._current.read(limit)
        if not self._out and self._inherited_first:
            self._out = self._read_inherited(limit)
        if not self._out:
            self._out = self._read_own(limit) or self._read_inherited(limit)
        return self._out

    def stored(self) -> None:
        """Remove what `read` gave last: it is stored, or set aside."""
        self._inherited_first = self._current is self._backlog
        self._current.stored()
        self._out = []
        self._slot.note_time(self._latest_unix_nano)
        self._carry_on()
        self._room.look_again()

    def set_aside(self, record: Record, reason: str, /) -> None:
        """Write *record*, and why the store will never take it, into the file ``rejected``."""
        described = {"time_unix_nano": time.time_ns(), "reason": reason, "record": msgspec.structs.asdict(record)}
        line = msgspec.json.encode(described) + b"\n"
        if self._room.used() + len(line) > self._room.max_bytes:
            raise JournalFull(f"the journal {self._folder} is full; make room, or raise journal_bytes")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            descriptor = os.open(self._folder / REJECTED, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # or who cuts off half a line might cut off another's
                append_line(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise JournalError(f"{self._folder / REJECTED} takes nothing: {exc.strerror or exc}") from exc

    def waiting(self) -> int:
        """Count the records of this process that are not stored."""
        return self._appender.records - self._backlog.done

    def inherit(self) -> None:
        """Look for segments whose owner is gone; they come after what waits."""
        held = {inherited.slot.number for inherited in self._inherited if inherited.slot is not None}
        held.add(self._slot.number)
        for number in sorted({name.slot for name in segments_in(self._folder)} - held):
            try:
                slot = take(self._folder, number)
            except PermissionError:
                self._report("a slot of the journal is another user's, and left alone")
                continue
            if slot is not None:
                self._add_inherited(segments_in(self._folder, slot=number), slot=slot)

    def close(self) -> None:
        """Leave what waits to the next owner; may be called again."""
        if not self._slot.held:
            return
        with self._lock:
            self._appender.close()
        if not self._out and not self._backlog.read(1):
            self._backlog.stored()
        self._backlog.close()
        while self._inherited:
            self._inherited.popleft().end()
        self._slot.note_time(self._latest_unix_nano)
        self._slot.release()

    def abandon(self) -> None:
        """Close what this forked child inherited, and leave everything to the parent."""
        self._appender.abandon()
        self._backlog.close()
        for inherited in self._inherited:
            inherited.backlog.close()
            if inherited.slot is not None:
                inherited.slot.abandon()
        self._slot.abandon()

    def _read_own(self, limit: int) -> list[Record]:
        self._current = self._backlog
        return self._backlog.read(limit)

    def _read_inherited(self, limit: int) -> list[Record]:
        while self._inherited:
            self._current = backlog = self._inherited[0].backlog
            records = backlog.read(limit) or backlog.interrupted(limit)
            if records:
                return records
            backlog.stored()
            self._inherited.popleft().end()
        self._current = self._backlog
        return []

    def _carry_on(self) -> None:
        """Write what still streams into the newest segment, so that an older one can be dropped."""
        for opened in self._backlog.unfinished():
            payload = encode_record(opened)
            try:
                with self._lock:
                    if opened.id not in self._open:
                        continue  # its completion will be read
                    self._appender.carry(payload)
            except JournalError:
                return  # its segment stays, and it is tried again
            self._backlog.release(opened.id)

    def _seal(self) -> None:
        with self._lock:
            self._appender.seal()

    def _continued_time(self, former: list[SegmentName]) -> int:
        changes = [(self._folder / str(name)).stat().st_mtime_ns + MTIME_LAG_NS for name in former]
        times = [self._slot.last_time_unix_nano(), *changes]
        possible = time.time_ns() + MAX_CLOCK_STEP_NS
        return max((unix_nano for unix_nano in times if unix_nano < possible), default=0)

    def _add_inherited(self, names: list[SegmentName], *, slot: Slot | None) -> None:
        inherited = _Inherited(backlog=Backlog(self._folder, report=self._report), slot=slot)
        for name in self._ours(names):
            inherited.backlog.add(name)
        if inherited.backlog.empty:
            inherited.end()
        else:
            self._inherited.append(inherited)

    def _ours(self, names: list[SegmentName]) -> Iterator[SegmentName]:
        for name in names:
            try:
                header = read_identity(self._folder, name)
            except OSError:
                self._report("a segment of the journal cannot be read, and is left alone")
                continue
            # A damaged header says nothing; the folder and the name say enough.
            if header is None or (header.identity is not None and header.identity.store == self._store):
                yield name
            elif name not in self._left_alone:
                self._left_alone.add(name)
                other = "of another store" if header.identity else f"of the unknown version {header.version}"
                self._report(f"a segment of the journal is {other}, and left alone")
