"""What a chest keeps of what it has: limits, the cap, and who deletes."""

from __future__ import annotations

import logging
import sqlite3
import time
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from flask import Flask

from flask_chest import FlaskChest
from flask_chest.background.retention import BATCH, RetentionPolicy, RetentionReport, RetentionRun
from flask_chest.errors import CapabilityMissing
from flask_chest.extension.settings import SchedulerMode
from flask_chest.protocols import Claim
from flask_chest.record import Query
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import ManualClock, make_record

DAY_NS = 24 * 3600 * 1_000_000_000


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.open()
    return store


def retain(store: MemoryStore | SQLiteStore, *, limits: str = "", cap: str = "") -> RetentionReport:
    return RetentionRun(
        store=store,
        policy=RetentionPolicy.parse(limits, "limits") if limits else RetentionPolicy(),
        cap=RetentionPolicy.parse(cap, "cap") if cap else RetentionPolicy(),
        owner="this test",
        go_on=lambda: True,
    ).report()


def fill(store: MemoryStore | SQLiteStore, days: range) -> None:
    """Write a record for each of so many *days* ago."""
    now = time.time_ns()
    store.write([make_record(variables={"age": age}, time_unix_nano=now - age * DAY_NS) for age in days])


def ages(store: MemoryStore | SQLiteStore) -> list[object]:
    return [record.variables["age"] for record in store.query(Query(limit=None))]


def test_what_is_older_goes(store: MemoryStore) -> None:
    fill(store, range(10))
    assert retain(store, limits="5d") == RetentionReport(deleted=5)
    assert ages(store) == [0, 1, 2, 3, 4]


def test_what_is_more_goes_and_the_oldest_of_it(store: MemoryStore) -> None:
    fill(store, range(10))
    assert retain(store, limits="3 rows") == RetentionReport(deleted=7)
    assert ages(store) == [0, 1, 2]
    assert retain(store, limits="3 rows") == RetentionReport()


def test_what_takes_more_bytes_goes(store: MemoryStore) -> None:
    fill(store, range(10))
    one = next(iter(store.query(Query())))
    line = len(msgspec.json.encode(msgspec.structs.asdict(one))) + 1
    assert 1_000 // line in range(1, 9)
    assert retain(store, limits="1 KB").deleted == 10 - 1_000 // line


def test_strictest_limit_counts(store: MemoryStore) -> None:
    fill(store, range(10))
    assert retain(store, limits="5d, 8 rows") == RetentionReport(deleted=5)


def test_more_than_a_batch_goes_in_batches(store: MemoryStore) -> None:
    now = time.time_ns()
    store.write([make_record(time_unix_nano=now - 2 * DAY_NS + number) for number in range(2 * BATCH + 1)])
    assert retain(store, limits="1d") == RetentionReport(deleted=2 * BATCH + 1)


def test_run_ends_between_batches_when_its_time_is_over(store: MemoryStore) -> None:
    now = time.time_ns()
    store.write([make_record(time_unix_nano=now - 2 * DAY_NS + number) for number in range(2 * BATCH + 1)])
    answers = iter([True, False])
    run = RetentionRun(
        store=store,
        policy=RetentionPolicy(age=timedelta(days=1)),
        cap=RetentionPolicy(),
        owner="this test",
        go_on=lambda: next(answers),
    )
    assert run.report() == RetentionReport(deleted=BATCH, left=True)
    assert store.status().records == BATCH + 1


def test_what_an_exporter_has_not_had_stays(store: MemoryStore) -> None:
    store.register("slow")
    fill(store, range(10))
    assert retain(store, limits="5d") == RetentionReport(left=True)
    claim = store.claim("slow", limit=100, lease=timedelta(minutes=1))
    assert isinstance(claim, Claim)
    store.acknowledge(claim)
    assert retain(store, limits="5d") == RetentionReport(deleted=5)


def test_what_is_beyond_the_cap_goes_in_any_case_and_is_counted(store: MemoryStore) -> None:
    store.register("slow")
    fill(store, range(10))
    assert retain(store, limits="1d", cap="6 rows") == RetentionReport(deleted=4, unexported=4, left=True)
    assert ages(store) == [0, 1, 2, 3, 4, 5]


