"""``SQLiteStore.write`` against a bare ``executemany`` of ready-made rows into the same tables, in turn."""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from flask_chest.record import Record
from flask_chest.stores._records import storable_rows
from flask_chest.stores.sql.tables import COLUMNS, SQLValue
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.stores.sqlite.connections import LOG_PAGES
from flask_chest.testing.records import make_record

T = TypeVar("T")

BATCH = 1_000
ROUNDS = 10
INSERT = f"INSERT INTO flask_chest ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="sqlite_write")
    parser.add_argument("--records", type=int, default=100_000, metavar="N")
    parser.add_argument("--small", action="store_true", help="as --records 10000")
    options = parser.parse_args(argv)
    records = 10_000 if options.small else options.records
    with tempfile.TemporaryDirectory() as folder:
        bare_rates, store_rates = compare(Path(folder), max(1, records // ROUNDS // BATCH))
    bare, store = statistics.median(bare_rates), statistics.median(store_rates)
    # Of the two halves of a round, which had the same neighbours on the machine.
    ratio = statistics.median(ours / theirs for theirs, ours in zip(bare_rates, store_rates, strict=True))
    print(f"bare executemany   {bare:9.0f} records/s")
    print(f"SQLiteStore.write  {store:9.0f} records/s, {ratio:.2f} of the bare")
    return {"bare_per_second": bare, "store_per_second": store, "ratio": ratio}


def compare(folder: Path, batches: int) -> tuple[list[float], list[float]]:
    """Write *batches* a round both ways, into a file each; return each round's records a second."""
    bare_rates: list[float] = []
    store_rates: list[float] = []
    with closing(open_store(folder / "store.db")) as store, closing(connect(folder / "bare.db")) as connection:

        def execute(rows: Sequence[tuple[SQLValue, ...]]) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(INSERT, rows)
            connection.execute("COMMIT")

        for _ in range(ROUNDS):
            work = [[sample() for _ in range(BATCH)] for _ in range(batches)]
            bare_rates.append(rate(execute, [storable_rows(batch) for batch in work]))
            store_rates.append(rate(store.write, work))
    return bare_rates, store_rates


def rate(write: Callable[[Sequence[T]], None], work: Sequence[Sequence[T]]) -> float:
    begin = time.perf_counter()
    for batch in work:
        write(batch)
    return sum(map(len, work)) / (time.perf_counter() - begin)


def open_store(path: Path) -> SQLiteStore:
    store = SQLiteStore(path)
    store.open()
    return store


def connect(path: Path) -> sqlite3.Connection:
    open_store(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
    return connection


def sample() -> Record:
    return make_record(
        route="/users/<int:id>",
        endpoint="users.show",
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
        trace_flags=1,
        trace_remote=True,
        variables={"user_id": 42, "session_id": "4c2f0b7a", "total_time": 0.125, "plan": "pro", "beta": True},
    )


if __name__ == "__main__":
    main(sys.argv[1:])
