"""`flask chest backup` and `restore`: whole copies of a file that others write, and what is put in its place."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol

import pytest
from flask import Flask

from flask_chest import FlaskChest
from flask_chest.cli import chest_group
from flask_chest.protocols import Store
from flask_chest.record import Query, Record
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import make_record

EVERYTHING = Query(limit=None)


class Run(Protocol):
    def __call__(self, *arguments: str | Path, code: int = 0) -> str: ...


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(tmp_path / "chest.db")) as store:
        yield store


@pytest.fixture
def run(store: SQLiteStore, tmp_path: Path) -> Iterator[Run]:
    app = Flask("shop")
    app.cli.add_command(chest_group)
    with closing(FlaskChest(app, store=store, journal_dir=tmp_path / "journal")):

        def run(*arguments: str | Path, code: int = 0) -> str:
            result = app.test_cli_runner().invoke(args=["chest", *map(str, arguments)])
            assert result.exit_code == code, result.output
            return result.output

        yield run


def fill(store: SQLiteStore, count: int) -> list[Record]:
    store.open()
    records = [make_record() for _ in range(count)]
    store.write(records)
    return records[::-1]


def content(path: Path) -> list[Record]:
    with closing(SQLiteStore(path)) as copy:
        return list(copy.query(EVERYTHING))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_copy_goes_on_and_is_of_its_beginning_whatever_others_write(
    store: SQLiteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_chest.stores.sqlite.backup.PAGES", 5)
    before = fill(store, 200)
    shares: list[float] = []
    with closing(SQLiteStore(tmp_path / "chest.db")) as other:

        def progress(share: float) -> None:
            shares.append(share)
            if len(shares) <= 10:
                other.write([make_record()])

        store.backup(tmp_path / "copy.db", progress=progress)
    assert len(shares) > 5
    assert shares == sorted(shares)
    assert content(tmp_path / "copy.db") == before


def test_backup_is_one_file_with_all_that_was_stored(run: Run, store: SQLiteStore, tmp_path: Path) -> None:
    records = fill(store, 300)
    (tmp_path / "backups").mkdir()
    path = tmp_path / "backups" / "copy.db"
    assert run("backup", path) == f"{path} is a whole copy.\n"
    assert names(tmp_path / "backups") == ["copy.db"]
    assert content(path) == records


def test_backup_beside_a_writer_has_what_was_stored_before(run: Run, store: SQLiteStore, tmp_path: Path) -> None:
    before = fill(store, 2_000)
    path = tmp_path / "copy.db"
    ended = threading.Event()

    def write() -> None:
        with closing(SQLiteStore(tmp_path / "chest.db")) as other:
            while not ended.is_set():
                other.write([make_record()])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        run("backup", path)
    finally:
        ended.set()
        writer.join()
    assert content(path)[-len(before) :] == before


def test_backup_replaces_nothing_unless_told(run: Run, store: SQLiteStore, tmp_path: Path) -> None:
    records = fill(store, 3)
    path = tmp_path / "copy.db"
    path.write_text("before")
    assert "is there already" in run("backup", path, code=1)
    assert path.read_text() == "before"
    run("backup", path, "--overwrite")
    assert content(path) == records
    log = path.with_name("other.db-wal")
    log.touch()
    assert f"{log} belongs to a database" in run("backup", path.with_name("other.db"), code=1)


def test_backup_of_no_store_makes_no_file(run: Run, tmp_path: Path) -> None:
    assert "does not exist yet" in run("backup", tmp_path / "copy.db", code=1)
    assert names(tmp_path) == []


def test_restored_chest_is_what_it_was_and_goes_on(run: Run, store: SQLiteStore, tmp_path: Path) -> None:
    records = fill(store, 50)
    path = tmp_path / "copy.db"
    run("backup", path)
    later = make_record()
    store.write([later])
    said = run("restore", path, code=1)
    assert "has 51 records, which would be gone; to replace all that by" in said
    assert store.status().records == 51
    with closing(SQLiteStore(tmp_path / "chest.db")) as other:  # of a process that goes on
        assert other.status().records == 51
        run("restore", path, "--overwrite")
        assert list(store.query(EVERYTHING)) == list(other.query(EVERYTHING)) == records
        other.write([later])
    assert list(store.query(EVERYTHING)) == [later, *records]


def test_file_that_is_lost_is_restored_whatever_log_it_left(run: Run, store: SQLiteStore, tmp_path: Path) -> None:
    records = fill(store, 50)
    path = tmp_path / "copy.db"
    run("backup", path)
    with closing(sqlite3.connect(tmp_path / "chest.db")) as other:
        other.execute("UPDATE flask_chest SET method = 'OTHER'")
        other.commit()
        (tmp_path / "chest.db").unlink()
        run("restore", path)
        assert list(store.query(EVERYTHING)) == records
    assert content(tmp_path / "chest.db") == records


@pytest.mark.parametrize("damage", ["text", "cut", "other"])
def test_file_that_is_no_backup_is_refused(run: Run, store: SQLiteStore, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "copy.db"
    if damage == "other":
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE mine (a)")
    else:
        fill(store, 300)
        run("backup", path)
        whole = path.read_bytes()
        path.write_bytes(b"no database" * 500 if damage == "text" else whole[: len(whole) // 2])
    before = store.status().records if damage != "other" else 0
    run("restore", path, "--overwrite", code=1)
    if before:
        assert store.status().records == before


def test_tables_of_others_are_not_replaced_unless_told(run: Run, store: SQLiteStore, tmp_path: Path) -> None:
    fill(store, 1)
    path = tmp_path / "copy.db"
    run("backup", path)
    store._database.close()
    (tmp_path / "chest.db").unlink()
    with closing(sqlite3.connect(tmp_path / "chest.db")) as other:
        other.execute("CREATE TABLE customers (name)")
    assert "has the table 'customers' beside the chest" in run("restore", path, code=1)


def test_server_has_its_own_backup(tmp_path: Path) -> None:
    app = Flask("shop")
    app.cli.add_command(chest_group)
    store: Store = MemoryStore()
    with closing(FlaskChest(app, store=store)):
        result = app.test_cli_runner().invoke(args=["chest", "backup", str(tmp_path / "copy.db")])
    assert result.exit_code == 1
    assert "see docs/backup.md" in result.output
