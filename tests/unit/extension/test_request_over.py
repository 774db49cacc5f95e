"""When a request is over: whose code may run then, and what its record says whatever the server does."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from flask import Flask, Response, after_this_request, g, has_app_context, request_finished, stream_with_context
from werkzeug.exceptions import NotFound
from werkzeug.local import LocalProxy
from werkzeug.test import create_environ

from flask_chest import FlaskChest, FlaskChestSQLite, Record
from flask_chest.capture.redaction import Redact
from flask_chest.exporter.store import StoreExporter
from flask_chest.extension import middleware
from flask_chest.extension import shared_g as module_of_shared_g
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import make_record

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

DEADLINE_SECONDS = 20


def make_chest(app: Flask, *names: str, **options: Any) -> FlaskChest:
    return FlaskChest(app, store=MemoryStore, tracked_vars=names, **options)


def only(chest: FlaskChest) -> Record:
    assert chest.flush(DEADLINE_SECONDS)
    (record,) = chest.query()
    return record


def serve(app: Flask, method: str = "GET") -> Any:
    """Request ``/`` as a server does that never closes, and give the body."""
    wsgi_app: Callable[..., Any] = app.wsgi_app
    return wsgi_app(create_environ("/", method=method), lambda *_: lambda _: None)


# A Flask that does not ask which errors to ignore


def wsgi_app_that_ignores_no_error(
    self: Flask, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    context = self.request_context(environ)
    error: BaseException | None = None
    try:
        try:
            context.push()
            response = self.full_dispatch_request()
        except Exception as raised:  # noqa: BLE001 - as Flask does
            error = raised
            response = self.handle_exception(raised)
        except BaseException as raised:
            error = raised
            raise
        return response(environ, start_response)
    finally:
        ignores: Callable[[BaseException], bool] | None = self.should_ignore_error
        if error is not None and ignores is not None and ignores(error):
            error = None
        context.pop(error)


@pytest.fixture(params=["as from 3.2 on", "as before"])
def newer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """An app of a Flask whose ``should_ignore_error`` is ``None``, and asked all the same before 3.2."""
    if middleware.FLASK_ASKS_WHAT_TO_IGNORE:
        monkeypatch.setattr(Flask, "should_ignore_error", None)
        if request.param == "as from 3.2 on":
            monkeypatch.setattr(Flask, "wsgi_app", wsgi_app_that_ignores_no_error)
            monkeypatch.setattr(middleware, "FLASK_ASKS_WHAT_TO_IGNORE", False)
    app = Flask("shop")
    monkeypatch.setattr(app.logger, "disabled", True)
    return app


def fail() -> NoReturn:
    g.n = 1
    raise ZeroDivisionError


def leave() -> NoReturn:
    g.n = 1
    raise SystemExit(3)


def test_error_has_its_page_and_record_where_flask_ignores_none(newer: Flask) -> None:
    chest = make_chest(newer, "n")
    torn: list[BaseException | None] = []
    newer.teardown_request(torn.append)
    newer.add_url_rule("/", view_func=fail)
    assert newer.test_client().get("/").status_code == 500
    assert len(torn) == 1
    assert not has_app_context()
    record = only(chest)
    assert (record.status_code, record.error, record.variables) == (500, "ZeroDivisionError", {"n": 1})


def test_exit_is_recorded_where_flask_ignores_no_error(newer: Flask) -> None:
    chest = make_chest(newer, "n", "torn")

    @newer.teardown_request
    def tear(_: BaseException | None) -> None:
        g.torn = True

    newer.add_url_rule("/", view_func=leave)
    with pytest.raises(SystemExit):
        serve(newer)
    record = only(chest)
    assert (record.error, dict(record.variables)) == ("SystemExit", {"n": 1, "torn": True})


def test_exit_is_recorded_where_an_app_has_its_own_way_to_ignore_errors(app: Flask) -> None:
    chest = make_chest(app, "n")
    app.add_url_rule("/", view_func=leave)
    with pytest.raises(SystemExit):
        serve(app)
    record = only(chest)
    assert (record.error, record.variables) == ("SystemExit", {"n": 1})


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_stream_within_its_context_that_is_left_is_recorded_once(newer: Flask, method: str) -> None:
    chest = make_chest(newer, "n")

    def chunks() -> Iterator[str]:
        g.n += 1
        yield "a"
        yield "b"

    def index() -> Response:
        g.n = 1
        return Response(stream_with_context(chunks()))

    newer.add_url_rule("/", view_func=index)
    body = serve(newer, method)
    next(iter(body), None)
    body.close()
    record = only(chest)
    assert (record.status_code, record.error) == (200, None)
    assert record.variables["n"] == (1 if method == "HEAD" else 2)


# Whose code runs when the request is over


@dataclass
class Counted:
    """Something of the app's that notes how often it was asked."""

    asked: int = 0

    def ask(self, *_: object) -> Counted:
        self.asked += 1
        return self

    @property
    def total(self) -> int:
        return self.ask().asked


