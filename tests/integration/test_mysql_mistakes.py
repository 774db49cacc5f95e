"""What MySQL's and MariaDB's users get wrong, and what they are told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from itertools import count
from typing import Any

import pymysql
import pytest
from pymysql import _auth
from pymysql.cursors import DictCursor

from causes import chain
from flask_chest.errors import (
    ConfigurationError,
    MissingDriverError,
    RecordRefused,
    SchemaError,
    StoreAbsent,
    StoreError,
    StoreUnavailable,
)
from flask_chest.protocols import Claim
from flask_chest.record import Query
from flask_chest.stores.mysql import MySQLStore
from flask_chest.stores.mysql.connections import Address
from flask_chest.testing.records import make_record
from servers import DatabaseServer, free_port

Connect = Callable[..., "pymysql.Connection[Any]"]

TABLES = ("", "_exporters", "_rejected", "_deletions", "_forgotten", "_leases", "_schema")
_numbers = count()


@pytest.fixture(params=["mysql", "mariadb"], scope="session")
def database(request: pytest.FixtureRequest) -> DatabaseServer:
    server: DatabaseServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def name() -> str:
    return f"mistakes_{next(_numbers)}"


@pytest.fixture
def connect(database: DatabaseServer) -> Connect:
    """Connect as the app itself would."""

    def connect(**parameters: Any) -> pymysql.Connection[Any]:
        given: dict[str, Any] = {**Address(database.uri, {}).parameters, "autocommit": True, **parameters}
        return pymysql.connect(**given)

    return connect


@pytest.fixture
def admin(connect: Connect) -> Iterator[pymysql.cursors.Cursor]:
    with closing(connect()) as connection, connection.cursor() as cursor:
        yield cursor


@pytest.fixture
def clerk(database: DatabaseServer, admin: pymysql.cursors.Cursor, name: str) -> Iterator[str]:
    """The URI of a user who may connect to the database and read what is none of the chest's."""
    user = f"clerk_{name}"
    admin.execute("CREATE TABLE IF NOT EXISTS anything (a int)")
    admin.execute(f"CREATE USER '{user}'@'%' IDENTIFIED BY 'pw'")
    admin.execute(f"GRANT SELECT ON chest.anything TO '{user}'@'%'")
    yield database.uri_with(user=user, password="pw")
    admin.execute(f"DROP USER '{user}'@'%'")


def told(store: MySQLStore, kind: type[StoreError]) -> str:
    """Give what opening the store says."""
    with closing(store), pytest.raises(kind) as opening:
        store.open()
    return str(opening.value)


def make_tables(database: DatabaseServer, name: str) -> None:
    with closing(MySQLStore(database.uri, name=name)) as store:
        store.open()


@pytest.mark.parametrize("host", ["nowhere.invalid", "two..dots"])
def test_host_that_does_not_exist_is_named(host: str, name: str) -> None:
    text = told(MySQLStore(f"mysql://u:hunter2@{host}/db", name=name), StoreUnavailable)
    assert text.startswith(f"MySQL {host}:3306/db: ")
    assert text.endswith("; see whether it runs, and whether its address is right")
    assert "hunter2" not in text


def test_port_where_nobody_listens_is_named(name: str) -> None:
    port = free_port()
    text = told(MySQLStore(f"mysql://u:hunter2@127.0.0.1:{port}/db", name=name), StoreUnavailable)
    assert text.startswith(f"MySQL 127.0.0.1:{port}/db: Can't connect to MySQL server on '127.0.0.1' ")
    assert "Connection refused" in text
    assert text.endswith("; see whether it runs, and whether its address is right")
    assert "hunter2" not in text


def test_wrong_password_is_told_and_not_repeated(database: DatabaseServer, name: str) -> None:
    store = MySQLStore(database.uri_with(password="hunter2"), name=name)
    text = told(store, StoreUnavailable)
    assert text.startswith(f"MySQL {database.address}/chest: Access denied for user 'root'@")
    assert text.endswith("; correct the user or the password")
    assert "hunter2" not in text + repr(store) + store.address


