"""`flask chest doctor` and OpenTelemetry: that there are spans, and that they begin before who asks for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask, g
from flask.testing import FlaskCliRunner

pytest.importorskip("opentelemetry.instrumentation.flask")

from opentelemetry.instrumentation.flask import FlaskInstrumentor

from flask_chest import FlaskChest
from flask_chest.cli import chest_group
from flask_chest.otel import SpanAttributes
from flask_chest.stores.memory import MemoryStore


@pytest.fixture
def app() -> Iterator[Flask]:
    app = Flask("shop")
    app.cli.add_command(chest_group)
    FlaskChest(app, store=MemoryStore, tracked_vars=["user_id"], span_attributes=SpanAttributes())
    yield app
    FlaskInstrumentor().uninstrument_app(app)  # type: ignore[no-untyped-call]  # it has no annotations


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    return app.test_cli_runner()


def said(runner: FlaskCliRunner) -> str:
    result = runner.invoke(args=["chest", "doctor"])
    assert result.exit_code == 1, result.output
    return result.output


def test_doctor_finds_that_there_are_no_spans(app: Flask, runner: FlaskCliRunner) -> None:
    assert "span_attributes is given, but OpenTelemetry does not instrument the app" in said(runner)
    FlaskInstrumentor().instrument_app(app)  # type: ignore[no-untyped-call]  # it has no annotations
    assert "Nothing is wrong." in runner.invoke(args=["chest", "doctor"]).output


def test_doctor_finds_that_the_app_asks_before_a_span_begins(app: Flask, runner: FlaskCliRunner) -> None:
    @app.before_request
    def greet() -> None:
        g.user_id = 7

    FlaskInstrumentor().instrument_app(app)  # type: ignore[no-untyped-call]  # it has no annotations
    assert "1 before_request functions run before OpenTelemetry begins the request's span" in said(runner)
