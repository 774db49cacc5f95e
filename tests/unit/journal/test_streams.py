"""Streamed responses: a record that was opened is given once, complete or as interrupted, never both."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from flask_chest.errors import JournalFull
from flask_chest.extension.settings import MIN_JOURNAL_BYTES
from flask_chest.journal import _appender
from flask_chest.journal._appender import Appender
from flask_chest.journal._frames import COMPLETE, encode_record
from flask_chest.journal._segments import segments_in
from flask_chest.record import Record
from flask_chest.testing.records import make_record
from journals import adopted, drain, journal_config, journal_in, kill, make_records, segment_paths


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_appender, "MAX_SEGMENT_BYTES", 1_500)


def completed(opened: Record) -> Record:
    return msgspec.structs.replace(opened, duration_ns=opened.duration_ns + 1, variables={"rows": 7})


def interrupted(opened: Record) -> Record:
    return msgspec.structs.replace(opened, error="interrupted")


def given_for(opened: Record, records: list[Record]) -> list[Record]:
    return [record for record in records if record.id == opened.id]


def test_opened_record_is_held_back_while_its_owner_lives(tmp_path: Path) -> None:
    journal, other = journal_in(tmp_path), journal_in(tmp_path)
    journal.append_opened(make_record())
    other.adopt()
    assert drain(journal) == drain(other) == []
    assert journal.waiting() == 0


def test_completion_resolves_what_was_opened(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    opened = make_record()
    journal.append_opened(opened)
    assert drain(journal) == []
    assert journal.append(completed(opened)) == 1
    assert drain(journal) == [completed(opened)]
    assert journal.waiting() == 0
    kill(journal)
    assert adopted(tmp_path) == []


def test_completion_in_a_later_segment_resolves_what_was_opened(tmp_path: Path, small_segments: None) -> None:
    journal = journal_in(tmp_path)
    opened = make_record()
    journal.append_opened(opened)
    between = make_records(30)
    for record in between:
        journal.append(record)
    journal.append(completed(opened))
    assert drain(journal, limit=4) == [*between, completed(opened)]
    kill(journal)
    assert adopted(tmp_path) == []
    assert segment_paths(tmp_path) == []


def test_segment_is_dropped_once_what_it_opened_was_carried_on(tmp_path: Path, small_segments: None) -> None:
    journal = journal_in(tmp_path)
    opened = make_record()
    journal.append_opened(opened)
    for record in make_records(100):
        journal.append(record)
        drain(journal)
        assert len(segment_paths(tmp_path)) <= 3
    kill(journal)
    assert given_for(opened, adopted(tmp_path)) == [interrupted(opened)]


def test_carried_on_record_is_completed(tmp_path: Path, small_segments: None) -> None:
    journal = journal_in(tmp_path)
    opened = make_record()
    journal.append_opened(opened)
    for record in make_records(30):
        journal.append(record)
        drain(journal)
    journal.append(completed(opened))
    kill(journal)
    assert given_for(opened, adopted(tmp_path)) == [completed(opened)]


def test_owner_that_is_gone_has_its_open_records_given_once_as_interrupted(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    opened = make_records(3)
    for record in opened:
        journal.append_opened(record)
    journal.append(completed(opened[1]))
    kill(journal)
    heir = journal_in(tmp_path)
    assert drain(heir, limit=1) == [completed(opened[1]), interrupted(opened[0]), interrupted(opened[2])]
    heir.close()
    assert adopted(tmp_path) == []


def test_interrupted_records_are_given_again_until_they_are_stored(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    opened = make_record()
    journal.append_opened(opened)
    kill(journal)
    heir = journal_in(tmp_path)
    assert list(heir.read(9)) == list(heir.read(9)) == [interrupted(opened)]
    kill(heir)
    assert adopted(tmp_path) == [interrupted(opened)]


def test_closing_leaves_what_streams_to_the_next_owner(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    opened = make_record()
    journal.append_opened(opened)
    journal.close()
    assert adopted(tmp_path) == [interrupted(opened)]


def test_stored_completion_stays_as_long_as_the_frame_that_opened_it_may_be_read_again(
    tmp_path: Path, small_segments: None
) -> None:
    journal = journal_in(tmp_path)
    streaming, short = make_records(2)
    journal.append_opened(streaming)  # keeps the first segment
    journal.append_opened(short)
    for record in make_records(10):
        journal.append(record)
    journal.append(completed(short))
    journal.append_opened(make_record())
    given: list[Record] = []
    while completed(short) not in given:
        given += journal.read(1_000)
        journal.stored()
    kill(journal)  # before the next time, when the first segment would be dropped
    assert given_for(short, adopted(tmp_path)) in ([], [completed(short)])


def test_completion_in_an_adopted_segment_stays_while_another_opened_record_keeps_the_first(
    tmp_path: Path, small_segments: None
) -> None:
    journal = journal_in(tmp_path)
    dead, short = make_records(2)
    journal.append_opened(dead)
    journal.append_opened(short)
    for record in make_records(10):
        journal.append(record)
    journal.append(completed(short))
    for record in make_records(10):
        journal.append(record)
    kill(journal)
    heir = journal_in(tmp_path)
    given: list[Record] = []
    while completed(short) not in given:
        given += heir.read(3)
        heir.stored()
    kill(heir)
    replayed = adopted(tmp_path)
    assert given_for(short, replayed) in ([], [completed(short)])
    assert given_for(dead, replayed) == [interrupted(dead)]


def test_opened_record_of_the_first_segment_does_not_keep_the_others(
    tmp_path: Path, small_segments: None
) -> None:
    journal = journal_in(tmp_path)
    journal.append_opened(make_record())
    for record in make_records(60):
        journal.append(record)
    kill(journal)
    before = len(segment_paths(tmp_path))
    heir = journal_in(tmp_path)
    given = 0
    while given < 50:
        given += len(heir.read(5))
        heir.stored()
    # An heir that dies again and again must come to an end all the same.
    assert len(segment_paths(tmp_path)) < before / 2


def test_open_record_whose_completion_is_damaged_is_not_lost(tmp_path: Path, small_segments: None) -> None:
    journal = journal_in(tmp_path)
    opened = make_record()
    journal.append_opened(opened)
    journal.append(completed(opened))
    (path,) = segment_paths(tmp_path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    for record in make_records(20):
        journal.append(record)
        drain(journal)
    assert journal.waiting() == 0
    journal.close()
    assert given_for(opened, adopted(tmp_path)) == [interrupted(opened)]


def test_what_streams_is_carried_on_in_a_full_journal_or_it_would_stay_full(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, max_bytes=MIN_JOURNAL_BYTES)
    with suppress(JournalFull):
        while True:
            journal.append_opened(make_record())  # one in each segment
            for record in make_records(20):
                journal.append(record)
    waiting = journal.waiting()
    assert waiting > 200
    assert len(drain(journal)) == waiting
    assert len(segment_paths(tmp_path)) <= 2
    journal.append(make_record())


def test_segment_that_carries_on_in_a_full_folder_takes_nothing_else(tmp_path: Path) -> None:
    config = journal_config(tmp_path, max_bytes=MIN_JOURNAL_BYTES)
    appender = Appender(config, left=False, begin=lambda _: None)
    with suppress(JournalFull):
        while True:
            appender.append(COMPLETE, b"payload")
    appender.seal()
    appender.carry(b"what streams")
    with pytest.raises(JournalFull):
        appender.append(COMPLETE, b"payload")


def test_many_open_streams_are_not_written_again_and_again(tmp_path: Path, small_segments: None) -> None:
    journal = journal_in(tmp_path)
    opened = make_records(40)
    for record in opened:
        journal.append_opened(record)
    for record in make_records(60):
        journal.append(record)
        drain(journal)
    begun = max(name.serial for name in segments_in(tmp_path))
    assert begun * 1_500 < 3 * sum(len(encode_record(record)) for record in [*opened, *make_records(60)])
    for record in opened[:-1]:
        journal.append(completed(record))
    drain(journal)
    for record in make_records(30):
        journal.append(record)
        drain(journal)
    assert len(segment_paths(tmp_path)) <= 3
    kill(journal)
    assert given_for(opened[-1], adopted(tmp_path)) == [interrupted(opened[-1])]
