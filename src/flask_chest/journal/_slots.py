"""Slots: which process owns which segments of a journal's folder.

A process holds the lowest slot that is free, by ``flock`` on the slot's file, for as long as it lives; the
kernel takes the lock back however the process ends. So whoever gets the lock of a slot knows that its former
owner is gone, and adopts the segments. Neither a pid nor a host name is asked: both come again, in containers
at once. Where somebody has removed the slot's file, as those do who clean folders, the lock that the owner
holds on its newest segment tells that it lives; it makes the slot's file again as soon as it notices.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from flask_chest.journal._files import (
    OpenFile,
    is_locked,
    lock,
    open_own_file,
    read_at,
    read_file,
    write_at,
)
from flask_chest.journal._segments import is_owned, segments_in
from flask_chest.journal.losses import LOSSES_AT, LOSSES_BYTES, are_losses, with_losses

_NAME = "slot-{number}.lock"
_FOLLOWER_NAME = "follower-{number}.lock"
_DIGITS = 20
# Layout of a slot's file: the latest time, a mark whether another process stores what the owner appends, and the
# number of its first segment; the counts of losses follow at `LOSSES_AT`.
_LEFT = b"+"
_NOT_LEFT = b"-"


class Slot(OpenFile):
    """A slot that this process holds. The file stays when it is released: only its lock is of meaning."""

    def __init__(self, number: int, descriptor: int) -> None:
        super().__init__(descriptor)
        self.number = number

    def last_time_unix_nano(self) -> int:
        """Return the last time that was issued under this slot, in nanoseconds; 0 if it is not known."""
        digits = read_at(self._descriptor, _DIGITS, 0)
        return int(digits) if digits.isdigit() else 0

    def note_time(self, unix_nano: int) -> None:
        """Write down that *unix_nano* was issued under this slot, if the disk lets us."""
        with suppress(OSError):
            write_at(self._descriptor, str(unix_nano).zfill(_DIGITS).encode(), 0)

    def begin(self, *, serial: int, left: bool) -> None:
        """Write down, if the disk lets us, the new owner's first segment and whether others are to store it."""
        mark = (_LEFT if left else _NOT_LEFT) + str(serial).zfill(_DIGITS).encode()
        with suppress(OSError):  # then nobody follows it while it lives
            write_at(self._descriptor, mark, _DIGITS)
            if not are_losses(self._losses()):
                self._add_losses({})  # makes room for them while the disk has some

    def note_losses(self, counts: Mapping[str, int]) -> bool:
        """Add *counts* to the losses that are counted under this slot; return whether that was possible."""
        try:
            if os.fstat(self._descriptor).st_nlink == 0:
                return False  # somebody removed the file, and nobody would find them
            self._add_losses(counts)
        except OSError:  # it is released, or the disk had no room when the slot was taken
            return False
        return True

    def _losses(self) -> bytes:
        return read_at(self._descriptor, LOSSES_BYTES, LOSSES_AT)

    def _add_losses(self, counts: Mapping[str, int]) -> None:
        if write_at(self._descriptor, with_losses(self._losses(), counts), LOSSES_AT) != LOSSES_BYTES:
            raise OSError("the counts of losses were written in part")

    def release(self) -> None:
        """Leave the slot to whoever takes it next."""
        self.unlock()
        self.close()


def left_from(folder: Path, number: int) -> int | None:
    """Return the first segment that the owner of slot *number* leaves to others; ``None`` if it leaves none."""
    try:
        data = read_file(folder / _NAME.format(number=number))
    except OSError:
        return None
    digits = data[_DIGITS + 1 : 2 * _DIGITS + 1]
    return int(digits) if data[_DIGITS : _DIGITS + 1] == _LEFT and digits.isdigit() else None


def is_held(folder: Path, number: int) -> bool:
    """Return whether somebody holds slot *number*, without making its file."""
    return _is_locked(folder / _NAME.format(number=number)) or _appends(folder, number)


def _is_locked(path: Path) -> bool:
    try:
        return is_locked(path)
    except FileNotFoundError:
        return False


def is_followed(folder: Path, number: int) -> bool:
    """Return whether somebody stores what the owner of slot *number* leaves to others."""
    return _is_locked(folder / _FOLLOWER_NAME.format(number=number))


def take_lowest(folder: Path) -> Slot:
    """Take the lowest slot in *folder* that nobody holds; ``OSError`` where files cannot be locked."""
    for number in itertools.count():
        try:
            slot = take(folder, number)
        except PermissionError:
            if not os.path.lexists(folder / _NAME.format(number=number)):
                raise
            continue  # another user's, such as root's who once ran a command
        if slot is not None:
            return slot
    raise AssertionError("there are more numbers than processes")


def take(folder: Path, number: int) -> Slot | None:
    """Take slot *number*; ``None`` when it is held."""
    slot = take_again(folder, number)
    if slot is None:
        return None
    try:
        alive = _appends(folder, number)
    except BaseException:
        slot.release()
        raise
    if alive:
        slot.release()
        return None
    return slot


def take_again(folder: Path, number: int) -> Slot | None:
    """Take slot *number* again for its owner, whose file was removed; ``None`` when somebody has its lock."""
    return _take(folder / _NAME.format(number=number), number)


def _appends(folder: Path, number: int) -> bool:
    return any(is_owned(folder, name) for name in segments_in(folder, slot=number))


def take_following(folder: Path, number: int) -> Slot | None:
    """Take the task to store what the owner of slot *number* leaves to others; ``None`` when another has it."""
    return _take(folder / _FOLLOWER_NAME.format(number=number), number)


def _take(path: Path, number: int) -> Slot | None:
    while True:
        descriptor = open_own_file(path, os.O_RDWR | os.O_CREAT)
        try:
            lock(descriptor)
            if _is_at(descriptor, path):
                return Slot(number, descriptor)
            os.close(descriptor)  # somebody removed the file between our opening and locking it
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise


def _is_at(descriptor: int, path: Path) -> bool:
    held = os.fstat(descriptor)
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    return (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)
