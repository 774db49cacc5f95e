"""A chest on one app in one process: what it keeps, counts, forgets at a fork and survives a close."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence

import pytest

from flask_chest.binding import Binding
from flask_chest.errors import ContractError, RecordRefused, StoreUnavailable
from flask_chest.protocols import Store
from flask_chest.record import Record
from flask_chest.settings import Settings
from flask_chest.stats import ChestStats
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing.records import make_record

LOST = "a record was not taken by the store"


def make_binding(make_store: Callable[[], Store], *, strict: bool = False) -> Binding:
    settings = Settings(uri=None, instance="web", strict=strict, scheduler="off", tracked_vars=None)
    return Binding(chest=object(), settings=settings, make_store=make_store, request_id_generator=None)


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
    binding = make_binding(factory)
    assert (factory.made, binding.stats()) == ([], ChestStats())
    records = [make_record(), make_record()]
    for record in records:
        binding.keep(record)
    (store,) = factory.made
    assert store.opened == 1
    assert binding.stats() == ChestStats(captured=2, stored=2)
    assert store.status().records == 2


def test_looking_at_the_store_does_not_open_it() -> None:
    factory = Factory()
    binding = make_binding(factory)
    assert binding.store is binding.store
    assert [store.opened for store in factory.made] == [0]


def test_many_threads_make_one_store() -> None:
    factory = Factory()
    binding = make_binding(factory)
    ready = threading.Barrier(8)

    def keep() -> None:
        ready.wait(timeout=10)
        binding.keep(make_record())

    threads = [threading.Thread(target=keep) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert [store.opened for store in factory.made] == [1]
    assert binding.stats() == ChestStats(captured=8, stored=8)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (AsyncStore, "AsyncStore.write returned coroutine, must be None (and not async)"),
        (AnsweringStore, "AnsweringStore.write returned int, must be None (and not async)"),
    ],
)
def test_write_that_returns_something_counts_as_lost(
    kind: Callable[[], CountedStore], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    binding = make_binding(Factory(kind))
    binding.keep(make_record())
    assert binding.stats() == ChestStats(captured=1, lost={LOST: 1})
    assert said in caplog.text
    with pytest.raises(ContractError, match="must be None"):
        make_binding(Factory(kind), strict=True).keep(make_record())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StoreUnavailable("the disk is full"), "the disk is full"),
        (RecordRefused("too wide"), "too wide"),
        (RuntimeError("hunter2"), "builtins.RuntimeError"),
    ],
    ids=["away", "refused", "bug"],
)
def test_record_that_is_not_taken_is_counted_and_logged_and_nothing_is_raised(
    error: Exception, said: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FailingStore, "error", error)
    binding = make_binding(Factory(FailingStore))
    for _ in range(3):
        binding.keep(make_record())
    assert binding.stats() == ChestStats(captured=3, lost={LOST: 3})
    assert [(entry.levelno, entry.getMessage()) for entry in caplog.records] == [
        (logging.ERROR, f"{LOST} (1 records lost so far): {said}")
    ]


def test_strict_raises_what_the_store_raised_and_counts_it() -> None:
    binding = make_binding(Factory(FailingStore), strict=True)
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        binding.keep(make_record())
    assert binding.stats() == ChestStats(captured=1, lost={LOST: 1})


def test_store_that_cannot_be_made_is_tried_again() -> None:
    stores: list[Store] = []

    def make() -> Store:
        if not stores:
            stores.append(MemoryStore())
            raise StoreUnavailable("not yet")
        return stores[0]

    binding = make_binding(make)
    binding.keep(make_record())
    binding.keep(make_record())
    assert binding.stats() == ChestStats(captured=2, stored=1, lost={LOST: 1})


def test_mishap_is_counted_and_raised_only_under_strict() -> None:
    binding = make_binding(MemoryStore)
    binding.mishap("a value raised", ValueError("x"))
    assert binding.stats() == ChestStats(faults={"a value raised": 1})
    with pytest.raises(ValueError, match="x"):
        make_binding(MemoryStore, strict=True).mishap("a value raised", ValueError("x"))


def test_binding_is_usable_again_after_close() -> None:
    factory = Factory()
    binding = make_binding(factory)
    binding.keep(make_record())
    assert binding.close(timeout=5)
    assert binding.close(timeout=5)
    binding.keep(make_record())
    assert [(store.opened, store.closed) for store in factory.made] == [(1, 1), (1, 0)]
    assert binding.stats() == ChestStats(captured=2, stored=2)


def test_closing_what_was_never_used_makes_nothing() -> None:
    factory = Factory()
    assert make_binding(factory).close(timeout=5)
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

    binding = make_binding(Factory(StuckStore))
    binding.keep(make_record())
    assert binding.close(timeout=5)
    assert binding.stats().faults == {"the store did not close": 1}
    assert said in caplog.text
    assert "hunter2" not in caplog.text


def test_sink_without_a_queue_has_nothing_to_flush() -> None:
    binding = make_binding(MemoryStore)
    assert binding.flush(0)
    binding.keep(make_record())
    assert binding.flush(0)
    assert binding.stats().waiting == 0


class QueueStore(CountedStore):
    """Keeps later than it takes."""

    timeouts: list[float]

    def __init__(self) -> None:
        super().__init__()
        self.timeouts = []

    def flush(self, timeout: float, /) -> bool:
        self.timeouts.append(timeout)
        return False

    def waiting(self) -> int:
        return 7


def test_queue_is_asked_what_waits_and_flushed_at_close() -> None:
    factory = Factory(QueueStore)
    binding = make_binding(factory)
    binding.keep(make_record())
    assert binding.stats().waiting == 7
    assert not binding.flush(2.5)
    assert not binding.close(timeout=1.5)
    (store,) = factory.made
    assert isinstance(store, QueueStore)
    assert store.timeouts == [2.5, 1.5]
    assert store.closed == 1


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
    binding = make_binding(factory)
    binding.keep(make_record())
    instance = binding.instance

    def starts_afresh() -> bool:
        binding.keep(make_record())
        parents, own = factory.made
        return (
            binding.stats() == ChestStats(captured=1, stored=1)
            and binding.instance == f"web:{os.getpid()}" != instance
            and (parents.closed, own.opened) == (0, 1)
        )

    assert in_child(lambda: binding.stats() == ChestStats()) == 0
    assert in_child(starts_afresh) == 0
    assert binding.stats() == ChestStats(captured=1, stored=1)
    assert binding.instance == instance == f"web:{os.getpid()}"
    assert len(factory.made) == 1


def test_forked_child_is_not_held_up_by_a_lock_of_its_parent() -> None:
    entered, leave = threading.Event(), threading.Event()

    class SlowStore(CountedStore):
        def open(self) -> None:
            if not entered.is_set():
                entered.set()
                leave.wait(timeout=30)
            super().open()

    binding = make_binding(Factory(SlowStore))
    opening = threading.Thread(target=binding.keep, args=(make_record(),))
    opening.start()
    try:
        assert entered.wait(timeout=10)

        def keeps() -> bool:
            binding.keep(make_record())
            return binding.stats().stored == 1

        assert in_child(keeps) == 0
    finally:
        leave.set()
        opening.join(timeout=10)


def test_forked_child_does_not_close_the_store_of_its_parent() -> None:
    factory = Factory()
    binding = make_binding(factory)
    binding.keep(make_record())
    assert in_child(lambda: binding.close(timeout=5) and factory.made[0].closed == 0) == 0
    assert factory.made[0].closed == 0