def test_what_was_exported_goes_before_what_was_not(store: MemoryStore) -> None:
    fill(store, range(6, 10))
    claim = store.claim("slow", limit=100, lease=timedelta(minutes=1))
    assert isinstance(claim, Claim)
    store.acknowledge(claim)
    fill(store, range(6))
    assert retain(store, cap="6 rows") == RetentionReport(deleted=4, unexported=0)


def test_exporter_that_was_not_seen_for_a_week_is_named() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    store.open()
    clock.advance(timedelta(days=-8))
    store.register("gone")
    clock.advance(timedelta(days=8))
    store.register("here")
    fill(store, range(10))
    clock.advance(timedelta(seconds=1))
    assert retain(store, limits="5d") == RetentionReport(left=True, absent=("gone",))
    assert retain(store, limits="20d") == RetentionReport()  # it keeps nothing from being deleted
    assert store.drop("gone")
    assert store.drop("here")
    assert retain(store, limits="5d") == RetentionReport(deleted=5)


def test_one_process_deletes_at_a_time(store: MemoryStore) -> None:
    fill(store, range(10))
    assert store.hold("retention", owner="another process", lease=timedelta(minutes=1))
    assert retain(store, limits="5d") == RetentionReport(busy=True)
    store.let_go("retention", owner="another process")
    assert retain(store, limits="5d").deleted == 5
    assert store.hold("retention", owner="another process", lease=timedelta(minutes=1))


@pytest.mark.slow
def test_sqlite_file_becomes_smaller(tmp_path: Path) -> None:
    path = tmp_path / "chest.db"
    store = SQLiteStore(path)
    store.open()
    now = time.time_ns()
    store.write(
        [make_record(variables={"text": "x" * 2_000}, time_unix_nano=now - 2 * DAY_NS + i) for i in range(3_000)]
    )
    full = pages(path)
    assert retain(store, limits="1d").deleted == 3_000
    assert pages(path) < full / 10
    store.close()


def pages(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("PRAGMA page_count").fetchone()[0])
    finally:
        connection.close()


def test_chest_deletes_what_its_settings_say_and_counts_it(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    app = Flask("retaining")
    chest = FlaskChest(app, store=store, retention="5d", retention_cap="8 rows")
    store.open()
    store.register("slow")
    fill(store, range(10))
    with caplog.at_level(logging.WARNING, logger="flask_chest"):
        assert chest.run_retention() == RetentionReport(deleted=2, unexported=2, left=True)
    stats = chest.stats()
    assert stats.deleted == 2
    assert stats.faults == {"retention_cap deleted records that an exporter had not received": 2}
    assert "retention_cap deleted records" in caplog.text


def test_retention_is_scheduled_where_exporters_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_chest.extension.state.INTERVAL", timedelta(milliseconds=20))
    store = MemoryStore()
    app = Flask("retaining")
    chest = FlaskChest(app, store=store, retention="5d")
    store.open()
    fill(store, range(10))
    app.test_client().get("/")
    deadline = time.monotonic() + 30
    while chest.stats().deleted < 5:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    chest.close()
    assert ages(store) == [0, 1, 2, 3, 4]


def test_nothing_is_scheduled_where_the_scheduler_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduled: list[str] = []
    monkeypatch.setattr(
        "flask_chest.background.exports.ExportJobs.schedule_task",
        lambda _self, name, *_, **__: scheduled.append(name),
    )
    modes: tuple[SchedulerMode, ...] = ("off", "auto")
    for scheduler in modes:
        app = Flask("retaining")
        chest = FlaskChest(app, store=MemoryStore, retention="5d", scheduler=scheduler)
        app.test_client().get("/")
        chest.close()
    assert scheduled == ["flask_chest retention"]


def test_store_that_cannot_delete_is_told() -> None:
    with pytest.raises(CapabilityMissing, match="does not implement Retention"):
        RetentionRun(
            store=object(),  # type: ignore[arg-type]  # what the test is about
            policy=RetentionPolicy(),
            cap=RetentionPolicy(),
            owner="this test",
            go_on=lambda: True,
        ).report()
