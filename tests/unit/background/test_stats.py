"""What is counted, and how little is logged about it."""

from __future__ import annotations

import logging
import threading
import time

import msgspec
import pytest

from flask_chest.background.stats import LOG_INTERVAL_SECONDS, ChestStats, Tally
from flask_chest.errors import RecordRefused, StoreUnavailable, describe

logger = logging.getLogger("flask_chest.tests")


@pytest.fixture
def tally() -> Tally:
    return Tally(logger)


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(time, "monotonic", moved)
    return moved


def test_nothing_has_happened_at_first(tally: Tally) -> None:
    assert tally.snapshot() == ChestStats()


def test_counts_are_kept_by_reason(tally: Tally) -> None:
    for _ in range(3):
        tally.captured()
    tally.stored()
    tally.lost("full", StoreUnavailable("x"), count=2)
    tally.lost("full", StoreUnavailable("x"))
    tally.lost("refused", RecordRefused("x"))
    tally.problem("generator", ValueError())
    tally.problem("generator")
    assert tally.snapshot(waiting=5) == ChestStats(
        captured=3, stored=1, waiting=5, lost={"full": 3, "refused": 1}, faults={"generator": 2}
    )


def test_snapshot_stands_still_and_cannot_be_changed(tally: Tally) -> None:
    tally.lost("full", StoreUnavailable("x"))
    before = tally.snapshot()
    tally.lost("full", StoreUnavailable("x"))
    assert before.lost == {"full": 1}
    with pytest.raises(TypeError, match="item assignment"):
        before.lost["full"] = 9  # type: ignore[index]  # what the test is about
    with pytest.raises(AttributeError):
        before.captured = 9  # type: ignore[misc]  # what the test is about
    assert msgspec.structs.asdict(before)["captured"] == 0


def test_counts_are_right_over_threads(tally: Tally) -> None:
    ready = threading.Barrier(8)

    def count() -> None:
        ready.wait(timeout=10)
        for _ in range(500):
            tally.captured()
            tally.problem("mishap")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert tally.snapshot() == ChestStats(captured=4000, faults={"mishap": 4000})


def test_loss_is_an_error_and_a_mishap_a_warning(tally: Tally, caplog: pytest.LogCaptureFixture) -> None:
    tally.lost("the store was away", StoreUnavailable("the database is locked"), count=3)
    tally.problem("the generator raised", ValueError("x"))
    tally.problem("a value raised")
    assert [(entry.levelno, entry.getMessage()) for entry in caplog.records] == [
        (logging.ERROR, "the store was away (3 records lost so far): the database is locked"),
        (logging.WARNING, "the generator raised (1 times so far): builtins.ValueError"),
        (logging.WARNING, "a value raised (1 times so far)"),
    ]


def test_reason_is_logged_once_a_minute_with_its_total(
    tally: Tally, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for seconds in (0, 1, LOG_INTERVAL_SECONDS - 0.5):
        clock.now = 1_000 + seconds
        tally.lost("full", StoreUnavailable("x"))
    assert caplog.messages == ["full (1 records lost so far): x"]
    clock.now = 1_000 + LOG_INTERVAL_SECONDS
    for _ in range(100):
        tally.lost("full", StoreUnavailable("x"))
    assert caplog.messages == ["full (1 records lost so far): x", "full (4 records lost so far): x"]
    assert tally.snapshot().lost == {"full": 103}


def test_first_mishap_is_logged_even_right_after_the_machine_started(
    tally: Tally, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    clock.now = 0.0
    tally.problem("generator")
    assert len(caplog.records) == 1


def test_each_reason_has_its_own_minute(tally: Tally, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    tally.problem("one")
    tally.problem("two")
    tally.problem("one")
    assert [entry.getMessage().partition(" ")[0] for entry in caplog.records] == ["one", "two"]


class DerivedByAnApp(StoreUnavailable):
    """Somebody else's, so its text is not ours to judge."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("password=hunter2"),
        ConnectionError("postgresql://me:hunter2@db"),
        DerivedByAnApp("hunter2"),
        type("hunter", (Exception,), {"__module__": "flask_chest_of_mine"})("hunter2"),
        KeyboardInterrupt("hunter2"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_text_of_somebody_elses_exception_is_never_logged(
    tally: Tally, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error.__cause__ = ValueError("hunter2")
    tally.lost("lost", error)
    tally.problem("fault", error)
    assert len(caplog.records) == 2
    assert "hunter2" not in caplog.text
    assert f"{type(error).__module__}.{type(error).__qualname__}" in caplog.text
    assert all(entry.exc_info is None for entry in caplog.records)


def test_cause_of_our_own_exception_is_not_told() -> None:
    error = StoreUnavailable("PostgreSQL: the batch was not written")
    error.__cause__ = ConnectionError("hunter2")
    assert describe(error) == "PostgreSQL: the batch was not written"
    assert describe(None) == ""
