"""Streamed responses: recorded when they close, with what they set meanwhile, or as interrupted."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests
from flask import Flask, Response, g, send_file, stream_with_context
from waitress.server import create_server

from flask_chest import FlaskChest, FlaskChestSQLite, Record
from flask_chest.decorator import flask_chest
from flask_chest.stores.memory import MemoryStore

PAUSE = 0.05


@pytest.fixture
def chest(app: Flask) -> Iterator[FlaskChest]:
    """A chest that opens and completes: a strict one would write complete records alone."""
    chest = FlaskChest(app, store=MemoryStore)
    yield chest
    chest.close()


def only(chest: FlaskChest) -> Record:
    (record,) = chest.query()
    return record


def add_stream(app: Flask, *, fails: bool = False) -> None:
    @app.route("/stream")
    @flask_chest(tracked_vars=["before", "sent", "total"])
    def stream() -> Response:
        g.before, g.sent = "set", 0

        def chunks() -> Iterator[str]:
            for letter in "abc":
                g.sent += 1
                yield letter
                if fails:
                    raise LookupError
            g.total = 3

        return Response(stream_with_context(chunks()))


def test_record_has_what_was_set_while_streaming(app: Flask, chest: FlaskChest) -> None:
    add_stream(app)
    with app.test_client().get("/stream") as response:
        assert response.data == b"abc"
    assert only(chest).variables == {"before": "set", "sent": 3, "total": 3}
    assert (only(chest).status_code, only(chest).error) == (200, None)


def test_record_is_there_only_when_the_response_is_closed(app: Flask, chest: FlaskChest) -> None:
    add_stream(app)
    response = app.test_client().get("/stream")
    assert chest.query() == []
    assert chest.stats().captured == 0
    response.close()
    response.close()
    assert only(chest).variables["before"] == "set"
    assert chest.stats().captured == 1


def test_duration_is_that_of_the_whole_response(app: Flask, chest: FlaskChest) -> None:
    add_stream(app)
    began = time.perf_counter_ns()
    response = app.test_client().get("/stream")
    answered = time.perf_counter_ns()
    deadline = answered + int(PAUSE * 1e9)
    while time.perf_counter_ns() < deadline:
        pass
    response.close()
    assert deadline - answered < only(chest).duration_ns <= time.perf_counter_ns() - began


def test_stream_that_nobody_read_is_recorded_with_what_was_set_before(app: Flask, chest: FlaskChest) -> None:
    add_stream(app)
    app.test_client().head("/stream").close()
    app.test_client().get("/stream").close()
    assert {record.method: dict(record.variables) for record in chest.query()} == {
        "HEAD": {"before": "set", "sent": 0},
        "GET": {"before": "set", "sent": 1},
    }


def test_file_and_error_page_are_recorded_when_they_begin(app: Flask, chest: FlaskChest) -> None:
    @app.route("/file")
    @flask_chest
    def file() -> Response:
        return send_file(io.BytesIO(b"content"), mimetype="text/plain")

    @app.route("/missing")
    @flask_chest
    def missing() -> str:
        from werkzeug.exceptions import NotFound

        raise NotFound

    file_response = app.test_client().get("/file")
    error_response = app.test_client().get("/missing")
    assert sorted(record.status_code for record in chest.query()) == [200, 404]
    file_response.close()
    error_response.close()
    assert len(chest.query()) == 2


def test_two_chests_each_complete_their_record(app: Flask) -> None:
    chests = [FlaskChest(app, store=MemoryStore, tracked_vars=names) for names in (["sent"], ["before"])]
    add_stream(app)
    with app.test_client().get("/stream") as response:
        assert response.data == b"abc"
    records = [only(chest) for chest in chests]
    assert [record.variables["before"] for record in records] == ["set", "set"]
    assert len({record.id for record in records}) == 2
    for chest in chests:
        chest.close()


def test_stream_of_a_process_that_ended_before_it_is_stored_as_interrupted(tmp_path: Path) -> None:
    def make_app() -> tuple[Flask, FlaskChest]:
        app = Flask("shop", root_path=str(tmp_path))
        app.add_url_rule("/stream", view_func=lambda: Response(iter("abc")), endpoint="stream")
        return app, FlaskChestSQLite(app, journal_dir="queue", tracked_vars=[])

    app, chest = make_app()
    unclosed = app.test_client().get("/stream")
    assert chest.query() == []
    assert chest.close()  # the segment's owner is gone, as after a kill
    successor, next_chest = make_app()
    with successor.test_client().get("/stream") as response:
        assert response.data == b"abc"
    deadline = time.monotonic() + 20
    while len(records := next_chest.query()) < 2:
        assert time.monotonic() < deadline
    assert sorted(str(record.error) for record in records) == ["None", "interrupted"]
    del unclosed
    next_chest.close()


def test_real_server_closes_what_it_streamed_and_what_failed(app: Flask, chest: FlaskChest) -> None:
    add_stream(app, fails=True)
    with closing(create_server(app, host="127.0.0.1", port=0)) as server:
        port: int = server.effective_port  # type: ignore[union-attr]  # the stubs do not know it
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        with pytest.raises(requests.RequestException):
            requests.get(f"http://127.0.0.1:{port}/stream", timeout=10)
        deadline = time.monotonic() + 20
        while not (records := chest.query()):
            assert time.monotonic() < deadline
    (record,) = records
    assert record.variables == {"before": "set", "sent": 1}
    assert record.error == "LookupError"
