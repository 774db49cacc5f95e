"""Every command of `flask chest` over every store, on records that real requests left."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import TypeAlias

import psycopg
import pytest
from benchmarks.web_servers import PATIENCE, happens
from flask import Flask, abort, g

import worker_app
from flask_chest import FlaskChest, RecordsRejected, SchemaError
from flask_chest.cli import chest_group
from flask_chest.decorator import flask_chest
from flask_chest.extension.chest import chests_of
from flask_chest.protocols import VariableIndexes
from flask_chest.stores import store_from_uri
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import RecordingExporter, make_record
from flask_chest.testing.contracts import VALUES
from servers import DatabaseServer

Run: TypeAlias = Callable[..., str]
REQUESTS = 30
_numbers = count()


@pytest.fixture(params=["sqlite", "postgresql", "mysql", "mariadb", "mongodb", "documentdb"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/chest.db"
    server: DatabaseServer = request.getfixturevalue(request.param)
    return server.uri


@pytest.fixture
def chest(uri: str, tmp_path: Path) -> Iterator[FlaskChest]:
    app = Flask("shop")
    app.cli.add_command(chest_group)
    make_store = store_from_uri(uri, root=tmp_path, name=f"commands_{next(_numbers)}")
    chest = FlaskChest(app, store=make_store, journal_dir=tmp_path / "journal", scheduler="off")

    @app.route("/<int:number>")
    @flask_chest(tracked_vars=["user_id", "plan"])
    def page(number: int) -> str:
        g.user_id, g.plan = number % 3, "=pro" if number % 2 else "free"
        if number == 7:
            abort(503)
        return "hi"

    with closing(chest):
        yield chest


def _app_of(chest: FlaskChest) -> Flask:
    (app,) = chest._states  # the command line finds it by --app
    return app


@pytest.fixture
def run(chest: FlaskChest) -> Run:
    runner = _app_of(chest).test_cli_runner()

    def invoke(*arguments: str, code: int = 0) -> str:
        result = runner.invoke(args=["chest", *arguments])
        assert result.exit_code == code, result.output
        return result.output

    return invoke


@pytest.fixture
def served(chest: FlaskChest) -> None:
    client = _app_of(chest).test_client()
    for number in range(REQUESTS):
        client.get(f"/{number}")
    assert chest.flush(30)


def test_nothing_is_made_before_migrate_makes_it(chest: FlaskChest, run: Run) -> None:
    assert "made when the first record is written" in run("migrate", "--check", code=1)
    assert "no records yet" in run("status")
    assert run("query", "--format", "jsonl") == ""
    assert "Nothing found." in run("query")
    assert run("prune", "--older-than", "1d") == "0 records deleted.\n"
    assert "up to date" in run("migrate")
    assert "up to date" in run("migrate", "--check")
    assert "Nothing is wrong." in run("doctor")


@pytest.mark.usefixtures("served")
def test_records_are_shown_queried_and_followed(chest: FlaskChest, run: Run) -> None:
    (status,) = json.loads(run("status", "--json"))["chests"]
    assert status["store"]["records"] == REQUESTS
    everything = [json.loads(line) for line in run("query", "--format", "jsonl", "--all").splitlines()]
    assert everything == [json.loads(line) for line in run("query", "--format", "jsonl").splitlines()]
    assert [each["variables"]["user_id"] for each in everything] == [n % 3 for n in reversed(range(REQUESTS))]
    of_user = run("query", "--where", "user_id=1", "--since", "1h", "--format", "jsonl").splitlines()
    assert len(of_user) == REQUESTS // 3
    rows = csv.DictReader(io.StringIO(run("query", "--format", "csv", "--column", "plan", "--limit", "2")))
    assert [row["plan"] for row in rows] == ["'=pro", "free"]
    assert len(run("query", "--limit", "5").splitlines()) == 1 + 5
    (error,) = run("tail", "--errors").splitlines()
    assert json.loads(error)["status_code"] == 503
    assert [json.loads(line)["id"] for line in run("tail", "-n", "3").splitlines()] == [
        each["id"] for each in reversed(everything[:3])
    ]
    assert f"request {everything[0]['request_id']}" in run("show", everything[0]["request_id"])


@pytest.mark.usefixtures("served")
def test_records_are_exported_set_aside_and_pruned(chest: FlaskChest, run: Run) -> None:
    exporter = RecordingExporter("far")
    bad = chest.query(limit=1)[0].id
    exporter.failures = [RecordsRejected("no", {bad: "too long"})]
    chest.add_exporter(exporter, interval=timedelta(days=1))
    assert run("prune", "--older-than", "1w") == "0 records deleted.\n"
    assert run("export", "far") == f"far: {REQUESTS - 1} delivered, 1 set aside\n"
    assert "far: 0 pending, 1 set aside" in run("exporters", "list")
    assert json.loads(run("rejected", "list", "far", "--json"))["record_id"] == bad
    assert run("replay", "far", "--since", "1h") == f"far: {REQUESTS} delivered again\n"
    assert run("rejected", "retry", "far", bad) == "far: 1 delivered again\n"
    assert run("rejected", "list", "far") == ""
    assert run("rejected", "drop", "far", "--all") == "0 forgotten.\n"
    assert f"request {chest.query(id=bad)[0].request_id}" in run("show", bad)
    assert run("prune", "--older-than", "0s") == f"{REQUESTS} records deleted.\n"
    assert chest.query() == []
    assert run("exporters", "remove", "far", "--force") == "The exporter 'far' is forgotten.\n"


@pytest.mark.usefixtures("served")
def test_prune_keeps_what_an_exporter_has_not_had(chest: FlaskChest, run: Run) -> None:
    chest.add_exporter(RecordingExporter("far"), interval=timedelta(days=1))
    run("export")
    client = _app_of(chest).test_client()
    client.get("/1")
    assert chest.flush(30)
    assert run("prune", "--older-than", "0s") == (
        f"{REQUESTS} records deleted.\n"
        "Other records stay: an exporter has not had them yet; --unexported-too deletes them too.\n"
    )
    assert run("prune", "--older-than", "0s", "--unexported-too") == "1 record deleted.\n"


def test_what_waits_on_disk_is_listed_verified_and_stored(uri: str, tmp_path: Path) -> None:
    app = Flask("shop")
    app.cli.add_command(chest_group)
    make_store = store_from_uri(uri, root=tmp_path, name=f"commands_{next(_numbers)}")
    chest = FlaskChest(
        app,
        store=make_store,
        journal_dir=tmp_path / "journal",
        writer="off",
        tracked_vars=["x"],
        retention="2 rows",
    )
    with closing(chest):
        for _ in range(REQUESTS):
            app.test_client().get("/")
        runner = app.test_cli_runner()
        assert f"{REQUESTS} records waiting" in runner.invoke(args=["chest", "journal", "list"]).output
        assert runner.invoke(args=["chest", "journal", "verify"]).exit_code == 0
        assert f"{REQUESTS} records waiting" in runner.invoke(args=["chest", "doctor"]).output
        assert runner.invoke(args=["chest", "journal", "replay"]).output == f"{REQUESTS} records stored.\n"
        assert runner.invoke(args=["chest", "doctor"]).output == "Nothing is wrong.\n"
        assert runner.invoke(args=["chest", "prune"]).output == f"{REQUESTS - 2} records deleted.\n"
        assert len(chest.query()) == 2


def test_worker_stores_and_delivers(uri: str, tmp_path: Path) -> None:
    app = worker_app.make(tmp_path, uri)
    for visit in range(REQUESTS):
        app.test_client().get(f"/{visit}")
    (chest,) = chests_of(app)
    with closing(chest), worker_app.working(tmp_path, **{worker_app.URI: uri}) as worker:
        assert happens(lambda: chest.stats().waiting == 0, seconds=PATIENCE)
        with closing(SQLiteStore(worker_app.target(tmp_path))) as target:
            assert happens(lambda: records_in(target) == REQUESTS, seconds=PATIENCE)
        assert worker_app.ended(worker, signal.SIGTERM) == (0, "The worker ends.\n")
        assert len(chest.query()) == REQUESTS


def records_in(store: SQLiteStore) -> int:
    try:
        return store.status().records
    except SchemaError:  # the worker makes it just now
        return 0


@pytest.mark.usefixtures("served")
def test_values_are_counted_and_summed_up(run: Run) -> None:
    asked = ("aggregate", "count", "mean(user_id)", "--by", "plan", "--format", "jsonl")
    assert len([json.loads(line) for line in run(*asked).splitlines()]) >= 3  # two plans, and all
    found = run("aggregate", "count", "--where", "plan=free", "--format", "csv")
    assert str(REQUESTS // 2) in found
    assert str(REQUESTS // 2) in run("top", "plan", "--limit", "1", "--since", "1h")


@pytest.mark.usefixtures("served")
def test_conditions_find_the_same_with_and_without_an_index(run: Run) -> None:
    conditions = ("user_id=2", "user_id>=1", "user_id in 0,2", "user_id is set", "plan>a", "plan in free")
    found = [run("query", "--where", each) for each in conditions]
    assert [len(each.splitlines()) - 1 for each in found] == [10, 20, 20, 30, 15, 15]
    for variable in ("user_id", "plan"):
        assert run("index", "add", variable).startswith(f"The index on {variable} took ")
        assert run("index", "add", variable) == f"{variable} has an index already.\n"
    assert [json.loads(line)["variable"] for line in run("index", "list", "--json").splitlines()] == [
        "plan",
        "user_id",
    ]
    assert [run("query", "--where", each) for each in conditions] == found
    assert run("index", "remove", "plan") == "The index on plan is removed.\n"
    assert "plan has no index" in run("index", "remove", "plan", code=1)
    assert [run("query", "--where", each) for each in conditions] == found


def test_processes_that_begin_together_make_the_indexes_of_an_empty_store(uri: str, tmp_path: Path) -> None:
    make_store = store_from_uri(uri, root=tmp_path, name=f"commands_{next(_numbers)}")
    apps = [Flask(f"shop{number}") for number in range(4)]
    chests = [
        FlaskChest(app, store=make_store, journal_dir="memory:", tracked_vars=["x"], indexed="user_id,plan")
        for app in apps
    ]
    for app in apps:  # each writes in a thread of its own
        app.test_client().get("/")
    for chest in chests:
        assert chest.close(30)
    assert [chest.stats().faults for chest in chests] == [{}] * 4
    apps[0].cli.add_command(chest_group)
    runner = apps[0].test_cli_runner()
    with closing(chests[0]):
        assert "up to date" in runner.invoke(args=["chest", "migrate", "--check"]).output
        assert runner.invoke(args=["chest", "doctor"]).output == "Nothing is wrong.\n"


def test_nobody_waits_for_an_index_that_waits_for_a_transaction(
    postgresql: DatabaseServer, tmp_path: Path
) -> None:
    app = Flask("shop")
    make_store = store_from_uri(postgresql.uri, root=tmp_path, name=f"commands_{next(_numbers)}")
    chest = FlaskChest(app, store=make_store, journal_dir="memory:", tracked_vars=["x"], indexed="user_id")
    with psycopg.connect(postgresql.uri) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT 1")
        app.test_client().get("/")
        assert chest.flush(30)
        assert len(chest.query()) == 1
        connection.rollback()
    assert chest.close(30)
    with closing(make_store()) as store:
        assert isinstance(store, VariableIndexes)
        assert [(index.variable, index.valid) for index in store.indexes()] == [("user_id", True)]


SHOP = """
from pathlib import Path
from flask import Flask
from flask_chest import FlaskChest
from flask_chest.stores import store_from_uri
app = Flask("shop")
FlaskChest(app, store=store_from_uri({uri!r}, root=Path(), name={name!r}))
"""


def test_index_that_was_interrupted_is_made_after_all(postgresql: DatabaseServer, tmp_path: Path) -> None:
    name = f"commands_{next(_numbers)}"
    make_store = store_from_uri(postgresql.uri, root=tmp_path, name=name)
    with closing(make_store()) as store:
        store.open()
        store.write([make_record(variables={"user_id": 7})])
    (tmp_path / "shop.py").write_text(SHOP.format(uri=postgresql.uri, name=name))
    add = [sys.executable, "-m", "flask", "--app", "shop", "chest", "index", "add", "user_id"]
    with (
        psycopg.connect(postgresql.uri) as reader,
        psycopg.connect(postgresql.uri, autocommit=True) as looking,
    ):
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")
        building = "SELECT 1 FROM pg_stat_activity WHERE starts_with(query, %s)"
        begin = f'CREATE INDEX CONCURRENTLY "{name}_by_user_id"'
        with subprocess.Popen(add, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as adding:
            assert happens(lambda: looking.execute(building, (begin,)).fetchone() is not None, seconds=PATIENCE)
            adding.send_signal(signal.SIGINT)
            _, said = adding.communicate(timeout=PATIENCE)
        assert adding.returncode == 1
        assert "Interrupted: the database may go on by itself" in said
        reader.rollback()
    assert happens(lambda: subprocess.run(add, cwd=tmp_path, check=False).returncode == 0, seconds=PATIENCE)
    with closing(make_store()) as store:
        assert isinstance(store, VariableIndexes)
        assert [(index.variable, index.valid) for index in store.indexes()] == [("user_id", True)]


def test_dump_of_what_was_loaded_here_has_the_files_of_the_first_dump(
    chest: FlaskChest, run: Run, tmp_path: Path
) -> None:
    day_nano = 86_400 * 10**9
    records = [
        make_record(
            time_unix_nano=20_000 * day_nano + number * day_nano // 7, variables={"user_id": -0.0, "v": value}
        )
        for number, value in enumerate(VALUES)
    ]
    app = Flask("first")
    app.cli.add_command(chest_group)
    with closing(SQLiteStore(tmp_path / "first.db")) as store:
        store.open()
        store.write(records)
        with closing(FlaskChest(app, store=store, journal_dir="memory:")):
            dumped = app.test_cli_runner().invoke(args=["chest", "dump", str(tmp_path / "first")])
        assert dumped.exit_code == 0, dumped.output
    chest.add_exporter(RecordingExporter(), name="target")
    for _ in range(2):
        assert f"{len(records)} records read" in run("load", str(tmp_path / "first"))
    run("dump", str(tmp_path / "second"))
    first, second = (
        sorted(each.name for each in (tmp_path / folder).iterdir()) for folder in ("first", "second")
    )
    assert first == second
    (report,) = chest.run_exports()
    assert (report.error, report.delivered) == (None, 0)
