"""Whatever an app leaves on ``g``: the response is unchanged, and there is a record that anybody can read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from flask import Flask, g
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_chest import FlaskChest
from flask_chest.record import encode_variables
from flask_chest.stores.memory import MemoryStore
from hostile_values import HOSTILE, anything
from json_values import text_bytes

VALUES = 10
MAX_BYTES = 64 * 1024 + 1024
"""The limit of a record, and the marks of what was cut."""


def cycle() -> object:
    value: dict[str, object] = {}
    value["list"] = [value]
    return value


def deep() -> object:
    value: object = 1
    for _ in range(10_000):
        value = [value]
    return value


AWKWARD: list[Callable[[], object]] = [
    *(make for make, _ in HOSTILE.values()),
    cycle,
    deep,
    lambda: "x" * 10_000_000,
    lambda: b"x" * 10_000_000,
    lambda: ["x" * 1_000] * 1_000,
    lambda: {f"\ud800{number}": number for number in range(10_000)},
    lambda: "\ud800\0" * 1_000,
    lambda: float("nan"),
    lambda: 10**5_000,
    lambda: {"a": float("inf"), float("nan"): 1},
]
makers: st.SearchStrategy[Callable[[], object]] = anything.map(lambda value: lambda: value) | st.sampled_from(
    AWKWARD
)
"""Made in the view: whoever generates examples would look into them."""


@pytest.fixture(
    params=[[f"v{number}" for number in range(VALUES)], ["*"], ["v*"]], ids=["names", "every", "glob"]
)
def chest(app: Flask, request: pytest.FixtureRequest) -> Iterator[FlaskChest]:
    chest = FlaskChest(app, store=MemoryStore, tracked_vars=request.param, journal_dir="memory:")
    yield chest
    chest.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@settings(max_examples=120, deadline=timedelta(seconds=10), suppress_health_check=list(HealthCheck))
@given(held=st.lists(makers, min_size=VALUES, max_size=VALUES))
def test_response_is_unchanged_and_a_record_is_kept(
    app: Flask, chest: FlaskChest, held: list[Callable[[], object]]
) -> None:
    """10,800 values in all, a third of them by each way of choosing."""

    def index() -> tuple[str, int, dict[str, str]]:
        for number, make in enumerate(held):
            setattr(g, f"v{number}", make())
        return "unchanged", 201, {"X-Mine": "yes"}

    app.view_functions["index"] = index
    if not any(rule.endpoint == "index" for rule in app.url_map.iter_rules()):
        app.add_url_rule("/", "index", index)
    before = chest.stats()
    response = app.test_client().get("/")
    assert (response.status_code, response.data, response.headers["X-Mine"]) == (201, b"unchanged", "yes")
    (record,) = chest.query(limit=1)
    assert chest.stats().captured == before.captured + 1
    assert chest.stats().lost == {}
    assert set(record.variables) <= {f"v{number}" for number in range(VALUES)} | {"…[truncated]"}
    text = encode_variables(record.variables)
    assert json.loads(text) == record.variables
    text.encode()
    assert text_bytes(dict(record.variables)) <= MAX_BYTES
