"""What a probe learns: whether records are lost, and nothing else."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest
from flask import Flask

from flask_chest import FlaskChest, FlaskChestSQLite, Health, Record, StoreUnavailable
from flask_chest.background.writer import JournalOnly, Writer
from flask_chest.extension.settings import MIN_JOURNAL_BYTES
from flask_chest.health import health_blueprint
from flask_chest.journal._slots import left_from, take_lowest
from flask_chest.journal.append_only import AppendOnlyJournal
from flask_chest.journal.file import FileJournal
from flask_chest.journal.losses import DAMAGED, JOURNAL_FULL, NOT_CAPTURED, OTHERS, Losses, losses_in
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import make_record


class AwayStore(SQLiteStore):
    """Is away until it is told to be back."""

    away = True

    def open(self) -> None:
        if self.away:
            raise StoreUnavailable("it is away")
        super().open()

    def write(self, records: Sequence[Record], /) -> None:
        if self.away:
            raise StoreUnavailable("it is away")
        super().write(records)


@pytest.fixture
def store(tmp_path: Path) -> AwayStore:
    return AwayStore(tmp_path / "db")


@pytest.fixture
def chest(app: Flask, store: AwayStore, tmp_path: Path) -> Iterator[FlaskChest]:
    app.add_url_rule("/", "index", lambda: "hi")
    with closing(
        FlaskChest(
            app, store=store, journal_dir=tmp_path / "j", journal_bytes=MIN_JOURNAL_BYTES, tracked_vars=["x"]
        )
    ) as chest:
        yield chest


def probe(app: Flask) -> tuple[int, str]:
    response = app.test_client().get("/alerts/chest")
    return response.status_code, response.text


def test_healthy_chest_is_ok_and_the_probe_is_not_recorded(app: Flask, tmp_path: Path) -> None:
    with closing(
        FlaskChestSQLite(app, db_uri=tmp_path / "db", tracked_vars=["x"], journal_dir="memory:")
    ) as chest:
        app.register_blueprint(health_blueprint(chest))
        assert probe(app) == (200, "ok\n")
        assert chest.health() == Health(ok=True, store_answers=True, waiting=0, lost=0)
        assert chest.query() == []


def test_store_that_is_away_is_told_and_costs_no_process_its_service(
    app: Flask, chest: FlaskChest, store: AwayStore
) -> None:
    app.register_blueprint(health_blueprint(chest))
    app.test_client().get("/")
    assert not chest.flush(timeout=0.3)
    health = chest.health()
    assert (health.ok, health.store_answers, health.waiting, health.lost) == (True, False, 1, 0)
    assert probe(app) == (200, "ok\n")
    store.away = False


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_process_that_loses_records_is_not_ok(app: Flask, chest: FlaskChest, store: AwayStore) -> None:
    app.register_blueprint(health_blueprint(chest))
    client = app.test_client()
    while chest.health().ok:
        client.get("/")
    status, text = probe(app)
    assert (status, text) == (503, "not ok\n")
    assert chest.health().lost >= 1
    store.away = False


class SilentStore(SQLiteStore):
    """Answers nothing until it is let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.allowed = threading.Event()

    def open(self) -> None:
        self.allowed.wait(10)
        super().open()


def test_probe_waits_for_no_store(app: Flask, tmp_path: Path) -> None:
    store = SilentStore(tmp_path / "db")
    app.add_url_rule("/", "index", lambda: "hi")
    with closing(FlaskChest(app, store=store, journal_dir=tmp_path / "j", tracked_vars=["x"])) as chest:
        app.register_blueprint(health_blueprint(chest))
        app.test_client().get("/")
        began = time.monotonic()
        assert probe(app) == (200, "ok\n")
        assert time.monotonic() - began < 5  # of the ten seconds that one would wait who asks
        store.allowed.set()


def lose_one(chest: FlaskChest) -> None:
    """Record what is too long for the journal."""
    chest._state.here.keep(make_record(variables={"text": "x" * (MIN_JOURNAL_BYTES + 1)}))


_others: list[Flask] = []
"""Held, since nothing else does."""


def other_process(tmp_path: Path, db: str = "db") -> FlaskChest:
    """Make what another process would: it shares the journal's folder and nothing else."""
    _others.append(Flask("test"))
    return FlaskChest(
        _others[-1],
        store=SQLiteStore(tmp_path / db),
        journal_dir=tmp_path / "j",
        tracked_vars=["x"],
        journal_bytes=MIN_JOURNAL_BYTES,
    )


def test_loss_of_another_process_is_seen_while_it_lives_and_when_it_is_gone(
    app: Flask, chest: FlaskChest, store: AwayStore, tmp_path: Path
) -> None:
    store.away = False
    app.register_blueprint(health_blueprint(chest))
    app.test_client().get("/")
    other, stranger = other_process(tmp_path), other_process(tmp_path, "another.db")
    lose_one(other)
    assert (chest.health().ok, chest.health().lost, chest.stats().lost) == (False, 1, {})
    assert probe(app) == (503, "not ok\n")
    other.close()
    assert (chest.health().ok, chest.health().lost) == (False, 1)
    assert (stranger.health().ok, stranger.health().lost) == (True, 0)
    lose_one(chest)
    successor = other_process(tmp_path)
    lose_one(successor)
    assert [each.health().lost for each in (chest, successor)] == [3, 3]
    successor.close()


