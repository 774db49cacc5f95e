"""How a chest is registered, asked, closed, and kept from hurting the app."""

from __future__ import annotations

import gc
import logging
import os
import sqlite3
import weakref
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, g

from flask_chest import (
    ConfigurationError,
    FlaskChest,
    FlaskChestSQLite,
    JSONValue,
    Query,
    Record,
    StoreUnavailable,
    current_request_id,
)
from flask_chest.decorator import flask_chest
from flask_chest.protocols import StoreStatus
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import RecordingExporter, recorded


def add_view(app: Flask) -> None:
    @app.route("/")
    @flask_chest(tracked_vars=["user_id"])
    def index() -> str:
        g.user_id = "123"
        return "hi"


class BrokenStore:
    """A store as a user would write it, whose every method fails in its own way."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def open(self) -> None:
        raise self.error

    def write(self, records: Sequence[Record], /) -> None:
        raise self.error

    def query(self, query: Query, /, *, timeout: timedelta | None = None) -> Iterable[Record]:
        raise self.error

    def status(self) -> StoreStatus:
        raise self.error

    def close(self) -> None:
        raise StoreUnavailable("closing failed")


@pytest.mark.parametrize(
    "error", [StoreUnavailable("away"), RuntimeError("a bug"), sqlite3.OperationalError("x")]
)
def test_broken_store_changes_no_response_and_is_counted(
    app: Flask, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    chest = FlaskChest(app, store=BrokenStore(error))
    add_view(app)
    for _ in range(3):
        response = app.test_client().get("/")
        assert (response.status_code, response.data) == (200, b"hi")
    assert not chest.flush(0.2)
    stats = chest.stats()
    assert (stats.captured, stats.stored, stats.waiting, stats.lost) == (3, 0, 3, {})
    assert [r.levelname for r in caplog.records if "the store takes nothing" in r.message] == ["WARNING"]
    chest.close(0.1)


def test_strict_raises_what_the_store_raises(app: Flask) -> None:
    FlaskChest(app, store=BrokenStore(StoreUnavailable("away")), strict=True)
    add_view(app)
    with pytest.raises(StoreUnavailable, match="away"):
        app.test_client().get("/")


def test_generator_that_raises_is_counted_and_a_uuid_stands_in(app: Flask) -> None:
    def broken() -> str:
        raise RuntimeError("no id today")

    chest = FlaskChest(app, store=MemoryStore, request_id_generator=broken)
    add_view(app)
    assert app.test_client().get("/").status_code == 200
    assert len(chest.query()[0].request_id) == 36
    assert chest.stats().faults == {"the request_id_generator raised": 1}


def test_recording_that_fails_inside_changes_no_response(
    app: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chest = FlaskChest(app, store=MemoryStore)
    add_view(app)

    def broken(*_: object) -> int:
        raise OSError("no clock")

    monkeypatch.setattr("time.time_ns", broken)
    assert app.test_client().get("/").data == b"hi"
    assert chest.stats().lost == {"recording a request did not begin": 1}


def test_init_app_serves_factories_and_several_apps_apart() -> None:
    chest = FlaskChest(store=MemoryStore)
    apps = [Flask(name) for name in ("one", "two")]
    for app in apps:
        chest.init_app(app)
        add_view(app)
    apps[0].test_client().get("/")
    with apps[0].app_context():
        assert len(chest.query()) == 1
    with apps[1].app_context():
        assert chest.query() == []
    with pytest.raises(ConfigurationError, match=r"registered on 2 apps; use it within app.app_context\(\)"):
        chest.query()


def test_chest_without_an_app_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"call chest.init_app\(app\) first"):
        FlaskChest(store=MemoryStore).query()


def test_chest_on_another_app_says_what_to_do(chest: FlaskChest) -> None:
    with (
        Flask("other").app_context(),
        pytest.raises(ConfigurationError, match="not registered on the app 'other'"),
    ):
        chest.query()


def test_second_init_app_is_an_error(app: Flask, chest: FlaskChest) -> None:
    with pytest.raises(ConfigurationError, match="already registered on the app 'shop'"):
        chest.init_app(app)


def test_chest_does_not_keep_its_app_alive() -> None:
    chest = FlaskChest(store=MemoryStore)
    app = Flask("short-lived")
    chest.init_app(app)
    add_view(app)
    app.test_client().get("/")
    reference = weakref.ref(app)
    del app
    gc.collect()
    assert reference() is None


def test_decorator_may_choose_some_of_several_chests(app: Flask) -> None:
    first, second = FlaskChest(app, store=MemoryStore), FlaskChest(app, store=MemoryStore)

    @app.route("/")
    @flask_chest(tracked_vars=["a"])
    @flask_chest(tracked_vars=["b"], chests=[second])
    def index() -> str:
        g.a, g.b = 1, 2
        return "hi"

    @app.route("/second")
    @flask_chest(chests=[second])
    def only_second() -> str:
        return "hi"

    app.test_client().get("/")
    app.test_client().get("/second")
    assert [dict(record.variables) for record in first.query()] == [{"a": 1}]
    assert [dict(record.variables) for record in second.query()] == [{}, {"a": 1, "b": 2}]
    (of_first,), (_, of_second) = first.query(), second.query()
    assert of_first.request_id == of_second.request_id
    assert of_first.id != of_second.id


def test_one_chest_failing_leaves_the_other_its_record(app: Flask) -> None:
    FlaskChest(app, store=BrokenStore(RuntimeError()))
    second = FlaskChest(app, store=MemoryStore)
    add_view(app)
    assert app.test_client().get("/").status_code == 200
    assert len(second.query()) == 1


def test_one_chest_whose_store_cannot_be_made_leaves_the_other_its_record(app: Flask) -> None:
    def none_today() -> MemoryStore:
        raise RuntimeError("hunter2")

    first = FlaskChest(app, store=none_today)
    second = FlaskChest(app, store=MemoryStore)
    exporters = [RecordingExporter(), RecordingExporter()]
    for chest, exporter in zip((first, second), exporters, strict=True):
        chest.add_exporter(exporter)
    add_view(app)
    assert app.test_client().get("/").status_code == 200
    assert len(second.query()) == 1
    assert first.stats().lost == {"a record was not taken by the store": 1}
    assert all(chest._state.here.exports._scheduler is not None for chest in (first, second))
    first.close()
    second.close()


def test_view_without_a_chest_works_and_warns_once(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    add_view(app)
    for _ in range(2):
        assert app.test_client().get("/").data == b"hi"
    (warning,) = [record.message for record in caplog.records if record.name == "flask_chest"]
    assert "the app has no chest: nothing is recorded; call chest.init_app(app)" in warning


def test_view_without_a_chest_is_an_error_under_strict(app: Flask) -> None:
    app.config.update(CHEST_STRICT=True, TESTING=True)
    add_view(app)
    with pytest.raises(ConfigurationError, match=r"call chest.init_app\(app\)"):
        app.test_client().get("/")


def test_decorator_above_the_route_is_said_at_the_first_request(
    app: Flask, chest: FlaskChest, caplog: pytest.LogCaptureFixture
) -> None:
    @flask_chest
    @app.route("/")
    def index() -> str:
        return "hi"

    for _ in range(2):
        app.test_client().get("/")
    (message,) = [record.message for record in caplog.records]
    assert "@flask_chest stands above @app.route for the endpoint 'index'" in message
    assert "put it below the route" in message
    assert chest.query() == []


def test_nothing_is_opened_before_the_first_request(app: Flask, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db")
    chest.add_exporter(RecordingExporter())
    add_view(app)
    assert list(tmp_path.iterdir()) == []
    app.test_client().get("/")
    assert chest.flush()
    assert (tmp_path / "chest.db").exists()
    chest.close()


def test_relative_path_is_taken_from_the_root_path_of_the_app(tmp_path: Path) -> None:
    app = Flask("shop", root_path=str(tmp_path))
    chest = FlaskChestSQLite(app, db_uri="db.sqlite3")
    add_view(app)
    app.test_client().get("/")
    chest.close()
    assert (tmp_path / "db.sqlite3").exists()


def test_chest_without_a_store_uses_the_instance_folder(tmp_path: Path) -> None:
    app = Flask("shop", instance_path=str(tmp_path / "instance"))
    chest = FlaskChest(app)
    add_view(app)
    app.test_client().get("/")
    chest.close()
    assert (tmp_path / "instance" / "flask_chest.sqlite3").exists()


def test_uri_of_the_settings_chooses_the_store(tmp_path: Path) -> None:
    app = Flask("shop", root_path=str(tmp_path))
    app.config |= {"AUDIT_URI": "sqlite:///audit.db", "AUDIT_JOURNAL_DIR": str(tmp_path / "journal")}
    chest = FlaskChest(app, config_prefix="AUDIT")
    add_view(app)
    app.test_client().get("/")
    chest.close()
    assert (tmp_path / "audit.db").exists()


def test_store_may_be_given_as_itself_a_class_or_a_factory(tmp_path: Path) -> None:
    path = tmp_path / "chest.db"
    for store in (MemoryStore(), MemoryStore, lambda: SQLiteStore(path)):
        app = Flask("shop")
        chest = FlaskChest(app, store=store)
        add_view(app)
        app.test_client().get("/")
        assert len(chest.query()) == 1
        chest.close()


def test_what_is_no_store_is_refused(app: Flask) -> None:
    with pytest.raises(ConfigurationError, match="store must be a Store or a callable that makes one, got a str"):
        FlaskChest(app, store="sqlite:///x.db")  # type: ignore[arg-type]  # the error is the point


def test_query_narrows_by_all_that_is_asked(app: Flask, chest: FlaskChest) -> None:
    @app.route("/<name>", methods=["GET", "POST"])
    @flask_chest(tracked_vars=["name"], request_id_generator=lambda: f"id-{g.name}")
    def show(name: str) -> tuple[str, int]:
        g.name = name
        return "hi", 201 if name == "new" else 200

    client = app.test_client()
    before = datetime.now(UTC)
    for path in ("/a", "/b", "/new"):
        client.get(path)
    client.post("/a")

    def names(records: Iterable[Record]) -> list[JSONValue]:
        return [record.variables["name"] for record in records]

    assert names(chest.query()) == ["a", "new", "b", "a"]
    assert names(chest.query(limit=2)) == ["a", "new"]
    assert names(chest.query(method="POST")) == ["a"]
    assert names(chest.query(status_code=201)) == ["new"]
    assert names(chest.query(request_id="id-b")) == ["b"]
    assert names(chest.query(where={"name": "a"}, method="GET")) == ["a"]
    assert names(chest.query(route="/<name>", until=before)) == []
    assert names(chest.query(since=before - timedelta(seconds=1), limit=None)) == ["a", "new", "b", "a"]
    assert names(chest.query(trace_id="0" * 32)) == []
    assert names(chest.iter()) == ["a", "new", "b", "a"]


def test_time_without_a_zone_is_refused(chest: FlaskChest) -> None:
    with pytest.raises(ConfigurationError, match="since must have a time zone"):
        chest.query(since=datetime(2026, 1, 1))


def test_recorded_gives_what_the_block_recorded(app: Flask, chest: FlaskChest) -> None:
    add_view(app)
    client = app.test_client()
    client.get("/")
    with recorded(chest) as records:
        client.get("/")
        client.head("/")
    assert [record.method for record in records] == ["GET", "HEAD"]


def test_exporter_delivers_what_was_recorded_and_only_once(app: Flask, chest: FlaskChest) -> None:
    exporter = RecordingExporter()
    chest.add_exporter(exporter)
    add_view(app)
    for _ in range(3):
        app.test_client().get("/")
    (report,) = chest.run_exports()
    assert (report.exporter, report.delivered, report.pending, report.error) == ("recording", 3, 0, None)
    assert exporter.delivered == chest.query()[::-1]
    assert chest.run_exports()[0].delivered == 0
    chest.close()
    assert exporter.closed


def test_exporter_that_starts_now_leaves_the_past(app: Flask, chest: FlaskChest) -> None:
    add_view(app)
    app.test_client().get("/")
    exporter = RecordingExporter()
    chest.add_exporter(exporter, start_at="now")
    assert chest.run_exports()[0].delivered == 0
    app.test_client().get("/")
    assert chest.run_exports()[0].delivered == 1


def test_exporter_made_in_each_process_needs_a_name(chest: FlaskChest) -> None:
    with pytest.raises(ConfigurationError, match="needs a name="):
        chest.add_exporter(RecordingExporter)
    chest.add_exporter(RecordingExporter, name="recording")
    assert chest.run_exports()[0].exporter == "recording"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": timedelta(0)}, "interval must be above 0 and at most 36500 days"),
        ({"interval": timedelta.max}, "interval must be above 0 and at most 36500 days"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"start_at": "yesterday"}, "start_at must be 'beginning' or 'now', got 'yesterday'"),
    ],
)
def test_wrong_option_of_an_exporter_is_said(chest: FlaskChest, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        chest.add_exporter(RecordingExporter(), **options)  # type: ignore[arg-type]  # the error is the point


def test_exporter_that_does_not_close_keeps_nothing_else_open(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(RecordingExporter):
        def close(self) -> None:
            raise RuntimeError("hunter2")

    chest = FlaskChest(app, store=MemoryStore)
    other = RecordingExporter("other")
    chest.add_exporter(Stuck("stuck"))
    chest.add_exporter(other)
    chest.run_exports()
    assert chest.close()
    assert other.closed
    assert "the exporter stuck did not close: builtins.RuntimeError" in caplog.text
    assert "hunter2" not in caplog.text


def test_two_exporters_of_one_name_are_an_error(chest: FlaskChest) -> None:
    chest.add_exporter(RecordingExporter("a"))
    with pytest.raises(ConfigurationError, match="has an exporter named 'a' already"):
        chest.add_exporter(RecordingExporter("a"))


def test_store_that_cannot_export_says_so(app: Flask) -> None:
    chest = FlaskChest(app, store=BrokenStore(StoreUnavailable("away")))
    chest.add_exporter(RecordingExporter())
    assert chest.run_exports()[0].error == "the export did not begin: away"


def scheduled(app: Flask, **options: object) -> int:
    """Count the records that a scheduler delivered after one request, waiting for them only if there is one."""
    chest = FlaskChest(app, store=MemoryStore, **options)  # type: ignore[arg-type]  # as each test needs it
    exporter = RecordingExporter()
    chest.add_exporter(exporter, interval=timedelta(milliseconds=20))
    add_view(app)
    app.test_client().get("/")
    running = chest._state.here.exports._scheduler is not None
    deadline = datetime.now(UTC) + timedelta(seconds=10)
    while running and not exporter.delivered and datetime.now(UTC) < deadline:
        os.sched_yield()
    chest.close()
    return len(exporter.delivered)


def test_first_request_starts_the_scheduler(app: Flask) -> None:
    assert scheduled(app) == 1


def test_testing_app_schedules_nothing_unless_asked(app: Flask) -> None:
    app.testing = True
    assert scheduled(app) == 0
    other = Flask("other")
    other.testing = True
    assert scheduled(other, scheduler="on") == 1


def test_exporter_added_after_the_first_request_is_scheduled_too(app: Flask) -> None:
    chest = FlaskChest(app, store=MemoryStore)
    add_view(app)
    chest.add_exporter(RecordingExporter("early"))
    app.test_client().get("/")
    late = RecordingExporter("late")
    chest.add_exporter(late, interval=timedelta(milliseconds=20))
    deadline = datetime.now(UTC) + timedelta(seconds=10)
    while not late.delivered and datetime.now(UTC) < deadline:
        os.sched_yield()
    assert len(late.delivered) == 1
    chest.close()


def test_scheduler_can_be_switched_off(app: Flask) -> None:
    assert scheduled(app, scheduler="off") == 0


def test_values_left_on_g_by_an_earlier_request_are_not_recorded_again(app: Flask, chest: FlaskChest) -> None:
    @app.route("/<name>")
    @flask_chest
    def show(name: str) -> str:
        if name == "sets":
            g.user_id = "a constant"
            g.setdefault("first", 1)
        return "hi"

    with app.app_context():
        g.fixture = "of the test"
        client = app.test_client()
        for path in ("/sets", "/nothing", "/sets"):
            client.get(path)
        assert g.fixture == "of the test"
        assert type(g._get_current_object()) is app.app_ctx_globals_class
    third, second, first = (dict(record.variables) for record in chest.query())
    assert first == {"user_id": "a constant", "first": 1}
    assert second == {}
    # From 3.2 on each request has a g of its own, where a default is set again.
    shares_g = "ctx" not in signature(Flask.process_response).parameters
    assert third == ({"user_id": "a constant"} if shares_g else first)


def test_forked_child_records_into_its_own_connection(app: Flask, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", strict=True)
    add_view(app)
    app.test_client().get("/")
    pid = os.fork()
    if pid == 0:
        try:
            app.test_client().get("/")
            os._exit(0 if chest.stats().captured == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    app.test_client().get("/")
    records = chest.query()
    assert len({record.id for record in records}) == 3
    assert {record.instance.rpartition(":")[2] for record in records} == {str(os.getpid()), str(pid)}
    chest.close()


def test_no_value_and_no_foreign_message_is_logged(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "flask_chest")
    chest = FlaskChest(app, store=BrokenStore(RuntimeError("postgresql://u:hunter2@db")))
    add_view(app)
    app.test_client().get("/")
    assert not chest.flush(0.2)
    assert "RuntimeError" in caplog.text
    assert "hunter2" not in caplog.text


def test_request_id_is_none_without_a_chest(app: Flask) -> None:
    with app.test_request_context():
        assert current_request_id() is None


def test_async_generator_is_counted_and_a_uuid_stands_in(app: Flask) -> None:
    async def mistaken() -> str:
        return "an id"

    chest = FlaskChest(app, store=MemoryStore, request_id_generator=mistaken)  # type: ignore[arg-type]  # the mistake
    add_view(app)
    assert app.test_client().get("/").status_code == 200
    assert len(chest.query()[0].request_id) == 36
    assert chest.stats().faults == {"the request_id_generator raised": 1}


def test_wrong_tracked_vars_of_the_config_are_named_by_their_key(app: Flask) -> None:
    app.config["CHEST_TRACKED_VARS"] = {"FETCH": ["user_id"]}
    with pytest.raises(
        ConfigurationError, match="CHEST_TRACKED_VARS has the key 'FETCH', which is not an HTTP method"
    ):
        FlaskChest(app, store=MemoryStore)


def test_chest_that_is_not_on_the_app_is_said_at_the_first_request(
    app: Flask, chest: FlaskChest, caplog: pytest.LogCaptureFixture
) -> None:
    @app.route("/")
    @flask_chest(chests=[FlaskChest(store=MemoryStore)])
    def index() -> str:
        return "hi"

    for _ in range(2):
        app.test_client().get("/")
    (message,) = [record.getMessage() for record in caplog.records]
    assert "the endpoint 'index' names a chest in chests= that is not registered on the app" in message


def test_decorator_takes_keywords_only(chest: FlaskChest) -> None:
    for given in (chest, "user_id", ["user_id"]):
        with pytest.raises(ConfigurationError, match="@flask_chest takes keywords, as in tracked_vars="):
            flask_chest(given)  # type: ignore[call-overload]  # the error is the point


def test_interval_that_is_no_timedelta_and_limit_below_zero_are_said(chest: FlaskChest) -> None:
    with pytest.raises(ConfigurationError, match=r"interval must be a timedelta, as in timedelta\(seconds=30\)"):
        chest.add_exporter(RecordingExporter(), interval=30)  # type: ignore[arg-type]  # the error is the point
    with pytest.raises(ConfigurationError, match="limit must be 0 or more, or None for all, got -1"):
        chest.query(limit=-1)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"where": "x"}, r'where must map variables to values, as in \{"user_id": 7\}, got a str'),
        (
            {"where": {"plan": ("pro", "free")}},
            r"'plan' must be a value, or conditions as in .* got \(str, str\)",
        ),
        ({"where": {"plan": ()}}, r"'plan' must be a value, or conditions as in .* got \(\)"),
        ({"where": {1: 2}}, r"Expected `str`, got `int` - at `key` in `\$.where`"),
        ({"status_code": "500"}, r"Expected `int \| null`, got `str` - at `\$.status_code`"),
        ({"limit": "3"}, r"Expected `int \| null`, got `str` - at `\$.limit`"),
        ({"since": "2h"}, "since must be a datetime, as in datetime.now.UTC., got '2h'"),
    ],
)
def test_question_of_the_wrong_type_is_refused(chest: FlaskChest, asked: dict[str, Any], message: str) -> None:
    for ask in (chest.query, chest.iter):
        with pytest.raises(ConfigurationError, match=message):
            ask(**asked)


def test_forgetting_of_the_wrong_type_is_refused(chest: FlaskChest) -> None:
    with pytest.raises(ConfigurationError, match=r"where must map variables to values, as in .* got a str"):
        chest.forget(where="user_id")  # type: ignore[arg-type]  # the error is the point
