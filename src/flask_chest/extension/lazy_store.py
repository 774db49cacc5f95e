"""The store of one process: made when it is looked at, opened when it is used."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flask_chest.errors import StoreUnavailable, describe
from flask_chest.protocols import Store

OPEN_PAUSE_SECONDS = 1.0
"""Seconds for which a store that could not be opened is not tried again."""


class LazyStore:
    """The store that *make* makes, in this process, from the first use to `close` and from the next one on.

    *opened* is called with it whenever it was opened, and must raise nothing.
    """

    def __init__(self, make: Callable[[], Store], *, opened: Callable[[Store], object]) -> None:
        self._make = make
        self._when_opened = opened
        self._making = threading.RLock()
        """Lock under which the store is made, by requests too: never held while it is called."""
        self._opening = threading.RLock()
        """Lock under which the store is opened, which may take long."""
        self._store: Store | None = None
        self._opened = False
        self._failure: Exception | None = None
        self._open_again = 0.0

    @property
    def is_made(self) -> bool:
        """Whether the store exists now."""
        return self._store is not None

    def made(self) -> Store:
        """Return the store, perhaps not opened: looking at it creates no file or table."""
        with self._making:
            if self._store is None:
                self._store = self._make()
            return self._store

    def open(self) -> Store:
        """Return the store, opened; raise `StoreError` when it cannot be."""
        with self._opening:
            store = self.made()
            was_open = self._opened
            if not was_open:
                self._open(store)
        if not was_open:
            self._when_opened(store)  # without the lock, so that nobody else waits
        return store

    def identify(self) -> str | None:
        """Return the id of the store, which is opened for that; ``None`` if it cannot be, or has no id."""
        try:
            store = self.open()
        except Exception:  # noqa: BLE001 - a third-party store may raise anything; whoever writes next gets it
            return None
        store_id: object = getattr(store, "store_id", None)  # to check for the whole protocol costs more
        return store_id if isinstance(store_id, str) else None

    def take_away(self, timeout: float) -> tuple[Store | None, bool]:
        """Take out the store, if it was made, and return it and whether that was possible.

        It is not while the store hangs in its opening for more than *timeout* seconds.
        """
        if not self._opening.acquire(timeout=timeout):
            return None, False
        try:
            store, self._store, self._opened, self._failure = self._store, None, False, None
        finally:
            self._opening.release()
        return store, True

    def _open(self, store: Store) -> None:
        # Callers wait here for each other: they must not repeat, one after the other, what failed slowly.
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
