"""Exporters for each app, and where their options come from."""

from __future__ import annotations

import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask

from documents import Page
from flask_chest import ConfigurationError, FlaskChest
from flask_chest.exporter import (
    FlaskChestExporterHTTP,
    FlaskChestExporterInfluxDB,
    FlaskChestExporterMongoDB,
    FlaskChestExporterMySQL,
    FlaskChestExporterPostgreSQL,
)
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import RecordingExporter
from http_receiver import Receiver, Request

PAGE = Path(__file__).parents[3] / "docs" / "factories.md"


@pytest.fixture
def receiver() -> Iterator[Receiver[Request]]:
    with Receiver(Request) as receiver:
        yield receiver


def make_app(chest: FlaskChest, **config: object) -> Flask:
    app = Flask("shop")
    app.testing = True
    app.config.update(config)
    app.add_url_rule("/", view_func=lambda: "hi")
    chest.init_app(app)
    return app


def deliver(chest: FlaskChest, app: Flask) -> None:
    assert app.test_client().get("/").status_code == 200
    with app.app_context():
        reports = chest.run_exports()
    assert [report.error for report in reports] == [None] * len(reports)


@pytest.fixture
def chest() -> Iterator[FlaskChest]:
    chest = FlaskChest(store=MemoryStore, tracked_vars=[])
    yield chest
    chest.close()


