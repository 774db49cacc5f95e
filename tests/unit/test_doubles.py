"""The stand-ins for an application's own tests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from flask import Flask

from flask_chest import FlaskChest, TargetUnavailable
from flask_chest.background.export_run import ExportRun
from flask_chest.decorator import flask_chest
from flask_chest.protocols import Busy, Claim
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import ManualClock, RecordingExporter, make_record, recorded

MINUTE = timedelta(minutes=1)


def test_lease_of_a_dead_holder_passes_on_when_the_clock_is_moved_past_it() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    store.open()
    record = make_record()
    store.write([record])
    dead = store.claim("shop", limit=10, lease=MINUTE)
    assert isinstance(dead, Claim)

    clock.advance(MINUTE - timedelta(microseconds=1))
    assert isinstance(store.claim("shop", limit=10, lease=MINUTE), Busy)
    clock.advance(timedelta(microseconds=1))
    exporter = RecordingExporter("shop")
    assert ExportRun(store, exporter).report().delivered == 1
    assert exporter.delivered == [record]
    assert not store.acknowledge(dead)


def test_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock()
    assert clock() == clock()
    before = clock()
    clock.advance(timedelta(hours=2))
    assert clock() - before == 2 * 3_600 * 1_000_000_000


def test_exporter_fails_as_planned_and_delivers_afterwards() -> None:
    store = MemoryStore()
    store.open()
    records = [make_record() for _ in range(3)]
    store.write(records)
    exporter = RecordingExporter()
    exporter.failures.append(TargetUnavailable("away"))
    assert ExportRun(store, exporter).report().error == "away"
    assert exporter.delivered == []
    assert ExportRun(store, exporter).report().error is None
    assert exporter.delivered == records
    with pytest.raises(AttributeError):
        exporter.delivered = []  # type: ignore[misc]  # it is what was delivered, not a list to change


def test_look_at_the_records_before_their_block_ends_is_answered_by_a_sentence(chest: FlaskChest) -> None:
    with recorded(chest) as records:
        for look in (lambda: records[0], lambda: records[:1], lambda: list(iter(records))):
            with pytest.raises(RuntimeError, match=r"when the block of recorded\(\) ends: look at them after it"):
                look()
    assert records == []


def test_record_that_is_not_there_is_missed_by_a_sentence(app: Flask, chest: FlaskChest) -> None:
    @app.route("/")
    @flask_chest
    def index() -> Iterator[str]:
        yield "hi"

    with recorded(chest) as records:
        response = app.test_client().get("/")  # it streams, and nobody closes it
    with pytest.raises(IndexError, match=r"^0 were recorded in the block, .* when it closes"):
        records[0]
    response.close()
    with recorded(chest) as records, app.test_client().get("/") as closed:
        assert closed.get_data(as_text=True) == "hi"
    assert (len(records), records[0].route, records[:2], [*records]) == (1, "/", records, records)
