"""One record per request and chest, whatever becomes of the request."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator

import pytest
import werkzeug
from flask import Blueprint, Flask, Response, abort, g, redirect, request
from flask.typing import ResponseReturnValue
from flask.views import MethodView
from werkzeug.exceptions import NotFound

from flask_chest import FlaskChest, Record, current_request_id
from flask_chest.decorator import flask_chest
from flask_chest.stores.memory import MemoryStore


def only(chest: FlaskChest) -> Record:
    (record,) = chest.query()
    return record


def test_record_holds_the_variables_and_the_circumstances(app: Flask, chest: FlaskChest) -> None:
    @app.route("/users/<int:user>", methods=["GET", "POST"])
    @flask_chest(tracked_vars={"GET": ["user_id", "total"], "POST": ["data"]})
    def user(user: int) -> str:
        g.user_id, g.total, g.data = user, 1.5, "not for GET"
        return "hi"

    assert app.test_client().get("/users/7?secret=1").status_code == 200

    record = only(chest)
    assert record.variables == {"user_id": 7, "total": 1.5}
    assert (record.method, record.route, record.endpoint) == ("GET", "/users/<int:user>", "user")
    assert (record.status_code, record.error) == (200, None)
    assert record.duration_ns > 0


@pytest.mark.parametrize(
    ("method", "variables"),
    [("GET", {"a": 1}), ("HEAD", {"a": 1}), ("POST", {"b": 2}), ("PUT", {}), ("OPTIONS", {})],
)
def test_method_chooses_the_variables(
    app: Flask, chest: FlaskChest, method: str, variables: dict[str, int]
) -> None:
    @app.before_request
    def prepare() -> None:
        g.a, g.b = 1, 2

    @app.route("/", methods=["GET", "POST", "PUT"])
    @flask_chest(tracked_vars={"GET": ["a"], "POST": ["b"]})
    def index() -> str:
        return "hi"

    app.test_client().open("/", method=method)
    assert only(chest).variables == variables


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("text", 200),
        (("text", 201), 201),
        (("text", 202, {"X-A": "1"}), 202),
        ({"a": 1}, 200),
        ([1], 200),
        (redirect("/x", 302), 302),
        (Response("teapot", 418), 418),
    ],
)
def test_every_kind_of_answer_has_its_status(
    app: Flask, chest: FlaskChest, answer: ResponseReturnValue, status: int
) -> None:
    @app.route("/")
    @flask_chest
    def index() -> ResponseReturnValue:
        return answer

    assert app.test_client().get("/").status_code == status
    assert only(chest).status_code == status


def test_abort_is_recorded_with_what_was_set_before(app: Flask, chest: FlaskChest) -> None:
    @app.route("/")
    @flask_chest(tracked_vars=["user_id"])
    def index() -> str:
        g.user_id = 1
        abort(403)

    app.test_client().get("/")
    assert (only(chest).status_code, dict(only(chest).variables)) == (403, {"user_id": 1})


def test_unhandled_exception_is_a_500_with_its_type(app: Flask, chest: FlaskChest) -> None:
    @app.route("/")
    @flask_chest(tracked_vars=["user_id"])
    def index() -> str:
        g.user_id = 1
        raise LookupError("a value that must not be stored")

    assert app.test_client().get("/").status_code == 500
    record = only(chest)
    assert (record.status_code, record.error, dict(record.variables)) == (500, "LookupError", {"user_id": 1})


@pytest.mark.parametrize("key", ["TESTING", "PROPAGATE_EXCEPTIONS", "DEBUG"])
def test_exception_that_propagates_is_recorded_and_propagates(app: Flask, chest: FlaskChest, key: str) -> None:
    app.config[key] = True

    @app.route("/")
    @flask_chest(tracked_vars=["user_id"])
    def index() -> str:
        g.user_id = 1
        raise LookupError("on its way")

    with pytest.raises(LookupError, match="on its way"):
        app.test_client().get("/")
    record = only(chest)
    assert (record.status_code, record.error, dict(record.variables)) == (500, "LookupError", {"user_id": 1})


def test_exit_in_a_view_is_recorded_and_goes_on(app: Flask, chest: FlaskChest) -> None:
    @app.route("/")
    @flask_chest(tracked_vars=["user_id"])
    def index() -> str:
        g.user_id = 1
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        app.test_client().get("/")
    record = only(chest)
    assert (record.status_code, record.error, dict(record.variables)) == (500, "SystemExit", {"user_id": 1})


def test_handler_of_an_exception_decides_the_status(app: Flask, chest: FlaskChest) -> None:
    @app.errorhandler(LookupError)
    def handle(_: LookupError) -> tuple[str, int]:
        return "gone", 410

    @app.route("/")
    @flask_chest
    def index() -> str:
        raise LookupError

    assert app.test_client().get("/").status_code == 410
    assert only(chest).status_code == 410


def test_streamed_answer_is_recorded_once_and_passed_on_whole(app: Flask, chest: FlaskChest) -> None:
    @app.route("/")
    @flask_chest(tracked_vars=["user_id"])
    def index() -> Response:
        g.user_id = 1

        def chunks() -> Iterator[str]:
            yield "a"
            yield "b"

        return Response(chunks())

    with app.test_client().get("/") as response:
        assert response.data == b"ab"
        assert chest.query() == []
    assert only(chest).variables == {"user_id": 1}


def test_file_is_passed_through_untouched(app: Flask, chest: FlaskChest) -> None:
    @app.route("/")
    @flask_chest
    def index() -> Response:
        return Response(io.BytesIO(b"content"), direct_passthrough=True)

    assert app.test_client().get("/").data == b"content"
    assert only(chest).status_code == 200


def test_async_view_is_recorded(app: Flask, chest: FlaskChest) -> None:
    @app.route("/")
    @flask_chest(tracked_vars=["user_id"])
    async def index() -> str:
        await asyncio.sleep(0)
        g.user_id = 1
        return "hi"

    assert app.test_client().get("/").data == b"hi"
    assert only(chest).variables == {"user_id": 1}


def test_method_view_may_be_decorated_as_a_whole_by_method_or_as_a_class(app: Flask, chest: FlaskChest) -> None:
    class Whole(MethodView):
        decorators = [flask_chest(tracked_vars=["a"])]  # noqa: RUF012 - Flask's way

        def get(self) -> str:
            g.a = 1
            return "hi"

    class ByMethod(MethodView):
        @flask_chest(tracked_vars=["b"])
        def get(self) -> str:
            g.b = 2
            return "hi"

        def post(self) -> str:
            return "not tracked"

    @flask_chest(tracked_vars=["c"])
    class AsClass(MethodView):
        async def get(self) -> str:
            g.c = 3
            return "hi"

    for view in (Whole, ByMethod, AsClass):
        app.add_url_rule(f"/{view.__name__}", view_func=view.as_view(view.__name__))
    client = app.test_client()
    for path in ("/Whole", "/ByMethod", "/AsClass"):
        assert client.get(path).data == b"hi"
    client.head("/ByMethod")
    client.post("/ByMethod")
    recorded = [(record.route, record.method, dict(record.variables)) for record in reversed(chest.query())]
    assert recorded == [
        ("/Whole", "GET", {"a": 1}),
        ("/ByMethod", "GET", {"b": 2}),
        ("/AsClass", "GET", {"c": 3}),
        ("/ByMethod", "HEAD", {"b": 2}),
    ]


def test_blueprint_view_is_recorded_under_its_endpoint(app: Flask, chest: FlaskChest) -> None:
    outer, inner = Blueprint("outer", "o", url_prefix="/o"), Blueprint("inner", "i", url_prefix="/i")

    @inner.route("/<name>")
    @flask_chest(tracked_vars=["name"])
    def show(name: str) -> str:
        g.name = name
        return name

    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    app.test_client().get("/o/i/x")
    assert (only(chest).endpoint, only(chest).route) == ("outer.inner.show", "/o/i/<name>")


def test_stacked_decorators_make_one_record_of_all_names(app: Flask, chest: FlaskChest) -> None:
    @app.route("/")
    @flask_chest(tracked_vars=["a", "b"], request_id_generator=lambda: "outermost")
    @flask_chest(tracked_vars={"GET": ["b", "c"]}, request_id_generator=lambda: "inner")
    def index() -> str:
        g.a, g.b, g.c = 1, 2, 3
        return "hi"

    app.test_client().get("/")
    record = only(chest)
    assert (record.request_id, dict(record.variables)) == ("outermost", {"a": 1, "b": 2, "c": 3})


def test_undecorated_view_is_not_recorded(app: Flask, chest: FlaskChest) -> None:
    @app.route("/")
    def index() -> str:
        g.user_id = 1
        return str(current_request_id() is not None)

    app.test_client().get("/")
    assert chest.query() == []


def test_app_wide_names_are_recorded_everywhere_and_join_the_decorators(app: Flask) -> None:
    chest = FlaskChest(app, store=MemoryStore, tracked_vars=["user_id"], strict=True)

    @app.before_request
    def who() -> None:
        g.user_id = 1

    @app.route("/bare")
    def bare() -> str:
        return "hi"

    @app.route("/more")
    @flask_chest(tracked_vars=["more"])
    def more() -> str:
        g.more = 2
        return "hi"

    client = app.test_client()
    for path in ("/bare", "/more", "/nowhere"):
        client.get(path)
    client.post("/bare")
    recorded = [(r.route, r.status_code, dict(r.variables)) for r in reversed(chest.query())]
    assert recorded == [
        ("/bare", 200, {"user_id": 1}),
        ("/more", 200, {"user_id": 1, "more": 2}),
        (None, 404, {"user_id": 1}),
        (None, 405, {"user_id": 1}),
    ]


def test_one_request_has_one_id_in_the_view_and_in_the_record(app: Flask, chest: FlaskChest) -> None:
    seen: list[str | None] = []
    calls: list[int] = []

    def generate() -> str:
        calls.append(1)
        return f"id-{len(calls)}-{request.args['n']}"

    @app.route("/")
    @flask_chest(request_id_generator=generate)
    def index() -> str:
        seen.extend([current_request_id(), current_request_id()])
        return "hi"

    app.test_client().get("/?n=7")
    assert seen == ["id-1-7", "id-1-7"]
    assert only(chest).request_id == "id-1-7"
    assert current_request_id() is None


def test_request_within_a_request_keeps_both_apart(app: Flask, chest: FlaskChest) -> None:
    @app.route("/outer")
    @flask_chest(tracked_vars=["name"])
    def outer() -> str:
        g.name = "outer"
        return app.test_client().get("/inner").text

    @app.route("/inner")
    @flask_chest(tracked_vars=["name"])
    def inner() -> str:
        return "inner"

    app.test_client().get("/outer")
    assert {(r.route, r.variables.get("name")) for r in chest.query()} == {("/outer", "outer"), ("/inner", None)}


def test_times_are_unique_and_increase_across_chests_and_requests(app: Flask, chest: FlaskChest) -> None:
    second = FlaskChest(app, store=MemoryStore, strict=True)

    @app.route("/")
    @flask_chest
    def index() -> str:
        return "hi"

    for _ in range(50):
        app.test_client().get("/")
    times = [record.time_unix_nano for each in (chest, second) for record in each.query()]
    assert len(set(times)) == 100


def test_mounted_app_and_its_host_record_their_own(app: Flask, chest: FlaskChest) -> None:
    mounted = Flask("mounted")
    chest.init_app(mounted)

    @mounted.route("/")
    @flask_chest(tracked_vars=["name"])
    def there() -> str:
        g.name = "mounted"
        return "there"

    @app.route("/")
    @flask_chest(tracked_vars=["name"])
    def here() -> werkzeug.Response:
        g.name = "host"
        return werkzeug.Response.from_app(mounted.wsgi_app, request.environ)

    assert app.test_client().get("/").data == b"there"
    with app.app_context():
        assert only(chest).variables == {"name": "host"}
    with mounted.app_context():
        assert only(chest).variables == {"name": "mounted"}


def test_trapped_http_exception_is_recorded(app: Flask, chest: FlaskChest) -> None:
    app.config["TRAP_HTTP_EXCEPTIONS"] = True
    app.testing = True

    @app.route("/")
    @flask_chest
    def index() -> str:
        raise NotFound

    with pytest.raises(NotFound):
        app.test_client().get("/")
    assert only(chest).error == "NotFound"
