"""What users of MySQL and MariaDB get wrong, and what they are told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from typing import Any

import pymysql
import pytest

from flask_chest.errors import ConfigurationError, SchemaError, StoreAbsent, StoreError, StoreUnavailable
from flask_chest.record import Query
from flask_chest.stores.mysql import MySQLStore
from flask_chest.testing.records import make_record
from servers import DatabaseServer, free_port

_numbers = count()
TABLES = ("", "_exporters", "_rejected", "_deletions", "_schema")


@pytest.fixture
def name() -> str:
    return f"mistakes_{next(_numbers)}"


@pytest.fixture(params=["mysql", "mariadb"])
def server(request: pytest.FixtureRequest) -> DatabaseServer:
    found: DatabaseServer = request.getfixturevalue(request.param)
    return found


def connect(server: DatabaseServer) -> pymysql.Connection[Any]:
    host, _, port = server.address.partition(":")
    return pymysql.connect(
        host=host,
        port=int(port),
        user=server.user,
        password=server.password,
        database="chest",
        autocommit=True,
    )


@pytest.fixture
def admin(server: DatabaseServer) -> Iterator[pymysql.cursors.Cursor]:
    with closing(connect(server)) as connection, connection.cursor() as cursor:
        yield cursor


def told(store: MySQLStore, kind: type[StoreError]) -> str:
    """Give what opening the store says."""
    with closing(store), pytest.raises(kind) as opening:
        store.open()
    return str(opening.value)


def test_host_that_does_not_exist_is_named(name: str) -> None:
    text = told(MySQLStore("mysql://u:hunter2@nowhere.invalid/db", name=name), StoreUnavailable)
    assert text.startswith("MySQL nowhere.invalid:3306/db: Can't connect to MySQL server on 'nowhere.invalid'")
    assert text.endswith("; see whether it runs, and whether its address is right")
    assert "hunter2" not in text


def test_port_where_nobody_listens_is_named(name: str) -> None:
    port = free_port()
    text = told(MySQLStore(f"mysql://u:hunter2@127.0.0.1:{port}/db", name=name), StoreUnavailable)
    assert text.startswith(f"MySQL 127.0.0.1:{port}/db: Can't connect to MySQL server on '127.0.0.1'")
    assert "Connection refused" in text
    assert text.endswith("; see whether it runs, and whether its address is right")


def test_wrong_password_is_told_and_not_repeated(server: DatabaseServer, name: str) -> None:
    store = MySQLStore(server.uri_with(password="hunter2"), name=name)
    text = told(store, StoreUnavailable)
    assert text.startswith(f"MySQL {server.address}/chest: Access denied for user 'root'@")
    assert text.endswith("; correct the user or the password")
    assert "hunter2" not in text + repr(store) + store.address


def test_missing_database_is_named(server: DatabaseServer, name: str) -> None:
    text = told(MySQLStore(server.uri_with(database="absent"), name=name), StoreUnavailable)
    assert text == f"MySQL {server.address}/absent: Unknown database 'absent'; create it, or correct the name"


def test_tables_that_were_never_made_are_missed_and_not_made(server: DatabaseServer, name: str) -> None:
    where = f"the tables of '{name}' in MySQL {server.address}/chest"
    with closing(MySQLStore(server.uri, name=name)) as store:
        for use in (lambda: store.write([make_record()]), store.status, store.exporters):
            with pytest.raises(StoreAbsent) as absent:
                use()
            assert (
                str(absent.value) == f"{where} do not exist yet; they are made when the first record is written"
            )
    assert told(MySQLStore(server.uri, name=name, create=False), StoreAbsent) == (
        f"{where} do not exist yet; they are made by a store that may, with create=True"
    )


@pytest.fixture
def clerk(admin: pymysql.cursors.Cursor, server: DatabaseServer, name: str) -> Iterator[str]:
    """The URI of a user who may not do anything yet but look at the schema's table."""
    with closing(MySQLStore(server.uri, name=name)) as store:
        store.open()
    admin.execute(f"CREATE USER clerk_{name} IDENTIFIED BY 'pw'")
    admin.execute(f"GRANT SELECT ON chest.{name}_schema TO clerk_{name}")
    yield server.uri_with(user=f"clerk_{name}", password="pw")
    admin.execute(f"DROP USER clerk_{name}")


def test_user_who_may_not_write_is_told(clerk: str, name: str) -> None:
    with closing(MySQLStore(clerk, name=name, create=False)) as store, pytest.raises(StoreUnavailable) as refused:
        store.write([make_record()])
    text = str(refused.value)
    assert "command denied to user" in text
    assert text.endswith("; grant what docs/mysql.md lists")


def test_grants_for_running_are_enough_and_do_not_let_make_tables(
    clerk: str, name: str, admin: pymysql.cursors.Cursor
) -> None:
    for end in TABLES:
        admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON chest.{name}{end} TO clerk_{name}")
    with closing(MySQLStore(clerk, name=name, create=False)) as store:
        store.open()
        store.write([make_record()])
        store.register("a")
        assert store.status().records == 1
    text = told(MySQLStore(clerk, name=f"{name}_x"), StoreUnavailable)
    assert "denied to user" in text
    assert text.endswith("; grant what docs/mysql.md lists")


