"""An app with a chest and an open viewer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from flask_chest import FlaskChest, Redact
from flask_chest.stores.memory import MemoryStore
from flask_chest.viewer import viewer
from viewer_app import Keep, Visit, keeper


@pytest.fixture
def chest(app: Flask) -> Iterator[FlaskChest]:
    """A chest whose viewer is open."""
    chest = FlaskChest(
        app,
        store=MemoryStore,
        tracked_vars=[Visit, "email", "secret"],
        redact=[Redact("email", action="hash"), Redact("secret", action="drop")],
        hash_key="k" * 32,
        trace_url="https://traces.example/{trace_id}",
        strict=True,
    )
    app.register_blueprint(viewer(chest, allow=lambda: True))
    yield chest
    chest.close()


@pytest.fixture
def keep(chest: FlaskChest) -> Keep:
    return keeper(chest)
