"""A process that leaves its records to others: they store them while it lives, and drop what is stored."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_chest.journal import _appender
from flask_chest.journal._segments import SegmentReader
from flask_chest.journal.append_only import AppendOnlyJournal
from flask_chest.record import Record
from flask_chest.testing.records import make_record
from journals import Reports, drain, journal_config, journal_in, kill, make_records, segment_paths


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_appender, "MAX_SEGMENT_BYTES", 1_500)


def left_in(folder: Path, *, store: str = "store") -> AppendOnlyJournal:
    return AppendOnlyJournal(journal_config(folder, store=store))


def append(journal: AppendOnlyJournal, records: list[Record]) -> None:
    for record in records:
        journal.append(record)


def test_another_process_stores_what_a_living_one_leaves(tmp_path: Path) -> None:
    owner, follower = left_in(tmp_path), journal_in(tmp_path)
    first, second = make_records(10), make_records(10)
    append(owner, first)
    assert owner.waiting() == 10
    follower.adopt()
    assert drain(follower) == first
    assert owner.waiting() == 0
    append(owner, second)
    assert owner.waiting() == 10
    assert drain(follower) == second  # also between two looks at the folder
    assert drain(follower) == []


def test_process_that_stores_its_own_is_left_alone(tmp_path: Path) -> None:
    owner, other = journal_in(tmp_path), journal_in(tmp_path)
    records = make_records(3)
    for record in records:
        owner.append(record)
    other.adopt()
    assert drain(other) == []
    assert drain(owner) == records


def test_full_segments_go_as_they_are_stored(tmp_path: Path, small_segments: None) -> None:
    owner, follower = left_in(tmp_path), journal_in(tmp_path)
    records = make_records(40)
    append(owner, records)
    assert len(segment_paths(tmp_path)) > 3
    follower.adopt()
    assert drain(follower) == records
    assert len(segment_paths(tmp_path)) == 1
    assert owner.waiting() == 0
    more = make_records(40)
    append(owner, more)
    follower.adopt()
    assert drain(follower) == more
    assert len(segment_paths(tmp_path)) == 1


def test_segment_that_its_owner_filled_later_goes_too(tmp_path: Path, small_segments: None) -> None:
    owner, follower = left_in(tmp_path), journal_in(tmp_path)
    append(owner, make_records(1))
    follower.adopt()
    drain(follower)
    append(owner, make_records(40))
    drain(follower)
    follower.adopt()
    drain(follower)
    assert len(segment_paths(tmp_path)) == 1


def test_half_a_frame_at_the_end_is_left_until_it_is_whole(tmp_path: Path) -> None:
    reports = Reports()
    owner, follower = left_in(tmp_path), journal_in(tmp_path, reports=reports)
    first, second = make_records(2)
    owner.append(first)
    (path,) = segment_paths(tmp_path)
    before = path.stat().st_size
    owner.append(second)
    whole = path.read_bytes()
    for end in range(before, len(whole)):
        path.write_bytes(whole[:end])
        follower.adopt()
        assert drain(follower) == ([first] if end == before else [])
    path.write_bytes(whole)
    assert drain(follower) == [second]
    assert not reports


def test_owner_that_ends_is_adopted_from(tmp_path: Path) -> None:
    owner, follower = left_in(tmp_path), journal_in(tmp_path)
    records = make_records(10)
    append(owner, records[:5])
    follower.adopt()
    assert drain(follower) == records[:5]
    append(owner, records[5:])
    owner.close()
    follower.adopt()
    assert drain(follower) == records[5:]
    assert segment_paths(tmp_path) == []


def test_stream_of_an_owner_that_ends_is_told_as_interrupted(tmp_path: Path) -> None:
    owner, follower = left_in(tmp_path), journal_in(tmp_path)
    whole, broken = make_record(), make_record()
    owner.append_opened(whole)
    owner.append_opened(broken)
    follower.adopt()
    assert drain(follower) == []
    owner.append(whole)
    assert drain(follower) == [whole]
    owner.abandon()
    follower.adopt()
    # The first comes again, since the frame that opened it may be read again: the store knows it.
    assert drain(follower) == [whole, msgspec.structs.replace(broken, error="interrupted")]
    assert segment_paths(tmp_path) == []


def test_successor_in_the_slot_does_not_hide_what_the_former_owner_left(tmp_path: Path) -> None:
    former, follower = left_in(tmp_path), journal_in(tmp_path)
    records, broken, new = make_records(5), make_record(), make_records(5)
    append(former, records)
    former.append_opened(broken)
    follower.adopt()
    assert drain(follower, limit=2) == records
    former.abandon()
    successor = left_in(tmp_path)
    assert successor.instance == former.instance
    append(successor, new)
    follower.adopt()
    assert drain(follower) == [msgspec.structs.replace(broken, error="interrupted"), *new]
    assert len(segment_paths(tmp_path)) == 1


def test_successor_that_stores_its_own_is_not_followed_any_more(tmp_path: Path) -> None:
    former, follower = left_in(tmp_path), journal_in(tmp_path)
    append(former, make_records(2))
    follower.adopt()
    drain(follower)
    former.abandon()
    successor = journal_in(tmp_path)
    record = make_record()
    successor.append(record)
    follower.adopt()
    assert drain(follower) == []
    assert drain(successor) == [record]


def test_one_process_follows_at_a_time_and_another_takes_over(tmp_path: Path) -> None:
    owner, one, two = left_in(tmp_path), journal_in(tmp_path), journal_in(tmp_path)
    records = make_records(10)
    append(owner, records[:5])
    one.adopt()
    two.adopt()
    assert drain(two) == []
    assert one.read(100) == records[:5]
    kill(one)
    two.adopt()
    assert drain(two) == records[:5]
    append(owner, records[5:])
    assert drain(two) == records[5:]


def test_what_is_out_stays_out_while_its_owner_ends(tmp_path: Path) -> None:
    owner, follower = left_in(tmp_path), journal_in(tmp_path)
    records = make_records(10)
    append(owner, records[:5])
    follower.adopt()
    assert follower.read(3) == records[:3]
    append(owner, records[5:])
    owner.close()
    follower.adopt()  # the store is away: nothing was stored
    assert follower.read(4) == records[:4]
    follower.stored()
    follower.adopt()
    assert drain(follower) == records[4:]
    assert segment_paths(tmp_path) == []


def test_segments_of_another_store_are_left_alone(tmp_path: Path) -> None:
    reports = Reports()
    owner, follower = left_in(tmp_path, store="other"), journal_in(tmp_path, reports=reports)
    append(owner, make_records(2))
    follower.adopt()
    follower.adopt()
    assert drain(follower) == []
    assert reports == {"a segment of the journal is of another store, and left alone": 1}


def test_waiting_is_told_by_bytes_where_a_segment_is_stored_in_part(tmp_path: Path) -> None:
    owner, follower = left_in(tmp_path), journal_in(tmp_path)
    append(owner, make_records(100))
    follower.adopt()
    follower.read(50)
    follower.stored()
    assert 45 <= owner.waiting() <= 55
    drain(follower)
    assert owner.waiting() == 0


def test_reading_ends_where_a_living_segment_was_cut(tmp_path: Path) -> None:
    owner = left_in(tmp_path)
    append(owner, make_records(2))
    (path,) = segment_paths(tmp_path)
    size = path.stat().st_size
    reader = SegmentReader(tmp_path, next(iter(owner._segments)).name)
    with path.open("r+b") as file:
        file.truncate(size - 1)
    assert len(list(reader.read(size, final=False))) == 1
    assert list(reader.read(size, final=False)) == []
    reader.close()


steps = st.lists(
    st.sampled_from(["append", "append", "open", "complete", "look", "store", "kill owner", "kill follower"]),
    max_size=60,
)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=steps)
def test_whatever_happens_no_record_is_missed_and_none_is_interrupted_that_was_not(
    steps: list[str], tmp_path_factory: pytest.TempPathFactory, small_segments: None
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    owner, follower = left_in(folder), journal_in(folder)
    appended: list[Record] = []
    streaming: list[Record] = []
    cut_off: list[Record] = []
    stored: list[Record] = []
    for step in steps:
        if step == "append":
            appended.append(make_record())
            owner.append(appended[-1])
        elif step == "open":
            streaming.append(make_record())
            owner.append_opened(streaming[-1])
        elif step == "complete" and streaming:
            appended.append(streaming.pop(0))
            owner.append(appended[-1])
        elif step == "look":
            follower.adopt()
        elif step == "store":
            stored += follower.read(3)
            follower.stored()
        elif step == "kill owner":
            owner.abandon()
            cut_off += streaming
            streaming = []
            owner = left_in(folder)
        elif step == "kill follower":
            kill(follower)
            follower = journal_in(folder)
    owner.close()
    cut_off += streaming
    follower.adopt()
    stored += drain(follower)
    whole = {record.id for record in appended}
    assert {record.id for record in stored if record.error != "interrupted"} == whole
    assert {record.id for record in stored if record.error == "interrupted"} == {record.id for record in cut_off}
    assert segment_paths(folder) == []
