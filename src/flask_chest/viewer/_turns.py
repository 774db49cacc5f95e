"""One question at a time in a process: whoever reloads pages takes no more from the app than one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from weakref import WeakKeyDictionary

from flask import Flask

from flask_chest._process import PerProcess

MAX_PAGES = 16
MAX_BYTES = 1 << 20
"""Size of a page beyond which it is not kept."""
MAX_AGE_SECONDS = 60.0
"""Age from which on a page says too little of now."""
REST = 4
"""How many times as long as it took to make it a page is given to a crowd: a fifth of a thread makes pages."""

_turn = PerProcess(threading.Lock)
"""One for all viewers of a process; a forked child has its own, since the thread that held it is not there."""


@contextmanager
def turn() -> Iterator[bool]:
    """Take the turn for this block, and yield whether it was free."""
    lock = _turn.get()
    free = lock.acquire(blocking=False)
    try:
        yield free
    finally:
        if free:
            lock.release()


class Kept(NamedTuple):
    """A page as it was made, and when by the monotonic clock."""

    body: bytes
    made: float
    took: float
    """Seconds that it took to make it."""

    @property
    def age(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self.made


class LastPages:
    """The pages that were made last in this process, by address: the answer while another one is made.

    Each app has its own: a blueprint may be registered on several, whose addresses are the same and whose records
    are not.
    """

    def __init__(self) -> None:
        self._apps: WeakKeyDictionary[Flask, dict[str, Kept]] = WeakKeyDictionary()
        self._turned_away = 0.0
        """When it was last that somebody found the turn taken."""

    def keep(self, app: Flask, address: str, body: bytes, *, took: float) -> None:
        """Keep a page of *app* that was made just now; call it in one's turn."""
        pages = self._apps.setdefault(app, {})
        pages.pop(address, None)
        if len(body) <= MAX_BYTES:
            pages[address] = Kept(body, time.monotonic(), took)
        while len(pages) > MAX_PAGES:
            pages.pop(next(iter(pages)))

    def get(self, app: Flask, address: str) -> Kept | None:
        """Return the page of *address* on *app*, unless it is too old."""
        kept = self._apps.get(app, {}).get(address)
        return kept if kept is not None and kept.age < MAX_AGE_SECONDS else None

    def instead(self, app: Flask, address: str) -> Kept | None:
        """Return the page for whom there is no turn, and note that it was wanted."""
        self._turned_away = time.monotonic()
        return self.get(app, address)

    def resting(self, app: Flask, address: str) -> Kept | None:
        """Return the page if many want pages and it was made so lately that it is not made again."""
        kept = self.get(app, address)
        is_crowded = kept is not None and self._turned_away > kept.made - kept.took
        return kept if kept is not None and is_crowded and kept.age < REST * kept.took else None
