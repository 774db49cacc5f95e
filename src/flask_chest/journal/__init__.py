"""The queue between a request and the store: on disk, so that a killed process loses nothing it answered."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import msgspec

from flask_chest.errors import JournalError
from flask_chest.journal._files import CAN_LOCK, LACKING
from flask_chest.journal._refused import forget_in
from flask_chest.journal.accounts import ROOT, close_to_others, own_id, why_not_safe
from flask_chest.journal.memory import MAX_BYTES, MemoryJournal
from flask_chest.journal.protocols import Appendable, Journal
from flask_chest.record import Query

T = TypeVar("T")

REFUSED = "refused"
"""Name of the file, in the journal's folder, for records that the store refused for good: dead letters."""

logger = logging.getLogger("flask_chest.journal")

_NETWORK = frozenset(
    "9p acfs afpfs afs beegfs beegfs_nodev ceph cifs coda davfs fakeowner gfs2 glusterfs gpfs lustre ncpfs "
    "nfs nfs4 ocfs2 openafs orangefs panfs prl_fs pvfs2 smb2 smb3 smbfs vboxsf virtiofs vmhgfs wekafs".split()
)
"""Kernels' names of file systems that another machine has a part in, a virtual machine's host too."""
_LOCAL_FUSE = frozenset(
    "bindfs encfs exfat exfat-fuse ext2 fuse-ext2 fuse-overlayfs gocryptfs mergerfs ntfs ntfs-3g overlayfs "
    "zfs".split()
)
"""File systems behind FUSE, where anything may be, that are known to keep their files on a local disk."""
_DIGITS = 12
_MOUNTS = Path("/proc/self/mounts")


def journal_folder(parent: Path, *, chest: str, address: str) -> Path:
    """Return the folder below *parent* for one chest and one store."""
    return parent / f"{chest}-{digest(address)[:_DIGITS]}"


def forget_refused(folder: Path | None, query: Query) -> int:
    """Remove what matches of the records in *folder* that the store refused for good, and return how many."""
    if folder is None:
        return 0
    path = folder / REFUSED
    try:
        return forget_in(path, query)
    except FileNotFoundError:
        return 0
    except OSError as exc:
        raise JournalError(
            f"{path} may still hold what is to be forgotten ({exc.strerror or exc}); "
            "remove it, or forget again as its owner"
        ) from exc


def other_folders(config: JournalConfig) -> list[Path]:
    """Return the folders in ``config.parents`` that the same chest has for other addresses of its store."""
    named = re.compile(rf"{re.escape(config.chest)}-[0-9a-f]{{{_DIGITS}}}")
    found: list[Path] = []
    for parent in sorted(config.parents):
        with suppress(OSError):  # it is not there, or another user's
            found += sorted(path for path in parent.iterdir() if named.fullmatch(path.name) and path.is_dir())
    return [other for other in found if other != config.folder]


def digest(address: str) -> str:
    """Return what stands for a store's *address* in the names of folders and the headers of segments."""
    return sha256(address.encode(errors="surrogatepass")).hexdigest()[:32]


class JournalConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how one chest keeps its journals: every process of it opens one in the same folder."""

    folder: Path | None
    """Folder that all processes of the chest share; ``None`` keeps the journal in memory."""
    chest: str
    """Name of the chest, as the headers of segments show it."""
    store: str | None
    """Digest of the store's address; ``None`` takes what was left for any store."""
    host: str
    """First part of `Record.instance`."""
    max_bytes: int
    """Number of bytes that the folder may hold."""
    synchronous: bool = False
    """Whether a record also survives a power cut, at the price of waiting for the disk."""
    local: bool | None = None
    """Whether the folder is on a local disk; ``None`` goes by what the kernel says."""
    parents: tuple[Path, ...] = ()
    """Folders that may hold journals of the same chest for other addresses of its store."""


def open_journal(
    config: JournalConfig, *, report: Callable[[str], None], identify: Callable[[], str | None] = lambda: None
) -> Journal:
    """Open the journal of a process that stores its records itself, on disk or else in memory.

    A warning says why a folder cannot be used: what waits in memory is lost with a process that is killed.
    *report* is called with a reason for whatever is found damaged or is left alone. *identify* returns the id of
    the store, asking it if need be, or ``None`` while that is not possible.
    """
    return _on_disk(config, lambda: _file_journal(config, report, identify)) or _in_memory(config)


