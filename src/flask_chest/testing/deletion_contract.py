"""What a store that deletes for good must do."""
# ruff: noqa: D102 - a test's name states the fact

from __future__ import annotations

import time
from datetime import timedelta
from typing import Protocol

import msgspec

from flask_chest.protocols import (
    Claim,
    CountsDropped,
    Erasure,
    ExporterRegistry,
    Leases,
    Outbox,
    Rejections,
    Retention,
    Store,
)
from flask_chest.record import JSONValue, Query, Record, ge, is_set, lt
from flask_chest.testing.records import make_record

_MINUTE = timedelta(minutes=1)
_MINUTE_NANO = 60_000_000_000
_DAY_NANO = 24 * 60 * _MINUTE_NANO


class ForgettingStore(Store, Retention, Erasure, CountsDropped, Protocol):
    """A store that deletes for good."""


class DeletingStore(ForgettingStore, Outbox, ExporterRegistry, Rejections, Protocol):
    """A store with all that retention and erasure touch."""


class DeletionWithoutOutboxContract:
    """What `Retention` and `Erasure` must do in any store; needs the fixture *store*, which is open and empty."""

    def test_prune_deletes_what_began_before_and_nothing_else(self, store: ForgettingStore) -> None:
        old, limit, new = (make_record(time_unix_nano=moment) for moment in (1, 10, 11))
        store.write([new, old, limit])
        assert store.prune(10, limit=100) == 1
        assert _kept(store) == [new, limit]

    def test_prune_deletes_the_oldest_first_and_at_most_its_limit(self, store: ForgettingStore) -> None:
        records = [make_record(time_unix_nano=moment) for moment in (3, 1, 2, 5, 4)]
        store.write(records)
        assert store.prune(100, limit=2) == 2
        assert [record.time_unix_nano for record in _kept(store)] == [5, 4, 3]
        assert store.prune(100, limit=2) == 2
        assert store.prune(100, limit=2) == 1
        assert store.prune(100, limit=2) == 0
        assert _kept(store) == []

    def test_prune_that_goes_on_takes_the_oldest_first_however_far_apart_they_are(
        self, store: ForgettingStore
    ) -> None:
        moments = [100 + seconds * 1_000_000_000 for seconds in (0, 1, 8, 9, 3_600, 86_400 * 30, 86_400 * 3_650)]
        store.write([make_record(time_unix_nano=moment) for moment in moments])
        for left in (5, 3, 1):
            assert store.prune(moments[-1] + 1, limit=2) == 2
            assert sorted(record.time_unix_nano for record in _kept(store)) == moments[-left:]
        assert store.prune(moments[-1] + 1, limit=2) == 1
        assert store.prune(moments[-1] + 1, limit=2) == 0

    def test_pruned_record_that_is_written_again_stays_gone(self, store: ForgettingStore) -> None:
        old, new = make_record(time_unix_nano=1), make_record(time_unix_nano=20)
        store.write([old, new])
        store.prune(10, limit=100)
        store.write([old, new])
        assert _kept(store) == [new]
        assert store.status().conflicts == 0

    def test_pruned_record_stays_gone_after_a_run_that_its_limit_ended(self, store: ForgettingStore) -> None:
        records = [make_record(time_unix_nano=moment) for moment in (1, 2, 3)]
        store.write(records)
        assert store.prune(100, limit=2) == 2
        store.write(records)
        assert _kept(store) == records[2:]

    def test_what_is_older_than_the_cut_off_is_not_taken_any_more(self, store: ForgettingStore) -> None:
        store.prune(10, limit=100)
        late, new = make_record(time_unix_nano=9), make_record(time_unix_nano=10)
        store.write([late, new])
        assert _kept(store) == [new]

    def test_cut_off_never_goes_back(self, store: ForgettingStore) -> None:
        store.prune(10, limit=100)
        store.prune(5, limit=100)
        store.write([make_record(time_unix_nano=7)])
        assert _kept(store) == []

    def test_boundary_parts_the_newest_from_the_others(self, store: ForgettingStore) -> None:
        records = [make_record(time_unix_nano=moment) for moment in (30, 10, 50, 20, 40)]
        store.write(records)
        boundary = store.boundary(2)
        assert boundary is not None
        assert store.prune(boundary, limit=100) == 3
        assert [record.time_unix_nano for record in _kept(store)] == [50, 40]

    def test_there_is_no_boundary_where_there_are_no_more(self, store: ForgettingStore) -> None:
        assert store.boundary(0) is None
        store.write([make_record(), make_record()])
        assert store.boundary(2) is None
        assert store.boundary(1) is not None

    def test_forget_deletes_all_that_matches_and_nothing_else(self, store: ForgettingStore) -> None:
        hers = [make_record(variables={"user_id": 7}) for _ in range(3)]
        others = [make_record(variables={"user_id": value}) for value in ("7", 7.0, True, None)]
        store.write([*hers, *others])
        assert store.forget(Query(where={"user_id": 7}, limit=1)) == 3
        assert sorted(record.id for record in _kept(store)) == sorted(record.id for record in others)

    def test_forgotten_record_that_is_written_again_stays_gone(self, store: ForgettingStore) -> None:
        hers, other = make_record(variables={"user_id": 7}), make_record(variables={"user_id": 8})
        store.write([hers])
        store.forget(Query(where={"user_id": 7}))
        store.write([hers, other])
        assert _kept(store) == [other]

    def test_forgotten_record_that_comes_only_later_is_not_taken(self, store: ForgettingStore) -> None:
        waiting = make_record(variables={"user_id": 7})
        assert store.forget(Query(where={"user_id": 7})) == 0
        store.write([waiting])
        assert _kept(store) == []

    def test_record_that_began_at_the_last_moment_is_forgotten_too(self, store: ForgettingStore) -> None:
        for _ in range(20):  # a clock that ticks only now and then tells some of the calls what it was before
            last = make_record(variables={"user_id": 7})
            store.forget(Query(where={"user_id": 7}))
            store.write([last])
            assert _kept(store) == []

    def test_what_begins_after_the_forgetting_is_kept(self, store: ForgettingStore) -> None:
        store.forget(Query(where={"user_id": 7}))
        later = make_record(variables={"user_id": 7}, time_unix_nano=time.time_ns() + 2 * _MINUTE_NANO)
        store.write([later])
        assert _kept(store) == [later]

    def test_forgotten_record_of_a_clock_that_was_ahead_stays_gone(self, store: ForgettingStore) -> None:
        ahead = time.time_ns() + 365 * _DAY_NANO
        early, late = (make_record(variables={"user_id": 7}, time_unix_nano=ahead + step) for step in (0, 1))
        store.write([late])
        assert store.forget(Query(where={"user_id": 7})) == 1
        store.write([early, late])
        assert _kept(store) == []

    def test_forgotten_values_are_told_apart_as_a_query_does(self, store: ForgettingStore) -> None:
        asked: list[dict[str, JSONValue]] = [
            {"user": {"a": [1, None], "b": -0.0}},
            {"user": 1},
            {"user": "1"},
            {"user": True, "plan": 0.5},
        ]
        for where in asked:
            store.forget(Query(where=where))
        gone: list[dict[str, JSONValue]] = [
            {"user": {"b": 0.0, "a": [1, None]}},
            {"user": 1, "x": 2},
            {"user": "1"},
            {"user": True, "plan": 0.5},
        ]
        kept: list[dict[str, JSONValue]] = [
            {"user": {"a": [1], "b": 0.0}},
            {"user": 1.0},
            {"user": True},
            {"user": None},
            {"plan": 0.5},
            {},
        ]
        store.write([make_record(variables=variables) for variables in [*gone, *kept]])
        assert sorted(repr(record.variables) for record in _kept(store)) == sorted(map(repr, kept))

    def test_forgetting_by_other_fields_holds_too(self, store: ForgettingStore) -> None:
        store.forget(Query(request_id="hers", method="GET"))
        store.forget(Query(route="/", until_unix_nano=10))
        gone = [make_record(request_id="hers"), make_record(time_unix_nano=9)]
        kept = [make_record(request_id="his"), make_record(time_unix_nano=10)]
        store.write([*gone, *kept])
        assert {record.id for record in _kept(store)} == {record.id for record in kept}

    def test_forgetting_of_errors_holds_too(self, store: ForgettingStore) -> None:
        store.forget(Query(errors=True, status_class=5))
        gone = make_record(status_code=503)
        kept = [make_record(status_code=499), make_record(status_code=200, error="ValueError")]
        store.write([gone, *kept])
        assert {record.id for record in _kept(store)} == {record.id for record in kept}

    def test_forgetting_by_conditions_holds_too(self, store: ForgettingStore) -> None:
        dear, cheap, unpriced = (
            make_record(variables=variables) for variables in ({"price": 150}, {"price": 99.5}, {"plan": "pro"})
        )
        store.write([dear, cheap])
        asked = Query(conditions=(("price", ge(100)), ("price", lt(200)), ("price", is_set())))
        assert store.forget(asked) == 1
        store.write([dear, unpriced])
        assert {record.id for record in _kept(store)} == {cheap.id, unpriced.id}

    def test_person_who_is_forgotten_again_is_forgotten_up_to_then(self, store: ForgettingStore) -> None:
        for _ in range(3):
            hers = make_record(variables={"user_id": 7})
            store.forget(Query(where={"user_id": 7}))
            store.write([hers])
            assert _kept(store) == []

    def test_cut_off_ahead_of_the_clock_deletes_and_refuses_nothing_that_comes_later(
        self, store: ForgettingStore
    ) -> None:
        now = time.time_ns()
        old, later = make_record(time_unix_nano=now - _DAY_NANO), make_record(time_unix_nano=now + _DAY_NANO)
        store.write([old, later])
        assert store.prune(now + 365 * _DAY_NANO, limit=100) == 1
        coming = make_record(time_unix_nano=now + 2 * _MINUTE_NANO)
        store.write([coming])
        assert _kept(store) == [later, coming]

    def test_records_of_a_clock_that_is_ahead_are_not_among_the_newest(self, store: ForgettingStore) -> None:
        now = time.time_ns()
        records = [make_record(time_unix_nano=now - moment) for moment in (10, 20, 30)]
        ahead = [make_record(time_unix_nano=now + _DAY_NANO + moment) for moment in range(5)]
        store.write([*records, *ahead])
        assert store.boundary(2) == now - 30 + 1
        assert store.boundary(3) is None

    def test_record_that_comes_after_its_deletion_is_counted(self, store: ForgettingStore) -> None:
        before = store.dropped
        store.prune(10, limit=100)
        store.forget(Query(where={"user_id": 7}))
        store.write([make_record(time_unix_nano=9), make_record(variables={"user_id": 7}), make_record()])
        assert store.dropped == before + 2
        cut_off = store.cut_off()
        assert cut_off is not None
        assert (cut_off.before_unix_nano, cut_off.dropped) == (10, 1)
        assert cut_off.last_dropped_unix_nano is not None
        assert abs(cut_off.last_dropped_unix_nano - time.time_ns()) < _MINUTE_NANO
        store.prune(20, limit=100)
        assert store.cut_off() == msgspec.structs.replace(cut_off, before_unix_nano=20)

    def test_there_is_no_cut_off_where_nothing_was_pruned(self, store: ForgettingStore) -> None:
        store.forget(Query(where={"user_id": 7}))
        assert store.cut_off() is None

    def test_pruning_keeps_what_was_forgotten_gone(self, store: ForgettingStore) -> None:
        hers = make_record(variables={"user_id": 7}, time_unix_nano=50)
        store.forget(Query(where={"user_id": 7}))
        store.prune(10, limit=100)
        store.write([hers])
        assert _kept(store) == []


