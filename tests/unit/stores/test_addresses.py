"""A store's address tells its journal apart from another's: mixed up, records go to the wrong place."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from psycopg_pool import ConnectionPool
from pymongo import MongoClient

from flask_chest.protocols import Identified
from flask_chest.stores.mongodb import MongoDBStore
from flask_chest.stores.mysql import MySQLStore
from flask_chest.stores.postgresql import PostgreSQLStore
from flask_chest.stores.sqlite import SQLiteStore

LOGIN = "shop:s3cret@"


def test_pools_of_two_postgresql_databases_have_two_addresses_without_the_login() -> None:
    pools = [ConnectionPool(f"postgresql://{LOGIN}host/{name}", open=False) for name in ("one", "two")]
    first, second = (PostgreSQLStore(pool=pool).place for pool in pools)
    assert (first, second) == (
        "postgresql:host:5432/one#flask_chest",
        "postgresql:host:5432/two#flask_chest",
    )


def test_pools_of_mysql_are_told_apart_by_the_uri_beside_them() -> None:
    pool: Any = object()
    addresses = [
        MySQLStore(uri, pool=pool).place for uri in ("", f"mysql://{LOGIN}host/one", f"mysql://{LOGIN}host/two")
    ]
    assert addresses == [
        "mysql:pool#flask_chest",
        "mysql:host:3306/one#flask_chest",
        "mysql:host:3306/two#flask_chest",
    ]


def test_clients_of_mongodb_are_told_apart_by_the_uri_beside_them() -> None:
    with MongoClient[Any](connect=False) as client:
        first, second = (MongoDBStore(f"mongodb://{LOGIN}{host}/app", client=client) for host in ("one", "two"))
        assert first.place == "mongodb:client:one:27017/app#flask_chest"
        assert second.place == "mongodb:client:two:27017/app#flask_chest"
        assert "one" not in repr(first)  # it is not known whether the client goes there


def pool(conninfo: str | Callable[[], str] = "", **kwargs: str) -> Any:
    return ConnectionPool(conninfo, kwargs=kwargs, open=False)


def client(host: str) -> Any:
    return MongoClient[Any](host, connect=False)


def refuse() -> str:
    raise LookupError("no token today")


APART: dict[str, Callable[[str], Identified]] = {
    "a role": lambda each: PostgreSQLStore(f"postgresql://{each}@host/app"),
    "a search path": lambda each: PostgreSQLStore("postgresql://host/app", options=f"-csearch_path={each}"),
    "a service": lambda each: PostgreSQLStore(f"service={each}"),
    "the address of a host": lambda each: PostgreSQLStore("host=db dbname=app", hostaddr=f"10.0.0.{len(each)}"),
    "what a pool connects to": lambda each: PostgreSQLStore(pool=pool(f"host=db dbname={each}")),
    "a pool's arguments": lambda each: PostgreSQLStore(pool=pool(host="db", dbname=each)),
    "a pool's function": lambda each: PostgreSQLStore(pool=pool(lambda: f"host=db dbname={each}")),
    "a pool's role": lambda each: PostgreSQLStore(pool=pool("host=db dbname=app", user=each)),
    "the URI beside a pool whose function fails": lambda each: PostgreSQLStore(f"host={each}", pool=pool(refuse)),
    "what is said beside a pool": lambda each: PostgreSQLStore(
        f"postgresql:///?options=-csearch_path%3D{each}", pool=pool("dbname=a")
    ),
    "a user of MySQL": lambda each: MySQLStore(f"mysql://{each}@host/app"),
    "an option file": lambda each: MySQLStore("mysql://host/app", read_default_file=f"/etc/{each}.cnf"),
    "a group of an option file": lambda each: MySQLStore("mysql://host/app", read_default_group=each),
    "a first command": lambda each: MySQLStore("mysql://host/app", init_command=f"USE {each}"),
    "a replica set": lambda each: MongoDBStore(f"mongodb://host/app?replicaSet={each}"),
    "an option of MongoDB": lambda each: MongoDBStore("mongodb://host/app", options={"replicaSet": each}),
    "a client of the app's own": lambda each: MongoDBStore(client=client(each), database="app"),
}


@pytest.mark.parametrize("make", APART.values(), ids=APART.keys())
def test_stores_are_apart_by_all_that_chooses_their_tables(make: Callable[[str], Identified]) -> None:
    first, second, again = (make(each).address for each in ("one", "another", "one"))
    assert first == again
    assert first != second


@pytest.mark.parametrize(
    ("variable", "value"), [("PGUSER", "one"), ("PGSERVICE", "one"), ("PGOPTIONS", "-csearch_path=one")]
)
def test_stores_are_apart_by_libpqs_own_variables(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    store = PostgreSQLStore("postgresql://host/app")
    without = store.address
    monkeypatch.setenv(variable, value)
    assert store.address != without


@pytest.mark.parametrize(
    "make",
    [
        lambda password: PostgreSQLStore(f"postgresql://shop:{password}@host/app"),
        lambda password: PostgreSQLStore("postgresql://shop@host/app", password=password),
        lambda password: PostgreSQLStore("host=h user=shop", sslpassword=password, application_name=password),
        lambda password: PostgreSQLStore(pool=pool("host=h user=shop", password=password)),
        lambda password: PostgreSQLStore(pool=pool(lambda: f"host=h user=shop password={password}")),
        lambda password: MySQLStore(f"mysql://shop:{password}@host/app"),
        lambda password: MySQLStore("mysql://shop@host/app", password=password, ssl_key_password=password),
        lambda password: MongoDBStore(f"mongodb://shop:{password}@host/app"),
        lambda password: MongoDBStore("mongodb://host/app", options={"tlsCertificateKeyFilePassword": password}),
    ],
)
def test_password_makes_no_difference_to_an_address_from_which_it_could_be_guessed(
    make: Callable[[str], Identified],
) -> None:
    assert make("hunter2").address == make("correct-horse").address


def test_sqlite_file_is_the_one_to_which_links_lead(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    linked, direct = SQLiteStore(tmp_path / "link" / "chest.db"), SQLiteStore(tmp_path / "there" / "chest.db")
    assert linked.address == direct.address == linked.place


def test_id_of_a_store_is_made_with_its_tables_and_goes_with_a_copy(tmp_path: Path) -> None:
    one, other, copy = (SQLiteStore(tmp_path / f"{name}.db") for name in ("one", "other", "copy"))
    with closing(other), closing(copy):
        for store in (one, other):
            store.open()
        assert re.fullmatch("[0-9a-f]{32}", str(one.store_id))
        assert one.store_id != other.store_id
        one.close()
        shutil.copy(tmp_path / "one.db", tmp_path / "copy.db")
        assert copy.status().records == 0
        assert copy.store_id == one.store_id
        assert copy.address != one.address
