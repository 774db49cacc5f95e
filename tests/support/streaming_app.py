"""An app whose responses take a while, for real servers: it measures itself how long."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.visits import FOLDER, Site
from flask import Flask, Response, g, stream_with_context

from flask_chest import FlaskChestSQLite

SECONDS = 1.0


def serve() -> Flask:
    site = Site(Path(os.environ[FOLDER]))
    app = Flask("streams")
    FlaskChestSQLite(
        app, db_uri=site.database, journal_dir=site.journal, tracked_vars=["visit", "sent", "took_ns"]
    )

    @app.route("/slow/<visit>")
    def slow(visit: str) -> Response:
        began = time.perf_counter_ns()
        g.visit, g.sent = visit, 0

        def body() -> Iterator[bytes]:
            for _ in range(4):
                threading.Event().wait(SECONDS / 4)
                g.sent += 1
                yield b"x"
            g.took_ns = time.perf_counter_ns() - began

        return Response(stream_with_context(body()))

    @app.route("/endless/<visit>")
    def endless(visit: str) -> Response:
        g.visit, g.sent = visit, 0

        def body() -> Iterator[bytes]:
            while True:
                g.sent += 1
                yield b"x" * 100_000

        return Response(stream_with_context(body()))

    return app
