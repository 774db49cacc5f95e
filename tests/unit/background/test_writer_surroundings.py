"""The writer where it is not alone: after a fork, under uWSGI, under gevent, beside OpenTelemetry."""

from __future__ import annotations

import _thread
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from flask import Flask, g

from flask_chest import FlaskChest, FlaskChestSQLite
from flask_chest._process import native_lock, start_native_thread
from flask_chest.decorator import flask_chest
from flask_chest.stores.memory import MemoryStore
from folders import SUPPORT
from sinks import PATIENCE, until


def add_view(app: Flask) -> None:
    @app.route("/")
    @flask_chest(tracked_vars=["pid"])
    def index() -> str:
        g.pid = os.getpid()
        return "hi"


def serve(app: Flask) -> None:
    assert app.test_client().get("/").data == b"hi"


def in_child(happens: Callable[[], bool]) -> int:
    """Run *happens* in a forked child: 0 when it holds, 1 when not, 2 when it raised."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if happens() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_forked_child_has_a_writer_and_a_slot_of_its_own(app: Flask, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", instance="web")
    add_view(app)
    serve(app)

    def serves_and_stores() -> bool:
        serve(app)
        stats = chest.stats()
        return chest.flush(PATIENCE) and stats.captured == 1 and chest._state.here.instance == "web:1"

    assert in_child(serves_and_stores) == 0
    # The child's end has not let go of the parent's slot: another child still gets the next one.
    assert in_child(serves_and_stores) == 0
    serve(app)
    assert chest.flush(PATIENCE)
    assert chest.stats().captured == chest.stats().stored == 2
    records = chest.query()
    assert len({record.variables["pid"] for record in records}) == 3
    assert [record.instance for record in records] == ["web:0", "web:1", "web:1", "web:0"]
    chest.close()


def test_what_waits_at_a_fork_is_left_to_the_parent(app: Flask, tmp_path: Path) -> None:
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", writer="off")
    add_view(app)
    for _ in range(3):
        serve(app)
    assert in_child(lambda: chest.stats().waiting == 0 and chest.close(PATIENCE)) == 0
    assert chest.stats().waiting == 3
    serve(app)
    chest.close()
    successor = Flask("shop")
    next_chest = FlaskChestSQLite(successor, db_uri=tmp_path / "chest.db")
    add_view(successor)
    serve(successor)
    until(lambda: next_chest.stats().stored >= 5)
    assert len(next_chest.query()) == 5
    next_chest.close()


@pytest.mark.slow
def test_child_of_a_parent_that_hangs_in_its_store_is_not_held_up(tmp_path: Path) -> None:
    """The parent's thread holds what it holds at the fork, and does not exist in the child."""
    code = (
        "import os, sys\n"
        "from flask import Flask\n"
        "from flask_chest import FlaskChest\n"
        "from flask_chest.stores.memory import MemoryStore\n"
        "from sinks import HangingSink\n"
        "parent = HangingSink()\n"
        "class Store(MemoryStore):\n"
        "    def write(self, records, /):\n"
        "        if os.getpid() == pid: parent.judge(records)\n"
        "        super().write(records)\n"
        "pid = os.getpid()\n"
        "app = Flask('shop')\n"
        "chest = FlaskChest(app, store=Store, tracked_vars=[])\n"
        "app.add_url_rule('/', view_func=lambda: 'hi')\n"
        "app.test_client().get('/')\n"
        "assert parent.entered.wait(20)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    app.test_client().get('/')\n"
        "    os._exit(0 if chest.flush(20) and chest.stats().stored == 1 and chest.close(20) else 1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "parent.let.set()\n"
        "assert chest.flush(20) and chest.stats().stored == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=SUPPORT, timeout=60, check=True)


@pytest.mark.parametrize(
    ("options", "threads"),
    [
        ({}, False),
        ({"master": True}, False),
        ({"enable-threads": True}, True),
        ({"threads": b"2"}, True),
    ],
    ids=str,
)
def test_writer_under_uwsgi_needs_its_threads(
    app: Flask,
    options: dict[str, object],
    threads: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(opt=options))
    chest = FlaskChest(app, store=MemoryStore, tracked_vars=[])
    add_view(app)
    for _ in range(3):
        serve(app)
    assert chest.flush(PATIENCE if threads else 0) is threads
    stats = chest.stats()
    assert (stats.stored, stats.waiting) == ((3, 0) if threads else (0, 3))
    warnings = [message for message in caplog.messages if "uWSGI" in message]
    assert len(warnings) == (0 if threads else 1)
    assert all("--enable-threads" in message for message in warnings)
    chest.close()


def test_locks_and_threads_are_the_systems_where_gevent_replaced_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def get_original(module: str, name: str) -> object:
        asked.append((module, name))
        return getattr(_thread, name)

    monkeypatch.setitem(sys.modules, "gevent.monkey", SimpleNamespace(get_original=get_original))
    lock = native_lock()
    assert type(lock) is _thread.LockType
    lock.acquire()
    start_native_thread(lock.release)
    assert lock.acquire(timeout=PATIENCE)
    assert asked == [("_thread", "allocate_lock"), ("_thread", "start_new_thread")]


def run(code: str, *arguments: str | Path) -> str:
    """Run *code* in a fresh interpreter; give what it printed."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


GEVENT = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from flask import Flask
from flask_chest import FlaskChest
from flask_chest.stores.sqlite import SQLiteStore

allocate = monkey.get_original("_thread", "allocate_lock")
get_ident = monkey.get_original("_thread", "get_ident")

class Store(SQLiteStore):
    gate, threads, entered = allocate(), set(), False

    def write(self, records, /):
        self.threads.add(get_ident())
        Store.entered = True
        with self.gate:  # as a database that does not answer: no greenlet runs on this thread meanwhile
            super().write(records)

app = Flask("shop")
chest = FlaskChest(app, store=Store(sys.argv[1]), journal_dir=sys.argv[2], tracked_vars=[])
app.add_url_rule("/", view_func=lambda: "hi")
Store.gate.acquire()
assert app.test_client().get("/").data == b"hi"
while not Store.entered:
    gevent.sleep(0.001)
waiter = gevent.spawn(chest.flush, 20)
for _ in range(50):
    assert app.test_client().get("/").data == b"hi"
    gevent.sleep(0.001)
assert not waiter.ready() and chest.stats().waiting == 51
Store.gate.release()
assert waiter.get(timeout=20)
assert len(chest.query(limit=None)) == 51
assert Store.threads and get_ident() not in Store.threads
readers = [gevent.spawn(chest.query, limit=None) for _ in range(5)]
for _ in range(200):
    app.test_client().get("/")
assert [len(reader.get(timeout=20)) >= 51 for reader in readers] == [True] * 5
assert chest.close(20)
print(chest.stats().stored)
"""


@pytest.mark.slow
def test_greenlets_go_on_while_the_store_hangs_under_gevent(tmp_path: Path) -> None:
    assert run(GEVENT, tmp_path / "chest.db", tmp_path / "journal") == "251\n"


GEVENT_OPENING = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from flask import Flask
from flask_chest import FlaskChest
from flask_chest.stores.memory import MemoryStore

class Store(MemoryStore):
    gate, entered = monkey.get_original("_thread", "allocate_lock")(), False

    def open(self):
        Store.entered = True
        with self.gate:
            super().open()

app = Flask("shop")
chest = FlaskChest(app, store=Store, tracked_vars=[])
app.add_url_rule("/", view_func=lambda: "hi")
Store.gate.acquire()
app.test_client().get("/")
while not Store.entered:
    gevent.sleep(0.001)
reader = gevent.spawn(chest._state.here.open_store)
for _ in range(20):
    app.test_client().get("/")
    gevent.sleep(0.001)
assert not reader.ready()
Store.gate.release()
reader.get(timeout=20)
assert chest.flush(20)
print(chest.stats().stored, chest.close(20))
"""


@pytest.mark.slow
def test_greenlet_that_waits_for_the_opening_of_the_store_holds_up_no_other() -> None:
    assert run(GEVENT_OPENING) == "21 True\n"


SPANS = """
import sqlite3
import sys
from opentelemetry import trace
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
SQLite3Instrumentor().instrument()

from flask import Flask
from flask_chest import FlaskChest
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import make_record

def ask(text):
    connection = sqlite3.connect(":memory:")
    connection.cursor().execute(f"SELECT '{text}'")  # a connection's own execute is not traced
    connection.close()

class Store(SQLiteStore):
    def open(self):
        ask("of the opening")
        super().open()

    def write(self, records, /):
        ask("of the store")
        super().write(records)

app = Flask("shop")
chest = FlaskChest(app, store=Store(sys.argv[1]), journal_dir=sys.argv[2], tracked_vars=[])

@app.route("/")
def index():
    ask("of the app")
    return "hi"

def traced():
    statements = [span.attributes["db.statement"] for span in spans.get_finished_spans()]
    spans.clear()
    return statements

for _ in range(3):
    app.test_client().get("/")
assert chest.flush(20)
print(chest.stats().stored, traced())
chest._state.here.store.write([make_record()])
print(traced())
chest.close()
"""


@pytest.mark.slow
def test_writer_makes_no_spans_where_others_who_use_the_store_do(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.instrumentation.sqlite3")
    of_the_app, of_others = run(SPANS, tmp_path / "chest.db", tmp_path / "journal").splitlines()
    assert of_the_app == f"""3 {["SELECT 'of the app'"] * 3}"""
    assert of_others == f"""{["SELECT 'of the store'"]}"""


@pytest.mark.slow
def test_opentelemetry_is_not_loaded_for_the_writer(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from flask import Flask\n"
        "from flask_chest import FlaskChestSQLite\n"
        "app = Flask('shop')\n"
        "chest = FlaskChestSQLite(app, db_uri=sys.argv[1], journal_dir=sys.argv[2], tracked_vars=[])\n"
        "app.add_url_rule('/', view_func=lambda: 'hi')\n"
        "app.test_client().get('/')\n"
        "assert chest.flush(20) and chest.stats().stored == 1\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'gevent'))])\n"
    )
    assert run(code, tmp_path / "chest.db", tmp_path / "journal") == "[]\n"


@pytest.mark.slow
def test_nothing_is_started_before_the_first_request(tmp_path: Path) -> None:
    code = (
        "import _thread, os, sys\n"
        "from flask import Flask\n"
        "from flask_chest import FlaskChestSQLite\n"
        "from flask_chest.testing import RecordingExporter\n"
        "app = Flask('shop', root_path=sys.argv[1], instance_path=sys.argv[1] + '/instance')\n"
        "chest = FlaskChestSQLite(app, journal_dir='queue', tracked_vars=[])\n"
        "app.add_url_rule('/', view_func=lambda: 'hi')\n"
        "chest.add_exporter(RecordingExporter())\n"
        "before = chest.stats(), chest.flush(0), _thread._count(), os.listdir(sys.argv[1])\n"
        "app.test_client().get('/')\n"
        "print(before[1:], _thread._count() > 0, os.path.exists(sys.argv[1] + '/queue'))\n"
    )
    assert run(code, tmp_path) == "(True, 0, []) True True\n"


TIMES = """
import sys, time
from pathlib import Path
from flask import Flask
from flask_chest import FlaskChestSQLite
from flask_chest.testing import make_record

ahead = time.time_ns() + 3_600_000_000_000 if sys.argv[2] == "ahead" else None
app = Flask("shop", root_path=sys.argv[1])
chest = FlaskChestSQLite(app, journal_dir="queue", tracked_vars=[])
app.add_url_rule("/", view_func=lambda: "hi")
if ahead:
    chest._state.here.keep(make_record(time_unix_nano=ahead))
else:
    app.test_client().get("/")
assert chest.flush(20)
print(chest.query()[0].time_unix_nano - (ahead or 0))
chest.close()
"""


@pytest.mark.slow
def test_time_of_a_former_process_whose_clock_was_an_hour_ahead_is_not_continued(tmp_path: Path) -> None:
    assert run(TIMES, tmp_path, "ahead") == "0\n"
    (tmp_path / "db.sqlite3").unlink()
    assert abs(int(run(TIMES, tmp_path, "now")) - time.time_ns()) < 600_000_000_000
