"""A table with a partition for each day, beside one without: questions in turn, and retention of a day."""
# ruff: noqa: SLF001 - the server itself makes the records

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import cast

from benchmarks.engines import database_server
from benchmarks.sqlite_write import sample
from msgspec.structs import replace

from flask_chest import StoreUnavailable
from flask_chest.aggregates import AggregateQuery, Percentiles
from flask_chest.background.retention import in_batches
from flask_chest.protocols import Claim
from flask_chest.record import Query, Record
from flask_chest.stores import store_from_uri
from flask_chest.stores.postgresql import PostgreSQLStore
from flask_chest.stores.sql.server import ServerStore
from flask_chest.stores.sql.tables import COLUMNS

ENGINES = ("postgresql", "mysql", "mariadb")
KINDS = ("whole", "parted")
"""The names of the chests: without partitions, and with them."""
DAYS = 30
DAY_NS = 24 * 3600 * 1_000_000_000
TEMPLATE = 1_000
"""Records that the server itself makes all others of."""
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
            uri = stack.enter_context(database_server(engine)).uri
            stores = {kind: stack.enter_context(closing(make(uri, kind))) for kind in KINDS}
            began = time.monotonic()
            for store in stores.values():
                fill(store, records)
            print(
                f"{engine}: {records:,} records of {DAYS} days twice in {time.monotonic() - began:.0f} s",
                flush=True,
            )
            found = {**ask_in_turn(stores, rounds)}
            for kind, store in stores.items():
                found |= {f"{kind}_{what}": figure for what, figure in retain(store, make(uri, kind)).items()}
            for what, figure in found.items():
                print(f"{engine:10} {what:28} {figure:12,.1f}", flush=True)
            figures |= {f"{engine}_{what}": figure for what, figure in found.items()}
    return figures


def make(uri: str, kind: str) -> ServerStore:
    store = store_from_uri(uri, root=Path("/"), name=kind, partition="day" if kind == "parted" else None)()
    return cast("ServerStore", store)


def fill(store: ServerStore, records: int) -> None:
    """Let the server make *records* of a few, spread over the days up to now."""
    store.open()
    now = time.time_ns()
    begin, step = now - DAYS * DAY_NS, DAYS * DAY_NS // records
    templates = [replace(sample(), time_unix_nano=now) for _ in range(TEMPLATE)]
    # A record of each day, so that all partitions are there.
    store.write([replace(sample(), time_unix_nano=begin + day * DAY_NS) for day in range(DAYS + 1)])
    store.write(templates)
    tables, of_template = store._tables, DAYS + 1
    made = {"id": "concat('0', lpad(concat({n}, ''), 35, '0'))", "time_unix_nano": f"{begin} + {{n}} * {step}"}
    for first in range(0, records, 100 * TEMPLATE):
        number = f"({first} + {TEMPLATE} * hundred.n + one.position - {of_template} - 1)"
        columns = [made.get(name, f"one.{name}").format(n=number) for name in COLUMNS]
        hundreds = " UNION ALL ".join(f"SELECT {n} AS n" for n in range(100))
        with store._database.writing() as session:
            session.change(
                tables.sql("INSERT INTO {records} (position, {columns}) ")
                + f"SELECT {number} + 10000, {', '.join(columns)} FROM ({hundreds}) AS hundred CROSS JOIN "
                + tables.sql("{records} AS one WHERE one.position > ? AND one.position <= ?")
                .replace(tables.dialect.mark, "{}")
                .format(of_template, of_template + TEMPLATE)
                + f" AND {number} < {records} ORDER BY 1"
            )
    with store._database.writing() as session:
        session.change(tables.sql("UPDATE {schema} SET position = ?"), (records + 10_000,))
        session.change(
            tables.sql("ANALYZE {records}" if tables.dialect.quote == '"' else "ANALYZE TABLE {records}")
        )
    store.register("a")


def ask_in_turn(stores: Mapping[str, ServerStore], rounds: int) -> Mapping[str, float]:
    """Return the median of the milliseconds of each question."""
    took: dict[str, list[float]] = {}
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
    with store._database.reading() as session:
        assert store._kept(session, [f"{1_000:036d}"])


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
    if not _is_postgresql(store):
        return 0
    time.sleep(2)  # the server counts now and then
    with store._database.reading() as session:
        ((count,),) = session.rows(
            "SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_all_tables WHERE relname LIKE %s",
            (f"{store._tables.name}%",),
        )
    return float(count)


def _is_postgresql(store: ServerStore) -> bool:
    return isinstance(store, PostgreSQLStore)
