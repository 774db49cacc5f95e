"""What an export run does with records that a target never takes, and what an app's own filter does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from msgspec.structs import replace

from flask_chest import Query, Record, RecordsRejected, TargetUnavailable
from flask_chest.background.export_run import ExportReport, ExportRun, RecordFilter
from flask_chest.background.poison import MOST_PROBES
from flask_chest.protocols import Busy, Claim
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import RecordingExporter, make_record
from ids import steady

PATIENCE = 20.0


class Particular(RecordingExporter):
    """Takes no batch with a record of the numbers in *disliked*, and raises what *error* makes of those."""

    def __init__(self, disliked: set[int], error: Callable[[Sequence[Record]], Exception]) -> None:
        super().__init__()
        self.disliked = disliked
        self.error = error
        self.calls: list[int] = []

    def export(self, records: Sequence[Record], /) -> None:
        self.calls.append(len(records))
        culprits = [record for record in records if record.variables["number"] in self.disliked]
        if culprits:
            raise self.error(culprits)
        super().export(records)

    @property
    def numbers(self) -> list[int]:
        return sorted(int(str(record.variables["number"])) for record in self.delivered)


def naming(culprits: Sequence[Record]) -> Exception:
    return RecordsRejected("too old", {record.id: "too old" for record in culprits})


def naming_none(_: Sequence[Record]) -> Exception:
    return RecordsRejected("one is too old")


def crashing(_: Sequence[Record]) -> Exception:
    return KeyError("token hunter2")


def unplugged(_: Sequence[Record]) -> Exception:
    return ConnectionRefusedError("no route")


def store_of(count: int) -> MemoryStore:
    store = MemoryStore()
    store.open()
    store.write([make_record(variables={"number": number}) for number in range(count)])
    return store


def run(store: MemoryStore, exporter: RecordingExporter, *, suspicious: bool = False) -> ExportReport:
    return ExportRun(store, exporter, suspicious=suspicious).report()


def reasons(store: MemoryStore) -> dict[object, str]:
    numbers = {record.id: record.variables["number"] for record in store.query(Query(limit=None))}
    return {numbers[each.record_id]: each.reason for each in store.rejections("recording")}


@pytest.mark.parametrize("disliked", [{0}, {999}, {500}, {3, 4, 5, 700}, set(range(0, 1_000, 100))], ids=steady)
@pytest.mark.parametrize(
    ("error", "reason"), [(naming, "too old"), (naming_none, "one is too old"), (crashing, "builtins.KeyError")]
)
def test_culprits_are_set_aside_within_one_run_and_the_others_arrive(
    error: Callable[[Sequence[Record]], Exception], reason: str, disliked: set[int]
) -> None:
    store, exporter = store_of(1_000), Particular(disliked, error)
    report = run(store, exporter, suspicious=True)
    assert (report.delivered, report.rejected, report.pending, report.error) == (
        1_000 - len(disliked),
        len(disliked),
        0,
        None,
    )
    assert exporter.numbers == sorted(set(range(1_000)) - disliked)
    assert reasons(store).keys() == disliked
    assert all(each.startswith(reason) for each in reasons(store).values())
    assert "hunter2" not in str(reasons(store))


def test_reason_tells_how_often_the_record_was_tried() -> None:
    store = store_of(4)
    run(store, Particular({2}, naming_none))
    assert reasons(store) == {2: "one is too old (3 attempts)"}


def test_exporter_that_crashes_is_not_searched_before_it_did_so_several_times() -> None:
    store, exporter = store_of(10), Particular({3}, crashing)
    report = run(store, exporter)
    assert (report.delivered, report.rejected, report.pending) == (0, 0, 10)
    assert exporter.calls == [10]


@pytest.mark.parametrize("count", [2, 3, MOST_PROBES, 1_000])
def test_target_that_crashes_at_every_record_has_none_set_aside(count: int) -> None:
    store, exporter = store_of(count), Particular(set(range(count)), crashing)
    report = run(store, exporter, suspicious=True)
    assert (report.delivered, report.rejected, report.pending) == (0, 0, count)
    assert report.error == "recording raised builtins.KeyError"


def test_target_that_goes_away_during_the_search_has_none_set_aside() -> None:
    class Leaving(Particular):
        def export(self, records: Sequence[Record], /) -> None:
            if len(self.calls) == 5:
                raise TargetUnavailable("gone for lunch")
            super().export(records)

    store, exporter = store_of(100), Leaving({3}, naming_none)
    report = run(store, exporter)
    assert (report.rejected, report.pending, report.error) == (0, 100, "gone for lunch")
    exporter.calls.clear()
    assert run(store, Particular({3}, naming_none)).rejected == 1


def test_batch_that_is_refused_whole_is_set_aside_without_a_try_for_each() -> None:
    store, exporter = store_of(1_000), Particular(set(range(1_000)), naming_none)
    report = run(store, exporter)
    assert (report.delivered, report.rejected, report.pending) == (0, 1_000, 0)
    assert len(exporter.calls) < 60


def test_one_good_record_among_the_refused_is_delivered() -> None:
    for good in (0, 7, 8, 9, 400, 999):
        store, exporter = store_of(1_000), Particular(set(range(1_000)) - {good}, naming)
        assert run(store, exporter).delivered == 1
        assert exporter.numbers == [good]


def test_record_that_is_alone_does_not_block_its_exporter_for_ever() -> None:
    store, exporter = store_of(1), Particular({0}, crashing)
    assert run(store, exporter).pending == 1
    report = run(store, exporter, suspicious=True)
    assert (report.rejected, report.pending) == (1, 0)


def test_network_that_fails_is_no_fault_of_the_record_that_is_alone() -> None:
    store, exporter = store_of(1), Particular({0}, unplugged)
    assert run(store, exporter, suspicious=True).pending == 1


class TestSelection:
    def test_only_what_the_filter_wants_is_delivered(self) -> None:
        store, exporter = store_of(10), RecordingExporter()
        selection = RecordFilter(wanted=lambda record: record.variables["number"] != 3)
        report = ExportRun(store, exporter, batch_size=4, record_filter=selection).report()
        assert (report.delivered, report.filtered, report.rejected, report.pending) == (9, 1, 0, 0)
        assert [record.variables["number"] for record in exporter.delivered] == [0, 1, 2, 4, 5, 6, 7, 8, 9]

    def test_transform_changes_what_is_delivered_and_nothing_in_the_store(self) -> None:
        store, exporter = store_of(3), RecordingExporter()

        def without_number(record: Record) -> Record | None:
            return None if record.variables["number"] == 1 else replace(record, variables={})

        report = ExportRun(store, exporter, record_filter=RecordFilter(transform=without_number)).report()
        assert (report.delivered, report.filtered) == (2, 1)
        assert [dict(record.variables) for record in exporter.delivered] == [{}, {}]
        assert all("number" in record.variables for record in store.query(Query(limit=None)))

    @pytest.mark.parametrize("option", ["wanted", "transform"])
    def test_record_at_which_the_apps_function_raises_is_set_aside(self, option: str) -> None:
        def touchy(record: Record) -> object:
            if record.variables["number"] == 1:
                raise ValueError("hunter2")
            return record if option == "transform" else True

        store, exporter = store_of(3), RecordingExporter()
        report = ExportRun(store, exporter, record_filter=RecordFilter(**{option: touchy})).report()  # type: ignore[arg-type]  # one of two
        assert (report.delivered, report.rejected, report.filtered, report.pending) == (2, 1, 0, 0)
        assert reasons(store) == {1: "its filter or transform failed: builtins.ValueError"}

    def test_record_whose_id_was_changed_is_set_aside(self) -> None:
        store, exporter = store_of(1), RecordingExporter()
        selection = RecordFilter(transform=lambda record: replace(record, id="another"))
        assert ExportRun(store, exporter, record_filter=selection).report().rejected == 1
        assert reasons(store) == {0: "its transform changed its id"}


class TestLease:
    def test_is_renewed_while_a_batch_is_delivered(self) -> None:
        store = store_of(1)
        length = timedelta(milliseconds=60)

        class Slow(RecordingExporter):
            def export(self, records: Sequence[Record], /) -> None:
                claim = store.claim("recording", limit=1, lease=length)
                assert isinstance(claim, Busy)
                first = claim.until_unix_nano
                waiting = threading.Event()
                # Until the lease was renewed several times, which takes longer than the lease itself.
                while claim.until_unix_nano < first + 3 * 60_000_000:
                    waiting.wait(0.005)
                    claim = store.claim("recording", limit=1, lease=length)
                    assert isinstance(claim, Busy)
                super().export(records)

        report = ExportRun(store, Slow(), lease=length).report()
        assert (report.delivered, report.error) == (1, None)

    def test_run_that_lost_it_ends_its_search(self) -> None:
        store = store_of(100)
        length = timedelta(milliseconds=30)
        taken = threading.Event()

        class Robbed(Particular):
            def export(self, records: Sequence[Record], /) -> None:
                if not taken.is_set():
                    store.release(self.claim)
                    assert isinstance(store.claim("recording", limit=1, lease=timedelta(minutes=1)), Claim)
                    taken.set()
                if len(self.calls) == 1:
                    while not robbed._lease.lost:
                        threading.Event().wait(0.002)
                super().export(records)

            claim: Claim

        exporter = Robbed({3}, naming_none)
        robbed = ExportRun(store, exporter, lease=length)
        claim = store.claim

        def remember(*arguments: object, **options: object) -> object:
            found = claim(*arguments, **options)  # type: ignore[arg-type]  # passed on as they came
            if isinstance(found, Claim) and not taken.is_set():
                exporter.claim = found
            return found

        store.claim = remember  # type: ignore[method-assign, assignment]  # to know the claim of the run
        report = robbed.report()
        assert report.delivered == 0
        assert report.error == "recording lost its claim; another process delivers the batch"
        assert len(exporter.calls) < 5


def test_run_ends_between_two_batches_when_it_is_told() -> None:
    store, exporter = store_of(10), RecordingExporter()
    left = iter([True, True, False])
    report = ExportRun(store, exporter, batch_size=2, go_on=lambda: next(left)).report()
    assert (report.delivered, report.pending, report.error) == (4, 6, None)
