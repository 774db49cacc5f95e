"""Half of a store is pruned by one process while an app in another writes: how long does who wait, is all there.

The older half of the records is older than the limit. The app goes on serving requests until the pruning ends.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.engines import database_server
from benchmarks.sqlite_write import BATCH, sample
from benchmarks.web_servers import ROOT, wait_until
from flask import Flask, g
from msgspec.structs import replace

from flask_chest import FlaskChest, StoreUnavailable
from flask_chest.background.retention import in_batches
from flask_chest.protocols import Retention, Store, StoreStatus
from flask_chest.record import Query, Record
from flask_chest.stores import store_from_uri

ENGINES = ("sqlite", "postgresql", "mysql", "mariadb", "mongodb", "documentdb")
DAY_NS = 24 * 3600 * 1_000_000_000
PATIENCE = 120.0
_numbers = count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    deleted: int
    """By the pruning."""
    served: int
    """Requests meanwhile."""
    left: int
    """Records at the end, those of the requests among them."""
    faults: Mapping[str, int]
    """Of the app's chest."""
    lost: Mapping[str, int]
    longest_batch: float
    """Seconds that the longest `prune` took: others may have waited for so long."""
    longest_write: float
    """Seconds that the longest `write` of the app's writer took."""


class Watched(Store):
    """A store whose longest write is measured."""

    def __init__(self, store: Store) -> None:
        self.inner = store
        self.longest = 0.0

    def open(self) -> None:
        self.inner.open()

    def write(self, records: Sequence[Record], /) -> None:
        began = time.monotonic()
        try:
            self.inner.write(records)
        finally:
            self.longest = max(self.longest, time.monotonic() - began)

    def query(self, query: Query, /, *, timeout: timedelta | None = None) -> Iterable[Record]:
        return self.inner.query(query, timeout=timeout)

    def status(self) -> StoreStatus:
        return self.inner.status()

    def close(self) -> None:
        self.inner.close()


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="prune_load")
    parser.add_argument("--records", type=int, default=2_000_000, metavar="N")
    parser.add_argument("--engines", nargs="*", default=ENGINES, choices=ENGINES)
    parser.add_argument("--small", action="store_true", help="2000 records")
    options = parser.parse_args(argv)
    records = 2_000 if options.small else options.records
    figures: dict[str, float] = {"records": records}
    for engine in options.engines:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            uri = f"sqlite:///{folder}/chest.db"
            if engine != "sqlite":
                uri = stack.enter_context(database_server(engine)).uri
            outcome = prune_while_writing(uri, folder, records=records)
        complete = outcome.left == records - outcome.deleted + outcome.served
        print(
            f"{engine:10} {outcome.deleted:,} deleted while {outcome.served:,} requests were served; longest "
            f"batch {outcome.longest_batch * 1e3:.0f} ms, longest write {outcome.longest_write * 1e3:.0f} ms; "
            f"faults {dict(outcome.faults)}, lost {dict(outcome.lost)}, all there: {complete}"
        )
        figures |= {
            f"{engine}_deleted": outcome.deleted,
            f"{engine}_served": outcome.served,
            f"{engine}_longest_batch_ms": outcome.longest_batch * 1e3,
            f"{engine}_longest_write_ms": outcome.longest_write * 1e3,
            f"{engine}_faults": sum(outcome.faults.values()) + sum(outcome.lost.values()),
            f"{engine}_complete": complete,
        }
    return figures


def prune_while_writing(uri: str, folder: Path, *, records: int) -> Outcome:
    """Fill the store at *uri* with so many *records*, half of them old, and prune those while an app writes."""
    name = f"pruned_{os.getpid()}_{next(_numbers)}"
    with closing(store_from_uri(uri, root=folder, name=name)()) as store:
        store.open()
        fill(store, records)
    watched = Watched(store_from_uri(uri, root=folder, name=name)())
    app = Flask("busy")
    chest = FlaskChest(
        app, store=watched, journal_dir=folder / "journal", scheduler="off", tracked_vars=["visit"]
    )

    @app.route("/<int:visit>")
    def page(visit: int) -> str:
        g.visit = visit
        return "hi"

    with closing(chest):
        client = app.test_client()
        client.get("/0")
        served = 1
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.prune_load", uri, str(folder), name],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ) as pruning:
            while pruning.poll() is None:
                client.get(f"/{served}")
                served += 1
                time.sleep(0.001)  # else the two would measure who gets the processor
            assert pruning.stdout is not None
            told = json.loads(pruning.stdout.read())
        assert chest.flush(PATIENCE)
        stats = chest.stats()
        return Outcome(
            deleted=told["deleted"],
            served=served,
            left=watched.status().records,
            faults=stats.faults,
            lost=stats.lost,
            longest_batch=told["longest"],
            longest_write=watched.longest,
        )


def fill(store: Store, records: int) -> None:
    """Write *records*, the first half from two days ago on and the second from half a day ago on."""
    now = time.time_ns()
    pause = DAY_NS // 2 // records
    for first in range(0, records, BATCH):
        begin = now - (2 * DAY_NS if first < records // 2 else DAY_NS // 2)
        numbers = range(first, min(first + BATCH, records))
        batch = [replace(sample(), time_unix_nano=begin + number * pause) for number in numbers]
        wait_until(partial(is_kept, store, batch), seconds=PATIENCE)


def is_kept(store: Store, batch: Sequence[Record]) -> bool:
    """Write *batch*, perhaps once more; False where an engine does not answer while it puts much on its disk."""
    try:
        store.write(batch)
    except StoreUnavailable:
        return False
    return True


def prune(uri: str, folder: str, name: str) -> None:
    longest = 0.0
    with closing(store_from_uri(uri, root=Path(folder), name=name)()) as store:
        assert isinstance(store, Retention)
        prune_batch = store.prune

        def timed(*arguments: int, **options: int) -> int:
            nonlocal longest
            began = time.monotonic()
            try:
                return prune_batch(*arguments, **options)  # type: ignore[arg-type]  # passed on as they are
            finally:
                longest = max(longest, time.monotonic() - began)

        store.prune = timed  # type: ignore[method-assign]  # to measure each call
        deleted = sum(in_batches(store, time.time_ns() - DAY_NS, keep_unexported=True, go_on=lambda: True))
    print(json.dumps({"deleted": deleted, "longest": longest}))


if __name__ == "__main__":
    prune(*sys.argv[1:])
