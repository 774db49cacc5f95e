"""A response that streams is recorded when it closes, whole, once, and whatever becomes of it."""

from __future__ import annotations

import gc
import io
import subprocess
import sys
import threading
import time
import urllib.request
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, g, request_finished, send_file, stream_with_context
from flask.typing import ResponseReturnValue
from waitress.server import create_server
from werkzeug.exceptions import NotFound
from werkzeug.local import LocalProxy
from werkzeug.test import create_environ, run_wsgi_app

from flask_chest import FlaskChest, FlaskChestSQLite, Record
from flask_chest.decorator import flask_chest
from flask_chest.extension.request import RequestState, StreamedResponse
from flask_chest.stores.memory import MemoryStore

Chunks = Callable[[], Iterator[str]]


def only(chest: FlaskChest) -> Record:
    (record,) = chest.query()
    return record


def two() -> Iterator[str]:
    yield "a"
    g.sent = 1
    yield "b"
    g.sent = 2


def fails() -> Iterator[str]:
    yield "a"
    g.sent = 1
    raise LookupError("a value that must not be stored")


def stream(app: Flask, chunks: Chunks = two, **options: Any) -> None:
    """Serve *chunks* at ``/``; *options* are those of the response."""

    @app.route("/")
    @flask_chest(tracked_vars=["user_id", "sent"])
    def index() -> Response:
        g.user_id = 1
        return Response(stream_with_context(chunks()), **options)


def open_stream(app: Flask, method: str = "GET") -> tuple[Iterable[bytes], Callable[[], None]]:
    """Request ``/`` as a server does: give the body and how it is closed."""
    environ = create_environ("/", method=method)
    serve: Callable[..., Any] = app.wsgi_app
    body = serve(environ, lambda *_: lambda _: None)
    return body, body.close


# What is recorded


def test_values_set_while_streaming_are_recorded(app: Flask, chest: FlaskChest) -> None:
    stream(app)
    assert app.test_client().get("/", buffered=True).data == b"ab"
    record = only(chest)
    assert record.variables == {"user_id": 1, "sent": 2}
    assert (record.status_code, record.error) == (200, None)


def test_duration_lasts_until_the_end_of_the_stream(app: Flask, chest: FlaskChest) -> None:
    times: list[int] = []

    def timed() -> Iterator[str]:
        times.append(time.perf_counter_ns())
        yield "a"
        times.append(time.perf_counter_ns())

    stream(app, timed)
    body, close = open_stream(app)
    begun = time.perf_counter_ns()
    assert b"".join(body) == b"a"
    close()
    assert begun <= times[0]
    assert only(chest).duration_ns > times[1] - begun


def test_nothing_is_told_before_the_close(app: Flask, chest: FlaskChest) -> None:
    stream(app)
    body, close = open_stream(app)
    assert chest.query() == []
    assert b"".join(body) == b"ab"
    assert chest.query() == []
    close()
    assert only(chest).variables == {"user_id": 1, "sent": 2}


def test_test_client_closes_a_response_that_it_does_not_buffer_when_told_to(
    app: Flask, chest: FlaskChest
) -> None:
    stream(app)
    with app.test_client().get("/") as response:
        assert response.data == b"ab"
        assert chest.query() == []
    assert only(chest).variables == {"user_id": 1, "sent": 2}


def test_two_closes_make_one_record(app: Flask, chest: FlaskChest) -> None:
    stream(app)
    _, close = open_stream(app)
    close()
    close()
    assert only(chest).variables == {"user_id": 1}


def test_stream_that_the_client_leaves_is_recorded_with_what_was_set(app: Flask, chest: FlaskChest) -> None:
    stream(app)
    body, close = open_stream(app)
    chunks = iter(body)
    assert (next(chunks), next(chunks)) == (b"a", b"b")
    close()
    record = only(chest)
    assert (dict(record.variables), record.error) == ({"user_id": 1, "sent": 1}, None)


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("GET", HTTPStatus.NO_CONTENT), ("GET", HTTPStatus.NOT_MODIFIED)]
)
def test_stream_without_a_body_is_recorded_once(app: Flask, chest: FlaskChest, method: str, status: int) -> None:
    stream(app, status=status)
    body, close = open_stream(app, method)
    assert list(body) == []
    close()
    record = only(chest)
    assert (record.method, record.status_code, dict(record.variables)) == (method, status, {"user_id": 1})


def test_stream_of_known_length_is_waited_for_too(app: Flask, chest: FlaskChest) -> None:
    stream(app, headers={"Content-Length": "2"})
    _, close = open_stream(app)
    assert chest.query() == []
    close()
    assert len(chest.query()) == 1


