"""As whom a command is run, and as whom it should be: the folder of a journal is its account's alone."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from flask_chest.journal.accounts import ROOT, called, name_of, own_id


def why_closed(folder: Path) -> str | None:
    """Return whose *folder* is, closed to this account, and as whom to run; ``None`` where it is open."""
    try:
        owner, closed = folder.stat().st_uid, not _may_use(folder)
    except PermissionError:  # so is one above it
        owner, closed = _owner_above(folder), True
    except OSError:
        return None
    return _sentence(folder, owner, "which alone may look into it") if closed and owner != own_id() else None


def why_not_to_write(folder: Path) -> str | None:
    """Return why this account should write nothing there, and as whom to run; ``None`` where it may."""
    why = why_closed(folder)
    if why is None and folder.is_dir() and own_id() == ROOT != folder.stat().st_uid:
        return _sentence(folder, folder.stat().st_uid, "which could not read what root writes into it")
    return why


def _sentence(folder: Path, owner: int, why: str) -> str:
    name, number = name_of(owner), f"'#{owner}'"  # as sudo takes it: a container often knows the number alone
    return (
        f"You are {called(own_id())}, and {folder} belongs to "
        f"{called(owner)}, {why}: run this as that account, as in sudo -u {name or number} flask …"
    )


def _may_use(folder: Path) -> bool:
    # As whom files are opened, where the system can tell.
    effective = os.access in os.supports_effective_ids
    return os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=effective)


def _owner_above(folder: Path) -> int:
    for place in folder.absolute().parents:
        with suppress(OSError):
            return place.stat().st_uid
    return ROOT
