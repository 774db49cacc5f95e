"""What the writer does with records that a store never takes, and with stores that take none."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from flask_chest.background.poison import MOST_PROBES, PATIENCE
from flask_chest.background.stats import ChestStats, Tally
from flask_chest.errors import RecordRefused, StoreUnavailable
from flask_chest.journal.memory import MemoryJournal
from flask_chest.journal.protocols import Journal
from flask_chest.record import Record
from ids import steady
from journals import adopted, journal_in, make_records
from sinks import (
    AwaySink,
    KeepingSink,
    ParticularSink,
    Work,
    crashing,
    naming_all,
    naming_none,
    naming_one,
    working,
)

SECONDS = 300.0
CALLS_FOR_ONE_OF_1000 = 22
"""To come by halves to one of a thousand records takes ten steps of two calls, and two more."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(folder: Path) -> Journal:
    return journal_in(folder)


def fill(journal: Journal, count: int) -> list[Record]:
    """Let *count* records wait before the writer begins, so that they are one batch if they can be."""
    records = make_records(count)
    for record in records[:-1]:
        journal.append(record)
    return records


@pytest.fixture
def work_on(journal: Journal) -> Iterator[Callable[[KeepingSink, int], Work]]:
    """Begin to move so many records to a sink, all of them one batch."""
    with_tally = partial(working, journal, tally=Tally(logging.getLogger("flask_chest.tests")))
    contexts = []

    def begin(sink: KeepingSink, count: int) -> Work:
        contexts.append(with_tally(sink))
        work = contexts[-1].__enter__()
        work.writer.take(fill(journal, count)[-1])
        return work

    yield begin
    for context in contexts:
        context.__exit__(None, None, None)


WorkOn = Callable[[KeepingSink, int], Work]


def set_aside(folder: Path) -> dict[object, str]:
    """Read the reason for each number from the file of the records that were set aside."""
    path = folder / "refused"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert all(line.keys() == {"time_unix_nano", "reason", "record"} for line in lines)
    assert len({line["record"]["id"] for line in lines}) == len(lines)
    return {line["record"]["variables"]["number"]: line["reason"] for line in lines}


def hurry_until(work: Work, happens: Callable[[], bool]) -> None:
    """Make the writer try again and again, as somebody who waits for it does, and always in vain."""
    deadline = time.monotonic() + SECONDS
    while not happens():
        assert time.monotonic() < deadline
        assert not work.writer.flush(0.1)


def others(count: int, disliked: set[int]) -> list[int]:
    return [number for number in range(count) if number not in disliked]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (naming_all, "too wide"),
        (naming_one, "too wide"),
        (naming_none, "one of them is too wide"),
        (crashing, "builtins.ValueError"),
    ],
)
@pytest.mark.parametrize("disliked", [{0}, {999}, {500}, {3, 4, 5, 700}, set(range(20))], ids=steady)
def test_records_that_are_never_taken_are_set_aside_and_the_others_stored(
    work_on: WorkOn, folder: Path, error: Callable[[Sequence[Record]], Exception], reason: str, disliked: set[int]
) -> None:
    sink = ParticularSink(disliked, error)
    work = work_on(sink, 1_000)
    assert work.writer.flush(SECONDS)
    assert sorted(sink.numbers, key=str) == sorted(others(1_000, disliked), key=str)
    assert set_aside(folder) == dict.fromkeys(disliked, reason)
    stats = work.stats
    assert (stats.stored, stats.set_aside, stats.lost) == (1_000 - len(disliked), len(disliked), {})


def test_what_is_set_aside_is_the_record_as_it_was(work_on: WorkOn, folder: Path) -> None:
    sink = ParticularSink({1}, naming_all)
    work = work_on(sink, 3)
    assert work.writer.flush(SECONDS)
    line = json.loads((folder / "refused").read_text())
    record = next(iter(sink.kept.values()))
    assert line["record"].keys() == set(record.__struct_fields__)
    assert line["record"]["variables"] == {"number": 1}
    assert line["time_unix_nano"] > record.time_unix_nano


@pytest.mark.slow
def test_store_that_names_one_culprit_at_a_time_may_name_hundreds(work_on: WorkOn, folder: Path) -> None:
    disliked = set(range(0, 1_000, 2)) | set(range(700))
    sink = ParticularSink(disliked, naming_one)
    work = work_on(sink, 1_000)
    assert work.writer.flush(SECONDS)
    assert sink.numbers == others(1_000, disliked)
    assert set_aside(folder).keys() == disliked


def test_store_that_refuses_each_record_alone_has_all_set_aside(work_on: WorkOn, folder: Path) -> None:
    work = work_on(ParticularSink(range(20), naming_none), 20)
    assert work.writer.flush(SECONDS)
    assert set_aside(folder).keys() == set(range(20))
    assert (work.stats.stored, work.stats.set_aside) == (0, 20)


def test_refusal_of_records_that_were_not_given_sets_none_aside(work_on: WorkOn, folder: Path) -> None:
    class ConfusedSink(KeepingSink):
        def judge(self, records: Sequence[Record]) -> None:
            if len(records) > 4:
                raise RecordRefused("somebody", {"somebody": "unknown"})

    sink = ConfusedSink()
    work = work_on(sink, 10)
    assert work.writer.flush(SECONDS)
    assert len(sink.kept) == 10
    assert set_aside(folder) == {}


