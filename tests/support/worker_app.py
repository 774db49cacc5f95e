"""An app whose records a worker stores and delivers: ``flask --app worker_app:make chest worker``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from benchmarks.web_servers import PATIENCE
from flask import Flask, g

from flask_chest import FlaskChest
from flask_chest.exporter.store import StoreExporter
from flask_chest.stores import store_from_uri
from flask_chest.stores.sqlite import SQLiteStore
from folders import PYTHONPATH

FOLDER, URI = "WORKER_FOLDER", "WORKER_URI"
BATCH = 50


def make(folder: Path | None = None, uri: str | None = None) -> Flask:
    folder = folder or Path(os.environ[FOLDER])
    uri = uri or os.environ.get(URI, f"sqlite:///{source(folder)}")
    app = Flask("worked")
    app.config |= {"CHEST_WRITER": "off", "CHEST_SCHEDULER": "off", "CHEST_JOURNAL_DIR": str(folder / "journal")}
    store = store_from_uri(uri, root=folder, name="worked")
    chest = FlaskChest(app, store=store, tracked_vars=["visit"])
    chest.add_exporter(
        lambda: StoreExporter(lambda: SQLiteStore(target(folder)), name="target"),
        name="target",
        interval=timedelta(milliseconds=50),
        batch_size=BATCH,
        lease=timedelta(milliseconds=500),
    )

    @app.route("/<int:visit>")
    def visit(visit: int) -> str:
        g.visit = visit
        return "hi"

    return app


def source(folder: Path) -> Path:
    return folder / "source.db"


def target(folder: Path) -> Path:
    return folder / "target.db"


@contextmanager
def working(folder: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Start a worker, and wait until it says that it works."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "worker_app:make", "chest", "worker"],
        env=os.environ | {"PYTHONPATH": PYTHONPATH, FOLDER: str(folder)} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "The worker stores what waits; exporters: target.\n"
            yield worker
        finally:
            worker.kill()


def ended(worker: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    worker.send_signal(number)
    output, _ = worker.communicate(timeout=PATIENCE)
    return worker.returncode, output