class DeletionContract(DeletionWithoutOutboxContract):
    """What `Retention` and `Erasure` must do beside an `Outbox`; needs the fixture *store*, open and empty."""

    def test_prune_spares_what_an_exporter_has_not_had(self, store: DeletingStore) -> None:
        had, pending = make_record(time_unix_nano=1), make_record(time_unix_nano=2)
        store.write([had])
        assert store.acknowledge(_claim(store))
        store.write([pending])
        assert store.prune(10, limit=100) == 1
        assert _kept(store) == [pending]
        assert list(_claim(store).records) == [pending]

    def test_what_was_spared_goes_when_the_exporter_has_had_it(self, store: DeletingStore) -> None:
        store.register("a")
        store.write([make_record(time_unix_nano=1)])
        assert store.prune(10, limit=100) == 0
        assert store.acknowledge(_claim(store))
        assert store.prune(5, limit=100) == 1

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


class LeasesContract:
    """What `Leases` must do; needs the fixture *store*, which is open."""

    def test_task_is_held_by_one_owner_at_a_time(self, store: Leases) -> None:
        assert store.hold("task", owner="one", lease=_MINUTE)
        assert not store.hold("task", owner="two", lease=_MINUTE)
        assert store.hold("other task", owner="two", lease=_MINUTE)

    def test_owner_may_hold_on(self, store: Leases) -> None:
        assert store.hold("task", owner="one", lease=_MINUTE)
        assert store.hold("task", owner="one", lease=_MINUTE)
        assert not store.hold("task", owner="two", lease=_MINUTE)

    def test_task_that_was_let_go_is_free_at_once(self, store: Leases) -> None:
        store.hold("task", owner="one", lease=_MINUTE)
        store.let_go("task", owner="one")
        assert store.hold("task", owner="two", lease=_MINUTE)

    def test_clock_is_that_of_a_machine_in_order(self, store: Leases) -> None:
        assert abs(store.now_unix_nano() - time.time_ns()) < 60_000_000_000

    def test_only_its_owner_can_let_go_of_a_task(self, store: Leases) -> None:
        store.hold("task", owner="one", lease=_MINUTE)
        store.let_go("task", owner="two")
        store.let_go("task that nobody has", owner="two")
        assert not store.hold("task", owner="two", lease=_MINUTE)

    def test_task_is_free_that_a_clock_far_ahead_has_given(self, store: Leases) -> None:
        assert store.hold("task", owner="one", lease=timedelta(days=365))
        assert store.hold("task", owner="two", lease=_MINUTE)
        assert not store.hold("task", owner="one", lease=_MINUTE)

    def test_task_of_an_owner_that_is_gone_is_free_when_its_time_is_over(self, store: Leases) -> None:
        store.hold("task", owner="one", lease=timedelta(milliseconds=1))
        deadline = time.monotonic() + 10
        while not store.hold("task", owner="two", lease=_MINUTE):
            assert time.monotonic() < deadline
        assert not store.hold("task", owner="one", lease=_MINUTE)


def _kept(store: ForgettingStore) -> list[Record]:
    return list(store.query(Query(limit=None)))


def _claim(store: DeletingStore) -> Claim:
    claim = store.claim("a", limit=100, lease=_MINUTE)
    assert isinstance(claim, Claim)
    return claim
