"""Under servers that fork a process for each connection, and end it by ``os._exit``, all is stored as well."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")

APP = """
import os
import sys
from flask import Flask, g, stream_with_context
from flask_chest import FlaskChestSQLite

app = Flask("shop", root_path=sys.argv[1], instance_path=sys.argv[1])
FlaskChestSQLite(app, db_uri="chest.db", journal_dir="journal", tracked_vars=["number"])

@app.route("/<int:number>")
def view(number):
    g.number = number
    return str(os.getpid())

@app.route("/streamed/<int:number>")
def streamed(number):
    def chunks():
        yield str(os.getpid())
        g.number = number
    g.number = -1
    return app.response_class(stream_with_context(chunks()))

@app.route("/failing/<int:number>")
def failing(number):
    g.number = number
    raise RuntimeError
"""
FLASKS = """
app.test_client().get("/0")
app.run(port=int(sys.argv[2]), processes=2, threaded=False)
"""
STANDARD = """
from socketserver import ForkingMixIn
from wsgiref.simple_server import WSGIServer, make_server

class Server(ForkingMixIn, WSGIServer):
    pass

app.test_client().get("/0")
make_server("127.0.0.1", int(sys.argv[2]), app, server_class=Server).serve_forever()
"""
PATIENCE = 20.0


@contextmanager
def serving(code: str, folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("FLASK_")}
    with subprocess.Popen(
        [sys.executable, "-c", APP + code, str(folder), str(port)], env=environ, stderr=subprocess.DEVNULL
    ) as server:
        try:
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline and server.poll() is None:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.02)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


def visit(address: str) -> str:
    try:
        with urlopen(address, timeout=PATIENCE) as answer:
            body: bytes = answer.read()
            return body.decode()
    except HTTPError as error:
        error.close()
        return "failed"


def stored(folder: Path) -> list[int]:
    with closing(sqlite3.connect(folder / "chest.db")) as connection:
        query = "SELECT json_extract(variables, '$.number') FROM flask_chest"
        return sorted(number for (number,) in connection.execute(query))


def eventually(folder: Path, expected: list[int]) -> list[int]:
    deadline = time.monotonic() + PATIENCE
    found: list[int] = []
    while found != expected and time.monotonic() < deadline:
        with suppress(sqlite3.OperationalError):
            found = stored(folder)
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("server", [FLASKS, STANDARD], ids=["flask", "wsgiref"])
def test_server_that_forks_for_each_request_stores_while_it_runs(server: str, tmp_path: Path) -> None:
    with serving(server, tmp_path) as address:
        pids = {visit(f"{address}/{number}") for number in range(1, 6)}
        pids.add(visit(f"{address}/streamed/6"))
        assert visit(f"{address}/failing/7") == "failed"
        assert len(pids) == 6
        assert eventually(tmp_path, list(range(8))) == list(range(8))
        segments = list(tmp_path.glob("journal/*/*.journal"))
    assert len(segments) <= 1  # that of the parent
