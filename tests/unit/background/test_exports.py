"""The exporters of a chest in one process: how often they run, what is counted, how they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from flask_chest import Record, StoreUnavailable, TargetUnavailable
from flask_chest.background.export_run import RecordFilter
from flask_chest.background.exports import LONGEST_PAUSE_SECONDS, ExportJob, ExportJobs, named_maker
from flask_chest.background.poison import PATIENCE
from flask_chest.background.stats import LOG_INTERVAL_SECONDS, ExportCounts
from flask_chest.protocols import Exporter
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import RecordingExporter, make_record

SECONDS = 20.0


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.open()
    store.write([make_record() for _ in range(10)])
    return store


@pytest.fixture
def delivery(store: MemoryStore) -> ExportJobs:
    return ExportJobs(lambda: store)


def job_of(
    exporter: Exporter | Callable[[], Exporter], *, name: str | None = None, batch_size: int = 1_000
) -> ExportJob:
    job_name, make = named_maker(exporter, name)
    return ExportJob(
        name=job_name,
        make=make,
        interval=timedelta(milliseconds=10),
        lease=timedelta(minutes=2),
        batch_size=batch_size,
        start_at="beginning",
        record_filter=RecordFilter(),
    )


def test_failures_are_logged_once_a_minute_and_their_end_as_loudly(
    store: MemoryStore, delivery: ExportJobs, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(failures=4)
    job = job_of(away)
    for _ in range(3):
        delivery.run(job)
    said = ["recording: 0 delivered, then: gone for lunch; 10 pending"]
    assert caplog.messages == said
    now = time.monotonic() + LOG_INTERVAL_SECONDS
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(2):
        delivery.run(job)
    assert caplog.messages == [*said * 2, "recording: 10 delivered again, 0 set aside"]
    store.write([make_record()])
    delivery.run(job)
    assert len(caplog.messages) == 3


def test_export_that_does_not_begin_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> MemoryStore:
        raise StoreUnavailable("gone for lunch")

    delivery = ExportJobs(refuse)
    for _ in range(3):
        delivery.run(job_of(RecordingExporter()))
    assert caplog.messages == ["recording: 0 delivered, then: the export did not begin: gone for lunch"]


class Away(RecordingExporter):
    def __init__(self, failures: int = 1_000_000) -> None:
        super().__init__()
        self.left = failures
        self.attempts = 0

    def export(self, records: Sequence[Record], /) -> None:
        self.attempts += 1
        if self.left > 0:
            self.left -= 1
            raise TargetUnavailable("gone for lunch")
        super().export(records)


def test_target_that_is_away_is_asked_ever_more_seldom_and_at_last_every_few_minutes(
    delivery: ExportJobs,
) -> None:
    job = job_of(Away())
    waits: list[float] = []

    for _ in range(30):
        before = time.monotonic()
        delivery.run(job)
        waits.append(delivery._histories[job.name].not_before - before)
    assert 0.5 <= waits[0] <= 1.1
    assert waits[3] > waits[0]
    assert LONGEST_PAUSE_SECONDS / 2 <= waits[-1] <= LONGEST_PAUSE_SECONDS + 1


def test_scheduled_run_leaves_a_target_alone_that_was_away_a_moment_ago(delivery: ExportJobs) -> None:
    exporter = Away(failures=1)
    job = job_of(exporter)
    delivery.run_in_turn(job)
    delivery.run_in_turn(job)
    assert exporter.attempts == 1
    assert delivery.run(job).delivered == 10  # who asks for it now gets it now
    delivery.run_in_turn(job)
    assert delivery._histories[job.name].not_before == 0


def test_runs_are_counted_by_exporter(delivery: ExportJobs, store: MemoryStore) -> None:
    job = job_of(Away(failures=2))
    for _ in range(5):
        delivery.run(job)
    assert delivery.counts() == {"recording": ExportCounts(runs=3, delivered=10, failures=2)}


def test_exporter_that_crashes_at_one_record_has_it_set_aside_after_some_patience(
    delivery: ExportJobs, store: MemoryStore
) -> None:
    poison = make_record(variables={"poison": True})
    store.write([poison])

    class Crashing(RecordingExporter):
        def export(self, records: Sequence[Record], /) -> None:
            if any("poison" in record.variables for record in records):
                raise ZeroDivisionError
            super().export(records)

    exporter = Crashing()
    reports = [delivery.run(job_of(exporter)) for _ in range(PATIENCE + 1)]
    assert [report.rejected for report in reports] == [0] * PATIENCE + [1]
    assert len(exporter.delivered) == 10
    assert [rejection.record_id for rejection in store.rejections("recording")] == [poison.id]


def test_closing_ends_a_run_after_its_batch(delivery: ExportJobs, store: MemoryStore) -> None:
    class Slow(RecordingExporter):
        begun, let = threading.Event(), threading.Event()

        def export(self, records: Sequence[Record], /) -> None:
            self.begun.set()
            assert self.let.wait(SECONDS)
            super().export(records)

    exporter = Slow()
    delivery.schedule([job_of(exporter, batch_size=2)])
    assert exporter.begun.wait(SECONDS)
    closing = threading.Thread(target=delivery.close, args=(SECONDS,))
    closing.start()
    while delivery._closings == 0:
        threading.Event().wait(0.002)
    exporter.let.set()
    closing.join(SECONDS)
    assert not closing.is_alive()
    assert len(exporter.delivered) == 2
    assert exporter.closed
