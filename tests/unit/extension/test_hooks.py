"""What an app's own hooks set, take away, or break."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest
from flask import Flask, Response, g, request
from flask.sessions import SecureCookieSessionInterface, SessionMixin
from flask.typing import ResponseReturnValue

from flask_chest import FlaskChest, Record
from flask_chest.decorator import flask_chest


def only(chest: FlaskChest) -> Record:
    (record,) = chest.query()
    return record


def test_request_that_never_reached_its_view_is_recorded(app: Flask, chest: FlaskChest) -> None:
    @app.before_request
    def turn_away() -> ResponseReturnValue:
        g.user_id = "stranger"
        return "log in first", 401

    @app.route("/")
    @flask_chest(tracked_vars=["user_id"])
    def index() -> str:
        pytest.fail("reached")

    app.test_client().get("/")
    assert (only(chest).status_code, dict(only(chest).variables)) == (401, {"user_id": "stranger"})


def test_session_that_cannot_be_saved_makes_the_record_say_500(app: Flask, chest: FlaskChest) -> None:
    class Unsaved(SecureCookieSessionInterface):
        def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
            raise OSError("no place")

    app.secret_key = "for this test"
    app.session_interface = Unsaved()

    @app.route("/")
    @flask_chest(tracked_vars=["user_id"])
    def index() -> str:
        g.user_id = 1
        return "fine so far"

    assert app.test_client().get("/").status_code == 500
    record = only(chest)
    assert (record.status_code, record.error, dict(record.variables)) == (500, "OSError", {"user_id": 1})


def test_after_request_of_another_that_raises_hides_nothing(app: Flask, chest: FlaskChest) -> None:
    @app.after_request
    def broken(response: Response) -> Response:
        raise OSError("broken")

    @app.route("/")
    @flask_chest(tracked_vars=["user_id"])
    def index() -> str:
        g.user_id = 1
        return "fine so far"

    assert app.test_client().get("/").status_code == 500
    record = only(chest)
    assert (record.status_code, record.error, dict(record.variables)) == (500, "OSError", {"user_id": 1})


def test_what_after_request_functions_set_is_recorded(app: Flask, chest: FlaskChest) -> None:
    @app.after_request
    def late(response: Response) -> Response:
        g.late = "yes"
        response.status_code = 203
        return response

    @app.route("/")
    @flask_chest(tracked_vars=["late"])
    def index() -> str:
        return "hi"

    app.test_client().get("/")
    assert (only(chest).status_code, dict(only(chest).variables)) == (203, {"late": "yes"})


def test_hooks_may_set_values_from_the_first_to_the_last(app: Flask, chest: FlaskChest) -> None:
    names = ["before", "view", "after", "teardown", "context", "each"]

    def setter(name: str) -> Callable[..., None]:
        def set_value(*_: object) -> None:
            setattr(g, name, len(vars(g)))
            g.each = name

        return set_value

    app.before_request(setter("before"))
    app.teardown_request(setter("teardown"))
    app.teardown_appcontext(setter("context"))

    @app.after_request
    def after(response: Response) -> Response:
        setter("after")()
        return response

    @app.route("/")
    @flask_chest(tracked_vars=names)
    def index() -> str:
        setter("view")()
        return "hi"

    app.test_client().get("/")
    variables = only(chest).variables
    assert sorted(names[:5], key=lambda name: str(variables[name])) == names[:5]
    assert variables["each"] == "context"


def test_value_that_a_teardown_takes_away_stays(app: Flask, chest: FlaskChest) -> None:
    class Session:
        id = 7

    @app.route("/")
    @flask_chest(tracked_vars=["session.id", "user_id"])
    def index() -> str:
        g.session, g.user_id = Session(), 8
        return "hi"

    @app.teardown_appcontext
    def close(_: object) -> None:
        def closed(_: Session) -> int:
            raise RuntimeError

        Session.id = property(closed)  # type: ignore[assignment]  # as after the end of a database session
        del g.user_id

    app.test_client().get("/")
    assert only(chest).variables == {"session.id": 7, "user_id": 8}
    assert chest.stats().faults == {}


def test_websocket_is_recorded_when_it_is_over_and_has_not_failed(app: Flask, chest: FlaskChest) -> None:
    class Over(Response):
        """As extensions for websockets answer under gunicorn: the connection has been used, nothing is sent."""

        def __call__(self, *_: object) -> NoReturn:
            raise StopIteration

    @app.route("/ws")
    @flask_chest(tracked_vars=["messages"])
    def talk() -> Response:
        g.messages = len(request.environ["wsgi.websocket"])
        return Over()

    with pytest.raises(StopIteration):
        app.test_client().get("/ws", environ_overrides={"wsgi.websocket": ["a", "b"]})
    record = only(chest)
    assert (record.status_code, record.error, dict(record.variables)) == (200, None, {"messages": 2})
