"""What former owners left in a journal's folder: replayed once, whatever happened to it since."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from flask import Flask

from flask_chest import FlaskChest
from flask_chest._clocks import MAX_STEP_NANO
from flask_chest.extension.state import ChestState
from flask_chest.journal import _appender, _queue
from flask_chest.journal._frames import COMPLETE, HEADER_BYTES
from flask_chest.journal._segments import SegmentName, SegmentReader, segments_in
from flask_chest.record import Query, Record
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing.records import make_record
from journals import (
    Reports,
    adopted,
    drain,
    frame,
    journal_in,
    kill,
    make_records,
    name_of,
    only_segment,
    segment_paths,
    version_2_header,
)

SKIPPED = "bytes of the journal were damaged, and skipped"
REMOVED = "a segment of the journal was removed before its records were stored"
UNREADABLE = "a segment of the journal cannot be read, and is left alone"


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_appender, "MAX_SEGMENT_BYTES", 1_500)


def left_by_killed(folder: Path, count: int = 3) -> list[Record]:
    journal = journal_in(folder)
    records = make_records(count)
    for record in records:
        journal.append(record)
    kill(journal)
    return records


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


# Owners


def test_next_owner_of_the_slot_replays_what_the_killed_one_left(tmp_path: Path) -> None:
    records = left_by_killed(tmp_path)
    journal = journal_in(tmp_path)
    assert journal.instance == "web:0"
    assert drain(journal) == records
    journal.close()
    assert segment_paths(tmp_path) == []


def test_another_journal_adopts_from_a_killed_one(tmp_path: Path, small_segments: None) -> None:
    doomed, other = journal_in(tmp_path), journal_in(tmp_path)
    records = make_records(20)
    for record in records:
        doomed.append(record)
    own = make_record()
    other.append(own)
    kill(doomed)
    assert drain(other) == [own]
    other.adopt()
    assert other.waiting() == 0  # they are not this process's
    assert drain(other, limit=3) == records
    other.adopt()
    assert drain(other) == []


def test_nobody_adopts_while_the_owner_lives(tmp_path: Path) -> None:
    owner, other = journal_in(tmp_path), journal_in(tmp_path)
    owner.append(make_record())
    other.adopt()
    assert drain(other) == []
    assert owner.waiting() == 1


def test_two_journals_that_adopt_share_the_slots_and_not_a_record(tmp_path: Path) -> None:
    doomed = [journal_in(tmp_path) for _ in range(3)]
    records = make_records(30)
    for number, record in enumerate(records):
        doomed[number % 3].append(record)
    one, two = journal_in(tmp_path), journal_in(tmp_path)
    for journal in doomed:
        kill(journal)
    one.adopt()
    two.adopt()
    given = [*drain(one, limit=7), *drain(two, limit=7)]
    assert sorted(record.id for record in given) == sorted(record.id for record in records)


def test_heir_that_is_killed_leaves_the_rest_to_the_next(tmp_path: Path) -> None:
    records = left_by_killed(tmp_path, 9)
    heir = journal_in(tmp_path)
    assert list(heir.read(4)) == records[:4]
    heir.stored()
    assert list(heir.read(3)) == records[4:7]
    kill(heir)
    assert adopted(tmp_path) == records[4:]


def test_own_records_do_not_keep_adopted_ones_waiting(tmp_path: Path) -> None:
    left = left_by_killed(tmp_path, 4)
    journal = journal_in(tmp_path)
    given: list[Record] = []
    own: list[Record] = []
    for _ in range(8):  # a process that is never idle
        own.append(make_record())
        journal.append(own[-1])
        given += journal.read(1)
        journal.stored()
    assert [record for record in given if record in left] == left
    assert [record for record in given if record in own] == own[:4]


def test_two_journals_of_one_process_have_slots_of_their_own(tmp_path: Path) -> None:
    journals = [journal_in(tmp_path), journal_in(tmp_path)]
    assert [journal.instance for journal in journals] == ["web:0", "web:1"]
    records = make_records(2)
    for journal, record in zip(journals, records, strict=True):
        journal.append(record)
    assert [drain(journal) for journal in journals] == [records[:1], records[1:]]


# Segments that are not ours, not whole, not there


def test_segment_of_another_store_is_left_alone_and_reported_once(tmp_path: Path) -> None:
    theirs = journal_in(tmp_path, store="theirs")
    record = make_record()
    theirs.append(record)
    kill(theirs)
    reports = Reports()
    ours = journal_in(tmp_path, reports=reports)
    ours.append(make_record(id="ours"))
    ours.adopt()
    assert [record.id for record in drain(ours)] == ["ours"]
    ours.adopt()
    ours.close()
    assert reports == {"a segment of the journal is of another store, and left alone": 1}
    assert drain(journal_in(tmp_path, store="theirs")) == [record]


def left_in_store(folder: Path, store_id: str, *, more: int = 0) -> list[Record]:
    """Leave a record behind one that is kept in the store with that id, and *more* in a later segment."""
    journal = journal_in(folder, store_id=store_id)
    kept, *left = make_records(2 + more)
    journal.append(kept)
    journal.append(left[0])
    journal.read(1)
    journal.stored()
    kill(journal)
    return left


ONE, ANOTHER = "0a" * 16, "0b" * 16


def test_segment_is_left_alone_by_another_store_at_the_same_address(tmp_path: Path) -> None:
    left = left_in_store(tmp_path, ONE)
    reports = Reports()
    other = journal_in(tmp_path, store_id=ANOTHER, reports=reports)
    for _ in range(2):
        other.adopt()
        assert drain(other) == []
    other.close()
    assert reports == {"a segment of the journal is of another store at the same address, and left alone": 1}
    assert drain(journal_in(tmp_path, store_id=ONE)) == left


def test_segment_waits_until_the_store_can_be_asked_for_its_id(tmp_path: Path) -> None:
    left = left_in_store(tmp_path, ONE)
    answers: list[str | None] = [None, None]
    journal = journal_in(tmp_path, store_id=lambda: answers.pop() if answers else ONE)
    assert drain(journal) == []
    journal.adopt()
    assert drain(journal) == left


def test_store_is_not_asked_for_its_id_by_who_opens_the_journal(tmp_path: Path) -> None:
    (left,) = left_in_store(tmp_path, ONE)
    asked: list[str] = []

    def identify() -> str:
        asked.append("once")
        return ONE

    journal = journal_in(tmp_path, store_id=identify)
    record = make_record()
    journal.append(record)
    assert asked == []
    assert drain(journal) == [record, left]


def test_segment_whose_owner_reached_no_store_is_replayed_into_the_one_at_its_address(tmp_path: Path) -> None:
    records = left_by_killed(tmp_path)
    assert drain(journal_in(tmp_path, store_id=ONE)) == records


def test_segment_of_any_store_is_taken_by_who_is_told_to(tmp_path: Path) -> None:
    theirs = journal_in(tmp_path, store="theirs")
    records = make_records(2)
    for record in records:
        theirs.append(record)
    anybody = journal_in(tmp_path, store=None)
    anybody.adopt()
    assert drain(anybody) == []  # it has an owner
    kill(theirs)
    anybody.adopt()
    assert drain(anybody) == records


def test_segment_of_an_unknown_version_is_left_alone_and_reported_once(tmp_path: Path) -> None:
    left_by_killed(tmp_path)
    path = only_segment(tmp_path)
    written = version_2_header() + path.read_bytes()[HEADER_BYTES:]
    path.write_bytes(written)
    blocker = journal_in(tmp_path)  # takes slot 0, so that the reporting one finds it later
    reports = Reports()
    journal = journal_in(tmp_path, reports=reports)
    kill(blocker)
    for _ in range(3):
        journal.adopt()
        assert drain(journal) == []
    assert reports == {"a segment of the journal is of the unknown version 2, and left alone": 1}
    assert path.read_bytes() == written


@pytest.mark.parametrize("at", [0, 8, 12, 16, 40])
def test_segment_with_a_damaged_header_is_replayed_all_the_same(tmp_path: Path, at: int) -> None:
    records = left_by_killed(tmp_path)
    flip(only_segment(tmp_path), at)
    assert adopted(tmp_path) == records
    assert segment_paths(tmp_path) == []


def test_segment_with_a_damaged_stored_offset_is_replayed_from_its_beginning(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    records = make_records(3)
    for record in records:
        journal.append(record)
    journal.read(2)
    journal.stored()
    kill(journal)
    flip(only_segment(tmp_path), 24)
    assert adopted(tmp_path) == records


@pytest.mark.parametrize("length", [0, 100, HEADER_BYTES])
def test_segment_that_lost_all_its_frames_is_removed(tmp_path: Path, length: int) -> None:
    left_by_killed(tmp_path)
    os.truncate(only_segment(tmp_path), length)
    assert adopted(tmp_path) == []
    assert segment_paths(tmp_path) == []


def test_damaged_frame_is_skipped_and_reported(tmp_path: Path) -> None:
    records = left_by_killed(tmp_path)
    flip(only_segment(tmp_path), HEADER_BYTES + 30)
    reports = Reports()
    assert adopted(tmp_path, reports=reports) == records[1:]
    assert reports == {SKIPPED: 1}


def test_frame_that_holds_no_record_is_skipped_and_reported(tmp_path: Path) -> None:
    records = left_by_killed(tmp_path)
    path = only_segment(tmp_path)
    with path.open("ab") as file:
        file.write(frame(name_of(path).marker, COMPLETE, b"\x91\xa1a"))
    reports = Reports()
    assert adopted(tmp_path, reports=reports) == records
    assert reports == {"a frame of the journal holds no record of this release, and was skipped": 1}


def test_own_damaged_records_are_waited_for_no_more(tmp_path: Path) -> None:
    reports = Reports()
    journal = journal_in(tmp_path, reports=reports)
    records = make_records(4)
    for record in records[:3]:
        journal.append(record)
    flip(only_segment(tmp_path), HEADER_BYTES + 30)
    assert drain(journal) == records[1:3]
    assert journal.waiting() == 0
    assert reports == {SKIPPED: 1}
    assert journal.append(records[3]) == 1
    assert drain(journal) == records[3:]
    assert journal.waiting() == 0


def test_segment_that_was_cut_under_its_owner_ends_and_the_next_loses_nothing(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    records = make_records(6)
    for record in records[:3]:
        journal.append(record)
    path = only_segment(tmp_path)
    os.truncate(path, path.stat().st_size - 5)
    assert drain(journal) == records[:2]
    assert journal.waiting() == 0
    for record in records[3:]:
        journal.append(record)
    assert drain(journal) == records[3:]
    assert journal.waiting() == 0
    journal.close()
    assert segment_paths(tmp_path) == []


def test_segment_that_was_removed_by_hand_is_reported_and_waited_for_no_more(
    tmp_path: Path, small_segments: None
) -> None:
    reports = Reports()
    journal = journal_in(tmp_path, reports=reports)
    records = make_records(20)
    for record in records:
        journal.append(record)
    first, *_ = segment_paths(tmp_path)
    first.unlink()
    drained = drain(journal)
    assert drained == records[-len(drained) :]
    assert 10 <= len(drained) < 20
    assert journal.waiting() == 0
    assert reports == {REMOVED: 1}


def test_newest_segment_removed_by_hand_takes_no_later_record_with_it(tmp_path: Path) -> None:
    reports = Reports()
    journal = journal_in(tmp_path, reports=reports)
    journal.append(make_record())
    only_segment(tmp_path).unlink()
    assert len(drain(journal)) == 1  # its owner has it open
    assert journal.waiting() == 0
    later = make_records(2)
    for record in later:
        journal.append(record)
    assert only_segment(tmp_path).exists()
    kill(journal)
    assert adopted(tmp_path, reports=reports) == later
    assert reports == {}


def test_segment_that_cannot_be_read_is_left_alone_and_hides_no_other(
    tmp_path: Path, small_segments: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = left_by_killed(tmp_path, 20)
    second = segment_paths(tmp_path)[1]

    class Reader(SegmentReader):
        def __init__(self, folder: Path, name: SegmentName, *, descriptor: int | None = None) -> None:
            if str(name) == second.name:
                raise PermissionError("another user's")
            super().__init__(folder, name, descriptor=descriptor)

    reports = Reports()
    with monkeypatch.context() as patched:
        patched.setattr(_queue, "SegmentReader", Reader)
        readable = adopted(tmp_path, reports=reports)
    assert reports == {UNREADABLE: 1}
    assert segment_paths(tmp_path) == [second]
    assert sorted([*readable, *adopted(tmp_path)], key=lambda r: r.time_unix_nano) == records


def test_stored_segment_that_cannot_be_removed_stops_nothing(
    tmp_path: Path, small_segments: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *, missing_ok: bool = False) -> None:
        raise PermissionError("the folder is read-only")

    reports = Reports()
    journal = journal_in(tmp_path, reports=reports)
    records = make_records(20)
    for record in records:
        journal.append(record)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        assert drain(journal, limit=6) == records
        assert journal.waiting() == 0
    assert set(reports) == {"a segment of the journal is stored, and cannot be removed"}
    kill(journal)
    assert adopted(tmp_path) == []  # their headers say that they are stored


def test_unfinished_segment_of_a_dead_owner_is_removed(tmp_path: Path) -> None:
    records = left_by_killed(tmp_path)
    path = only_segment(tmp_path)
    unfinished = [
        tmp_path / f"0-00000002-{'ab' * 8}.journal.new",
        tmp_path / f"1-00000001-{'cd' * 8}.journal.new",
    ]
    for new in unfinished:
        new.write_bytes(path.read_bytes()[:100])
    assert drain(journal_in(tmp_path)) == records
    assert [new.exists() for new in unfinished] == [False, True]  # slot 1 may be somebody's


def test_foreign_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    records = left_by_killed(tmp_path)
    foreign = [tmp_path / "notes.txt", tmp_path / "0-1-xyz.journal", tmp_path / "0-1-0011223344556677.journal"]
    for path in foreign:
        path.write_text("mine")
    assert adopted(tmp_path) == records
    assert all(path.read_text() == "mine" for path in foreign)


# Times

STEP_BACK_NANO = MAX_STEP_NANO * 9 // 10
HOUR_NANO = 3600 * 10**9


def test_times_continue_after_a_clean_close(tmp_path: Path) -> None:
    ahead = time.time_ns() + STEP_BACK_NANO
    journal = journal_in(tmp_path)
    assert journal.latest_unix_nano == 0
    journal.append(make_record(time_unix_nano=ahead))
    assert journal.latest_unix_nano == ahead
    drain(journal)
    journal.close()
    assert journal_in(tmp_path).latest_unix_nano >= ahead


def test_times_continue_after_a_kill(tmp_path: Path) -> None:
    records = left_by_killed(tmp_path)
    assert journal_in(tmp_path).latest_unix_nano >= records[-1].time_unix_nano


def test_times_continue_after_a_kill_when_the_clock_was_set_back_since_something_was_stored(
    tmp_path: Path,
) -> None:
    ahead = time.time_ns() + STEP_BACK_NANO
    journal = journal_in(tmp_path)
    journal.append_opened(make_record(time_unix_nano=ahead))
    journal.append(make_record())
    drain(journal)
    kill(journal)
    assert journal_in(tmp_path).latest_unix_nano >= ahead


def test_times_continue_where_somebody_else_has_replayed_the_segments(tmp_path: Path) -> None:
    ahead = time.time_ns() + STEP_BACK_NANO
    doomed, heir = journal_in(tmp_path), journal_in(tmp_path)
    doomed.append_opened(make_record(time_unix_nano=ahead))
    doomed.append(make_record())
    kill(doomed)
    heir.adopt()
    assert len(drain(heir)) == 2
    successor = journal_in(tmp_path)
    assert successor.instance == "web:0"
    assert successor.latest_unix_nano >= ahead


def test_time_of_a_clock_that_was_ahead_is_not_continued(tmp_path: Path) -> None:
    before = time.time_ns()
    journal = journal_in(tmp_path)
    journal.append(make_record(time_unix_nano=before + HOUR_NANO))
    drain(journal)
    kill(journal)
    assert before <= journal_in(tmp_path).latest_unix_nano < before + HOUR_NANO


def test_times_continue_in_the_next_process_after_a_clock_was_ahead_for_one_request(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.append(make_record(time_unix_nano=time.time_ns() + HOUR_NANO))
    drain(journal)
    last = time.time_ns() + STEP_BACK_NANO
    journal.append(make_record(time_unix_nano=last))
    drain(journal)
    kill(journal)
    assert last <= journal_in(tmp_path).latest_unix_nano < time.time_ns() + MAX_STEP_NANO


def test_heir_notes_no_time_of_a_clock_that_was_ahead(tmp_path: Path) -> None:
    doomed, heir = journal_in(tmp_path), journal_in(tmp_path)
    last = time.time_ns()
    doomed.append(make_record(time_unix_nano=last))
    drain(doomed)
    doomed.append(make_record(time_unix_nano=last + HOUR_NANO))
    kill(doomed)
    heir.adopt()
    assert len(drain(heir)) == 1
    assert last <= journal_in(tmp_path).latest_unix_nano < last + HOUR_NANO


# Two stores whose folder is one


class Tenant(MemoryStore):
    """Keeps records in the schema of one role of a database that others share."""

    def __init__(self, role: str, store_id: str | None = None) -> None:
        super().__init__()
        self._role = role
        self._store_id = store_id

    @property
    def address(self) -> str:  # type: ignore[override]  # MemoryStore has none
        return f"{self.place}?{self._role}"

    @property
    def place(self) -> str:
        return "test:server/database#chest"

    @property
    def store_id(self) -> str | None:
        return self._store_id


def state_of(root: Path, store: Tenant) -> ChestState:
    app = Flask("shop", root_path=str(root))
    chest = FlaskChest(app, store=store, journal_dir="journal", writer="off", tracked_vars=[])
    app.add_url_rule("/", view_func=lambda: "hi")
    app.test_client().get("/")
    state = chest._state
    state.close(0)  # which leaves the record to others, and is as good as a kill
    return state


def kept_in(store: Tenant) -> int:
    store.open()
    return len(list(store.query(Query())))


def test_record_of_one_tenant_is_not_stored_for_another(tmp_path: Path) -> None:
    one, another = Tenant("one"), Tenant("another")
    states = [state_of(tmp_path, tenant) for tenant in (one, another)]
    (folder,) = (tmp_path / "journal").iterdir()
    assert len(segments_in(folder)) == 2
    assert states[1].here.recover() == 1
    assert (kept_in(one), kept_in(another)) == (0, 1)
    assert states[0].here.recover() == 1
    assert (kept_in(one), kept_in(another)) == (1, 1)


def test_record_is_not_stored_in_what_a_service_means_after_it_meant_another(tmp_path: Path) -> None:
    left_by = state_of(tmp_path, Tenant("service", ONE))
    (folder,) = (tmp_path / "journal").iterdir()
    reached = journal_in(
        folder, store=left_by.here.journal_config.store, store_id=ONE
    )  # had a writer, and was killed
    for record in make_records(2):
        reached.append(record)
    reached.read(1)
    reached.stored()
    kill(reached)
    successor = Tenant("service", ANOTHER)
    assert state_of(tmp_path, successor).here.recover() == 2  # and what was for whichever was reached first
    assert left_by.here.recover() == 1
