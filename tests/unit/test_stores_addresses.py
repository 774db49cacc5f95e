"""A store's address tells its journal apart from another's: mixed up, records go to the wrong place."""

from __future__ import annotations

from typing import Any

from psycopg_pool import ConnectionPool
from pymongo import MongoClient

from flask_chest.stores.mongodb import MongoDBStore
from flask_chest.stores.mysql import MySQLStore
from flask_chest.stores.postgresql import PostgreSQLStore

LOGIN = "shop:s3cret@"


def test_pools_of_two_postgresql_databases_have_two_addresses_without_the_login() -> None:
    pools = [ConnectionPool(f"postgresql://{LOGIN}host/{name}", open=False) for name in ("one", "two")]
    first, second = (PostgreSQLStore(pool=pool).address for pool in pools)
    assert (first, second) == (
        "postgresql:host:5432/one#flask_chest",
        "postgresql:host:5432/two#flask_chest",
    )


def test_pools_of_mysql_are_told_apart_by_the_uri_beside_them() -> None:
    pool: Any = object()
    addresses = [
        MySQLStore(uri, pool=pool).address for uri in ("", f"mysql://{LOGIN}host/one", f"mysql://{LOGIN}host/two")
    ]
    assert addresses == [
        "mysql:pool#flask_chest",
        "mysql:host:3306/one#flask_chest",
        "mysql:host:3306/two#flask_chest",
    ]


def test_clients_of_mongodb_are_told_apart_by_the_uri_beside_them() -> None:
    with MongoClient[Any](connect=False) as client:
        first, second = (MongoDBStore(f"mongodb://{LOGIN}{host}/app", client=client) for host in ("one", "two"))
        assert first.address == "mongodb:client:one:27017/app#flask_chest"
        assert second.address == "mongodb:client:two:27017/app#flask_chest"
        assert "one" not in repr(first)  # it is not known whether the client goes there
