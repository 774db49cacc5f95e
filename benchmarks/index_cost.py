"""What each built-in index costs a write: tables that lack one, or have another one, beside those of the release.

All tables get the same batches in turn, so that what the machine's neighbours do meets all alike.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeAlias

import msgspec
import psycopg
from benchmarks.engines import database_server
from benchmarks.sqlite_write import BATCH, sample

from flask_chest.protocols import Store
from flask_chest.record import Record
from flask_chest.stores.postgresql import PostgreSQLStore
from flask_chest.stores.sqlite import SQLiteStore

Opened: TypeAlias = Iterator[Mapping[str, Store]]

RELEASE = "as released"
INDEXES = ("time", "request", "trace", "route", "status", "errors")
ORDERED = "request ids in order"
_DROP = {name: f'DROP INDEX "{{name}}_{name}"' for name in INDEXES}
VARIANTS: Mapping[str, Sequence[str]] = {
    RELEASE: [],
    **{f"without {name}": [drop] for name, drop in _DROP.items()},
    "with none": list(_DROP.values()),
    ORDERED: [],
}
"""Name of a table → what is done to it before it gets records."""
OTHERS: Mapping[str, Sequence[str]] = {
    RELEASE: [],
    "status whole": [
        _DROP["status"],
        'CREATE INDEX "{name}_status" ON "{name}" (status_code, time_unix_nano, id)',
    ],
    "without record ids": [
        *(_DROP[name] for name in ("time", "route", "status")),
        'CREATE INDEX "{name}_time" ON "{name}" (time_unix_nano)',
        'CREATE INDEX "{name}_route" ON "{name}" (route, time_unix_nano)',
        'CREATE INDEX "{name}_status" ON "{name}" (status_code, time_unix_nano) WHERE status_code <> 200',
    ],
}
"""Indexes that were weighed and are not there."""


def sqlite_indexes(argv: Sequence[str] = ()) -> Mapping[str, float]:
    return measure("sqlite_indexes", sqlite_stores, argv)


def postgresql_indexes(argv: Sequence[str] = ()) -> Mapping[str, float]:
    return measure("postgresql_indexes", postgresql_stores, argv)


def measure(
    name: str,
    opened: Callable[[Mapping[str, Sequence[str]]], Opened],
    argv: Sequence[str],
) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--records", type=int, default=300_000, metavar="N", help="in each table")
    parser.add_argument("--others", action="store_true", help="with indexes that are not there")
    parser.add_argument("--small", action="store_true", help="as --records 10000")
    options = parser.parse_args(argv)
    batches = (10_000 if options.small else options.records) // BATCH
    variants = OTHERS if options.others else VARIANTS
    with contextmanager(opened)(variants) as stores:
        times = fill(stores, batches)
    figures: dict[str, float] = {"records": batches * BATCH}
    half = batches // 2
    for variant, seconds in times.items():
        us = statistics.fmean(seconds[half:]) / BATCH * 1e6
        # Batch by batch, as both had the same neighbours.
        pairs = zip(seconds[half:], times[RELEASE][half:], strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        total = sum(seconds) / sum(times[RELEASE])
        print(f"{variant:24} {us:6.1f} µs a record in the second half, {ratio:.2f}; in all {total:.2f}")
        figures |= {f"{variant}_us": us, f"{variant}_ratio": ratio, f"{variant}_total": total}
    return figures


def fill(stores: Mapping[str, Store], batches: int) -> Mapping[str, list[float]]:
    """Write *batches* into each table, in turn; give the seconds that each took."""
    times: dict[str, list[float]] = {name: [] for name in stores}
    order = list(stores)
    for _ in range(batches):
        records = [varied() for _ in range(BATCH)]
        random.shuffle(order)
        for name in order:
            batch = in_order(records) if name == ORDERED else records
            begin = time.perf_counter()
            stores[name].write(batch)
            times[name].append(time.perf_counter() - begin)
    return times


def varied() -> Record:
    """Make a record of one of 30 routes, of which one in a hundred fails."""
    return msgspec.structs.replace(
        sample(),
        route=f"/users/<int:id>/{random.randrange(30)}",
        status_code=random.choice([301, 404, 500]) if random.random() < 0.01 else 200,
        trace_id=f"{random.getrandbits(128):032x}",
    )


def in_order(records: Sequence[Record]) -> Sequence[Record]:
    return [msgspec.structs.replace(record, request_id=record.id) for record in records]


def sqlite_stores(variants: Mapping[str, Sequence[str]]) -> Opened:
    with tempfile.TemporaryDirectory(prefix="chest-") as folder, ExitStack() as stack:
        stores: dict[str, Store] = {}
        for number, (variant, statements) in enumerate(variants.items()):
            path = Path(folder) / f"{number}.db"
            stores[variant] = store = stack.enter_context(closing(SQLiteStore(path)))
            store.open()
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                for statement in statements:
                    connection.execute(statement.format(name="flask_chest"))
        yield stores


def postgresql_stores(variants: Mapping[str, Sequence[str]]) -> Opened:
    with database_server("postgresql") as server, ExitStack() as stack:
        stores: dict[str, Store] = {}
        for number, (variant, statements) in enumerate(variants.items()):
            name = f"chest{number}"
            stores[variant] = store = stack.enter_context(closing(PostgreSQLStore(server.uri, name=name)))
            store.open()
            with psycopg.connect(server.uri, autocommit=True) as connection:
                for statement in statements:
                    connection.execute(statement.format(name=name).encode())
        yield stores


if __name__ == "__main__":
    sqlite_indexes(sys.argv[1:])