def test_user_who_does_not_exist_is_told(database: DatabaseServer, name: str) -> None:
    text = told(MySQLStore(database.uri_with(user="nobody"), name=name), StoreUnavailable)
    assert text.startswith(f"MySQL {database.address}/chest: Access denied for user 'nobody'@")
    assert text.endswith("; correct the user or the password")


def test_password_may_hold_any_letters(
    database: DatabaseServer, admin: pymysql.cursors.Cursor, name: str
) -> None:
    password = "pä/ß?#@:%'\"\\ п\U0001f600"
    admin.execute("CREATE USER %s@'%%' IDENTIFIED BY %s", (name, password))
    admin.execute(f"GRANT ALL ON chest.* TO '{name}'@'%'")
    with closing(MySQLStore(database.uri_with(user=name), name=name, password=password)) as store:
        store.open()


def test_missing_database_is_named(database: DatabaseServer, name: str) -> None:
    assert told(MySQLStore(database.uri_with(database="absent"), name=name), StoreUnavailable) == (
        f"MySQL {database.address}/absent: Unknown database 'absent'; create it, or correct the name"
    )


def test_missing_package_for_the_password_exchange_is_named(
    mysql: DatabaseServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = f"new_{name}"  # whose password the server does not know by heart yet
    parameters: dict[str, Any] = {**Address(mysql.uri, {}).parameters, "autocommit": True}
    with closing(pymysql.connect(**parameters)) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE USER '{user}'@'%' IDENTIFIED BY 'hunter2'")
    monkeypatch.setattr(_auth, "_have_cryptography", False)
    uri = mysql.uri_with(user=user, password="hunter2")
    with closing(MySQLStore(f"{uri}?ssl_disabled=true", name=name)) as store:
        with pytest.raises(MissingDriverError) as missing:
            store.open()
        assert str(missing.value) == (
            "cryptography is not installed; install it, or flask_chest with its extra [mysql]"
        )


def test_tables_that_were_never_made_are_missed_and_not_made(
    database: DatabaseServer, admin: pymysql.cursors.Cursor, name: str
) -> None:
    where = f"the tables of '{name}' in MySQL {database.address}/chest"
    with closing(MySQLStore(database.uri, name=name)) as store:
        for use in (lambda: store.write([make_record()]), store.status, store.exporters):
            with pytest.raises(StoreAbsent) as absent:
                use()
            assert (
                str(absent.value) == f"{where} do not exist yet; they are made when the first record is written"
            )
    verifying = MySQLStore(database.uri, name=name, create=False)
    assert told(verifying, StoreAbsent) == (
        f"{where} do not exist yet; they are made by a store that may, with create=True"
    )
    assert admin.execute("SHOW TABLES LIKE %s", (f"{name}%",)) == 0


@pytest.mark.parametrize("create", [True, False])
def test_user_without_grants_is_told(database: DatabaseServer, clerk: str, name: str, create: bool) -> None:
    for prepare in (list, lambda: make_tables(database, name)):
        prepare()
        text = told(MySQLStore(clerk, name=name, create=create), StoreUnavailable)
        assert text.startswith(f"MySQL {database.address}/chest: SELECT command denied to user 'clerk_{name}'@")
        assert f"{name}_schema" in text
        assert text.endswith("; grant what docs/mysql.md lists")


def test_user_who_may_not_make_tables_is_told(
    database: DatabaseServer, admin: pymysql.cursors.Cursor, clerk: str, name: str
) -> None:
    admin.execute(f"GRANT SELECT ON chest.* TO 'clerk_{name}'@'%'")
    text = told(MySQLStore(clerk, name=name), StoreUnavailable)
    assert text.startswith(f"MySQL {database.address}/chest: ")
    assert f"CREATE command denied to user 'clerk_{name}'@" in text
    assert text.endswith("; grant what docs/mysql.md lists")


def test_user_who_may_only_read_is_told_when_he_writes(
    database: DatabaseServer, admin: pymysql.cursors.Cursor, clerk: str, name: str
) -> None:
    make_tables(database, name)
    for end in TABLES:
        admin.execute(f"GRANT SELECT ON chest.`{name}{end}` TO 'clerk_{name}'@'%'")
    with closing(MySQLStore(clerk, name=name, create=False)) as store:
        store.open()
        assert store.status().records == 0
        with pytest.raises(StoreUnavailable) as refused:
            store.write([make_record(variables={"v": "a value"})])
    text = str(refused.value)
    assert text.startswith(f"MySQL {database.address}/chest: ")
    assert "command denied to user" in text
    assert text.endswith("; grant what docs/mysql.md lists")
    assert "a value" not in text


def test_grants_for_running_are_enough_and_do_not_let_make_tables(
    database: DatabaseServer, admin: pymysql.cursors.Cursor, clerk: str, name: str
) -> None:
    make_tables(database, name)
    for end in TABLES:
        admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON chest.`{name}{end}` TO 'clerk_{name}'@'%'")
    with closing(MySQLStore(clerk, name=name, create=False)) as store:
        store.open()
        store.write([make_record()])
        store.register("a")
        assert store.status().records == 1
        assert store.forget(Query()) == 1
    text = told(MySQLStore(clerk, name=f"{name}_x"), StoreUnavailable)
    assert "command denied to user" in text
    assert text.endswith("; grant what docs/mysql.md lists")


def test_grants_that_do_not_let_make_the_view_are_completed_later(
    database: DatabaseServer, admin: pymysql.cursors.Cursor, clerk: str, name: str
) -> None:
    admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, INDEX ON chest.* TO 'clerk_{name}'@'%'")
    text = told(MySQLStore(clerk, name=name), StoreUnavailable)
    assert "CREATE VIEW command denied to user" in text
    assert text.endswith("; grant what docs/mysql.md lists")
    admin.execute(f"GRANT CREATE VIEW, DROP ON chest.* TO 'clerk_{name}'@'%'")
    with closing(MySQLStore(clerk, name=name)) as store:
        store.open()
        store.write([make_record()])
        assert store.status().records == 1


@pytest.mark.parametrize(
    ("create", "ending"),
    [
        ("CREATE TABLE `{}` (unique_id text)", ""),
        ("CREATE VIEW `{}_variables` AS SELECT 1", "_variables"),
        ("CREATE TABLE `{}_schema` (version text)", "_schema"),
        ("CREATE TABLE `{}_schema` AS SELECT 'other' AS program, 1 AS version", "_schema"),
    ],
)
def test_table_of_another_program_is_left_alone(
    database: DatabaseServer, admin: pymysql.cursors.Cursor, name: str, create: str, ending: str
) -> None:
    admin.execute(create.format(name))
    for may_create in (True, False):
        assert told(MySQLStore(database.uri, name=name, create=may_create), SchemaError) == (
            f"MySQL {database.address}/chest has a table '{name}{ending}' that flask_chest did not "
            "make; choose another name= for the chest, or another database"
        )
    assert admin.execute("SHOW TABLES LIKE %s", (f"{name}%",)) == 1


def test_tables_of_a_newer_release_are_left_alone(
    database: DatabaseServer, admin: pymysql.cursors.Cursor, name: str
) -> None:
    make_tables(database, name)
    admin.execute(f"UPDATE `{name}_schema` SET version = 99")
    for may_create in (True, False):
        assert told(MySQLStore(database.uri, name=name, create=may_create), SchemaError) == (
            f"the tables of '{name}' in MySQL {database.address}/chest are of version 99, which this release "
            "does not know (its own is 2); upgrade flask_chest"
        )


def test_tables_that_were_made_by_half_are_completed_only_by_who_may(
    database: DatabaseServer, admin: pymysql.cursors.Cursor, name: str
) -> None:
    make_tables(database, name)
    admin.execute(f"UPDATE `{name}_schema` SET version = 0")
    assert told(MySQLStore(database.uri, name=name, create=False), SchemaError) == (
        f"the tables of '{name}' in MySQL {database.address}/chest are of the older version 0; "
        "they are migrated by a store that may, with create=True: run flask chest migrate there"
    )
    with closing(MySQLStore(database.uri, name=name)) as store:
        store.open()
        store.write([make_record()])


def test_table_that_somebody_dropped_is_told(
    database: DatabaseServer, admin: pymysql.cursors.Cursor, name: str
) -> None:
    with closing(MySQLStore(database.uri, name=name)) as store:
        store.open()
        store.write([make_record()])
        admin.execute(f"DROP TABLE `{name}_exporters`")
        with pytest.raises(SchemaError) as dropped:
            store.exporters()
    assert str(dropped.value) == (
        f"MySQL {database.address}/chest: Table 'chest.{name}_exporters' doesn't exist; "
        "another program changed the tables of this chest, or drops them"
    )


@pytest.mark.parametrize("name", ["select", "values", "Table-1", "x" * 53])
def test_name_that_is_a_word_of_sql_or_long_is_a_name(database: DatabaseServer, name: str) -> None:
    record = make_record(variables={"a": 1})
    with closing(MySQLStore(database.uri, name=name)) as store:
        store.open()
        store.write([record])
        assert record in list(store.query(Query(where={"a": 1})))
        assert store.prune(record.time_unix_nano + 1, limit=10) == 1


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"nonsense": 1}, "unexpected keyword argument 'nonsense'"),
        ({"port": "x"}, "port should be of type int"),
        ({"read_timeout": -1}, "read_timeout should be > 0"),
        ({"compress": True}, "compress and named_pipe arguments are not supported"),
        ({"ssl_ca": "/nowhere/ca.pem"}, "No such file or directory"),
    ],
)
def test_parameter_that_the_driver_does_not_take_is_told_at_once(
    parameters: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        MySQLStore("mysql://u:hunter2@host/db", **parameters)  # type: ignore[arg-type]  # wrong on purpose
    assert str(refused.value).startswith("PyMySQL does not take the parameters for MySQL host:")
    assert said in str(refused.value)
    assert "hunter2" not in repr(chain(refused.value))


class AppPool:
    """A pool as an app may have it, of one connection."""

    def __init__(self, connection: pymysql.Connection[Any]) -> None:
        self._connection = connection

    @contextmanager
    def connection(self) -> Iterator[pymysql.Connection[Any]]:
        yield self._connection


def settings_of(connection: pymysql.Connection[Any]) -> object:
    with connection.cursor(pymysql.cursors.Cursor) as cursor:
        cursor.execute("SELECT @@wait_timeout, @@autocommit, @@sql_mode, @@time_zone")
        return cursor.fetchall()


def test_pool_of_the_app_is_used_and_left_as_it_was(connect: Connect, name: str) -> None:
    with closing(connect(cursorclass=DictCursor, init_command="SET SESSION wait_timeout = 1234")) as connection:
        before = settings_of(connection)
        store = MySQLStore(pool=AppPool(connection), name=name)
        assert (repr(store), store.address) == (f"<MySQLStore mysql:pool name='{name}'>", f"mysql:pool#{name}")
        store.open()
        record = make_record(variables={"n": 1})
        store.write([record])
        assert list(store.query(Query())) == [record]
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE `{name}_deletions`")
        with pytest.raises(SchemaError):
            store.write([make_record()])
        store.close()
        assert settings_of(connection) == before
        assert connection.open


def test_pool_that_does_not_commit_by_itself_is_refused(connect: Connect, name: str) -> None:
    with closing(connect(autocommit=False)) as connection:
        store = MySQLStore(pool=AppPool(connection), name=name)
        for use in (store.open, store.status, lambda: store.write([make_record()])):
            with pytest.raises(ConfigurationError) as refused:
                use()
            assert str(refused.value) == (
                "pool lends connections that are not in autocommit mode; make them with autocommit=True"
            )


@contextmanager
def set_globally(admin: pymysql.cursors.Cursor, **variables: str | int) -> Iterator[None]:
    """Let connections that are made meanwhile begin with *variables*."""
    before = {}
    for variable, value in variables.items():
        admin.execute(f"SELECT @@GLOBAL.{variable}")
        (row,) = admin.fetchall()
        before[variable] = row[0]
        admin.execute(f"SET GLOBAL {variable} = %s", (value,))
    try:
        yield
    finally:
        for variable, value in before.items():
            admin.execute(f"SET GLOBAL {variable} = %s", (value,))


@pytest.mark.parametrize("limit", [1_024, 1 << 16, 1 << 20])  # of the first, servers make 16 KiB
def test_batch_is_cut_by_what_the_server_lets_pass(
    database: DatabaseServer, name: str, admin: pymysql.cursors.Cursor, limit: int
) -> None:
    fitting = [make_record(variables={"text": 'ü"\n' * 1_000}) for _ in range(300)]
    with set_globally(admin, max_allowed_packet=limit), closing(MySQLStore(database.uri, name=name)) as store:
        store.open()
        store.write(fitting)
        store.write([*fitting, make_record()])  # which asks for the ids
        assert sum(1 for _ in store.query(Query(limit=None))) == 301


@pytest.mark.parametrize("length", [100_000, 5_000_000])
def test_record_that_alone_is_longer_than_the_server_lets_pass_is_refused_by_name(
    database: DatabaseServer, name: str, admin: pymysql.cursors.Cursor, length: int
) -> None:
    sound = [make_record() for _ in range(3)]
    long = make_record(variables={"text": "x" * length})
    with set_globally(admin, max_allowed_packet=1 << 16), closing(MySQLStore(database.uri, name=name)) as store:
        store.open()
        with pytest.raises(RecordRefused) as refused:
            store.write([*sound, long])
        assert str(refused.value) == "1 of 4 records are longer than the server's max_allowed_packet"
        ((record_id, reason),) = refused.value.reasons.items()
        assert record_id == long.id
        assert reason.endswith("bytes, and the server's max_allowed_packet lets pass 65534")
        store.write(sound)


def test_records_are_set_aside_and_forgotten_by_statements_that_the_server_lets_pass(
    database: DatabaseServer, name: str, admin: pymysql.cursors.Cursor
) -> None:
    records = [make_record() for _ in range(400)]
    reasons = {record.id: "\U0001f600" * 10_000 for record in records}
    with set_globally(admin, max_allowed_packet=1_024), closing(MySQLStore(database.uri, name=name)) as store:
        store.open()
        store.write(records)
        claim = store.claim("a", limit=400, lease=timedelta(minutes=1))
        assert isinstance(claim, Claim)
        assert store.acknowledge(claim, rejected=reasons)
        assert len(list(store.rejections("a"))) == 400
        assert store.discard("a", list(reasons)) == 400
        assert store.forget(Query(limit=None)) == 400


def test_record_is_taken_up_to_the_last_byte_that_the_server_lets_pass(
    database: DatabaseServer, name: str, admin: pymysql.cursors.Cursor
) -> None:
    def write(length: int) -> int:
        """Write a record with a text of that length; give how many bytes it was too long."""
        try:
            store.write([make_record(variables={"text": "x" * length})])
        except RecordRefused as refusal:
            (reason,) = refusal.reasons.values()
            return int(reason.split()[5]) - 65_534
        return 0

    with set_globally(admin, max_allowed_packet=1 << 16), closing(MySQLStore(database.uri, name=name)) as store:
        store.open()
        over = write(65_534)
        assert over > 0
        assert write(65_534 - over + 1) == 1
        assert write(65_534 - over) == 0


def test_settings_that_guard_people_from_their_statements_do_not_hold_up_ours(
    database: DatabaseServer, name: str, admin: pymysql.cursors.Cursor
) -> None:
    records = [make_record() for _ in range(20)]
    guards = {"sql_safe_updates": 1, "sql_select_limit": 3}
    with set_globally(admin, **guards), closing(MySQLStore(database.uri, name=name)) as store:
        store.open()
        store.write(records)
        assert sum(1 for _ in store.query(Query())) == 20


def test_ten_thousand_records_are_written_at_once(database: DatabaseServer, name: str) -> None:
    records = [make_record(route=f"/{number % 10}", variables={"number": number}) for number in range(10_000)]
    with closing(MySQLStore(database.uri, name=name)) as store:
        store.open()
        store.write(records)
        store.write(records)  # as after an answer that was lost
        assert store.status().records == 10_000
        assert len(list(store.query(Query(route="/7", limit=None)))) == 1_000


def test_nothing_that_is_said_or_logged_holds_the_password(
    database: DatabaseServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    with closing(MySQLStore(database.uri, name=name)) as store:
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
        with closing(MySQLStore(uri, name=name)) as store:
            with pytest.raises(StoreUnavailable) as refused:
                store.open()
            said.append(f"{store!r} {store.address} {chain(refused.value)}")
    for secret in (database.password, "hunter2"):
        assert secret not in caplog.text + "".join(said)
