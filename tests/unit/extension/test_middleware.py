"""The middleware's place in an app: middlewares, overlapping requests, memory, other people's code."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import flask.globals
import pytest
from flask import Flask, Request, Response, current_app, g, request
from flask.views import View
from werkzeug.test import create_environ, run_wsgi_app

from flask_chest import (
    ConfigurationError,
    FlaskChest,
    FlaskChestSQLite,
    Record,
    StoreUnavailable,
    current_request_id,
)
from flask_chest.decorator import flask_chest
from flask_chest.extension.middleware import finder
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import RecordingExporter


def add_view(app: Flask) -> None:
    @app.route("/")
    @flask_chest(tracked_vars=["user_id", "late"])
    def index() -> str:
        g.user_id = 1
        return "hi"


class Unavailable(MemoryStore):
    def write(self, records: Sequence[Record], /) -> None:
        raise StoreUnavailable("away")


@pytest.mark.skipif(
    getattr(Flask, "should_ignore_error", None) is None,
    reason="from 3.2 on Flask itself leaves it to the collector",
)
def test_request_is_freed_without_the_garbage_collector(app: Flask, chest: FlaskChest) -> None:
    requests: list[weakref.ref[Request]] = []

    @app.route("/", methods=["POST"])
    @flask_chest(tracked_vars=["size"])
    def index() -> str:
        requests.append(weakref.ref(request._get_current_object()))  # type: ignore[attr-defined]  # typed as a Request
        g.size = len(request.get_data())
        return "hi"

    gc.disable()
    try:
        for _ in range(3):
            body, status, _ = run_wsgi_app(app.wsgi_app, create_environ("/", method="POST", data=b"x" * 100))
            assert (list(body), status) == ([b"hi"], "200 OK")
            del body
        assert [reference() for reference in requests] == [None] * 3
    finally:
        gc.enable()
    assert len(chest.query()) == 3


def test_chest_registered_last_still_sees_what_after_request_functions_set(app: Flask) -> None:
    @app.after_request
    def late(response: Response) -> Response:
        g.late = "yes"
        return response

    chest = FlaskChest(app, store=MemoryStore)
    add_view(app)
    app.test_client().get("/")
    assert chest.query()[0].variables == {"user_id": 1, "late": "yes"}


def test_generator_middleware_inside_the_chest_hides_no_request(app: Flask) -> None:
    inner = app.wsgi_app

    def middleware(environ, start_response):  # type: ignore[no-untyped-def]  # as people write them
        yield from inner(environ, start_response)

    app.wsgi_app = middleware  # type: ignore[method-assign]  # Flask's way
    chest = FlaskChest(app, store=MemoryStore, strict=True)
    add_view(app)
    assert app.test_client().get("/").data == b"hi"
    (record,) = chest.query()
    assert (record.status_code, dict(record.variables)) == (200, {"user_id": 1})


def test_what_the_app_says_to_start_response_reaches_the_server_as_it_was(app: Flask) -> None:
    inner = app.wsgi_app
    late = (ValueError, ValueError("late"), None)

    def middleware(environ, start_response):  # type: ignore[no-untyped-def]  # as people write them
        start_response("500 EARLY", [])
        start = partial(start_response, exc_info=late)
        return inner(environ, start)

    app.wsgi_app = middleware  # type: ignore[method-assign]  # Flask's way
    chest = FlaskChest(app, store=MemoryStore, strict=True)
    add_view(app)
    seen: list[tuple[object, ...]] = []

    def server(*arguments: object) -> Callable[[bytes], object]:
        seen.append(arguments)
        return lambda _: None

    serve: Callable[..., Iterable[bytes]] = app.wsgi_app
    assert list(serve(create_environ("/"), server)) == [b"hi"]
    assert [(arguments[0], arguments[2:]) for arguments in seen] == [("500 EARLY", ()), ("200 OK", (late,))]
    assert chest.query()[0].status_code == 200


def test_environ_dispatched_again_keeps_both_requests_whatever_becomes_of_the_inner(
    app: Flask, chest: FlaskChest
) -> None:
    @app.route("/inner/<result>")
    @flask_chest
    def inner(result: str) -> str:
        if result == "bad":
            raise ValueError
        return "inner"

    @app.route("/<result>")
    @flask_chest
    def outer(result: str) -> str:
        environ = request.environ
        environ["PATH_INFO"] = f"/inner/{result}"
        try:
            list(current_app.wsgi_app(environ, lambda *_: lambda _: None))
        except ValueError:
            return "caught"
        return "fine"

    app.config["PROPAGATE_EXCEPTIONS"] = True
    for result in ("good", "bad"):
        assert app.test_client().get(f"/{result}").status_code == 200
    recorded = [(record.route, record.status_code) for record in reversed(chest.query())]
    assert sorted(recorded, key=str) == [
        ("/<result>", 200), ("/<result>", 200), ("/inner/<result>", 200), ("/inner/<result>", 500)
    ]  # fmt: skip


def test_overlapping_requests_on_one_g_leave_it_as_it_was(app: Flask, chest: FlaskChest) -> None:
    add_view(app)

    async def overlap() -> None:
        await asyncio.gather(*[asyncio.to_thread(app.test_client().get, "/") for _ in range(8)])

    with app.app_context():
        for _ in range(20):
            asyncio.run(overlap())
            assert type(g._get_current_object()) is app.app_ctx_globals_class
        assert len(chest.query(limit=None)) == 160


def test_g_that_cannot_be_watched_is_compared(app: Flask, chest: FlaskChest) -> None:
    class Final(app.app_ctx_globals_class):  # type: ignore[name-defined, misc]  # Flask's way to another class
        def __init_subclass__(cls) -> None:
            raise TypeError("no subclasses")

    app.app_ctx_globals_class = Final
    add_view(app)
    with app.app_context():
        assert app.test_client().get("/").data == b"hi"
        assert chest.query()[0].variables == {"user_id": 1}


def test_filter_of_the_apps_logging_may_raise(app: Flask) -> None:
    class NeedsRequest(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            return bool(request.url)

    def broken() -> str:
        raise RuntimeError("a generator with a fault")

    handler = logging.StreamHandler()
    handler.addFilter(NeedsRequest())
    logging.getLogger("flask_chest").addHandler(handler)
    try:
        chest = FlaskChest(app, store=MemoryStore, request_id_generator=broken)
        add_view(app)
        assert app.test_client().get("/").data == b"hi"
        assert sum(chest.stats().faults.values()) == 1
    finally:
        logging.getLogger("flask_chest").removeHandler(handler)


def test_decorator_on_dispatch_request_counts(app: Flask, chest: FlaskChest) -> None:
    class Page(View):
        @flask_chest(tracked_vars=["page"])
        def dispatch_request(self) -> str:
            g.page = 1
            return "hi"

    app.add_url_rule("/", view_func=Page.as_view("page"))
    app.test_client().get("/")
    assert chest.query()[0].variables == {"page": 1}


def test_view_that_takes_anothers_place_brings_its_own_rules(app: Flask, chest: FlaskChest) -> None:
    add_view(app)
    app.test_client().get("/")

    @flask_chest(tracked_vars=["other"])
    def other() -> str:
        g.user_id, g.other = 1, 2
        return "hi"

    app.view_functions = {"index": other}
    app.test_client().get("/")
    assert [dict(record.variables) for record in chest.query()] == [{"other": 2}, {"user_id": 1}]


def test_chest_that_joins_later_records_from_then_on(app: Flask, chest: FlaskChest) -> None:
    add_view(app)
    app.test_client().get("/")
    second = FlaskChest(app, store=MemoryStore)
    app.test_client().get("/")
    assert (len(chest.query()), len(second.query())) == (2, 1)


def test_times_of_two_chests_differ_when_the_clock_stands_still(
    app: Flask, chest: FlaskChest, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = FlaskChest(app, store=MemoryStore)
    add_view(app)
    now = time.time_ns()
    monkeypatch.setattr("time.time_ns", lambda: now)
    for _ in range(2):
        app.test_client().get("/")
    assert len({record.time_unix_nano for each in (chest, second) for record in each.query()}) == 4


def test_strict_chest_that_fails_leaves_the_other_its_record(app: Flask) -> None:
    FlaskChest(app, store=Unavailable, strict=True)
    second = FlaskChest(app, store=MemoryStore)
    add_view(app)
    with pytest.raises(StoreUnavailable):
        app.test_client().get("/")
    assert len(second.query()) == 1


def test_methods_that_clients_invent_are_bounded(app: Flask) -> None:
    chest = FlaskChest(app, store=MemoryStore, tracked_vars=[])
    for number in range(50):
        app.test_client().open("/", method=f"X{number}" * 100)
    assert max(len(record.method) for record in chest.query()) == 32
    assert len(app.extensions["flask_chest"]._plans) == 1


def test_request_that_is_not_recorded_has_no_id(app: Flask, chest: FlaskChest) -> None:
    @app.route("/bare")
    def bare() -> str:
        return str(current_request_id())

    assert app.test_client().get("/bare").text == "None"


def test_generator_of_a_chest_that_does_not_record_is_not_asked(app: Flask) -> None:
    FlaskChest(app, store=MemoryStore, request_id_generator=lambda: "of the first")
    second = FlaskChest(app, store=MemoryStore, request_id_generator=lambda: "of the second")

    @app.route("/")
    @flask_chest(chests=[second])
    def index() -> str:
        return str(current_request_id())

    assert app.test_client().get("/").text == "of the second"


def test_exporter_delivers_under_the_name_it_was_added_by(app: Flask, chest: FlaskChest) -> None:
    first, second = RecordingExporter(), RecordingExporter()
    chest.add_exporter(first)
    chest.add_exporter(second, name="second")
    add_view(app)
    app.test_client().get("/")
    assert [(report.exporter, report.delivered) for report in chest.run_exports()] == [
        ("recording", 1),
        ("second", 1),
    ]
    chest.add_exporter(RecordingExporter, name="from now", start_at="now")
    assert chest.run_exports()[2].delivered == 0


def test_exporter_that_cannot_be_made_stops_no_other(
    app: Flask, chest: FlaskChest, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> RecordingExporter:
        raise OSError("hunter2")

    chest.add_exporter(broken, name="broken")
    chest.add_exporter(RecordingExporter())
    add_view(app)
    app.test_client().get("/")
    bad, good = chest.run_exports()
    assert (bad.error, good.delivered) == ("the export did not begin: builtins.OSError", 1)
    assert "hunter2" not in caplog.text


@pytest.mark.slow
def test_store_that_does_not_open_costs_no_request_its_record(app: Flask) -> None:
    opened_in: list[int] = []

    is_away = True

    class Away(MemoryStore):
        def open(self) -> None:
            opened_in.append(threading.get_ident())
            if is_away:
                raise StoreUnavailable("away")
            super().open()

    chest = FlaskChest(app, store=Away, journal_dir="memory:")
    add_view(app)
    for _ in range(20):
        app.test_client().get("/")
    stats = chest.stats()
    assert (stats.waiting, dict(stats.lost)) == (20, {})
    assert threading.get_ident() not in opened_in
    is_away = False
    assert chest.close()  # or the collector ends it, and says in another test what was lost


def test_first_request_after_close_starts_everything_again(app: Flask) -> None:
    chest = FlaskChest(app, store=MemoryStore)
    chest.add_exporter(RecordingExporter())
    add_view(app)
    for _ in range(2):
        app.test_client().get("/")
        assert chest._state.here.exports._scheduler is not None
        chest.close()
        assert chest._state.here.exports._scheduler is None


def test_records_given_out_are_the_receivers_own(app: Flask, chest: FlaskChest) -> None:
    class Mutating(RecordingExporter):
        def export(self, records: Sequence[Record], /) -> None:
            for record in records:
                record.variables["user_id"] = "evil"  # type: ignore[index]  # what a third-party exporter may try
            super().export(records)

    other = RecordingExporter("other")
    chest.add_exporter(Mutating())
    chest.add_exporter(other)
    add_view(app)
    app.test_client().get("/")
    chest.query()[0].variables["user_id"] = "evil"  # type: ignore[index]  # likewise
    chest.run_exports()
    kept: Iterable[Record] = [*other.delivered, *chest.query()]
    assert [record.variables["user_id"] for record in kept] == [1, 1]


@pytest.mark.slow
def test_store_is_closed_when_the_process_ends(tmp_path: Path) -> None:
    code = (
        "from flask import Flask\nfrom flask_chest import FlaskChest\n"
        "from flask_chest.stores.memory import MemoryStore\n"
        "class Loud(MemoryStore):\n"
        "    def close(self): print('closed')\n"
        "app = Flask('shop')\nchest = FlaskChest(app, store=Loud, tracked_vars=[])\n"
        "app.test_client().get('/')\nprint('served')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert result.stdout.split() == ["served", "closed"]


def test_address_of_another_database_is_refused_and_not_shown(app: Flask) -> None:
    with pytest.raises(ConfigurationError, match="for another database use its own class") as refused:
        FlaskChestSQLite(app, db_uri="postgresql://shop:s3cret@db.example/chest")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("db_uri", ["", "sqlite:///", "sqlite:x.db", "sqlite://x.db"])
def test_path_that_is_none_is_refused(app: Flask, db_uri: str) -> None:
    with pytest.raises(ConfigurationError, match="db_uri must be the path of a file, or sqlite:/// and the path"):
        FlaskChestSQLite(app, db_uri=db_uri)


def test_what_cannot_be_a_generator_or_a_chest_is_refused(app: Flask, chest: FlaskChest) -> None:
    with pytest.raises(ConfigurationError, match="request_id_generator must be callable"):
        FlaskChest(app, request_id_generator="abc")  # type: ignore[arg-type]  # the error is the point
    with pytest.raises(ConfigurationError, match="request_id_generator must be callable"):
        flask_chest(request_id_generator="abc")  # type: ignore[call-overload]  # the error is the point
    for wrong in (chest, ["nope"]):
        with pytest.raises(ConfigurationError, match=r"chests must be a list of chests, as in chests=\[chest\]"):
            flask_chest(chests=wrong)  # type: ignore[arg-type]  # the error is the point


def test_settings_show_no_address(app: Flask) -> None:
    app.config["CHEST_URI"] = "sqlite:///hunter2.db"
    chest = FlaskChest(app)
    assert "hunter2" not in repr(chest._state.settings)


def test_view_without_a_chest_works_whatever_settings_and_filters_say(app: Flask) -> None:
    class Raising(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("a filter with a fault")

    app.config["CHEST_SCHEDULER"] = "sometimes"
    filter_ = Raising()
    logging.getLogger("flask_chest").addFilter(filter_)
    try:
        add_view(app)
        assert app.test_client().get("/").data == b"hi"
    finally:
        logging.getLogger("flask_chest").removeFilter(filter_)


@pytest.mark.parametrize("variable", ["_cv_app", "_cv_of_another_release"])
def test_context_is_found_whatever_flask_calls_its_variable(app: Flask, variable: str) -> None:
    find = finder(variable, flask.globals.app_ctx)
    with app.app_context() as context:
        assert find() is context
    with pytest.raises((LookupError, RuntimeError)):
        find()
