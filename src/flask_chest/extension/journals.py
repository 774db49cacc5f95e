"""Where the journal of a chest lies, and opening it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flask_chest._process import threads_run
from flask_chest.extension.settings import MEMORY, Settings
from flask_chest.journal import (
    Options,
    digest,
    forget_rejected,
    journal_folder,
    journal_folders,
    losses_in,
    obstacle,
    open_journal,
    open_left_journal,
    reopen_journal,
    reopen_left_journal,
)
from flask_chest.journal.losses import Losses
from flask_chest.journal.protocols import Appendable, Journal
from flask_chest.protocols import Addressed, Identified, Store
from flask_chest.record import Query

logger = logging.getLogger("flask_chest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an app's journals lie, and under which name."""

    root: Path
    """What a relative folder begins at."""
    default: Path
    chest: str
    app: str
    """Part of the identity of a store that has no address."""


class Journals:
    """The journals of one chest on one app; while *testing*, they are in memory unless a folder is named."""

    def __init__(self, settings: Settings, place: Place, store: Store, *, testing: bool) -> None:
        self._settings = settings
        self._place = place
        self._address = store.address if isinstance(store, Addressed) else f"{place.app} {_name_of(type(store))}"
        self._folder_key = store.place if isinstance(store, Identified) else self._address
        self._testing = testing

    @property
    def folder(self) -> Path | None:
        """Where they lie, whether or not that exists; ``None``: in memory."""
        place, chosen = self._place, self._settings.journal_dir
        if self._folder_key is None or chosen == MEMORY or (self._testing and not chosen):
            return None
        parent = place.root / chosen if chosen else place.default
        return journal_folder(parent, chest=place.chest, address=self._folder_key)

    def elsewhere(self) -> list[Path]:
        """List the folders of the same chest for other addresses of its store, also where they lie by default."""
        folder = self.folder
        parents = set() if self._testing else {self._place.default}
        if folder is not None:
            parents.add(folder.parent)
        found = [each for parent in sorted(parents) for each in journal_folders(parent, chest=self._place.chest)]
        return [other for other in found if other != folder]

    @property
    def store_digest(self) -> str:
        """What stands for the store in the headers of segments."""
        return digest(self._address or "")

    def obstacle(self) -> str | None:
        """Say why none can be kept in the folder, without making it; ``None``: it can, or is to be in memory."""
        folder = self.folder
        return None if folder is None else obstacle(folder, local=self._settings.journal_local)

    def losses(self) -> Losses:
        """Add up what all processes lost that share the folder, also those that are gone; none in memory."""
        folder = self.folder
        return Losses() if folder is None else losses_in(folder)

    def forget_rejected(self, query: Query) -> int:
        """Remove what matches of the records that the store refused for good; give how many those were."""
        folder = self.folder
        return 0 if folder is None else forget_rejected(folder, query)

    def open(self, report: Callable[[str], None], identify: Callable[[], str | None]) -> Journal:
        """Open one that this process stores; *report* what is found damaged in it.

        *identify* gives the id of the store, if need be by asking it, or ``None`` while that is not possible.
        """
        return open_journal(
            self.folder,
            local=self._settings.journal_local,
            address=self._address or "",
            report=report,
            identify=identify,
            **self._options(),
        )

    def reopen(self, report: Callable[[str], None], identify: Callable[[], str | None]) -> Journal | None:
        """Open one on disk after all, as `open` would; ``None`` where that is not possible."""
        return reopen_journal(
            self.folder,
            local=self._settings.journal_local,
            address=self._address or "",
            report=report,
            identify=identify,
            **self._options(),
        )

    def open_orphan(self, folder: Path, report: Callable[[str], None]) -> Journal:
        """Open *folder* to take what was left there for another store, or another address of this one."""
        return open_journal(folder, local=True, address=None, report=report, **self._options())

    def open_left(self) -> Appendable:
        """Open one that other processes store."""
        return open_left_journal(
            self.folder, local=self._settings.journal_local, address=self._address or "", **self._options()
        )

    def reopen_left(self) -> Appendable | None:
        """Open one on disk after all, as `open_left` would; ``None`` where that is not possible."""
        return reopen_left_journal(
            self.folder, local=self._settings.journal_local, address=self._address or "", **self._options()
        )

    def _options(self) -> Options:
        settings = self._settings
        return Options(
            chest=self._place.chest,
            host=settings.instance,
            max_bytes=settings.journal_bytes,
            synchronous=settings.journal_sync,
        )


def threads_can_run() -> bool:
    """Tell whether a thread of ours would run, and say so if not."""
    if threads_run():
        return True
    logger.warning(
        "threads do not run under this uWSGI: start it with --enable-threads; until then records wait in "
        "the journal for another process"
    )
    return False


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
