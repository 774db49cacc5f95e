"""The viewer by itself: closed but for who brings the token, and for no other name, origin, path or cookie."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import create_environ, run_wsgi_app

from flask_chest import FlaskChest
from flask_chest.stores.memory import MemoryStore
from flask_chest.viewer.serving import make_viewer_app
from viewer_app import Keep

TOKEN, FOLDER = "a-t0ken-of-this-test", "/a-f0lder"


@pytest.fixture
def client(app: Flask, chest: FlaskChest) -> FlaskClient:
    FlaskChest(Flask("other"), store=MemoryStore)  # so that the chest has to be asked on its own app
    served = make_viewer_app(chest, app, token=TOKEN, folder=FOLDER)
    client = served.test_client()
    client.environ_base["HTTP_HOST"] = "127.0.0.1:5151"
    return client


@pytest.fixture
def known(client: FlaskClient) -> FlaskClient:
    client.get(f"/?token={TOKEN}")
    return client


def test_token_becomes_a_cookie_that_is_not_the_token(client: FlaskClient, keep: Keep) -> None:
    assert client.get(f"{FOLDER}/").status_code == 403
    response = client.get(f"/?token={TOKEN}")
    assert response.status_code == 200
    assert f'<meta http-equiv="refresh" content="0; url={FOLDER}/">' in response.text
    cookie = response.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", f"Path={FOLDER}"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    record = keep(variables={"user_id": 7})
    for path in (
        "",
        "/",
        "/records",
        f"/records/{record.id}",
        "/timeline?user_id=7",
        "/delivery",
        "/static/viewer.css",
    ):
        response = client.get(f"{FOLDER}{path}")
        assert response.status_code == 200, response.text


def test_every_address_of_a_page_is_below_its_folder(known: FlaskClient, keep: Keep) -> None:
    keep(variables={"user_id": 7})
    for path in ("/", "/records", "/delivery", "/none"):
        text = known.get(f"{FOLDER}{path}").text
        addresses = re.findall(r'(?:href|src|action)="(/[^"]*)"', text)
        assert addresses
        assert [each for each in addresses if not each.startswith(f"{FOLDER}/")] == []


@pytest.mark.parametrize(
    "path", ["/", "/records", "/static/viewer.css", f"{FOLDER}x/records", FOLDER[:-1], "/none"]
)
def test_cookie_opens_nothing_elsewhere_and_nobody_is_told_where(known: FlaskClient, path: str) -> None:
    cookie = known.get_cookie("chest", path=FOLDER)
    assert cookie is not None
    for headers in ({}, {"Cookie": f"chest={cookie.value}"}):
        response = known.get(path, headers=headers)
        assert response.status_code == 403
        assert FOLDER not in response.text + str(response.headers)


def test_cookie_that_another_server_sets_closes_nothing(known: FlaskClient) -> None:
    cookie = known.get_cookie("chest", path=FOLDER)
    assert cookie is not None
    # Browsers send the one of the longer path first.
    both = f"chest={cookie.value}; chest=of-another"
    assert known.get(f"{FOLDER}/records", headers={"Cookie": both}).status_code == 200


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], TOKEN.upper()])
def test_wrong_token_is_refused(client: FlaskClient, token: str) -> None:
    response = client.get("/", query_string={"token": token})
    assert response.status_code == 403
    assert "Set-Cookie" not in response.headers


def test_wrong_cookie_is_refused(client: FlaskClient) -> None:
    for value in (TOKEN, "", "0" * 64):
        client.set_cookie("chest", value, path=FOLDER)
        assert client.get(f"{FOLDER}/records").status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5151", "127.0.0.1.evil.example", "192.0.2.1", "x:127.0.0.1"]
)
def test_other_name_is_refused_also_with_the_token(known: FlaskClient, host: str) -> None:
    cookie = known.get_cookie("chest", path=FOLDER)
    assert cookie is not None

    def status_of(path: str, host: str) -> str:  # not by the client, which does not understand every host
        headers = {"Host": host, "Cookie": f"chest={cookie.value}"}
        return run_wsgi_app(known.application, create_environ(path, headers=headers))[1]

    assert status_of(f"{FOLDER}/records", "localhost") == "200 OK"
    for path in (f"{FOLDER}/records", f"/?token={TOKEN}", f"{FOLDER}/none"):
        assert status_of(path, host) == "403 FORBIDDEN"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:80", "[::1]:9", "localhost"])
def test_name_of_this_machine_is_taken_at_any_port(known: FlaskClient, host: str) -> None:
    assert known.get(f"/?token={TOKEN}", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_other_origin_is_refused(known: FlaskClient, headers: dict[str, str]) -> None:
    assert known.get(f"{FOLDER}/records.json", headers=headers).status_code == 403


def test_it_only_reads_and_knows_no_other_page(known: FlaskClient) -> None:
    assert known.post(f"{FOLDER}/records").status_code == 405
    assert known.post(f"{FOLDER}/?token={TOKEN}").status_code == 405
    assert known.post(f"/?token={TOKEN}").status_code == 403
    assert known.get(f"{FOLDER}/none").status_code == 404


APP = """
from flask import Flask, g
from flask_chest import FlaskChestSQLite

app = Flask("shop")
chest = FlaskChestSQLite(app, db_uri={database!r}, tracked_vars=["plan"])

@app.get("/")
def index():
    g.plan = "pro"
    return "ok"
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "shop.py").write_text(APP.format(database=str(tmp_path / "db")))
    visit = "import shop; shop.app.test_client().get('/'); assert shop.chest.flush()"
    subprocess.run([sys.executable, "-c", visit], cwd=tmp_path, check=True)
    command = [sys.executable, "-m", "flask", "--app", "shop", "chest", "serve", "--port", "0"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONUNBUFFERED="1"),
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_command_prints_one_address_that_opens_and_no_log(served: subprocess.Popen[str]) -> None:
    assert served.stdout is not None
    found = re.fullmatch(r"Open (http://127\.0\.0\.1:\d+/)(\?token=\S{43})\n", served.stdout.readline())
    assert found is not None
    with requests.Session() as browser:
        assert browser.get(found[1]).status_code == 403
        way = re.search(r"url=/([A-Za-z0-9_-]{22}/)", browser.get(found[1] + found[2]).text)
        assert way is not None
        (record,) = browser.get(f"{found[1]}{way[1]}records.json").json()["records"]
    assert record["variables"] == {"plan": "pro"}
    served.send_signal(signal.SIGINT)
    rest, errors = served.communicate(timeout=30)
    assert found[2] not in rest + errors
    assert "GET" not in rest + errors
    assert served.returncode == 0


def test_origin_that_is_no_address_is_refused(known: FlaskClient) -> None:
    response = known.get(f"{FOLDER}/records.json", headers={"Origin": "http://["})
    assert response.status_code == 403
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
