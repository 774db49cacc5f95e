"""What goes out whatever the app does: headers, templates, error pages; and what stays out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest
from flask import Flask, Response, abort, g, request
from flask_talisman import Talisman  # type: ignore[import-untyped]  # it has no types
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_chest import ConfigurationError, FlaskChest, FlaskChestPostgreSQL
from flask_chest.stores.memory import MemoryStore
from flask_chest.viewer import viewer
from flask_chest.viewer._turns import turn
from servers import free_port
from viewer_app import Keep

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
PATHS = ["/chest/records", "/chest/records.json", "/chest/static/viewer.css", "/chest/none", "/chest/records?x=1"]


@pytest.mark.parametrize("path", PATHS)
def test_every_response_has_the_headers(app: Flask, chest: FlaskChest, path: str) -> None:
    response = app.test_client().get(path)
    assert {name: response.headers[name] for name in HEADERS} == HEADERS


def test_headers_stay_under_talisman_and_the_apps_hooks(app: Flask, chest: FlaskChest) -> None:
    Talisman(app, force_https=False, content_security_policy={"default-src": "*"})

    @app.after_request
    def add(response: Response) -> Response:
        response.headers["Cache-Control"] = "public, max-age=99"
        return response

    @app.get("/own")
    def own() -> str:
        return "own"

    for path in PATHS:
        response = app.test_client().get(path)
        assert {name: response.headers.getlist(name) for name in HEADERS} == {
            name: [value] for name, value in HEADERS.items()
        }
    own_headers = app.test_client().get("/own").headers
    assert own_headers["Content-Security-Policy"] == "default-src *"
    assert own_headers["Cache-Control"] == "public, max-age=99"


def test_settings_and_globals_of_the_app_do_not_reach_it(app: Flask, chest: FlaskChest, keep: Keep) -> None:
    app.select_jinja_autoescape = lambda _: False  # type: ignore[method-assign, assignment]  # as apps do
    app.jinja_env.autoescape = False
    app.jinja_env.filters["plain"] = lambda _: "the app's"
    app.context_processor(lambda: {"links": None, "page": None})
    keep(route="/<script>alert(1)</script>", variables={"note": '"><img src=x onerror=alert(1)>'})
    text = app.test_client().get("/chest/records").text
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_errors_of_the_viewer_have_its_own_pages(app: Flask, chest: FlaskChest) -> None:
    app.register_error_handler(404, lambda _: ("the app's", 404))
    app.register_error_handler(Exception, lambda _: ("the app's", 500))
    client = app.test_client()
    for path, code, said in [
        ("/chest/none", 404, "Nothing is here"),
        ("/chest/records/none", 404, "No such record"),
        ("/chest/records?colour=red", 400, "The page has no parameter &#39;colour&#39;."),
        ("/chest/records?status=abc", 400, "write a code, as 404"),
        ("/chest/records?status=200&status=404", 400, "Status is given 2 times"),
        ("/chest/records?errors=yes", 400, "Errors must be 1 or left out"),
        ("/chest/records?since=2h&until=3h", 400, "Since must be before until"),
        ("/chest/records?before=x", 400, "Before must be the time and the id"),
        ("/chest/records?where=a%3D1&where=a%3D2", 400, "cannot both hold"),
        ("/chest/records?" + "&".join(f"where=v{n}%3D1" for n in range(9)), 400, "9 filters, and at most 8"),
        ("/chest/records?route=" + "x" * 8_193, 400, "longer than 8,192 characters"),
    ]:
        response = client.get(path)
        assert (response.status_code, said in response.text) == (code, True), (path, response.text)
        assert "the app's" not in response.text


def test_errors_of_json_are_json(app: Flask, chest: FlaskChest) -> None:
    response = app.test_client().get("/chest/records.json?colour=red")
    assert response.json == {"status": 400, "error": "the page has no parameter 'colour'."}


def test_store_that_does_not_answer_is_said_without_its_address(app: Flask) -> None:
    uri = f"postgresql://ada:s3cret@127.0.0.1:{free_port()}/shop"
    away = FlaskChestPostgreSQL(app, db_uri=uri, tracked_vars=["plan"])
    app.register_blueprint(viewer(away, allow=lambda: True))
    response = app.test_client().get("/chest/records")
    assert response.status_code == 503
    assert "The store does not answer" in response.text
    assert int(response.headers["Retry-After"]) > 0
    assert "s3cret" not in response.text
    away.close()


def test_failure_of_a_foreign_store_is_told_by_its_type(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryStore):
        def query(self, query: object, /, **_: object) -> Iterator[object]:  # type: ignore[override]  # it never returns
            raise RuntimeError("t0p-secret-value")

    chest = FlaskChest(app, store=Broken, tracked_vars=["plan"])
    app.register_blueprint(viewer(chest, allow=lambda: True))
    with caplog.at_level(logging.WARNING, "flask_chest.viewer"):
        response = app.test_client().get("/chest/records")
    assert response.status_code == 500
    assert "builtins.RuntimeError" in response.text
    assert [record.getMessage() for record in caplog.records] == [
        "the viewer could not show a page: builtins.RuntimeError"
    ]
    chest.close()


def test_its_requests_are_recorded_by_no_chest(app: Flask, chest: FlaskChest) -> None:
    other = FlaskChest(app, store=MemoryStore, tracked_vars=["plan"], config_prefix="OTHER", strict=True)

    @app.before_request
    def turn_away() -> None:
        g.plan = "pro"
        if request.args.get("away"):
            abort(403)

    client = app.test_client()
    client.get("/chest/records")
    client.get("/chest/records?away=1")
    client.get("/chest/none")
    client.post("/chest/records")
    assert chest.query() == other.query() == []
    client.get("/elsewhere")
    assert len(chest.query()) == len(other.query()) == 1
    other.close()


def test_busy_viewer_answers_with_the_last_page_or_not_at_all(app: Flask, chest: FlaskChest, keep: Keep) -> None:
    client = app.test_client()
    keep(request_id="first")
    assert client.get("/chest/records.json").status_code == client.get("/chest/records").status_code == 200
    keep(request_id="second")
    with turn() as free:
        assert free
        last = client.get("/chest/records")
        assert last.status_code == 200
        assert last.headers["Age"] == "0"
        assert "As it was 0 s ago" in last.text
        as_json = client.get("/chest/records.json").text
        assert ("first" in as_json, "second" in as_json) == (True, False)
        none = client.get("/chest/records?status=404")
        assert none.status_code == 503
        assert none.headers["Retry-After"] == "1"
        assert '<meta http-equiv="refresh" content="1">' in none.text
        assert client.get("/chest/static/viewer.css").status_code == 200
    until = time.monotonic() + 30
    while "Age" in client.get("/chest/records").headers:  # it rests, since it was wanted meanwhile
        assert time.monotonic() < until
        time.sleep(0.01)


def test_page_is_made_anew_for_whoever_is_alone(app: Flask, chest: FlaskChest, keep: Keep) -> None:
    for number in range(5):
        keep(request_id=f"number {number}")
        assert f"number {number}" in app.test_client().get("/chest/records.json").text


def test_addresses_follow_the_prefix_of_a_proxy(app: Flask, chest: FlaskChest, keep: Keep) -> None:
    record = keep()
    app.wsgi_app = ProxyFix(app.wsgi_app, x_prefix=1, x_host=1, x_proto=1)  # type: ignore[method-assign]  # as documented
    headers = {"X-Forwarded-Prefix": "/shop", "X-Forwarded-Host": "example.com", "X-Forwarded-Proto": "https"}
    text = app.test_client().get("/chest/records", headers=headers).text
    assert f'href="/shop/chest/records/{record.id}"' in text
    assert 'href="/shop/chest/static/viewer.css"' in text
    assert 'action="/shop/chest/records"' in text
    assert '"/chest' not in text


def test_hooks_that_add_to_addresses_do_not_add_to_its(app: Flask, chest: FlaskChest, keep: Keep) -> None:
    keep()
    app.url_defaults(lambda endpoint, values: values.setdefault("lang", "en"))
    assert "?lang=en" not in app.test_client().get("/chest/records").text


def test_variables_of_its_prefix_stay_in_its_addresses(app: Flask, keep: Keep, chest: FlaskChest) -> None:
    record = keep()
    app.register_blueprint(viewer(chest, url="/<tenant>/chest", allow=lambda: True, name="second"))
    text = app.test_client().get("/ada/chest/records").text
    assert f'href="/ada/chest/records/{record.id}"' in text


@pytest.mark.parametrize("url", ["chest", ""])
def test_url_begins_with_a_slash(chest: FlaskChest, url: str) -> None:
    with pytest.raises(ConfigurationError, match="url must begin with a slash"):
        viewer(chest, url=url, allow=lambda: True)


def test_script_is_small_and_pages_hold_none(app: Flask, chest: FlaskChest, keep: Keep) -> None:
    record = keep()
    client = app.test_client()
    assert len(client.get("/chest/static/viewer.js").data) <= 3_000
    for page in ("", "records", f"records/{record.id}", "explore", "compare", "timeline", "delivery", "none"):
        text = client.get(f"/chest/{page}").text
        assert text.count("<script") == text.count('<script src="/chest/static/viewer.js" defer></script>') == 1
        assert "<style" not in text
        assert " style=" not in text
        assert "http://" not in text


@pytest.mark.parametrize("page", ["records", "timeline"])
def test_half_a_character_is_refused_by_its_own_page(app: Flask, chest: FlaskChest, page: str) -> None:
    response = app.test_client().get(f"/chest/{page}", query_string={"where": 'note="\\ud800"'})
    assert (response.status_code, "half of a character" in response.text) == (400, True)
    assert {name: response.headers[name] for name in HEADERS} == HEADERS


def test_page_of_one_app_is_not_shown_by_another() -> None:
    chest = FlaskChest(store=MemoryStore, tracked_vars=["plan"])
    pages = viewer(chest, allow=lambda: True)
    apps = [Flask("one"), Flask("two")]
    for app in apps:
        chest.init_app(app)
        app.register_blueprint(pages)
    one, two = (app.test_client() for app in apps)
    assert one.get("/chest/delivery").status_code == 200
    with turn():
        assert one.get("/chest/delivery").status_code == 200
        assert two.get("/chest/delivery").status_code == 503
    chest.close()
