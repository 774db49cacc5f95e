"""The store of one process: made when it is looked at, opened when it is used."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flask_chest.errors import StoreUnavailable, describe
from flask_chest.protocols import Store

OPEN_PAUSE_SECONDS = 1.0
"""How long a store that could not be opened is left alone."""


class LazyStore:
    """The store that *make* makes, in this process, from the first use to `close` and from the next one on."""

    def __init__(self, make: Callable[[], Store]) -> None:
        self._make = make
        self._making = threading.RLock()
        """Held while the store is made, by requests too: never while it is called."""
        self._opening = threading.RLock()
        """Held while the store is opened, which may take long."""
        self._store: Store | None = None
        self._opened = False
        self._failure: Exception | None = None
        self._open_again = 0.0

    @property
    def is_made(self) -> bool:
        """Whether there is one now."""
        return self._store is not None

    def made(self) -> Store:
        """Give the store, perhaps never opened: looking at it creates nothing."""
        with self._making:
            if self._store is None:
                self._store = self._make()
            return self._store

    def open(self) -> Store:
        """Give the store, opened; raise `StoreError` when it cannot be."""
        with self._opening:
            store = self.made()
            if not self._opened:
                self._open(store)
            return store

    def identify(self) -> str | None:
        """Give the id of the store, which is opened for that; ``None`` where it cannot be, or has none."""
        try:
            store = self.open()
        except Exception:  # noqa: BLE001 - an own store may raise anything; who writes next is told
            return None
        store_id: object = getattr(store, "store_id", None)  # a look for the whole protocol is dearer
        return store_id if isinstance(store_id, str) else None

    def take_away(self, timeout: float) -> tuple[Store | None, bool]:
        """Give the store, if it was made, to be closed, and forget it; False when it hangs in its opening."""
        if not self._opening.acquire(timeout=timeout):
            return None, False
        try:
            store, self._store, self._opened, self._failure = self._store, None, False, None
        finally:
            self._opening.release()
        return store, True

    def _open(self, store: Store) -> None:
        # Callers wait here for each other: one that failed slowly is not to be repeated by each of them.
        if self._failure is not None and time.monotonic() < self._open_again:
            raise StoreUnavailable(
                f"the store did not open a moment ago: {describe(self._failure)}"
            ) from self._failure
        try:
            store.open()
        except Exception as exc:
            self._failure, self._open_again = exc, time.monotonic() + OPEN_PAUSE_SECONDS
            raise
        self._opened, self._failure = True, None