def reopen_journal(
    config: JournalConfig, *, report: Callable[[str], None], identify: Callable[[], str | None]
) -> Journal | None:
    """Open on disk what `open_journal` had to keep in memory, or return ``None`` while that is not possible."""
    return _on_disk(config, lambda: _file_journal(config, report, identify), again=True)


def open_append_only(config: JournalConfig) -> Appendable:
    """Open the journal of a process whose records others store, on disk or else in memory as `open_journal`."""
    return _on_disk(config, lambda: _append_only(config)) or _in_memory(config)


def reopen_append_only(config: JournalConfig) -> Appendable | None:
    """Open on disk what `open_append_only` had to keep in memory, or return ``None`` as `reopen_journal`."""
    return _on_disk(config, lambda: _append_only(config), again=True)


def _on_disk(config: JournalConfig, make: Callable[[], T], *, again: bool = False) -> T | None:
    folder = config.folder
    if folder is None:
        return None
    why = _unsuitable(folder, local=config.local, account=own_id())
    if why is None:
        try:
            close_to_others(folder)
            journal = make()
        except OSError as exc:
            why = exc.strerror or str(exc)
        else:
            if again:  # as loudly as the warning that it could not be
                logger.warning("the journal is kept in %s now", folder)
            return journal
    if not again:
        logger.warning(
            "the journal cannot be kept in %s (%s): records wait for the store in memory, and are lost if the "
            "process is killed; set CHEST_JOURNAL_DIR to a folder on a local disk",
            folder,
            why,
        )
    return None


def _file_journal(
    config: JournalConfig, report: Callable[[str], None], identify: Callable[[], str | None]
) -> Journal:
    from flask_chest.journal.file import FileJournal  # noqa: PLC0415 - it imports this module

    return FileJournal(config, report=report, identify=identify)


def _append_only(config: JournalConfig) -> Appendable:
    from flask_chest.journal.append_only import AppendOnlyJournal  # noqa: PLC0415 - as above

    return AppendOnlyJournal(config)


def _in_memory(config: JournalConfig) -> MemoryJournal:
    return MemoryJournal(instance=f"{config.host}:{os.getpid()}", max_bytes=min(config.max_bytes, MAX_BYTES))


def used_bytes(folder: Path) -> int:
    """Return the size of the files in *folder*; 0 if it cannot be looked at, which says nothing about room."""
    try:
        with os.scandir(folder) as entries:
            return sum(map(_size, entries))
    except OSError:
        return 0


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


def obstacle(folder: Path, *, local: bool | None = None) -> str | None:
    """Return why no journal can be kept in *folder*, or ``None`` if one can; the folder is not made.

    Root, who may look at everybody's, gets the answer for the folder's owner.
    """
    owner = folder.stat().st_uid if own_id() == ROOT and folder.exists() else own_id()
    why = _unsuitable(folder, local=local, account=owner)
    if why is None:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not there.is_dir():
            return f"{there} is not a folder"
        if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
            return f"{there} cannot be written by this user"
    return why


def _unsuitable(folder: Path, *, local: bool | None, account: int) -> str | None:
    if not CAN_LOCK:
        return LACKING
    return _why_not_local(folder, local=local) or why_not_safe(folder, by=account)


def _why_not_local(folder: Path, *, local: bool | None) -> str | None:
    # Over a network, appending is not atomic and a lock may outlive its holder.
    if local is not None:
        return None if local else "it is not on a local disk, as CHEST_JOURNAL_LOCAL says"
    kind = _file_system(folder) or ""
    name = kind.removeprefix("fuse.")
    if name in _NETWORK:
        return f"it is on {kind}, a network file system"
    if kind == "fuse" or (name != kind and name not in _LOCAL_FUSE):
        return (
            f"it is on {kind}, which may be a network file system; if it is not, set CHEST_JOURNAL_LOCAL to true"
        )
    return None


def _file_system(folder: Path) -> str | None:
    """Return the kind of file system that *folder* is to be on, if the kernel says so."""
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
