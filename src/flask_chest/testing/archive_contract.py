"""What a store must do from which records move to another one."""
# ruff: noqa: D102 - a test's name states the fact

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from flask_chest.protocols import Claim, ColumnReader, Columns, LoadsHistory, StartAt
from flask_chest.record import FIELDS, Query, Record, decode_variables
from flask_chest.testing.outbox_contract import DeliveringStore
from flask_chest.testing.records import make_record
from flask_chest.testing.store_contract import VALUES

_LEASE = timedelta(minutes=1)
_EVERYTHING = Query(limit=None)


class ArchivingStore(DeliveringStore, LoadsHistory, Protocol):
    """A store that takes records which were kept elsewhere."""


class ArchiveContract:
    """What a store must do that takes records from elsewhere; needs the fixture *store*, open and empty."""

    def test_record_that_was_loaded_is_kept_like_any_other(self, store: ArchivingStore) -> None:
        records = [make_record(variables={"v": value}) for value in VALUES]
        store.load(records)
        store.load([])
        assert list(store.query(_EVERYTHING)) == records[::-1]

    def test_record_loaded_twice_is_kept_once(self, store: ArchivingStore) -> None:
        written, loaded, new = make_record(), make_record(), make_record()
        store.write([written])
        store.load([loaded])
        store.load([written, loaded, new, new])
        store.write([loaded])
        assert list(store.query(_EVERYTHING)) == [new, loaded, written]

    def test_no_exporter_delivers_what_was_loaded(self, store: ArchivingStore) -> None:
        store.register("early")
        store.load([make_record() for _ in range(3)])
        first = make_record()
        store.write([first])
        store.load([make_record() for _ in range(3)])
        starts: dict[str, StartAt] = {"late": "beginning", "now": "now"}
        for name, start_at in starts.items():
            store.register(name, start_at=start_at)
        store.load([make_record()])
        second = make_record()
        store.write([second])
        assert {each.name: each.backlog for each in store.exporters()} == {"early": 2, "late": 2, "now": 1}
        assert _delivered(store, "early") == _delivered(store, "late") == [first, second]
        assert _delivered(store, "now") == [second]
        assert _delivered(store, "unknown") == [first, second]

    def test_batch_that_is_out_is_claimed_again_as_it_was(self, store: ArchivingStore) -> None:
        store.write([make_record() for _ in range(3)])
        claim = store.claim("a", limit=2, lease=_LEASE)
        assert isinstance(claim, Claim)
        store.load([make_record()])
        store.release(claim)
        again = store.claim("a", limit=10, lease=_LEASE)
        assert isinstance(again, Claim)
        assert again.records == claim.records

    def test_columns_are_those_of_the_records(self, store: ArchivingStore) -> None:
        if not isinstance(store, ColumnReader):
            return  # it hands out records one by one
        records = [
            *(make_record(variables={"v": value}, trace_remote=True) for value in VALUES),
            make_record(error="ValueError", trace_id="0" * 32, span_id="1" * 16, trace_flags=1, route=None),
            *(make_record(sample_rate=0.1, trace_remote=False) for _ in range(600)),
        ]
        store.write(records)
        times = [record.time_unix_nano for record in records]
        for asked in (
            _EVERYTHING,
            Query(limit=3),
            Query(limit=0),
            Query(since_unix_nano=times[5], until_unix_nano=times[-5], limit=None),
            Query(since_unix_nano=2**63, limit=None),
            Query(until_unix_nano=2**64, limit=601),
        ):
            assert asked.asks_for_time_alone
            found = [record for columns in store.columns(asked) for record in _records(columns)]
            assert found == list(store.query(asked))


def _delivered(store: ArchivingStore, exporter: str) -> list[Record]:
    delivered: list[Record] = []
    while isinstance(claim := store.claim(exporter, limit=1, lease=_LEASE), Claim):
        delivered += claim.records
        assert store.acknowledge(claim)
    return delivered


def _records(columns: Columns) -> list[Record]:
    assert columns["id"]
    rows = zip(*(columns[name] for name in FIELDS), strict=True)
    return [
        Record(**{**dict(zip(FIELDS, row, strict=True)), "variables": decode_variables(str(text))})
        for row, text in zip(rows, columns["variables"], strict=True)
    ]
