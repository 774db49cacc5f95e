"""An index is made by one process while an app in another writes: how long does who wait, is all there.

The app goes on serving requests until the index is there, and for as long before, which is what is usual. A
request appends to its journal and waits for no index; what may wait is the write of the app's writer.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from benchmarks.engines import database_server
from benchmarks.finding import fill_bare
from benchmarks.prune_load import ENGINES, PATIENCE, Watched
from benchmarks.web_servers import ROOT
from flask import Flask, g
from flask.testing import FlaskClient

from flask_chest import FlaskChest
from flask_chest.protocols import VariableIndexes
from flask_chest.stores import store_from_uri

_numbers = count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    made: float
    """Seconds that the index took, with the start of the process that made it."""
    served: int
    """Requests before and meanwhile."""
    kept: int
    """Records of these requests at the end."""
    faults: Mapping[str, int]
    lost: Mapping[str, int]
    usual_request: float
    """Seconds that the longest request took before."""
    longest_request: float
    """Seconds that the longest request took meanwhile."""
    usual_write: float
    longest_write: float


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="index_load")
    parser.add_argument("--records", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--engines", nargs="*", default=ENGINES, choices=ENGINES)
    parser.add_argument("--small", action="store_true", help="2000 records")
    parser.add_argument(
        "--filled", nargs=2, metavar=("URI", "NAME"), help="a store of the one engine that holds so many already"
    )
    options = parser.parse_args(argv)
    if options.filled and len(options.engines) != 1:
        parser.error("--filled is of one engine; name it by --engines")
    records = 2_000 if options.small else options.records
    figures: dict[str, float] = {"records": records}
    for engine in options.engines:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            if options.filled:
                uri, name = options.filled
            else:
                uri, name = f"sqlite:///{folder}/chest.db", f"indexed_{os.getpid()}_{next(_numbers)}"
                if engine != "sqlite":
                    uri = stack.enter_context(database_server(engine)).uri
                with closing(store_from_uri(uri, root=folder, name=name)()) as store:
                    store.open()
                    fill_bare(engine, uri, name, store, records)
            outcome = index_while_writing(uri, folder, name, records=records)
        print(
            f"{engine:10} index made in {outcome.made:.1f} s beside {outcome.served:,} requests; longest write "
            f"{outcome.usual_write * 1e3:.0f} ms before and {outcome.longest_write * 1e3:.0f} ms meanwhile, "
            f"longest request {outcome.usual_request * 1e3:.0f} and {outcome.longest_request * 1e3:.0f} ms; "
            f"faults {dict(outcome.faults)}, lost {dict(outcome.lost)}, "
            f"all there: {outcome.kept == outcome.served}",
            flush=True,
        )
        figures |= {
            f"{engine}_made_s": outcome.made,
            f"{engine}_served": outcome.served,
            f"{engine}_usual_write_ms": outcome.usual_write * 1e3,
            f"{engine}_longest_write_ms": outcome.longest_write * 1e3,
            f"{engine}_usual_request_ms": outcome.usual_request * 1e3,
            f"{engine}_longest_request_ms": outcome.longest_request * 1e3,
            f"{engine}_complete": outcome.kept == outcome.served and not outcome.lost,
        }
    return figures


def index_while_writing(uri: str, folder: Path, name: str, *, records: int) -> Outcome:
    """Make an index on the so many *records* of the store *name* at *uri* while an app writes."""
    watched = Watched(store_from_uri(uri, root=folder, name=name)())
    kept = watched.status().records
    app = Flask("busy")
    chest = FlaskChest(
        app, store=watched, journal_dir=folder / "journal", scheduler="off", tracked_vars=["visit", "user_id"]
    )

    @app.route("/<int:visit>")
    def page(visit: int) -> str:
        g.visit, g.user_id = visit, visit % 100
        return "hi"

    with closing(chest):
        client = app.test_client()
        began = time.monotonic()
        before, served = serve(client, 0, lambda: time.monotonic() - began < usual_seconds(records))
        assert chest.flush(PATIENCE)
        usual_write, watched.longest = watched.longest, 0.0
        making_began = time.monotonic()
        with start_making(uri, folder, name) as making:
            meanwhile, served = serve(client, served, lambda: making.poll() is None)
        made = time.monotonic() - making_began
        assert making.returncode == 0
        assert chest.flush(PATIENCE)
        stats = chest.stats()
        return Outcome(
            made=made,
            served=served,
            kept=watched.status().records - kept,
            faults=stats.faults,
            lost=stats.lost,
            usual_request=before,
            longest_request=meanwhile,
            usual_write=usual_write,
            longest_write=watched.longest,
        )


def usual_seconds(records: int) -> float:
    return max(1.0, min(10.0, records / 100_000))


def start_making(uri: str, folder: Path, name: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.index_load", uri, str(folder), name]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})


def serve(client: FlaskClient, served: int, go_on: Callable[[], bool]) -> tuple[float, int]:
    """Send requests while *go_on* says so; return the seconds of the longest, and their number."""
    longest = 0.0
    while go_on():
        began = time.monotonic()
        client.get(f"/{served}")
        longest = max(longest, time.monotonic() - began)
        served += 1
        time.sleep(0.001)  # else the two would measure who gets the processor
    return longest, served


def make(uri: str, folder: str, name: str) -> None:
    with closing(store_from_uri(uri, root=Path(folder), name=name)()) as store:
        assert isinstance(store, VariableIndexes)
        store.add_index("user_id")


if __name__ == "__main__":
    make(*sys.argv[1:])
