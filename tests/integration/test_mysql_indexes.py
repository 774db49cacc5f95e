"""Indexes on variables in MySQL and MariaDB: which questions read them, and what happens beside their making."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from itertools import count
from typing import Any

import pymysql
import pytest
from pymysql.cursors import Cursor

from flask_chest.errors import SchemaError, StoreUnavailable
from flask_chest.protocols import VariableIndex
from flask_chest.record import Query, Record, ge, one_of
from flask_chest.stores.mysql import MySQLStore
from flask_chest.stores.mysql.connections import Address, Connection
from flask_chest.testing.records import make_record
from plans import statement_of
from server_contract import ids
from servers import DatabaseServer, wait_until

_numbers = count()
PATIENCE = 60.0


@pytest.fixture(params=["mysql", "mariadb"], scope="session")
def database(request: pytest.FixtureRequest) -> DatabaseServer:
    server: DatabaseServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def name() -> str:
    return f"indexed_{next(_numbers)}"


@pytest.fixture
def make_store(database: DatabaseServer, name: str) -> Iterator[Callable[..., MySQLStore]]:
    stores: list[MySQLStore] = []

    def make(**options: Any) -> MySQLStore:
        stores.append(MySQLStore(database.uri, name=name, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(make_store: Callable[..., MySQLStore]) -> MySQLStore:
    store = make_store()
    store.open()
    return store


def _connect(database: DatabaseServer, **options: Any) -> Connection:
    parameters: dict[str, Any] = {**Address(database.uri, {}).parameters, "autocommit": True, **options}
    return pymysql.connect(**parameters)


@pytest.fixture
def admin(database: DatabaseServer) -> Iterator[Cursor]:
    with closing(_connect(database)) as connection, connection.cursor() as cursor:
        if database.scheme == "mysql":
            cursor.execute("SET SESSION explain_format = 'TRADITIONAL'")
        yield cursor


@pytest.fixture
def records(store: MySQLStore) -> list[Record]:
    records = [make_record(variables={"user_id": number % 100, "name": str(number)}) for number in range(3_000)]
    store.write(records)
    return records


def plan_of(store: MySQLStore, admin: Cursor, query: Query, *, before: Record | None = None) -> dict[str, Any]:
    statement, values = statement_of(store, query, before=before)
    admin.execute("EXPLAIN " + statement, values)
    columns = [column[0] for column in admin.description]
    (row,) = admin.fetchall()
    return dict(zip(columns, row, strict=True))


def test_question_for_a_variable_reads_its_index(
    store: MySQLStore, name: str, admin: Cursor, records: list[Record]
) -> None:
    store.add_index("user_id")
    admin.execute(f"ANALYZE TABLE `{name}`")
    since, until = records[1_000].time_unix_nano, records[2_000].time_unix_nano
    for query in (
        Query(where={"user_id": 77}),
        Query(where={"user_id": 77}, since_unix_nano=since),
        Query(where={"user_id": 77}, since_unix_nano=since, until_unix_nano=until),
    ):
        for before in (None, records[1_500]):
            plan = plan_of(store, admin, query, before=before)
            assert plan["key"] == f"{name}_by_user_id", plan
            assert int(plan["rows"]) <= 60, plan


def test_conditions_read_the_index(store: MySQLStore, name: str, admin: Cursor, records: list[Record]) -> None:
    store.add_index("user_id")
    store.add_index("name")
    admin.execute(f"ANALYZE TABLE `{name}`")
    for variable, condition in (("user_id", one_of(7, 77)), ("name", ge("995")), ("name", one_of("7", None))):
        query = Query(conditions=((variable, condition),), limit=None)
        plan = plan_of(store, admin, query)
        assert plan["key"] == f"{name}_by_{variable}", plan
        assert list(store.query(query)) == [record for record in records[::-1] if query.matches(record)]


def test_column_whose_index_was_not_made_gets_it(
    store: MySQLStore, name: str, admin: Cursor, records: list[Record]
) -> None:
    store.add_index("user_id")
    admin.execute(f"ALTER TABLE `{name}` DROP INDEX `{name}_by_user_id`")
    left = VariableIndex(variable="user_id", name=f"{name}_by_user_id", valid=False)
    assert store.indexes() == [left]
    assert len(list(store.query(Query(where={"user_id": 7})))) == 30
    assert store.add_index("user_id")
    assert [index.valid for index in store.indexes()] == [True]
    admin.execute(f"ALTER TABLE `{name}` DROP INDEX `{name}_by_user_id`")
    assert store.remove_index("user_id")
    assert store.indexes() == []


def test_what_others_have_made_is_not_touched(store: MySQLStore, name: str, admin: Cursor) -> None:
    admin.execute(f"ALTER TABLE `{name}` ADD COLUMN `{name}_by_plan` int GENERATED ALWAYS AS (1) VIRTUAL")
    admin.execute(f"ALTER TABLE `{name}` ADD INDEX `{name}_by_country` (method)")
    for variable in ("plan", "country"):
        with pytest.raises(SchemaError, match=rf"has a '{name}_by_{variable}' that flask_chest did not make"):
            store.add_index(variable)
        assert not store.remove_index(variable)
    assert store.indexes() == []
    admin.execute(f"SHOW CREATE TABLE `{name}`")
    ((_, made),) = admin.fetchall()
    assert f"`{name}_by_plan`" in made
    assert f"`{name}_by_country`" in made


def test_records_are_written_and_found_while_indexes_come_and_go(
    store: MySQLStore, make_store: Callable[..., MySQLStore], records: list[Record]
) -> None:
    more: list[Record] = []
    expected = [record for record in records if record.variables["user_id"] == 77]
    other = make_store()

    def come_and_go() -> int:
        rounds = 0
        while rounds < 6 or len(more) < 6:
            assert store.add_index("user_id")
            assert store.remove_index("user_id")
            rounds += 1
        return rounds

    with ThreadPoolExecutor(1) as threads:
        making = threads.submit(come_and_go)
        while not making.done():
            more.append(make_record(variables={"user_id": 77}))
            other.write([more[-1]])
            found = list(other.query(Query(where={"user_id": 77}, limit=None)))
            assert ids(found) == ids([*expected, *more])
        assert making.result() >= 6


def test_limit_of_a_statement_does_not_end_it(
    store: MySQLStore, make_store: Callable[..., MySQLStore], database: DatabaseServer, name: str, admin: Cursor
) -> None:
    impatient = make_store(statement_timeout=1.0, lock_timeout=30.0)
    with ThreadPoolExecutor(1) as threads, closing(_connect(database)) as connection:
        connection.begin()
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT 1 FROM `{name}`")  # whoever changes the table waits for the transaction
        making = threads.submit(impatient.add_index, "user_id")

        def waits() -> bool:
            admin.execute(
                "SELECT 1 FROM information_schema.processlist WHERE info LIKE '%ALTER TABLE%' AND time >= 2"
                " AND id <> connection_id()"
            )
            return bool(admin.fetchall())

        wait_until(waits, seconds=PATIENCE)
        connection.rollback()
        assert making.result(PATIENCE)


def test_settings_of_an_apps_own_pool_stay_as_they_were(
    store: MySQLStore, database: DatabaseServer, name: str
) -> None:
    class OneConnection:
        def __init__(self) -> None:
            self.only = _connect(database, read_timeout=7)

        @contextmanager
        def connection(self) -> Iterator[Connection]:
            yield self.only

    def settings(cursor: Cursor) -> Any:
        cursor.execute("SELECT @@lock_wait_timeout, @@wait_timeout, @@sql_mode, @@autocommit")
        return cursor.fetchall(), vars(pool.only)["_read_timeout"]

    pool = OneConnection()
    with closing(pool.only), pool.only.cursor() as cursor:
        before = settings(cursor)
        own = MySQLStore(name=name, pool=pool)
        assert own.add_index("user_id")
        assert settings(cursor) == before
        assert own.remove_index("user_id")
        assert settings(cursor) == before


def test_index_that_others_make_meanwhile_is_not_taken_for_a_foreign_one(
    make_store: Callable[..., MySQLStore], records: list[Record]
) -> None:
    stores = [make_store() for _ in range(4)]
    for lag in [number / 1_000 for number in range(12)]:

        def add(number: int, lag: float = lag) -> bool:
            time.sleep(number * lag)  # each looks at another moment of what the first does
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                with suppress(StoreUnavailable):  # the two got in the way
                    return stores[number].add_index("user_id")
            raise TimeoutError

        with ThreadPoolExecutor(len(stores)) as threads:
            assert any(list(threads.map(add, range(len(stores)))))
        assert stores[0].remove_index("user_id")
