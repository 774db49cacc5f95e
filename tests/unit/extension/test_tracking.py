"""What is captured where: routes and blueprints, paths and globs, other names and computed values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Unpack

import pytest
from flask import Blueprint, Flask, Response, g, stream_with_context
from werkzeug.local import LocalProxy

from flask_chest import FlaskChest, Record
from flask_chest.decorator import flask_chest
from flask_chest.errors import ConfigurationError
from flask_chest.extension.settings import SettingOptions
from flask_chest.record import JSONValue
from flask_chest.stores.memory import MemoryStore


@dataclass
class User:
    id: int
    name: str

    @property
    def plan(self) -> str:
        return f"plan of {self.name}"

    @property
    def broken(self) -> str:
        raise RuntimeError("hunter2")


@contextmanager
def opened(app: Flask, **options: Unpack[SettingOptions]) -> Iterator[FlaskChest]:
    chest = FlaskChest(app, store=MemoryStore, **options)
    try:
        yield chest
    finally:
        chest.close()


def serve(app: Flask, **options: Unpack[SettingOptions]) -> dict[str, JSONValue]:
    """Ask for ``/`` and give what was recorded."""
    with opened(app, **options) as chest:
        with app.test_client().get("/") as response:
            assert response.status_code == 200
            response.get_data()
        (record,) = chest.query()
        return dict(record.variables)


def routes(records: list[Record]) -> list[str | None]:
    return [record.route for record in reversed(records)]


@pytest.fixture
def shop() -> Flask:
    """An app with routes of its own and two blueprints, one within the other."""
    app = Flask("shop")
    outer, inner = Blueprint("outer", "outer"), Blueprint("inner", "inner")
    app.before_request(lambda: setattr(g, "x", 1))
    app.add_url_rule("/", "index", lambda: "index")
    app.add_url_rule("/api/items/<int:item>", "api.items", lambda item: f"{item}")
    app.add_url_rule("/health", "health", lambda: "ok")
    outer.add_url_rule("/outer", "page", lambda: "outer")
    inner.add_url_rule("/inner", "page", lambda: "inner")
    outer.register_blueprint(inner)
    app.register_blueprint(outer, url_prefix="/blue")
    app.extensions["blueprints"] = {"outer": outer, "inner": inner}
    return app


ASKED = ("/", "/api/items/7", "/health", "/blue/outer", "/blue/inner", "/nowhere")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["/", "/api/items/<int:item>", "/health", "/blue/outer", "/blue/inner", None]),
        ({"include": "/api/*"}, ["/api/items/<int:item>"]),
        ({"include": ["/"]}, ["/"]),
        ({"include": ["outer.*"]}, ["/blue/outer", "/blue/inner"]),
        ({"exclude": ["/health", "outer.*"]}, ["/", "/api/items/<int:item>", None]),
        (
            {"include": ["/*"], "exclude": ["health"]},
            ["/", "/api/items/<int:item>", "/blue/outer", "/blue/inner"],
        ),
    ],
    ids=repr,
)
def test_routes_and_endpoints_are_included_and_excluded(
    shop: Flask, options: SettingOptions, expected: list[str | None]
) -> None:
    options["tracked_vars"] = ["x"]
    with opened(shop, **options) as chest:
        for path in ASKED:
            shop.test_client().get(path)
        assert routes(chest.query()) == expected


def test_two_routes_of_one_endpoint_are_told_apart() -> None:
    app = Flask("shop")
    app.add_url_rule("/new", "page", page := lambda: "page")
    app.add_url_rule("/old", "page", page)
    with opened(app, tracked_vars=["x"], exclude=["/old"]) as chest:
        for path in ("/old", "/new", "/old"):
            app.test_client().get(path)
        assert routes(chest.query()) == ["/new"]


def test_decorated_view_is_recorded_also_where_the_app_is_not(shop: Flask) -> None:
    @shop.route("/asked")
    @flask_chest(tracked_vars=["x"])
    def asked() -> str:
        return "asked"

    with opened(shop, tracked_vars=["x"], exclude=["/*"]) as chest:
        for path in ("/", "/asked"):
            shop.test_client().get(path)
        assert routes(chest.query()) == ["/asked"]


@pytest.mark.parametrize(
    ("name", "expected"), [("outer", ["/blue/outer", "/blue/inner"]), ("inner", ["/blue/inner"])]
)
def test_blueprint_is_tracked_with_those_in_it(shop: Flask, name: str, expected: list[str]) -> None:
    with opened(shop) as chest:
        chest.track(shop.extensions["blueprints"][name], ["x"])
        for path in ASKED:
            shop.test_client().get(path)
        assert routes(chest.query()) == expected


def test_blueprint_may_be_tracked_while_requests_are_served(shop: Flask) -> None:
    with opened(shop) as chest:
        shop.test_client().get("/blue/outer")
        chest.track(shop.extensions["blueprints"]["outer"], {"GET": ["x"]}, rename={"x": "y"})
        shop.test_client().get("/blue/outer")
        (record,) = chest.query()
        assert record.variables == {"y": 1}


def test_blueprint_under_another_name_is_the_same() -> None:
    app, blueprint = Flask("shop"), Blueprint("page", "page")
    blueprint.add_url_rule("/", "index", lambda: "hi")
    app.register_blueprint(blueprint, name="first", url_prefix="/first")
    app.register_blueprint(blueprint, name="second", url_prefix="/second")
    with opened(app) as chest:
        chest.track(blueprint)
        for path in ("/first/", "/second/"):
            app.test_client().get(path)
        assert routes(chest.query()) == ["/first/", "/second/"]


def test_only_a_blueprint_is_tracked(shop: Flask) -> None:
    with opened(shop) as chest, pytest.raises(ConfigurationError, match="track takes a blueprint, got a str"):
        chest.track("outer")  # type: ignore[arg-type]  # what the test is about


def test_paths_lead_through_attributes_and_keys(app: Flask) -> None:
    @app.route("/")
    def index() -> str:
        g.user = User(7, "Ada")
        g.proxy = LocalProxy(lambda: User(8, "Bob"))
        g.cart = {"total": {"eur": 12.5}, "owner": SimpleNamespace(id=9), "first-item": "tea", "keys": 3}
        g.nothing = None
        return "hi"

    names = [
        "user.id",
        "user.plan",
        "proxy.id",
        "cart.total.eur",
        "cart.owner.id",
        "cart.first-item",
        "cart.keys",
    ]
    absent = ["user.age", "cart.size", "nothing.id", "absent.id", "cart.total.usd.cents"]
    assert serve(app, tracked_vars=names + absent) == {
        "user.id": 7,
        "user.plan": "plan of Ada",
        "proxy.id": 8,
        "cart.total.eur": 12.5,
        "cart.owner.id": 9,
        "cart.first-item": "tea",
        "cart.keys": 3,
    }


def test_attribute_that_raises_is_counted_and_left_out(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    @app.route("/")
    def index() -> str:
        g.user = User(7, "Ada")
        return "hi"

    with opened(app, tracked_vars=["user.broken", "user.id"]) as chest:
        assert app.test_client().get("/").status_code == 200
        (record,) = chest.query()
        assert record.variables == {"user.id": 7}
        assert chest.stats().faults == {"a value raised while it was read": 1}
    assert "hunter2" not in caplog.text


def test_globs_take_what_is_there(app: Flask) -> None:
    @app.route("/")
    def index() -> str:
        g.cart_id, g.cart_user, g.carton, g._cart_private, g.cart_token = 1, User(7, "Ada"), 2, 3, "x"
        return "hi"

    assert serve(app, tracked_vars=["cart_*"]) == {
        "cart_id": 1,
        "cart_user": {"id": 7, "name": "Ada"},
        "cart_token": "[masked]",
    }


@pytest.mark.parametrize(
    ("glob", "expected"),
    [("*", {"a1": 1, "b": 3}), ("a?", {"a1": 1}), ("[ab]*", {"a1": 1, "b": 3}), ("_*", {"_c": 4})],
)
def test_private_names_are_taken_only_when_asked_for(app: Flask, glob: str, expected: dict[str, int]) -> None:
    @app.route("/")
    def index() -> str:
        g.a1, g.b, g._c = 1, 3, 4
        return "hi"

    assert serve(app, tracked_vars=[glob]) == expected


def test_names_are_replaced_by_the_chest_and_by_the_decorator(app: Flask) -> None:
    @app.route("/")
    @flask_chest(tracked_vars=["user.id", "total", "cart_*"], rename={"total": "sum", "cart_size": "items"})
    def index() -> str:
        g.user, g.total, g.cart_size = User(7, "Ada"), 12.5, 3
        return "hi"

    renamed = serve(app, rename={"user.id": "uid", "total": "amount"})
    assert renamed == {"uid": 7, "sum": 12.5, "items": 3}


@pytest.mark.parametrize("rename", [{"password": "note"}, {"note": "password"}])
def test_new_name_hides_nothing_and_uncovers_nothing(app: Flask, rename: dict[str, str]) -> None:
    @app.route("/")
    def index() -> str:
        g.password = g.note = "hunter2"
        return "hi"

    (name,) = rename
    assert serve(app, tracked_vars=[name], rename=rename) == {rename[name]: "[masked]"}


def test_computed_values_are_those_of_the_end_of_the_request(app: Flask) -> None:
    @app.route("/")
    @flask_chest(tracked_vars=["a"], computed={"twice": lambda: g.a * 2})
    def index() -> str:
        g.a = 1
        return "hi"

    @app.after_request
    def later(response: Response) -> Response:
        g.a = 21
        return response

    computed = {"plan": lambda: f"plan {g.a}", "password": lambda: "hunter2"}
    assert serve(app, computed=computed) == {"a": 21, "twice": 42, "plan": "plan 21", "password": "[masked]"}


def test_computed_value_that_raises_is_counted_and_left_out(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    app.route("/")(lambda: "hi")

    def broken() -> str:
        raise RuntimeError("hunter2")

    with opened(app, tracked_vars=["a"], computed={"broken": broken, "fine": lambda: 1}) as chest:
        assert app.test_client().get("/").status_code == 200
        (record,) = chest.query()
        assert record.variables == {"fine": 1}
        assert chest.stats().faults == {"a value raised while it was read": 1}
    assert "hunter2" not in caplog.text


def test_computed_value_of_a_stream_is_that_of_its_beginning(app: Flask) -> None:
    @app.route("/")
    def index() -> Response:
        g.a = 1

        def body() -> Iterator[str]:
            yield "a"
            g.a = 2
            yield "b"

        return Response(stream_with_context(body()))

    assert serve(app, tracked_vars=["a"], computed={"then": lambda: g.a}) == {"a": 2, "then": 1}


def test_option_that_is_none_is_a_type_error_that_knows_the_right_one(app: Flask) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'redcat'; did you mean 'redact'"):
        FlaskChest(app, redcat=["x"])  # type: ignore[call-arg]  # what the test is about


@pytest.mark.parametrize("name", ["uri", "db_uri"])
def test_chest_that_is_given_a_uri_says_where_it_belongs(name: str) -> None:
    options: dict[str, Any] = {name: "sqlite:///chest.db"}
    with pytest.raises(TypeError, match="FlaskChest takes its database from CHEST_URI, or as store="):
        FlaskChest(Flask("shop"), **options)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("POST", "/", 405)])
def test_request_that_matched_no_route_is_recorded_where_every_one_is(
    shop: Flask, method: str, path: str, status: int
) -> None:
    with opened(shop, tracked_vars=["x"]) as chest:
        assert shop.test_client().open(path, method=method).status_code == status
        (record,) = chest.query()
        assert (record.status_code, record.route, record.endpoint, record.method) == (status, None, None, method)
