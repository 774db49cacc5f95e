"""Indexes on variables in PostgreSQL: which questions read them, and how they are made beside others' work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from itertools import count
from typing import Any

import psycopg
import pytest

from flask_chest.errors import RecordRefused, SchemaError, StoreUnavailable
from flask_chest.protocols import VariableIndex
from flask_chest.record import Query, Record, ge, gt, le, lt, one_of
from flask_chest.stores.postgresql import PostgreSQLStore
from flask_chest.testing.records import make_record
from plans import statement_of
from servers import DatabaseServer, wait_until

_numbers = count()
Admin = psycopg.Connection[tuple[Any, ...]]
PATIENCE = 60.0


@pytest.fixture
def name() -> str:
    return f"indexed_{next(_numbers)}"


@pytest.fixture
def make_store(postgresql: DatabaseServer, name: str) -> Iterator[Callable[..., PostgreSQLStore]]:
    stores: list[PostgreSQLStore] = []

    def make(**options: Any) -> PostgreSQLStore:
        stores.append(PostgreSQLStore(postgresql.uri, name=name, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(make_store: Callable[..., PostgreSQLStore]) -> PostgreSQLStore:
    store = make_store()
    store.open()
    return store


@pytest.fixture
def admin(postgresql: DatabaseServer) -> Iterator[Admin]:
    with closing(psycopg.connect(postgresql.uri, autocommit=True)) as connection:
        yield connection


@pytest.fixture
def records(store: PostgreSQLStore) -> list[Record]:
    records = [make_record(variables={"user_id": number % 100, "name": str(number)}) for number in range(3_000)]
    store.write(records)
    return records


def plan_of(store: PostgreSQLStore, admin: Admin, query: Query, *, before: Record | None = None) -> str:
    statement, values = statement_of(store, query, before=before)
    rows = admin.execute(b"EXPLAIN " + statement.encode(), values).fetchall()
    return "\n".join(line for (line,) in rows)


def test_question_for_a_variable_reads_its_index(
    store: PostgreSQLStore, name: str, admin: Admin, records: list[Record]
) -> None:
    store.add_index("user_id")
    admin.execute(f'ANALYZE "{name}"'.encode())
    since, until = records[1_000].time_unix_nano, records[2_000].time_unix_nano
    for query in (
        Query(where={"user_id": 77}),
        Query(where={"user_id": 77}, since_unix_nano=since),
        Query(where={"user_id": 77}, since_unix_nano=since, until_unix_nano=until),
    ):
        for before in (None, records[1_500]):
            plan = plan_of(store, admin, query, before=before)
            assert f"{name}_by_user_id" in plan, plan
            assert "Seq Scan" not in plan, plan
            condition = plan.partition("Index Cond:")[2].partition("Filter:")[0]
            bounded = before is not None or query.since_unix_nano is not None
            assert ("time_unix_nano" in condition) == bounded, plan


def test_conditions_read_the_index(
    store: PostgreSQLStore, name: str, admin: Admin, records: list[Record]
) -> None:
    store.add_index("user_id")
    store.add_index("name")
    admin.execute(f'ANALYZE "{name}"'.encode())
    for variable, condition in (("user_id", one_of(7, 77)), ("name", ge("995")), ("name", one_of("7", None))):
        query = Query(conditions=((variable, condition),), limit=None)
        plan = plan_of(store, admin, query)
        assert f"{name}_by_{variable}" in plan, plan
        assert list(store.query(query)) == [record for record in records[::-1] if query.matches(record)]


def test_index_that_is_not_valid_is_made_again(
    store: PostgreSQLStore, name: str, admin: Admin, records: list[Record]
) -> None:
    store.add_index("user_id")
    admin.execute(
        f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}_by_user_id'::regclass".encode()
    )
    left = VariableIndex(variable="user_id", name=f"{name}_by_user_id", valid=False)
    assert store.indexes() == [left]
    assert len(list(store.query(Query(where={"user_id": 7})))) == 30
    assert store.add_index("user_id")
    assert [index.valid for index in store.indexes()] == [True]
    assert not store.add_index("user_id")


def test_what_others_have_made_is_not_touched(store: PostgreSQLStore, name: str, admin: Admin) -> None:
    admin.execute(f"CREATE INDEX {name}_mine ON {name} ((variables ->> 'user_id'))".encode())
    admin.execute(f"CREATE INDEX {name}_by_plan ON {name} ((variables ->> 'plan'))".encode())
    assert store.indexes() == []
    assert store.add_index("user_id")
    with pytest.raises(SchemaError, match=rf"has a '{name}_by_plan' that flask_chest did not make"):
        store.add_index("plan")
    assert not store.remove_index("plan")
    assert [index.variable for index in store.indexes()] == ["user_id"]
    rows = admin.execute("SELECT indexname FROM pg_indexes WHERE tablename = %s", (name,)).fetchall()
    assert {f"{name}_mine", f"{name}_by_plan"} <= {index for (index,) in rows}


@contextmanager
def _transaction_on(database: DatabaseServer, name: str) -> Iterator[None]:
    """Hold up whoever makes an index: it waits for transactions that have written before."""
    with closing(psycopg.connect(database.uri)) as connection:
        connection.execute(f"LOCK TABLE {name} IN ROW EXCLUSIVE MODE".encode())
        yield


def test_records_are_written_and_found_while_an_index_is_made(
    store: PostgreSQLStore,
    postgresql: DatabaseServer,
    make_store: Callable[..., PostgreSQLStore],
    name: str,
    records: list[Record],
) -> None:
    with ThreadPoolExecutor(1) as threads:
        with _transaction_on(postgresql, name):
            making = threads.submit(store.add_index, "user_id")
            other = make_store()
            wait_until(lambda: other.index_progress("user_id") is not None, seconds=PATIENCE)
            assert other.index_progress("other") is None
            more = [make_record(variables={"user_id": 77}) for _ in range(20)]
            for record in more:
                other.write([record])
            assert list(other.query(Query(where={"user_id": 77}, limit=20))) == more[::-1]
            assert [index.valid for index in other.indexes()] in ([], [False])
            assert not making.done()
        assert making.result(PATIENCE)
    assert [index.valid for index in store.indexes()] == [True]
    assert store.index_progress("user_id") is None
    found = list(store.query(Query(where={"user_id": 77}, limit=None)))
    assert len(found) == len(more) + sum(record.variables["user_id"] == 77 for record in records)


def test_index_that_another_process_makes_is_left_to_it(
    store: PostgreSQLStore, postgresql: DatabaseServer, make_store: Callable[..., PostgreSQLStore], name: str
) -> None:
    with ThreadPoolExecutor(1) as threads:
        with _transaction_on(postgresql, name):
            making = threads.submit(store.add_index, "user_id")
            other = make_store()
            wait_until(lambda: bool(other.indexes()), seconds=PATIENCE)
            with pytest.raises(StoreUnavailable, match="another process makes the index; try again later"):
                other.add_index("user_id")
        assert making.result(PATIENCE)
    assert not other.add_index("user_id")


def test_leftover_of_an_interrupted_build_is_made_again(
    store: PostgreSQLStore,
    postgresql: DatabaseServer,
    make_store: Callable[..., PostgreSQLStore],
    name: str,
    admin: Admin,
) -> None:
    with ThreadPoolExecutor(1) as threads, _transaction_on(postgresql, name):
        making = threads.submit(store.add_index, "user_id")
        other = make_store()
        wait_until(lambda: bool(other.indexes()), seconds=PATIENCE)
        admin.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_progress_create_index")
        assert isinstance(making.exception(PATIENCE), StoreUnavailable)
    assert [index.valid for index in store.indexes()] == [False]
    assert store.add_index("user_id")
    assert [index.valid for index in store.indexes()] == [True]


class _OneConnection:
    """An app's own pool, of one connection that begins transactions by itself."""

    def __init__(self, uri: str) -> None:
        self.only: Admin = psycopg.connect(uri, options="-c statement_timeout=70ms -c lock_timeout=80ms")

    @contextmanager
    def connection(self) -> Iterator[Admin]:
        with self.only.transaction():
            pass
        yield self.only


