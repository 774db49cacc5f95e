"""Whose a segment is stays known, whatever somebody removes or closes beside it."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask, g

from flask_chest import FlaskChest, FlaskChestSQLite, journal
from flask_chest.background import writer
from flask_chest.errors import JournalError
from flask_chest.journal import _appender, _queue, _recovery, append_only
from flask_chest.journal._segments import SegmentWriter
from flask_chest.journal._slots import take_following
from flask_chest.journal.append_only import AppendOnlyJournal
from flask_chest.journal.losses import DAMAGED
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import make_record
from journals import (
    Reports,
    adopted,
    drain,
    journal_config,
    journal_in,
    kill,
    make_records,
    only_segment,
    segment_paths,
)
from sinks import until


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that appends looks at each record whether its files are there."""
    monkeypatch.setattr(append_only, "LOOK_SECONDS", 0.0)


def left_in(folder: Path) -> AppendOnlyJournal:
    return AppendOnlyJournal(journal_config(folder))


def too_many(*_arguments: object, **_options: object) -> SegmentWriter:
    raise OSError(errno.EMFILE, "Too many open files")


# Files that somebody removes


def test_segments_of_a_living_owner_are_not_adopted_when_its_lock_file_is_removed(tmp_path: Path) -> None:
    owner = journal_in(tmp_path)
    first, second = make_records(2), make_records(2)
    for record in first:
        owner.append(record)
    (tmp_path / "slot-0.lock").unlink()
    heir = journal_in(tmp_path)
    heir.adopt()
    assert drain(heir) == []
    assert heir.instance != owner.instance
    for record in second:
        owner.append(record)
    assert drain(owner) == first + second


def test_slot_is_taken_again_with_the_next_batch(tmp_path: Path) -> None:
    owner = journal_in(tmp_path)
    (tmp_path / "slot-0.lock").unlink()
    owner.append(make_record())
    drain(owner)
    assert (tmp_path / "slot-0.lock").exists()
    assert owner.instance == "web:0"
    assert journal_in(tmp_path).instance == "web:1"
    kill(owner)
    assert journal_in(tmp_path).instance == "web:0"


def test_owner_whose_number_somebody_else_has_got_takes_another_name(tmp_path: Path) -> None:
    names: list[str] = []
    owner = journal_in(tmp_path / "journal")
    owner.call_when_renamed(names.append)
    owner.append(make_record())
    shutil.rmtree(tmp_path / "journal")
    other = journal_in(tmp_path / "journal")
    assert len(drain(owner)) == 1
    assert (other.instance, owner.instance, names) == ("web:0", "web:1", ["web:1"])
    record = make_record()
    owner.append(record)
    assert only_segment(tmp_path / "journal").name.startswith("1-")
    kill(owner)
    assert adopted(tmp_path / "journal") == [record]


@pytest.mark.usefixtures("at_once")
def test_what_a_process_leaves_is_followed_again_when_its_lock_file_was_removed(tmp_path: Path) -> None:
    owner, follower = left_in(tmp_path), journal_in(tmp_path)
    first, second = make_records(3), make_records(3)
    for record in first:
        owner.append(record)
    follower.adopt()
    assert drain(follower) == first
    (tmp_path / "slot-0.lock").unlink()
    follower.adopt()
    for record in second:
        owner.append(record)
    follower.adopt()
    assert drain(follower) == second
    assert owner.waiting() == 0


@pytest.mark.usefixtures("at_once")
def test_what_a_process_leaves_is_written_again_when_its_segment_was_removed(tmp_path: Path) -> None:
    owner = left_in(tmp_path)
    records = make_records(3)
    owner.append(records[0])
    only_segment(tmp_path).unlink()
    assert owner.waiting() == 1
    for record in records[1:]:
        owner.append(record)
    assert drain(journal_in(tmp_path)) == []
    follower = journal_in(tmp_path)
    follower.adopt()
    assert drain(follower) == records


# A moment without descriptors


def test_open_segment_takes_records_beyond_its_size_when_no_other_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_appender, "MAX_SEGMENT_BYTES", 1_500)
    owner = journal_in(tmp_path)
    records = make_records(30)
    owner.append(records[0])
    with monkeypatch.context() as patched:
        patched.setattr(SegmentWriter, "create", too_many)
        for record in records[1:20]:
            owner.append(record)
        assert len(segment_paths(tmp_path)) == 1
    for record in records[20:]:
        owner.append(record)
    assert len(segment_paths(tmp_path)) > 1
    assert drain(owner) == records


def test_look_at_the_folder_that_fails_loses_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = journal_in(tmp_path)
    monkeypatch.setattr(_appender, "LOOK_BYTES", 1)
    owner.append(make_record())
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", too_many)
        owner.append(make_record())
    assert owner.waiting() == 2


