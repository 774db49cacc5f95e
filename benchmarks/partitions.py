"""A table with a partition for each day, beside one without: questions in turn, and retention of a day.

The server itself makes the records, as copies of a thousand with ids and times of their own, into tables without
keys, which it makes after that: through the store ten million would take an hour.
"""
# ruff: noqa: SLF001 - the server itself makes the records

from __future__ import annotations

import argparse
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import cast

from benchmarks.engines import database, require_engine
from benchmarks.sqlite_write import sample
from msgspec.structs import replace

from flask_chest import StoreUnavailable
from flask_chest.aggregates import AggregateQuery, Percentiles
from flask_chest.background.retention import in_batches
from flask_chest.protocols import Claim
from flask_chest.record import Query, Record
from flask_chest.stores import store_from_uri
from flask_chest.stores.mysql.connections import MySQLConnections
from flask_chest.stores.postgresql import PostgreSQLStore
from flask_chest.stores.postgresql.connections import PostgreSQLConnections
from flask_chest.stores.sql.server import ServerStore
from flask_chest.stores.sql.tables import COLUMNS

ENGINES = ("postgresql", "mysql", "mariadb")
KINDS = ("whole", "parted")
"""The names of the chests: without partitions, and with them."""
DAYS = 30
DAY_NS = 24 * 3600 * 1_000_000_000
TEMPLATE = 1_000
"""Records that the server itself makes all others of."""
AT_ONCE = 200 * TEMPLATE
"""Records that one of its statements makes."""
FIRST_POSITION = DAYS + 2 + TEMPLATE
COMMANDS = {
    "postgresql": "-c shared_buffers=1GB -c max_wal_size=4GB -c dynamic_shared_memory_type=mmap",
    "mysql": "--innodb-buffer-pool-size=1G",
    "mariadb": "--innodb-buffer-pool-size=1G --innodb-log-file-size=1G",
}
"""Servers with the memory of small ones: as they come they have 128 MB, and a container's /dev/shm has 64 MB."""
PAUSE_SECONDS = 0.02


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="partitions")
    parser.add_argument("--records", type=int, default=10_000_000, metavar="N")
    parser.add_argument("--engines", nargs="*", default=("postgresql", "mariadb"), choices=ENGINES)
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--small", action="store_true", help="3000 records in PostgreSQL, and each question once")
    options = parser.parse_args(argv)
    records, rounds = (3_000, 1) if options.small else (options.records, options.rounds)
    engines = ("postgresql",) if options.small else options.engines
    figures: dict[str, float] = {"records": records}
    for engine in engines:
        with ExitStack() as stack:
            require_engine(engine)
            uri = stack.enter_context(database(engine, COMMANDS[engine])).uri
            stores = {kind: stack.enter_context(closing(make(uri, kind))) for kind in KINDS}
            began = time.monotonic()
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda kind, uri=uri: fill(uri, kind, records), KINDS))
            print(
                f"{engine}: {records:,} records of {DAYS} days twice in {time.monotonic() - began:.0f} s",
                flush=True,
            )
            told = partial(tell, engine)
            figures |= told(ask_in_turn(stores, rounds))
            for kind, store in stores.items():
                left = retain(store, make(uri, kind))
                figures |= told({f"{kind}_{what}": figure for what, figure in left.items()})
    return figures


def tell(engine: str, found: Mapping[str, float]) -> Mapping[str, float]:
    """Print what was *found*, and return it with the name of the *engine*."""
    for what, figure in found.items():
        print(f"{engine:10} {what:28} {figure:12,.1f}", flush=True)
    return {f"{engine}_{what}": figure for what, figure in found.items()}


def make(uri: str, kind: str) -> ServerStore:
    store = store_from_uri(uri, root=Path("/"), name=kind, partition="day" if kind == "parted" else None)()
    return cast("ServerStore", store)


def fill(uri: str, kind: str, records: int) -> None:
    """Let the server make *records* of a few, spread over the days up to now, and its keys after that."""
    with closing(make(uri, kind)) as store:
        store.open()
        fill_tables(store, records)
        store.register("a")


