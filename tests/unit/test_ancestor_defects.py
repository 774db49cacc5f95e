"""What broke in the older project of this name, each as a test that it does not break here."""

from __future__ import annotations

import ast
import signal
import sqlite3
import subprocess
import sys
import threading
import tomllib
from collections import Counter
from contextlib import closing
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from uuid import UUID

import pytest
from flask import Flask, Response, abort, g

from flask_chest import ConfigurationError, FlaskChest, FlaskChestSQLite, TargetUnavailable
from flask_chest.decorator import flask_chest
from flask_chest.exporter import FlaskChestExporterHTTP, FlaskChestExporterInfluxDB
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import RecordingExporter, make_record
from http_receiver import Answer, Request, self_signed
from http_receiver import Receiver as HTTPReceiver
from influxdb_receiver import Receiver

ROOT = Path(__file__).parents[2]


def serve(app: Flask, method: str = "GET", path: str = "/") -> None:
    assert app.test_client().open(path, method=method).status_code == 200


@pytest.fixture
def shop(app: Flask, chest: FlaskChest) -> Flask:
    @app.route("/", methods=["GET", "POST"])
    @flask_chest(tracked_vars={"GET": ["user_id"], "get": ["user_id", "more"]})
    def index() -> str:
        g.user_id, g.more = 1, 2
        return "hi"

    return app