def test_limits_of_an_apps_own_pool_do_not_end_it_and_stay_as_they_were(
    store: PostgreSQLStore, postgresql: DatabaseServer, name: str, admin: Admin
) -> None:
    pool = _OneConnection(postgresql.uri)
    with closing(pool.only), ThreadPoolExecutor(1) as threads:
        own = PostgreSQLStore(name=name, pool=pool)
        with _transaction_on(postgresql, name):
            making = threads.submit(own.add_index, "user_id")
            waits = (
                "SELECT 1 FROM pg_stat_progress_create_index JOIN pg_stat_activity USING (pid)"
                " WHERE query_start < clock_timestamp() - interval '300 milliseconds'"
            )
            wait_until(lambda: admin.execute(waits).rowcount == 1, seconds=PATIENCE)
        assert making.result(PATIENCE)
        assert not pool.only.autocommit
        limits = [
            pool.only.execute(f"SHOW {each}".encode()).fetchone()
            for each in ("statement_timeout", "lock_timeout")
        ]
        assert limits == [("70ms",), ("80ms",)]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_JP"])
def test_answer_is_the_same_in_a_database_of_another_encoding(
    postgresql: DatabaseServer, admin: Admin, encoding: str
) -> None:
    database = f"in_{encoding.lower()}"
    sorts = "LC_COLLATE 'C' LC_CTYPE 'C'"
    admin.execute(f"CREATE DATABASE {database} TEMPLATE template0 ENCODING '{encoding}' {sorts}".encode())
    texts = ["", "a", "~", "\x7f", "é" * 200, "é" * 300, "é" * 299 + "x", "ÿ", "日本", "丂", "㐀", "ｱ", "ア", "¥"]
    with closing(PostgreSQLStore(postgresql.uri_with(database=database))) as store:
        store.open()
        store.add_index("v")
        records = []
        for text in texts:
            with suppress(RecordRefused):  # the encoding lacks it
                store.write([record := make_record(variables={"v": text})])
                records.append(record)
        assert len(records) > 5
        for text in texts:
            bounds = [("v", make(text)) for make in (gt, ge, lt, le, one_of)]
            for query in (Query(where={"v": text}), *(Query(conditions=(bound,)) for bound in bounds)):
                assert list(store.query(query)) == [each for each in records[::-1] if query.matches(each)], query
    admin.execute(f"DROP DATABASE {database}".encode())
