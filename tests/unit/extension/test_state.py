"""A chest on one app in one process: what it keeps, counts, forgets at a fork and survives a close."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from flask import Flask

from flask_chest.background.stats import ChestStats
from flask_chest.errors import ContractError, JournalClosed, StoreUnavailable
from flask_chest.extension.chest import FlaskChest
from flask_chest.extension.journal_place import JournalPlace
from flask_chest.extension.settings import Settings
from flask_chest.extension.state import ChestState
from flask_chest.protocols import Store
from flask_chest.record import Record
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing.records import make_record

LOST = "a record was not taken by the store"
WAITS = "the store takes nothing; records wait in the journal"
PATIENCE = 20.0


def make_state(make_store: Callable[[], Store], **given: object) -> ChestState:
    """Make one as in production but for its journal, which is in memory unless *given* says where."""
    settings = Settings.load(
        prefix="CHEST",
        given={"instance": "web", "scheduler": "off", "journal_dir": "memory:"} | given,
        config={},
        environ={},
    )
    place = JournalPlace(root=Path("/nowhere"), default=Path("/nowhere"), chest="chest", app="shop")
    state = ChestState(
        chest=FlaskChest(), app=Flask("shop"), settings=settings, make_store=make_store, place=place
    )
    _made.append(state)
    return state


_made: list[ChestState] = []


@pytest.fixture(autouse=True)
def closed_states() -> Iterator[None]:
    """Let no writer go on in other tests."""
    yield
    while _made:
        state = _made.pop()
        with suppress(Exception):  # some make no store
            state.here.store.__class__ = CountedStore  # whatever it was, it takes what waits
        state.close(PATIENCE)


class CountedStore(MemoryStore):
    """Counts how often it is opened and closed."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0
        self.closed = 0
        self.thread: int | None = None

    def open(self) -> None:
        self.opened += 1
        super().open()

    def close(self) -> None:
        self.closed += 1
        super().close()


class Factory:
    """Makes stores and remembers them."""

    def __init__(self, kind: Callable[[], CountedStore] = CountedStore) -> None:
        self.kind = kind
        self.made: list[CountedStore] = []

    def __call__(self) -> Store:
        self.made.append(self.kind())
        return self.made[-1]


class FailingStore(CountedStore):
    """Takes no record."""

    error: Exception = StoreUnavailable("the disk is full")

    def write(self, records: Sequence[Record], /) -> None:
        raise self.error


class AsyncStore(CountedStore):
    """What ``async def`` by mistake makes of a store."""

    async def write(self, records: Sequence[Record], /) -> None:  # type: ignore[override]  # the mistake
        super().write(records)


class AnsweringStore(CountedStore):
    """Returns what nobody asked for."""

    def write(self, records: Sequence[Record], /) -> int:  # type: ignore[override]  # the mistake
        super().write(records)
        return len(records)


def test_store_is_made_and_opened_with_the_first_record_and_once() -> None:
    factory = Factory()
    state = make_state(factory)
    assert (factory.made, state.here.stats()) == ([], ChestStats())
    records = [make_record(), make_record()]
    for record in records:
        state.here.keep(record)
    assert state.here.flush(PATIENCE)
    (store,) = factory.made
    assert store.opened == 1
    assert state.here.stats() == ChestStats(captured=2, stored=2)
    assert store.status().records == 2


def test_looking_at_the_store_does_not_open_it() -> None:
    factory = Factory()
    state = make_state(factory)
    assert state.here.store is state.here.store
    assert [store.opened for store in factory.made] == [0]