@pytest.mark.slow
def test_pages_factory_and_its_tests_pass(tmp_path: Path) -> None:
    page = Page(PAGE)
    for name in ("shop.py", "conftest.py", "test_shop.py"):
        (block,) = page.blocks("python", name)
        (tmp_path / name).write_text(block.code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]

    done = subprocess.run(
        [*command, f"--rootdir={tmp_path}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_pages_exporter_has_its_url_from_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: Receiver[Request]
) -> None:
    (block,) = Page(PAGE).blocks("python", "exporting.py")
    (tmp_path / "exporting.py").write_text(block.code)
    monkeypatch.chdir(tmp_path)
    page = runpy.run_path("exporting.py")
    testing = {"TESTING": True, "CHEST_URI": "memory:"}
    with pytest.raises(ConfigurationError, match="CHEST_HTTP_URL"):
        page["create_app"](testing)
    app = page["create_app"]({**testing, "CHEST_HTTP_URL": receiver.url})
    with app.app_context():
        assert page["chest"].exporter_names == ("http",)
        page["chest"].close()


def test_every_block_of_the_page_is_tested() -> None:
    marks = [block.mark for block in Page(PAGE).blocks("python")]
    assert marks == ["shop.py", "conftest.py", "test_shop.py", "exporting.py"]


def test_exporter_of_a_chest_delivers_each_app_where_its_settings_say(
    chest: FlaskChest, receiver: Receiver[Request]
) -> None:
    first = make_app(chest, CHEST_HTTP_URL=f"{receiver.url}/first")
    FlaskChestExporterHTTP(chest)
    second = make_app(
        chest, CHEST_HTTP_URL=f"{receiver.url}/second", CHEST_HTTP_HEADERS={"Authorization": "Bearer second"}
    )

    deliver(chest, first)
    deliver(chest, second)

    assert [request.path for request in receiver.requests] == ["/first", "/second"]
    assert [request.headers.get("Authorization") for request in receiver.requests] == [None, "Bearer second"]


def test_exporter_of_one_app_is_no_other_apps(chest: FlaskChest) -> None:
    for _ in range(2):
        app, target = make_app(chest), RecordingExporter("target")
        chest.add_exporter(target, app=app)
        deliver(chest, app)
        assert len(target.delivered) == 1
    other = make_app(chest)

    with other.app_context():
        assert chest.exporter_names == ()
        with pytest.raises(ConfigurationError, match="no exporter named 'target'"):
            chest.run_exports("target")


def test_names_are_unique_for_a_chest_and_an_app(chest: FlaskChest) -> None:
    app, other = make_app(chest), make_app(chest)
    chest.add_exporter(RecordingExporter("one"), app=app)
    chest.add_exporter(RecordingExporter("one"), app=other)
    chest.add_exporter(RecordingExporter("all"))

    for name in ("one", "all"):
        with pytest.raises(
            ConfigurationError, match=f"named '{name}' already; give the second one another name="
        ):
            chest.add_exporter(RecordingExporter(name), app=app)
    with pytest.raises(ConfigurationError, match="named 'one' already"):
        chest.add_exporter(RecordingExporter("one"))


def test_app_must_be_registered_before_its_exporters(chest: FlaskChest) -> None:
    with pytest.raises(
        ConfigurationError, match=r"not registered on the app 'shop'; call chest\.init_app\(app\)"
    ):
        FlaskChestExporterHTTP(chest, "http://localhost", app=Flask("shop"))


def test_exporter_that_is_added_late_is_scheduled_where_its_app_runs(chest: FlaskChest) -> None:
    app = make_app(chest, CHEST_SCHEDULER="on")
    app.test_client().get("/")
    target = RecordingExporter("late")
    chest.add_exporter(target, app=app, interval=timedelta(milliseconds=10))

    app.test_client().get("/")
    deadline = time.monotonic() + 10
    while not target.delivered and time.monotonic() < deadline:
        time.sleep(0.005)
    assert target.delivered


def test_constructor_goes_before_the_app_and_the_app_before_the_environment(
    chest: FlaskChest, receiver: Receiver[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASK_CHEST_HTTP_URL", f"{receiver.url}/environment")
    monkeypatch.setenv("FLASK_CHEST_HTTP_HEADERS", '{"X-From": "environment"}')
    monkeypatch.setenv("FLASK_CHEST_FAR_AWAY_URL", f"{receiver.url}/named")
    FlaskChestExporterHTTP(chest)
    FlaskChestExporterHTTP(chest, name="far-away")

    deliver(chest, make_app(chest))
    app = make_app(chest, CHEST_HTTP_URL=f"{receiver.url}/app")
    FlaskChestExporterHTTP(chest, f"{receiver.url}/constructor", name="given", app=app)
    deliver(chest, app)

    paths = [request.path for request in receiver.requests]
    assert paths == ["/environment", "/named", "/app", "/named", "/constructor"]
    assert receiver.requests[0].headers["X-From"] == "environment"


def test_influxdb_takes_its_place_and_token_from_the_app(chest: FlaskChest, receiver: Receiver[Request]) -> None:
    FlaskChestExporterInfluxDB(chest, token=None)
    app = make_app(
        chest,
        CHEST_INFLUXDB_URL=receiver.url,
        CHEST_INFLUXDB_TOKEN="t0ken",
        CHEST_INFLUXDB_ORG="o",
        CHEST_INFLUXDB_BUCKET="b",
    )
    deliver(chest, app)

    (request,) = receiver.requests
    assert (request.query["org"], request.query["bucket"]) == ("o", "b")
    assert request.headers["Authorization"] == "Token t0ken"


def test_host_that_is_given_goes_before_the_url_of_the_app(
    chest: FlaskChest, receiver: Receiver[Request]
) -> None:
    FlaskChestExporterInfluxDB(chest, host="localhost", port=receiver.port)
    deliver(chest, make_app(chest, CHEST_INFLUXDB_URL="http://elsewhere.invalid"))

    assert len(receiver.requests) == 1


def test_option_that_is_nowhere_is_told_at_the_first_app(chest: FlaskChest) -> None:
    FlaskChestExporterHTTP(chest)

    with pytest.raises(
        ConfigurationError, match=r"url is not given; pass it, or set CHEST_HTTP_URL in app\.config"
    ):
        make_app(chest)


def test_wrong_option_is_told_with_where_it_comes_from_and_without_its_value(chest: FlaskChest) -> None:
    FlaskChestExporterHTTP(chest)

    with pytest.raises(ConfigurationError, match=r"url must be like .*; url comes from CHEST_HTTP_URL") as raised:
        make_app(chest, CHEST_HTTP_URL="http://user:pa/ss@host")
    assert "pa/ss" not in str(raised.value)
    with pytest.raises(
        ConfigurationError, match="url must be a text, got a value of type int; url comes from CHEST"
    ):
        make_app(chest, CHEST_HTTP_URL=7)
    with pytest.raises(ConfigurationError, match="headers must be a mapping of texts"):
        make_app(chest, CHEST_HTTP_URL="http://host", CHEST_HTTP_HEADERS="Authorization: x")


def test_app_whose_options_are_wrong_is_left_as_it_was(chest: FlaskChest) -> None:
    FlaskChestExporterHTTP(chest)
    app = Flask("shop")
    before = app.wsgi_app

    with pytest.raises(ConfigurationError):
        chest.init_app(app)

    assert app.wsgi_app == before
    app.config["CHEST_HTTP_URL"] = "http://host"
    chest.init_app(app)


def test_settings_of_exporters_are_not_taken_for_misspelt(
    chest: FlaskChest, caplog: pytest.LogCaptureFixture
) -> None:
    make_app(
        chest,
        CHEST_HTTP_URL="http://host",
        CHEST_MYSQL_DB_URI="x",
        CHEST_INFLUXDB_URL="x",
        CHEST_INFLUXDB_TOKEN="x",
        CHEST_INFLUXDB_ORG="x",
        CHEST_INFLUXDB_BUCKET="x",
        CHEST_OTLP_ENDPOINT="x",
        CHEST_OTLP_HEADERS={},
    )

    assert caplog.messages == []


@pytest.mark.parametrize(
    ("exporter", "setting", "uri"),
    [
        (FlaskChestExporterPostgreSQL, "CHEST_POSTGRESQL_DB_URI", "postgres:/nonsense"),
        (FlaskChestExporterMySQL, "CHEST_MYSQL_DB_URI", "postgresql://host/db"),
        (FlaskChestExporterMongoDB, "CHEST_MONGODB_DB_URI", "mysql://host/db"),
    ],
)
def test_database_is_taken_from_the_app(
    chest: FlaskChest,
    exporter: type[FlaskChestExporterPostgreSQL | FlaskChestExporterMySQL | FlaskChestExporterMongoDB],
    setting: str,
    uri: str,
) -> None:
    exporter(chest)

    with pytest.raises(ConfigurationError, match=f"db_uri comes from {setting}"):
        make_app(chest, **{setting: uri})
