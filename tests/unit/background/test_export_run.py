"""One export run: what is delivered, what stays, what is set aside."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

import pytest

from flask_chest import ExportError, Record, RecordsRejected, TargetUnavailable
from flask_chest.background.export_run import ExportRun
from flask_chest.protocols import Claim
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import RecordingExporter, make_record


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.open()
    store.write([make_record() for _ in range(25)])
    return store


def test_all_is_delivered_in_batches_and_once(store: MemoryStore) -> None:
    batches: list[int] = []

    class Counting(RecordingExporter):
        def export(self, records: Sequence[Record], /) -> None:
            batches.append(len(records))
            super().export(records)

    exporter = Counting()
    report = ExportRun(store, exporter, batch_size=10).report()
    assert batches == [10, 10, 5]
    assert (report.delivered, report.pending, report.error, report.busy) == (25, 0, None, None)
    assert len(exporter.delivered) == 25
    assert ExportRun(store, exporter).report().delivered == 0


def test_target_that_is_away_loses_nothing(store: MemoryStore) -> None:
    exporter = RecordingExporter()
    exporter.failures = [TargetUnavailable("the target is away")]
    report = ExportRun(store, exporter, batch_size=10).report()
    assert (report.delivered, report.pending, report.error) == (0, 25, "the target is away")
    assert ExportRun(store, exporter).report().delivered == 25


def test_named_records_are_set_aside_and_the_others_of_the_batch_arrive(store: MemoryStore) -> None:
    class Picky(RecordingExporter):
        def export(self, records: Sequence[Record], /) -> None:
            poison = {r.id: "too old" for r in records if r.variables == {"user_id": "poison"}}
            if poison:
                raise RecordsRejected("some are too old", poison)
            super().export(records)

    culprits = [make_record(variables={"user_id": "poison"}) for _ in range(2)]
    store.write(culprits)
    exporter = Picky()
    report = ExportRun(store, exporter).report()
    assert (report.delivered, report.rejected, report.pending) == (25, 2, 0)
    assert [(r.record_id, r.reason) for r in store.rejections("recording")] == [
        (record.id, "too old") for record in culprits
    ]


def test_exporter_that_raises_anything_keeps_its_batch_and_its_message(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    class Buggy(RecordingExporter):
        def export(self, records: Sequence[Record], /) -> None:
            raise KeyError("token hunter2")

    caplog.set_level(logging.INFO)
    report = ExportRun(store, Buggy()).report()
    assert report.error == "recording raised builtins.KeyError"
    assert report.pending == 25
    assert "hunter2" not in caplog.text


def test_exporter_by_mistake_async_counts_as_failed(store: MemoryStore) -> None:
    class Async(RecordingExporter):
        async def export(self, records: Sequence[Record], /) -> None:  # type: ignore[override]  # the mistake
            pytest.fail("nobody awaits")

    report = ExportRun(store, Async()).report()  # type: ignore[arg-type]  # the mistake
    assert report.pending == 25
    assert "returned coroutine, must be None (and not async)" in str(report.error)


def test_process_that_dies_in_an_export_leaves_the_batch_claimable_at_once(store: MemoryStore) -> None:
    class Exits(RecordingExporter):
        def export(self, records: Sequence[Record], /) -> None:
            raise SystemExit

    with pytest.raises(SystemExit):
        ExportRun(store, Exits()).report()
    assert ExportRun(store, RecordingExporter()).report().delivered == 25


def test_run_beside_another_one_does_nothing(store: MemoryStore) -> None:
    claim = store.claim("recording", limit=5, lease=timedelta(minutes=1))
    assert isinstance(claim, Claim)
    report = ExportRun(store, RecordingExporter()).report()
    assert (report.delivered, report.pending, report.error) == (0, 25, None)
    assert report.busy


def test_claim_lost_while_delivering_is_reported_and_not_counted(store: MemoryStore) -> None:
    class Slow(RecordingExporter):
        def export(self, records: Sequence[Record], /) -> None:
            super().export(records)
            while not isinstance(store.claim("recording", limit=5, lease=timedelta(minutes=1)), Claim):
                pass

    report = ExportRun(store, Slow(), lease=timedelta(microseconds=1)).report()
    assert report.delivered == 0
    assert "lost its claim" in str(report.error)


def test_two_exporters_do_not_hide_records_from_each_other(store: MemoryStore) -> None:
    dead, alive = RecordingExporter("dead"), RecordingExporter("alive")
    failures: list[ExportError] = [TargetUnavailable("away")]
    dead.failures = failures
    assert ExportRun(store, dead).report().delivered == 0
    assert ExportRun(store, alive).report().delivered == 25
    assert ExportRun(store, dead).report().delivered == 25


def test_run_is_logged_in_one_line(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flask_chest")
    ExportRun(store, RecordingExporter()).report()
    ExportRun(store, RecordingExporter()).report()
    assert caplog.messages == ["recording: 25 delivered, 0 set aside"]
