"""Apps that come and go within a process: what stays of them is their records."""

from __future__ import annotations

import _thread
import atexit
import gc
import os
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask, g
from werkzeug.test import Client

from flask_chest import FlaskChest, FlaskChestSQLite
from flask_chest.background.scheduler import ExportScheduler
from flask_chest.extension import shutdown
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import RecordingExporter

pytestmark = pytest.mark.slow

SHORT = timedelta(milliseconds=20)


def make_app(folder: Path) -> Flask:
    app = Flask("shop", root_path=str(folder), instance_path=str(folder / "instance"))

    @app.route("/<int:number>")
    def view(number: int) -> str:
        g.number = number
        return "x"

    return app


def served(folder: Path) -> Flask:
    app = make_app(folder)
    FlaskChestSQLite(app, db_uri="db.sqlite3", tracked_vars=["number"])
    app.test_client().get("/7")
    return app


def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.005)
    return holds()


def burdens() -> tuple[int, int, int]:
    threads, descriptors = (len(list(Path(f"/proc/self/{kind}").iterdir())) for kind in ("task", "fd"))
    return threads, descriptors, atexit._ncallbacks()


def eased(before: tuple[int, int, int]) -> bool:
    """Tell whether there are no more burdens than *before*, when an earlier app may still have been going."""
    return eventually(lambda: all(now <= then for now, then in zip(burdens(), before, strict=True)))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux shows them")
def test_dropped_app_leaves_no_thread_descriptor_or_exit_hook(tmp_path: Path) -> None:
    served(tmp_path / "first")
    gc.collect()
    before = burdens()

    for number in range(10):
        served(tmp_path / str(number))

    assert eased(before)


def test_records_of_a_dropped_app_are_stored(tmp_path: Path) -> None:
    gone = weakref.ref(served(tmp_path))

    def stored() -> int:
        try:
            with closing(sqlite3.connect(f"file:{tmp_path / 'db.sqlite3'}?mode=ro", uri=True)) as connection:
                return int(connection.execute("SELECT count(*) FROM flask_chest").fetchone()[0])
        except sqlite3.OperationalError:  # it is being made
            return 0

    assert eventually(lambda: gone() is None)
    assert eventually(lambda: stored() == 1)


def test_app_is_collected_though_its_exporters_are_scheduled_and_hold_it(tmp_path: Path) -> None:
    target = RecordingExporter()

    def drop_one() -> weakref.ref[Flask]:
        app = make_app(tmp_path)

        def make_store() -> MemoryStore:
            assert app.name == "shop"
            return MemoryStore()

        def make_exporter() -> RecordingExporter:
            assert app.name == "shop"
            return target

        chest = FlaskChest(app, store=make_store, tracked_vars=["number"], retention=timedelta(days=1))
        chest.add_exporter(make_exporter, name="far", interval=SHORT)
        app.test_client().get("/7")
        assert eventually(lambda: len(target.delivered) == 1)
        return weakref.ref(app)

    def threads() -> set[str]:
        return {thread.name for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)}

    before = threads()
    gone = drop_one()

    assert eventually(lambda: gone() is None)
    assert eventually(lambda: threads() == before)


def test_app_is_collected_though_its_chest_serves_others(tmp_path: Path) -> None:
    chest = FlaskChest(store=MemoryStore, tracked_vars=["number"])

    def served_by_chest() -> Flask:
        app = make_app(tmp_path)
        chest.init_app(app)
        app.test_client().get("/7")
        return app

    stays, gone = served_by_chest(), weakref.ref(served_by_chest())

    assert eventually(lambda: gone() is None)
    with stays.app_context():
        assert [record.variables for record in chest.query()] == [{"number": 7}]
    assert chest.close()


class Closable(MemoryStore):
    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("lent", [True, False])
def test_store_of_a_dropped_app_is_closed_unless_others_may_hold_it(tmp_path: Path, *, lent: bool) -> None:
    store = Closable()

    def drop_one() -> weakref.ref[Flask]:
        app = make_app(tmp_path)
        chest = FlaskChest(app, store=store if lent else lambda: store, tracked_vars=["number"])
        app.test_client().get("/7")
        assert chest.flush()
        return weakref.ref(app)

    gone = drop_one()

    assert eventually(lambda: gone() is None and not shutdown._closing)
    assert store.closed is not lent


def test_wsgi_app_alone_keeps_its_app(tmp_path: Path) -> None:
    wsgi_app = served(tmp_path).wsgi_app
    gc.collect()

    assert Client(wsgi_app).get("/8").status_code == 200