def test_segment_that_cannot_be_opened_just_now_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = make_records(2)
    former = journal_in(tmp_path)
    for record in records:
        former.append(record)
    kill(former)
    heir = journal_in(tmp_path)
    heir.adopt()
    with monkeypatch.context() as patched:
        patched.setattr(_queue, "SegmentReader", too_many)
        with pytest.raises(JournalError, match="cannot be read: Too many open files"):
            heir.read(10)
    assert drain(heir) == records


def test_journal_moves_to_the_disk_once_that_is_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_chest.extension.state.ADOPT_SECONDS", 0.01)
    app = Flask("shop")
    store = Away(tmp_path / "chest.db")
    chest = FlaskChest(app, store=store, tracked_vars=["n"], journal_dir=tmp_path)
    app.add_url_rule("/", view_func=lambda: "hi")
    with closing(chest):
        with monkeypatch.context() as patched:
            patched.setattr(journal, "_file_journal", too_many)
            app.test_client().get("/")
        folder = chest._state.here.journal_config.folder
        assert folder is not None
        until(lambda: folder.exists() and segment_paths(folder) != [])
        assert chest.stats().waiting == 1
        store.away = False
        assert chest.flush()
        assert len(chest.query()) == 1
        assert chest._state.here.instance.endswith(":0")


def test_process_that_leaves_its_records_to_others_moves_to_the_disk_likewise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "ADOPT_SECONDS", 0.0)
    app = Flask("shop")
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "db", tracked_vars=[], journal_dir=tmp_path, writer="off")
    app.add_url_rule("/", view_func=lambda: "hi")
    with closing(chest):
        with monkeypatch.context() as patched:
            patched.setattr(journal, "_append_only", too_many)
            app.test_client().get("/")
            app.test_client().get("/")
        app.test_client().get("/")
        folder = chest._state.here.journal_config.folder
        assert folder is not None
        heir = journal_in(folder, store=chest._state.here.journal_config.store)
        heir.adopt()
        assert len(drain(heir)) == 3


class Away(SQLiteStore):
    """A store that is away for a while."""

    away = True

    def write(self, records: object, /) -> None:
        if self.away:
            raise ConnectionError
        super().write(records)  # type: ignore[arg-type]  # passed on as it is


# What belongs to others


def test_failing_look_for_what_others_left_stops_nothing_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = Reports()
    owner = journal_in(tmp_path, reports=reports)
    record = make_record()
    owner.append(record)
    with monkeypatch.context() as patched:
        patched.setattr(_recovery, "segments_in", too_many)
        owner.adopt()
    assert drain(owner) == [record]
    assert reports == {"what others have left in the journal cannot be looked for": 1}


def test_slot_that_cannot_be_followed_hides_no_other_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, open_ = left_in(tmp_path), left_in(tmp_path)
    record = make_record()
    closed.append(make_record())
    open_.append(record)
    reports = Reports()
    follower = journal_in(tmp_path, reports=reports)

    def take(folder: Path, number: int) -> object:
        if number == 0:
            raise PermissionError
        return take_following(folder, number)

    monkeypatch.setattr(_recovery, "take_following", take)
    follower.adopt()
    follower.adopt()
    assert drain(follower) == [record]
    assert reports == {"a slot of the journal is another user's, and left alone": 1}


# What a process that is gone has left


@pytest.mark.parametrize("kept", [0, 100, 511])
def test_segment_cut_below_its_header_is_damage(tmp_path: Path, kept: int) -> None:
    former = journal_in(tmp_path)
    former.append(make_record())
    os.truncate(only_segment(tmp_path), kept)
    kill(former)
    reports = Reports()
    assert adopted(tmp_path, reports=reports) == []
    assert reports == {DAMAGED: 1}


def shop(folder: Path) -> tuple[Flask, FlaskChestSQLite]:
    app = Flask("shop", root_path=str(folder))
    chest = FlaskChestSQLite(app, db_uri="chest.db", journal_dir="journal")

    @app.route("/")
    def index() -> str:
        g.n = 1
        return "hi"

    return app, chest


def test_first_request_stores_what_a_killed_process_left_though_it_is_not_recorded(tmp_path: Path) -> None:
    _, chest = shop(tmp_path)
    chest._state.here.keep(make_record())
    intake = chest._state.here.intake
    assert isinstance(intake, writer.Writer)
    intake._stopping = True  # as if the process was killed: it stores nothing any more
    kill(intake._journal)  # type: ignore[arg-type]  # it is on disk
    app, successor = shop(tmp_path)
    with closing(successor):
        app.test_client().get("/")
        until(lambda: len(successor.query()) == 1)


def test_damage_is_a_loss_that_everybody_sees(tmp_path: Path) -> None:
    app, chest = shop(tmp_path)
    folder = chest._state.here.journal_config.folder
    assert folder is not None
    former = journal_in(folder, store=chest._state.here.journal_config.store)
    former.append(make_record())
    with only_segment(folder).open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"???")
    kill(former)
    with closing(chest):
        app.test_client().get("/")
        until(lambda: len(chest.stats().lost) > 0)
        assert chest.stats().lost == {DAMAGED: 1}
        assert not chest.health().ok
        assert chest.health().lost == 1
