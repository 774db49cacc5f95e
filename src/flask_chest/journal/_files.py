"""The files of a journal's folder: opened, locked, read and written as only some systems can.

Only plain files are opened, and no link is followed: whoever may write the folder could have a file of somebody
else changed, or let us wait for ever at a FIFO. What a system lacks is missed when it is called, not on import.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from flask_chest.journal.accounts import is_trusted, own_id

CAN_LOCK = find_spec("fcntl") is not None
"""Whether this system has what a journal on disk needs."""
LACKING = "this system has no flock"

_SAFELY = 0
for _name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"):  # the last is for a FIFO, and no matter to a plain file
    _SAFELY |= getattr(os, _name, 0)
_NOT_PLAIN = frozenset({errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR, errno.EOPNOTSUPP})
"""Errors with which systems refuse links, sockets and folders."""


class ForeignFileError(PermissionError):
    """A file in the journal's folder was not made by a journal, or is another account's."""


class OpenFile:
    """A file that this process holds open, until it is closed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def held(self) -> bool:
        """Whether it was not closed yet."""
        return self._descriptor >= 0

    @property
    def removed(self) -> bool:
        """Whether somebody has removed it: nobody else finds what is in it, and its lock tells nothing."""
        return self.held and os.fstat(self._descriptor).st_nlink == 0

    def unlock(self) -> None:
        """Unlock it, also where a forked child still has the descriptor."""
        if self.held and sys.platform != "win32":  # where nothing was ever locked
            import fcntl  # noqa: PLC0415 - not everywhere

            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close it as it is; may be called again.

        So a forked child leaves it to its parent: to unlock it would unlock the parent's.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def open_file(path: Path, flags: int) -> int:
    """Open the plain file at *path*, to look at it."""
    try:
        descriptor = os.open(path, flags | _SAFELY, 0o600)
    except OSError as exc:
        if exc.errno in _NOT_PLAIN:
            raise ForeignFileError(exc.errno, "it is not a plain file", str(path)) from exc
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ForeignFileError(errno.EPERM, "it is not a plain file", str(path))
    return descriptor


def open_own_file(path: Path, flags: int) -> int:
    """Open the plain file at *path*, to believe what is in it or to write it."""
    descriptor = open_file(path, flags)
    if not is_trusted(os.fstat(descriptor), by=own_id()):
        os.close(descriptor)
        raise ForeignFileError(errno.EPERM, "it is another account's", str(path))
    return descriptor


def read_file(path: Path) -> bytes:
    """Read the plain file at *path*, to look at it."""
    with open(open_file(path, os.O_RDONLY), "rb") as file:
        return file.read()


def lock(descriptor: int, *, shared: bool = False, wait: bool = False) -> None:
    """Lock an open file; ``BlockingIOError`` where another has its lock and this is not to *wait*."""
    if sys.platform != "win32":
        import fcntl  # noqa: PLC0415 - not everywhere

        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    else:
        raise OSError(errno.ENOSYS, LACKING)


def is_locked(path: Path) -> bool:
    """Return whether another has the lock of the plain file at *path*."""
    descriptor = open_file(path, os.O_RDONLY)
    try:
        lock(descriptor, shared=True)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def write_whole(descriptor: int, data: bytes) -> None:
    """Write all of *data* where the file stands, or raise ``OSError``."""
    written = os.write(descriptor, data)
    if written != len(data):
        raise OSError(f"only {written} of {len(data)} bytes were written")


def append_line(descriptor: int, line: bytes) -> None:
    """Append *line* durably to a file whose lock the caller holds; ``OSError`` leaves no half of it."""
    size = os.fstat(descriptor).st_size
    try:
        write_whole(descriptor, line)
        synchronise(descriptor)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


synchronise = os.fdatasync if hasattr(os, "fdatasync") else os.fsync  # macOS has only the latter


def synchronise_folder(folder: Path) -> None:
    """Let the names in *folder* survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lack(*_: object) -> NoReturn:
    raise OSError(errno.ENOSYS, LACKING)


read_at: Callable[[int, int, int], bytes] = getattr(os, "pread", _lack)
"""Read a number of bytes of a descriptor at an offset, wherever the file stands."""
write_at: Callable[[int, bytes, int], int] = getattr(os, "pwrite", _lack)
"""Write to a descriptor at an offset, likewise; not wrapped, since each request calls it."""
