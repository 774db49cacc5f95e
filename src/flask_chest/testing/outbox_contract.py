"""What a store that hands out records to exporters must do."""
# ruff: noqa: D102 - a test's name states the fact

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Protocol

from flask_chest.protocols import Busy, Claim, ExporterRegistry, Outbox, Rejections, Store
from flask_chest.record import Record
from flask_chest.testing.records import make_record

PATIENCE = 20.0
"""Seconds until a test that waits for something fails."""

_MINUTE = timedelta(minutes=1)
_MOMENT = timedelta(milliseconds=30)


class DeliveringStore(Store, Outbox, ExporterRegistry, Rejections, Protocol):
    """A store with all that exporters need."""


class OutboxContract:
    """What claims, exporters and rejections must do; needs the fixture *store*, which is open and empty."""

    def test_nothing_is_claimed_where_nothing_is_pending(self, store: DeliveringStore) -> None:
        assert store.claim("a", limit=10, lease=_MINUTE) is None

    def test_records_are_claimed_in_the_order_in_which_they_were_stored(self, store: DeliveringStore) -> None:
        records = [make_record(time_unix_nano=time) for time in (5, 1, 4, 2, 3)]
        for record in records:
            store.write([record])
        assert list(_claim(store).records) == records

    def test_every_record_is_claimed_exactly_once(self, store: DeliveringStore) -> None:
        records = [make_record() for _ in range(25)]
        store.write(records)
        batches = list(_deliver_all(store, limit=10))
        assert [len(batch) for batch in batches] == [10, 10, 5]
        assert [record for batch in batches for record in batch] == records

    def test_record_that_is_written_again_is_not_claimed_again(self, store: DeliveringStore) -> None:
        record = make_record()
        store.write([record])
        assert list(_deliver_all(store)) == [[record]]
        store.write([record])
        assert store.claim("a", limit=10, lease=_MINUTE) is None

    def test_exporters_do_not_hide_records_from_each_other(self, store: DeliveringStore) -> None:
        records = [make_record() for _ in range(3)]
        store.write(records)
        assert list(_claim(store, "a").records) == records
        assert list(_claim(store, "b").records) == records

    def test_claim_that_a_clock_far_ahead_has_given_keeps_nobody_out(self, store: DeliveringStore) -> None:
        store.write([make_record()])
        lost = _claim(store, lease=timedelta(days=365))
        held = _claim(store)
        assert held.records == lost.records
        assert isinstance(store.claim("a", limit=10, lease=_MINUTE), Busy)
        assert not store.acknowledge(lost)
        assert store.acknowledge(held)

    def test_live_claim_keeps_others_out(self, store: DeliveringStore) -> None:
        store.write([make_record()])
        claim = _claim(store)
        busy = store.claim("a", limit=10, lease=_MINUTE)
        assert isinstance(busy, Busy)
        assert busy.until_unix_nano == claim.deadline_unix_nano
        assert busy.holder

    def test_one_of_many_threads_gets_the_claim(self, store: DeliveringStore) -> None:
        store.write([make_record()])
        start = threading.Barrier(8)

        def claim(_: int) -> Claim | Busy | None:
            start.wait()
            return store.claim("a", limit=10, lease=_MINUTE)

        with ThreadPoolExecutor(8) as threads:
            results = list(threads.map(claim, range(8)))
        assert sum(isinstance(result, Claim) for result in results) == 1
        assert sum(isinstance(result, Busy) for result in results) == 7

    def test_batch_of_an_expired_claim_is_claimed_again_as_it_was(self, store: DeliveringStore) -> None:
        store.write([make_record() for _ in range(5)])
        lost = _claim(store, limit=3, lease=_MOMENT)
        store.write([make_record()])
        again = _claim_after_expiry(store, limit=1)
        assert again.records == lost.records
        assert again.token > lost.token

    def test_batch_of_a_released_claim_is_claimed_again_at_once(self, store: DeliveringStore) -> None:
        store.write([make_record() for _ in range(5)])
        released = _claim(store, limit=3)
        store.release(released)
        again = _claim(store, limit=5)
        assert again.records == released.records
        assert again.token > released.token

    def test_lost_claim_can_change_nothing(self, store: DeliveringStore) -> None:
        records = [make_record() for _ in range(5)]
        store.write(records)
        lost = _claim(store, limit=3, lease=_MOMENT)
        holder = _claim_after_expiry(store)
        assert not store.acknowledge(lost, rejected={records[0].id: "a stale word"})
        assert not store.renew(lost, lease=_MINUTE)
        store.release(lost)
        assert isinstance(store.claim("a", limit=10, lease=_MINUTE), Busy)
        assert list(store.rejections("a")) == []
        assert store.acknowledge(holder)
        assert list(_claim(store).records) == records[3:]

    def test_released_claim_can_change_nothing(self, store: DeliveringStore) -> None:
        record = make_record()
        store.write([record])
        released = _claim(store)
        store.release(released)
        assert not store.acknowledge(released)
        assert not store.renew(released, lease=_MINUTE)
        assert list(_claim(store).records) == [record]

    def test_late_holder_may_acknowledge_while_nobody_took_over(self, store: DeliveringStore) -> None:
        store.write([make_record()])
        late = _claim(store, lease=timedelta(0))
        assert store.acknowledge(late)
        assert store.claim("a", limit=10, lease=_MINUTE) is None

    def test_acknowledging_again_is_harmless(self, store: DeliveringStore) -> None:
        records = [make_record() for _ in range(2)]
        store.write(records)
        claim = _claim(store, limit=1)
        assert store.acknowledge(claim)
        assert store.acknowledge(claim)
        store.release(claim)
        following = _claim(store)
        assert list(following.records) == records[1:]
        store.acknowledge(claim)
        assert isinstance(store.claim("a", limit=10, lease=_MINUTE), Busy)

    def test_renewed_claim_outlives_its_first_deadline(self, store: DeliveringStore) -> None:
        store.write([make_record()])
        claim = _claim(store, lease=_MOMENT)
        assert store.renew(claim, lease=_MINUTE)
        busy = store.claim("a", limit=10, lease=_MINUTE)
        assert isinstance(busy, Busy)
        assert busy.until_unix_nano > claim.deadline_unix_nano

    def test_claim_that_has_ended_cannot_be_renewed(self, store: DeliveringStore) -> None:
        store.write([make_record()])
        claim = _claim(store)
        assert store.acknowledge(claim)
        assert not store.renew(claim, lease=_MINUTE)

    def test_rejected_records_are_set_aside_with_their_reasons(self, store: DeliveringStore) -> None:
        records = [make_record() for _ in range(4)]
        store.write(records)
        claim = _claim(store)
        reasons = {
            records[2].id: "too 'long' 😀",
            records[1].id: "no such field",
            "unknown": "not in the batch",
        }
        assert store.acknowledge(claim, rejected=reasons)
        aside = {rejection.record_id: rejection.reason for rejection in store.rejections("a")}
        assert aside == {records[1].id: "no such field", records[2].id: "too 'long' 😀"}
        assert store.claim("a", limit=10, lease=_MINUTE) is None
        assert list(store.rejections("b")) == []

    def test_last_error_is_told_until_a_delivery_succeeds(self, store: DeliveringStore) -> None:
        first, second = make_record(), make_record()
        store.write([first])
        store.write([second])
        store.release(_claim(store, limit=1), error="it is away")
        (failed,) = store.exporters()
        assert failed.last_error == "it is away"
        assert failed.next_unix_nano == first.time_unix_nano
        assert store.acknowledge(_claim(store, limit=1))
        (ended,) = store.exporters()
        assert (ended.last_error, ended.next_unix_nano) == (None, second.time_unix_nano)

    def test_discarded_rejections_are_gone_and_the_others_stay(self, store: DeliveringStore) -> None:
        records = [make_record() for _ in range(3)]
        store.write(records)
        for exporter in ("a", "b"):
            claim = _claim(store, exporter)
            assert store.acknowledge(claim, rejected={record.id: "no" for record in records})
        assert store.discard("a", [records[0].id, records[2].id, "unknown"]) == 2
        assert [each.record_id for each in store.rejections("a")] == [records[1].id]
        assert len(list(store.rejections("b"))) == 3
        assert store.discard("a", []) == store.discard("nobody", [records[1].id]) == 0

    def test_rejections_come_oldest_first(self, store: DeliveringStore) -> None:
        records = [make_record() for _ in range(3)]
        store.write(records)
        for record in records:
            assert store.acknowledge(_claim(store, limit=1), rejected={record.id: "no"})
        rejections = list(store.rejections("a", timeout=_MINUTE))
        assert [rejection.record_id for rejection in rejections] == [record.id for record in records]
        times = [rejection.time_unix_nano for rejection in rejections]
        assert times == sorted(times)

    def test_exporter_registered_now_skips_what_is_kept(self, store: DeliveringStore) -> None:
        store.write([make_record()])
        store.register("a", start_at="now")
        assert store.claim("a", limit=10, lease=_MINUTE) is None
        record = make_record()
        store.write([record])
        assert list(_claim(store).records) == [record]

    def test_exporter_registered_from_the_beginning_gets_what_is_kept(self, store: DeliveringStore) -> None:
        record = make_record()
        store.write([record])
        store.register("a")
        assert list(_claim(store).records) == [record]

    def test_known_exporter_stays_where_it_is(self, store: DeliveringStore) -> None:
        records = [make_record() for _ in range(2)]
        store.write(records)
        assert store.acknowledge(_claim(store, limit=1))
        store.register("a", start_at="now")
        store.register("a", start_at="beginning")
        assert list(_claim(store).records) == records[1:]

    def test_exporters_are_listed_by_name_with_their_backlog(self, store: DeliveringStore) -> None:
        store.register("b")
        store.write([make_record() for _ in range(3)])
        first = _claim(store, "a", limit=1)
        claimed, waiting = store.exporters(timeout=_MINUTE)
        assert (claimed.name, claimed.backlog, claimed.last_success_unix_nano) == ("a", 3, None)
        assert claimed.next_unix_nano is not None
        assert claimed.lease_until_unix_nano == first.deadline_unix_nano
        assert claimed.holder
        assert (waiting.name, waiting.backlog, waiting.holder) == ("b", 3, None)
        store.acknowledge(first, rejected={first.records[0].id: "no"})
        ended = store.exporters()[0]
        assert (ended.backlog, ended.rejected, ended.holder, ended.lease_until_unix_nano) == (
            2,
            1,
            None,
            None,
        )
        assert ended.last_success_unix_nano is not None
        assert ended.last_seen_unix_nano >= claimed.last_seen_unix_nano > 0

    def test_dropped_exporter_begins_anew(self, store: DeliveringStore) -> None:
        record = make_record()
        store.write([record])
        store.acknowledge(_claim(store), rejected={record.id: "no"})
        assert store.drop("a")
        assert list(store.exporters()) == []
        assert list(store.rejections("a")) == []
        assert list(_claim(store).records) == [record]

    def test_exporter_that_is_not_known_cannot_be_dropped(self, store: DeliveringStore) -> None:
        assert not store.drop("a")

    def test_claim_from_before_a_drop_can_change_nothing(self, store: DeliveringStore) -> None:
        store.write([make_record()])
        before = _claim(store)
        store.drop("a")
        assert not store.acknowledge(before)
        _claim(store)
        assert not store.acknowledge(before)
        assert store.exporters()[0].backlog == 1

    def test_records_are_claimed_exactly_once_while_others_write(self, store: DeliveringStore) -> None:
        batches = [[make_record() for _ in range(5)] for _ in range(80)]
        written = sorted(record.id for batch in batches for record in batch)

        def write(mine: list[list[Record]]) -> None:
            for batch in mine:
                store.write(batch)

        claimed: list[str] = []
        deadline = time.monotonic() + PATIENCE
        with ThreadPoolExecutor(8) as threads:
            writing = [threads.submit(write, batches[thread::8]) for thread in range(8)]
            while len(claimed) < len(written) and time.monotonic() < deadline:
                for batch in _deliver_all(store, limit=7):
                    claimed += [record.id for record in batch]
            for future in writing:
                future.result()
        assert sorted(claimed) == written
        assert store.claim("a", limit=10, lease=_MINUTE) is None


def _claim(store: DeliveringStore, exporter: str = "a", *, limit: int = 10, lease: timedelta = _MINUTE) -> Claim:
    claim = store.claim(exporter, limit=limit, lease=lease)
    assert isinstance(claim, Claim)
    assert claim.exporter == exporter
    return claim


def _claim_after_expiry(store: DeliveringStore, *, limit: int = 10) -> Claim:
    deadline = time.monotonic() + PATIENCE
    while isinstance(claim := store.claim("a", limit=limit, lease=_MINUTE), Busy):
        assert time.monotonic() < deadline, "the lease never expired"
        time.sleep(0.005)
    assert isinstance(claim, Claim)
    return claim


def _deliver_all(store: DeliveringStore, *, limit: int = 10) -> Iterator[list[Record]]:
    """Claim and acknowledge until nothing is pending; yield the batches."""
    while (claim := store.claim("a", limit=limit, lease=_MINUTE)) is not None:
        assert isinstance(claim, Claim)
        yield list(claim.records)
        assert store.acknowledge(claim)