def test_loss_is_news_for_a_minute(
    chest: FlaskChest, store: AwayStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.away = False
    other = other_process(tmp_path)
    lose_one(other)
    other.close()
    later = time.time_ns() + 61 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert (chest.health().ok, chest.health().lost) == (True, 1)
    much_earlier = time.time_ns() - 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: much_earlier)
    assert chest.health().ok


def test_clock_that_was_ahead_hides_no_later_loss(
    chest: FlaskChest, store: AwayStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.away = False
    ahead, other = other_process(tmp_path), other_process(tmp_path)
    with monkeypatch.context() as patch:
        year_later = time.time_ns() + 365 * 24 * 3600 * 10**9
        patch.setattr(time, "time_ns", lambda: year_later)
        lose_one(ahead)
    assert (chest.health().ok, chest.health().lost) == (True, 1)
    lose_one(other)
    assert (chest.health().ok, chest.health().lost) == (False, 2)
    for each in (ahead, other):
        each.close()


def test_loss_that_the_folder_did_not_take_is_told_later(
    chest: FlaskChest, store: AwayStore, tmp_path: Path
) -> None:
    store.away = False
    other = other_process(tmp_path)
    other._state.here.keep(make_record())
    (lock,) = (tmp_path / "j").glob("*/slot-*.lock")
    lock.unlink()
    lose_one(other)
    assert other.health().lost == 1
    other.close()
    other._state.here.keep(make_record())
    assert (other.health().lost, chest.health().lost) == (1, 1)
    other.close()


def test_journal_in_memory_knows_the_losses_of_its_own_process(app: Flask) -> None:
    chest = FlaskChest(
        app, store=MemoryStore, journal_dir="memory:", journal_bytes=MIN_JOURNAL_BYTES, tracked_vars=["x"]
    )
    lose_one(chest)
    assert (chest.health().ok, chest.health().lost) == (False, 1)
    chest.close()


def test_loss_before_the_journal_is_open_is_told_others_once_it_is(
    chest: FlaskChest, store: AwayStore, tmp_path: Path
) -> None:
    store.away = False
    other = other_process(tmp_path)
    other._state.here.tally.lost(NOT_CAPTURED)
    assert (chest.health().lost, other.health().lost) == (0, 1)
    other._state.here.keep(make_record())
    assert (chest.health().lost, other.health().lost) == (1, 1)
    other.close()


@pytest.mark.parametrize("writer", ["off", "thread"])
def test_counts_are_read_while_every_lock_of_the_counting_is_held(
    app: Flask, tmp_path: Path, writer: Literal["thread", "off"]
) -> None:
    chest = FlaskChestSQLite(
        app, db_uri=tmp_path / "db", journal_dir=tmp_path / "j", writer=writer, tracked_vars=["x"]
    )
    state = chest._state
    for _ in range(3):
        state.here.keep(make_record())
    read: list[tuple[int, bool]] = []

    def handle(*_: object) -> None:
        read.append((chest.stats().captured, chest.health().ok))

    intake = state.here.intake
    assert isinstance(intake, JournalOnly | Writer)
    journal = intake._journal
    assert isinstance(journal, FileJournal | AppendOnlyJournal)
    with journal._lock, state.here.tally._lock, state.here.exports._lock:
        # As a signal's handler would, in the middle of a request; only that this thread can be given up.
        thread = threading.Thread(target=handle, daemon=True)
        thread.start()
        thread.join(10)
    assert read == [(3, True)]
    chest.close()


def test_full_disk_takes_the_counts(tmp_path: Path) -> None:
    slot = take_lowest(tmp_path)
    slot.begin(serial=1, left=False)
    size = (tmp_path / "slot-0.lock").stat().st_size
    assert slot.note_losses({JOURNAL_FULL: 2, "of a later release": 3})
    assert slot.note_losses({JOURNAL_FULL: 1})
    assert (tmp_path / "slot-0.lock").stat().st_size == size
    assert losses_in(tmp_path).counts == {JOURNAL_FULL: 3, OTHERS: 3}
    slot.note_time(7)
    slot.release()
    assert not slot.note_losses({JOURNAL_FULL: 1})
    successor = take_lowest(tmp_path)
    successor.begin(serial=9, left=True)
    assert successor.note_losses({DAMAGED: 1})
    assert losses_in(tmp_path).counts == {JOURNAL_FULL: 3, OTHERS: 3, DAMAGED: 1}
    assert (successor.last_time_unix_nano(), left_from(tmp_path, 0)) == (7, 9)


def test_counts_that_are_none_are_counted_anew(tmp_path: Path) -> None:
    (tmp_path / "slot-0.lock").write_bytes(b"0" * 50 + b"nonsense" * 100)
    (tmp_path / "slot-1.lock").mkdir()
    os.mkfifo(tmp_path / "slot-2.lock")
    assert losses_in(tmp_path) == Losses()
    slot = take_lowest(tmp_path)
    slot.begin(serial=1, left=False)
    assert losses_in(tmp_path) == Losses()
    assert slot.note_losses({DAMAGED: 1})
    assert losses_in(tmp_path).total == 1
