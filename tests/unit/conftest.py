"""An app with a chest for the unit tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from documents import has_opentelemetry
from flask_chest import FlaskChest
from flask_chest.stores.memory import MemoryStore

# Only in sessions of `make matrix` is it not there, or its API alone.
collect_ignore = (
    []
    if has_opentelemetry()
    else [
        "test_metrics.py",
        "exporter/test_otlp_exporter.py",
        "test_planted_secrets.py",
        "test_span_attributes.py",
        "test_tracing.py",
        "test_tracing_example.py",
    ]
)


@pytest.fixture
def app() -> Flask:
    """An app as in production: not testing, so errors are handled as they are there."""
    return Flask("shop")


@pytest.fixture
def chest(app: Flask) -> Iterator[FlaskChest]:
    """A chest in memory on the app; `strict`, so that no mishap of the recording goes unseen."""
    chest = FlaskChest(app, store=MemoryStore, strict=True)
    yield chest
    chest.close()