def test_every_chest_gets_its_record(app: Flask) -> None:
    chests = [FlaskChest(app, store=MemoryStore, strict=True) for _ in range(2)]
    stream(app)
    app.test_client().get("/", buffered=True)
    records = [only(chest) for chest in chests]
    assert [dict(record.variables) for record in records] == [{"user_id": 1, "sent": 2}] * 2
    assert len({record.id for record in records}) == len({record.time_unix_nano for record in records}) == 2


# Errors


def test_exception_that_ends_the_stream_is_named(app: Flask, chest: FlaskChest) -> None:
    stream(app, fails)
    with pytest.raises(LookupError):
        app.test_client().get("/", buffered=True)
    record = only(chest)
    assert (record.status_code, record.error) == (200, "LookupError")
    assert record.variables == {"user_id": 1, "sent": 1}


def test_exception_that_the_caller_handles_is_not_the_streams(app: Flask, chest: FlaskChest) -> None:
    stream(app)
    try:
        dict[str, str]().popitem()
    except KeyError:
        app.test_client().get("/", buffered=True)
    assert only(chest).error is None


def test_generator_closed_by_a_middleware_has_not_failed(app: Flask, chest: FlaskChest) -> None:
    stream(app)
    serve = app.wsgi_app

    def middleware(environ, start_response):  # type: ignore[no-untyped-def]  # as people write them
        body = serve(environ, start_response)
        try:
            yield from body
        finally:
            body.close()  # type: ignore[attr-defined]  # every body of Flask has it

    chunks = middleware(create_environ("/"), lambda *_: lambda _: None)  # type: ignore[no-untyped-call]  # as above
    assert next(chunks) == b"a"
    chunks.close()
    assert only(chest).error is None


def test_value_that_can_be_read_no_more_stays_as_it_was(app: Flask, chest: FlaskChest) -> None:
    @app.teardown_request
    def forget(_: BaseException | None) -> None:
        g.pop("user_id")

    @app.route("/")
    @flask_chest(tracked_vars=["user_id", "name"])
    def index() -> Response:
        g.user_id, g.held = 1, "Ada"
        g.name = LocalProxy(lambda: g.held)
        return Response(iter(["a"]))

    app.test_client().get("/", buffered=True)
    assert only(chest).variables == {"user_id": 1, "name": "Ada"}
    assert chest.stats().faults == {}


# What is told at once


def test_error_page_is_recorded_at_once(app: Flask) -> None:
    chest = FlaskChest(app, store=MemoryStore, strict=True, tracked_vars=[])

    @app.route("/gone")
    def gone() -> ResponseReturnValue:
        raise NotFound

    serve: Callable[..., Any] = app.wsgi_app
    serve(create_environ("/gone"), lambda *_: lambda _: None)
    assert only(chest).status_code == 404


def test_file_keeps_its_wrapper_and_is_recorded_at_once(app: Flask, chest: FlaskChest) -> None:
    class Sendfile:
        def __init__(self, file: io.BytesIO, size: int = 8192) -> None:
            self.file = file

    @app.route("/")
    @flask_chest
    def index() -> Response:
        return send_file(io.BytesIO(b"content"), mimetype="text/plain")

    environ = create_environ("/")
    environ["wsgi.file_wrapper"] = Sendfile
    serve: Callable[..., Any] = app.wsgi_app
    body = serve(environ, lambda *_: lambda _: None)
    assert type(body) is Sendfile
    assert body.file.read() == b"content"
    assert only(chest).status_code == 200


def test_stream_that_gave_way_to_an_error_page_is_not_waited_for(app: Flask, chest: FlaskChest) -> None:
    responses: list[Response] = []

    def broken(_sender: object, *, response: Response, **_: object) -> None:
        responses.append(response)
        if len(responses) == 1:
            raise OSError("broken")

    stream(app)
    with request_finished.connected_to(broken, app):
        assert app.test_client().get("/").status_code == 500
    responses[0].close()
    record = only(chest)
    assert (record.status_code, record.error) == (500, "OSError")


def test_stream_that_nobody_gets_is_recorded_at_once(app: Flask, chest: FlaskChest) -> None:
    def refuses(*_: object) -> Callable[[bytes], object]:
        raise ConnectionError

    stream(app)
    serve: Callable[..., Any] = app.wsgi_app
    with pytest.raises(ConnectionError):
        serve(create_environ("/"), refuses)
    record = only(chest)
    assert (record.status_code, record.error) == (500, "ConnectionError")


# Amid middlewares and contexts


def test_middleware_inside_the_chest_may_read_and_close_the_stream(app: Flask) -> None:
    inner = app.wsgi_app

    def buffering(environ, start_response):  # type: ignore[no-untyped-def]  # as people write them
        body, status, headers = run_wsgi_app(inner, environ, buffered=True)
        start_response(status, list(headers))
        return [b"".join(body)]

    app.wsgi_app = buffering  # type: ignore[method-assign]  # Flask's way
    chest = FlaskChest(app, store=MemoryStore, strict=True)
    stream(app)
    assert app.test_client().get("/").data == b"ab"
    assert only(chest).variables == {"user_id": 1, "sent": 2}


