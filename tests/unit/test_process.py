"""What is kept for each process, and what becomes of it at a fork."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing import get_context
from queue import SimpleQueue
from typing import ClassVar

import pytest

from flask_chest._process import PerProcess, signals_blocked, start_native_thread


class Connection:
    """Closes itself when it is finalised, as a driver's does."""

    closed: ClassVar[list[int]] = []

    def __del__(self) -> None:
        self.closed.append(os.getpid())


def in_forked_child(check: Callable[[], bool]) -> bool:
    """Return what *check* returns in a child that was forked."""
    context = get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=lambda: answers.put(check()))
    child.start()
    child.join(20)
    return bool(answers.get())


@pytest.fixture
def connections() -> PerProcess[Connection]:
    Connection.closed.clear()
    return PerProcess(Connection)


def test_value_is_made_once_in_a_process(connections: PerProcess[Connection]) -> None:
    assert connections.peek() is None
    assert connections.get() is connections.get()
    assert connections.peek() is connections.get()


def test_next_value_is_made_after_one_was_taken_out(connections: PerProcess[Connection]) -> None:
    first = connections.get()
    assert connections.pop() is first
    assert connections.pop() is None
    assert connections.get() is not first


def test_error_of_what_makes_the_value_has_no_other_as_its_context() -> None:
    def refuse() -> object:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as raised:
        PerProcess(refuse).get()
    assert raised.value.__context__ is None


def test_value_that_was_set_is_given() -> None:
    numbers = PerProcess(int)
    numbers.set(7)
    assert numbers.get() == 7


def test_forked_child_makes_its_own_and_leaves_its_parents_alone(connections: PerProcess[Connection]) -> None:
    parents = connections.get()

    def check() -> bool:
        nothing_yet = connections.peek() is None and connections.pop() is None
        own = connections.get()
        return nothing_yet and own is not parents and connections.inherited() == [parents]

    assert in_forked_child(check)
    assert connections.get() is parents
    assert connections.inherited() == []


def test_parents_value_is_never_finalised_in_a_child() -> None:
    connections = PerProcess(Connection)
    connections.get()
    Connection.closed.clear()

    def check() -> bool:
        connections.get()
        connections.pop()
        return Connection.closed == [os.getpid()]  # its own alone

    assert in_forked_child(check)


def test_threads_that_come_first_together_get_one_value() -> None:
    both_make = threading.Barrier(2, timeout=20)

    def make() -> object:
        both_make.wait()
        return object()

    values = PerProcess(make)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(values.get())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found[0] is found[1]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no masks of signals")
def test_no_signal_to_the_process_is_handled_in_a_thread_of_the_package() -> None:
    masks: SimpleQueue[set[int]] = SimpleQueue()
    start_native_thread(lambda: masks.put({*signal.pthread_sigmask(signal.SIG_BLOCK, ())}))
    blocked = masks.get(timeout=20)
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1} <= blocked
    assert signal.SIGSEGV not in blocked, "faulthandler could not write where it crashed"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no masks of signals")
def test_thread_that_starts_others_handles_the_signals_it_did_before() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    start_native_thread(lambda: None)
    with pytest.raises(RuntimeError, match="no thread"), signals_blocked():
        raise RuntimeError("no thread")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
