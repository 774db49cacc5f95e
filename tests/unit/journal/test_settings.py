"""Where a chest keeps its journal, and what its switches do: each fails if it is ignored."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from flask import Flask, g

from flask_chest import FlaskChest, FlaskChestSQLite, Record
from flask_chest.decorator import flask_chest
from flask_chest.journal import _segments
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore


def make_app(root: Path) -> Flask:
    app = Flask("shop", root_path=str(root), instance_path=str(root / "instance"))

    @app.route("/")
    @flask_chest(tracked_vars=["plan"])
    def index() -> str:
        g.plan = "pro"
        return "hi"

    return app


def serve(app: Flask) -> None:
    assert app.test_client().get("/").data == b"hi"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.delenv("FLASK_CHEST_JOURNAL_DIR")
    return make_app(tmp_path)


def folders(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.glob("*")) if parent.exists() else []


def test_journal_lies_in_the_instance_folder_by_default(app: Flask, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app)
    assert not (tmp_path / "instance").exists()
    serve(app)
    (name,) = folders(tmp_path / "instance" / "flask_chest")
    assert name.startswith("chest-")
    assert (tmp_path / "instance" / "flask_chest" / name / "slot-0.lock").exists()
    chest.close()


@pytest.mark.parametrize("way", ["constructor", "config", "environment"])
def test_relative_folder_begins_at_the_root_path(
    app: Flask, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "config":
        app.config["CHEST_JOURNAL_DIR"] = "queue"
    if way == "environment":
        monkeypatch.setenv("FLASK_CHEST_JOURNAL_DIR", "queue")
    chest = FlaskChestSQLite(app, journal_dir=Path("queue") if way == "constructor" else None)
    serve(app)
    assert len(folders(tmp_path / "queue")) == 1
    assert not (tmp_path / "instance").exists()
    chest.close()


def test_chests_with_other_stores_have_other_folders(app: Flask, tmp_path: Path) -> None:
    chests = [FlaskChestSQLite(app, db_uri=f"{name}.db", journal_dir="queue") for name in "ab"]
    chests.append(FlaskChestSQLite(app, "other_table", "a.db", journal_dir="queue"))
    serve(app)
    assert len(folders(tmp_path / "queue")) == 3
    for chest in chests:
        chest.close()


def test_two_apps_with_one_store_share_the_folder_and_lose_nothing(tmp_path: Path) -> None:
    apps = [make_app(tmp_path), make_app(tmp_path)]
    chests = [FlaskChestSQLite(app, journal_dir="queue") for app in apps]
    for app in apps * 3:
        serve(app)
    for chest in chests:
        assert chest.flush()
    records = chests[0].query()
    assert (len(records), {record.instance[-2:] for record in records}) == (6, {":0", ":1"})
    assert len(folders(tmp_path / "queue")) == 1
    for chest in chests:
        chest.close()


def test_store_in_memory_and_an_app_under_test_have_their_journal_in_memory(app: Flask, tmp_path: Path) -> None:
    volatile = FlaskChest(app, store=MemoryStore)
    app.testing = True
    tested = FlaskChestSQLite(app)
    serve(app)
    assert (len(volatile.query()), len(tested.query())) == (1, 1)
    assert not (tmp_path / "instance").exists()
    volatile.close()
    tested.close()


def test_app_under_test_has_its_journal_where_it_is_told(app: Flask, tmp_path: Path) -> None:
    app.testing = True
    chest = FlaskChestSQLite(app, journal_dir="queue")
    serve(app)
    assert len(folders(tmp_path / "queue")) == 1
    chest.close()


def test_word_for_memory_makes_no_folder(app: Flask, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, journal_dir="memory:")
    serve(app)
    assert len(chest.query()) == 1
    assert folders(tmp_path) == ["db.sqlite3", "db.sqlite3-shm", "db.sqlite3-wal"]
    chest.close()


def test_folder_that_cannot_be_made_is_said_once_and_records_wait_in_memory(
    app: Flask, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    chest = FlaskChestSQLite(app, journal_dir="file/queue")
    for _ in range(3):
        serve(app)
    assert len(chest.query()) == 3
    (message,) = [entry.getMessage() for entry in caplog.records]
    assert str(tmp_path / "file" / "queue") in message
    assert "CHEST_JOURNAL_DIR" in message
    chest.close()


@pytest.mark.parametrize("way", ["constructor", "config"])
def test_writer_that_is_off_leaves_the_records_to_the_next_process(app: Flask, tmp_path: Path, way: str) -> None:
    if way == "config":
        app.config["CHEST_WRITER"] = "off"
    chest = FlaskChestSQLite(app, journal_dir="queue", writer="off" if way == "constructor" else None)
    serve(app)
    assert not chest.flush(0.05)
    assert (chest.stats().waiting, chest.stats().stored) == (1, 0)
    assert not (tmp_path / "db.sqlite3").exists()
    chest.close()
    successor = make_app(tmp_path)
    next_chest = FlaskChestSQLite(successor, journal_dir="queue")
    serve(successor)
    wait_for_records(next_chest, 2)
    next_chest.close()


def wait_for_records(chest: FlaskChest, count: int) -> None:
    """What others left is stored after the own records, so a flush does not wait for it."""
    deadline = threading.Event()
    for _ in range(400):
        if len(chest.query()) == count:
            return
        deadline.wait(0.05)
    assert len(chest.query()) == count


@pytest.mark.parametrize(("journal_sync", "expected"), [(True, 3), (None, 0)])
def test_disk_is_waited_for_if_that_is_asked(
    app: Flask, journal_sync: bool | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    monkeypatch.setattr(_segments, "synchronise", waits.append)
    chest = FlaskChestSQLite(app, journal_dir="queue", journal_sync=journal_sync)
    serve(app)
    waits.clear()  # those of the new segment
    for _ in range(3):
        serve(app)
    assert len(waits) == expected
    chest.close()


def test_journal_is_bounded_as_it_was_told(app: Flask) -> None:
    app.add_url_rule("/large", view_func=flask_chest(tracked_vars=["text"])(large), endpoint="large")
    chest = FlaskChestSQLite(app, journal_dir="queue", journal_bytes=64 * 1024, writer="off")
    for _ in range(20):
        assert app.test_client().get("/large").data == b"large"
    stats = chest.stats()
    assert stats.lost == {"the journal is full": 20 - stats.waiting}
    assert 0 < stats.waiting < 10
    chest.close()


def large() -> str:
    g.text = "x" * 8000
    return "large"


class ObservedStore(SQLiteStore):
    """Notes which threads call it."""

    threads: set[int]

    def open(self) -> None:
        self.threads.add(threading.get_ident())
        super().open()

    def write(self, records: Sequence[Record], /) -> None:
        self.threads.add(threading.get_ident())
        super().write(records)


def test_no_store_is_called_on_the_thread_of_a_request(app: Flask, tmp_path: Path) -> None:
    store = ObservedStore(tmp_path / "db.sqlite3")
    store.threads = set()
    chest = FlaskChest(app, store=store, journal_dir="queue")
    for _ in range(20):
        serve(app)
    assert chest.flush()
    assert len(store.threads) == 1
    assert threading.get_ident() not in store.threads
    chest.close()


def test_command_line_makes_no_journal(app: Flask, tmp_path: Path) -> None:
    FlaskChestSQLite(app)
    runner = app.test_cli_runner()
    runner.invoke(args=["chest", "status"])
    assert not (tmp_path / "instance").exists()
    assert list(tmp_path.iterdir()) == []
