"""ClickHouse: ``write`` against its client's own insert, questions about many records, and bytes a record.

Both sides write batches into tables of the same columns, in turn. The client's side gets its rows ready-made,
with the JSON of each variable, and the types of the columns, for which it would ask otherwise.

It needs chDB, ClickHouse's engine in this process: ``python -m nox --session clickhouse`` makes an environment.
With ``--postgresql URI`` the same records are asked for there too, in turn.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from importlib.util import find_spec
from typing import Any

import clickhouse_connect
import psycopg

from flask_chest.aggregates import AggregateQuery, Count, ErrorRate, Mean, Measure, Percentiles, Variable
from flask_chest.declared import Declaration, Variables
from flask_chest.protocols import Aggregation, Store
from flask_chest.record import Query, encode_value
from flask_chest.stores._records import scalars
from flask_chest.stores.clickhouse import ClickHouseStore
from flask_chest.stores.clickhouse.rows import COLUMN_TYPES, COLUMNS
from flask_chest.stores.postgresql import PostgreSQLStore
from flask_chest.testing import make_record

BATCH = 1_000
"""Records of a batch by default: of a journal's writer always, of an exporter unless told otherwise."""
LARGE_BATCH = 5_000
"""Records of a batch as docs/clickhouse.md advises for an exporter."""
INTERVAL_NANO = 260_000_000
HOUR = 3_600 * 10**9
BEGAN = 1_760_000_000_000_000_000
STEP = 500_000
USERS = 10_000

# In the engine: Python would take longer to make records than it takes to keep them.
FILL = """
INSERT INTO chest.big ({columns})
SELECT
    toString(generateUUIDv7(number)), toString(generateUUIDv7(number + 1)),
    {began} + toInt64(number) * {interval}, toInt64(exp(randNormal(17, 1, number))), 'GET',
    concat('/shop/', toString(number % 12), '/<int:id>'), concat('shop.page', toString(number % 12)),
    if(rand32(number + 2) % 100 = 0, 500, 200), NULL,
    lower(hex(randomString(16, number))), lower(hex(randomString(8, number))), 1, false,
    concat('host:', toString(number % 4)), 1.0,
    map('user_id', toString(rand32(number + 3) % {users}), 'plan', ['"free"', '"pro"'][number % 2 + 1],
        'total', toString(floor(randUniform(0, 99, number)) + 0.25))
FROM numbers({first}, {count})
"""

_OBJECT = (
    "arrayMap((name, value) -> concat(toJSONString(name), ':', value), mapKeys(variables), mapValues(variables))"
)
AS_COLUMNS = f"""
SELECT intDiv(time_unix_nano - {BEGAN}, {INTERVAL_NANO}) + 1, {", ".join(COLUMNS[:-1])},
    concat('{{', arrayStringConcat({_OBJECT}, ','), '}}')
FROM chest.big
"""
"""The records as PostgreSQL has them: their place first, the object of variables last."""

Ask = Callable[[Store], object]


class Visit(Variables):
    """The variable whose mean is asked for."""

    total: float


def aggregate(*measures: Measure[object], by: tuple[Any, ...] = (), bounds: Sequence[int] = ()) -> Ask:
    meant = Query(since_unix_nano=bounds[0], until_unix_nano=bounds[-1]) if bounds else Query()
    query = AggregateQuery(measures=measures, by=by, bounds=tuple(bounds), query=meant)

    def ask(store: Store) -> object:
        assert isinstance(store, Aggregation)
        return store.aggregate(query)

    return ask