def fill_tables(store: ServerStore, records: int) -> None:
    now = time.time_ns()
    # From midnight on, as retention deletes a whole day.
    begin = (now // DAY_NS - DAYS) * DAY_NS
    # A record of each day, so that all partitions are there.
    store.write([replace(sample(), time_unix_nano=begin + day * DAY_NS) for day in range(DAYS + 1)])
    store.write([replace(sample(), time_unix_nano=now) for _ in range(TEMPLATE)])
    execute(store, "CREATE TABLE {records}_template AS SELECT * FROM {records}")
    with without_keys(store):
        for first in range(0, records, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, records))
            execute(store, copies(store, numbers, begin, (now - begin) // records))
    execute(store, "DROP TABLE {records}_template")
    execute(store, f"UPDATE {{records}}_schema SET position = {records + FIRST_POSITION}")
    execute(store, "VACUUM ANALYZE {records}" if is_postgresql(store) else "ANALYZE TABLE {records}")
    if is_postgresql(store):
        execute(store, "CHECKPOINT")


def copies(store: ServerStore, numbers: range, begin: int, step: int) -> str:
    """Return the INSERT of copies with *numbers*, of which the first began at *begin* and each *step* later."""
    number = f"({numbers.start} + {TEMPLATE} * many.n + one.position - {DAYS + 2})"
    moment = f"({begin} + {number} * {step})"
    of_time = f"{'to_hex' if is_postgresql(store) else 'hex'}({moment} {store._tables.dialect.divide} 1000000)"
    # As the ids of records are: in the order of time, beginning with its milliseconds.
    digits = f"lower(lpad({of_time}, 12, '0'))"
    made = {
        "id": f"concat(left({digits}, 8), '-', right({digits}, 4), '-7', lpad(concat({number}, ''), 21, '0'))",
        "time_unix_nano": moment,
    }
    many = " UNION ALL ".join(f"SELECT {n} AS n" for n in range(AT_ONCE // TEMPLATE))
    return (
        f"INSERT INTO {{records}} (position, {', '.join(COLUMNS)}) "
        f"SELECT {number} + {FIRST_POSITION}, {', '.join(made.get(name, name) for name in COLUMNS)} "
        f"FROM ({many}) AS many CROSS JOIN {{records}}_template AS one "
        f"WHERE one.position > {DAYS + 1} AND {number} < {numbers.stop} ORDER BY 1"
    )


@contextmanager
def without_keys(store: ServerStore) -> Iterator[None]:
    """Drop the keys, all but MySQL's primary one, and make them again: a fraction of the time to keep them."""
    table = store._tables.name
    with store._database.reading() as session:
        if is_postgresql(store):
            keys = session.rows(_KEYS_OF_POSTGRESQL, (table,))
            of_table = [f"ADD CONSTRAINT {name} {key}" for _, name, key in keys if name]
            drop = [f"ALTER TABLE {table} DROP CONSTRAINT {name}" for _, name, _ in keys if name]
            drop += [f"DROP INDEX {index}" for index, name, _ in keys if not name]
            make = [key.replace(" ON ONLY ", " ON ") for _, name, key in keys if not name]
        else:
            ((_, told),) = session.rows(f"SHOW CREATE TABLE {table}")
            lines = re.findall(r"^  ((?:UNIQUE )?KEY (`\w+`) .*?),?$", told, re.MULTILINE)
            of_table = [f"ADD {line}" for line, _ in lines]
            drop, make = [f"ALTER TABLE {table} {', '.join(f'DROP KEY {name}' for _, name in lines)}"], []
    for statement in drop:
        execute(store, statement)
    yield
    for statement in (f"ALTER TABLE {table} {', '.join(of_table)}", *make):
        execute(store, statement)


_KEYS_OF_POSTGRESQL = """
    SELECT indexrelid::regclass::text, conname,
        coalesce(pg_get_constraintdef(con.oid), pg_get_indexdef(indexrelid))
    FROM pg_index LEFT JOIN pg_constraint AS con ON conindid = indexrelid AND conrelid = indrelid
    WHERE indrelid = %s::regclass
"""


def execute(store: ServerStore, statement: str) -> None:
    """Run *statement*, however long that takes, outside of a transaction."""
    sql = statement.replace("{records}", store._tables.name)
    database = store._database
    if isinstance(database, PostgreSQLConnections):
        with database.outside(statement_seconds=3600) as session:
            session.change("SET maintenance_work_mem = '512MB'")
            session.change(sql)
    else:
        assert isinstance(database, MySQLConnections)
        with database.altering(patience=60) as altering:
            altering.change(sql)


def ask_in_turn(stores: Mapping[str, ServerStore], rounds: int) -> Mapping[str, float]:
    """Return the median of the milliseconds of each question."""
    took: dict[str, list[float]] = {}
    for store in stores.values():
        id_within(store)
    for _ in range(rounds):
        for what, ask in _QUESTIONS.items():
            for kind, store in stores.items():
                began = time.perf_counter()
                ask(store)
                took.setdefault(f"{kind}_{what}_ms", []).append((time.perf_counter() - began) * 1e3)
    return {what: statistics.median(times) for what, times in took.items()}


def _claim(store: ServerStore) -> None:
    claim = store.claim("a", limit=1_000, lease=timedelta(minutes=1))
    assert isinstance(claim, Claim)
    store.release(claim)


def _newest(store: ServerStore) -> None:
    assert len(list(store.query(Query(limit=50)))) == 50


def _by_id(store: ServerStore) -> None:
    assert len(list(store.query(Query(id=id_within(store))))) == 1


@cache
def id_within(store: ServerStore) -> str:
    """Return the id of a record of the oldest days."""
    with store._database.reading() as session:
        select = store._tables.sql("SELECT id FROM {records} WHERE position = ?")
        ((record_id,),) = session.rows(select, (FIRST_POSITION + TEMPLATE,))
    return str(record_id)


def _last_day(store: ServerStore) -> None:
    since = Query(since_unix_nano=time.time_ns() - DAY_NS, limit=None)
    answer = store.aggregate(AggregateQuery(measures=(Percentiles("duration", 95),), query=since))
    assert answer.all.records


def _write(store: ServerStore) -> None:
    store.write([sample() for _ in range(1_000)])


_QUESTIONS: Mapping[str, Callable[[ServerStore], None]] = {
    "claim": _claim,
    "newest": _newest,
    "by_id": _by_id,
    "last_day": _last_day,
    "write": _write,
}


def retain(store: ServerStore, app: ServerStore) -> Mapping[str, float]:
    """Delete the oldest day while an app writes; return what that took, and left."""
    store.drop("a")
    before = (time.time_ns() // DAY_NS - DAYS + 1) * DAY_NS
    with closing(app), writing(app) as longest:
        time.sleep(1)
        began = time.monotonic()
        deleted = sum(in_batches(store, before, keep_unexported=True, go_on=lambda: True))
        seconds = time.monotonic() - began
    return {
        "deleted": deleted,
        "retention_s": seconds,
        "longest_write_ms": longest() * 1e3,
        "dead_rows": dead_rows(store),
    }


@contextmanager
def writing(store: ServerStore) -> Iterator[Callable[[], float]]:
    """Write a few records again and again meanwhile; give the seconds of the longest write."""
    over, longest = threading.Event(), [0.0]

    def write() -> None:
        while not over.wait(PAUSE_SECONDS):
            began = time.monotonic()
            batch = [sample() for _ in range(10)]
            while not _is_written(store, batch):
                pass
            longest[0] = max(longest[0], time.monotonic() - began)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield lambda: longest[0]
    finally:
        over.set()
        thread.join()


def _is_written(store: ServerStore, batch: Sequence[Record]) -> bool:
    """Write *batch*; False where the two got in each other's way, which a writer tries again."""
    try:
        store.write(batch)
    except StoreUnavailable:
        return False
    return True


def dead_rows(store: ServerStore) -> float:
    """Return how many rows wait for VACUUM; MySQL and MariaDB do not tell, and give 0."""
    if not is_postgresql(store):
        return 0
    time.sleep(2)  # the server counts now and then
    with store._database.reading() as session:
        ((count,),) = session.rows(
            "SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_all_tables WHERE relname LIKE %s",
            (f"{store._tables.name}%",),
        )
    return float(count)


def is_postgresql(store: ServerStore) -> bool:
    return isinstance(store, PostgreSQLStore)
