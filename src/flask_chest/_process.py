"""Threads and locks of the operating system, also where gevent has put its own in their place.

Under gevent's monkey patching a thread is a greenlet: the writer as one would stall all others at each call of a
database, and gevent's locks are not for sharing with a real thread.
"""

from __future__ import annotations

import _thread
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from threading import Lock, RLock

_ENDS = (KeyboardInterrupt, SystemExit, GeneratorExit)
_SCHEDULERS = frozenset({"asyncio", "concurrent", "eventlet", "gevent", "greenlet", "trio"})
"""Those throw exceptions of theirs, time-outs and cancellations, into whatever code runs."""


def native_lock() -> Lock:
    """Make a lock that holds up its thread, and whoever shares that thread: hold it for microseconds."""
    return cast("Callable[[], Lock]", _original("allocate_lock"))()


def native_rlock() -> RLock:
    """Make such a lock that its thread may take again."""
    return cast("Callable[[], RLock]", _original("RLock"))()


def start_native_thread(run: Callable[[], None]) -> None:
    """Run *run* in a daemon thread; ``RuntimeError`` where no more threads can be started."""
    start = cast("Callable[[Callable[[], None], tuple[()]], int]", _original("start_new_thread"))
    start(run if "gevent" not in sys.modules else partial(_run_beside, sys.modules["gevent"], run), ())


def _run_beside(gevent: object, run: Callable[[], None]) -> None:
    try:
        run()
    finally:
        # What waits by gevent in a thread makes a hub there, with descriptors that nobody else closes.
        cast("_Gevent", gevent).get_hub().destroy()


class _Hub(Protocol):
    def destroy(self) -> None: ...


class _Gevent(Protocol):
    def get_hub(self) -> _Hub: ...


def _original(name: str) -> object:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return getattr(_thread, name)
    get_original = cast("Callable[[str, str], object]", monkey.get_original)
    return get_original("_thread", name)


def threads_run() -> bool:
    """Tell whether threads run here: under uWSGI without ``--enable-threads`` they start, and stand still."""
    uwsgi = sys.modules.get("uwsgi")
    options = cast("Mapping[str, object]", getattr(uwsgi, "opt", {}))
    return uwsgi is None or any(options.get(name) for name in ("enable-threads", "threads"))


def kin_of_thread() -> object:
    """Name the threads with which this one may share a socket: under gevent those of its own hub alone."""
    if "gevent.monkey" not in sys.modules:
        return None
    return cast("Callable[[], int]", _original("get_ident"))()


def pass_interruption(error: BaseException) -> None:
    """Raise *error* again if it ends the request or the process.

    Any other that is no ``Exception`` comes from the code that is guarded: that of a panic in an extension
    module, or of a class that somebody derived from the wrong base.
    """
    if isinstance(error, Exception):
        return
    if isinstance(error, _ENDS) or any(
        str(base.__module__).partition(".")[0] in _SCHEDULERS for base in type(error).__mro__
    ):
        raise error