class Basket:
    """What only an encoder knows how to store."""

    def __init__(self) -> None:
        self.items = 0


RUNS: Mapping[str, Callable[[Counted], tuple[object, list[str], dict[str, Any]]]] = {
    "a path": lambda counted: (counted, ["v.total"], {}),
    "a proxy": lambda counted: (LocalProxy(lambda: counted.total), ["v"], {}),
    "a proxy in a list": lambda counted: ([LocalProxy(lambda: counted.total)], ["v"], {}),
    "a proxy among all names": lambda counted: ([LocalProxy(lambda: counted.total)], ["*"], {}),
    "an encoder": lambda counted: (Basket(), ["v"], {"encoders": {Basket: lambda _: counted.total}}),
    "an encoder in a list": lambda counted: ([Basket()], ["v"], {"encoders": {Basket: lambda _: counted.total}}),
    "a judge": lambda counted: (
        ["a"],
        ["v"],
        {"redact": [Redact("v", action="mask", when=lambda *_: counted.total > 1)]},
    ),
    "a computed variable": lambda counted: (None, ["v"], {"computed": {"v2": lambda: counted.total}}),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["teardown", "close"])
@pytest.mark.parametrize("what", RUNS)
def test_code_of_the_app_does_not_run_when_its_request_is_over(app: Flask, what: str, streamed: bool) -> None:
    counted = Counted()
    value, names, options = RUNS[what](counted)
    chest = make_chest(app, *names, "later", **options)
    seen: list[int] = []

    @app.teardown_request
    def tear(_: BaseException | None) -> None:
        g.later = "set"
        seen.append(counted.asked)

    def index() -> Response:
        g.v = value
        return Response(iter(["a"]) if streamed else "a")

    app.add_url_rule("/", view_func=index)
    assert app.test_client().get("/", buffered=True).data == b"a"
    record = only(chest)
    assert counted.asked == seen[0] == 1
    assert record.variables["later"] == "set"
    kept = [record.variables[name] for name in ("v", "v.total", "v2") if record.variables.get(name) is not None]
    assert kept in ([1], [[1]], [["a"]])
    assert chest.stats().faults == chest.stats().lost == {}


def test_proxy_that_a_teardown_sets_is_not_followed(app: Flask) -> None:
    counted = Counted()
    chest = make_chest(app, "v", "w")

    @app.teardown_request
    def tear(_: BaseException | None) -> None:
        g.v = g.w = LocalProxy(lambda: counted.total)

    def index() -> str:
        g.v = "Ada"
        return "a"

    app.add_url_rule("/", view_func=index)
    app.test_client().get("/")
    assert only(chest).variables == {"v": "Ada"}
    assert counted.asked == 0


@dataclass
class Order:
    number: int


def test_what_a_teardown_adds_to_built_in_values_and_sets_anew_is_recorded(app: Flask) -> None:
    chest = make_chest(app, "seen", "by_name", "order", "number")

    @app.teardown_request
    def tear(_: BaseException | None) -> None:
        g.seen.append(2)
        g.by_name["b"] = [1]
        g.order = Order(2)
        g.number = 2

    def index() -> str:
        g.seen, g.by_name, g.order, g.number = [1], {"a": 1}, Order(1), 1
        return "a"

    app.add_url_rule("/", view_func=index)
    app.test_client().get("/")
    assert only(chest).variables == {
        "seen": [1, 2],
        "by_name": {"a": 1, "b": [1]},
        "order": {"number": 2},
        "number": 2,
    }


