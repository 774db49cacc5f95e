"""One question at a time in a process: whoever reloads pages takes no more from the app than one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from flask_chest._process import PerProcess

MAX_PAGES = 16
MAX_BYTES = 1 << 20
"""Size of a page beyond which it is not kept."""
MAX_AGE_SECONDS = 60.0
"""Age from which on a page says too little of now."""

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

    @property
    def age(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self.made


class LastPages:
    """The pages that were made last in this process, by address: the answer while another one is made."""

    def __init__(self) -> None:
        self._pages: dict[str, Kept] = {}

    def keep(self, address: str, body: bytes) -> None:
        """Keep a page that was made just now; call it in one's turn."""
        self._pages.pop(address, None)
        if len(body) <= MAX_BYTES:
            self._pages[address] = Kept(body, time.monotonic())
        while len(self._pages) > MAX_PAGES:
            self._pages.pop(next(iter(self._pages)))

    def get(self, address: str) -> Kept | None:
        """Return the page of *address*, unless it is too old."""
        kept = self._pages.get(address)
        return kept if kept is not None and kept.age < MAX_AGE_SECONDS else None
