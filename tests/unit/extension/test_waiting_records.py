"""What requests and readers notice of records that still wait for the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

import pytest
from flask import Flask, Response, g

from flask_chest import FlaskChest, FlaskChestSQLite, Record
from flask_chest.decorator import flask_chest
from flask_chest.extension.report import segments_of
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import RecordingExporter

PATIENCE = 20.0


def add_view(app: Flask) -> None:
    @app.route("/")
    @flask_chest(tracked_vars=["user_id"])
    def index() -> str:
        g.user_id = "123"
        return "hi"


def test_what_this_process_recorded_is_seen_by_whoever_reads(app: Flask, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db")
    exporter = RecordingExporter()
    chest.add_exporter(exporter)
    add_view(app)
    app.test_client().get("/")
    assert len(chest.query()) == 1
    app.test_client().get("/")
    assert len(list(chest.iter())) == 2
    app.test_client().get("/")
    assert chest.run_exports()[0].delivered == 3
    chest.close()


@pytest.mark.slow
def test_process_without_a_writer_waits_for_the_worker(app: Flask, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", journal_dir=tmp_path / "queue", writer="off")
    add_view(app)
    app.test_client().get("/")
    began = time.monotonic()
    assert not chest.flush(0.2)  # nobody is there to store it
    assert time.monotonic() - began >= 0.2
    other = Flask("test")
    worker = FlaskChestSQLite(other, db_uri=tmp_path / "chest.db", journal_dir=tmp_path / "queue")
    worker.work()
    assert chest.flush(PATIENCE)
    for number in range(2, 5):
        app.test_client().get("/")
        assert len(chest.query()) == number
    worker.close()
    chest.close()


@pytest.mark.slow
def test_stream_that_goes_on_holds_up_no_reader_beside_a_worker(app: Flask, tmp_path: Path) -> None:
    options: JournalOptions = {"db_uri": tmp_path / "chest.db", "journal_dir": tmp_path / "queue"}
    chest = FlaskChestSQLite(app, writer="off", **options)
    add_view(app)

    @app.route("/stream")
    @flask_chest
    def stream() -> Response:
        return Response(iter("ab"))

    streaming = app.test_client().get("/stream", buffered=False)
    for _ in range(3):
        app.test_client().get("/")
    other = Flask("test")
    worker = FlaskChestSQLite(other, **options)
    worker.work()
    assert chest.flush(PATIENCE)
    assert (chest.stats().waiting, len(chest.query())) == (0, 3)
    assert [segment.waiting_records for segment in segments_of(chest)] == [0]
    streaming.close()
    assert len(chest.query()) == 4
    worker.close()
    chest.close()


def test_count_of_what_waits_raises_nothing_where_files_cannot_be_read(app: Flask, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", journal_dir=tmp_path / "queue", writer="off")
    add_view(app)
    app.test_client().get("/")
    (segment,) = tmp_path.glob("queue/*/*.journal")
    segment.unlink()
    segment.mkdir()
    assert chest.stats().waiting == 1
    chest.close()


class JournalOptions(TypedDict):
    db_uri: Path
    journal_dir: Path


def test_process_whose_journal_nobody_else_can_see_waits_for_nobody(app: Flask) -> None:
    chest = FlaskChest(app, store=MemoryStore, journal_dir="memory:", writer="off")
    add_view(app)
    app.test_client().get("/")
    began = time.monotonic()
    assert not chest.flush(PATIENCE)
    assert time.monotonic() - began < PATIENCE / 2
    chest.close()


def test_two_chests_of_one_app_that_share_a_store_share_its_journal_and_lose_nothing(
    app: Flask, tmp_path: Path
) -> None:
    chests = [FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", journal_dir=tmp_path / "queue") for _ in "ab"]
    add_view(app)
    for _ in range(10):
        app.test_client().get("/")
    for chest in chests:
        assert chest.flush()
        assert (chest.stats().captured, chest.stats().stored) == (10, 10)
    assert len(chests[0].query()) == 20
    assert len(list((tmp_path / "queue").iterdir())) == 1
    for chest in chests:
        assert chest.close()


def test_first_requests_that_come_at_once_open_one_journal(app: Flask, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", journal_dir=tmp_path / "queue")
    add_view(app)
    ready = threading.Barrier(8)

    def serve() -> None:
        ready.wait(PATIENCE)
        app.test_client().get("/")

    threads = [threading.Thread(target=serve) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert chest.close(PATIENCE)
    assert chest.stats().stored == 8
    assert [path.name for path in (tmp_path / "queue").glob("*/slot-*")] == ["slot-0.lock"]


class Gate:
    """Where a store hangs."""

    def __init__(self) -> None:
        self.entered, self.let = threading.Event(), threading.Event()

    def pass_through(self) -> None:
        self.entered.set()
        assert self.let.wait(PATIENCE)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.let.set()


@pytest.mark.slow
def test_reader_does_not_wait_for_ever_for_a_writer_whose_store_hangs(app: Flask, gate: Gate) -> None:
    class HangingStore(MemoryStore):
        def write(self, records: Sequence[Record], /) -> None:
            gate.pass_through()
            super().write(records)

    chest = FlaskChest(app, store=HangingStore)
    add_view(app)
    app.test_client().get("/")
    assert gate.entered.wait(PATIENCE)
    began = time.monotonic()
    assert chest.query() == []
    assert not chest.close(0.1)
    assert time.monotonic() - began < PATIENCE / 2


def test_request_is_not_held_up_by_a_store_that_hangs_in_its_opening(app: Flask, gate: Gate) -> None:
    class SlowStore(MemoryStore):
        def open(self) -> None:
            gate.pass_through()
            super().open()

    chest = FlaskChest(app, store=SlowStore)
    add_view(app)
    app.test_client().get("/")
    assert gate.entered.wait(PATIENCE)
    assert not chest.close(0.05)
    request = threading.Thread(target=app.test_client().get, args=("/",))
    request.start()
    request.join(PATIENCE / 2)
    assert not request.is_alive()
    assert chest.stats().waiting == 1
    gate.let.set()
    assert chest.flush(PATIENCE)
    assert (chest.stats().captured, chest.stats().lost) == (2, {})
    chest.close()