@pytest.mark.parametrize("names", [["kept", "seen"], ["*"]])
def test_what_a_teardown_adds_keeps_to_the_limit_of_a_record(app: Flask, names: list[str]) -> None:
    chest = make_chest(app, *names, max_record_bytes=2_000, max_value_bytes=1_500)

    @app.teardown_request
    def tear(_: BaseException | None) -> None:
        g.seen += ["x" * 100] * 50
        for number in range(100):
            setattr(g, f"more_{number}", 1)

    def index() -> str:
        g.kept, g.seen = "y" * 1_400, [1]
        return "a"

    app.add_url_rule("/", view_func=index)
    app.test_client().get("/")
    variables = only(chest).variables
    assert variables["kept"] == "y" * 1_400
    assert len(repr(dict(variables))) < 2_500


# Servers that never close, and chunks that fail


def streaming(app: Flask, chunks: Callable[[Any], Iterator[str]]) -> None:
    """Serve *chunks* at ``/``, given the ``g`` of the request, whose context none of them leaves behind."""

    def index() -> Response:
        g.n = 1
        return Response(chunks(g._get_current_object()))

    app.add_url_rule("/", view_func=index)


def counting(kept: Any) -> Iterator[str]:
    yield "a"
    kept.n = 2
    yield "b"
    kept.n = 3


@pytest.fixture
def durable(app: Flask, tmp_path: Path) -> Iterator[FlaskChestSQLite]:
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", tracked_vars=["n"])
    yield chest
    chest.close()


@pytest.mark.slow
def test_stream_that_the_server_never_closes_is_stored_while_the_process_rests(
    app: Flask, durable: FlaskChestSQLite
) -> None:
    streaming(app, counting)
    assert list(serve(app)) == [b"a", b"b"]
    gc.collect()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (records := durable.query()):
        assert time.monotonic() < deadline
    assert [(record.variables["n"], record.error) for record in records] == [(3, None)]


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
def test_stream_that_is_neither_read_to_its_end_nor_closed_is_recorded(app: Flask, strict: bool) -> None:
    chest = make_chest(app, "n", strict=strict)
    streaming(app, counting)
    chunks = iter(serve(app))
    assert [next(chunks), next(chunks)] == [b"a", b"b"]
    del chunks
    gc.collect()
    record = only(chest)
    assert (record.variables["n"], record.error) == (2, None)


