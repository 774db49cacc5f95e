"""The setting `indexed`: when the indexes are made by themselves, and when the commands make them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

from flask_chest import FlaskChest
from flask_chest.cli import chest_group
from flask_chest.errors import StoreUnavailable
from flask_chest.protocols import Store, VariableIndex
from flask_chest.stores.memory import MemoryStore
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


def opened(app: Flask, store: Store, *, strict: bool = False) -> FlaskChest:
    chest = FlaskChest(
        app, store=store, tracked_vars=["x"], indexed="user_id,plan", strict=strict, journal_dir="memory:"
    )
    chest._state.here.open_store()
    return chest


def test_indexes_are_made_when_a_store_without_records_opens(app: Flask, store: IndexedStore) -> None:
    store.add_index("plan")
    with closing(opened(app, store)):
        assert [index.variable for index in store.indexes()] == ["plan", "user_id"]


def test_nothing_is_made_by_itself_once_there_are_records(app: Flask, store: IndexedStore) -> None:
    store.write([make_record()])
    with closing(opened(app, store)):
        assert store.indexes() == []


def test_index_that_another_process_may_be_making_is_left_alone(app: Flask, store: IndexedStore) -> None:
    store.kept = {
        name: VariableIndex(variable=name, name=f"by_{name}", valid=False) for name in ("plan", "user_id")
    }
    with closing(opened(app, store)):
        assert not any(index.valid for index in store.indexes())


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
        assert (
            reason
            == "the indexes that the setting indexed asks for were not made; flask chest migrate makes them"
        )
    assert "the disk is full" in caplog.text


def test_store_that_makes_no_indexes_opens(app: Flask) -> None:
    with closing(opened(app, MemoryStore())) as chest:
        assert chest.query() == []
        assert chest.stats().faults == {}


def test_nobody_else_waits_for_an_index(app: Flask, store: IndexedStore) -> None:
    store.free.clear()
    opening = threading.Thread(target=opened, args=(app, store))
    opening.start()
    try:
        assert store.begun.wait(60)
        (chest,) = (state.chest for state in app.extensions["flask_chest"].states)
        assert chest.query() == []
        assert store.indexes() == []
    finally:
        store.free.set()
        opening.join(60)
    chest.close()


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


def test_doctor_says_which_index_is_missing_and_how_to_make_it(
    runner: FlaskCliRunner, store: IndexedStore
) -> None:
    store.write([make_record()])
    store.kept["plan"] = VariableIndex(variable="plan", name="by_plan", valid=False)
    found = runner.invoke(args=["chest", "doctor"])
    assert found.exit_code == 0
    assert "CHEST_INDEXED names user_id, which has no index, as there were records already" in found.output
    assert "run flask chest index add user_id." in found.output
    assert "plan has the index by_plan, which the database does not use" in found.output
    runner.invoke(args=["chest", "migrate"])
    assert "index" not in runner.invoke(args=["chest", "doctor"]).output


def test_doctor_says_that_a_store_makes_no_indexes(app: Flask) -> None:
    with closing(opened(app, MemoryStore())):
        found = app.test_cli_runner().invoke(args=["chest", "doctor"])
    assert "CHEST_INDEXED is user_id, plan, but MemoryStore makes no indexes on variables." in found.output
