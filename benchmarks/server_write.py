"""The stores on database servers: ``write`` against the driver's best way, and the time of a page of answers.

Both sides write batches of 1,000 into tables (collections) with the same columns and indexes, in turn and each
batch in a transaction of its own; the driver's side gets its rows ready-made.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pymysql
from benchmarks.engines import DatabaseServer, database_server
from benchmarks.sqlite_write import BATCH, rate, sample
from msgspec.structs import replace
from pymongo import MongoClient, WriteConcern

from flask_chest.protocols import Store
from flask_chest.record import Query, Record
from flask_chest.stores import store_from_uri
from flask_chest.stores._records import storable_rows
from flask_chest.stores.mongodb.documents import document_of
from flask_chest.stores.sql.tables import COLUMNS

Write: TypeAlias = Callable[[Sequence[Any]], None]
Rows: TypeAlias = Callable[[Sequence[Record]], Sequence[Any]]
Bare: TypeAlias = Callable[[DatabaseServer, str], AbstractContextManager[Write]]

ROUNDS = 10
PAGE = 50
ASKED = 100
ROUTES = 100
INTERVAL_NANO = 10_000_000
"""Between two requests."""
_position = count(1)


def postgresql_write(argv: Sequence[str] = ()) -> Mapping[str, float]:
    return measure("postgresql", copying, rows_of, argv)


def mysql_write(argv: Sequence[str] = ()) -> Mapping[str, float]:
    return measure("mysql", inserting, rows_of, argv)


def mariadb_write(argv: Sequence[str] = ()) -> Mapping[str, float]:
    return measure("mariadb", inserting, rows_of, argv)


def mongodb_write(argv: Sequence[str] = ()) -> Mapping[str, float]:
    return measure("mongodb", inserting_documents, documents_of, argv)


def documentdb_write(argv: Sequence[str] = ()) -> Mapping[str, float]:
    """Measure the other engine behind MongoDB's protocol."""
    return measure("documentdb", inserting_documents, documents_of, argv)


