"""The setting `indexed`: when the indexes are made by themselves, and when the commands make them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

from flask_chest import FlaskChest, FlaskChestSQLite
from flask_chest.cli import chest_group
from flask_chest.errors import StoreUnavailable
from flask_chest.extension.databases import ChestOptions
from flask_chest.protocols import Store, VariableIndex
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import make_record
from indexed_store import IndexedStore


@pytest.fixture
def store() -> IndexedStore:
    store = IndexedStore()
    store.open()
    return store


@pytest.fixture
def app() -> Flask:
    app = Flask("shop")
    app.cli.add_command(chest_group)
    return app


@pytest.fixture
def runner(app: Flask, store: IndexedStore) -> Iterator[FlaskCliRunner]:
    with closing(FlaskChest(app, store=store, tracked_vars=["x"], indexed=["user_id", "plan"])):
        yield app.test_cli_runner()


NOT_MADE = "indexes or views of variables were not made; flask chest migrate makes them"


def opened(app: Flask, store: Store, *, strict: bool = False) -> FlaskChest:
    chest = FlaskChest(
        app, store=store, tracked_vars=["x"], indexed="user_id,plan", strict=strict, journal_dir="memory:"
    )
    chest._state.here.open_store()
    return chest


def test_indexes_are_made_when_a_store_without_records_opens(app: Flask, store: IndexedStore) -> None:
    store.add_index("plan")
    opened(app, store).close()
    assert [index.variable for index in store.indexes()] == ["plan", "user_id"]


def test_nothing_is_made_by_itself_once_there_are_records(app: Flask, store: IndexedStore) -> None:
    store.write([make_record()])
    opened(app, store).close()
    assert store.indexes() == []


def test_index_that_another_process_may_be_making_is_left_alone(app: Flask, store: IndexedStore) -> None:
    store.kept = {
        name: VariableIndex(variable=name, name=f"by_{name}", valid=False) for name in ("plan", "user_id")
    }
    opened(app, store).close()
    assert not any(index.valid for index in store.indexes())


def test_one_process_makes_the_indexes(app: Flask, store: IndexedStore) -> None:
    store.free.clear()
    first = opened(app, store)
    assert store.begun.wait(60)
    second = opened(Flask("shop"), store)
    assert second.close(60)
    assert store.indexes() == []
    store.free.set()
    assert first.close(60)
    assert [index.variable for index in store.indexes()] == ["plan", "user_id"]
    assert first.stats().faults == second.stats().faults == {}


@pytest.mark.parametrize("strict", [False, True])
def test_failure_to_make_an_index_is_counted_and_the_record_kept(
    app: Flask, store: IndexedStore, caplog: pytest.LogCaptureFixture, strict: bool
) -> None:
    store.failure = StoreUnavailable("the disk is full")
    with closing(opened(app, store, strict=strict)) as chest:
        app.test_client().get("/")
        assert chest.flush()
        assert len(chest.query()) == 1
    (reason,) = chest.stats().faults
    assert reason == "indexes or views of variables were not made; flask chest migrate makes them"
    assert "the disk is full" in caplog.text


def test_store_that_makes_no_indexes_opens(app: Flask) -> None:
    with closing(opened(app, MemoryStore())) as chest:
        assert chest.query() == []
        assert chest.stats().faults == {}


def test_nobody_waits_for_an_index(app: Flask, store: IndexedStore) -> None:
    store.free.clear()
    chest = opened(app, store)
    assert store.begun.wait(60)
    assert chest.query() == []
    assert chest.close(timeout=0.1)
    store.free.set()


def test_migrate_makes_what_is_missing_and_check_only_looks(runner: FlaskCliRunner, store: IndexedStore) -> None:
    store.write([make_record()])
    store.kept["plan"] = VariableIndex(variable="plan", name="by_plan", valid=False)
    check = runner.invoke(args=["chest", "migrate", "--check"])
    assert (check.exit_code, check.output) == (1, "memory: no index on user_id, plan.\n")
    made = runner.invoke(args=["chest", "migrate"])
    assert made.exit_code == 0
    assert "The index on user_id took 0." in made.output
    assert made.output.endswith("memory: up to date.\n")
    assert [(index.variable, index.valid) for index in store.indexes()] == [("plan", True), ("user_id", True)]
    assert runner.invoke(args=["chest", "migrate", "--check"]).exit_code == 0


def test_migrate_names_the_command_where_the_store_tells_no_statements(
    runner: FlaskCliRunner, store: IndexedStore
) -> None:
    told = runner.invoke(args=["chest", "migrate", "--sql"])
    assert told.exit_code == 0
    assert told.output.splitlines() == [
        f"-- The index on {name}: flask chest index add {name}" for name in ("user_id", "plan")
    ]
    assert store.indexes() == []


def test_doctor_says_which_index_is_missing_and_how_to_make_it(
    runner: FlaskCliRunner, store: IndexedStore
) -> None:
    store.write([make_record()])
    store.kept["plan"] = VariableIndex(variable="plan", name="by_plan", valid=False)
    found = runner.invoke(args=["chest", "doctor"])
    assert found.exit_code == 0
    assert "user_id should be indexed and is not, as there were records already" in found.output
    assert "run flask chest index add user_id." in found.output
    assert "plan has the index by_plan, which the database does not use" in found.output
    runner.invoke(args=["chest", "migrate"])
    assert "index" not in runner.invoke(args=["chest", "doctor"]).output


def test_doctor_says_that_a_store_makes_no_indexes(app: Flask) -> None:
    with closing(opened(app, MemoryStore())):
        found = app.test_cli_runner().invoke(args=["chest", "doctor"])
    assert "MemoryStore makes no indexes on variables: user_id, plan cannot be indexed." in found.output


def test_sqlite_has_the_indexes_from_its_first_record_on(app: Flask, tmp_path: Path) -> None:
    options: ChestOptions = {"tracked_vars": ["x"], "indexed": ["user_id", "plan"], "journal_dir": "memory:"}
    with closing(FlaskChestSQLite(app, db_uri=tmp_path / "db", **options)) as chest:
        app.test_client().get("/")
        assert chest.close()
        assert app.test_cli_runner().invoke(args=["chest", "index", "list"]).output == (
            "plan: flask_chest_by_plan\nuser_id: flask_chest_by_user_id\n"
        )
        assert chest.stats().faults == {}


def test_filled_sqlite_gets_the_indexes_from_migrate(app: Flask, tmp_path: Path) -> None:
    with closing(SQLiteStore(tmp_path / "db")) as store:
        store.open()
        store.write([make_record()])
    with closing(
        FlaskChestSQLite(app, db_uri=tmp_path / "db", indexed="user_id", journal_dir="memory:")
    ) as chest:
        runner = app.test_cli_runner()
        assert len(chest.query()) == 1
        assert "No variable has an index" in runner.invoke(args=["chest", "index", "list"]).output
        assert runner.invoke(args=["chest", "migrate", "--check"]).exit_code == 1
        assert "The index on user_id took " in runner.invoke(args=["chest", "migrate"]).output
        assert runner.invoke(args=["chest", "index", "list"]).output == "user_id: flask_chest_by_user_id\n"
