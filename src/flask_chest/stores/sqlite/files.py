"""The files of an SQLite database: whether those that are open are still the ones at its path."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

_LOGS = ("-wal", "-shm")
"""Ends of the names of what lies beside an open file: the write-ahead log and its shared memory."""
_Inode: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """Which files a connection has open. As long as it has them, no other file gets their numbers."""

    path: Path
    file: _Inode | None
    logs: tuple[_Inode | None, ...]

    @classmethod
    def at(cls, path: Path) -> Self:
        """Look at those that lie at *path*."""
        return cls(path, _inode(path), tuple(_inode(log) for log in _logs(path)))

    @property
    def in_place(self) -> bool:
        """Whether the file is still the one at its path."""
        return _inode(self.path) == self.file

    def remove_logs(self) -> None:
        """Remove the logs of a file that is not at its path any more: they are none of its successor's."""
        with _alone(self.path.parent), suppress(OSError):
            for log, opened in zip(_logs(self.path), self.logs, strict=True):
                if opened is not None and _inode(log) == opened:
                    log.unlink(missing_ok=True)


def make_file(path: Path) -> None:
    """Make an empty file where there is none, without the logs of one that was removed while others had it open.

    Those others go on writing into them. What this may not do, SQLite tries and reports.
    """
    with _alone(path.parent), suppress(OSError):
        if _inode(path) is None:
            for log in _logs(path):
                log.unlink(missing_ok=True)
            path.touch(mode=0o644)  # as SQLite does


def _logs(path: Path) -> Iterator[Path]:
    return (path.with_name(path.name + ending) for ending in _LOGS)


def _inode(path: Path) -> _Inode | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out that make or remove the files in *folder*, where the system can do that."""
    descriptor = _locked(folder)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _locked(folder: Path) -> int | None:
    if sys.platform != "win32":  # which removes no file that is open
        with suppress(ImportError, OSError):
            import fcntl  # noqa: PLC0415 - not everywhere

            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor
    return None
