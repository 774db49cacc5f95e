"""What MongoDB's users get wrong, and what they are told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from pymongo import MongoClient

from flask_chest.errors import ConfigurationError, SchemaError, StoreAbsent, StoreError, StoreUnavailable
from flask_chest.record import Query
from flask_chest.stores.mongodb import MongoDBStore
from flask_chest.testing.records import make_record
from servers import DatabaseServer, free_port

_numbers = count()
COLLECTIONS = ("", "_exporters", "_rejected", "_deletions", "_schema")


@pytest.fixture
def name() -> str:
    return f"mistakes_{next(_numbers)}"


@pytest.fixture(params=["mongodb", "documentdb"])
def server(request: pytest.FixtureRequest) -> DatabaseServer:
    found: DatabaseServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def client(server: DatabaseServer) -> Iterator[MongoClient[Any]]:
    with MongoClient[Any](server.uri) as client:
        yield client


def told(store: MongoDBStore, kind: type[StoreError]) -> str:
    """Give what opening the store says."""
    with closing(store), pytest.raises(kind) as opening:
        store.open()
    return str(opening.value)


def test_host_that_does_not_exist_is_named(name: str) -> None:
    store = MongoDBStore("mongodb://u:hunter2@nowhere.invalid/db", name=name, connect_timeout=1.0)
    text = told(store, StoreUnavailable)
    assert text.startswith("MongoDB nowhere.invalid:27017/db: nowhere.invalid:27017: ")
    assert text.endswith("; see whether it runs, and whether its address is right")
    assert "hunter2" not in text


def test_port_where_nobody_listens_is_named(name: str) -> None:
    port = free_port()
    store = MongoDBStore(f"mongodb://u:hunter2@127.0.0.1:{port}/db", name=name, connect_timeout=1.0)
    text = told(store, StoreUnavailable)
    assert text.startswith(f"MongoDB 127.0.0.1:{port}/db: 127.0.0.1:{port}: ")
    assert "Connection refused" in text
    assert text.endswith("; see whether it runs, and whether its address is right")


def test_wrong_password_is_told_and_not_repeated(server: DatabaseServer, name: str) -> None:
    store = MongoDBStore(server.uri_with(password="hunter2"), name=name)
    text = told(store, StoreUnavailable)
    assert text == (
        f"MongoDB {server.address}/chest: AuthenticationFailed (18); correct the user or the password"
    )
    assert "hunter2" not in text + repr(store) + store.address


def test_collections_that_were_never_made_are_missed_and_not_made(
    server: DatabaseServer, client: MongoClient[Any], name: str
) -> None:
    where = f"the collections of '{name}' in MongoDB {server.address}/chest"
    with closing(MongoDBStore(server.uri, name=name)) as store:
        for use in (lambda: store.write([make_record()]), store.status, store.exporters):
            with pytest.raises(StoreAbsent) as absent:
                use()
            assert str(absent.value).startswith(f"{where} do not exist yet; they are made ")
    told(MongoDBStore(server.uri, name=name, create=False), StoreAbsent)
    assert [found for found in client["chest"].list_collection_names() if found.startswith(name)] == []


@pytest.fixture
def clerk(mongodb: DatabaseServer, name: str) -> Iterator[str]:
    """The URI of a user who may only read."""
    with MongoClient[Any](mongodb.uri) as client:
        client["chest"].command("createUser", f"clerk_{name}", pwd="pw", roles=["read"])
        yield mongodb.uri_with(user=f"clerk_{name}", password="pw").replace(
            "authSource=admin", "authSource=chest"
        )
        client["chest"].command("dropUser", f"clerk_{name}")


def test_user_who_may_not_write_is_told(clerk: str, mongodb: DatabaseServer, name: str) -> None:
    with closing(MongoDBStore(mongodb.uri, name=name)) as store:
        store.open()
    with closing(MongoDBStore(clerk, name=name)) as store, pytest.raises(StoreUnavailable) as refused:
        store.write([make_record()])
    text = str(refused.value)
    assert text.startswith(f"MongoDB {mongodb.address}/chest: Unauthorized (13)")
    assert text.endswith("; grant what docs/mongodb.md lists")


@pytest.mark.parametrize("ending", ["", "_schema"])
def test_collection_of_another_program_is_left_alone(
    server: DatabaseServer, client: MongoClient[Any], name: str, ending: str
) -> None:
    client["chest"][f"{name}{ending}"].insert_one({"_id": "schema", "program": "other"})
    assert told(MongoDBStore(server.uri, name=name), SchemaError) == (
        f"MongoDB {server.address}/chest has a collection '{name}{ending}' that flask_chest did not "
        "make; choose another name= for the chest, or another database"
    )


def test_collections_of_a_newer_release_are_left_alone(
    server: DatabaseServer, client: MongoClient[Any], name: str
) -> None:
    with closing(MongoDBStore(server.uri, name=name)) as store:
        store.open()
    client["chest"][f"{name}_schema"].update_one({"_id": "schema"}, {"$set": {"version": 99}})
    text = told(MongoDBStore(server.uri, name=name), SchemaError)
    assert "are of version 99" in text
    assert text.endswith("upgrade flask_chest")


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://u:hunter2@[h/db",
        "mongodb://u:hunter2@h:port/db",
        "mongodb://u:hun/ter2@h/db",
        "postgresql://u:hunter2@h/db",
        "x y",
    ],
)
def test_uri_that_is_none_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        MongoDBStore(uri)
    assert str(refused.value) == (
        "db_uri must be like mongodb://user:password@host:27017/database; got something else"
    )
    assert refused.value.__cause__ is None


def test_uri_without_a_database_is_told_so() -> None:
    with pytest.raises(ConfigurationError, match="db_uri names no database; it must be like mongodb://"):
        MongoDBStore("mongodb://u:hunter2@h")


@pytest.mark.parametrize("option", ["connect_timeout", "timeout"])
@pytest.mark.parametrize("seconds", [0, -1.0, 3601.0, float("nan"), float("inf")])
def test_times_must_be_times(option: str, seconds: float) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must be more than 0 and at most 3600 seconds, got "):
        MongoDBStore("mongodb://host/db", **{option: seconds})  # type: ignore[arg-type]  # one of several


def test_records_do_not_expire_at_once() -> None:
    with pytest.raises(ConfigurationError, match="expire_after must be more than 0, got "):
        MongoDBStore("mongodb://host/db", expire_after=timedelta(0))


@pytest.mark.parametrize("wrong", ["", "a$b", "a.b", "system.users", "a b", "ä", "x" * 80])
def test_name_must_be_a_plain_one(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="name must be"):
        MongoDBStore("mongodb://host/db", name=wrong)


def test_values_are_no_operators(server: DatabaseServer, name: str) -> None:
    record = make_record(
        request_id="$where",
        variables={"$gt": 1, "a.b": {"$ne": None, "c.d": [{"$set": 1}]}, "": "", "%24": "x", "e": "$$NOW"},
    )
    with closing(MongoDBStore(server.uri, name=name)) as store:
        store.open()
        store.write([record, make_record()])
        assert list(store.query(Query(request_id="$where"))) == [record]
        assert list(store.query(Query(where={"$gt": 1, "e": "$$NOW"}))) == [record]
        assert list(store.query(Query(where={"a.b": {"$ne": None}}))) == []


def test_ten_thousand_records_are_written_at_once(server: DatabaseServer, name: str) -> None:
    with closing(MongoDBStore(server.uri, name=name)) as store:
        store.open()
        store.write([make_record() for _ in range(10_000)])
        assert store.status().records == 10_000


def test_no_log_line_of_ours_holds_the_password(
    server: DatabaseServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with closing(MongoDBStore(server.uri, name=name)) as store:
        store.open()
        store.write([make_record()])
    told(MongoDBStore(server.uri_with(password="hunter2"), name=name), StoreUnavailable)
    assert server.password not in caplog.text
    assert "hunter2" not in caplog.text
