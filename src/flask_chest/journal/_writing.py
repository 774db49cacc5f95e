"""The writing end of a journal on disk: a slot, and the segments that its owner appends to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from flask_chest._clocks import MAX_STEP_NANO
from flask_chest._process import native_lock
from flask_chest.journal import JournalConfig
from flask_chest.journal._appender import Appender, Room
from flask_chest.journal._frames import Identity
from flask_chest.journal._segments import SegmentName, SegmentWriter, remove_unfinished, segments_in
from flask_chest.journal._slots import take_anew, take_lowest
from flask_chest.journal.accounts import make_folder

MTIME_LAG_NS = 10_000_000
"""By how much a file's time, which the kernel's coarse clock tells, may lie behind the clock's."""


class WritingEnd:
    """Owns a slot in *folder* and appends to segments of its own."""

    def __init__(self, config: JournalConfig, *, left: bool) -> None:
        """Take a slot in *folder*, which is made if need be; ``OSError`` where that cannot be done.

        *left* tells other processes to store what is appended here while this one lives.
        """
        folder = config.folder
        if folder is None:
            raise ValueError("a journal on disk needs a folder")
        make_folder(folder)
        self._folder = folder
        self._slot = take_lowest(folder)
        self._host = config.host
        self._left = left
        self._renamed: Callable[[str], None] = lambda _: None
        self._instance = f"{self._host}:{self._slot.number}"
        self._lock = native_lock()
        self._room = Room(folder, config.max_bytes)
        try:
            self._former = segments_in(folder, slot=self._slot.number)
            self._latest_unix_nano = self._continued_time()
            self._first_serial = serial = 1 + max((name.serial for name in self._former), default=0)
            self._slot.begin(serial=serial, left=left)
            remove_unfinished(folder, slot=self._slot.number)
        except BaseException:
            self._slot.release()
            raise
        self._appender = Appender(
            self._room,
            slot=self._slot.number,
            serial=serial,
            # What people read in it is cut to what fits into a header.
            identity=Identity(chest=config.chest[:30], store=config.store or "", instance=self._instance[-30:]),
            synchronous=config.synchronous,
            announce=self._begin_segment,
            restore=self._take_place_anew,
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

    def call_when_renamed(self, tell: Callable[[str], None], /) -> None:
        """Call *tell* with the new `instance` whenever the slot must be another one."""
        self._renamed = tell

    def note_losses(self, counts: Mapping[str, int], /) -> bool:
        """Add *counts*, by reason, to the losses that the folder tells; False when that is not possible."""
        return self._slot.note_losses(counts)

    def _keep_place(self) -> bool:
        """Take slot and folder anew where somebody removed them; return whether the newest segment was, too."""
        with self._lock:
            self._take_place_anew()
            return self._appender.leave_removed()

    def _take_place_anew(self) -> None:
        if not self._slot.removed:
            return
        try:
            make_folder(self._folder)
            slot = take_anew(self._folder, self._slot.number)
            newest = self._appender.newest
            if slot is None and (newest is None or newest.removed):
                slot = take_lowest(self._folder)  # somebody else has the number: nothing shows that it was ours
        except OSError:
            return  # it is tried again
        if slot is None:
            return  # somebody looks just now whether the owner lives; likewise
        former, self._slot = self._slot, slot
        former.abandon()
        if slot.number != former.number:
            self._instance = f"{self._host}:{slot.number}"
            self._first_serial = self._appender.move(slot=slot.number, instance=self._instance[-32:])
            self._renamed(self._instance)
        slot.begin(serial=self._first_serial, left=self._left)

    def _begin_segment(self, writer: SegmentWriter) -> None:
        """Take note of a new segment, to which nothing was appended yet."""
        raise NotImplementedError

    def _release(self) -> None:
        """Leave the slot and what waits to the next owner."""
        self._note_time()
        self._slot.release()

    def _note_time(self) -> None:
        """Write down for the next owner the latest time, but none of a clock that was ahead."""
        with self._lock:
            now = time.time_ns()
            if self._latest_unix_nano >= now + MAX_STEP_NANO:
                self._latest_unix_nano = now
            latest = self._latest_unix_nano
        self._slot.note_time(latest)

    def _continued_time(self) -> int:
        """Tell from which time on to continue: what is further ahead was an error of the clock."""
        times = [self._slot.last_time_unix_nano(), *map(self._changed, self._former)]
        possible = time.time_ns() + MAX_STEP_NANO
        return max((unix_nano for unix_nano in times if unix_nano < possible), default=0)

    def _changed(self, name: SegmentName) -> int:
        try:
            return (self._folder / str(name)).lstat().st_mtime_ns + MTIME_LAG_NS
        except FileNotFoundError:  # stored by another process meanwhile
            return 0