@pytest.mark.slow
def test_request_takes_along_what_nobody_closed_where_no_writer_does(app: Flask, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", tracked_vars=["n"], writer="off")
    streaming(app, counting)
    app.add_url_rule("/plain", view_func=lambda: "a")
    for _ in range(3):
        assert list(serve(app)) == [b"a", b"b"]
        gc.collect()
    for _ in range(3):
        app.test_client().get("/plain")
    assert chest.stats().captured == 6
    chest.close()


@pytest.mark.slow
def test_stream_takes_along_those_before_it_that_nobody_closed(app: Flask, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", tracked_vars=["n"], writer="off")
    streaming(app, counting)
    for _ in range(10):
        assert list(serve(app)) == [b"a", b"b"]
        gc.collect()
    assert chest.stats().captured == 9
    chest.close()


@pytest.mark.slow
def test_loop_of_streams_that_nobody_closes_does_not_fill_the_journal(app: Flask, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", tracked_vars=["n"], journal_bytes=2_000_000)

    @app.get("/")
    def view() -> Response:
        g.n = "x" * 700
        return Response(iter(["a", "b"]))

    for _ in range(2000):
        assert list(serve(app)) == [b"a", b"b"]
    assert chest.flush(DEADLINE_SECONDS)
    assert (chest.stats().captured, dict(chest.stats().lost)) == (2000, {})
    chest.close()


def test_every_chest_gets_the_record_of_a_stream_that_nobody_closed(app: Flask) -> None:
    chests = [make_chest(app, "n") for _ in range(2)]
    streaming(app, counting)
    assert list(serve(app)) == [b"a", b"b"]
    gc.collect()
    assert [only(chest).variables for chest in chests] == [{"n": 3}] * 2


@pytest.mark.slow
def test_stream_may_be_collected_while_its_thread_holds_the_lock_of_the_journal(
    app: Flask, durable: FlaskChestSQLite
) -> None:
    streaming(app, counting)
    held = [serve(app)]
    held.append(held)  # so that the collector finds it, whenever that runs

    def collect() -> None:
        intake: Any = app.extensions["flask_chest"].states[0].here.intake
        with intake._journal._lock:
            held.clear()
            gc.collect()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    assert only(durable).error is None


def test_what_the_app_sets_when_its_response_closes_is_recorded(app: Flask) -> None:
    chest = make_chest(app, "closed")

    def index() -> Response:
        response = Response(iter(["a"]))
        kept = g._get_current_object()
        response.call_on_close(lambda: setattr(kept, "closed", True))
        return response

    app.add_url_rule("/", view_func=index)
    app.test_client().get("/", buffered=True)
    assert only(chest).variables == {"closed": True}


def test_closing_passes_inward_to_the_chunks_of_the_app(app: Flask) -> None:
    class Chunks:
        name = "rows.csv"
        closed = 0

        def __iter__(self) -> Iterator[str]:
            return iter(["a", "b"])

        def close(self) -> None:
            self.closed += 1

    chunks, names = Chunks(), []
    chest = make_chest(app)

    def index() -> Response:
        response = Response(chunks)
        response.call_on_close(lambda: names.append(response.response.name))  # type: ignore[union-attr]  # the app's
        return response

    app.add_url_rule("/", view_func=index)
    assert app.test_client().get("/", buffered=True).data == b"ab"
    assert (chunks.closed, names) == (1, ["rows.csv"])
    body = serve(app)
    next(iter(body))
    del body
    gc.collect()
    assert chunks.closed == 1  # what nobody closed is not closed by a finalizer either
    assert chest.flush()
    assert len(chest.query()) == 2


def test_chunk_that_fails_first_is_recorded_as_what_the_client_gets(app: Flask) -> None:
    chest = make_chest(app)

    def chunks(_: object) -> Iterator[str]:
        yield from map(str, iter(dict[str, str]().popitem, None))

    streaming(app, chunks)
    body = serve(app)
    with pytest.raises(KeyError):
        next(iter(body))
    body.close()  # as servers do that have handled the exception by then
    record = only(chest)
    assert (record.status_code, record.error) == (500, "KeyError")


def test_chunk_that_fails_later_is_named_though_the_server_closes_without_it(app: Flask) -> None:
    chest = make_chest(app, "n", error_messages=True)

    def chunks(kept: Any) -> Iterator[str]:
        yield "a"
        kept.n = 2
        raise LookupError("no such row")

    streaming(app, chunks)
    body = serve(app)
    with pytest.raises(LookupError):
        list(body)
    body.close()
    record = only(chest)
    assert (record.status_code, record.error, record.variables) == (200, "LookupError: no such row", {"n": 2})


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304), ("GET", 101)])
def test_response_that_nobody_iterates_is_recorded_when_the_app_returns(
    app: Flask, method: str, status: int
) -> None:
    chest = make_chest(app)
    app.add_url_rule("/", view_func=lambda: Response(iter(["a"]), status=status))
    body = serve(app, method)
    assert only(chest).status_code == status
    body.close()
    assert only(chest).status_code == status


# Responses of one's own


def refuse(*_: object) -> NoReturn:
    raise RuntimeError


class NoStream(Response):
    is_streamed = property(refuse)


class NoLength(Response):
    content_length = property(refuse)


class NoClose(Response):
    call_on_close = refuse  # type: ignore[assignment]


class NoExit(Response):
    def call_on_close(self, func: Callable[[], Any]) -> NoReturn:
        raise KeyError


class Fixed(Response):
    def __setattr__(self, name: str, value: object) -> None:
        if name == "response" and "response" in vars(self):
            raise AttributeError
        super().__setattr__(name, value)


@pytest.mark.parametrize("kind", [NoStream, NoLength, NoClose, NoExit, Fixed])
def test_response_of_its_own_kind_goes_out_as_it_is(app: Flask, kind: type[Response]) -> None:
    chest = make_chest(app)
    given: list[Any] = []

    def index() -> Response:
        chunks = iter(["a", "b"])
        given.extend([kind(chunks), chunks])
        response: Response = given[0]
        return response

    app.add_url_rule("/", view_func=index)
    if kind is NoStream:
        body = serve(app)
        assert list(body) == [b"a", b"b"]
    else:
        assert app.test_client().get("/", buffered=True).data == b"ab"
    assert given[0].response is given[1]
    assert only(chest).status_code == 200
    assert sum(chest.stats().faults.values()) == 1


