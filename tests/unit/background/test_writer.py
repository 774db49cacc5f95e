"""The writer: what it moves from the journal to the store, when, and how it ends."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from flask_chest.background.stats import ChestStats, Tally
from flask_chest.background.writer import (
    ADOPT_SECONDS,
    BATCH_RECORDS,
    COLLECT_SECONDS,
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Writer,
    store_pause_seconds,
)
from flask_chest.errors import JournalClosed, JournalFull
from flask_chest.journal.memory import MemoryJournal
from flask_chest.journal.protocols import Journal
from flask_chest.protocols import Sink
from flask_chest.record import Record
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing.records import make_record
from folders import SUPPORT
from journals import adopted, journal_in, kill, make_records
from sinks import PATIENCE, AwaySink, HangingSink, KeepingSink, Work, until, working

WAITS = "the store takes nothing; records wait in the journal"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture(params=["disk", "memory"])
def journal(request: pytest.FixtureRequest, folder: Path) -> Journal:
    return journal_in(folder) if request.param == "disk" else MemoryJournal(instance="web:1")


@pytest.fixture
def work_for(journal: Journal) -> Callable[[Sink], AbstractContextManager[Work]]:
    return partial(working, journal, tally=Tally(logging.getLogger("flask_chest.tests")))


WorkFor = Callable[[Sink], AbstractContextManager[Work]]


def test_records_come_in_order_and_in_batches_of_at_most_1000(work_for: WorkFor) -> None:
    sink = HangingSink()
    with work_for(sink) as work:
        first, *others = make_records(2_501)
        work.writer.take(first)
        assert sink.entered.wait(PATIENCE)
        work.take(others)
        sink.let.set()
        assert work.writer.flush(PATIENCE)
    assert list(sink.kept.values()) == [first, *others]
    assert sink.tried == [1, BATCH_RECORDS, BATCH_RECORDS, 500]
    assert work.stats == ChestStats(stored=2_501)


def test_writer_waits_a_little_for_records_that_follow(work_for: WorkFor) -> None:
    sink = KeepingSink()
    with work_for(sink) as work:
        first, *others = make_records(5)
        work.writer.take(first)
        until(lambda: len(sink.kept) == 1 and work.writer._ring_at == 1)  # it is idle
        taken = time.monotonic()
        work.take(others)
        until(lambda: len(sink.kept) == 5)
    assert sink.times[1] - taken >= 0.9 * COLLECT_SECONDS
    assert sink.tried == [1, 4]


def test_writer_that_has_nothing_to_do_is_woken_by_a_record(work_for: WorkFor) -> None:
    sink = KeepingSink()
    with work_for(sink) as work:
        for count in (1, 2, 3):
            work.writer.take(make_record())
            taken = time.monotonic()
            until(lambda count=count: len(sink.kept) == count)  # type: ignore[misc]  # mypy cannot infer its type
            assert time.monotonic() - taken < ADOPT_SECONDS / 3


@pytest.mark.slow
def test_requests_that_never_rest_let_the_writer_store(folder: Path, tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "chest.db")
    store.open()
    with working(journal_in(folder), store, tally=Tally(logging.getLogger("flask_chest.tests"))) as work:
        for record in make_records(4_000):
            for _ in range(3_000):
                pass  # what a view computes
            work.writer.take(record)
        # Where it must take Python's lock by itself, it has stored none by now, or one batch.
        assert work.stats.stored >= 2 * BATCH_RECORDS
    store.close()


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_writer_does_not_wait_for_more_records_than_the_journal_holds(
    folder: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_chest.background.writer.COLLECT_SECONDS", PATIENCE * 2)
    max_bytes = 2_000_000
    journal = (
        journal_in(folder, max_bytes=max_bytes)
        if where == "disk"
        else MemoryJournal(instance="web:1", max_bytes=max_bytes)
    )
    sink = KeepingSink()
    with working(journal, sink, tally=Tally(logging.getLogger("flask_chest.tests"))) as work:
        work.take([make_record(variables={"long": "x" * 9_000}) for _ in range(200)])
        until(lambda: len(sink.kept) > 100)


def test_journal_that_moves_to_the_disk_tells_of_its_full_parts_too(folder: Path) -> None:
    on_disk = journal_in(folder, max_bytes=2_000_000)
    tally = Tally(logging.getLogger("flask_chest.tests"))
    sink = KeepingSink()
    memory = MemoryJournal(instance="web:1")
    writer = Writer(memory, lambda: sink, tally, adopt_seconds=0.01, reopen=lambda: on_disk)
    writer.start()
    until(lambda: writer._journal is on_disk)
    writer._filling = False
    for _ in range(200):
        on_disk.append(make_record(variables={"long": "x" * 9_000}))
        if writer._ring_at == 1 and writer._filling:
            break
    else:
        pytest.fail("the writer was not told")
    assert writer.close(PATIENCE)


@pytest.mark.slow
def test_records_that_find_the_journal_full_let_the_writer_make_room(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "chest.db")
    store.open()
    journal = MemoryJournal(instance="web:1", max_bytes=100_000)
    with working(journal, store, tally=Tally(logging.getLogger("flask_chest.tests"))) as work:
        refused = 0
        for record in make_records(20_000):
            try:
                work.writer.take(record)
            except JournalFull:
                refused += 1
        taken = 20_000 - refused
        assert work.stats.stored > taken / 2 > 1_000
    store.close()


def test_many_threads_lose_nothing_and_have_one_writer(work_for: WorkFor) -> None:
    sink = KeepingSink()
    ready = threading.Barrier(8)
    with work_for(sink) as work:
        parts = [make_records(200) for _ in range(8)]

        def take(part: list[Record]) -> None:
            ready.wait(PATIENCE)
            work.take(part)

        threads = [threading.Thread(target=take, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert work.writer.flush(PATIENCE)
    assert sink.kept.keys() == {record.id for part in parts for record in part}
    assert sum(sink.tried) == 1_600
    assert len(sink.threads - {thread.ident for thread in threads} - {threading.get_ident()}) == 1


@pytest.mark.slow
def test_thread_begins_with_the_first_record_and_ends_with_close() -> None:
    code = (
        "import _thread, logging\n"
        "from flask_chest.journal.memory import MemoryJournal\n"
        "from flask_chest.background.stats import Tally\n"
        "from flask_chest.stores.memory import MemoryStore\n"
        "from flask_chest.testing.records import make_record\n"
        "from flask_chest.background.writer import Writer\n"
        "store = MemoryStore()\n"
        "store.open()\n"
        "writer = Writer(MemoryJournal(instance='web:1'), lambda: store, Tally(logging.getLogger()))\n"
        "assert writer.flush(1)\n"
        "counts = [_thread._count()]\n"
        "for _ in range(3):\n"
        "    writer.take(make_record())\n"
        "    assert writer.flush(20)\n"
        "    counts.append(_thread._count())\n"
        "assert writer.close(20)\n"
        "while _thread._count(): pass\n"
        "print(counts)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[0, 1, 1, 1]\n"


def alive(ids: set[str]) -> int:
    """Count the records of these ids that are in memory: other tests may have left some of their own."""
    gc.collect()
    # No proxy is asked for its class.
    return sum(type(found) is Record and found.id in ids for found in gc.get_objects())


@pytest.mark.slow
def test_one_batch_is_in_memory_while_the_store_is_away(work_for: WorkFor) -> None:
    ids = {f"away-{number}" for number in range(3_500)}
    sink = AwaySink()
    with work_for(sink) as work:
        for number in range(3_500):
            work.writer.take(make_record(id=f"away-{number}", variables={"number": number}))
        until(lambda: len(sink.tried) >= 4)
        assert 0 < alive(ids) <= 2 * BATCH_RECORDS
        assert work.stats.waiting == 3_500
        sink.away = False
        assert work.writer.flush(PATIENCE)
    assert sink.numbers == list(range(3_500))
    assert (work.stats.stored, work.stats.waiting, work.stats.lost) == (3_500, 0, {})
    assert work.stats.faults.keys() == {WAITS}


@pytest.mark.slow
def test_absence_of_the_store_is_logged_once(work_for: WorkFor, caplog: pytest.LogCaptureFixture) -> None:
    with work_for(AwaySink()) as work:
        work.writer.take(make_record())
        until(lambda: work.stats.faults.get(WAITS, 0) >= 3)
    # Its own logger's alone: an app of another test may still have something to say.
    said = [record.getMessage() for record in caplog.records if record.name == "flask_chest.tests"]
    assert said == [f"{WAITS} (1 times so far): gone for lunch"]


def test_return_of_the_store_is_logged_once(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    sink = AwaySink()
    with working(journal, sink, Tally(logging.getLogger("flask_chest.tests.return"))) as work:
        for _ in range(2):
            sink.away = True
            work.writer.take(make_record())
            until(lambda: not work.tally.store_answers)
            sink.away = False
            assert work.writer.flush(PATIENCE)
            assert work.tally.store_answers
    said = [record.getMessage() for record in caplog.records if record.name == "flask_chest.tests.return"]
    assert said == [f"{WAITS} (1 times so far): gone for lunch", "the store takes records again (after 0 s)"]


def test_pauses_grow_at_random_to_half_a_minute() -> None:
    pause = partial(store_pause_seconds, away=3600.0)
    draws = {failures: [pause(failures) for _ in range(200)] for failures in (1, 2, 3, 9, 40, 10_000)}
    for failures, pauses in draws.items():
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 20))
        assert longest / 2 <= min(pauses) < max(pauses) <= longest
        assert len(set(pauses)) > 100
    assert max(draws[10_000]) > LONGEST_PAUSE_SECONDS / 2


@pytest.mark.parametrize("failing", [0.0, 0.5, 5.0], ids=lambda seconds: f"attempts fail after {seconds:g} s")
@pytest.mark.parametrize(("away", "within"), [(1.0, 10.0), (5.0, 10.0), (60.0, 35.0), (3600.0, 35.0)])
def test_store_that_is_back_is_found_soon(away: float, within: float, failing: float) -> None:
    for _ in range(200):
        now, failures, first_failure = 0.0, 0, 0.0
        while now < away:
            now += failing
            failures += 1
            first_failure = first_failure or now
            now += store_pause_seconds(failures, away=now - first_failure)
        assert now <= away + within


@pytest.mark.slow
def test_attempts_move_apart_while_the_store_is_away(work_for: WorkFor) -> None:
    sink = AwaySink()
    with work_for(sink) as work:
        work.writer.take(make_record())
        until(lambda: len(sink.times) >= 4)
        work.take(make_records(50))  # wakes nobody
        gaps = [later - earlier for earlier, later in zip(sink.times, sink.times[1:], strict=False)]
    assert all(gap >= FIRST_PAUSE_SECONDS * 2**index / 2 for index, gap in enumerate(gaps[:3]))


def test_flush_does_not_wait_for_the_end_of_a_pause(work_for: WorkFor) -> None:
    sink = AwaySink()
    with work_for(sink) as work:
        # The next pause is of 15 s or more.
        work.writer._failures, work.writer._failing_since = 20, time.monotonic() - 3600
        work.writer.take(make_record(variables={"number": 1}))
        until(lambda: len(sink.tried) == 1)
        sink.away = False
        began = time.monotonic()
        assert work.writer.flush(PATIENCE)
        assert time.monotonic() - began < LONGEST_PAUSE_SECONDS / 4
    assert sink.numbers == [1]


@pytest.mark.slow
def test_flush_tries_no_oftener_than_ten_times_a_second(work_for: WorkFor) -> None:
    sink = AwaySink()
    with work_for(sink) as work:
        work.writer.take(make_record())
        assert not work.writer.flush(0.5)
        assert 2 <= len(sink.tried) <= 8


def test_flush_keeps_to_its_time_while_the_store_hangs(work_for: WorkFor) -> None:
    sink = HangingSink()
    with work_for(sink) as work:
        work.writer.take(make_record())
        began = time.monotonic()
        assert not work.writer.flush(0.05)
        assert 0.05 <= time.monotonic() - began < PATIENCE / 4
        assert work.stats == ChestStats(waiting=1)
        sink.let.set()
        assert work.writer.flush(PATIENCE)
        assert work.stats == ChestStats(stored=1)


def test_close_keeps_to_its_time_while_the_store_hangs(work_for: WorkFor) -> None:
    sink = HangingSink()
    with work_for(sink) as work:
        work.writer.take(make_record())
        began = time.monotonic()
        assert not work.writer.close(0.05)
        assert time.monotonic() - began < PATIENCE / 4


def test_close_stores_what_waits_and_then_nothing_is_taken(work_for: WorkFor) -> None:
    sink = KeepingSink()
    with work_for(sink) as work:
        work.take(make_records(1_500))
        assert work.writer.close(PATIENCE)
        assert work.writer.close(PATIENCE)
        assert sink.numbers == list(range(1_500))
        with pytest.raises(JournalClosed):
            work.writer.take(make_record())
        with pytest.raises(JournalClosed):
            work.writer.take(make_record())
    assert work.stats == ChestStats(stored=1_500)


@pytest.mark.slow
def test_flush_of_a_writer_that_has_ended_does_not_wait(work_for: WorkFor) -> None:
    with work_for(AwaySink()) as work:
        work.writer.take(make_record())
        assert not work.writer.close(0.5)
        until(lambda: work.writer._ended)
        began = time.monotonic()
        assert not work.writer.flush(PATIENCE)
        assert time.monotonic() - began < PATIENCE / 4


def test_what_waits_in_memory_at_the_end_is_counted_as_lost_once(caplog: pytest.LogCaptureFixture) -> None:
    journal = MemoryJournal(instance="web:1")
    with working(journal, AwaySink(), Tally(logging.getLogger("flask_chest.tests"))) as work:
        work.take(make_records(3))
        assert not work.writer.close(0.1)
        assert not work.writer.close(0.1)
        assert work.stats.lost == {"records that waited in memory were not stored before the end": 3}
    assert "records that waited in memory were not stored before the end (3 records lost so far)" in caplog.text


def test_what_waits_on_disk_at_the_end_is_not_lost(folder: Path) -> None:
    with working(journal_in(folder), AwaySink(), Tally(logging.getLogger("flask_chest.tests"))) as work:
        work.take(make_records(3))
        assert not work.writer.close(0.1)
        assert work.stats.lost == {}


def test_writer_that_had_no_record_ends_at_once(work_for: WorkFor) -> None:
    sink = KeepingSink()
    with work_for(sink) as work:
        assert work.writer.flush(0)
        assert work.writer.close(0)
        assert work.writer.close(0)
        with pytest.raises(JournalClosed):
            work.writer.take(make_record())
    assert sink.threads == set()


@pytest.mark.slow
def test_process_that_ends_while_the_store_hangs_leaves_its_records_to_the_next(folder: Path) -> None:
    code = (
        "import logging, os, sys\n"
        "from pathlib import Path\n"
        "from flask_chest.background.stats import Tally\n"
        "from flask_chest.background.writer import Writer\n"
        "from journals import journal_in, make_records\n"
        "from sinks import HangingSink\n"
        "sink = HangingSink()\n"
        "writer = Writer(journal_in(Path(sys.argv[1])), lambda: sink, Tally(logging.getLogger()))\n"
        "for record in make_records(1_200):\n"
        "    writer.take(record)\n"
        "assert sink.entered.wait(20)\n"
        "assert not writer.close(0.05)\n"
    )
    # It ends by itself, too: a thread that hangs holds up no exit.
    subprocess.run([sys.executable, "-c", code, folder], cwd=SUPPORT, timeout=15, check=True)
    assert [record.variables["number"] for record in adopted(folder)] == list(range(1_200))


def test_records_of_a_process_that_is_gone_are_stored_too(folder: Path) -> None:
    former = journal_in(folder)
    for record in make_records(3):
        former.append(record)
    former.close()
    sink = KeepingSink()
    with working(journal_in(folder), sink, Tally(logging.getLogger("flask_chest.tests"))) as work:
        work.writer.take(make_record(variables={"number": 3}))
        until(lambda: len(sink.kept) == 4)
        until(lambda: work.stats == ChestStats(stored=4))


@pytest.mark.slow
def test_records_of_a_process_that_goes_meanwhile_are_stored_too(folder: Path) -> None:
    sink = KeepingSink()
    own, other = journal_in(folder), journal_in(folder)
    with working(own, sink, Tally(logging.getLogger("flask_chest.tests"))) as work:
        work.writer.take(make_record())
        until(lambda: len(sink.kept) == 1)
        for record in make_records(3):
            other.append(record)
        work.writer.take(make_record())
        until(lambda: len(sink.kept) == 2)
        kill(other)
        work.writer._next_adoption = 0.0  # it looks every quarter of a minute
        work.writer.take(make_record())
        until(lambda: work.stats == ChestStats(stored=6))


def test_store_that_exits_does_not_end_the_writer(work_for: WorkFor) -> None:
    class ExitingSink(KeepingSink):
        def judge(self, records: object) -> None:
            if len(self.tried) == 1:
                raise SystemExit(1)

    sink = ExitingSink()
    with work_for(sink) as work:
        work.writer.take(make_record(variables={"number": 1}))
        assert work.writer.flush(PATIENCE)
    assert sink.numbers == [1]


def test_thread_that_does_not_start_is_counted_and_tried_again(
    work_for: WorkFor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_more(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    sink = KeepingSink()
    with work_for(sink) as work:
        with monkeypatch.context() as limited:
            limited.setattr("_thread.start_new_thread", no_more)
            work.writer.take(make_record(variables={"number": 1}))
            assert not work.writer.flush(0.01)
        assert work.stats.waiting == 1
        assert "the writer's thread did not start; records wait in the journal" in caplog.text
        assert work.writer.flush(PATIENCE)
    assert sink.numbers == [1]


def test_abandoned_writer_starts_nothing_and_waits_for_nothing(work_for: WorkFor) -> None:
    sink = HangingSink()
    with work_for(sink) as work:
        work.writer.take(make_record())
        assert sink.entered.wait(PATIENCE)
        work.writer.abandon()
        with pytest.raises(JournalClosed):
            work.writer.take(make_record())
        began = time.monotonic()
        work.writer.flush(PATIENCE)
        work.writer.close(PATIENCE)
        assert time.monotonic() - began < PATIENCE / 4
