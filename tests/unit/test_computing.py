"""The path that was asked for, and what of it is hidden."""

from __future__ import annotations

import time

import pytest
from flask import Flask

from flask_chest import FlaskChest, Redact
from flask_chest.computing import requested_path
from flask_chest.stores.memory import MemoryStore


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/", "/"),
        ("/wp-login.php", "/wp-login.php"),
        ("/cart?token=abc", "/cart"),
        ("/reset/token/abc/", "/reset/token/[masked]/"),
        ("/reset-password/abc/edit", "/reset-password/[masked]/edit"),
        ("/login;token=abc", "/[masked]"),
        ("/unsubscribe/ada@example.org", "/unsubscribe/[masked]"),
        ("/confirm/eyJhbGciOiJIUzI1NiJ9.e30", "/confirm/[masked]"),
        ("/users/5e0ad9d0-4b4c-4bb1-9d3b-0a35d0c3a8b7", "/users/5e0ad9d0-4b4c-4bb1-9d3b-0a35d0c3a8b7"),
        ("/blog/how-to-configure-flask-3-in-2024", "/blog/how-to-configure-flask-3-in-2024"),
    ],
)
def test_path_is_told_without_what_looks_secret(app: Flask, path: str, shown: str) -> None:
    with app.test_request_context(path):
        assert requested_path() == shown


def test_request_that_matched_no_route_says_what_it_asked_for(app: Flask) -> None:
    rule = Redact(pattern="[0-9]{3}-[0-9]{4}")
    chest = FlaskChest(
        app, store=MemoryStore, tracked_vars=["x"], computed={"path": requested_path}, redact=[rule]
    )
    assert app.test_client().get("/phone/555-1234").status_code == 404
    (record,) = chest.query()
    assert (record.route, record.status_code, record.variables) == (None, 404, {"path": "/phone/[masked]"})
    chest.close()


def test_long_path_takes_no_longer_than_what_is_kept_of_it(app: Flask) -> None:
    with app.test_request_context("/" + "a1/" * 300_000):
        began = time.thread_time()
        assert len(requested_path()) == 1024
        assert time.thread_time() - began < 0.5
