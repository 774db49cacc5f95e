"""What MongoDBStore is told wrongly, and says so without a server."""

from __future__ import annotations

import pytest
from pymongo import version_tuple
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from causes import chain
from flask_chest.errors import ConfigurationError, RecordRefused
from flask_chest.stores.mongodb import MongoDBStore
from flask_chest.testing.records import make_record

COMPLAINT = (
    "db_uri must be like mongodb://user:password@host:27017/database; got something else"
    " (in user and password : / ? # % and @ are written as %3A %2F %3F %23 %25 and %40)"
)


@pytest.mark.parametrize(
    "uri",
    [
        "x y",
        "",
        "postgresql://u:hunter2@h/db",
        "mongodb://",
        "mongodb:///db",
        "mongodb://u:hunter2@[h/db",
        "mongodb://u:hunter2@h:0/db",
        "mongodb://u:hunter2@h:port/db",
        "mongodb://u:hunter2@h:65536/db",
        "mongodb://u:hunter/2@h/db",
        "mongodb://u:12/hunter2@h/db",
        "mongodb://u:hunter?2@h/db",
        "mongodb://u:12?hunter2@h/db",
        "mongodb://u:12?hunter=2@h/db",
        "mongodb://u:hunter%2@h/db",
        "mongodb://u:hunt@er2@h/db",
        "mongodb://u:hunt:er2@h/db",
        "mongodb://u:hunter2@h/db.collection",
        "mongodb://u:hunter2@h/d b",
        "mongodb+srv://u:12/hunter2@h/db",
        "mongodb+srv://u:12?hunter=2@h/db",
    ],
)
def test_uri_that_is_none_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        MongoDBStore(uri)
    assert str(refused.value) == COMPLAINT
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "uri",
    ["mongodb://u:hunter2@h", "mongodb://u:hunter2@h/", "mongodb://h/?tls=true", "mongodb+srv://u:hunter2@h"],
)
def test_database_must_be_named(uri: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        MongoDBStore(uri)
    assert str(refused.value) == (
        "db_uri names no database; it must be like mongodb://user:password@host:27017/database"
    )


QUOTES_NO_VALUE = version_tuple >= (4, 20, 1)
"""Whether this release of the driver leaves out of its complaints what an address holds."""


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("nonsense=hunter2", "Unknown option. Did you" if QUOTES_NO_VALUE else "Unknown option: nonsense"),
        ("connectTimeoutMS=-1", "connecttimeoutms must be greater than 0"),
        ("tls=maybe", "The value of tls must be 'true' or 'false'"),
        (
            "tlsCAFile=/nowhere/ca.pem",
            "[Errno 2] The tlscafile file is not readable"
            if QUOTES_NO_VALUE
            else "No such file or directory: '/nowhere/ca.pem'",
        ),
        (
            "readPreference=nearby",
            "Not a valid read preference. Must be one of: primary"
            if QUOTES_NO_VALUE
            else "nearby is not a valid read preference",
        ),
        ("tls=true&ssl=false", "Can not specify conflicting values for URI options ssl and tls"),
    ],
)
def test_option_that_the_driver_does_not_take_is_told_at_once(option: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        MongoDBStore(f"mongodb://u:hunter2@h/db?{option}")
    assert str(refused.value).startswith("db_uri has an option that pymongo does not take: ")
    assert said in str(refused.value)
    assert "hunter2" not in repr(chain(refused.value))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"nonsense": "hunter2"}, "Unknown option: nonsense"),
        ({"tlsCAFile": "/nowhere/ca.pem"}, "No such file or directory: '/nowhere/ca.pem'"),
        ({"w": -1}, "w cannot be less than 0"),
        ({"username": "u", "password": 5}, "Wrong type for password"),
        ({"host": "other"}, "multiple values for argument 'host'"),
    ],
)
@pytest.mark.parametrize("scheme", ["mongodb", "mongodb+srv"])
def test_option_beside_the_uri_that_the_driver_does_not_take_is_told_at_once(
    scheme: str, options: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        MongoDBStore(f"{scheme}://u:hunter2@h/db", options=options)
    assert str(refused.value).startswith("pymongo does not take the options: ")
    assert said in str(refused.value)
    assert "hunter2" not in repr(chain(refused.value))


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("mongodb://u:hunter2@h/db", "h:27017/db"),
        ("mongodb://u:hunter2@h1:1,h2/db?replicaSet=r", "h1:1,h2:27017/db"),
        ("mongodb://u:hunter2@%2Ftmp%2Fmongodb.sock/db", "/tmp/mongodb.sock/db"),
        ("mongodb+srv://u:hunter2@cluster.example/db?srvMaxHosts=2", "cluster.example/db"),
    ],
)
def test_address_is_shown_without_the_login(uri: str, shown: str) -> None:
    store = MongoDBStore(uri)
    assert store.place == f"mongodb:{shown}#flask_chest"
    assert repr(store) == f"<MongoDBStore {shown} name='flask_chest'>"


@pytest.mark.parametrize("named", ["a b", "a.b", "a/b", "a$b", 'a"b', "a\\b", "a\0b", "x" * 64])
def test_database_that_cannot_be_one_is_refused(named: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        MongoDBStore("mongodb://u:hunter2@h", database=named)
    assert str(refused.value) == (
        f'database must be at most 63 characters, none of them a space or one of . $ / \\ and ", got {named!r}'
    )


@pytest.mark.parametrize(
    "name", ["", "1a", "a b", "a.b", "$a", "a$b", "system.users", "a\0", "'; db.dropDatabase(); '", "x" * 61]
)
def test_name_that_would_mean_something_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        MongoDBStore("mongodb://u:hunter2@h/db", name=name)
    assert str(refused.value) == (
        f"name must be at most 60 ASCII letters, digits, _ or -, and begin with a letter or _, got {name!r}"
    )


@pytest.mark.parametrize("option", ["connect_timeout", "timeout"])
@pytest.mark.parametrize("seconds", [0, -1.0, 3601.0, float("nan"), float("inf")])
def test_times_must_be_times(option: str, seconds: float) -> None:
    with pytest.raises(ConfigurationError) as refused:
        MongoDBStore("mongodb://host/db", **{option: seconds})  # type: ignore[arg-type]  # one of several
    assert str(refused.value) == f"{option} must be more than 0 and at most 3600 seconds, got {seconds!r}"


@pytest.mark.parametrize("size", [0, -1])
def test_pool_must_hold_a_connection(size: int) -> None:
    with pytest.raises(ConfigurationError) as refused:
        MongoDBStore("mongodb://host/db", pool_size=size)
    assert str(refused.value) == f"pool_size must be at least 1, got {size}"


@pytest.mark.parametrize(
    ("code", "raised"),
    [(121, RecordRefused), (10107, BulkWriteError), (11602, BulkWriteError), (14031, BulkWriteError)],
)
def test_record_is_only_at_fault_for_what_it_holds(
    code: int, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def insert_many(*_: object, **__: object) -> None:
        raise BulkWriteError({"writeErrors": [{"index": 0, "code": 11000}, {"index": 1, "code": code}]})

    monkeypatch.setattr(Collection, "insert_many", insert_many)
    store = MongoDBStore("mongodb://localhost/chest")
    with pytest.raises(raised):
        store._insert([make_record(), make_record()])
    store.close()
