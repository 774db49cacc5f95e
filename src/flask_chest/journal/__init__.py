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
from flask_chest.journal.accounts import ROOT, close_to_others, own_id, why_not_safe
from flask_chest.journal.memory import MAX_BYTES, MemoryJournal
from flask_chest.journal.protocols import Appendable, Journal
from flask_chest.record import Query

T = TypeVar("T")

REJECTED = "rejected"
"""The file of the records that the store refused for good."""

logger = logging.getLogger("flask_chest.journal")

_NETWORK = frozenset(
    "9p acfs afpfs afs beegfs beegfs_nodev ceph cifs coda davfs fakeowner gfs2 glusterfs gpfs lustre ncpfs "
    "nfs nfs4 ocfs2 openafs orangefs panfs prl_fs pvfs2 smb2 smb3 smbfs vboxsf virtiofs vmhgfs wekafs".split()
)
"""What kernels call file systems of which another machine has a part, a virtual machine's host too."""
_LOCAL_FUSE = frozenset(
    "bindfs encfs exfat exfat-fuse ext2 fuse-ext2 fuse-overlayfs gocryptfs mergerfs ntfs ntfs-3g overlayfs "
    "zfs".split()
)
"""What is known to keep its files on a local disk, among all that may do anything behind FUSE."""
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
    local: bool | None = None,
    address: str | None,
    report: Callable[[str], None],
    identify: Callable[[], str | None] = lambda: None,
    **options: Unpack[Options],
) -> Journal:
    """Open the journal of this process in *folder*, or in memory: where it is ``None`` or cannot be used.

    The latter is said once, for a killed process then loses what waits. Without *address* the journal takes what
    others have left for any store. *local* says whether the folder is on a local disk, ``None`` that nobody
    has said so.
    """
    store = None if address is None else digest(address)
    journal = _open(folder, lambda folder: _on_disk(folder, store, report, identify, options), local=local)
    return journal or _in_memory(options)


def reopen_journal(
    folder: Path | None,
    *,
    local: bool | None = None,
    address: str,
    report: Callable[[str], None],
    identify: Callable[[], str | None],
    **options: Unpack[Options],
) -> Journal | None:
    """Open the journal on disk where it is in memory; ``None`` where that is not possible."""
    if folder is None or _unsuitable(folder, local=local) is not None:
        return None
    try:
        close_to_others(folder)
        journal = _on_disk(folder, digest(address), report, identify, options)
    except OSError:
        return None
    logger.warning("the journal is kept in %s now", folder)  # as loudly as was said that it could not be
    return journal


def open_left_journal(
    folder: Path | None, *, local: bool | None = None, address: str, **options: Unpack[Options]
) -> Appendable:
    """Open a journal that other processes store, or one in memory as `open_journal` does."""
    return _open(folder, lambda folder: _left_on_disk(folder, address, options), local=local) or _in_memory(
        options
    )


def reopen_left_journal(
    folder: Path | None, *, local: bool | None = None, address: str, **options: Unpack[Options]
) -> Appendable | None:
    """Open on disk what is in memory, as `open_left_journal` does; ``None`` where that is not possible."""
    if folder is None or _unsuitable(folder, local=local) is not None:
        return None
    try:
        close_to_others(folder)
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
    from flask_chest.journal.append_only import LeftJournal  # noqa: PLC0415 - as above

    return LeftJournal(folder, store=digest(address), **options)


def _in_memory(options: Options) -> MemoryJournal:
    return MemoryJournal(
        instance=f"{options['host']}:{os.getpid()}", max_bytes=min(options["max_bytes"], MAX_BYTES)
    )


def _open(folder: Path | None, on_disk: Callable[[Path], T], *, local: bool | None) -> T | None:
    if folder is None:
        return None
    why = _unsuitable(folder, local=local)
    if why is None:
        try:
            close_to_others(folder)
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


def obstacle(folder: Path, *, local: bool | None = None) -> str | None:
    """Say why no journal can be kept in *folder*, without making it; ``None``: it can.

    Root, who may look at everybody's, is told what is so for the folder's owner.
    """
    owner = folder.stat().st_uid if own_id() == ROOT and folder.exists() else own_id()
    why = _unsuitable(folder, local=local, account=owner)
    if why is None:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not there.is_dir():
            return f"{there} is no folder"
        if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
            return f"{there} cannot be written by this user"
    return why


def _unsuitable(folder: Path, *, local: bool | None, account: int | None = None) -> str | None:
    if not CAN_LOCK:
        return LACKING
    return _why_not_local(folder, local=local) or why_not_safe(
        folder, by=own_id() if account is None else account
    )


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
            f"it is on {kind}, which may be a network file system; if it is none, set CHEST_JOURNAL_LOCAL to true"
        )
    return None


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