def questions(records: int) -> Mapping[str, Ask]:
    until = BEGAN + records * INTERVAL_NANO
    sixtieths = range(BEGAN, until + 1, (until - BEGAN) // 60)
    hours = range(until - 24 * HOUR, until + 1, HOUR)
    return {
        "percentiles": aggregate(Percentiles("duration", 50, 95, 99), by=("route",)),
        "rates": aggregate(Count(), ErrorRate(), Mean("duration"), by=("route",)),
        "series": aggregate(Count(), ErrorRate(), by=("route",), bounds=sixtieths),
        "last day by hour": aggregate(Count(), bounds=hours),
        "numbers": aggregate(Mean(Variable("total")), by=(Variable("plan"),)),
        "user": lambda store: list(store.query(Query(where={"user_id": 77}, limit=100))),
        "newest": lambda store: list(store.query(Query(limit=100))),
    }


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="clickhouse")
    parser.add_argument("--records", type=int, default=10_000_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--postgresql", metavar="URI", help="ask there too")
    parser.add_argument("--small", action="store_true", help="2,000 records, each question once")
    options = parser.parse_args(argv)
    records, rounds = (2_000, 1) if options.small else (options.records, options.rounds)
    if find_spec("chdb") is None:
        print("chDB is not installed: python -m nox --session clickhouse")
        return {}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        client = stack.enter_context(closing(clickhouse_connect.get_client(interface="chdb", path=folder)))
        client.command("CREATE DATABASE chest ENGINE = Atomic")
        figures = {"records": float(records), **write(client, "write", batch=BATCH, rounds=4 * rounds)}
        if not options.small:
            figures |= write(client, "large_write", batch=LARGE_BATCH, rounds=2 * rounds)
        big = opened(client, "big")
        began = time.monotonic()
        fill(client, records)
        figures["fill_s"] = round(time.monotonic() - began, 1)
        figures["bytes_a_record"] = round((big.status().size_bytes or 0) / records, 1)
        print(f"{records:,} records: {figures['bytes_a_record']} bytes each", flush=True)
        stores: dict[str, Store] = {"clickhouse": big}
        if options.postgresql is not None:
            stores["postgresql"] = stack.enter_context(closing(copied(client, options.postgresql, records)))
        figures |= asked(stores, questions(records), rounds)
        big.add_index("user_id")
        big.make_view(Declaration(Visit))
        client.command("OPTIMIZE TABLE chest.big FINAL")  # the columns are made in the background
        own = {f"{name} by its own column": questions(records)[name] for name in ("user", "numbers")}
        figures |= asked({"clickhouse": big}, own, rounds)
    return figures


def opened(client: Any, name: str) -> ClickHouseStore:
    store = ClickHouseStore("clickhouse://localhost/chest", name=name, client=client)
    store.open()
    return store


def write(client: Any, what: str, *, batch: int, rounds: int) -> Mapping[str, float]:
    """Write batches by the store and by the client, in turn, into tables of the same columns."""
    store, bare = opened(client, f"ours_{batch}"), opened(client, f"bare_{batch}")
    types = [COLUMN_TYPES[name] for name in COLUMNS]
    ours, theirs = [], []
    for number in range(rounds + 1):
        records = [
            make_record(
                route=f"/{each % 12}", variables={"user_id": each % 100, "plan": "pro", "total": each / 4}
            )
            for each in range(batch)
        ]
        rows = [
            (*scalars(each), {name: encode_value(value) for name, value in each.variables.items()})
            for each in records
        ]
        gc.collect()
        began = time.perf_counter()
        client.insert(f"bare_{batch}", rows, COLUMNS, database="chest", column_type_names=types)
        between = time.perf_counter()
        del rows
        gc.collect()
        again = time.perf_counter()
        store.write(records)
        if number:  # the first one makes what the others have
            theirs.append(between - began)
            ours.append(time.perf_counter() - again)
    assert bare.status().records == store.status().records
    share = statistics.median(theirs) / statistics.median(ours)
    rate = batch / statistics.median(ours)
    print(f"write: {rate:,.0f} records a second by {batch:,}, {share:.2f} of the client's insert", flush=True)
    return {f"{what}_share": round(share, 3), f"{what}_records_per_s": round(rate)}


def fill(client: Any, records: int) -> None:
    for first in range(0, records, STEP):
        client.command(
            FILL.format(
                columns=", ".join(COLUMNS),
                began=BEGAN,
                interval=INTERVAL_NANO,
                users=USERS,
                first=first,
                count=min(STEP, records - first),
            )
        )


def copied(client: Any, uri: str, records: int) -> PostgreSQLStore:
    """Return a store in PostgreSQL with the same records, which the two databases hand over without ours."""
    store = PostgreSQLStore(uri, name="clickhouse_beside")
    store.open()
    with psycopg.connect(uri, autocommit=True) as connection:
        copy = f"COPY clickhouse_beside (position, {', '.join(COLUMNS)}) FROM STDIN (FORMAT csv, NULL '\\N')"
        for first in range(0, records, STEP):
            since = BEGAN + first * INTERVAL_NANO
            until = since + STEP * INTERVAL_NANO
            rows = client.raw_query(
                f"{AS_COLUMNS} WHERE time_unix_nano >= {since} AND time_unix_nano < {until}", fmt="CSV"
            )
            with connection.cursor() as cursor, cursor.copy(copy.encode()) as target:
                target.write(rows)
        # By one process: several share memory, of which a container has little.
        connection.execute("VACUUM (ANALYZE, PARALLEL 0) clickhouse_beside")
    return store


def asked(stores: Mapping[str, Store], every: Mapping[str, Ask], rounds: int) -> dict[str, float]:
    """Ask each question of each store in turn; the median of the seconds."""
    figures: dict[str, float] = {}
    for name, ask in every.items():
        seconds: dict[str, list[float]] = {engine: [] for engine in stores}
        for _ in range(rounds):
            for engine, store in stores.items():
                began = time.perf_counter()
                ask(store)
                seconds[engine].append(time.perf_counter() - began)
        for engine, found in seconds.items():
            figures[f"{engine}_{name.replace(' ', '_')}_s"] = round(statistics.median(found), 3)
        told = ", ".join(f"{engine} {statistics.median(found):.3f} s" for engine, found in seconds.items())
        print(f"{name}: {told}", flush=True)
    return figures


if __name__ == "__main__":
    main(sys.argv[1:])
