"""The process and its threads: native ones also under gevent, what may end a request, what each process makes.

Under gevent's monkey patching a thread is a greenlet: the writer as one would stall all others at each call of a
database, and gevent's locks are not for sharing with a real thread.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from flask_chest.errors import ConfigurationError

if TYPE_CHECKING:
    from threading import Lock, RLock

T = TypeVar("T")

_ENDS = (KeyboardInterrupt, SystemExit, GeneratorExit)
_SCHEDULERS = frozenset({"asyncio", "concurrent", "eventlet", "gevent", "greenlet", "trio"})
"""Packages that throw exceptions of theirs, time-outs and cancellations, into whatever code runs."""


def native_lock() -> Lock:
    """Make a lock that holds up its thread, and whoever shares that thread: hold it for microseconds."""
    return cast("Callable[[], Lock]", _original("allocate_lock"))()


def native_rlock() -> RLock:
    """Make such a lock that its thread may take again."""
    return cast("Callable[[], RLock]", _original("RLock"))()


def start_native_thread(run: Callable[[], None]) -> None:
    """Run *run* in a daemon thread; ``RuntimeError`` where no more threads can be started."""
    start = cast("Callable[[Callable[[], None], tuple[()]], int]", _original("start_new_thread"))
    with signals_blocked():
        start(run if "gevent" not in sys.modules else partial(_run_beside, sys.modules["gevent"], run), ())


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Start threads in this block: they inherit its mask, and no signal to the process is handled in them.

    A server in C may end the process from its handler, as uWSGI does. In any thread but the main one that waits
    for the main one, which knows nothing of it, for ever.
    """
    if sys.platform == "win32":
        yield
    else:
        crashes = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}  # of one thread
        former = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - crashes)
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _run_beside(gevent: ModuleType, run: Callable[[], None]) -> None:
    try:
        run()
    finally:
        # What waits by gevent in a thread makes a hub there, with descriptors that nobody else closes.
        gevent.get_hub().destroy()


def _original(name: str) -> object:
    monkey = sys.modules.get("gevent.monkey")
    return getattr(_thread, name) if monkey is None else monkey.get_original("_thread", name)


def threads_run() -> bool:
    """Return whether threads run here: under uWSGI without ``--enable-threads`` they start and stand still."""
    uwsgi = sys.modules.get("uwsgi")
    options = cast("Mapping[str, object]", getattr(uwsgi, "opt", {}))
    return uwsgi is None or any(options.get(name) for name in ("enable-threads", "threads"))


def hub_id() -> object:
    """Return an id of the threads with which this one may share a socket: under gevent, its hub's alone."""
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


class PerProcess(Generic[T]):
    """A value for each process, made when it is first asked for there.

    What a process holds, connections above all, does not cross a fork: the child makes its own, and the parent's
    stays here unused. It is not closed, which would end the parent's sessions, and never finalised, which might
    close it. The process id is compared at each look, since uWSGI calls no hooks after its forks. There is no
    lock, as a child may be forked while another thread holds it: of two threads that come first at the same time
    both may call *make*, and both get the value of one of them.
    """

    __slots__ = ("_make", "_values")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[int, T] = {}

    def get(self) -> T:
        """Return the value of this process; make it if there is none."""
        pid = os.getpid()
        try:
            return self._values[pid]
        except KeyError:
            pass  # what is made is made outside: its errors would show this one as their context
        return self._values.setdefault(pid, self._make())

    def peek(self) -> T | None:
        """Return the value of this process, or ``None`` if none was made."""
        return self._values.get(os.getpid())

    def set(self, value: T) -> None:
        """Put *value* in the place of this process's."""
        self._values[os.getpid()] = value

    def pop(self) -> T | None:
        """Take the value of this process out and return it, or ``None``; the next `get` makes another."""
        return self._values.pop(os.getpid(), None)

    def inherited(self) -> list[T]:
        """Return the values of the processes that this one was forked from."""
        here = os.getpid()
        return [value for pid, value in list(self._values.items()) if pid != here]


def is_made(given: object, method: str) -> bool:
    """Return whether *given* is an object with *method*; a class with it is a callable that makes one."""
    return not isinstance(given, type) and hasattr(given, method)


def maker_of(
    given: T | Callable[[], T], method: str, *, setting: str, kind: str, hint: str = ""
) -> Callable[[], T]:
    """Return a callable that returns *given*, an object with *method*, or *given* itself if it makes one.

    Raises `ConfigurationError` for anything else: *setting* must be a *kind*, and *hint* tells the way out.
    """
    if is_made(given, method):
        made = cast("T", given)
        return lambda: made
    if callable(given):
        return given  # pyright: ignore[reportReturnType] - it cannot tell that a callable T is not meant
    raise ConfigurationError(
        f"{setting} must be {kind} or a callable that makes one, got a {type(given).__name__}{hint}"
    )
