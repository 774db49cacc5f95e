"""The accounts of the operating system: as whom one is, and whom one trusts with a file."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROOT = 0


def own_id() -> int:
    """Return as whom files are opened; -1 on Windows, which has no such numbers."""
    geteuid: Callable[[], int] = getattr(os, "geteuid", lambda: -1)
    return geteuid()


def name_of(number: int) -> str | None:
    """Return the name of an account, where there is one: a container often knows the number alone."""
    if sys.platform != "win32":
        with suppress(ImportError, KeyError):
            import pwd  # noqa: PLC0415 - not everywhere

            return pwd.getpwuid(number).pw_name
    return None


def called(number: int) -> str:
    """Return how to call an account in a sentence."""
    return name_of(number) or f"account {number}"


def shares_group(status: os.stat_result) -> bool:
    """Return whether the group that a file is of, and that may write it, is one of ours."""
    getegid: Callable[[], int] = getattr(os, "getegid", lambda: -1)
    getgroups: Callable[[], list[int]] = getattr(os, "getgroups", list)
    return bool(status.st_mode & stat.S_IWGRP) and status.st_gid in {getegid(), *getgroups()}


def is_trusted(status: os.stat_result, *, by: int) -> bool:
    """Return whether the account *by* may believe what a file holds: it is its own, root's or its group's.

    The last is how Kubernetes shares a volume between accounts.
    """
    if by == -1 or status.st_uid in {by, ROOT}:
        return True
    return by == own_id() != ROOT and shares_group(status)


def why_not_safe(folder: Path, *, by: int) -> str | None:
    """Return who could put files into *folder*, or another in its place, against the will of *by*, or ``None``.

    What is not there yet is judged by what is above it.
    """
    if by == -1:
        return None
    for place in dict.fromkeys((folder.absolute(), folder.resolve())):
        if (why := _why_not_safe(place, by)) is not None:
            return why
    return None


def _why_not_safe(folder: Path, by: int) -> str | None:
    for place in (folder, *folder.parents):
        try:
            status = place.stat()
        except OSError:  # it is not there yet, or closed: making it says why
            continue
        if place == folder:
            if not is_trusted(status, by=by):
                return f"it belongs to {called(status.st_uid)}, who could forge what it holds"
            if status.st_uid == by:
                continue  # its mode is tightened when it is opened
        everybody = bool(status.st_mode & stat.S_IWOTH)
        if everybody and (place == folder or not _is_meant_for_all(place, status, by)):
            return f"everybody may write {place}, and could forge what is kept there"
    return None


def _is_meant_for_all(place: Path, status: os.stat_result, by: int) -> bool:
    # In a sticky folder only the owner of a file, or of the folder, may rename it. And a volume of a container
    # is often made for everybody, as an emptyDir of Kubernetes is, where everybody is the container.
    if status.st_mode & stat.S_ISVTX:
        return status.st_uid in {by, ROOT}
    return status.st_uid == ROOT and os.path.ismount(place)


def who_else_may_write(folder: Path) -> str | None:
    """Return who else may write *folder*, or the volume that it is on, though it is taken, or ``None``."""
    for place in (folder, *folder.parents):
        try:
            status = place.stat()
        except OSError:
            continue
        if place == folder and own_id() not in {-1, ROOT, status.st_uid}:
            group = f", and to the group {status.st_gid}" if shares_group(status) else ""
            return f"{place} belongs to {called(status.st_uid)}{group}"
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX and os.path.ismount(place):
            return f"{place} belongs to everybody"
    return None


def make_folder(folder: Path) -> None:
    """Make *folder* for this account alone, and what is missing above it for nobody else to write."""
    for parent in reversed(folder.parents):
        if not parent.exists():
            parent.mkdir(mode=0o755, exist_ok=True)  # whatever the process lets others do with its files
    folder.mkdir(mode=0o700, exist_ok=True)


def close_to_others(folder: Path) -> None:
    """Take away what others may do with *folder*, if it is this account's.

    One with the setgid bit keeps what its group may do: so it is shared on purpose.
    """
    try:
        status = folder.stat()
    except FileNotFoundError:
        return
    mode = stat.S_IMODE(status.st_mode)
    kept = mode & (stat.S_ISGID | 0o770 if mode & stat.S_ISGID else 0o700)
    if status.st_uid == own_id() and kept != mode:
        folder.chmod(kept)
