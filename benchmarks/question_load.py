"""A thread of the app asks about all records, again and again, within a limit: how long do its requests take.

The percentiles of each route are asked for, of as many records as there are. Requests append to the journal and
wait for no answer; what may hurt them is Python's lock, and the processors that a database takes.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from benchmarks.engines import database_server
from benchmarks.finding import fill
from benchmarks.prune_load import ENGINES
from flask import Flask, g
from flask.testing import FlaskClient

from flask_chest import FlaskChest, Percentiles, QueryTimeout
from flask_chest.stores import store_from_uri

LIMIT = timedelta(seconds=2)
"""Time limit of a question, as the viewer's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    requests: Sequence[float]
    """Seconds of each request."""
    answered: int
    ended: int
    """Questions that ran into their limit."""
    longest: float
    """Seconds that the longest question took."""


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="question_load")
    parser.add_argument("--records", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S")
    parser.add_argument("--engines", nargs="*", default=ENGINES, choices=ENGINES)
    parser.add_argument("--small", action="store_true", help="2000 records, for half a second")
    options = parser.parse_args(argv)
    records, seconds = (2_000, 0.5) if options.small else (options.records, options.seconds)
    figures: dict[str, float] = {"records": records}
    for engine in options.engines:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            uri = f"sqlite:///{folder}/chest.db"
            if engine != "sqlite":
                uri = stack.enter_context(database_server(engine)).uri
            alone, beside = measure(uri, folder, records, seconds)
        print(
            f"{engine:10} p99 of requests {percentile(alone.requests) * 1e3:.2f} ms, beside questions "
            f"{percentile(beside.requests) * 1e3:.2f} ms: {beside.answered} answered, {beside.ended} ended at "
            f"their limit of {LIMIT.total_seconds():.0f} s, the longest after {beside.longest:.2f} s",
            flush=True,
        )
        figures |= {
            f"{engine}_p99_alone_ms": percentile(alone.requests) * 1e3,
            f"{engine}_p99_beside_ms": percentile(beside.requests) * 1e3,
            f"{engine}_answered": beside.answered,
            f"{engine}_ended": beside.ended,
            f"{engine}_longest_s": beside.longest,
        }
    return figures


def measure(uri: str, folder: Path, records: int, seconds: float) -> tuple[Outcome, Outcome]:
    """Return how requests fared alone, and beside a thread that asks."""
    make = store_from_uri(uri, root=folder)
    with closing(make()) as store:
        store.open()
        fill(store, records)
    app = Flask("asked")
    chest = FlaskChest(app, store=make, journal_dir=folder / "journal", scheduler="off", tracked_vars=["user_id"])

    @app.route("/<int:visit>")
    def page(visit: int) -> str:
        g.user_id = visit % 100
        return "hi"

    with closing(chest):
        client = app.test_client()
        serve(client, seconds / 10)
        alone = Outcome(requests=serve(client, seconds), answered=0, ended=0, longest=0.0)
        with app.app_context():
            return alone, beside_questions(chest, lambda: serve(client, seconds))


def beside_questions(chest: FlaskChest, serve_requests: Callable[[], Sequence[float]]) -> Outcome:
    done = threading.Event()
    took: list[float] = []
    ended = 0

    def ask() -> None:
        nonlocal ended
        while not done.is_set():
            began = time.monotonic()
            try:
                chest.aggregate(Percentiles("duration", 50, 95, 99), by="route", timeout=LIMIT)
            except QueryTimeout:
                ended += 1
            took.append(time.monotonic() - began)

    asker = threading.Thread(target=ask)
    asker.start()
    requests = serve_requests()
    done.set()
    asker.join()
    return Outcome(requests=requests, answered=len(took) - ended, ended=ended, longest=max(took))


def serve(client: FlaskClient, seconds: float) -> Sequence[float]:
    """Send requests for so long; return the seconds of each."""
    took: list[float] = []
    until = time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        client.get(f"/{len(took)}")
        took.append(time.monotonic() - began)
        time.sleep(0.001)  # else the two would measure who gets the processor
    return took


def percentile(seconds: Sequence[float]) -> float:
    return sorted(seconds)[(len(seconds) * 99 + 99) // 100 - 1]


if __name__ == "__main__":
    main()
