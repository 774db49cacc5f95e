"""Where the journals of a chest on an app lie: what the settings, the app and the store say of it together."""

from __future__ import annotations

from pathlib import Path

import msgspec

from flask_chest.extension.settings import MEMORY, Settings
from flask_chest.journal import JournalConfig, digest, journal_folder
from flask_chest.protocols import Addressed, Identified, Store


class JournalPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where an app keeps its journals, and under which names."""

    root: Path
    """Folder at which a relative ``CHEST_JOURNAL_DIR`` begins."""
    default: Path
    """Parent of the journals' folders where the settings name none."""
    chest: str
    """Name of the chest."""
    app: str
    """Import name of the app: part of the identity of a store that has no address."""

    def config(self, settings: Settings, store: Store, *, testing: bool) -> JournalConfig:
        """Return how journals for *store* are kept: while *testing*, in memory unless a folder is named."""
        address = store.address if isinstance(store, Addressed) else f"{self.app} {_name_of(type(store))}"
        key = store.place if isinstance(store, Identified) else address
        chosen = settings.journal_dir
        parents = set() if testing else {self.default}
        folder = None
        if key is not None and chosen != MEMORY and (chosen or not testing):
            parent = self.root / chosen if chosen else self.default
            folder = journal_folder(parent, chest=self.chest, address=key)
            parents.add(parent)
        return JournalConfig(
            folder=folder,
            chest=self.chest,
            store=digest(address or ""),
            host=settings.instance,
            max_bytes=settings.journal_bytes,
            synchronous=settings.journal_sync,
            local=settings.journal_local,
            parents=tuple(parents),
        )


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
