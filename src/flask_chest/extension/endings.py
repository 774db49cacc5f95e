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
    """What has an end."""

    @abstractmethod
    def close(self, timeout: float, /) -> bool:
        """End within *timeout* seconds; False when something is left undone."""


def close_at_exit(what: Ending) -> None:
    """Close *what* at the end of the process, if it is there then."""
    _known.add(what)


def close_beside(what: Ending) -> None:
    """Close *what* in a thread: for finalizers, which must wait for nothing.

    Where none can be started the end of the process does it.
    """
    if sys.is_finalizing():
        return
    key = os.getpid(), id(what)
    _closing[key] = what
    try:
        start_native_thread(lambda: _close(key))
    except RuntimeError:  # there is no thread to be had
        _left[key] = _closing.pop(key)


def _close(key: tuple[int, int]) -> None:
    try:
        _closing[key].close(EXIT_TIMEOUT_SECONDS)
    finally:
        del _closing[key]


def ends_unsaid() -> bool:
    """Return whether a server has forked this process for a connection, and ends it by ``os._exit``.

    Flask's own server does that with ``processes=``. Nothing that was registered for the exit is called there.
    """
    forking: type | None = getattr(socketserver, "ForkingMixIn", None)  # not on Windows
    if forking is None:
        return False
    code, frame = vars(forking)["process_request"].__code__, currentframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def close_all() -> None:
    """Close what is to be closed at the end of the process; what is used after that begins anew."""
    pid = os.getpid()
    for what in [*_known, *(each for (owner, _), each in _left.items() if owner == pid)]:
        if not what.close(EXIT_TIMEOUT_SECONDS):
            logger.warning(
                "the process ends before all its records are stored; a journal on disk keeps them for the next"
            )
    deadline = time.monotonic() + EXIT_TIMEOUT_SECONDS
    while any(owner == pid for owner, _ in list(_closing)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


_known: WeakSet[Ending] = WeakSet()
_closing: dict[tuple[int, int], Ending] = {}
"""What is being closed, by the process that does it."""
_left: dict[tuple[int, int], Ending] = {}
"""What no thread could be started for."""
atexit.register(close_all)