def test_many_threads_make_one_store() -> None:
    factory = Factory()
    state = make_state(factory)
    ready = threading.Barrier(8)

    def keep() -> None:
        ready.wait(timeout=10)
        state.here.keep(make_record())

    threads = [threading.Thread(target=keep) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert state.here.flush(PATIENCE)
    assert [store.opened for store in factory.made] == [1]
    assert state.here.stats() == ChestStats(captured=8, stored=8)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (AsyncStore, "AsyncStore.write returned coroutine, must be None (and not async)"),
        (AnsweringStore, "AnsweringStore.write returned int, must be None (and not async)"),
    ],
)
def test_write_that_returns_something_counts_as_not_stored(
    kind: Callable[[], CountedStore], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = make_state(Factory(kind))
    state.here.keep(make_record())
    assert not state.here.flush(0.2)
    stats = state.here.stats()
    assert (stats.captured, stats.stored, stats.waiting, stats.lost) == (1, 0, 1, {})
    assert said in caplog.text
    with pytest.raises(ContractError, match="must be None"):
        make_state(Factory(kind), strict=True).here.keep(make_record())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StoreUnavailable("the disk is full"), "the disk is full"),
        (RuntimeError("hunter2"), "builtins.RuntimeError"),
    ],
    ids=["away", "bug"],
)
def test_records_wait_while_the_store_takes_none_and_it_is_said_once(
    error: Exception, said: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FailingStore, "error", error)
    state = make_state(Factory(FailingStore))
    for _ in range(3):
        state.here.keep(make_record())
    assert not state.here.flush(0.3)
    stats = state.here.stats()
    assert (stats.captured, stats.stored, stats.waiting, stats.lost) == (3, 0, 3, {})
    assert stats.faults[WAITS] >= 1
    assert [(entry.levelno, entry.getMessage()) for entry in caplog.records] == [
        (logging.WARNING, f"{WAITS} (1 times so far): {said}")
    ]


def test_journal_that_is_full_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    state = make_state(Factory(FailingStore), journal_bytes=64 * 1024, writer="off")
    for _ in range(20):
        state.here.keep(make_record(variables={"text": "x" * 8000}))
    stats = state.here.stats()
    assert stats.captured == 20
    assert stats.lost == {"the journal is full": 20 - stats.waiting}
    assert 0 < stats.waiting < 10
    (entry,) = caplog.records
    assert entry.levelno == logging.ERROR
    assert "journal_dir" in entry.getMessage()


def test_strict_raises_what_the_store_raised_and_counts_it() -> None:
    state = make_state(Factory(FailingStore), strict=True)
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        state.here.keep(make_record())
    assert state.here.stats() == ChestStats(captured=1, lost={LOST: 1})


def test_strict_writes_in_the_request() -> None:
    writing: list[int] = []

    class ObservedStore(CountedStore):
        def write(self, records: Sequence[Record], /) -> None:
            writing.append(threading.get_ident())
            super().write(records)

    state = make_state(Factory(ObservedStore), strict=True)
    state.here.keep(make_record())
    assert writing == [threading.get_ident()]
    assert state.here.stats() == ChestStats(captured=1, stored=1)
    queued = make_state(Factory(ObservedStore))
    queued.here.keep(make_record())
    assert queued.here.flush(PATIENCE)
    assert len(writing) == 2
    assert writing[1] != threading.get_ident()


@pytest.mark.slow
def test_store_that_cannot_be_opened_is_tried_again() -> None:
    attempts: list[int] = []

    class LateStore(CountedStore):
        def open(self) -> None:
            attempts.append(1)
            if len(attempts) == 1:
                raise StoreUnavailable("not yet")
            super().open()

    state = make_state(Factory(LateStore))
    state.here.keep(make_record())
    assert state.here.flush(PATIENCE)
    assert len(attempts) == 2
    stats = state.here.stats()
    assert (stats.captured, stats.stored, stats.lost) == (1, 1, {})


def test_record_that_comes_while_the_intake_is_closed_is_kept() -> None:
    state = make_state(Factory())
    state.here.keep(make_record())
    intake = state.here.intake
    assert intake is not None
    assert intake.close(PATIENCE)
    with pytest.raises(JournalClosed):
        intake.take(make_record())
    state.here.keep(make_record())
    assert state.here.flush(PATIENCE)
    assert state.here.stats() == ChestStats(captured=2, stored=2)


def test_refused_record_is_set_aside_in_the_journals_folder(tmp_path: Path) -> None:
    class WorldlyStore(CountedStore):
        @property
        def address(self) -> str:  # type: ignore[override]  # one that outlives the process
            return "worldly:"

    state = make_state(Factory(WorldlyStore), journal_dir=str(tmp_path))
    state.here.keep(make_record())
    state.here.keep(make_record(duration_ns=1 << 63))
    assert state.here.flush(PATIENCE)
    assert state.here.stats().set_aside == 1
    (line,) = next(tmp_path.glob("chest-*/refused")).read_text().splitlines()
    assert json.loads(line)["reason"] == "one of its numbers is beyond 64 bits"


