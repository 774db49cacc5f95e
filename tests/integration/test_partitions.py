"""Tables with partitions by time, in PostgreSQL, MySQL and MariaDB."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from types import MappingProxyType
from typing import Any

import msgspec
import psycopg
import pymysql
import pytest

from emptied_tables import TABLES, EmptiedTables
from flask_chest.errors import StoreUnavailable
from flask_chest.protocols import Claim
from flask_chest.record import Query, Record
from flask_chest.stores.mysql import MySQLStore
from flask_chest.stores.mysql.connections import Address
from flask_chest.stores.postgresql import PostgreSQLStore, partitions
from flask_chest.stores.sql import server
from flask_chest.stores.sql.server import ServerStore
from flask_chest.testing.contracts import (
    AggregationContract,
    DeletionContract,
    OutboxContract,
    StoreContract,
)
from flask_chest.testing.records import make_record
from servers import DatabaseServer, wait_until

DAY = 86_400_000_000_000
PATIENCE = 60.0
_numbers = count()

Make = Callable[..., ServerStore]


@pytest.fixture(params=["postgresql", "mysql", "mariadb"], scope="module")
def database(request: pytest.FixtureRequest) -> DatabaseServer:
    server: DatabaseServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def name() -> str:
    return f"parted_{next(_numbers)}"


@contextmanager
def making(database: DatabaseServer, name: str) -> Iterator[Make]:
    stores: list[ServerStore] = []

    def make(uri: str = "", **options: Any) -> ServerStore:
        kind = PostgreSQLStore if database.scheme == "postgresql" else MySQLStore
        stores.append(kind(uri or database.uri, **{"name": name, "partition": "day", **options}))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def make_store(database: DatabaseServer, name: str) -> Iterator[Make]:
    with making(database, name) as make:
        yield make


@pytest.fixture
def store(make_store: Make) -> ServerStore:
    store = make_store()
    store.open()
    return store


class _Admin:
    """Runs SQL as whoever owns the tables."""

    def __init__(self, database: DatabaseServer) -> None:
        self._connection: Any
        if database.scheme == "postgresql":
            self._connection = psycopg.connect(database.uri, autocommit=True)
        else:
            parameters: dict[str, Any] = {**Address(database.uri, {}).parameters, "autocommit": True}
            self._connection = pymysql.connect(**parameters)

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def admin(database: DatabaseServer) -> Iterator[_Admin]:
    with closing(_Admin(database)) as admin:
        yield admin


def kept(store: ServerStore) -> list[Record]:
    return list(store.query(Query(limit=None)))


def days_of(store: ServerStore) -> list[str]:
    """Give the ends of the names of the partitions that are for a day."""
    layout = store._partitions.layout()
    assert layout is not None
    return [each.name[-8:] for each in layout.partitions if each.kind == "span"]


def day(time_unix_nano: int) -> str:
    return datetime.fromtimestamp(time_unix_nano // 10**9, UTC).strftime("%Y%m%d")


def midnight(days: int = 0) -> int:
    """Give the begin of today, or of a day so many days later."""
    return (time.time_ns() // DAY + days) * DAY


class TestPartitionedStore(EmptiedTables, StoreContract, OutboxContract, DeletionContract, AggregationContract):
    """Does what every store does."""

    options = MappingProxyType({"partition": "day"})

    def test_same_id_of_another_day_is_kept_once(self, store: ServerStore) -> None:
        first = make_record()
        other = make_record(id=first.id, time_unix_nano=midnight(-3))
        store.write([first])
        store.write([other, make_record(id=first.id, time_unix_nano=first.time_unix_nano + DAY)])
        store.write([first])
        assert kept(store) == [first]

    def test_batch_with_many_others_between_its_ids_is_kept_once(
        self, store: ServerStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "MOST_AMONG", 2)
        first, *others, last = (make_record(id=f"{number:08}") for number in range(5))
        store.write([first, last])
        store.write([*others, first])
        store.write([make_record(id=each.id, time_unix_nano=midnight(-3)) for each in [*others, last]])
        assert sorted(kept(store), key=lambda each: each.id) == [first, *others, last]


def test_late_record_gets_a_partition_and_outliers_share_two(store: ServerStore) -> None:
    assert day(midnight(7)) in days_of(store)
    before = days_of(store)
    outliers = [make_record(time_unix_nano=(year - 1970) * 365 * DAY + 1) for year in (1971, 1999, 2201)]
    store.write([make_record(), *outliers])
    assert days_of(store) == before
    late, ahead = make_record(time_unix_nano=midnight(-40) + 1), make_record(time_unix_nano=midnight(60))
    store.write([late, ahead])
    assert sorted(days_of(store)) == sorted([day(midnight(-40)), *before, day(midnight(60))])
    assert store.status().records == 6
    assert [each in kept(store) for each in (late, ahead, *outliers)] == [True] * 5


def test_clock_that_jumps_a_week_ahead_and_back_loses_nothing(store: ServerStore) -> None:
    records = [make_record(time_unix_nano=midnight(days) + 1) for days in (0, 9, 16, 0, 10)]
    for record in records:
        store.write([record])
    assert len(kept(store)) == 5
    assert {day(midnight(days)) for days in (9, 10, 16)} <= set(days_of(store))


def test_two_writers_make_the_same_partition_at_once(make_store: Make, store: ServerStore) -> None:
    stores = [make_store() for _ in range(4)]
    for each in stores:
        each.write([make_record()])
    start = threading.Barrier(4)

    def write(number: int) -> None:
        start.wait(PATIENCE)
        stores[number].write([make_record(time_unix_nano=midnight(30) + number)])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    assert len(kept(store)) == 8
    assert days_of(store).count(day(midnight(30))) == 1


def test_record_is_stored_while_a_reader_takes_its_time(
    store: ServerStore, database: DatabaseServer, name: str
) -> None:
    with closing(_Admin(database)) as reader:
        reader.run("BEGIN")
        reader.run(f"SELECT count(*) FROM {name}")
        late = make_record(time_unix_nano=midnight(-20))
        began = time.monotonic()
        store.write([late])
        assert time.monotonic() - began < PATIENCE / 4
        reader.run("ROLLBACK")
    assert kept(store) == [late]
    store._partitions.look_again()
    store.write([make_record(time_unix_nano=midnight(-20) + 1)])
    assert day(midnight(-20)) in days_of(store)


def test_retention_drops_what_every_exporter_has_had(store: ServerStore) -> None:
    old, pending, new = (make_record(time_unix_nano=midnight(days)) for days in (-9, -8, 0))
    store.write([old])
    claim = store.claim("a", limit=10, lease=timedelta(minutes=1))
    assert isinstance(claim, Claim)
    assert store.acknowledge(claim, rejected={old.id: "too long"})
    store.write([pending, new])
    assert store.prune(midnight(-2), limit=1_000) == 1
    assert kept(store) == [new, pending]
    assert list(store.rejections("a")) == []
    assert day(midnight(-9)) not in days_of(store)
    assert day(midnight(-8)) in days_of(store)
    assert store.prune(midnight(-2), limit=1_000, keep_unexported=False) == 1
    assert kept(store) == [new]
    dropped = store.dropped
    store.write([old, pending])
    assert store.dropped == dropped + 2


def test_prune_deletes_whole_days_alone(store: ServerStore) -> None:
    begin = midnight(-2)
    older, first, last = (make_record(time_unix_nano=begin + step) for step in (-1, 0, DAY - 1))
    store.write([first, last, older])
    for before in (begin, begin + 1, begin + DAY - 1):
        assert store.reach(before) == begin
    assert store.prune(begin + DAY - 1, limit=1) == 1
    assert kept(store) == [last, first]
    cut_off = store.cut_off()
    assert cut_off is not None
    assert cut_off.before_unix_nano == begin
    assert store.prune(begin + DAY, limit=1) == 2
    store.write([older, first, last])
    assert kept(store) == []


def test_retention_waits_for_a_reader_no_longer_than_it_may(
    store: ServerStore, database: DatabaseServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "_DETACH_SECONDS", 1.0)
    old, new = make_record(time_unix_nano=midnight(-9)), make_record()
    store.write([old, new])
    with closing(_Admin(database)) as reader:
        reader.run("BEGIN")
        reader.run(f"SELECT count(*) FROM {name}")
        assert store.prune(midnight(-2), limit=1_000) == 0
        store.write([make_record()])
        reader.run("ROLLBACK")
    wait_until(lambda: store.prune(midnight(-1), limit=1_000) >= 0 and len(kept(store)) == 2, seconds=PATIENCE)
    assert day(midnight(-9)) not in days_of(store)
    if database.scheme == "postgresql":  # nothing is left of what was only detached
        store.write([make_record(time_unix_nano=midnight(-1))])
        store.prune(midnight(), limit=1_000)
        with closing(_Admin(database)) as admin:
            rows = admin.run(f"SELECT relname FROM pg_class WHERE relname = '{name}_d{day(midnight(-9))}'")
        assert rows == []


def grant_records(admin: _Admin, database: DatabaseServer, name: str) -> str:
    """Make a user who may read and write records, and nothing else; give their URI."""
    user = f"clerk_{name}"
    tables = [name + end for end in ("", *(f"_{table}" for table in TABLES[1:]), "_schema")]
    if database.scheme == "postgresql":
        admin.run(f"CREATE ROLE {user} LOGIN PASSWORD 'pw'")
        admin.run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(tables)} TO {user}")
        admin.run("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    else:
        admin.run(f"CREATE USER '{user}'@'%' IDENTIFIED BY 'pw'")
        for table in tables:
            admin.run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON chest.{table} TO '{user}'@'%'")
    return database.uri_with(user=user, password="pw")


@pytest.mark.parametrize("create", [True, False])
def test_account_that_may_change_no_table_says_so_and_loses_nothing(
    store: ServerStore,
    make_store: Make,
    database: DatabaseServer,
    admin: _Admin,
    name: str,
    caplog: pytest.LogCaptureFixture,
    create: bool,
) -> None:
    clerk = make_store(grant_records(admin, database, name), create=create)
    clerk.write([make_record()])
    late = make_record(time_unix_nano=midnight(-20))
    with caplog.at_level(logging.WARNING, "flask_chest.stores"):
        if database.scheme == "postgresql":
            with pytest.raises(StoreUnavailable, match="has no partition for records of") as refusal:
                clerk.write([late])
            for statement in str(refusal.value).partition("as that role ")[2].split("; "):
                admin.run(statement)
        clerk.write([late])
    assert len(kept(store)) == 2
    assert ("cannot be made" in caplog.text) == create
    # Who may not drop a partition deletes what is in it.
    if not create:
        assert clerk.prune(midnight(-2), limit=1_000) == 1


@pytest.mark.parametrize(("there", "asked"), [(None, "day"), ("day", None), ("day", "week")])
def test_table_stays_as_it_was_made_whatever_is_asked_for(
    make_store: Make, caplog: pytest.LogCaptureFixture, there: str | None, asked: str | None
) -> None:
    make_store(partition=there).open()
    other = make_store(partition=asked)
    with caplog.at_level(logging.WARNING, "flask_chest.stores"):
        other.open()
        other.write([make_record(), make_record(time_unix_nano=midnight(-30))])
    assert (other.partitions().by, other.partitions().wanted) == (there, asked)
    assert len(kept(other)) == 2
    assert ("partition is 'day', but the table" in caplog.text) == (there is None)


def test_statements_are_told_that_make_what_is_missing(store: ServerStore, admin: _Admin) -> None:
    layout = store._partitions.layout()
    assert layout is not None
    assert store.partitions_sql() == ""
    last = next(each for each in layout.partitions if each.name.endswith(day(midnight(7))))
    assert store._partitions.drop(last)
    if isinstance(store, MySQLStore):  # there, what follows has taken its place
        assert store.partitions_sql().startswith("ALTER TABLE")
    for statement in store.partitions_sql().split(";\n")[:-1]:
        admin.run(statement)
    assert store.partitions_sql() == ""
    assert days_of(store)[-1] == day(midnight(7))


def test_index_is_made_by_hand_on_each_partition(store: ServerStore, admin: _Admin) -> None:
    records = [make_record(variables={"user_id": 7}, time_unix_nano=midnight(-days)) for days in range(3)]
    store.write(records)
    for statement in store.index_sql("user_id").split(";\n")[:-1]:
        admin.run(statement)
    assert [(index.variable, index.valid) for index in store.indexes()] == [("user_id", True)]
    assert not store.add_index("user_id")
    assert list(store.query(Query(where={"user_id": 7}))) == records


@pytest.mark.parametrize("by_hand", [False, True], ids=["by the store", "by hand"])
def test_index_that_was_interrupted_is_listed_and_made_on_the_rest(
    store: ServerStore, admin: _Admin, by_hand: bool
) -> None:
    store.write([make_record(variables={"user_id": number % 5}) for number in range(100)])
    assert store.add_index("user_id")
    (index,) = store.indexes()
    if isinstance(store, PostgreSQLStore):
        ((definition,),) = admin.run(f"SELECT pg_get_indexdef('{index.name}'::regclass)")
        store.remove_index("user_id")
        assert "ON ONLY" in definition
        admin.run(definition)
    else:
        admin.run(f"ALTER TABLE {store._tables.name} DROP INDEX {index.name}")
    assert store.indexes() == [msgspec.structs.replace(index, valid=False)]
    late = make_record(variables={"user_id": 7}, time_unix_nano=midnight(-50))
    store.write([late])
    for statement in store.index_sql("user_id").split(";\n")[:-1] if by_hand else ():
        admin.run(statement)
    assert store.add_index("user_id") is not by_hand
    assert store.indexes() == [index]
    assert store.index_sql("user_id") == ""
    store.write([make_record(time_unix_nano=midnight(-51))])
    assert store.indexes() == [index]
    assert list(store.query(Query(where={"user_id": 7}))) == [late]
    assert len(list(store.query(Query(where={"user_id": 4}, limit=None)))) == 20
