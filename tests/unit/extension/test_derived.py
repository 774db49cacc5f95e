"""What a declared class brings into the store: indexes and a view, made by a process or by the commands."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Annotated

import pytest
from flask import Blueprint, Flask, g

from flask_chest import ConfigurationError, FlaskChest, FlaskChestSQLite, Indexed, Variables, variables
from flask_chest.cli import chest_group
from flask_chest.decorator import flask_chest
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import make_record


class Visit(Variables):
    user_id: Annotated[int, Indexed()]
    plan: str = "free"


class Order(Variables):
    order_id: Annotated[str, Indexed()]


NextVisit = type("Visit", (Variables,), {"__annotations__": {"user_id": str}, "__module__": __name__})
"""What the next release of the app declares."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chest.db"


def make_app(path: Path, declared: type[Variables] = Visit, **options: str) -> tuple[Flask, FlaskChestSQLite]:
    app = Flask("shop")
    app.cli.add_command(chest_group)
    chest = FlaskChestSQLite(app, db_uri=path, tracked_vars=declared, **options)  # type: ignore[arg-type]  # of str alone

    @app.route("/<user_id>")
    def index(user_id: str) -> str:
        g.user_id = int(user_id) if declared is Visit else user_id
        return "hi"

    return app, chest


def read(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def user_ids(path: Path) -> list[object]:
    return [user_id for (user_id,) in read(path, "SELECT user_id FROM flask_chest_visit ORDER BY time_unix_nano")]


def names_in(path: Path) -> set[object]:
    return {name for (name,) in read(path, "SELECT name FROM sqlite_master")}


@pytest.fixture
def filled(path: Path) -> Path:
    """A store with a record from before any class was declared."""
    app = Flask("shop")
    with closing(FlaskChestSQLite(app, db_uri=path, tracked_vars=["user_id"])) as chest:
        chest._state.here.open_store().write([make_record(variables={"user_id": 7})])
    return path


def test_first_record_of_an_empty_store_brings_index_and_view(path: Path) -> None:
    app, chest = make_app(path)
    with closing(chest):
        app.test_client().get("/7")
        assert [row.variables.user_id for row in chest.query(Visit, where={"user_id": 7})] == [7]
    assert {"flask_chest_by_user_id", "flask_chest_visit"} <= names_in(path)
    assert read(path, "SELECT user_id, plan, route FROM flask_chest_visit") == [(7, None, "/<user_id>")]


def test_classes_of_views_and_blueprints_count_too(path: Path) -> None:
    app, chest = make_app(path)
    blueprint = Blueprint("orders", __name__)

    @app.route("/order")
    @flask_chest(tracked_vars=Order)
    def order() -> str:
        variables(Order).order_id = "a"
        return "hi"

    class Stock(Variables):
        items: int

    with closing(chest):
        chest.track(blueprint, Stock)
        assert [each.view for each in chest._state.derived().views] == ["visit", "stock", "order"]
        assert chest._state.derived().indexed == ("user_id", "order_id")


def test_class_of_a_view_that_another_chest_records_does_not_count() -> None:
    app = Flask("shop")
    with (
        closing(FlaskChest(app, store=MemoryStore)) as ours,
        closing(FlaskChest(app, store=MemoryStore, config_prefix="OTHER")) as other,
    ):

        @app.route("/")
        @flask_chest(tracked_vars=Order, chests=[other])
        def order() -> str:
            return "hi"

        assert ours._state.derived().views == ()
        assert [each.view for each in other._state.derived().views] == ["order"]


def test_setting_and_classes_are_joined(path: Path) -> None:
    app, chest = make_app(path, indexed="plan,user_id")
    with closing(chest), app.app_context():
        assert chest._state.derived().indexed == ("plan", "user_id")


def test_two_classes_with_one_view_are_refused_by_name(path: Path) -> None:
    app, chest = make_app(path)

    @app.route("/next")
    @flask_chest(tracked_vars=NextVisit)
    def following() -> str:
        return "hi"

    with (
        closing(chest),
        pytest.raises(ConfigurationError, match=r"test_derived.Visit and .*Visit would have one view"),
    ):
        chest._state.derived()


def test_nothing_is_made_by_itself_where_there_are_records(filled: Path) -> None:
    app, chest = make_app(filled)
    before = names_in(filled)
    with closing(chest):
        app.test_client().get("/8")
        assert len(chest.query()) == 2
    assert names_in(filled) == before


def test_migrate_makes_it_and_check_and_sql_only_look(filled: Path) -> None:
    app, chest = make_app(filled)
    run = app.test_cli_runner().invoke
    before = names_in(filled)
    with closing(chest):
        checked = run(args=["chest", "migrate", "--check"])
        assert checked.exit_code == 1
        assert checked.output.endswith(": no index on user_id, no view flask_chest_visit.\n")
        sql = run(args=["chest", "migrate", "--sql"])
        assert sql.exit_code == 0
        assert 'CREATE VIEW "flask_chest_visit" AS SELECT record.id,' in sql.output
        assert 'CREATE INDEX "flask_chest_by_user_id" ON "flask_chest" (' in sql.output
        assert names_in(filled) == before
        made = run(args=["chest", "migrate"])
        assert made.exit_code == 0
        assert "The view flask_chest_visit was made." in made.output
        assert run(args=["chest", "migrate", "--check"]).output.endswith(": up to date.\n")
    assert read(filled, "SELECT user_id FROM flask_chest_visit") == [(7,)]


def test_statements_of_sql_make_the_same_by_hand(filled: Path) -> None:
    app, chest = make_app(filled)
    run = app.test_cli_runner().invoke
    with closing(chest):
        with closing(sqlite3.connect(filled)) as connection:
            connection.executescript(run(args=["chest", "migrate", "--sql"]).output)
        assert run(args=["chest", "migrate", "--check"]).output.endswith(": up to date.\n")
        assert "CREATE INDEX" not in run(args=["chest", "migrate", "--sql"]).output


def test_generations_of_an_app_leave_each_others_view_alone(path: Path) -> None:
    first_app, first = make_app(path)
    with closing(first):
        first_app.test_client().get("/7")
        assert first.flush()
        next_app, following = make_app(path, NextVisit)
        with closing(following):
            next_app.test_client().get("/8")
            assert following.flush()
            first_app.test_client().get("/9")
            assert first.flush()
            assert user_ids(path) == [7, None, 9]
            found = next_app.test_cli_runner().invoke(args=["chest", "doctor"])
            assert (
                "The view flask_chest_visit of Visit is of another declaration: run flask chest migrate"
                in found.output
            )
            replaced = next_app.test_cli_runner().invoke(args=["chest", "migrate"])
            assert "The view flask_chest_visit was replaced." in replaced.output
            first_app.test_client().get("/10")
            assert first.flush()
    assert user_ids(path) == [None, "8", None, None]


def test_doctor_says_which_view_is_missing(filled: Path) -> None:
    app, chest = make_app(filled)
    with closing(chest):
        found = app.test_cli_runner().invoke(args=["chest", "doctor"])
        assert found.exit_code == 0
        assert "The view flask_chest_visit of Visit is missing: run flask chest migrate" in found.output
        assert "user_id should be indexed and is not" in found.output


def test_store_of_another_kind_works_without_views() -> None:
    app = Flask("shop")
    with closing(FlaskChest(app, store=MemoryStore, tracked_vars=Visit)) as chest:

        @app.route("/")
        def index() -> str:
            variables(Visit).user_id = 7
            return "hi"

        app.test_client().get("/")
        assert [row.variables for row in chest.query(Visit)] == [Visit(user_id=7)]
        assert not chest.stats().faults