def measure(kind: str, bare: Bare, prepare: Rows, argv: Sequence[str]) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog=f"{kind}_write")
    parser.add_argument("--records", type=int, default=100_000, metavar="N")
    parser.add_argument("--few", type=int, default=10_000, metavar="N", help="in the small table that is read")
    parser.add_argument("--many", type=int, default=1_000_000, metavar="N", help="in the large one")
    parser.add_argument("--small", action="store_true", help="2000 records; 500 and 2000 to read")
    options = parser.parse_args(argv)
    records, few, many = (2_000, 500, 2_000) if options.small else (options.records, options.few, options.many)
    rounds = min(ROUNDS, records // BATCH)
    with database_server(kind) as server:
        with bare(server, "bare") as write, opened(server, "store") as store:
            bare_rates, store_rates = compare(store, write, prepare, rounds, records // rounds // BATCH)
        pages = [page_times(server, bare, prepare, size) for size in (few, many)]
    bare_rate, store_rate = statistics.median(bare_rates), statistics.median(store_rates)
    # Of the two halves of a round, which had the same neighbours on the machine.
    ratio = statistics.median(ours / theirs for theirs, ours in zip(bare_rates, store_rates, strict=True))
    print(f"the driver's best  {bare_rate:9.0f} records/s")
    print(f"the store's write  {store_rate:9.0f} records/s, {ratio:.2f} of the driver's")
    figures = {"bare_per_second": bare_rate, "store_per_second": store_rate, "ratio": ratio, "rounds": rounds}
    for name in pages[0]:
        small, large = (times[name] for times in pages)
        growth = large / small
        print(f"{PAGE} newest {name:9}: {small:6.2f} ms of {few}, {large:6.2f} ms of {many}, {growth:.2f} times")
        figures |= {f"{name}_few_ms": small, f"{name}_many_ms": large, f"{name}_growth": growth}
    return figures


def compare(
    store: Store, write: Write, prepare: Rows, rounds: int, batches: int
) -> tuple[list[float], list[float]]:
    """Write *batches* a round both ways; return each round's records a second."""
    bare_rates: list[float] = []
    store_rates: list[float] = []
    for _ in range(rounds):
        work = [[sample() for _ in range(BATCH)] for _ in range(batches)]
        bare_rates.append(rate(write, [prepare(batch) for batch in work]))
        store_rates.append(rate(store.write, work))
    return bare_rates, store_rates


def page_times(server: DatabaseServer, bare: Bare, prepare: Rows, records: int) -> Mapping[str, float]:
    """Fill a table and ask it for pages; give the median milliseconds of each question."""
    name = f"pages_{records}"
    with bare(server, name) as write:
        for first in range(0, records, BATCH):
            size = min(BATCH, records - first)
            write(prepare([varied(first + number, of=records) for number in range(size)]))
    questions = {
        "of all": Query(limit=PAGE),
        "of route": Query(route="/7", limit=PAGE),
        "of status": Query(status_code=200, limit=PAGE),
    }
    with opened(server, name) as store:
        return {about: milliseconds(store, question) for about, question in questions.items()}


def milliseconds(store: Store, question: Query) -> float:
    times: list[float] = []
    for _ in range(ASKED):
        begin = time.perf_counter()
        found = list(store.query(question))
        times.append(time.perf_counter() - begin)
        assert 0 < len(found) <= PAGE
    return statistics.median(times) * 1_000


def varied(number: int, *, of: int) -> Record:
    """Make a record of a site that has had *of* requests until now."""
    ago = (of - number) * INTERVAL_NANO
    return replace(sample(), route=f"/{number % ROUTES}", time_unix_nano=time.time_ns() - ago)


@contextmanager
def opened(server: DatabaseServer, name: str) -> Iterator[Store]:
    with closing(store_from_uri(server.uri, root=Path("/"), name=name)()) as store:
        store.open()
        yield store


@contextmanager
def copying(server: DatabaseServer, name: str) -> Iterator[Write]:
    """PostgreSQL's best way: COPY."""
    with opened(server, name), psycopg.connect(server.uri, autocommit=True) as connection:
        statement = f"COPY {name} (position, {', '.join(COLUMNS)}) FROM STDIN"

        def write(rows: Sequence[Any]) -> None:
            with connection.transaction(), connection.cursor().copy(statement.encode()) as copy:
                for row in rows:
                    copy.write_row(row)

        yield write


@contextmanager
def inserting(server: DatabaseServer, name: str) -> Iterator[Write]:
    """MySQL's best way: one INSERT of many rows, which PyMySQL makes of ``executemany``."""
    host, _, port = server.address.partition(":")
    with opened(server, name):
        connection = pymysql.connect(
            host=host, port=int(port), user=server.user, password=server.password, database="chest"
        )
        marks = ", ".join(["%s"] * (len(COLUMNS) + 1))
        statement = f"INSERT INTO {name} (position, {', '.join(COLUMNS)}) VALUES ({marks})"

        def write(rows: Sequence[Any]) -> None:
            connection.cursor().executemany(statement, rows)
            connection.commit()

        with closing(connection):
            yield write


@contextmanager
def inserting_documents(server: DatabaseServer, name: str) -> Iterator[Write]:
    """MongoDB's best way: an unordered ``insert_many``, on the disks of most servers as ours."""
    with opened(server, name), MongoClient[Any](server.uri) as client:
        collection = client["chest"].get_collection(name, write_concern=WriteConcern(w="majority", j=True))

        def write(documents: Sequence[Any]) -> None:
            collection.insert_many(documents, ordered=False)

        yield write


def rows_of(records: Sequence[Record]) -> Sequence[Any]:
    return [(next(_position), *row) for row in storable_rows(records)]


def documents_of(records: Sequence[Record]) -> Sequence[Any]:
    return [document_of(record, written_unix_nano=next(_position)) for record in records]
