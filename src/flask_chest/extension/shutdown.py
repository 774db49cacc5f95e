"""The end of what works beside an app: when nobody holds the app any more, and when the process ends."""

from __future__ import annotations

import atexit
import logging
import os
import socketserver
import sys
import time
from abc import abstractmethod
from inspect import currentframe
from typing import Protocol
from weakref import WeakSet

from flask_chest._process import start_native_thread

logger = logging.getLogger("flask_chest")

EXIT_TIMEOUT_SECONDS = 5.0
_POLL_SECONDS = 0.002


class Ending(Protocol):
    """Anything that can be closed in a given time."""

    @abstractmethod
    def close(self, timeout: float, /) -> bool:
        """Close within *timeout* seconds; return False if something is left undone."""


def close_at_exit(what: Ending) -> None:
    """Close *what* at the end of the process if it still exists then."""
    _known.add(what)


def close_beside(what: Ending) -> None:
    """Close *what* in another thread: for finalizers, which must wait for nothing.

    If no thread can be started, it is closed at the end of the process.
    """
    if sys.is_finalizing():
        return
    key = os.getpid(), id(what)
    _closing[key] = what
    try:
        start_native_thread(lambda: _close(key))
    except RuntimeError:  # no thread can be started
        _left[key] = _closing.pop(key)


def _close(key: tuple[int, int]) -> None:
    try:
        _closing[key].close(EXIT_TIMEOUT_SECONDS)
    finally:
        del _closing[key]


def ends_unsaid() -> bool:
    """Return whether a server has forked this process for a connection, and ends it by ``os._exit``.

    Flask's own server does that with ``processes=``. Exit hooks are not called in such a process.
    """
    forking: type | None = getattr(socketserver, "ForkingMixIn", None)  # not on Windows
    if forking is None:
        return False
    code, frame = vars(forking)["process_request"].__code__, currentframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def close_all() -> None:
    """Close everything that is to be closed at the end of the process; what is used later starts again."""
    pid = os.getpid()
    for what in [*_known, *(each for (owner, _), each in _left.items() if owner == pid)]:
        if not what.close(EXIT_TIMEOUT_SECONDS):
            logger.warning(
                "the process ends before all its records are stored; "
                "a journal on disk keeps them for the next process"
            )
    deadline = time.monotonic() + EXIT_TIMEOUT_SECONDS
    while any(owner == pid for owner, _ in list(_closing)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


_known: WeakSet[Ending] = WeakSet()
_closing: dict[tuple[int, int], Ending] = {}
"""Objects that are being closed, by the process that does it and their id."""
_left: dict[tuple[int, int], Ending] = {}
"""Objects for which no thread could be started, by the same keys."""
atexit.register(close_all)
