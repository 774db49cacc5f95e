"""`flask chest doctor` finds each fault, and nothing where there is none."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask, g
from flask.testing import FlaskCliRunner

from flask_chest import FlaskChest, FlaskChestSQLite, RecordsRejected, StoreUnavailable, TargetUnavailable
from flask_chest.cli import chest_group
from flask_chest.decorator import flask_chest
from flask_chest.exporter.influxdb import InfluxDBExporter
from flask_chest.extension.settings import SettingOptions
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import RecordingExporter, make_record


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    return Flask("shop", root_path=str(tmp_path))


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    app.cli.add_command(chest_group)
    return app.test_cli_runner()


def add_view(app: Flask) -> None:
    @app.route("/")
    @flask_chest
    def index() -> str:
        g.user_id = 1
        return "hi"


def said(runner: FlaskCliRunner) -> str:
    """Give what the doctor finds wrong."""
    result = runner.invoke(args=["chest", "doctor"])
    assert result.exit_code == 1, result.output
    return result.output


def healthy(runner: FlaskCliRunner) -> None:
    result = runner.invoke(args=["chest", "doctor"])
    assert (result.exit_code, result.output) == (0, "Nothing is wrong.\n")


def test_doctor_is_content_with_a_healthy_app(app: Flask, runner: FlaskCliRunner) -> None:
    with closing(FlaskChestSQLite(app)) as chest:
        add_view(app)
        app.test_client().get("/")
        chest.close()
        result = runner.invoke(args=["chest", "doctor"])
    assert (result.exit_code, result.output) == (0, "Nothing is wrong.\n")


def test_doctor_finds_a_decorator_above_the_route(app: Flask, runner: FlaskCliRunner) -> None:
    FlaskChest(app, store=MemoryStore)

    @flask_chest
    @app.route("/")
    def index() -> str:
        return "hi"

    result = runner.invoke(args=["chest", "doctor"])
    assert result.exit_code == 1
    assert "@flask_chest stands above @app.route for the endpoint 'index'" in result.output
    assert "put @flask_chest below @app.route" in result.output


def test_doctor_finds_the_older_project_of_this_import_name(
    app: Flask, runner: FlaskCliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "flask_chest-1.0.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: flask-chest\nVersion: 1.0.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    FlaskChest(app, store=MemoryStore, tracked_vars=["x"])
    result = runner.invoke(chest_group, ["doctor"])
    assert result.exit_code == 1
    assert "'flask-chest' 1.0.0 is installed too and has the same import name" in result.output


def test_doctor_finds_that_nothing_is_tracked(app: Flask, runner: FlaskCliRunner) -> None:
    FlaskChest(app, store=MemoryStore)
    result = runner.invoke(args=["chest", "doctor"])
    assert result.exit_code == 1
    assert "so nothing is recorded: decorate a view, or pass tracked_vars=" in result.output


def test_doctor_finds_a_store_that_cannot_be_reached(app: Flask, runner: FlaskCliRunner, tmp_path: Path) -> None:
    (tmp_path / "db.sqlite3").write_text("this is no database, however long one looks at it\n" * 100)
    FlaskChestSQLite(app)
    add_view(app)
    result = runner.invoke(args=["chest", "doctor"])
    assert result.exit_code == 1
    assert "The store does not answer: " in result.output


def test_doctor_finds_an_exporter_whose_target_is_away(app: Flask, runner: FlaskCliRunner) -> None:
    chest = FlaskChest(app, store=MemoryStore)
    exporter = RecordingExporter()
    exporter.failures = [TargetUnavailable("it is away; start it")]
    chest.add_exporter(exporter)
    add_view(app)
    app.test_client().get("/")
    chest.run_exports()
    assert said(runner) == (
        "- The exporter 'recording' has 1 record pending: it is away; start it. It is tried again at its "
        "intervals, and at once by flask chest export.\n"
    )
    chest.run_exports()
    app.test_client().get("/")
    healthy(runner)


def test_doctor_finds_a_chest_that_is_not_on_the_app(app: Flask, runner: FlaskCliRunner) -> None:
    FlaskChest(app, store=MemoryStore)

    @app.route("/")
    @flask_chest(chests=[FlaskChest(store=MemoryStore)])
    def index() -> str:
        return "hi"

    result = runner.invoke(args=["chest", "doctor"])
    assert result.exit_code == 1
    assert "the endpoint 'index' names in chests= one that is not registered on the app" in result.output


def test_doctor_finds_exporters_that_nobody_runs(app: Flask, runner: FlaskCliRunner) -> None:
    chest = FlaskChest(app, store=MemoryStore, scheduler="off")
    chest.add_exporter(RecordingExporter())
    add_view(app)
    result = runner.invoke(args=["chest", "doctor"])
    assert "The exporter 'recording' runs nowhere: the scheduler is off, and no worker was seen" in result.output
    assert "Set CHEST_SCHEDULER to auto, run flask chest worker, or call chest.run_exports()" in result.output
    chest.run_exports()  # as a worker does
    healthy(runner)


def test_doctor_finds_tables_of_an_older_release(app: Flask, runner: FlaskCliRunner, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri="chest.db")
    add_view(app)
    app.test_client().get("/")
    chest.close()
    with closing(sqlite3.connect(tmp_path / "chest.db", isolation_level=None)) as connection:
        connection.execute("UPDATE flask_chest_schema SET version = 0")
    assert "are of the older version 0; they are migrated when the first record is written" in said(runner)


def test_doctor_finds_a_store_that_may_only_be_read(app: Flask, runner: FlaskCliRunner) -> None:
    class Closed(MemoryStore):
        def hold(self, task: str, /, *, owner: str, lease: timedelta) -> bool:
            raise StoreUnavailable(f"{task}: permission denied; grant what the docs list")

    chest = FlaskChest(app, store=Closed)
    add_view(app)
    app.test_client().get("/")
    chest.flush()
    assert said(runner) == "- The store cannot be written: doctor: permission denied; grant what the docs list\n"


@pytest.mark.parametrize(("ahead", "which"), [(90, "behind"), (-90, "ahead of")])
def test_doctor_finds_clocks_that_differ(app: Flask, runner: FlaskCliRunner, ahead: int, which: str) -> None:
    store = MemoryStore(clock=lambda: time.time_ns() + ahead * 1_000_000_000)
    store.open()
    FlaskChest(app, store=store)
    add_view(app)
    assert f"This machine's clock is 90 s {which} that of the store" in said(runner)


def test_doctor_finds_a_journal_that_cannot_be_kept(app: Flask, runner: FlaskCliRunner, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    FlaskChestSQLite(app, db_uri="chest.db", journal_dir="file/journal")
    add_view(app)
    told = said(runner)
    assert f"({tmp_path}/file is not a folder), so records wait in memory" in told
    assert "set CHEST_JOURNAL_DIR to a folder on a local disk that the app may write" in told


def test_doctor_finds_records_that_nobody_stores(app: Flask, runner: FlaskCliRunner, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri="chest.db", writer="off", journal_dir="journal")
    add_view(app)
    for _ in range(3):
        app.test_client().get("/")
    told = said(runner)
    assert told == (
        "- 3 records waiting in the journals of processes that leave it to others to store them, "
        "but no worker runs: start flask chest worker.\n"
    )
    other = Flask("shop", root_path=str(tmp_path))
    worker = FlaskChestSQLite(other, db_uri="chest.db", writer="off", journal_dir="journal")
    worker.work()
    deadline = time.monotonic() + 30
    while chest.stats().waiting:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    app.test_client().get("/")
    healthy(runner)
    worker.close()
    chest.close()


def keep_from_long_ago(chest: FlaskChest) -> None:
    for _ in range(2):
        chest._state.here.keep(make_record(time_unix_nano=time.time_ns() - 120 * 10**9))


def test_doctor_finds_records_that_a_store_does_not_take(
    app: Flask, runner: FlaskCliRunner, caplog: pytest.LogCaptureFixture
) -> None:
    chest = FlaskChestSQLite(app, db_uri="/proc/chest.db", journal_dir="journal")
    add_view(app)
    keep_from_long_ago(chest)
    chest.flush(timeout=0.1)
    told = said(runner)
    assert "- 2 records waiting since 20" in told
    assert ": the store does not take them, or too slowly. The app's log says why.\n" in told
    chest.close(timeout=0.1)
    assert (
        "SQLite /proc/chest.db cannot be made; check the permissions of the file and of its folder" in caplog.text
    )


def test_doctor_finds_records_of_a_process_that_is_gone(app: Flask, runner: FlaskCliRunner) -> None:
    chest = FlaskChestSQLite(app, db_uri="chest.db", writer="off", journal_dir="journal")
    add_view(app)
    chest._state.here.keep(make_record())
    chest.close()
    chest._state.here.keep(make_record(time_unix_nano=time.time_ns() - 120 * 10**9, duration_ns=119 * 10**9))
    chest.close()
    healthy_so_far = runner.invoke(args=["chest", "doctor"])
    assert healthy_so_far.exit_code == 0, healthy_so_far.output
    keep_from_long_ago(chest)
    chest.close()
    assert (
        ": their process is gone, and no other runs. Start the app, or run flask chest journal replay."
        in said(runner)
    )


def test_doctor_finds_a_database_that_cannot_be_made(app: Flask, runner: FlaskCliRunner, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    FlaskChestSQLite(app, db_uri="file/chest.db")
    add_view(app)
    assert said(runner) == (
        f"- The store does not answer: SQLite {tmp_path}/file/chest.db cannot be made, since {tmp_path}/file is "
        "not a folder; choose another path\n"
    )
    (tmp_path / "file").chmod(0o755)  # which root may write and execute: it is no folder all the same
    assert f"since {tmp_path}/file is not a folder" in said(runner)


def test_doctor_finds_a_link_that_leads_nowhere(app: Flask, runner: FlaskCliRunner, tmp_path: Path) -> None:
    (tmp_path / "chest.db").symlink_to(tmp_path / "volume" / "chest.db")
    FlaskChestSQLite(app, db_uri="chest.db")
    add_view(app)
    assert said(runner) == (
        f"- The store does not answer: SQLite {tmp_path}/chest.db cannot be made, since it is a link into a "
        "folder that does not exist; make that, or choose another path\n"
    )


def test_doctor_finds_a_journal_that_no_worker_can_find(app: Flask, runner: FlaskCliRunner) -> None:
    FlaskChest(app, store=MemoryStore, writer="off")
    add_view(app)
    assert "CHEST_WRITER is off, and the journal is in memory, where no other process finds it" in said(runner)


def test_doctor_finds_damage_in_a_journal(app: Flask, runner: FlaskCliRunner, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri="chest.db", writer="off", journal_dir="journal")
    add_view(app)
    for _ in range(3):
        app.test_client().get("/")
    chest.close()
    (segment,) = tmp_path.glob("journal/*/*.journal")
    data = bytearray(segment.read_bytes())
    data[-5] ^= 1
    segment.write_bytes(data)
    assert "damaged bytes, which will be skipped." in said(runner)


def test_doctor_finds_what_a_target_refused(app: Flask, runner: FlaskCliRunner) -> None:
    chest = FlaskChest(app, store=MemoryStore)
    exporter = RecordingExporter("far")
    chest.add_exporter(exporter)
    add_view(app)
    app.test_client().get("/")
    exporter.failures = [RecordsRejected("no", {chest.query()[0].id: "too long"})]
    chest.run_exports()
    assert said(runner) == (
        "- The target of the exporter 'far' refused 1 record: see flask chest rejected list far, "
        "then retry or drop them.\n"
    )
    chest.drop_rejected("far")
    healthy(runner)


def test_doctor_finds_an_exporter_that_is_gone_and_keeps_records(app: Flask, runner: FlaskCliRunner) -> None:
    store = MemoryStore()
    store.open()
    store.register("former")
    chest = FlaskChest(app, store=store)
    add_view(app)
    app.test_client().get("/")
    assert chest.flush()
    assert "The exporter 'former', which the app does not have, keeps 1 record from being deleted" in said(runner)
    store.drop("former")
    healthy(runner)


def test_doctor_says_what_an_exporter_that_never_ran_lacks(app: Flask, runner: FlaskCliRunner) -> None:
    chest = FlaskChestSQLite(app)
    add_view(app)
    chest.add_exporter(
        InfluxDBExporter(url="http://influx.example:8086", token=None, org="o", bucket="b"), name="influxdb"
    )
    assert said(runner) == (
        "- The exporter 'influxdb' can deliver nothing: nothing is sent to InfluxDB at influx.example:8086: "
        'token is None: the variable it was read from is not set; set it, or pass token="" to a server without '
        "authentication\n"
    )


def test_doctor_says_that_an_exporter_cannot_be_made(app: Flask, runner: FlaskCliRunner) -> None:
    def make() -> RecordingExporter:
        raise KeyError("s3cret")

    chest = FlaskChestSQLite(app)
    add_view(app)
    chest.add_exporter(make, name="far")
    assert said(runner) == "- The exporter 'far' can deliver nothing: builtins.KeyError\n"


def test_doctor_delivers_nothing(app: Flask, runner: FlaskCliRunner) -> None:
    chest = FlaskChestSQLite(app)
    add_view(app)
    exporter = RecordingExporter("far")
    chest.add_exporter(exporter)
    app.test_client().get("/")
    assert chest.flush(timeout=5)
    healthy(runner)
    assert exporter.delivered == []


def test_doctor_finds_a_setting_that_is_misspelt(app: Flask, runner: FlaskCliRunner) -> None:
    app.config["CHEST_RETENTON"] = "30d"
    FlaskChestSQLite(app)
    add_view(app)
    assert said(runner) == ("- Unknown setting CHEST_RETENTON is ignored. Did you mean CHEST_RETENTION?\n")


def notes(runner: FlaskCliRunner) -> list[str]:
    """Give what the doctor remarks about an app that has nothing wrong with it."""
    result = runner.invoke(args=["chest", "doctor"])
    assert result.exit_code == 0, result.output
    first, *rest = result.output.splitlines()
    assert first == "Nothing is wrong."
    return rest


def test_doctor_remarks_a_variable_that_is_never_set(app: Flask, runner: FlaskCliRunner) -> None:
    chest = FlaskChestSQLite(app)

    @app.route("/buy/<item>", methods=["GET", "POST"])
    @flask_chest(tracked_vars={"GET": ["item", "plam", "plan", "password"], "POST": ["item"]})
    def buy(item: str) -> str:
        g.item = item
        if item == "hat":
            g.plan = "pro"
        if item == "bug":
            raise ValueError
        return "hi"

    client = app.test_client()
    client.get("/buy/bug")
    client.post("/buy/hat")
    for _ in range(30):
        client.options("/buy/hat")
    client.get("/buy/hat")
    client.get("/buy/shoe")
    assert chest.flush()
    assert notes(runner) == []  # too few to tell
    for _ in range(18):
        client.get("/buy/shoe")
    assert chest.flush()
    assert notes(runner) == [
        (
            "'plam' is tracked, but in none of the last 20 records of GET /buy/<item>: "
            "is it set on g, under this name?"
        )
    ]
    chest.close()


def test_doctor_remarks_nothing_of_a_name_that_some_view_of_the_app_sets(
    app: Flask, runner: FlaskCliRunner
) -> None:
    chest = FlaskChestSQLite(app, tracked_vars=["user_id", "plan"])

    @app.route("/cart")
    def cart() -> str:
        g.user_id, g.plan = 7, "pro"
        return "hi"

    app.add_url_rule("/health", view_func=lambda: "hi")
    client = app.test_client()
    client.get("/cart")
    for _ in range(30):
        client.get("/health")
    assert chest.flush()
    assert notes(runner) == []
    chest.close()


def test_doctor_remarks_chests_that_share_their_tables(app: Flask, runner: FlaskCliRunner) -> None:
    chests = [FlaskChestSQLite(app, db_uri="chest.db") for _ in range(2)]
    other = FlaskChestSQLite(app, "other", db_uri="chest.db")
    add_view(app)
    app.test_client().get("/")
    for chest in (*chests, other):
        chest.close()
    noted = notes(runner)
    for chest in (*chests, other):
        chest.close()  # and what the command opened
    assert noted == ["2 chests keep their records in the same tables: what both record is there twice."]


@pytest.mark.parametrize(
    ("options", "remarked"),
    [
        ({"sample": 0.05}, True),
        ({"sample": 0.05, "keep_errors": False}, False),
        ({"sample": 0.05, "keep_errors": False, "keep_slower_than": 1.0}, True),
        ({}, False),
    ],
)
def test_share_that_is_not_the_same_of_all_requests_is_remarked(
    app: Flask, runner: FlaskCliRunner, options: SettingOptions, remarked: bool
) -> None:
    chest = FlaskChestSQLite(app, **options)
    add_view(app)
    app.test_client().get("/")
    chest.flush()
    assert any("for 1 / sample_rate requests" in note for note in notes(runner)) is remarked
    chest.close()
