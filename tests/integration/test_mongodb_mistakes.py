"""What MongoDB's users get wrong, and what they are told."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from itertools import count
from typing import Any
from urllib.parse import quote

import pytest
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from causes import chain
from flask_chest.errors import (
    RecordRefused,
    SchemaError,
    StoreAbsent,
    StoreError,
    StoreUnavailable,
)
from flask_chest.protocols import Claim
from flask_chest.record import Query
from flask_chest.stores.mongodb import MongoDBStore
from flask_chest.testing.records import make_record
from mongodb_commands import Commands
from servers import DatabaseServer, free_port

COMPLAINT = (
    "db_uri must be like mongodb://user:password@host:27017/database; got something else"
    " (in user and password : / ? # % and @ are written as %3A %2F %3F %23 %25 and %40)"
)
SECOND = 1.0
_numbers = count()


@pytest.fixture(params=["mongodb", "documentdb"], scope="session")
def database(request: pytest.FixtureRequest) -> DatabaseServer:
    server: DatabaseServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def name() -> str:
    return f"mistakes_{next(_numbers)}"


@pytest.fixture
def admin(database: DatabaseServer) -> Iterator[MongoClient[Any]]:
    with MongoClient[Any](database.uri) as client:
        yield client


def told(store: MongoDBStore, kind: type[StoreError]) -> str:
    """Give what opening the store says."""
    with closing(store), pytest.raises(kind) as opening:
        store.open()
    return str(opening.value)


def make_collections(database: DatabaseServer, name: str) -> None:
    with closing(MongoDBStore(database.uri, name=name)) as store:
        store.open()


def make_user(database: DatabaseServer, name: str, password: str, role: Mapping[str, str]) -> str:
    """Make a user of this *role*; give the URI with which he connects."""
    with MongoClient[Any](database.uri) as client:
        client["chest"].command("createUser", name, pwd=password, roles=[role])
    return f"mongodb://{name}:{quote(password, safe='')}@{database.address}/chest"


@pytest.mark.parametrize("host", ["nowhere.invalid", "two..dots"])
def test_host_that_does_not_exist_is_named(host: str, name: str) -> None:
    store = MongoDBStore(f"mongodb://u:hunter2@{host}/db", name=name, connect_timeout=SECOND)
    text = told(store, StoreUnavailable)
    assert text.startswith(f"MongoDB {host}:27017/db: ")
    assert text.endswith("; see whether it runs, and whether its address is right")
    assert text.count(";") == 1
    assert "hunter2" not in text


def test_port_where_nobody_listens_is_named(name: str) -> None:
    port = free_port()
    store = MongoDBStore(f"mongodb://u:hunter2@127.0.0.1:{port}/db", name=name, connect_timeout=SECOND)
    assert told(store, StoreUnavailable) == (
        f"MongoDB 127.0.0.1:{port}/db: 127.0.0.1:{port}: [Errno 111] Connection refused; "
        "see whether it runs, and whether its address is right"
    )


def test_wrong_password_is_told_and_not_repeated(database: DatabaseServer, name: str) -> None:
    for uri in (database.uri_with(password="hunter2"), database.uri_with(user="nobody", password="hunter2")):
        store = MongoDBStore(uri, name=name)
        text = told(store, StoreUnavailable)
        assert text == (
            f"MongoDB {database.address}/chest: AuthenticationFailed (18); correct the user or the password"
        )
        assert "hunter2" not in repr(store) + store.address


def test_password_may_hold_any_letters(mongodb: DatabaseServer, name: str) -> None:
    uri = make_user(mongodb, name, "pä/ß?#@:%'\"\\ п", {"role": "readWrite", "db": "chest"})
    with closing(MongoDBStore(uri, name=name)) as store:
        store.open()


def test_password_that_the_protocol_does_not_allow_is_told(database: DatabaseServer, name: str) -> None:
    store = MongoDBStore(database.uri_with(password=quote("hunter2\U0001f600")), name=name)
    assert told(store, StoreUnavailable) == (
        f"MongoDB {database.address}/chest: SASLprep: failed prohibited character check; "
        "correct the user or the password"
    )


def test_missing_login_is_told(database: DatabaseServer, name: str) -> None:
    assert told(MongoDBStore(f"mongodb://{database.address}/chest", name=name), StoreUnavailable) == (
        f"MongoDB {database.address}/chest: Unauthorized (13); grant what docs/mongodb.md lists"
    )


def test_user_without_grants_is_told(mongodb: DatabaseServer, name: str) -> None:
    uri = make_user(mongodb, name, "pw", {"role": "readWrite", "db": "elsewhere"})
    for create in (True, False):
        assert told(MongoDBStore(uri, name=name, create=create), StoreUnavailable) == (
            f"MongoDB {mongodb.address}/chest: Unauthorized (13); grant what docs/mongodb.md lists"
        )


def test_user_who_may_only_read_is_told_when_he_writes(mongodb: DatabaseServer, name: str) -> None:
    advice = f"MongoDB {mongodb.address}/chest: Unauthorized (13); grant what docs/mongodb.md lists"
    uri = make_user(mongodb, name, "pw", {"role": "read", "db": "chest"})
    assert told(MongoDBStore(uri, name=name), StoreUnavailable) == advice
    make_collections(mongodb, name)
    with closing(MongoDBStore(uri, name=name, create=False)) as store:
        store.open()
        assert store.status().records == 0
        with pytest.raises(StoreUnavailable) as refused:
            store.write([make_record(variables={"v": "a value"})])
    assert str(refused.value) == advice


def test_role_for_reading_and_writing_is_enough(mongodb: DatabaseServer, name: str) -> None:
    uri = make_user(mongodb, name, "pw", {"role": "readWrite", "db": "chest"})
    with closing(MongoDBStore(uri, name=name)) as store:
        store.open()
        store.write([make_record()])
        store.register("a")
        assert store.status().records == 1
        assert store.forget(Query()) == 1


def test_collections_that_were_never_made_are_missed_and_not_made(
    database: DatabaseServer, admin: MongoClient[Any], name: str
) -> None:
    where = f"the collections of '{name}' in MongoDB {database.address}/chest"
    with closing(MongoDBStore(database.uri, name=name)) as store:
        for use in (lambda: store.write([make_record()]), store.status, store.exporters):
            with pytest.raises(StoreAbsent) as absent:
                use()
            assert (
                str(absent.value) == f"{where} do not exist yet; they are made when the first record is written"
            )
    with closing(MongoDBStore(database.uri, name=name, create=False)) as store:
        for use in (store.open, lambda: store.write([make_record()])):
            with pytest.raises(StoreAbsent) as absent:
                use()
            assert str(absent.value) == (
                f"{where} do not exist yet; they are made by a store that may, with create=True"
            )
    assert [each for each in admin["chest"].list_collection_names() if each.startswith(name)] == []


@pytest.mark.parametrize(
    ("ending", "document"),
    [
        ("", {"unique_id": "x"}),
        ("_exporters", {"_id": "x"}),
        ("_schema", {"_id": "x", "program": "flask_chest", "version": 1}),
        ("_schema", {"_id": "schema", "program": "other", "version": 1}),
    ],
)
def test_collection_of_another_program_is_left_alone(
    database: DatabaseServer, admin: MongoClient[Any], name: str, ending: str, document: dict[str, Any]
) -> None:
    admin["chest"][name + ending].insert_one(document)
    for create in (True, False):
        assert told(MongoDBStore(database.uri, name=name, create=create), SchemaError) == (
            f"MongoDB {database.address}/chest has a collection '{name}{ending}' that flask_chest did not "
            "make; choose another name= for the chest, or another database"
        )
    assert [each for each in admin["chest"].list_collection_names() if each.startswith(name)] == [name + ending]
    assert list(admin["chest"][name + ending].find()) == [document]


def test_view_of_another_program_is_left_alone(
    database: DatabaseServer, admin: MongoClient[Any], name: str
) -> None:
    admin["chest"].command("create", name, viewOn="anything", pipeline=[])
    assert told(MongoDBStore(database.uri, name=name), SchemaError) == (
        f"MongoDB {database.address}/chest has a collection '{name}' that flask_chest did not "
        "make; choose another name= for the chest, or another database"
    )


def test_collections_of_a_newer_release_are_left_alone(
    database: DatabaseServer, admin: MongoClient[Any], name: str
) -> None:
    make_collections(database, name)
    admin["chest"][f"{name}_schema"].update_one({"_id": "schema"}, {"$set": {"version": 99}})
    for create in (True, False):
        assert told(MongoDBStore(database.uri, name=name, create=create), SchemaError) == (
            f"the collections of '{name}' in MongoDB {database.address}/chest are of version 99, which this "
            "release does not know (its own is 1); upgrade flask_chest"
        )


@pytest.mark.parametrize("name", ["find", "Collection-1", "_", "x" * 60])
def test_plain_or_long_name_is_taken(database: DatabaseServer, name: str) -> None:
    record = make_record(variables={"a": 1})
    with closing(MongoDBStore(database.uri, name=name)) as store:
        store.open()
        store.write([record])
        assert record in list(store.query(Query(where={"a": 1})))


@pytest.mark.parametrize(
    "text",
    [
        "$where",
        "$gt",
        "a.b",
        "variables.a",
        ".",
        "$",
        "%",
        "%24",
        "$$NOW",
        "$position",
        "{$ne: null}",
        "\0",
        "_id",
    ],
)
def test_text_that_means_something_to_the_server_is_text(database: DatabaseServer, name: str, text: str) -> None:
    other = make_record(request_id="other", route="/other", variables={"other": "other"})
    record = make_record(request_id=text, route=text, variables={text: text, "deep": [{text: {text: [text]}}]})
    with closing(MongoDBStore(database.uri, name=name)) as store:
        store.open()
        store.write([other, record])
        assert list(store.query(Query(request_id=text))) == [record]
        assert list(store.query(Query(route=text, where={text: text}))) == [record]
        assert list(store.query(Query(where={"deep": record.variables["deep"]}))) == [record]
        assert list(store.query(Query(where={text: {"$ne": "x"}}))) == []
        store.register(text)
        assert [status.name for status in store.exporters()] == [text]
        claim = store.claim(text, limit=2, lease=timedelta(minutes=1))
        assert isinstance(claim, Claim)
        assert store.acknowledge(claim, rejected={record.id: text})
        (rejection,) = store.rejections(text)
        assert (rejection.exporter, rejection.record_id) == (text, record.id)
        assert rejection.reason == text.replace("\0", "\ufffd")
        assert store.drop(text)
        assert store.forget(Query(where={text: text})) == 1
        assert list(store.query(Query())) == [other]


def test_record_that_is_too_large_is_refused_without_its_value(mongodb: DatabaseServer, name: str) -> None:
    small, large = make_record(), make_record(variables={"v": "x" * 17_000_000})
    with closing(MongoDBStore(mongodb.uri, name=name)) as store:
        store.open()
        with pytest.raises(RecordRefused) as refused:
            store.write([small, large])
    assert list(refused.value.reasons) == [large.id]
    assert "xx" not in f"{refused.value} {refused.value.reasons}"


def test_rule_of_the_server_that_refuses_records_is_told_without_their_values(
    database: DatabaseServer, admin: MongoClient[Any], name: str
) -> None:
    with closing(MongoDBStore(database.uri, name=name)) as store:
        store.open()
        admin["chest"].command("collMod", name, validator={"route": "/allowed"})
        allowed, other = make_record(route="/allowed"), make_record(route="/hunter2")
        with pytest.raises(RecordRefused) as refused:
            store.write([allowed, other])
    assert refused.value.reasons == {other.id: "MongoDB refused it (121)"}
    assert str(refused.value) == f"MongoDB {database.address}/chest refused 1 records"


def test_ten_thousand_records_are_written_at_once(documentdb: DatabaseServer, name: str) -> None:
    records = [make_record(route=f"/{number % 10}", variables={"number": number}) for number in range(10_000)]
    with closing(MongoDBStore(documentdb.uri, name=name)) as store:
        store.open()
        store.write(records)
        store.write(records)  # as after an answer that was lost
        assert store.status().records == 10_000
        assert len(list(store.query(Query(route="/7", limit=None)))) == 1_000


def test_client_of_the_app_is_used_whatever_its_settings(database: DatabaseServer, name: str) -> None:
    record = make_record(variables={"a": {"b": [1, None]}})
    options: dict[str, Any] = {"document_class": RawBSONDocument, "readPreference": "secondaryPreferred", "w": 0}
    with MongoClient[Any](database.uri, **options) as client:
        with closing(MongoDBStore(client=client, database="chest", name=name)) as store:
            assert store.place == f"mongodb:client:localhost:27017/chest#{name}"
            store.open()
            store.write([record])
            assert list(store.query(Query())) == [record]
            assert store.status().description == "MongoDB chest of the client that was given"
        assert isinstance(client["chest"][name].find_one(), RawBSONDocument)


def test_client_of_the_app_that_is_closed_is_told(database: DatabaseServer, name: str) -> None:
    with MongoClient[Any](database.uri) as client:
        pass
    assert told(MongoDBStore(client=client, database="chest", name=name), StoreUnavailable) == (
        "MongoDB chest of the client that was given: Cannot use MongoClient after close; "
        "give a client that is open"
    )


def test_uri_does_not_let_servers_be_read_that_may_be_behind(database: DatabaseServer, name: str) -> None:
    commands = Commands()
    uri = f"{database.uri}&readPreference=secondaryPreferred&w=1"
    with closing(MongoDBStore(uri, name=name, options={"event_listeners": [commands]})) as store:
        store.open()
        store.write([make_record()])
        claim = store.claim("a", limit=1, lease=timedelta(minutes=1))
    assert isinstance(claim, Claim)
    assert "secondaryPreferred" not in str([command.get("$readPreference") for command in commands.sent])
    assert {command["writeConcern"]["w"] for command in commands.sent if "insert" in command} == {"majority"}


def test_nothing_that_is_said_or_logged_holds_the_password(
    database: DatabaseServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    with closing(MongoDBStore(database.uri, name=name)) as store:
        store.open()
        store.write([make_record()])
        said.append(f"{store!r} {store.address} {store.status()}")
    port = free_port()
    for uri in (
        database.uri_with(password="hunter2"),
        database.uri_with(password="hunter2", user="nobody"),
        database.uri_with(password="hunter2", address=f"127.0.0.1:{port}"),
        database.uri_with(password="hunter2", address="two..dots"),
    ):
        with closing(MongoDBStore(uri, name=name, connect_timeout=SECOND)) as store:
            with pytest.raises(StoreUnavailable) as refused:
                store.open()
            said.append(f"{store!r} {store.address} {chain(refused.value)}")
    for secret in (database.password, "hunter2"):
        assert secret not in caplog.text + "".join(said)
