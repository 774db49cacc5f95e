"""What a store that deletes for good must do."""
# ruff: noqa: D102 - a test's name states the fact

from __future__ import annotations

import time
from datetime import timedelta
from typing import Protocol

from flask_chest.protocols import Claim, Erasure, ExporterRegistry, Outbox, Rejections, Retention, Store
from flask_chest.record import Query, Record
from flask_chest.testing.records import make_record

_MINUTE = timedelta(minutes=1)


class DeletingStore(Store, Outbox, ExporterRegistry, Rejections, Retention, Erasure, Protocol):
    """A store with all that retention and erasure touch."""


class DeletionContract:
    """What `Retention` and `Erasure` must do; needs the fixture *store*, which is open and empty."""

    def test_prune_deletes_what_began_before_and_nothing_else(self, store: DeletingStore) -> None:
        old, limit, new = (make_record(time_unix_nano=moment) for moment in (1, 10, 11))
        store.write([new, old, limit])
        assert store.prune(10, limit=100) == 1
        assert _kept(store) == [new, limit]

    def test_prune_deletes_the_oldest_first_and_at_most_its_limit(self, store: DeletingStore) -> None:
        records = [make_record(time_unix_nano=moment) for moment in (3, 1, 2, 5, 4)]
        store.write(records)
        assert store.prune(100, limit=2) == 2
        assert [record.time_unix_nano for record in _kept(store)] == [5, 4, 3]
        assert store.prune(100, limit=2) == 2
        assert store.prune(100, limit=2) == 1
        assert store.prune(100, limit=2) == 0
        assert _kept(store) == []

    def test_pruned_record_that_is_written_again_stays_gone(self, store: DeletingStore) -> None:
        old, new = make_record(time_unix_nano=1), make_record(time_unix_nano=20)
        store.write([old, new])
        store.prune(10, limit=100)
        store.write([old, new])
        assert _kept(store) == [new]
        assert store.status().conflicts == 0

    def test_pruned_record_stays_gone_after_a_run_that_its_limit_ended(self, store: DeletingStore) -> None:
        records = [make_record(time_unix_nano=moment) for moment in (1, 2, 3)]
        store.write(records)
        assert store.prune(100, limit=2) == 2
        store.write(records)
        assert _kept(store) == records[2:]

    def test_what_is_older_than_the_cut_off_is_not_taken_any_more(self, store: DeletingStore) -> None:
        store.prune(10, limit=100)
        late, new = make_record(time_unix_nano=9), make_record(time_unix_nano=10)
        store.write([late, new])
        assert _kept(store) == [new]

    def test_cut_off_never_goes_back(self, store: DeletingStore) -> None:
        store.prune(10, limit=100)
        store.prune(5, limit=100)
        store.write([make_record(time_unix_nano=7)])
        assert _kept(store) == []

    def test_prune_spares_what_an_exporter_has_not_had(self, store: DeletingStore) -> None:
        had, pending = make_record(time_unix_nano=1), make_record(time_unix_nano=2)
        store.write([had])
        assert store.acknowledge(_claim(store))
        store.write([pending])
        assert store.prune(10, limit=100) == 1
        assert _kept(store) == [pending]
        assert list(_claim(store).records) == [pending]

    def test_what_was_spared_stays_as_it_is_when_it_is_written_again(self, store: DeletingStore) -> None:
        store.register("a")
        pending = make_record(time_unix_nano=1)
        store.write([pending])
        assert store.prune(10, limit=100) == 0
        store.write([pending])
        assert _kept(store) == [pending]

    def test_prune_deletes_the_unexported_too_when_told_to(self, store: DeletingStore) -> None:
        store.register("a")
        store.write([make_record(time_unix_nano=1)])
        assert store.prune(10, limit=100, keep_unexported=False) == 1
        assert store.claim("a", limit=10, lease=_MINUTE) is None
        assert [exporter.backlog for exporter in store.exporters()] == [0]

    def test_forget_deletes_all_that_matches_and_nothing_else(self, store: DeletingStore) -> None:
        hers = [make_record(variables={"user_id": 7}) for _ in range(3)]
        others = [make_record(variables={"user_id": value}) for value in ("7", 7.0, True, None)]
        store.write([*hers, *others])
        assert store.forget(Query(where={"user_id": 7}, limit=1)) == 3
        assert sorted(record.id for record in _kept(store)) == sorted(record.id for record in others)

    def test_forgotten_record_that_is_written_again_stays_gone(self, store: DeletingStore) -> None:
        hers, other = make_record(variables={"user_id": 7}), make_record(variables={"user_id": 8})
        store.write([hers])
        store.forget(Query(where={"user_id": 7}))
        store.write([hers, other])
        assert _kept(store) == [other]

    def test_forgotten_record_that_comes_only_later_is_not_taken(self, store: DeletingStore) -> None:
        waiting = make_record(variables={"user_id": 7})
        assert store.forget(Query(where={"user_id": 7})) == 0
        store.write([waiting])
        assert _kept(store) == []

    def test_what_begins_after_the_forgetting_is_kept(self, store: DeletingStore) -> None:
        store.forget(Query(where={"user_id": 7}))
        later = make_record(variables={"user_id": 7}, time_unix_nano=time.time_ns() + 1_000_000_000)
        store.write([later])
        assert _kept(store) == [later]

    def test_forgotten_records_are_neither_claimed_nor_set_aside_any_more(self, store: DeletingStore) -> None:
        refused, claimed, other = (make_record(variables={"user_id": user}) for user in (7, 7, 8))
        store.write([refused])
        assert store.acknowledge(_claim(store), rejected={refused.id: "too long"})
        store.write([claimed])
        store.release(_claim(store))
        store.forget(Query(where={"user_id": 7}))
        assert list(store.rejections("a")) == []
        assert store.claim("a", limit=10, lease=_MINUTE) is None
        store.write([other])
        assert list(_claim(store).records) == [other]

    def test_pruning_keeps_what_was_forgotten_gone(self, store: DeletingStore) -> None:
        hers = make_record(variables={"user_id": 7}, time_unix_nano=50)
        store.forget(Query(where={"user_id": 7}))
        store.prune(10, limit=100)
        store.write([hers])
        assert _kept(store) == []


def _kept(store: DeletingStore) -> list[Record]:
    return list(store.query(Query(limit=None)))


def _claim(store: DeletingStore) -> Claim:
    claim = store.claim("a", limit=100, lease=_MINUTE)
    assert isinstance(claim, Claim)
    return claim
