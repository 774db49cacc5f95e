"""Whose the journal's folder is, who may write it, and what lies in it that no journal has made."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask

from flask_chest import FlaskChestSQLite
from flask_chest.cli import chest_group
from flask_chest.journal import obstacle, open_journal
from flask_chest.journal._slots import take_lowest
from flask_chest.journal.accounts import who_else_may_write
from flask_chest.journal.file import FileJournal
from flask_chest.journal.inspection import inspect, refused_records
from flask_chest.journal.memory import MemoryJournal
from flask_chest.journal.protocols import Journal
from flask_chest.testing.records import make_record
from journals import Reports, journal_config, journal_in, make_records

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such accounts")
only_root = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root can become another account"
)
OTHER = 65534


def opened(folder: Path) -> Journal:
    return open_journal(journal_config(folder), report=lambda _: None)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that this account has made, and that everybody may reach."""
    for place in [tmp_path, *tmp_path.parents][:-2]:
        place.chmod(place.stat().st_mode | 0o011)
    made = tmp_path / "journal"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def as_other() -> Iterator[Callable[[], None]]:
    """Become another account until the test is over; its group is its own."""
    groups = os.getgroups()

    def become() -> None:
        os.setgroups([])
        os.setegid(OTHER)
        os.seteuid(OTHER)

    yield become
    os.seteuid(0)
    os.setegid(0)
    os.setgroups(groups)


@pytest.mark.parametrize(("before", "after"), [(0o777, 0o700), (0o755, 0o700), (0o1777, 0o700), (0o2770, 0o2770)])
def test_own_folder_is_closed_to_others_and_used(folder: Path, before: int, after: int) -> None:
    folder.chmod(before)
    if mode(folder) != before:
        pytest.skip("the system gives no such mode")
    assert isinstance(opened(folder), FileJournal)
    assert mode(folder) & 0o6777 == after


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_folders_that_are_made_are_for_nobody_else_to_write_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        assert isinstance(opened(folder / "a" / "b" / "journal"), FileJournal)
    finally:
        os.umask(before)
    assert [mode(folder / name) for name in ("a", "a/b", "a/b/journal")] == [0o755, 0o755, 0o700]


@pytest.mark.parametrize("place", ["data", "data/parent"])
def test_folder_below_one_that_everybody_may_write_is_refused(
    folder: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    below = folder / "data" / "parent" / "journal"
    below.mkdir(parents=True)
    (folder / place).chmod(0o777)
    assert isinstance(opened(below), MemoryJournal)
    assert f"(everybody may write {folder / place}, and could forge what is kept there)" in caplog.text
    assert obstacle(below) is not None
    (folder / place).chmod(0o1777)  # as temporary folders are
    assert isinstance(opened(below), FileJournal)
    assert obstacle(below) is None


@only_root
def test_folder_on_a_volume_that_was_made_for_everybody_is_used_and_remarked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda place: place == folder)
    folder.chmod(0o777)  # as an emptyDir of Kubernetes is
    assert isinstance(opened(folder / "journal"), FileJournal)
    assert who_else_may_write(folder / "journal") == f"{folder} belongs to everybody"
    os.chown(folder, OTHER, OTHER)
    assert isinstance(opened(folder / "journal"), MemoryJournal)


def test_link_in_a_folder_that_everybody_may_write_is_refused(folder: Path) -> None:
    (folder / "safe" / "journal").mkdir(parents=True)
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    (folder / "open" / "link").symlink_to(folder / "safe")
    assert isinstance(opened(folder / "open" / "link" / "journal"), MemoryJournal)
    assert isinstance(opened(folder / "safe" / "journal"), FileJournal)


@only_root
def test_folder_of_another_account_is_refused(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.chown(folder, OTHER, OTHER)
    assert isinstance(opened(folder), MemoryJournal)
    assert "who could forge what it holds" in caplog.text
    assert list(folder.iterdir()) == []
    assert obstacle(folder) is None  # root looks at what is its owner's to use


@only_root
@pytest.mark.parametrize("owner", [0, OTHER + 1])
def test_folder_that_a_group_of_ours_may_write_is_used_and_remarked(
    folder: Path, owner: int, as_other: Callable[[], None]
) -> None:
    app = Flask("shop", root_path=str(folder), instance_path=str(folder))
    with closing(FlaskChestSQLite(app, db_uri="chest.db", journal_dir=folder, tracked_vars=["plan"])) as chest:
        journal_folder = chest._state.here.journal_config.folder
        assert journal_folder is not None
        journal_folder.mkdir()
        journal_in(journal_folder).close()
        for path in (folder, journal_folder, *journal_folder.iterdir()):
            os.chown(path, owner, OTHER)  # as Kubernetes shares a volume by fsGroup
            path.chmod(0o2770 if path.is_dir() else 0o660)
        as_other()
        journal = opened(journal_folder)
        assert isinstance(journal, FileJournal)
        assert journal.instance == "web:0"
        journal.close()
        told = app.test_cli_runner().invoke(chest_group, ["doctor"]).output
    assert "who may read, remove and forge what waits there" in " ".join(told.split())


@only_root
def test_file_of_another_account_in_the_own_folder_is_not_believed(folder: Path) -> None:
    forged = journal_in(folder)
    forged.append(make_record())
    forged.close()
    for path in folder.iterdir():
        os.chown(path, OTHER, OTHER)
        path.chmod(0o666)
    reports = Reports()
    with closing(journal_in(folder, store="store", reports=reports)) as journal:
        assert journal.instance == "web:1"
        journal.adopt()
        assert journal.read(10) == []
    assert reports


def no_plain_file(path: Path, kind: str, victim: Path) -> None:
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "dangling link":
        path.symlink_to(victim.with_name("nowhere"))
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path.mkdir()


@pytest.mark.parametrize("kind", ["link", "dangling link", "FIFO", "folder"])
def test_what_is_no_plain_file_is_neither_followed_nor_waited_for(folder: Path, kind: str) -> None:
    victim = folder.parent / "victim"
    victim.write_text("precious")
    segment = "0-00000009-0011223344556677.journal"
    for name in (
        "slot-0.lock",
        "follower-0.lock",
        "refused",
        segment,
        "1-00000001-0011223344556677.journal.new",
    ):
        no_plain_file(folder / name, kind, victim)
    reports = Reports()
    with closing(journal_in(folder, reports=reports)) as journal:
        records = make_records(2)
        for record in records:
            journal.append(record)
        journal.adopt()
        assert list(journal.read(5)) == records
        with pytest.raises(Exception, match="refused takes nothing: it is not a plain file"):
            journal.set_aside(records[0], "refused")
        journal.stored()
        journal.adopt()
        assert journal.read(5) == []
        found = {each.segment: each.foreign for each in inspect(folder, store=None)}
        assert refused_records(folder) == 0
    if kind != "dangling link":
        assert found[segment] == "no plain file"
    assert reports
    assert victim.read_text() == "precious"
    assert not victim.with_name("nowhere").exists()


def test_slot_that_is_no_plain_file_is_passed_over(folder: Path) -> None:
    os.mkfifo(folder / "slot-0.lock")
    slot = take_lowest(folder)
    assert slot.number == 1
    slot.release()