@pytest.mark.parametrize(
    ("create", "ending"),
    [
        ("CREATE TABLE {} (unique_id text)", ""),
        ("CREATE VIEW {}_variables AS SELECT 1", "_variables"),
        ("CREATE TABLE {}_schema (version text)", "_schema"),
        ("CREATE TABLE {}_schema AS SELECT 'other' AS program, 1 AS version", "_schema"),
    ],
)
def test_table_of_another_program_is_left_alone(
    server: DatabaseServer, admin: pymysql.cursors.Cursor, name: str, create: str, ending: str
) -> None:
    admin.execute(create.format(name))
    assert told(MySQLStore(server.uri, name=name), SchemaError) == (
        f"MySQL {server.address}/chest has a table '{name}{ending}' that flask_chest did not "
        "make; choose another name= for the chest, or another database"
    )


def test_table_that_somebody_dropped_is_told(
    server: DatabaseServer, admin: pymysql.cursors.Cursor, name: str
) -> None:
    with closing(MySQLStore(server.uri, name=name)) as store:
        store.open()
        admin.execute(f"DROP TABLE {name}_exporters")
        with pytest.raises(SchemaError, match="doesn't exist; another program changed the tables of this chest"):
            store.exporters()


def test_tables_of_a_newer_release_are_left_alone(
    server: DatabaseServer, admin: pymysql.cursors.Cursor, name: str
) -> None:
    with closing(MySQLStore(server.uri, name=name)) as store:
        store.open()
        store.write([make_record()])
    admin.execute(f"UPDATE {name}_schema SET version = 99")
    text = told(MySQLStore(server.uri, name=name), SchemaError)
    assert "version 99" in text
    assert text.endswith("upgrade flask_chest")


@pytest.mark.parametrize(
    "uri",
    [
        "mysql://u:hunter2@[h/db",
        "mysql://u:hunter2@h:port/db",
        "postgresql://u:hunter2@h/db",
        "mysql://u:hunter2@h/db#x",
        "x y",
    ],
)
def test_uri_that_is_none_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        MySQLStore(uri)
    assert (
        str(refused.value) == "db_uri must be like mysql://user:password@host:3306/database; got something else"
    )
    assert refused.value.__cause__ is None


def test_unknown_option_of_the_uri_is_named_with_those_that_are_known() -> None:
    with pytest.raises(ConfigurationError, match=r"the option 'nonsense', which is not one of .*ssl_ca"):
        MySQLStore("mysql://u:hunter2@h/db?nonsense=hunter2")


def test_uri_without_a_database_is_told_so() -> None:
    with pytest.raises(ConfigurationError, match="db_uri names no database; it must be like mysql://"):
        MySQLStore("mysql://u:hunter2@h")


@pytest.mark.parametrize("option", ["connect_timeout", "statement_timeout", "lock_timeout"])
@pytest.mark.parametrize("seconds", [0, -1.0, 3601.0, float("nan"), float("inf")])
def test_times_must_be_times(option: str, seconds: float) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must be more than 0 and at most 3600 seconds, got "):
        MySQLStore("mysql://host/db", **{option: seconds})  # type: ignore[arg-type]  # one of several


@pytest.mark.parametrize("wrong", ["", "drop table", "a`b", "a;b", "ä", "x" * 80])
def test_name_is_no_way_into_the_sql(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="name must be"):
        MySQLStore("mysql://host/db", name=wrong)


def test_values_are_no_way_into_the_sql(server: DatabaseServer, name: str) -> None:
    record = make_record(
        request_id=f"'); DROP TABLE {name}; --",
        route="/%s/{x}/`",
        variables={"%(a)s'\"\\": "\\' OR 1=1 --", "percent": "100 %"},
    )
    with closing(MySQLStore(server.uri, name=name)) as store:
        store.open()
        store.write([record])
        assert list(store.query(Query(request_id=record.request_id))) == [record]


def test_ten_thousand_records_are_written_at_once(server: DatabaseServer, name: str) -> None:
    with closing(MySQLStore(server.uri, name=name)) as store:
        store.open()
        store.write([make_record() for _ in range(10_000)])
        assert store.status().records == 10_000


class Lender:
    """A pool as an app may have one: it lends a single connection."""

    def __init__(self, connection: pymysql.Connection[Any]) -> None:
        self._connection = connection

    @contextmanager
    def connection(self) -> Iterator[pymysql.Connection[Any]]:
        yield self._connection


def test_pool_of_the_app_is_used_and_left_open(server: DatabaseServer, name: str) -> None:
    with closing(connect(server)) as connection:
        store = MySQLStore(pool=Lender(connection), name=name)
        store.open()
        store.write([make_record()])
        store.close()
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {name}")
            assert cursor.fetchall() == ((1,),)


def test_no_log_line_holds_the_password(
    server: DatabaseServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with closing(MySQLStore(server.uri, name=name)) as store:
        store.open()
        store.write([make_record()])
    told(MySQLStore(server.uri_with(password="hunter2"), name=name), StoreUnavailable)
    assert server.password not in caplog.text
    assert "hunter2" not in caplog.text
