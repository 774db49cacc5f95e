"""What a user did: by an index among few records and among many, and without one beside a bare scan.

The user has as many records in the small table as in the large one; of an engine that takes long to fill both are
smaller, the one a hundredth of the other. The bare scan is the driver's, of the same table and with the same
condition as one writes it by hand; it fetches the same columns.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pymysql
from benchmarks.engines import database_server
from benchmarks.prune_load import ENGINES
from benchmarks.sqlite_write import BATCH, sample
from msgspec.structs import replace
from pymongo import MongoClient

from flask_chest.protocols import Store, VariableIndexes
from flask_chest.record import Query, Record
from flask_chest.stores import store_from_uri
from flask_chest.stores.mysql.connections import Address

USER = 77
RECORDS_OF_USER = 100
OTHERS = 20_000
ASKED = 50
INTERVAL_NANO = 10_000_000
MOST: Mapping[str, int] = {"mongodb": 50_000}
"""Records beyond which an engine takes more than minutes to fill."""
QUESTION = Query(where={"user_id": USER}, limit=RECORDS_OF_USER)
ALL = Query(where={"user_id": USER}, limit=None)
Scan: TypeAlias = Callable[[], int]
"""Fetches the user's records and returns their number."""


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="finding")
    parser.add_argument("--few", type=int, default=10_000, metavar="N", help="records in the small table")
    parser.add_argument("--many", type=int, default=1_000_000, metavar="N", help="records in the large one")
    parser.add_argument("--engines", nargs="*", default=ENGINES, choices=ENGINES)
    parser.add_argument("--small", action="store_true", help="500 and 2000 records")
    options = parser.parse_args(argv)
    figures: dict[str, float] = {}
    for engine in options.engines:
        most = MOST.get(engine, options.many)
        sizes = (options.few, options.many) if options.many <= most else (most // 100, most)
        if options.small:
            sizes = (500, 2_000)
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            uri = f"sqlite:////{folder}/chest.db"
            if engine != "sqlite":
                uri = stack.enter_context(database_server(engine)).uri
            figures |= {f"{engine}_{what}": figure for what, figure in measure(engine, uri, sizes).items()}
    return figures


def measure(engine: str, uri: str, sizes: tuple[int, int]) -> Mapping[str, float]:
    pages: list[float] = []
    scan = bare = made = 0.0
    for size in sizes:
        with closing(store_from_uri(uri, root=Path("/"), name=f"finding_{size}")()) as store:
            assert isinstance(store, VariableIndexes)
            store.open()
            fill_bare(engine, uri, f"finding_{size}", store, size)
            scan, bare = seconds(lambda: len(list(store.query(ALL))), SCANS[engine](uri, f"finding_{size}"))
            began = time.perf_counter()
            store.add_index("user_id")
            made = time.perf_counter() - began
            pages.append(page_milliseconds(store))
    few, many = pages
    print(
        f"{engine:10} a user's page by an index: {few:.2f} ms of {sizes[0]:,} records, {many:.2f} ms of"
        f" {sizes[1]:,} ({many / few:.2f} times); index made in {made:.1f} s;"
        f" without it {scan:.2f} s, {scan / bare:.2f} times a bare scan",
        flush=True,
    )
    return {
        "few": sizes[0],
        "many": sizes[1],
        "few_ms": few,
        "many_ms": many,
        "many_to_few": many / few,
        "made_s": made,
        "scan_s": scan,
        "scan_to_bare": scan / bare,
    }


def fill_bare(engine: str, uri: str, name: str, store: Store, records: int) -> None:
    """Fill a *store* that is open, without its indexes where these would take most of the time."""
    if engine != "mongodb":
        fill(store, records)
        return
    with MongoClient[Any](uri) as client:
        database = client["chest"]
        indexes = [index for index in database[name].list_indexes() if index["name"] != "_id_"]
        database[name].drop_indexes()
        fill(store, records)
        database.command("createIndexes", name, indexes=indexes)  # which takes longer than the store would wait


def fill(store: Store, records: int) -> None:
    begin = time.time_ns() - records * INTERVAL_NANO
    fill_with(store, records, lambda number: varied(number, records, begin + number * INTERVAL_NANO))


def fill_with(store: Store, records: int, make: Callable[[int], Record]) -> None:
    """Write as many *records*, each made of its number."""
    for first in range(0, records, BATCH):
        store.write([make(number) for number in range(first, min(first + BATCH, records))])


def varied(number: int, records: int, moment: int) -> Record:
    record = sample()
    every = records // RECORDS_OF_USER
    user_id = USER if number % every == 0 else 1_000 + number * 7919 % OTHERS
    return replace(record, time_unix_nano=moment, variables={**record.variables, "user_id": user_id})


def page_milliseconds(store: Store) -> float:
    times: list[float] = []
    for _ in range(ASKED):
        begin = time.perf_counter()
        found = list(store.query(QUESTION))
        times.append(time.perf_counter() - begin)
        assert len(found) == RECORDS_OF_USER
    return statistics.median(times) * 1000


def seconds(store: Scan, bare: Scan, rounds: int = 3) -> tuple[float, float]:
    """Return the median seconds of both, which take turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for scan, taken in zip((store, bare), times, strict=True):
            begin = time.perf_counter()
            found = scan()
            taken.append(time.perf_counter() - begin)
            assert found == RECORDS_OF_USER
    return statistics.median(times[0]), statistics.median(times[1])


def sqlite_scan(uri: str, name: str) -> Scan:
    sql = f"SELECT * FROM {name} WHERE json_extract(variables, '$.user_id') = ? ORDER BY time_unix_nano DESC"

    def scan() -> int:
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
            return len(connection.execute(sql, (USER,)).fetchall())

    return scan


def postgresql_scan(uri: str, name: str) -> Scan:
    sql = f"SELECT * FROM {name} WHERE variables ->> 'user_id' = %s ORDER BY time_unix_nano DESC"

    def scan() -> int:
        with psycopg.connect(uri) as connection:
            return len(connection.execute(sql.encode(), (str(USER),)).fetchall())

    return scan


def mysql_scan(uri: str, name: str) -> Scan:
    parameters: dict[str, Any] = dict(Address(uri, {}).parameters)
    sql = f"SELECT * FROM {name} WHERE JSON_EXTRACT(variables, '$.user_id') = %s ORDER BY time_unix_nano DESC"

    def scan() -> int:
        with closing(pymysql.connect(**parameters)) as connection, connection.cursor() as cursor:
            cursor.execute(sql, (USER,))
            return len(cursor.fetchall())

    return scan


def mongodb_scan(uri: str, name: str) -> Scan:
    def scan() -> int:
        with MongoClient[Any](uri) as client:
            return len(list(client["chest"][name].find({"variables.user_id": USER}).sort("time_unix_nano", -1)))

    return scan


SCANS: Mapping[str, Callable[[str, str], Scan]] = {
    "sqlite": sqlite_scan,
    "postgresql": postgresql_scan,
    "mysql": mysql_scan,
    "mariadb": mysql_scan,
    "mongodb": mongodb_scan,
    "documentdb": mongodb_scan,
}


if __name__ == "__main__":
    main(sys.argv[1:])