def test_child_that_drops_an_app_leaves_the_parents_connections(tmp_path: Path) -> None:
    app = served(tmp_path)
    chest = next(iter(app.extensions["flask_chest"].states)).chest
    assert chest.flush()
    if (child := os.fork()) == 0:
        del app, chest
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

    app.test_client().get("/8")
    with app.app_context():
        assert len(chest.query()) == 2
    assert chest.close()


def test_process_ends_after_what_a_dropped_app_recorded_is_stored(tmp_path: Path) -> None:
    script = (
        "import gc, sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path; from unit_lifetimes import served\n"
        "served(Path(sys.argv[1])); gc.collect()"
    )
    (tmp_path / "unit_lifetimes.py").write_text(Path(__file__).read_text())

    subprocess.run([sys.executable, "-c", script, tmp_path, tmp_path], check=True, timeout=120)

    with closing(sqlite3.connect(tmp_path / "db.sqlite3")) as connection:
        assert connection.execute("SELECT count(*) FROM flask_chest").fetchone() == (1,)


GEVENT = """
from gevent import monkey
monkey.patch_all()
import gc, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from unit_lifetimes import burdens, eased, eventually, served

folder = Path(sys.argv[1])
served(folder / "first")
assert eventually(lambda: burdens()[0] == 1)
before = burdens()
apps = [served(folder / str(number)) for number in range(20)]
chests = [app.extensions["flask_chest"].states[0].chest for app in apps]
assert eventually(lambda: all(chest.stats().stored == 1 for chest in chests)), "a writer hangs"
del apps, chests
assert eased(before), (burdens(), before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux shows them")
def test_apps_come_and_go_under_gevent(tmp_path: Path) -> None:
    (tmp_path / "unit_lifetimes.py").write_text(Path(__file__).read_text())

    done = subprocess.run(
        [sys.executable, "-c", GEVENT, tmp_path], stderr=subprocess.PIPE, text=True, timeout=240, check=False
    )

    assert done.returncode == 0, done.stderr


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_lifetimes import served
served(Path(sys.argv[1]))
os._exit(7)
"""


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let no thread start until what this gives is called."""

    def refuse(*_: object, **__: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    starter = "_start_joinable_thread" if sys.version_info >= (3, 13) else "_start_new_thread"
    monkeypatch.setattr(threading, starter, refuse)
    return monkeypatch.undo


def test_exporters_begin_once_there_are_threads(
    tmp_path: Path, no_threads: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(tmp_path)
    chest = FlaskChest(app, store=MemoryStore, tracked_vars=["number"])
    target = RecordingExporter()
    chest.add_exporter(target, interval=SHORT)
    client = app.test_client()

    client.get("/1")
    assert any("no thread could be started for exporters" in fault for fault in chest.stats().faults)
    no_threads()

    assert eventually(lambda: client.get("/unknown").status_code == 404 and len(target.delivered) > 0)
    assert chest.close()


def test_run_without_a_thread_is_tried_again_before_its_interval(
    no_threads: Callable[[], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    no_threads()
    runs = threading.Event()
    scheduler = ExportScheduler()
    scheduler.start()
    refused = threading.Event()
    start = threading.Thread.start

    def refuse_once(thread: threading.Thread) -> None:
        if thread.name == "flask_chest far" and not refused.is_set():
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr("flask_chest.background.scheduler.HURRY", SHORT)
    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    scheduler.add("far", runs.set, interval=timedelta(days=1), at_once=True)
    # What was added last wakes the scheduler.
    assert runs.wait(10)
    assert refused.is_set()
    assert "a run of far did not begin, and is tried again soon" in caplog.text
    assert scheduler.close(5)


def test_worker_is_told_that_it_could_not_begin_and_begins_when_it_can(
    tmp_path: Path, no_threads: Callable[[], None]
) -> None:
    app = make_app(tmp_path)
    chest = FlaskChestSQLite(app, tracked_vars=["number"])
    target = RecordingExporter()
    chest.add_exporter(target, interval=timedelta(days=1))

    assert not chest.work()
    no_threads()
    assert chest.work()

    app.test_client().get("/1")
    assert chest.flush()
    assert chest.run_exports()[0].error is None
    assert chest.close()


def test_what_others_left_is_stored_once_there_are_threads(
    tmp_path: Path, no_threads: Callable[[], None]
) -> None:
    former = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path, Path(__file__).parent], check=False, timeout=30
    )
    assert former.returncode == 7
    app = make_app(tmp_path)
    chest = FlaskChestSQLite(app, db_uri="db.sqlite3", scheduler="off")
    client = app.test_client()

    client.get("/unknown")
    no_threads()

    assert eventually(lambda: client.get("/unknown").status_code == 404 and chest.stats().stored == 1)
    assert chest.close()
