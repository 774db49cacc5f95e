"""Every option of a chest and of an exporter does what it says."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask, g

from flask_chest import ConfigurationError, FlaskChest, FlaskChestSQLite, StoreUnavailable
from flask_chest.decorator import flask_chest
from flask_chest.exporter import FlaskChestExporterInfluxDB
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import RecordingExporter
from http_receiver import self_signed
from influxdb_receiver import Receiver


def serve(app: Flask) -> None:
    if "index" not in app.view_functions:

        @app.route("/")
        @flask_chest(tracked_vars=["plan"])
        def index() -> str:
            g.plan = "pro"
            return "hi"

    assert app.test_client().get("/").data == b"hi"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chest.db"


def test_sqlite_chest_passes_all_options_on(app: Flask, path: Path) -> None:
    app.config["AUDIT_SCHEDULER"] = "off"
    chest = FlaskChestSQLite(
        app,
        "visits",
        path,
        tracked_vars=["more"],
        request_id_generator=lambda: "an id",
        instance="shop-1",
        config_prefix="AUDIT",
    )
    app.before_request(lambda: setattr(g, "more", 1))
    serve(app)
    (record,) = chest.query()
    assert (record.request_id, record.instance) == ("an id", "shop-1:0")
    assert record.variables == {"more": 1, "plan": "pro"}
    assert chest._state.settings.scheduler == "off"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM visits").fetchone() == (1,)
    chest.close()


@pytest.mark.parametrize("kind", [FlaskChest, FlaskChestSQLite])
@pytest.mark.parametrize("way", ["constructor", "config", "environment"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("writer", "off"),
        ("journal_dir", "queue"),
        ("journal_bytes", 70_000),
        ("journal_local", True),
        ("journal_sync", True),
        ("scheduler", "off"),
        ("strict", True),
        ("instance", "shop-1"),
    ],
)
def test_setting_of_each_chest_is_taken_from_wherever_it_is_made(
    app: Flask, monkeypatch: pytest.MonkeyPatch, kind: type[FlaskChest], way: str, name: str, value: object
) -> None:
    given: dict[str, object] = {}
    monkeypatch.delenv("FLASK_CHEST_JOURNAL_DIR")
    if way == "constructor":
        given[name] = value
    elif way == "config":
        app.config[f"CHEST_{name.upper()}"] = value
    else:
        monkeypatch.setenv(f"FLASK_CHEST_{name.upper()}", json.dumps(value))
    chest = kind(app, **given)  # type: ignore[arg-type]  # one of each at a time
    assert getattr(chest._state.settings, name) == value


@pytest.mark.parametrize("kind", [FlaskChest, FlaskChestSQLite])
@pytest.mark.parametrize("name", ["writer", "journal_dir", "journal_local", "journal_bytes", "journal_sync"])
def test_wrong_setting_is_said_when_the_chest_is_made(app: Flask, kind: type[FlaskChest], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} must be .*, got "):
        kind(app, **{name: -1})  # type: ignore[arg-type]  # the error is the point


def test_scheduler_of_a_sqlite_chest_can_be_switched(app: Flask, path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri=path, scheduler="off")
    chest.add_exporter(RecordingExporter())
    serve(app)
    assert chest._state.here.exports._scheduler is None
    chest.close()


def test_strict_sqlite_chest_waits_as_long_as_it_was_told_and_raises(app: Flask, path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri=path, strict=True, busy_timeout=0.05)
    serve(app)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        app.testing = True
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="locked"):
            app.test_client().get("/")
        assert time.monotonic() - began < 4  # the default is 5
    chest.close()


def test_time_filters_are_exact_to_the_microsecond(app: Flask, chest: FlaskChest) -> None:
    serve(app)
    began = datetime.fromtimestamp(chest.query()[0].time_unix_nano // 1_000_000_000, UTC)
    began += timedelta(microseconds=chest.query()[0].time_unix_nano // 1_000 % 1_000_000)
    step = timedelta(microseconds=1)
    assert len(chest.query(since=began, until=began + step)) == 1
    assert chest.query(since=began + step) == []
    assert chest.query(until=began) == []


def test_exporters_wait_for_the_first_request(app: Flask) -> None:
    chest = FlaskChest(app, store=MemoryStore)
    chest.add_exporter(RecordingExporter())
    exports = chest._state.here.exports
    started = [exports.is_scheduled]
    serve(app)
    started += [exports.is_scheduled]
    assert started == [False, True]
    chest.close()


def test_exporter_is_made_and_registered_again_after_close(app: Flask) -> None:
    made: list[RecordingExporter] = []

    def make() -> RecordingExporter:
        made.append(RecordingExporter())
        return made[-1]

    chest = FlaskChest(app, store=MemoryStore)
    chest.add_exporter(make, name="recording")
    for count in (1, 2):
        serve(app)
        assert chest.run_exports()[0].delivered == 1
        assert len(made) == count
        chest.close()
    assert [exporter.closed for exporter in made] == [True, True]


def test_second_chest_after_the_first_request_leaves_the_schedule_of_the_first(app: Flask) -> None:
    first = FlaskChest(app, store=MemoryStore)
    first.add_exporter(RecordingExporter())
    serve(app)
    scheduler = first._state.here.exports._scheduler
    second = FlaskChest(app, store=MemoryStore)
    second.add_exporter(RecordingExporter())
    serve(app)
    assert first._state.here.exports._scheduler is scheduler is not None
    assert second._state.here.exports._scheduler is not None
    first.close()
    second.close()


def test_jobs_that_are_scheduled_stay_when_they_come_again(app: Flask) -> None:
    chest = FlaskChest(app, store=MemoryStore)
    chest.add_exporter(RecordingExporter())
    serve(app)
    assert chest._state.here.start_jobs()
    assert chest.close()


def test_forked_child_schedules_for_itself(app: Flask) -> None:
    chest = FlaskChest(app, store=MemoryStore)
    chest.add_exporter(RecordingExporter())
    serve(app)
    pid = os.fork()
    if pid == 0:
        try:
            before = chest._state.here.exports._scheduler
            serve(app)
            os._exit(0 if before is None and chest._state.here.exports._scheduler is not None else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    chest.close()


def test_influxdb_exporter_passes_all_options_on(app: Flask, chest: FlaskChest) -> None:
    with Receiver() as receiver:
        FlaskChestExporterInfluxDB(
            chest,
            url=receiver.url,
            token="a token",
            org="an org",
            bucket="a bucket",
            interval_minutes=0.5,
            measurement="visits",
            tags=["plan"],
            custom_tags={"env": "test"},
            name="influx-1",
            batch_size=2,
        )
        for _ in range(3):
            serve(app)
        (report,) = chest.run_exports()
        assert (report.exporter, report.delivered) == ("influx-1", 3)
        assert [len(request.points) for request in receiver.requests] == [2, 1]
        sent = receiver.requests[0]
        assert (sent.query["org"], sent.query["bucket"]) == ("an org", "a bucket")
        assert sent.headers["Authorization"] == "Token a token"
        assert {point.measurement for point in sent.points} == {"visits"}
        assert (sent.points[0].tags["plan"], sent.points[0].tags["env"]) == ("pro", "test")


def test_influxdb_exporter_may_start_now(app: Flask, chest: FlaskChest) -> None:
    serve(app)
    with Receiver() as receiver:
        FlaskChestExporterInfluxDB(chest, url=receiver.url, token="t", start_at="now")
        assert chest.run_exports()[0].delivered == 0


def test_influxdb_exporter_speaks_tls_when_told_and_checks_the_certificate(app: Flask, chest: FlaskChest) -> None:
    serve(app)
    with Receiver() as receiver:
        FlaskChestExporterInfluxDB(chest, True, "127.0.0.1", receiver.port, "t")
        assert chest.run_exports()[0].delivered == 0
        assert receiver.requests == []
        FlaskChestExporterInfluxDB(chest, False, "127.0.0.1", receiver.port, "t", name="plain")
        assert chest.run_exports()[1].delivered == 1


def test_influxdb_exporter_keeps_to_its_timeout(app: Flask, chest: FlaskChest) -> None:
    serve(app)
    with Receiver() as receiver:
        FlaskChestExporterInfluxDB(chest, url=receiver.url, token="t", timeout=0.000001)
        assert "did not take all within 1e-06 s" in str(chest.run_exports()[0].error)
        assert receiver.requests == []


def test_influxdb_exporter_may_trust_any_certificate(app: Flask, chest: FlaskChest, tmp_path: Path) -> None:
    serve(app)
    tls, _ = self_signed(tmp_path)
    with Receiver(tls=tls) as receiver:
        FlaskChestExporterInfluxDB(chest, url=receiver.url, token="t")
        FlaskChestExporterInfluxDB(chest, url=receiver.url, token="t", verify_ssl=False, name="careless")
        with pytest.warns(match="Unverified HTTPS"):
            careful, careless = chest.run_exports()
    assert (careful.delivered, careless.delivered) == (0, 1)


@pytest.mark.parametrize("minutes", [0, -1, float("inf"), float("nan")])
def test_interval_that_is_none_is_refused(chest: FlaskChest, minutes: float) -> None:
    with pytest.raises(ConfigurationError, match="interval"):
        FlaskChestExporterInfluxDB(chest, token="t", interval_minutes=minutes)


def test_interval_without_length_is_not_taken_for_none(chest: FlaskChest) -> None:
    with pytest.raises(ConfigurationError, match="interval must be above 0"):
        FlaskChestExporterInfluxDB(chest, token="t", interval=timedelta(0))
