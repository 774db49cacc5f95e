"""Statements that a time limit or a signal can end."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from flask_chest._process import native_lock, start_native_thread, threads_run
from flask_chest.stores._time_limit import TimeLimit

T = TypeVar("T")

LOOK_SECONDS = 1.0
"""Seconds after which a waiting thread looks for a signal where nothing wakes it up for one, as on Windows."""
AGAIN_SECONDS = 0.01
"""Seconds after which a statement is interrupted again: one that has not begun takes no notice."""


def run_interruptibly(connection: sqlite3.Connection, run: Callable[[], T], limit: TimeLimit) -> T:
    """Return what *run* returns, which runs a statement on *connection*, and in a thread of its own.

    The caller waits meanwhile. When *limit* is over, or it is thrown an exception at, as by Ctrl-C, it interrupts
    the statement, and returns once that has ended. In SQLite itself the main thread would learn of a signal when
    the statement ends. With a timer in the thread, the time at which it fires would have to be compared with the
    end of the statement, and a progress handler makes statements up to eight times slower.
    Where no thread can be started, the statement runs here and takes its time.
    """
    limit.seconds()  # raises when it is over already
    work = _Work(run)
    try:
        started = _started(work)
        while started and not work.has_ended:
            left = limit.seconds()
            work.wait(LOOK_SECONDS if left is None else min(left, LOOK_SECONDS))
    except BaseException:  # which a signal may throw as soon as the thread is there
        while not work.is_over():
            with suppress(BaseException):  # a second one does not leave the connection in use
                connection.interrupt()
                work.wait(AGAIN_SECONDS)
        raise
    return work.result() if started else run()


def _started(work: Callable[[], None]) -> bool:
    if not threads_run():
        return False
    try:
        start_native_thread(work)
    except RuntimeError:
        return False
    return True


class _Work(Generic[T]):
    """What a thread runs, and what came of it."""

    def __init__(self, run: Callable[[], T]) -> None:
        self._run = run
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._running = native_lock()
        self._running.acquire()
        self._begun = native_lock()
        self.has_ended = False

    def __call__(self) -> None:
        if not self._begun.acquire(blocking=False):
            return
        try:
            self._results.append(self._run())
        except BaseException as exc:  # noqa: BLE001 - for the thread that waits
            self._error = exc
        finally:
            self.has_ended = True
            self._running.release()

    def is_over(self) -> bool:
        """Return whether it has ended, or never begins: what has not begun by now does not."""
        return self.has_ended or self._begun.acquire(blocking=False)

    def wait(self, seconds: float) -> None:
        """Wait until it has ended, but no longer than *seconds*."""
        if self._running.acquire(timeout=seconds):
            self._running.release()

    def result(self) -> T:
        """Return what came of it, or raise its exception."""
        if self._error is None:
            return self._results[0]
        try:
            raise self._error
        finally:
            self._error = None  # whose traceback leads back here
