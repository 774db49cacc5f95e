"""The queue between a request and the store: on disk, so that a killed process loses nothing it answered."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TypedDict, TypeVar, Unpack

from flask_chest.errors import JournalError
from flask_chest.journal._files import CAN_LOCK, LACKING
from flask_chest.journal._losses import losses_in as losses_in
from flask_chest.journal.memory import MAX_BYTES, MemoryJournal
from flask_chest.journal_protocols import Appendable, Journal
from flask_chest.record import Query

T = TypeVar("T")

REJECTED = "rejected"
"""The file of the records that the store refused for good."""

logger = logging.getLogger("flask_chest.journal")

_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "fuse.sshfs", "9p"})
_DIGITS = 12
_MOUNTS = Path("/proc/self/mounts")


def journal_folder(parent: Path, *, chest: str, address: str) -> Path:
    """Name the folder for one chest and one store below *parent*."""
    return parent / f"{chest}-{digest(address)[:_DIGITS]}"


def forget_rejected(folder: Path, query: Query) -> int:
    """Remove what matches of the records in *folder* that the store refused for good; give how many."""
    path = folder / REJECTED
    if not path.exists():
        return 0
    from flask_chest.journal._rejected import forget_in  # noqa: PLC0415 - Windows has no fcntl

    try:
        return forget_in(path, query)
    except OSError as exc:
        raise JournalError(
            f"{path} may still hold what is to be forgotten ({exc.strerror or exc}); "
            "remove it, or forget again as its owner"
        ) from exc


def journal_folders(parent: Path, *, chest: str) -> list[Path]:
    """List the folders of one chest below *parent*: one for each place at which its store ever was."""
    named = re.compile(rf"{re.escape(chest)}-[0-9a-f]{{{_DIGITS}}}")
    try:
        return sorted(path for path in parent.iterdir() if named.fullmatch(path.name) and path.is_dir())
    except OSError:  # it is not there, or another user's
        return []


def digest(address: str) -> str:
    """Give what stands for a store's *address* in names and headers."""
    return sha256(address.encode(errors="surrogatepass")).hexdigest()[:32]


class Options(TypedDict):
    """What every journal of a chest is opened with."""

    chest: str
    host: str
    max_bytes: int
    synchronous: bool


def open_journal(
    folder: Path | None,
    *,
    address: str | None,
    report: Callable[[str], None],
    identify: Callable[[], str | None] = lambda: None,
    **options: Unpack[Options],
) -> Journal:
    """Open the journal of this process in *folder*, or in memory: where it is ``None`` or cannot be used.

    The latter is said once, for a killed process then loses what waits. Without *address* the journal takes what
    others have left for any store.
    """
    store = None if address is None else digest(address)
    return _open(folder, lambda folder: _on_disk(folder, store, report, identify, options)) or _in_memory(options)


def reopen_journal(
    folder: Path | None,
    *,
    address: str,
    report: Callable[[str], None],
    identify: Callable[[], str | None],
    **options: Unpack[Options],
) -> Journal | None:
    """Open the journal on disk where it is in memory; ``None`` where that is not possible."""
    if folder is None or _unsuitable(folder) is not None:
        return None
    try:
        journal = _on_disk(folder, digest(address), report, identify, options)
    except OSError:
        return None
    logger.warning("the journal is kept in %s now", folder)  # as loudly as was said that it could not be
    return journal


def open_left_journal(folder: Path | None, *, address: str, **options: Unpack[Options]) -> Appendable:
    """Open a journal that other processes store, or one in memory as `open_journal` does."""
    return _open(folder, lambda folder: _left_on_disk(folder, address, options)) or _in_memory(options)


def reopen_left_journal(folder: Path | None, *, address: str, **options: Unpack[Options]) -> Appendable | None:
    """Open on disk what is in memory, as `open_left_journal` does; ``None`` where that is not possible."""
    if folder is None or _unsuitable(folder) is not None:
        return None
    try:
        journal = _left_on_disk(folder, address, options)
    except OSError:
        return None
    logger.warning("the journal is kept in %s now", folder)  # likewise
    return journal


def _on_disk(
    folder: Path,
    store: str | None,
    report: Callable[[str], None],
    identify: Callable[[], str | None],
    options: Options,
) -> Journal:
    from flask_chest.journal.file import FileJournal  # noqa: PLC0415 - Windows has no fcntl

    return FileJournal(folder, store=store, report=report, identify=identify, **options)


def _left_on_disk(folder: Path, address: str, options: Options) -> Appendable:
    from flask_chest.journal.left import LeftJournal  # noqa: PLC0415 - as above

    return LeftJournal(folder, store=digest(address), **options)


def _in_memory(options: Options) -> MemoryJournal:
    return MemoryJournal(
        instance=f"{options['host']}:{os.getpid()}", max_bytes=min(options["max_bytes"], MAX_BYTES)
    )


def _open(folder: Path | None, on_disk: Callable[[Path], T]) -> T | None:
    if folder is None:
        return None
    why = _unsuitable(folder)
    if why is None:
        try:
            return on_disk(folder)
        except OSError as exc:
            why = exc.strerror or str(exc)
    logger.warning(
        "the journal cannot be kept in %s (%s): records wait for the store in memory, and are lost if the "
        "process is killed; set CHEST_JOURNAL_DIR to a folder on a local disk",
        folder,
        why,
    )
    return None


def obstacle(folder: Path) -> str | None:
    """Say why no journal can be kept in *folder*, without making it; ``None``: it can."""
    why = _unsuitable(folder)
    if why is None:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not there.is_dir():
            return f"{there} is no folder"
        if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
            return f"{there} cannot be written by this user"
    return why


def _unsuitable(folder: Path) -> str | None:
    if not CAN_LOCK:
        return LACKING
    kind = _file_system(folder)
    # Over a network, appending is not atomic and a lock may outlive its holder.
    return f"it is on {kind}, a network file system" if kind in _NETWORK else None


def _file_system(folder: Path) -> str | None:
    """Name the kind of file system that *folder* is to be on, where the kernel says so."""
    try:
        text = os.fsdecode(_MOUNTS.read_bytes())
    except OSError:
        return None
    mounts = [line.split(" ")[1:3] for line in text.split("\n") if line]
    place = str(folder.resolve()) + "/"
    # What is mounted later hides what was there before.
    fitting = [(len(point), kind) for point, kind in reversed(mounts) if place.startswith(_unescaped(point))]
    return max(fitting, key=lambda found: found[0])[1] if fitting else None


def _unescaped(point: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(code, character)
    return point.rstrip("/") + "/"