@pytest.mark.slow
def test_01_installed_package_imports_with_what_it_requires() -> None:
    required = {"flask", "apscheduler", "msgspec", "uuid-utils"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {requirement.split(">")[0] for requirement in project["dependencies"]} == required
    code = "import sys\nfor m in ('influxdb_client', 'dotenv', 'requests', 'icecream'): sys.modules[m] = None\n"
    subprocess.run([sys.executable, "-c", code + "import flask_chest.decorator, flask_chest.cli"], check=True)


def test_02_nothing_is_pinned_and_the_types_are_shipped() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    everything = project["dependencies"] + [requirement for extra in extras for requirement in extra]
    assert [requirement for requirement in everything if "==" in requirement] == []
    assert [requirement for requirement in everything if "<" in requirement] == ["apscheduler>=3.11,<4"]
    assert files("flask_chest").joinpath("py.typed").is_file()


@pytest.mark.slow
def test_03_no_test_hides_another_of_its_name() -> None:
    for path in (ROOT / "tests").rglob("test_*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for body in [tree.body, *(node.body for node in classes)]:
            names = Counter(node.name for node in body if isinstance(node, ast.FunctionDef))
            assert [name for name, count in names.items() if count > 1] == [], path


def test_04_exception_abort_and_late_values_are_recorded(app: Flask, chest: FlaskChest) -> None:
    @app.after_request
    def late(response: Response) -> Response:
        g.late = True
        return response

    @app.route("/<what>")
    @flask_chest(tracked_vars=["late"])
    def show(what: str) -> str:
        if what == "abort":
            abort(404)
        raise LookupError

    for what in ("abort", "raise"):
        app.test_client().get(f"/{what}")
    recorded = [(r.status_code, r.error, dict(r.variables)) for r in reversed(chest.query())]
    assert recorded == [(404, None, {"late": True}), (500, "LookupError", {"late": True})]


def test_05_async_view_answers_and_is_recorded(app: Flask, chest: FlaskChest) -> None:
    @app.route("/")
    @flask_chest
    async def index() -> str:
        g.user_id = 1
        return "hi"

    serve(app)
    assert chest.query()[0].variables == {"user_id": 1}


def test_06_head_doubled_keys_and_stacked_decorators_make_one_record_each(shop: Flask, chest: FlaskChest) -> None:
    shop.view_functions["index"] = flask_chest(tracked_vars=["user_id"])(shop.view_functions["index"])
    serve(shop, "HEAD")
    serve(shop, "GET")
    assert [dict(record.variables) for record in chest.query()] == [{"user_id": 1, "more": 2}] * 2


def test_07_all_names_are_the_public_values_only(app: Flask, chest: FlaskChest) -> None:
    @app.route("/")
    @flask_chest(tracked_vars=None)
    def index() -> str:
        g.user_id, g._private, g.connection = 1, 2, object()
        return "hi"

    serve(app)
    assert chest.query()[0].variables == {"user_id": 1}


def test_08_types_survive_and_no_value_fails(app: Flask, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", strict=True)
    values: dict[str, object] = {
        "integer": 1, "real": 1.5, "boolean": True, "nothing": None, "array": [1, (2,)], "object": {"a": {3}},
        "decimal": Decimal("1.10"), "uuid": UUID(int=1), "data": b"\x00\xff",
    }  # fmt: skip

    @app.route("/")
    @flask_chest(tracked_vars=list(values))
    def index() -> str:
        for name, value in values.items():
            setattr(g, name, value)
        return "hi"

    serve(app)
    assert chest.query(where={"integer": 1, "boolean": True})[0].variables == {
        "integer": 1, "real": 1.5, "boolean": True, "nothing": None, "array": [1, [2]], "object": {"a": [3]},
        "decimal": "1.10", "uuid": "00000000-0000-0000-0000-000000000001", "data": "AP8=",
    }  # fmt: skip
    assert chest.query(where={"integer": True}) == []
    chest.close()


def test_09_generator_may_raise_and_long_ids_do_not_collide(app: Flask) -> None:
    ids = iter(["x" * 300 + "1", "x" * 300 + "2"])
    chest = FlaskChest(app, store=MemoryStore, request_id_generator=lambda: next(ids))
    app.add_url_rule("/", view_func=flask_chest(lambda: "hi"), endpoint="index")
    for _ in range(3):
        serve(app)
    assert len({record.request_id for record in chest.query()}) == 3
    assert max(len(record.request_id) for record in chest.query()) <= 255


def test_10_outer_app_context_leaks_no_values_between_requests(app: Flask, chest: FlaskChest) -> None:
    @app.route("/", methods=["GET", "POST"])
    @flask_chest(tracked_vars=["user_id"])
    def index() -> str:
        if not chest.query():
            g.user_id = "of the first"
        return "hi"

    with app.app_context():
        serve(app)
        serve(app)
        assert [dict(record.variables) for record in chest.query()] == [{}, {"user_id": "of the first"}]


def test_11_record_is_one_transaction_on_a_connection_that_is_kept(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[object] = []
    original = sqlite3.connect

    def counting(*args: str, **options: bool) -> sqlite3.Connection:
        connected.append(args)
        return original(*args, **options)  # type: ignore[call-overload, no-any-return]  # passed on as it came

    monkeypatch.setattr(sqlite3, "connect", counting)
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", tracked_vars=[f"name_{n}" for n in range(20)])
    app.add_url_rule("/", view_func=lambda: "hi", endpoint="index")
    for _ in range(10):
        serve(app)
    assert len(chest.query()) == 10
    assert len(connected) <= 2
    chest.close()


@pytest.mark.slow
def test_12_locked_database_does_not_fail_the_request(app: Flask, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", busy_timeout=0.05, tracked_vars=[])
    app.add_url_rule("/", view_func=lambda: "hi", endpoint="index")
    serve(app)
    with closing(sqlite3.connect(tmp_path / "chest.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        serve(app)
        assert not chest.flush(0.3)
    serve(app)
    assert chest.flush()
    assert (chest.stats().stored, chest.stats().lost) == (3, {})
    chest.close()


def test_13_two_chests_write_to_their_own_tables_under_any_name(app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "chest.db"
    first = FlaskChestSQLite(app, "table-a", path, tracked_vars=["x"])
    second = FlaskChestSQLite(app, "order", path)
    app.add_url_rule("/", view_func=lambda: "hi", endpoint="index")
    serve(app)
    assert (len(first.query()), len(second.query())) == (1, 0)
    with pytest.raises(ConfigurationError):
        SQLiteStore(path, name='x"; DROP TABLE "order')
    first.close()
    second.close()


def test_14_time_is_that_of_the_request_and_the_path_that_of_the_app(tmp_path: Path) -> None:
    app = Flask("shop", root_path=str(tmp_path))
    chest = FlaskChestSQLite(app, tracked_vars=[])
    assert not (tmp_path / "db.sqlite3").exists()
    app.add_url_rule("/", view_func=lambda: "hi", endpoint="index")
    serve(app)
    record = chest.query()[0]
    assert abs(record.time_unix_nano / 1e9 - (tmp_path / "db.sqlite3").stat().st_mtime) < 60
    chest.close()


def test_15_and_16_influxdb_is_not_in_the_request_and_ids_are_no_tags(shop: Flask, chest: FlaskChest) -> None:
    with Receiver() as receiver:
        FlaskChestExporterInfluxDB(chest, url=receiver.url, token="t")
        serve(shop)
        assert receiver.requests == []
        assert chest.run_exports()[0].delivered == 1
        (point,) = receiver.requests[0].points
    record = chest.query()[0]
    assert point.fields["request_id"] == record.request_id
    assert set(point.tags) == {"method", "route", "endpoint", "status_code", "instance"}
    assert point.time == record.time_unix_nano


@pytest.mark.slow
def test_17_http_writer_verifies_waits_for_a_while_and_sends_json(
    shop: Flask, chest: FlaskChest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secure, certificate = self_signed(tmp_path)
    with HTTPReceiver(Request, tls=secure) as receiver, HTTPReceiver(Request) as silent:
        silent.respond = lambda _: Answer() if silent.closing.wait(30) else Answer(500)
        FlaskChestExporterHTTP(chest, receiver.url, name="stranger")
        FlaskChestExporterHTTP(chest, receiver.url, verify=str(certificate), name="known")
        FlaskChestExporterHTTP(chest, silent.url, timeout=0.2, name="silent")
        serve(shop)
        stranger, known, hanging = chest.run_exports()
    assert "certificate" in str(stranger.error)
    assert (known.delivered, hanging.delivered) == (1, 0)
    assert str(hanging.error).endswith("did not take all within 0.2 s")
    (received,) = receiver.requests
    assert received.headers["Content-Type"] == "application/json"
    assert received.json["records"][0]["variables"] == {"user_id": 1, "more": 2}
    assert "NoneType: None" not in caplog.text


def test_18_original_signatures_work(app: Flask, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app=app, name="flask_chest", db_uri=str(tmp_path / "db.sqlite3"))
    FlaskChestExporterInfluxDB(chest, False, "localhost", 8086, None, "my-org", "my-bucket", 5)
    app.add_url_rule("/", view_func=flask_chest(lambda: "hi"), endpoint="index")
    serve(app)
    assert "token is None" in str(chest.run_exports()[0].error)
    chest.close()


def test_19_dead_target_costs_no_record(shop: Flask, chest: FlaskChest) -> None:
    exporter = RecordingExporter()
    exporter.failures = [TargetUnavailable("away")]
    chest.add_exporter(exporter)
    for _ in range(5):
        serve(shop)
    assert (chest.run_exports()[0].delivered, len(chest.query())) == (0, 5)
    assert (chest.run_exports()[0].delivered, len(chest.query())) == (5, 5)


def test_20_record_written_during_an_export_is_delivered_by_the_next(shop: Flask, chest: FlaskChest) -> None:
    class Busy(RecordingExporter):
        def export(self, records, /):  # type: ignore[no-untyped-def]  # the base class has the types
            if len(chest.query()) < 3:
                serve(shop)
            super().export(records)

    exporter = Busy()
    chest.add_exporter(exporter)
    serve(shop)
    chest.run_exports()
    assert len(exporter.delivered) == len(chest.query()) == 3


@pytest.mark.slow
def test_21_two_exporting_processes_deliver_each_record_once(tmp_path: Path) -> None:
    with Receiver() as receiver:
        path = tmp_path / "chest.db"
        with closing(SQLiteStore(path)) as store:
            store.open()
            store.write([make_record() for _ in range(500)])
        code = (
            "from flask import Flask\nfrom flask_chest import FlaskChestSQLite\n"
            "from flask_chest.exporter import FlaskChestExporterInfluxDB\n"
            f"app = Flask('shop')\nchest = FlaskChestSQLite(app, db_uri={str(path)!r})\n"
            f"FlaskChestExporterInfluxDB(chest, url={receiver.url!r}, token='t', batch_size=10)\n"
            "while chest.run_exports()[0].pending: pass\n"
            "chest.close()\n"
        )
        processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
        assert [process.wait(60) for process in processes] == [0, 0]
        delivered = Counter(p.fields["record_id"] for request in receiver.requests for p in request.points)
    assert len(delivered) == 500
    assert set(delivered.values()) == {1}


@pytest.mark.slow
def test_22_scheduler_runs_again_in_a_forked_child(tmp_path: Path) -> None:
    with Receiver() as receiver:
        code = (
            "import os, sys\nfrom datetime import timedelta\nfrom flask import Flask\n"
            "from flask_chest import FlaskChestSQLite\n"
            "from flask_chest.exporter import FlaskChestExporterInfluxDB\n"
            "app = Flask('shop')\n"
            f"chest = FlaskChestSQLite(app, db_uri={str(tmp_path / 'chest.db')!r}, tracked_vars=[])\n"
            f"FlaskChestExporterInfluxDB(chest, url={receiver.url!r}, token='t', interval_minutes=0.0005)\n"
            "app.add_url_rule('/', view_func=lambda: 'hi')\n"
            "app.test_client().get('/')\n"
            "pid = os.fork()\n"
            "app.test_client().get('/')\n"
            "if pid: os.waitpid(pid, 0)\n"
            "sys.stdin.read()\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
        try:
            arrived = threading.Event()
            deadline = threading.Timer(30, arrived.set)
            deadline.start()
            ids: set[object] = set()
            while len(ids) < 3 and not arrived.is_set():
                ids = {p.fields["record_id"] for request in receiver.requests for p in request.points}
            deadline.cancel()
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    assert len(ids) == 3


def test_23_exporter_follows_the_name_of_the_table(app: Flask, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, "visits", tmp_path / "chest.db", tracked_vars=[])
    chest.add_exporter(RecordingExporter())
    app.add_url_rule("/", view_func=lambda: "hi", endpoint="index")
    serve(app)
    assert chest.run_exports()[0].delivered == 1
    chest.close()


def test_24_two_exporters_take_nothing_from_each_other(shop: Flask, chest: FlaskChest) -> None:
    exporters = [RecordingExporter("one"), RecordingExporter("two")]
    for exporter in exporters:
        chest.add_exporter(exporter)
    serve(shop)
    assert [report.delivered for report in chest.run_exports()] == [1, 1]
    assert not hasattr(shop, "apscheduler")


def test_25_backlog_goes_out_in_batches_from_any_store(shop: Flask, chest: FlaskChest) -> None:
    sizes: list[int] = []

    class Counting(RecordingExporter):
        def export(self, records, /):  # type: ignore[no-untyped-def]  # the base class has the types
            sizes.append(len(records))
            super().export(records)

    chest.add_exporter(Counting(), batch_size=4)
    for _ in range(10):
        serve(shop)
    chest.run_exports()
    assert sizes == [4, 4, 2]


def test_26_one_chest_serves_factories_and_apps_beside_each_other(tmp_path: Path) -> None:
    chest = FlaskChestSQLite(db_uri=tmp_path / "chest.db", tracked_vars=[])
    apps = [Flask(name, instance_path=str(tmp_path)) for name in ("one", "two")]
    for app in apps:
        chest.init_app(app)
        app.add_url_rule("/", view_func=lambda: "hi", endpoint="index")
        serve(app)
    with apps[0].app_context():
        assert len(chest.query()) == 2
    chest.close()
