"""What PostgreSQL's users get wrong, and what they are told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from flask import Flask
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from flask_chest import FlaskChest
from flask_chest.cli import chest_group
from flask_chest.errors import (
    ConfigurationError,
    RecordRefused,
    SchemaError,
    StoreAbsent,
    StoreError,
    StoreUnavailable,
)
from flask_chest.extension.state import ChestState
from flask_chest.protocols import Claim
from flask_chest.record import Query
from flask_chest.stores.postgresql import PostgreSQLStore
from flask_chest.stores.postgresql.connections import _advice
from flask_chest.testing.records import make_record
from servers import DatabaseServer, free_port

_numbers = count()

TABLES = ("", "_exporters", "_rejected", "_deletions", "_forgotten", "_leases", "_schema")


@pytest.fixture
def name() -> str:
    return f"mistakes_{next(_numbers)}"


@pytest.fixture
def admin(postgresql: DatabaseServer) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with closing(psycopg.connect(postgresql.uri, autocommit=True)) as connection:
        yield connection


def told(store: PostgreSQLStore, kind: type[StoreError]) -> str:
    """Give what opening the store and writing to it both say, before anything is known of the tables."""
    with closing(store), pytest.raises(kind) as opening:
        store.open()
    return str(opening.value)


def test_host_that_does_not_exist_is_named(name: str) -> None:
    text = told(PostgreSQLStore("postgresql://u:hunter2@nowhere.invalid/db", name=name), StoreUnavailable)
    assert text.startswith("PostgreSQL nowhere.invalid:5432/db: ")
    assert text.endswith("; see whether it runs, and whether its address is right")
    assert "hunter2" not in text


def test_port_where_nobody_listens_is_named(name: str) -> None:
    port = free_port()
    text = told(PostgreSQLStore(f"postgresql://u:hunter2@127.0.0.1:{port}/db", name=name), StoreUnavailable)
    assert text.startswith(f"PostgreSQL 127.0.0.1:{port}/db: ")
    assert "Connection refused" in text
    assert text.endswith("; see whether it runs, and whether its address is right")


def test_wrong_password_is_told_and_not_repeated(postgresql: DatabaseServer, name: str) -> None:
    store = PostgreSQLStore(postgresql.uri_with(password="hunter2"), name=name)
    text = told(store, StoreUnavailable)
    assert text.startswith(f"PostgreSQL {postgresql.address}/chest: ")
    assert 'password authentication failed for user "admin"' in text
    assert text.endswith("; correct the user or the password")
    assert "hunter2" not in text + repr(store) + store.address


def test_missing_database_is_named(postgresql: DatabaseServer, name: str) -> None:
    text = told(PostgreSQLStore(postgresql.uri_with(database="absent"), name=name), StoreUnavailable)
    assert 'database "absent" does not exist' in text
    assert text.endswith("; create it, or correct the name")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ('port 42897: database "x" does not exist', "create it, or correct the name"),
        ("port 5328: connection refused", "see whether it runs, and whether its address is right"),
    ],
)
def test_number_of_a_port_is_no_state(text: str, advice: str) -> None:
    assert _advice("", text) == advice


def test_tables_that_were_never_made_are_missed_and_not_made(postgresql: DatabaseServer, name: str) -> None:
    where = f"the tables of '{name}' in PostgreSQL {postgresql.address}/chest"
    with closing(PostgreSQLStore(postgresql.uri, name=name)) as store:
        for use in (lambda: store.write([make_record()]), store.status, store.exporters):
            with pytest.raises(StoreAbsent) as absent:
                use()
            assert (
                str(absent.value) == f"{where} do not exist yet; they are made when the first record is written"
            )
    verifying = PostgreSQLStore(postgresql.uri, name=name, create=False)
    assert told(verifying, StoreAbsent) == (
        f"{where} do not exist yet; they are made by a store that may, with create=True"
    )


@pytest.fixture
def clerk(admin: psycopg.Connection[tuple[Any, ...]], postgresql: DatabaseServer, name: str) -> Iterator[str]:
    """The URI of a user who may only what docs/postgresql.md grants for running."""
    with closing(PostgreSQLStore(postgresql.uri, name=name)) as store:
        store.open()
    user = f"clerk_{name}"
    admin.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'pw'".encode())
    yield postgresql.uri_with(user=user, password="pw")
    admin.execute(f"DROP OWNED BY {user}; DROP ROLE {user}".encode())


def test_user_who_may_not_write_is_told(clerk: str, name: str) -> None:
    text = told(PostgreSQLStore(clerk, name=name, create=False), StoreUnavailable)
    assert f"permission denied for table {name}" in text
    assert text.endswith("; grant what docs/postgresql.md lists")


def test_doctor_finds_a_role_that_may_only_read(
    clerk: str, name: str, admin: psycopg.Connection[tuple[Any, ...]]
) -> None:
    tables = [f'"{name}{end}"' for end in TABLES]
    admin.execute(f"GRANT SELECT ON {', '.join(tables)} TO clerk_{name}".encode())
    app = Flask("shop")
    app.cli.add_command(chest_group)
    store = PostgreSQLStore(clerk, name=name, create=False)
    with closing(FlaskChest(app, store=store, journal_dir="memory:", tracked_vars=["x"])):
        runner = app.test_cli_runner()
        result = runner.invoke(args=["chest", "doctor"])
        assert result.exit_code == 1
        assert "- The store cannot be written: PostgreSQL " in result.output
        assert f"permission denied for table {name}_leases; grant what docs/postgresql.md lists" in result.output
        admin.execute(f"GRANT INSERT, UPDATE, DELETE ON {', '.join(tables)} TO clerk_{name}".encode())
        assert runner.invoke(args=["chest", "doctor"]).output == "Nothing is wrong.\n"


def test_grants_for_running_are_enough_and_do_not_let_make_tables(
    clerk: str, name: str, admin: psycopg.Connection[tuple[Any, ...]]
) -> None:
    user = f"clerk_{name}"
    tables = ", ".join(f'"{name}{end}"' for end in TABLES)
    admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {user}".encode())
    with closing(PostgreSQLStore(clerk, name=name, create=False)) as store:
        store.open()
        store.write([make_record()])
        store.register("a")
        assert store.status().records == 1
    admin.execute(b"REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    text = told(PostgreSQLStore(clerk, name=f"{name}_x"), StoreUnavailable)
    assert "permission denied for schema public" in text
    assert text.endswith("; grant what docs/postgresql.md lists")


@pytest.mark.parametrize(
    ("create", "ending"),
    [
        ('CREATE TABLE "{}" (unique_id text)', ""),
        ('CREATE VIEW "{}_variables" AS SELECT 1', "_variables"),
        ('CREATE TABLE "{}_schema" (version text)', "_schema"),
        ("CREATE TABLE \"{}_schema\" AS SELECT 'other' AS program, 1 AS version", "_schema"),
    ],
)
def test_table_of_another_program_is_left_alone(
    postgresql: DatabaseServer, admin: psycopg.Connection[tuple[Any, ...]], name: str, create: str, ending: str
) -> None:
    admin.execute(create.format(name).encode())
    assert told(PostgreSQLStore(postgresql.uri, name=name), SchemaError) == (
        f"PostgreSQL {postgresql.address}/chest has a table '{name}{ending}' that flask_chest did not "
        "make; choose another name= for the chest, or another database"
    )


def test_table_that_somebody_dropped_is_told(
    postgresql: DatabaseServer, admin: psycopg.Connection[tuple[Any, ...]], name: str
) -> None:
    with closing(PostgreSQLStore(postgresql.uri, name=name)) as store:
        store.open()
        store.write([make_record()])
        admin.execute(f'DROP TABLE "{name}_exporters"'.encode())
        with pytest.raises(SchemaError, match="does not exist; another program changed the tables of this chest"):
            store.exporters()


@pytest.mark.parametrize("uri", ["postgresql://u:hunter2@[h/db", "postgresql://u:hunter2@h/db?nonsense=1", "x y"])
def test_uri_that_is_none_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        PostgreSQLStore(uri)
    assert str(refused.value) == (
        "db_uri must be like postgresql://user:password@host:5432/database; got something else"
    )
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("option", ["connect_timeout", "statement_timeout", "lock_timeout"])
@pytest.mark.parametrize("seconds", [0, -1.0, 3601.0, float("nan"), float("inf")])
def test_times_must_be_times(option: str, seconds: float) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must be more than 0 and at most 3600 seconds, got "):
        PostgreSQLStore("postgresql://host/db", **{option: seconds})  # type: ignore[arg-type]  # one of several


def test_pool_of_the_app_is_used_and_left_open(postgresql: DatabaseServer, name: str) -> None:
    with ConnectionPool(postgresql.uri, min_size=1, max_size=2, open=True) as pool:
        store = PostgreSQLStore(pool=pool, name=name)
        store.open()
        store.write([make_record(variables={"n": 1})])
        store.close()
        with pool.connection() as connection:
            # The app's own connections decode JSON as they did, and keep nothing of our settings.
            ((variables,),) = connection.execute(f'SELECT variables FROM "{name}"'.encode()).fetchall()
            ((timeout,),) = connection.execute(b"SHOW lock_timeout").fetchall()
    assert variables == {"n": 1}
    assert timeout == "0"


def test_pool_of_the_app_may_give_rows_in_its_own_form(postgresql: DatabaseServer, name: str) -> None:
    with ConnectionPool(postgresql.uri, kwargs={"row_factory": dict_row}, min_size=1, open=True) as pool:
        store = PostgreSQLStore(pool=pool, name=name)
        store.open()
        record = make_record()
        store.write([record])
        assert list(store.query(Query())) == [record]
        assert isinstance(store.claim("a", limit=1, lease=timedelta(minutes=1)), Claim)


def test_text_that_no_index_takes_is_no_outage(postgresql: DatabaseServer, name: str) -> None:
    incompressible = "".join(str(uuid4()) for _ in range(400))
    with closing(PostgreSQLStore(postgresql.uri, name=name)) as store:
        store.open()
        with pytest.raises(RecordRefused, match=r"\(ProgramLimitExceeded, SQLSTATE 54000\)$"):
            store.write([make_record(request_id=incompressible)])
        store.write([make_record()])


@pytest.mark.parametrize("level", [r"repeatable\ read", "serializable"])
def test_isolation_that_is_set_for_a_role_fails_no_writer(
    postgresql: DatabaseServer, name: str, level: str
) -> None:
    options = f"-c default_transaction_isolation={level}"
    with closing(PostgreSQLStore(postgresql.uri, name=name, options=options)) as store:
        store.open()
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: store.write([make_record()]), range(60)))
        assert sum(1 for _ in store.query(Query())) == 60


def test_no_log_line_holds_the_password(
    postgresql: DatabaseServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with closing(PostgreSQLStore(postgresql.uri, name=name)) as store:
        store.open()
        store.write([make_record()])
    told(PostgreSQLStore(postgresql.uri_with(password="hunter2"), name=name), StoreUnavailable)
    assert postgresql.password not in caplog.text
    assert "hunter2" not in caplog.text


def test_records_of_one_role_are_not_stored_in_the_tables_of_another(
    admin: psycopg.Connection[tuple[Any, ...]], postgresql: DatabaseServer, tmp_path: Path, name: str
) -> None:
    roles = [f"{tenant}_{name}" for tenant in ("one", "another")]
    states: list[ChestState] = []
    for number, role in enumerate(roles, 1):
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 's3cret'".encode())
        admin.execute(f"CREATE SCHEMA {role} AUTHORIZATION {role}".encode())
        app = Flask("shop", root_path=str(tmp_path))
        store = PostgreSQLStore(f"postgresql://{role}:s3cret@{postgresql.address}/chest", name=name)
        chest = FlaskChest(app, store=store, journal_dir="journal", writer="off", tracked_vars=[])
        states.append(chest._state)
        app.add_url_rule("/", view_func=lambda: "hi")
        for _ in range(number):
            app.test_client().get("/")
        states[-1].close(0)
    assert [state.here.recover() for state in reversed(states)] == [2, 1]
    for number, (state, role) in enumerate(zip(states, roles, strict=True), 1):
        assert admin.execute(f"SELECT count(*) FROM {role}.{name}".encode()).fetchall() == [(number,)]
        state.close(0)