def test_mishap_is_counted_and_raised_only_under_strict() -> None:
    state = make_state(MemoryStore)
    state.here.problem("a value raised", ValueError("x"))
    assert state.here.stats() == ChestStats(faults={"a value raised": 1})
    with pytest.raises(ValueError, match="x"):
        make_state(MemoryStore, strict=True).here.problem("a value raised", ValueError("x"))


def test_binding_is_usable_again_after_close() -> None:
    factory = Factory()
    state = make_state(factory)
    state.here.keep(make_record())
    assert state.close(timeout=5)
    assert state.close(timeout=5)
    state.here.keep(make_record())
    assert state.here.flush(PATIENCE)
    assert [(store.opened, store.closed) for store in factory.made] == [(1, 1), (1, 0)]
    assert state.here.stats() == ChestStats(captured=2, stored=2)


def test_closing_what_was_never_used_makes_nothing() -> None:
    factory = Factory()
    assert make_state(factory).close(timeout=5)
    assert factory.made == []


@pytest.mark.parametrize(
    ("error", "said"),
    [(StoreUnavailable("still writing"), "still writing"), (OSError("hunter2"), "builtins.OSError")],
    ids=["ours", "foreign"],
)
def test_store_that_does_not_close_is_counted(
    error: Exception, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    class StuckStore(CountedStore):
        def close(self) -> None:
            raise error

    state = make_state(Factory(StuckStore))
    state.here.keep(make_record())
    assert state.close(timeout=5)
    assert state.here.stats().faults == {"the store did not close": 1}
    assert said in caplog.text
    assert "hunter2" not in caplog.text


class HangingStore(CountedStore):
    """Takes records when it is let to."""

    let = threading.Event()

    def write(self, records: Sequence[Record], /) -> None:
        self.let.wait(PATIENCE)
        super().write(records)


def test_flush_and_close_return_in_time_while_the_store_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HangingStore, "let", threading.Event())
    state = make_state(Factory(HangingStore))
    assert state.here.flush(0)
    state.here.keep(make_record())
    assert not state.here.flush(0.05)
    assert state.here.stats().waiting == 1
    assert not state.close(timeout=0.05)
    HangingStore.let.set()


def in_child(check: Callable[[], bool]) -> int:
    """Run *check* in a forked child: 0 when it holds, 1 when not, 2 when it raised."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if check() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_forked_child_counts_from_zero_and_makes_its_own_store() -> None:
    factory = Factory()
    state = make_state(factory)
    state.here.keep(make_record())
    assert state.here.flush(PATIENCE)
    instance = state.here.instance

    def starts_afresh() -> bool:
        state.here.keep(make_record())
        state.here.flush(PATIENCE)
        parents, own = factory.made
        return (
            state.here.stats() == ChestStats(captured=1, stored=1)
            and state.here.instance == f"web:{os.getpid()}" != instance
            and (parents.closed, own.opened) == (0, 1)
        )

    assert in_child(lambda: state.here.stats() == ChestStats()) == 0
    assert in_child(starts_afresh) == 0
    assert state.here.stats() == ChestStats(captured=1, stored=1)
    assert state.here.instance == instance == f"web:{os.getpid()}"
    assert len(factory.made) == 1


def test_forked_child_is_not_held_up_by_a_lock_of_its_parent() -> None:
    entered, leave = threading.Event(), threading.Event()

    class SlowStore(CountedStore):
        def open(self) -> None:
            if not entered.is_set():
                entered.set()
                leave.wait(timeout=30)
            super().open()

    state = make_state(Factory(SlowStore))
    opening = threading.Thread(target=state.here.keep, args=(make_record(),))
    opening.start()
    try:
        assert entered.wait(timeout=10)

        def keeps() -> bool:
            state.here.keep(make_record())
            return state.here.flush(PATIENCE) and state.here.stats().stored == 1

        assert in_child(keeps) == 0
    finally:
        leave.set()
        opening.join(timeout=10)


def test_forked_child_does_not_close_the_store_of_its_parent() -> None:
    factory = Factory()
    state = make_state(factory)
    state.here.keep(make_record())
    assert state.here.flush(PATIENCE)
    assert in_child(lambda: state.close(timeout=5) and factory.made[0].closed == 0) == 0
    assert factory.made[0].closed == 0
