"""The decorator on a function that runs in a request, and that is not what the app serves."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, g
from flask.views import MethodView, View

from flask_chest import FlaskChest
from flask_chest.decorator import flask_chest


def variables(app: Flask, chest: FlaskChest, path: str = "/") -> object:
    assert app.test_client().get(path).status_code == 200
    (record,) = chest.query()
    return dict(record.variables)


@flask_chest(tracked_vars=["n"])
def bare() -> str:
    g.n, g.other = 1, 2
    return "hi"


class CallableView:
    @flask_chest(tracked_vars=["n"])
    def __call__(self) -> str:
        return bare()


def without_wraps(view: Callable[[], str]) -> Callable[[], str]:
    def inner() -> str:
        return view()

    return inner


@pytest.mark.parametrize(
    "view",
    [without_wraps(bare), functools.partial(bare), lambda: bare() + "!", CallableView()],
    ids=["decorator without wraps", "partial", "call", "callable object"],
)
def test_decorated_function_behind_the_view_is_recorded(
    app: Flask, chest: FlaskChest, view: Callable[[], str]
) -> None:
    app.add_url_rule("/", "hidden", view)
    assert variables(app, chest) == {"n": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "by_method"), [("flask_restful", False), ("flask_restful", True), ("flask_restx", False)]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_method_decorators_of_a_resource_are_recorded(
    app: Flask, chest: FlaskChest, module: str, by_method: bool
) -> None:
    package: Any = importlib.import_module(module)
    record = flask_chest(tracked_vars=["n"])

    class Shop(package.Resource):  # type: ignore[misc]  # typed by no stubs
        method_decorators: object = {"get": [record]} if by_method else [record]

        def get(self) -> dict[str, object]:
            g.n = 1
            return {}

    package.Api(app).add_resource(Shop, "/shop")
    assert variables(app, chest, "/shop") == {"n": 1}


def test_function_that_did_not_run_asks_for_nothing(app: Flask, chest: FlaskChest) -> None:
    app.add_url_rule("/", "either", lambda: bare() if "x" in g else "nothing")
    assert app.test_client().get("/").status_code == 200
    assert chest.query() == []


def test_rules_of_all_that_ran_join_in_one_record(app: Flask, chest: FlaskChest) -> None:
    @app.route("/")
    @flask_chest(tracked_vars=["other"])
    def view() -> str:
        return bare() + bare()

    assert variables(app, chest) == {"n": 1, "other": 2}


def test_wrapper_below_view_and_method_is_asked_once(app: Flask, chest: FlaskChest) -> None:
    asked: list[int] = []
    record = flask_chest(tracked_vars=["n"], computed={"c": lambda: asked.append(1)})

    class Shop(MethodView):
        decorators = [record]  # noqa: RUF012 - as Flask documents it

        @record
        def get(self) -> str:
            return bare()

    app.add_url_rule("/", view_func=Shop.as_view("shop"))
    assert variables(app, chest) == {"n": 1, "c": None}
    assert len(asked) == 1


def test_coroutine_behind_the_view_is_recorded(app: Flask, chest: FlaskChest) -> None:
    @flask_chest(tracked_vars=["n"])
    async def below() -> str:
        g.n = 1
        return "hi"

    class Hidden(View):
        def dispatch_request(self) -> str:
            answer: str = app.ensure_sync(below)()
            return answer

    app.add_url_rule("/", view_func=Hidden.as_view("hidden"))
    assert variables(app, chest) == {"n": 1}


def test_decorated_function_may_be_called_outside_of_a_request(app: Flask, chest: FlaskChest) -> None:
    @flask_chest(tracked_vars=["n"])
    def plain() -> str:
        return "hi"

    assert plain() == "hi"
    with app.app_context():
        assert plain() == "hi"
    assert chest.query() == []


def test_functions_decorated_anew_in_each_request_do_not_fill_the_memory(app: Flask, chest: FlaskChest) -> None:
    @app.route("/")
    def view() -> str:
        return flask_chest(tracked_vars=["n"])(lambda: "hi")()

    chest.close()
    for _ in range(6):
        app.test_client().get("/")
    middleware = app.extensions["flask_chest"]
    assert len(middleware._plans) == 6
    (key, plan) = middleware._plans.popitem()
    middleware._plans = dict.fromkeys(range(5000), plan) | {key: plan}
    app.test_client().get("/")
    assert len(middleware._plans) == 1
