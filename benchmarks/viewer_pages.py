"""The viewer's pages over a month of requests: how long each takes, and what they cost the app's own requests.

The requests are those of the examples' shop, spread over the thirty days that end now, with ten times as many in
the afternoon as in the night. Of a million, the last day has 33,000, and the last hour 250 when it is 03:00 UTC
and 2,500 when it is 15:00; how many it had is among the figures. A page's time is that from the request to its
last byte, in one process without a network. Then a thread loads these pages again and again beside requests of
the app, which append to the journal and wait for no answer.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path

from benchmarks.engines import database_server
from benchmarks.question_load import percentile, serve
from benchmarks.sqlite_write import BATCH
from examples.busy_shop import Visit, requests
from flask import Flask, g
from flask.testing import FlaskClient

from flask_chest import Count, FlaskChest
from flask_chest.protocols import Store, VariableIndexes
from flask_chest.stores import store_from_uri
from flask_chest.viewer import viewer

ENGINES = ("sqlite", "postgresql", "mysql", "mariadb")
DAYS = 30
MONTH = "overview of the month"


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="viewer_pages")
    parser.add_argument("--records", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--loads", type=int, default=50, metavar="N", help="of each page")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of requests, ten times")
    parser.add_argument("--engines", nargs="*", default=ENGINES[:2], choices=ENGINES)
    parser.add_argument("--small", action="store_true", help="2000 records, each page twice")
    options = parser.parse_args(argv)
    records, loads, seconds = options.records, options.loads, options.seconds
    if options.small:
        records, loads, seconds = 2_000, 2, 0.2
    figures: dict[str, float] = {"records": records}
    for engine in options.engines:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            uri = f"sqlite:///{folder}/chest.db"
            if engine != "sqlite":
                uri = stack.enter_context(database_server(engine)).uri
            make = store_from_uri(uri, root=folder)
            with closing(make()) as store:
                fill(store, records)
            found = measure(engine, make, folder, loads, seconds)
        figures |= {f"{engine}_{what}": figure for what, figure in found.items()}
    return figures


def fill(store: Store, records: int) -> None:
    """Write a month of the shop's requests, and make the indexes that it declares."""
    assert isinstance(store, VariableIndexes)
    store.open()
    made_up = requests(records, datetime.now(UTC), days=DAYS)
    while batch := list(islice(made_up, BATCH)):
        store.write(batch)
    for name in ("user_id", "plan"):
        store.add_index(name)


def measure(
    engine: str, make: Callable[[], Store], folder: Path, loads: int, seconds: float
) -> Mapping[str, float]:
    """Measure the pages of a chest whose store *make* returns, and the requests of its app beside them."""
    app = Flask("shop")
    chest = FlaskChest(app, store=make, journal_dir=folder / "journal", scheduler="off", tracked_vars=Visit)
    app.register_blueprint(viewer(chest, allow=lambda: True))

    @app.route("/<int:visit>")
    def page(visit: int) -> str:
        g.user_id = visit % 100
        return "hi"

    with closing(chest):
        client = app.test_client()
        with app.app_context():
            pages = addresses(chest)
            held = {f"{what}_records": newest(chest, hours) for what, hours in (("hour", 1), ("day", 24))}
        hour, day = held.values()
        print(f"{engine:10} records: {hour:,} of the last hour, {day:,} of the last day", flush=True)
        figures = load(engine, client, pages, loads)
        ratio, alone, beside = beside_pages(client, list(pages.values()), seconds)
    print(
        f"{engine:10} p99 of requests {alone * 1e3:.2f} ms, beside pages {beside * 1e3:.2f}: {ratio:.2f} times",
        flush=True,
    )
    return {**held, **figures, "p99_alone_ms": alone * 1e3, "p99_beside_ms": beside * 1e3, "p99_ratio": ratio}


def newest(chest: FlaskChest, hours: int) -> int:
    """Return how many records there are of the last *hours*."""
    return chest.aggregate(Count(), since=datetime.now(UTC) - timedelta(hours=hours), timeout=None).all.records


def addresses(chest: FlaskChest) -> Mapping[str, str]:
    """Return the addresses of the pages that are loaded, of what is found in the chest."""
    newest = chest.query(errors=True, limit=1)[0]
    return {
        "overview of the hour": "/chest/?since=1h",
        "overview of the day": "/chest/?since=24h",
        "overview of a route and plan": "/chest/?since=24h&route=/search&where=plan%3Dteam",
        "records of a route and plan": "/chest/records?route=/search&where=plan%3Dteam&since=7d",
        "one record": f"/chest/records/{newest.id}",
        "timeline of a user": f"/chest/timeline?user_id={newest.variables['user_id']}",
        MONTH: "/chest/?since=30d",
    }


def load(engine: str, client: FlaskClient, pages: Mapping[str, str], loads: int) -> Mapping[str, float]:
    """Load all *pages* in turn; print and give their times."""
    took: dict[str, list[float]] = {name: [] for name in pages}
    left_out: dict[str, list[str]] = {name: [] for name in pages}
    for number in range(loads):
        for name, address in pages.items():
            if name == MONTH and number % 5:  # which takes longer than all others together
                continue
            began = time.perf_counter()
            response = client.get(address)
            took[name].append(time.perf_counter() - began)
            assert response.status_code == 200, response.text
            if "Left out, since" in response.text:
                left_out[name].append(response.text.partition("of a page: ")[2].partition(".")[0])
    figures: dict[str, float] = {}
    for name, times in took.items():
        median, worst = statistics.median(times) * 1e3, max(times) * 1e3
        less = left_out[name]
        note = f"; {len(less)} of {len(times)} times without {less[0]}" if less else ""
        print(
            f"{engine:10} {name:30} {median:6.0f} ms, {min(times) * 1e3:.0f} to {worst:.0f}{note}",
            flush=True,
        )
        figures |= {
            f"{name}_ms": median,
            f"{name}_best_ms": min(times) * 1e3,
            f"{name}_worst_ms": worst,
            f"{name}_left_out": len(less),
        }
    return figures


def beside_pages(
    client: FlaskClient, pages: Sequence[str], seconds: float, rounds: int = 5
) -> tuple[float, float, float]:
    """Return the p99 of requests beside pages by that without, and both: medians of *rounds* in turn."""
    serve(client, seconds / 10)
    alone: list[float] = []
    beside: list[float] = []
    for _ in range(rounds):
        alone.append(percentile(serve(client, seconds)))
        done = threading.Event()
        reader = threading.Thread(target=_load_until, args=(client.application.test_client(), pages, done))
        reader.start()
        beside.append(percentile(serve(client, seconds)))
        done.set()
        reader.join()
    ratio = statistics.median(ours / theirs for theirs, ours in zip(alone, beside, strict=True))
    return ratio, statistics.median(alone), statistics.median(beside)


def _load_until(client: FlaskClient, pages: Sequence[str], done: threading.Event) -> None:
    for address in cycle(pages):
        if done.is_set():
            return
        assert client.get(address).status_code == 200


if __name__ == "__main__":
    main(sys.argv[1:])
