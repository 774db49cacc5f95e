"""Requests a second of a gunicorn app with two workers, without a chest and with one, in turn.

The app is the README's, without its pause: a decorated view with three variables, kept in SQLite. Both servers
run all the time, and only the one that is measured is asked. The time in which the writer stores the last of a
round's records is part of its round, which is long, so that the quarter of a second in which the writer waits for
company counts little. The clients are processes that do nothing but wait for answers; what they
take of the machine's time is shown, since without them the servers would have it.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path

from benchmarks.web_servers import gunicorn, serving, wait_until
from flask import Flask, g

from flask_chest import FlaskChestSQLite, Store
from flask_chest.decorator import flask_chest
from flask_chest.stores.sqlite import SQLiteStore

FOLDER = "RATE_FOLDER"
DATABASE = "rate.db"
WORKERS = 2
CLIENTS = 4
WARM_UP_SECONDS = 0.3
KINDS: Mapping[str, Sequence[str]] = {
    "sync": ["--worker-class=sync"],
    "gthread": ["--worker-class=gthread", "--threads=2"],
    "gevent": ["--worker-class=gevent"],
}
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def bare() -> Flask:
    app = Flask("rate")

    @app.route("/", methods=["GET", "POST"])
    @flask_chest(tracked_vars={"GET": ["user_id", "session_id", "total_time"], "POST": ["user_id", "data"]})
    def index() -> str:
        begin = time.perf_counter()
        g.user_id = "123"
        g.session_id = "abc"
        g.total_time = time.perf_counter() - begin
        return "Hello, World!"

    return app


def with_chest() -> Flask:
    app = bare()
    folder = Path(os.environ[FOLDER])
    app.config["CHEST_JOURNAL_DIR"] = str(folder / "journal")
    FlaskChestSQLite(app, db_uri=folder / DATABASE)
    return app


@dataclass(frozen=True, slots=True)
class Burst:
    """What clients got out of a server in some time."""

    answered: int
    seconds: float
    client_seconds: float
    """How long the clients computed."""

    @property
    def rate(self) -> float:
        return self.answered / self.seconds


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="gunicorn_rate")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of each half of a round")
    parser.add_argument("--small", action="store_true", help="as --rounds 3 --seconds 0.5")
    options = parser.parse_args(argv)
    rounds, seconds = (3, 0.5) if options.small else (options.rounds, options.seconds)
    figures: dict[str, float] = {"rounds": rounds, "seconds": seconds}
    # Not forked: the thread that reads a server's log would be amidst something.
    with multiprocessing.get_context("spawn").Pool(CLIENTS) as clients:
        for kind, options_of_kind in KINDS.items():
            figures |= compare(kind, options_of_kind, clients, rounds=rounds, seconds=seconds)
    return figures


def compare(
    kind: str, options: Sequence[str], clients: Pool, *, rounds: int, seconds: float
) -> Mapping[str, float]:
    """Measure both apps in turn under one kind of worker; print and give the medians."""
    without, recorded = measure(options, clients, rounds=rounds, seconds=seconds)
    ratio = statistics.median(ours.rate / theirs.rate for theirs, ours in zip(without, recorded, strict=True))
    bare_rate = statistics.median(each.rate for each in without)
    rate = statistics.median(each.rate for each in recorded)
    share = sum(each.client_seconds for each in without) / sum(each.seconds for each in without)
    print(f"{kind:8} without {bare_rate:6.0f} requests/s, with {rate:6.0f}, {ratio:.2f} of it;", end=" ")
    print(f"the clients took {share:.2f} of {os.cpu_count()} CPUs")
    return {
        f"{kind}_bare_per_second": bare_rate,
        f"{kind}_chest_per_second": rate,
        f"{kind}_ratio": ratio,
        f"{kind}_client_cpus": share,
    }


def measure(
    options: Sequence[str], clients: Pool, *, rounds: int, seconds: float
) -> tuple[list[Burst], list[Burst]]:
    """Give what was measured in each round, without a chest and with one."""
    without: list[Burst] = []
    recorded: list[Burst] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chest-")))
        store = stack.enter_context(contextlib.closing(SQLiteStore(folder / DATABASE)))
        store.open()
        bare_app = stack.enter_context(running("bare", folder, options))
        app = stack.enter_context(running("with_chest", folder, options))
        burst(clients, bare_app, seconds=WARM_UP_SECONDS)
        stored_burst(clients, app, store, seconds=WARM_UP_SECONDS)
        for number in range(rounds):
            if number % 2:
                recorded.append(stored_burst(clients, app, store, seconds=seconds))
            without.append(burst(clients, bare_app, seconds=seconds))
            if not number % 2:
                recorded.append(stored_burst(clients, app, store, seconds=seconds))
    return without, recorded


@contextlib.contextmanager
def running(app: str, folder: Path, options: Sequence[str]) -> Iterator[Path]:
    """Serve one of the apps; give the socket's path."""
    address = folder / app
    command = gunicorn(f"benchmarks.gunicorn_rate:{app}()", address, f"--workers={WORKERS}", *options)
    with serving(command, address=address, environ={FOLDER: str(folder)}):
        yield address


def burst(clients: Pool, address: Path, *, seconds: float) -> Burst:
    """Let all clients ask for *seconds*."""
    begin = time.perf_counter()
    results = clients.starmap(ask, [(str(address), seconds)] * CLIENTS, chunksize=1)
    took = time.perf_counter() - begin
    return Burst(sum(answered for answered, _ in results), took, sum(busy for _, busy in results))


def ask(address: str, seconds: float) -> tuple[int, float]:
    """Ask one time after another; count the answers and the time that it took this process to compute."""
    begin, busy, answered = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begin < seconds:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address)
            connection.sendall(REQUEST)
            answer = connection.recv(4096)
            while connection.recv(4096):
                pass
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"the server answered {answer!r}")
        answered += 1
    return answered, time.process_time() - busy


def stored_burst(clients: Pool, address: Path, store: Store, *, seconds: float) -> Burst:
    """Let all clients ask for *seconds*; what was answered in them counts for the time until all is stored."""
    before = store.status().records
    begin = time.perf_counter()
    asked = burst(clients, address, seconds=seconds)
    wait_until(lambda: store.status().records == before + asked.answered)
    return Burst(asked.answered, time.perf_counter() - begin, asked.client_seconds)


if __name__ == "__main__":
    main(sys.argv[1:])
