"""A planned failover: for a while a store's connections lead to a server that takes no writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from queue import LifoQueue
from typing import Any

import psycopg
import pymysql
import pytest
from psycopg_pool import ConnectionPool
from pymongo.collection import Collection
from pymongo.errors import NotPrimaryError

from flask_chest.errors import StoreUnavailable
from flask_chest.stores.mongodb import MongoDBStore
from flask_chest.stores.mysql import MySQLStore
from flask_chest.stores.mysql.connections import Address
from flask_chest.stores.postgresql import PostgreSQLStore
from flask_chest.testing.records import make_record
from relay import Relay
from server_contract import ids, kept
from servers import DatabaseServer

_numbers = count()


@pytest.fixture
def name() -> str:
    return f"failover_{next(_numbers)}"


@contextmanager
def read_only_postgresql(server: DatabaseServer) -> Iterator[None]:
    """Give all sessions that begin meanwhile to a server that takes no writes."""
    with closing(psycopg.connect(server.uri, autocommit=True)) as admin:
        admin.execute(b"ALTER DATABASE chest SET default_transaction_read_only = on")
        try:
            yield
        finally:
            admin.execute(b"ALTER DATABASE chest RESET default_transaction_read_only")


def connect(server: DatabaseServer) -> pymysql.Connection[Any]:
    parameters: dict[str, Any] = {**Address(server.uri, {}).parameters, "autocommit": True}
    return pymysql.connect(**parameters)


@contextmanager
def read_only_mysql(server: DatabaseServer) -> Iterator[None]:
    variable = "tx_read_only" if server.scheme == "mariadb" else "transaction_read_only"
    with closing(connect(server)) as admin, admin.cursor() as cursor:
        cursor.execute(f"SET GLOBAL {variable} = ON")
        try:
            yield
        finally:
            cursor.execute(f"SET GLOBAL {variable} = OFF")


class MySQLPool:
    """Four connections, as an app may lend them; one that comes back closed is replaced."""

    def __init__(self, server: DatabaseServer) -> None:
        self._server = server
        self.idle: LifoQueue[pymysql.Connection[Any]] = LifoQueue()
        for _ in range(4):
            self.idle.put(connect(server))

    @contextmanager
    def connection(self) -> Iterator[pymysql.Connection[Any]]:
        connection = self.idle.get()
        try:
            yield connection
        finally:
            self.idle.put(connection if connection.open else connect(self._server))

    def close(self) -> None:
        while not self.idle.empty():
            self.idle.get().close()


def test_mongodb_is_connected_to_anew_after_a_write_to_what_is_no_longer_the_primary(
    mongodb: DatabaseServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make_record()
    with (
        Relay.to(mongodb.address) as relay,
        closing(MongoDBStore(mongodb.uri_with(address=relay.address), name=name)) as store,
    ):
        store.open()
        before = relay.passed
        with monkeypatch.context() as patched:
            patched.setattr(Collection, "insert_many", refuse)
            with pytest.raises(StoreUnavailable) as refused:
                store.write([record])
        assert str(refused.value).endswith(
            ": NotWritablePrimary (10107); try again; if this persists, point db_uri at the primary"
        )
        store.write([record])
        assert relay.passed > before
        assert kept(store) == [record]


def refuse(*_: object, **__: object) -> None:
    answer = {"ok": 0.0, "code": 10107, "codeName": "NotWritablePrimary", "errmsg": "not primary"}
    raise NotPrimaryError("not primary", answer)


def test_postgresql_is_written_at_once_when_only_the_old_connections_are_read_only(
    postgresql: DatabaseServer, name: str
) -> None:
    record = make_record()
    with closing(PostgreSQLStore(postgresql.uri, name=name)) as store:
        store.open()
        store.close()
        with read_only_postgresql(postgresql):
            store.status()
            with pytest.raises(StoreUnavailable) as refused:
                store.write([record])
            assert str(refused.value).endswith(
                "cannot execute SELECT FOR UPDATE in a read-only transaction; "
                "try again; if this persists, point the address at the server that takes writes"
            )
            store.status()
        store.write([record])
        assert kept(store) == [record]


def test_postgresql_is_written_through_a_pool_of_the_apps_whose_connections_are_all_read_only(
    postgresql: DatabaseServer, name: str
) -> None:
    record = make_record()
    with closing(PostgreSQLStore(postgresql.uri, name=name)) as store:
        store.open()
    with read_only_postgresql(postgresql):
        pool = ConnectionPool(postgresql.uri, min_size=4, open=True)
        pool.wait()
    with pool:
        given = PostgreSQLStore(pool=pool, name=name)
        given.write([record])
        assert kept(given) == [record]


def test_mysql_is_written_at_once_when_only_the_old_connections_are_read_only(
    mysql_server: DatabaseServer, name: str
) -> None:
    record = make_record()
    with closing(MySQLStore(mysql_server.uri, name=name)) as store:
        store.open()
        store.close()
        with read_only_mysql(mysql_server):
            store.status()
            with pytest.raises(StoreUnavailable, match=r"point the address at the server that takes writes$"):
                store.write([record])
            store.status()
        store.write([record])
        assert kept(store) == [record]


def test_mysql_is_written_through_a_pool_of_the_apps_whose_connections_are_all_read_only(
    mysql_server: DatabaseServer, name: str
) -> None:
    record = make_record()
    with closing(MySQLStore(mysql_server.uri, name=name)) as store:
        store.open()
    with read_only_mysql(mysql_server):
        pool = MySQLPool(mysql_server)
    with closing(pool):
        given = MySQLStore(pool=pool, name=name)
        given.write([record])
        assert ids(kept(given)) == [record.id]
