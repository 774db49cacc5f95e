"""200 clients reload the viewer's overview: how long does the app's own route take, and who gets which answer.

In turn, as many reload a page of the app's own that is as long and asks nothing, since what 200 clients do to
a server of eight threads is not the viewer's doing. The server is gunicorn, two workers of four threads.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from benchmarks.question_load import percentile
from benchmarks.sqlite_write import BATCH
from benchmarks.web_servers import UnixHTTPConnection, gunicorn, serving
from examples.busy_shop import Visit, requests
from flask import Flask, Response, g, request

from flask_chest import FlaskChest, Record
from flask_chest.aggregates import AggregateQuery, Answer
from flask_chest.record import Query
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.viewer import viewer

FOLDER = "LOAD_FOLDER"
DATABASE = "load.db"
TWO_AT_ONCE = "two-at-once"
"""Name of the file that is there if a process ever asked two questions at a time."""
VIEWER, SAME = "/chest/?since=24h", "/same"
WORKERS = 2
OPTIONS = (f"--workers={WORKERS}", "--worker-class=gthread", "--threads=4")
PAUSE_SECONDS = 0.002


class Watched(SQLiteStore):
    """Notes whether two questions are asked at a time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / DATABASE)
        self._asking = threading.Lock()
        self._noted = folder / TWO_AT_ONCE

    def query(self, query: Query, /, *, timeout: timedelta | None = None) -> Iterator[Record]:
        with self._alone():
            yield from super().query(query, timeout=timeout)

    def aggregate(self, query: AggregateQuery, /, *, timeout: timedelta | None = None) -> Answer:
        with self._alone():
            return super().aggregate(query, timeout=timeout)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        is_alone = self._asking.acquire(blocking=False)
        if not is_alone:
            self._noted.touch()
        try:
            yield
        finally:
            if is_alone:
                self._asking.release()


def make_app() -> Flask:
    """Return the app that gunicorn serves."""
    app, _ = make_app_and_chest()
    return app


def make_app_and_chest() -> tuple[Flask, FlaskChest]:
    """Return an app with a viewer, each of whose responses says how long it took in the app."""
    folder = Path(os.environ[FOLDER])
    app = Flask("shop")
    chest = FlaskChest(
        app, store=lambda: Watched(folder), journal_dir=folder / "journal", scheduler="off", tracked_vars=Visit
    )
    app.register_blueprint(viewer(chest, allow=lambda: True))
    page = "x" * int((folder / "size").read_text())

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Took"] = f"{time.perf_counter() - g.began:.6f}"
        return response

    @app.get("/own")
    def own() -> str:
        g.user_id = int(request.args.get("user", 7))
        return "hi"

    @app.get(SAME)
    def same() -> str:
        return page

    return app, chest


@dataclass(slots=True)
class Got:
    """What the clients got."""

    statuses: Counter[int] = field(default_factory=Counter)
    last_pages: int = 0
    """Pages that were made before."""
    busy: list[float] = field(default_factory=list)
    """Seconds that the app took for each of these, and for each 503."""


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="viewer_load")
    parser.add_argument("--records", type=int, default=60_000, metavar="N")
    parser.add_argument("--clients", type=int, default=200, metavar="N")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of each half of a round")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--small", action="store_true", help="2000 records, 20 clients, one short round")
    options = parser.parse_args(argv)
    records, clients, seconds, rounds = options.records, options.clients, options.seconds, options.rounds
    if options.small:
        records, clients, seconds, rounds = 2_000, 20, 4.0, 1
    with tempfile.TemporaryDirectory(prefix="chest-") as name:
        return measure(Path(name), records, clients, seconds, rounds)


def measure(folder: Path, records: int, clients: int, seconds: float, rounds: int) -> Mapping[str, float]:
    store = Watched(folder)
    store.open()
    made_up = requests(records, datetime.now(UTC))
    while batch := list(islice(made_up, BATCH)):
        store.write(batch)
    store.close()
    (folder / "size").write_text("1")
    os.environ[FOLDER] = str(folder)
    app, chest = make_app_and_chest()
    with closing(chest):
        size = len(app.test_client().get(VIEWER).data)
    (folder / "size").write_text(str(size))
    address = folder / "socket"
    own: dict[str, list[float]] = {VIEWER: [], SAME: []}
    seen = Got()
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=context) as pool,
        serving(
            gunicorn("benchmarks.viewer_load:make_app()", address, *OPTIONS),
            address=address,
            environ={FOLDER: str(folder)},
        ),
    ):
        for path in (VIEWER, SAME):  # both workers make all that they make at first
            pool.submit(reload, str(address), path, WORKERS * 4, 1.0).result()
        for number in range(rounds):
            for path in (VIEWER, SAME) if number % 2 else (SAME, VIEWER):
                reloading = pool.submit(reload, str(address), path, clients, seconds)
                own[path].append(percentile(ask_own(address, seconds)))
                got = reloading.result()
                if path == VIEWER:
                    seen.statuses += got.statuses
                    seen.last_pages += got.last_pages
                    seen.busy += got.busy
    assert not (folder / TWO_AT_ONCE).exists(), "two questions were asked at a time"
    assert set(seen.statuses) <= {200, 503}, seen.statuses
    ratio = statistics.median(ours / theirs for ours, theirs in zip(own[VIEWER], own[SAME], strict=True))
    p99, p99_same = statistics.median(own[VIEWER]) * 1e3, statistics.median(own[SAME]) * 1e3
    busy = percentile(seen.busy) * 1e3 if seen.busy else 0.0
    fresh = seen.statuses[200] - seen.last_pages
    print(
        f"{clients} clients, a page of {size / 1e3:.0f} kB: p99 of the app's own route {p99:.0f} ms, beside a "
        f"page of the app {p99_same:.0f} ms, {ratio:.2f} times\n"
        f"made {fresh:,} times, the last page {seen.last_pages:,} times, 503 {seen.statuses[503]:,} times; "
        f"p99 of the latter two within the app {busy:.1f} ms; never two questions at a time",
        flush=True,
    )
    return {
        "page_bytes": size,
        "p99_ms": p99,
        "p99_same_size_ms": p99_same,
        "p99_ratio": ratio,
        "made": fresh,
        "last_pages": seen.last_pages,
        "refused": seen.statuses[503],
        "busy_p99_ms": busy,
    }


def ask_own(address: Path, seconds: float) -> Sequence[float]:
    """Ask the app's own route, one request after another; return the seconds of each."""
    took: list[float] = []
    until = time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        with contextlib.closing(UnixHTTPConnection(address)) as connection:
            connection.request("GET", "/own", headers={"Connection": "close"})
            assert connection.getresponse().read() == b"hi"
        took.append(time.monotonic() - began)
        time.sleep(PAUSE_SECONDS)
    return took


def reload(address: str, path: str, clients: int, seconds: float) -> Got:
    """Let as many clients load *path* again and again."""
    got = Got()
    asyncio.run(_reload(address, path, clients, time.monotonic() + seconds, got))
    return got


async def _reload(address: str, path: str, clients: int, until: float, got: Got) -> None:
    async def client() -> None:
        while time.monotonic() < until:
            reader, writer = await asyncio.open_unix_connection(address)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
            lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
            status = int(lines[0].split()[1])
            headers = dict(line.lower().split(": ", 1) for line in lines[1:])
            got.statuses[status] += 1
            got.last_pages += "age" in headers
            if "age" in headers or status == 503:
                got.busy.append(float(headers["x-took"]))

    await asyncio.gather(*(client() for _ in range(clients)))


if __name__ == "__main__":
    main(sys.argv[1:])
