"""What the viewer asks of the database becomes no span."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from flask_chest import FlaskChest, Query, Record
from flask_chest.stores.memory import MemoryStore
from flask_chest.viewer import viewer

pytest.importorskip("opentelemetry.sdk", reason="the SDK keeps the spans that are looked at")


@pytest.fixture
def spans() -> Any:
    from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    found, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(found))
    instrumentor: Any = SQLite3Instrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield found
    instrumentor.uninstrument()


class Traced(MemoryStore):
    """A store whose driver is instrumented."""

    def query(self, query: Query, /, *, timeout: timedelta | None = None) -> Iterable[Record]:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.cursor().execute("SELECT 1")  # a connection's own execute is not traced
        return super().query(query, timeout=timeout)


def test_its_questions_become_no_span(spans: Any, app: Flask) -> None:
    chest = FlaskChest(app, store=Traced, tracked_vars=["plan"], strict=True)
    app.register_blueprint(viewer(chest, allow=lambda: True))
    with closing(chest):
        app.test_client().get("/elsewhere")
        spans.clear()
        assert len(chest.query()) == 1
        assert len(spans.get_finished_spans()) == 1
        spans.clear()
        for page in ("", "records", "explore?by=route", "delivery"):
            assert app.test_client().get(f"/chest/{page}").status_code == 200
        assert spans.get_finished_spans() == ()