def test_one_poison_record_costs_few_calls_once_patience_is_at_its_end(work_on: WorkOn) -> None:
    sink = ParticularSink({321}, crashing)
    work = work_on(sink, 1_000)
    assert work.writer.flush(SECONDS)
    assert sink.tried[: PATIENCE + 1] == [1_000] * (PATIENCE + 1)
    assert len(sink.tried) - PATIENCE <= CALLS_FOR_ONE_OF_1000


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, MOST_PROBES, 1_000])
def test_store_that_fails_at_everything_has_nothing_set_aside(work_on: WorkOn, folder: Path, count: int) -> None:
    sink = ParticularSink(range(count), crashing)
    work = work_on(sink, count)
    hurry_until(work, lambda: sink.tried.count(count) >= PATIENCE + 3)
    attempts = sink.tried.count(count)
    probes = len(sink.tried) - attempts
    assert 0 < probes <= (attempts - PATIENCE) * (CALLS_FOR_ONE_OF_1000 + 2 * MOST_PROBES)
    assert (work.stats.waiting, work.stats.set_aside, work.stats.lost) == (count, 0, {})
    assert set_aside(folder) == {}
    sink.disliked.clear()  # it was mended
    assert work.writer.flush(SECONDS)
    assert sorted(sink.numbers, key=str) == sorted(range(count), key=str)


@pytest.mark.slow
def test_store_that_is_away_is_not_asked_for_a_culprit(work_on: WorkOn) -> None:
    sink = AwaySink()
    work = work_on(sink, 20)
    hurry_until(work, lambda: len(sink.tried) >= PATIENCE + 3)
    assert set(sink.tried) == {20}


@pytest.mark.slow
def test_patience_begins_anew_with_each_success(work_on: WorkOn) -> None:
    sink = AwaySink()
    work = work_on(sink, 20)
    hurry_until(work, lambda: len(sink.tried) >= PATIENCE + 1)
    sink.away = False
    assert work.writer.flush(SECONDS)
    sink.away = True
    before = len(sink.tried)
    work.writer.take(make_records(1)[0])
    hurry_until(work, lambda: len(sink.tried) > before)
    assert work.writer._failures < PATIENCE


@pytest.mark.slow
@pytest.mark.parametrize("on_disk", [True, False], ids=["disk", "memory"])
def test_poison_record_that_is_alone_waits_for_one_that_proves_the_store_well(
    folder: Path, on_disk: bool
) -> None:
    sink = ParticularSink({0}, crashing)
    journal = journal_in(folder) if on_disk else MemoryJournal(instance="web:1")
    first, second = make_records(2)
    with working(journal, sink, Tally(logging.getLogger("flask_chest.tests"))) as work:
        work.writer.take(first)
        hurry_until(work, lambda: len(sink.tried) >= PATIENCE + 2)
        assert work.stats.waiting == 1
        work.writer.take(second)
        assert work.writer.flush(SECONDS)
    assert sink.numbers == [1]
    stats = work.stats
    assert (stats.set_aside, sum(stats.lost.values())) == ((1, 0) if on_disk else (0, 1))


def test_store_that_goes_away_during_the_search_sets_nothing_aside_until_it_is_back(
    work_on: WorkOn, folder: Path
) -> None:
    class LeavingSink(ParticularSink):
        away = True

        def judge(self, records: Sequence[Record]) -> None:
            if self.away and len(records) < 100:
                raise StoreUnavailable("gone for lunch")
            super().judge(records)

    sink = LeavingSink({7}, naming_none)
    work = work_on(sink, 1_000)
    assert not work.writer.flush(0.3)
    assert set_aside(folder) == {}
    sink.away = False
    assert work.writer.flush(SECONDS)
    assert set_aside(folder) == {7: "one of them is too wide"}
    assert len(sink.kept) == 999


class AnsweringSink(KeepingSink):
    """Returns what nobody asked for."""

    answers = True

    def write(self, records: Sequence[Record], /) -> int | None:  # type: ignore[override]  # the mistake
        super().write(records)
        return len(records) if self.answers else None


@pytest.mark.slow
def test_store_that_breaks_its_contract_loses_nothing(
    work_on: WorkOn, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = AnsweringSink()
    work = work_on(sink, 20)
    hurry_until(work, lambda: sink.tried.count(20) >= PATIENCE + 2)
    assert (work.stats.stored, work.stats.waiting, work.stats.set_aside) == (0, 20, 0)
    assert "AnsweringSink.write returned int, must be None (and not async)" in caplog.text
    sink.answers = False
    assert work.writer.flush(SECONDS)
    assert work.stats.stored == 20


def test_no_text_of_a_foreign_error_is_logged_or_set_aside(
    work_on: WorkOn, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = work_on(ParticularSink({1}, crashing), 3)
    assert work.writer.flush(SECONDS)
    assert "builtins.ValueError" in caplog.text
    assert "hunter2" not in caplog.text + (folder / "refused").read_text()


def test_refused_record_is_lost_where_it_cannot_be_set_aside(caplog: pytest.LogCaptureFixture) -> None:
    sink = ParticularSink({1, 2}, naming_all)
    journal = MemoryJournal(instance="web:1")
    with working(journal, sink, Tally(logging.getLogger("flask_chest.tests"))) as work:
        work.take(make_records(5))
        assert work.writer.flush(SECONDS)
    assert work.stats == ChestStats(
        stored=3, lost={"the store refused a record, which could not be set aside": 2}
    )
    assert len(caplog.messages) == 1


def test_record_that_was_set_aside_does_not_come_again(work_on: WorkOn, folder: Path) -> None:
    work = work_on(ParticularSink({1}, naming_all), 3)
    assert work.writer.close(SECONDS)
    assert adopted(folder) == []
