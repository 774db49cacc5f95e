"""Slots: which process owns which segments of a journal's folder.

A process holds the lowest slot that is free, by ``flock`` on the slot's file, for as long as it lives; the
kernel takes the lock back however the process ends. So whoever gets the lock of a slot knows that its former
owner is gone, and inherits the segments. Neither a pid nor a host name is asked: both come again, in containers
at once.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from contextlib import suppress
from pathlib import Path

_NAME = "slot-{number}.lock"
_TIME_DIGITS = 20


class Slot:
    """A slot that this process holds. The file stays when it is released: only its lock is of meaning."""

    def __init__(self, number: int, descriptor: int) -> None:
        self.number = number
        self._descriptor = descriptor

    @property
    def held(self) -> bool:
        """Whether it was neither released nor abandoned."""
        return self._descriptor >= 0

    def last_time_unix_nano(self) -> int:
        """Read the last time that was issued under this slot, as far as it is known."""
        digits = os.pread(self._descriptor, _TIME_DIGITS, 0)
        return int(digits) if digits.isdigit() else 0

    def note_time(self, unix_nano: int) -> None:
        """Write down that *unix_nano* was issued under this slot, if the disk lets us."""
        with suppress(OSError):
            os.pwrite(self._descriptor, str(unix_nano).zfill(_TIME_DIGITS).encode(), 0)

    def release(self) -> None:
        """Give the slot back, also where a forked child still has the descriptor."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def abandon(self) -> None:
        """Close the descriptor that this forked child inherited; to unlock it would unlock the parent's."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def take_lowest(folder: Path) -> Slot:
    """Take the lowest slot in *folder* that nobody holds; ``OSError`` where files cannot be locked."""
    for number in itertools.count():
        try:
            slot = take(folder, number)
        except PermissionError:
            if not (folder / _NAME.format(number=number)).exists():
                raise
            continue  # another user's, such as root's who once ran a command
        if slot is not None:
            return slot
    raise AssertionError("there are more numbers than processes")


def take(folder: Path, number: int) -> Slot | None:
    """Take slot *number*; ``None`` when it is held."""
    path = folder / _NAME.format(number=number)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        named = path.stat()
    except FileNotFoundError:
        return False
    return (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)