def test_generator_middleware_inside_the_chest_may_stream(app: Flask) -> None:
    inner = app.wsgi_app

    def middleware(environ, start_response):  # type: ignore[no-untyped-def]  # as people write them
        body = inner(environ, start_response)
        try:
            yield from body
        finally:
            body.close()  # type: ignore[attr-defined]  # every body of Flask has it

    app.wsgi_app = middleware  # type: ignore[method-assign]  # Flask's way
    chest = FlaskChest(app, store=MemoryStore, strict=True)
    stream(app)
    assert app.test_client().get("/", buffered=True).data == b"ab"
    record = only(chest)
    assert (record.status_code, dict(record.variables)) == (200, {"user_id": 1, "sent": 2})


def test_shared_g_is_watched_until_the_stream_closes(app: Flask, chest: FlaskChest) -> None:
    stream(app)
    with app.app_context():
        g.sent = "by a former request"
        plain = type(g._get_current_object())
        assert app.test_client().get("/", buffered=True).data == b"ab"
        assert only(chest).variables == {"user_id": 1, "sent": 2}
        assert type(g._get_current_object()) is plain


def test_abandoned_stream_keeps_no_shared_g(app: Flask, chest: FlaskChest) -> None:
    stream(app)
    with app.app_context():
        shared = weakref.ref(g._get_current_object())
        body, close = open_stream(app)
        del body, close
    gc.collect()
    chest.flush()
    assert shared() is None


@pytest.mark.slow
def test_long_poll_that_is_abandoned_leaves_nothing_behind(app: Flask, chest: FlaskChest) -> None:
    stream(app, lambda: iter(["a", "b"]))

    def living() -> int:
        gc.collect()
        chest.flush()
        return sum(type(each) in {RequestState, StreamedResponse} for each in gc.get_objects())

    before = living()
    for _ in range(20):
        body, close = open_stream(app)
        next(iter(body))
        del body, close
    assert living() == before
    assert chest.stats().lost == {}


def test_stream_after_which_the_app_is_asked_again_keeps_both_apart(app: Flask, chest: FlaskChest) -> None:
    stream(app)
    first, close_first = open_stream(app)
    second, close_second = open_stream(app)
    assert (b"".join(second), b"".join(first)) == (b"ab", b"ab")
    close_second()
    close_first()
    records = chest.query()
    assert [dict(record.variables) for record in records] == [{"user_id": 1, "sent": 2}] * 2
    assert len({record.id for record in records}) == 2


# Processes and servers

KILLED = """
import os, sys
from flask import Flask, Response, g
from flask_chest import FlaskChestSQLite
from flask_chest.decorator import flask_chest

app = Flask("shop", instance_path=sys.argv[1])
chest = FlaskChestSQLite(app, db_uri=sys.argv[1] + "/chest.db", writer="off")

@app.route("/")
@flask_chest(tracked_vars=["user_id"])
def index():
    g.user_id = 1
    def chunks():
        yield "a"
        os._exit(9)
    return Response(chunks())

app.test_client().get("/", buffered=True)
"""


def test_stream_that_is_cut_off_with_its_process_is_recorded_as_interrupted(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=30)
    assert killed.returncode == 9
    app = Flask("shop", instance_path=str(tmp_path))
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", tracked_vars=[])
    app.test_client().get("/")
    deadline = time.monotonic() + 20
    while len(records := chest.query()) < 2:
        assert time.monotonic() < deadline
    chest.close()
    (record,) = [record for record in records if record.status_code == 200]
    assert (dict(record.variables), record.error) == ({"user_id": 1}, "interrupted")


@pytest.mark.slow
def test_server_streams_and_each_response_is_recorded_once_it_is_out(app: Flask, chest: FlaskChest) -> None:
    first_is_read = threading.Event()

    def chunks() -> Iterator[str]:
        yield "a" * 100_000
        first_is_read.wait(timeout=10)
        g.sent = 1
        yield "b"

    stream(app, chunks)
    server = create_server(app, host="127.0.0.1", port=0, threads=1)

    def serve() -> None:
        with suppress(OSError):  # of the sockets that it loses when it is closed from here
            server.run()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.effective_port}/"  # type: ignore[union-attr]  # of one address
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.read(1) == b"a"
            assert chest.query() == []
            first_is_read.set()
            assert answer.read()[-1:] == b"b"
        deadline = time.monotonic() + 10
        while not chest.query():
            assert time.monotonic() < deadline
        assert only(chest).variables == {"user_id": 1, "sent": 1}
    finally:
        server.close()
        thread.join(timeout=10)
