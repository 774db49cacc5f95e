"""PostgreSQL as a store."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from aggregation_property import AggregationProperty
from emptied_tables import EmptiedTables
from finding_property import FindingProperty, IndexedFindingProperty
from flask_chest.aggregates import AggregateQuery, Count, Histogram, Percentiles, Variable
from flask_chest.errors import StoreUnavailable
from flask_chest.record import JSONValue, Query
from flask_chest.stores.postgresql import PostgreSQLStore
from flask_chest.stores.postgresql.connections import POSTGRESQL
from flask_chest.stores.sql.query import chunk
from flask_chest.stores.sql.tables import Tables
from flask_chest.testing.contracts import (
    AggregationContract,
    ArchiveContract,
    DeletionContract,
    IndexContract,
    LeasesContract,
    OutboxContract,
    StoreContract,
)
from flask_chest.testing.records import make_record
from index_sql_contract import IndexSQLContract
from older_release import MakeSQLStore, OlderReleaseContract
from sampled_property import SampledProperty
from server_contract import (
    MakeStore,
    ServerStoreContract,
    ServerTroubles,
    await_stop,
    children,
    ids,
    kept,
    write_through,
)
from servers import DatabaseServer
from view_contract import RunSQL, ViewContract

_numbers = count()


@pytest.fixture(scope="session")
def database(postgresql: DatabaseServer) -> DatabaseServer:
    return postgresql


@pytest.fixture
def name() -> str:
    """Tables of its own for each test."""
    return f"chest_{next(_numbers)}"


@pytest.fixture
def make_store(database: DatabaseServer, name: str) -> Iterator[MakeStore]:
    stores: list[PostgreSQLStore] = []

    def make(uri: str = "", **options: Any) -> PostgreSQLStore:
        stores.append(PostgreSQLStore(uri or database.uri, **{"name": name, **options}))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> Any:
    store = make_store()
    store.open()
    return store


@pytest.fixture
def admin(database: DatabaseServer) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with closing(psycopg.connect(database.uri, autocommit=True)) as connection:
        yield connection


class TestPostgreSQLStore(
    EmptiedTables,
    StoreContract,
    OutboxContract,
    DeletionContract,
    LeasesContract,
    AggregationContract,
    AggregationProperty,
    SampledProperty,
    FindingProperty,
    ArchiveContract,
):
    """Does what every store does."""


class TestPostgreSQLTables(
    IndexContract,
    IndexedFindingProperty,
    IndexSQLContract,
    ViewContract,
    OlderReleaseContract,
    ServerStoreContract,
):
    """Does what every store on a server does, and what changes its tables; each test has its own."""

    @pytest.fixture
    def make_sql_store(self, make_store: Callable[[], PostgreSQLStore]) -> MakeSQLStore:
        return make_store

    @pytest.fixture
    def run_sql(self, admin: psycopg.Connection[tuple[Any, ...]]) -> RunSQL:
        def run(sql: str) -> list[tuple[object, ...]]:
            cursor = admin.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

        return run


class TestTroubles(ServerTroubles):
    """Outlives its server."""


def test_filters_read_an_index(
    store: PostgreSQLStore, name: str, admin: psycopg.Connection[tuple[Any, ...]]
) -> None:
    store.write(
        [
            make_record(route=f"/{number % 100}", request_id=f"r{number}", trace_id=f"{number:032x}")
            for number in range(3_000)
        ]
    )
    admin.execute(f'ANALYZE "{name}"'.encode())
    questions = {
        "_request": Query(request_id="r7"),
        "_trace": Query(trace_id=f"{7:032x}"),
        "_route": Query(route="/7"),
        "_status": Query(status_code=404),
        "_errors": Query(errors=True),
        "_errors (by status)": Query(status_class=5),
        "_errors (by type)": Query(error="KeyError"),
        "_time": Query(),
        "_time (of nearly all)": Query(status_code=200),
    }
    for role, question in questions.items():
        index = role.partition(" ")[0]
        statement, values = chunk(Tables(name, POSTGRESQL), question, before=None, size=50)
        plan = admin.execute(b"EXPLAIN " + statement.encode(), values).fetchall()
        text = "\n".join(line for (line,) in plan)
        assert f"{name}{index}" in text, text
        assert "Seq Scan" not in text, text


def test_following_chunks_read_the_index_from_where_the_last_ended(
    store: PostgreSQLStore, name: str, admin: psycopg.Connection[tuple[Any, ...]]
) -> None:
    store.write([make_record() for _ in range(3_000)])
    admin.execute(f'ANALYZE "{name}"'.encode())
    before = kept(store)[1_500]
    statement, values = chunk(Tables(name, POSTGRESQL), Query(), before=before, size=50)
    plan = admin.execute(b"EXPLAIN " + statement.encode(), values).fetchall()
    text = "\n".join(line for (line,) in plan)
    assert "Index Cond: (time_unix_nano <=" in text, text
    assert "Sort" not in text, text


def test_spans_and_bins_are_added_up_without_a_sort_of_all_records(
    store: PostgreSQLStore, database: DatabaseServer, name: str, admin: psycopg.Connection[tuple[Any, ...]]
) -> None:
    store.write(
        [
            make_record(route=f"/{number % 2}", time_unix_nano=number, duration_ns=number % 9 * 1_000_000)
            for number in range(2_000)
        ]
    )
    admin.execute(f'ANALYZE "{name}"'.encode())
    asked = AggregateQuery(
        measures=(Count(), Histogram("duration", 0.002, 0.004, 0.006)),
        by=("route",),
        bounds=tuple(range(0, 2_001, 200)),
        query=Query(since_unix_nano=0, until_unix_nano=2_000),
        top=10,
    )
    # Less memory than the records take, and no place on the disk.
    options = "-c work_mem=64kB -c temp_file_limit=0"
    with closing(PostgreSQLStore(database.uri, name=name, options=options)) as limited:
        answer = limited.aggregate(asked)
    assert [group.records for group in answer.groups] == [1_000, 1_000]
    assert [bucket.all.records for bucket in answer.series] == [200] * 10


def test_processes_share_the_reading_of_a_variable_whose_percentiles_are_asked_for(
    store: PostgreSQLStore, database: DatabaseServer, name: str, admin: psycopg.Connection[tuple[Any, ...]]
) -> None:
    store.write([make_record(variables={"total": number / 4}) for number in range(2_000)])
    admin.execute(f'ANALYZE "{name}"'.encode())
    plans: list[str] = []
    # A row costs as much as where a table is larger than memory, so that to share the rows would pay.
    options = "-c min_parallel_table_scan_size=0 -c parallel_setup_cost=0 -c cpu_tuple_cost=0.1"
    options += " -c session_preload_libraries=auto_explain -c auto_explain.log_min_duration=0"
    options += " -c client_min_messages=log"
    total = Percentiles(Variable("total"), 50)
    with ConnectionPool(
        database.uri,
        min_size=1,
        kwargs={"options": options},
        configure=lambda connection: connection.add_notice_handler(
            lambda notice: plans.append(notice.message_primary or "")
        ),
    ) as pool:
        answer = PostgreSQLStore(pool=pool, name=name).aggregate(AggregateQuery(measures=(total,)))
    assert answer.all[total] == {50: 249.75}
    (plan,) = (each for each in plans if "percentile_disc" in each)
    assert "Workers Planned" in plan, plan


def test_view_gives_a_row_for_each_variable(
    store: PostgreSQLStore, name: str, admin: psycopg.Connection[tuple[Any, ...]]
) -> None:
    variables: dict[str, JSONValue] = {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": None,
        "e": 'te"xt',
        "f": [1, {"x": 2}],
        "g": 2**63 - 1,
        "h": "\0",
    }
    store.write([make_record(variables=variables, time_unix_nano=1_700_000_000_123_456_789)])
    rows = admin.execute(
        f'SELECT name, type, number, text FROM "{name}_variables" ORDER BY name'.encode()
    ).fetchall()
    assert [
        (name, kind, None if number is None else float(number), text) for name, kind, number, text in rows
    ] == [
        ("a", "integer", 1, None),
        ("b", "number", 1.5, None),
        ("c", "boolean", 1, None),
        ("d", "null", None, None),
        ("e", "string", None, 'te"xt'),
        ("f", "array", None, '[1,{"x":2}]'),
        ("g", "integer", float(2**63 - 1), None),
        ("h", "string", None, "\ufffd"),
    ]
    ((moment,),) = admin.execute(
        f"SELECT DISTINCT time AT TIME ZONE 'UTC' FROM \"{name}_variables\"".encode()
    ).fetchall()
    assert moment.isoformat() == "2023-11-14T22:13:20.123456"


def test_process_that_is_stopped_in_a_copy_holds_up_others_for_seconds_only(
    store: Any, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [make_record(variables={"number": number}) for number in range(100)]

    def stop(_: int) -> None:
        own = make_store(lock_timeout=1.0)
        write_row = psycopg.Copy.write_row

        def write_row_and_stop(copy: Any, row: Any) -> None:
            write_row(copy, row)
            monkeypatch.undo()
            os.kill(os.getpid(), signal.SIGSTOP)

        monkeypatch.setattr(psycopg.Copy, "write_row", write_row_and_stop)
        with pytest.raises(StoreUnavailable):
            own.write(records)

    with children(1, stop) as (process,):
        await_stop(process.pid)
        other = make_record()
        assert write_through(make_store(lock_timeout=1.0), [other]) < 10
        os.kill(process.pid, signal.SIGCONT)
    assert ids(kept(store)) == [other.id]