def plain(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("299 Plain", [])
    return [b"plain"]


class Numbered:
    status_code = "299"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return plain(environ, start_response)


@pytest.mark.parametrize(("other", "status"), [(plain, 299), (Numbered(), 299), (NotFound(), 404)])
def test_another_wsgi_app_in_place_of_the_response_is_recorded_with_its_status(
    app: Flask, other: Any, status: int
) -> None:
    chest = make_chest(app, "n")

    def index() -> str:
        g.n = 1
        after_this_request(lambda _: other)
        return "a"

    def look(_sender: object, *, response: Any, **_: object) -> None:
        seen.append(getattr(response, "code", None))

    seen: list[int | None] = []
    app.add_url_rule("/", view_func=index)
    with request_finished.connected_to(look, app):
        assert app.test_client().get("/").status_code == status
    assert seen == [getattr(other, "code", None)]
    record = only(chest)
    assert (record.status_code, record.error, record.variables) == (status, None, {"n": 1})
    assert chest.stats().faults == {}


# What is raised while the app's code is asked


class Timeout(BaseException):
    """As gevent's: no `Exception`, and no end of the process."""


def time_out(*_: object) -> NoReturn:
    raise Timeout


@pytest.mark.parametrize("option", ["request_id_generator", "sample"])
def test_request_goes_on_whatever_the_code_that_is_asked_raises(app: Flask, option: str) -> None:
    chest = make_chest(app, "n", **{option: time_out})
    app.add_url_rule("/", view_func=lambda: "a")
    assert app.test_client().get("/").data == b"a"
    assert only(chest).status_code == 200
    assert sum(chest.stats().faults.values()) == 1


@pytest.mark.parametrize("ends", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_a_process_passes(app: Flask, ends: type[BaseException]) -> None:
    def end() -> NoReturn:
        raise ends

    make_chest(app, "n", request_id_generator=end)
    app.add_url_rule("/", view_func=lambda: "a")
    with pytest.raises(ends):
        serve(app)
    assert not has_app_context()


# Locks and forks


def run_in_child(work: Callable[[], object]) -> int:
    """Fork, do *work* in the child, and give how that ended; one that hangs ends by a signal."""
    child = os.fork()
    if child == 0:
        signal.alarm(DEADLINE_SECONDS)
        try:
            work()
        except BaseException:  # noqa: BLE001 - it must not go on as a second pytest
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return status


class Holder:
    """A thread that holds *lock* for as long as the block lasts."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._held = threading.Event()
        self._let_go = threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def _hold(self) -> None:
        with self._lock:
            self._held.set()
            self._let_go.wait(DEADLINE_SECONDS)

    def __enter__(self) -> None:
        self._thread.start()
        assert self._held.wait(DEADLINE_SECONDS)

    def __exit__(self, *_: object) -> None:
        self._let_go.set()
        self._thread.join()


def test_forked_child_serves_though_a_thread_of_its_parent_begins_a_request(app: Flask) -> None:
    make_chest(app, "n")
    app.add_url_rule("/", view_func=lambda: "a")

    def work() -> None:
        with app.app_context():
            assert app.test_client().get("/").status_code == 200

    with Holder(module_of_shared_g._turns.get()):
        assert run_in_child(work) == 0


def test_forked_child_delivers_though_a_thread_of_its_parent_opens_the_target() -> None:
    store = MemoryStore()
    exporter = StoreExporter(store, name="copies")
    with Holder(exporter._lock.get()):
        assert run_in_child(lambda: exporter.export([make_record()])) == 0


@pytest.mark.slow
def test_stream_that_a_forked_child_inherits_is_its_parents_to_record(app: Flask) -> None:
    chest = make_chest(app, "n")
    streaming(app, counting)
    held = [serve(app)]

    def work() -> None:
        held.pop()
        gc.collect()
        assert chest.flush(DEADLINE_SECONDS)
        assert chest.stats().captured == 0

    assert run_in_child(work) == 0
    held.pop().close()
    assert only(chest).error is None


def test_shared_g_has_its_own_class_back_when_all_streams_on_it_are_collected(app: Flask) -> None:
    chest = make_chest(app, "n")
    streaming(app, counting)
    with app.app_context():
        kept = g._get_current_object()
        kind = type(kept)
        bodies = [serve(app) for _ in range(2)]
        bodies.clear()
        gc.collect()
        assert chest.flush(DEADLINE_SECONDS)
        assert type(kept) is kind
