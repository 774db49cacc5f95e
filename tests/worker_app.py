"""An app whose records a worker stores and delivers: ``flask --app worker_app:make chest worker``."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from flask import Flask, g

from flask_chest import FlaskChestSQLite
from flask_chest.exporters.store import StoreExporter
from flask_chest.stores.sqlite import SQLiteStore

FOLDER = "WORKER_FOLDER"
BATCH = 50


def make(folder: Path | None = None) -> Flask:
    folder = folder or Path(os.environ[FOLDER])
    app = Flask("worked")
    app.config |= {"CHEST_WRITER": "off", "CHEST_SCHEDULER": "off", "CHEST_JOURNAL_DIR": str(folder / "journal")}
    chest = FlaskChestSQLite(app, db_uri=source(folder), tracked_vars=["visit"])
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
