"""Who sees the viewer: nobody, in no way, unless `allow` returned True in this very request."""

from __future__ import annotations

import hmac
import logging
from base64 import b64encode
from collections.abc import Callable

import pytest
from flask import Flask, abort
from werkzeug.local import LocalProxy
from werkzeug.test import TestResponse

from flask_chest import ConfigurationError, FlaskChest
from flask_chest.stores.memory import MemoryStore
from flask_chest.viewer import basic_auth, viewer

PATHS = [
    *("/chest", "/chest/", "/chest/records", "/chest/records/", "/chest/records.json", "/chest/records/x"),
    *("/chest/records/x.json", "/chest/static/viewer.css", "/chest/static/none", "/chest/none", "/chest/a/b"),
]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "INVENTED"]


async def coroutine() -> bool:
    return True


def raising() -> bool:
    raise RuntimeError("t0p-secret-value")


def aborting() -> bool:
    abort(403)


def failing() -> object:
    raise KeyError("t0p-secret-value")


class Panic(BaseException):
    """As those of extension modules, which are no `Exception`."""


def panicking() -> bool:
    raise Panic


def uncalled() -> Callable[[], bool]:
    return lambda: True


CLOSED: list[Callable[[], object]] = [
    lambda: False,
    lambda: None,
    lambda: 1,
    lambda: "yes",
    lambda: LocalProxy(lambda: True),
    lambda: LocalProxy(failing),
    coroutine,
    raising,
    panicking,
    aborting,
    uncalled,
]


@pytest.fixture
def app() -> Flask:
    app = Flask("shop")

    @app.errorhandler(404)
    def absent(_: Exception) -> tuple[str, int]:
        return "the app's own page", 404

    return app


@pytest.fixture
def chest(app: Flask) -> FlaskChest:
    return FlaskChest(app, store=MemoryStore, tracked_vars=["plan"], strict=True)


def mount(app: Flask, chest: FlaskChest, allow: Callable[[], object]) -> None:
    app.register_blueprint(viewer(chest, allow=allow))


@pytest.mark.parametrize("allow", CLOSED)
def test_closed_viewer_answers_as_what_does_not_exist(
    app: Flask, chest: FlaskChest, allow: Callable[[], object]
) -> None:
    mount(app, chest, allow)
    client = app.test_client()
    for method in METHODS:
        elsewhere = client.open("/elsewhere", method=method)
        for path in PATHS:
            response = client.open(path, method=method)
            assert response.status_code == 404, (method, path)
            assert (response.data, list(response.headers)) == (elsewhere.data, list(elsewhere.headers))


def test_closed_viewer_answers_a_websocket_as_what_does_not_exist(app: Flask, chest: FlaskChest) -> None:
    mount(app, chest, lambda: False)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    for path in PATHS:
        assert app.test_client().get(path, headers=upgrade).data == b"the app's own page", path


def test_reason_for_staying_closed_is_logged_once_for_each_type(
    app: Flask, chest: FlaskChest, caplog: pytest.LogCaptureFixture
) -> None:
    def answer() -> object:
        return answers[0]()

    mount(app, chest, answer)
    client = app.test_client()
    answers: list[Callable[[], object]] = [raising, lambda: False, lambda: 1, raising, lambda: 2, coroutine]

    with caplog.at_level(logging.WARNING, "flask_chest.viewer"):
        while answers:
            client.get("/chest/records")
            del answers[0]
    assert [record.getMessage().partition(" and ")[0] for record in caplog.records] == [
        "the viewer is closed: allow raised a builtins.RuntimeError,",
        "the viewer is closed: allow returned a builtins.int,",
        "the viewer is closed: allow returned a builtins.coroutine,",
    ]


def test_allow_is_required_and_can_be_called(chest: FlaskChest) -> None:
    with pytest.raises(TypeError):
        viewer(chest)  # type: ignore[call-arg]  # which is what is shown
    with pytest.raises(ConfigurationError, match=r"allow must be a function that returns True .* got a bool"):
        viewer(chest, allow=True)  # type: ignore[arg-type]  # as above


def test_it_is_asked_in_every_request(app: Flask, chest: FlaskChest) -> None:
    said = [True, False, True]
    mount(app, chest, lambda: said.pop(0))
    codes = [app.test_client().get("/chest/records").status_code for _ in range(3)]
    assert codes == [200, 404, 200]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "INVENTED"])
def test_open_viewer_only_reads(app: Flask, chest: FlaskChest, method: str) -> None:
    mount(app, chest, lambda: True)
    for path in PATHS:
        response = app.test_client().open(path, method=method)
        assert response.status_code == 405, path
        assert response.headers["Allow"] == "GET, HEAD"


def test_address_without_its_slash_is_not_redirected(app: Flask, chest: FlaskChest) -> None:
    mount(app, chest, lambda: True)
    client = app.test_client()
    codes = {path: client.get(path).status_code for path in PATHS}
    assert all(code in {200, 404} for code in codes.values()), codes
    assert client.get("/chest").data == client.get("/chest/").data


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def ask(app: Flask, chest: FlaskChest) -> Callable[[dict[str, str]], TestResponse]:
    mount(app, chest, basic_auth("VIEWER_PASSWORD"))
    return lambda headers: app.test_client().get("/chest/records", headers=headers)


def test_password_opens_under_any_user_name(
    ask: Callable[[dict[str, str]], TestResponse], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIEWER_PASSWORD", "hunter2 Ünïcode")
    assert ask(basic("ada", "hunter2 Ünïcode")).status_code == 200
    assert ask(basic("", "hunter2 Ünïcode")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("hunter2", ""),
        basic("ada", "hunter"),
        basic("ada", "hunter22"),
        {"Authorization": "Bearer hunter2"},
        {"Authorization": "Basic /w=="},
        {"Authorization": "Basic"},
    ],
)
def test_whoever_has_no_password_is_asked_for_it(
    ask: Callable[[dict[str, str]], TestResponse], headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIEWER_PASSWORD", "hunter2")
    response = ask(headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Basic realm="chest", charset="UTF-8"'
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert response.text == "This page asks for a password.\n"


@pytest.mark.parametrize("value", [None, ""])
def test_unset_or_empty_password_lets_nobody_in(
    ask: Callable[[dict[str, str]], TestResponse], value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIEWER_PASSWORD", raising=False)
    if value is not None:
        monkeypatch.setenv("VIEWER_PASSWORD", value)
    assert ask(basic("", "")).status_code == 401
    assert ask({}).status_code == 401


def test_password_is_compared_in_constant_time(
    ask: Callable[[dict[str, str]], TestResponse], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def noting(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return compare(left, right)

    monkeypatch.setattr(hmac, "compare_digest", noting)
    monkeypatch.setenv("VIEWER_PASSWORD", "hunter2")
    ask(basic("ada", "a"))
    ask(basic("ada", "hunter2"))
    assert [len(left) for pair in compared for left in pair] == [32] * 4


def test_basic_auth_takes_a_name() -> None:
    with pytest.raises(ConfigurationError, match="name of an environment variable"):
        basic_auth("")
