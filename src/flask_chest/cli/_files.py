"""Files that commands write: there whole, or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flask_chest.cli._group import Failure

PARTIAL = ".partial"
"""End of the name of a file that is not whole yet; what was interrupted leaves it to the next attempt."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Lend the place of a file that is moved to *path* once the block has ended; exit if it cannot be."""
    partial = path.with_name(f".{path.name}{PARTIAL}")
    try:
        partial.unlink(missing_ok=True)  # what a killed process left
        yield partial
        put(partial, path)
    except OSError as exc:
        raise Failure(f"{path} cannot be written: {os.strerror(exc.errno or 0)}") from exc
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Exit if another process is in such a block of *folder*, where the system can tell."""
    if sys.platform == "win32":
        yield
    else:
        import fcntl  # noqa: PLC0415 - not everywhere

        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as exc:
            raise Failure(f"another process writes into {folder}; try again when it has ended") from exc
        finally:
            os.close(descriptor)


def put(whole: Path, path: Path) -> None:
    """Move the file *whole* to *path*, after all of it is on the disk."""
    _synchronise(whole)
    whole.replace(path)
    _synchronise(path.parent)


def _synchronise(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
