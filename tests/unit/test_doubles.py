"""The stand-ins for an application's own tests."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flask_chest import TargetUnavailable
from flask_chest.export import run_export
from flask_chest.protocols import Busy, Claim
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import ManualClock, RecordingExporter, make_record

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
    assert run_export(store, exporter).delivered == 1
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
    assert run_export(store, exporter).error == "away"
    assert exporter.delivered == []
    assert run_export(store, exporter).error is None
    assert exporter.delivered == records
    with pytest.raises(AttributeError):
        exporter.delivered = []  # type: ignore[misc]  # it is what was delivered, not a list to change
