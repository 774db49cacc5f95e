"""Captured variables on the request's span: whole, bounded, and never in the way of others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from flask import g
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.trace import TraceFlags

from flask_chest import ConfigurationError, FlaskChest
from flask_chest.otel import SpanAttributes, to_attribute
from flask_chest.stores.memory import MemoryStore
from traced import Traced, hexadecimal, traced_apps


@pytest.fixture
def traced() -> Iterator[Callable[..., Traced]]:
    with traced_apps() as make:
        yield make


both_orders = pytest.mark.parametrize("chest_first", [True, False], ids=["chest first", "instrumentor first"])


@both_orders
def test_attributes_are_on_the_requests_span_from_within_a_child(
    traced: Callable[..., Traced], *, chest_first: bool
) -> None:
    it = traced(chest_first=chest_first)
    it.app.test_client().get("/child")
    (child,) = [span for span in it.spans.get_finished_spans() if span.name == "inner"]
    assert it.span.attributes is not None
    assert it.span.attributes["flask.g.user_id"] == 8
    assert it.record.span_id == hexadecimal(it.span)[1]
    assert not child.attributes


def test_attributes_of_the_instrumentation_are_never_evicted(traced: Callable[..., Traced]) -> None:
    for limit, ours in ((128, 32), (40, 20), (20, 0)):
        it = traced(
            provider=TracerProvider(span_limits=SpanLimits(max_span_attributes=limit)),
            tracked_vars=[f"v{number}" for number in range(200)],
        )

        @it.app.route("/many")
        def many() -> str:
            for number in range(200):
                setattr(g, f"v{number}", number)
            return "many"

        it.app.test_client().get("/many")
        names = it.span.attributes or {}
        assert {"http.method", "http.route", "http.status_code"} <= names.keys()
        assert 0 <= sum(name.startswith("flask.g.") for name in names) <= ours
        assert it.span.dropped_attributes == 0
        assert it.chest.stats().faults == {"a span had no room for some variables": 1}


def test_span_that_has_ended_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    span = TracerProvider().get_tracer("x").start_span("x")
    span.end()
    assert SpanAttributes().write({"a": 1}, span) == 0
    assert caplog.messages == []


def test_attributes_are_renamed_and_cut() -> None:
    span = TracerProvider().get_tracer("x").start_span("x")
    written = SpanAttributes(prefix="shop.", rename={"user_id": "user.id"}, max_length=3, max_attributes=2).write(
        {"user_id": 7, "none": None, "text": "abcdef", "more": 1}, span
    )
    assert written == 2
    assert isinstance(span, ReadableSpan)
    assert dict(span.attributes or {}) == {"user.id": 7, "shop.text": "abc"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": ""}, "prefix must be a name"),
        (
            {"prefix": "otel.x"},
            "prefix must be a name that does not begin with otel., OpenTelemetry's own",
        ),
        ({"rename": {"a": "otel.status_code"}}, "rename must be a name"),
        ({"max_attributes": 0}, "max_attributes must be at least 1, got 0"),
        ({"max_length": -1}, "max_length must be at least 1, got -1"),
    ],
)
def test_wrong_settings_of_the_attributes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SpanAttributes(**options)


def test_without_being_asked_no_variable_leaves_for_the_span(traced: Callable[..., Traced]) -> None:
    it = traced(span_attributes=None)
    it.app.test_client().get("/ok")
    assert not [name for name in it.span.attributes or {} if name.startswith("flask.g.")]


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("hunter2")

    __repr__ = __str__


def cyclic() -> dict[str, object]:
    value: dict[str, object] = {}
    value["self"] = value
    return value


HOSTILE: list[object] = [
    Hostile(),
    cyclic(),
    [Hostile(), cyclic()],
    2**70,
    -(2**63) - 1,
    10**5_000,
    float("nan"),
    float("inf"),
    "\ud800",
    "a\0b",
    b"\xff\xfe",
    {1: "one", (2, 3): None},
    [1, "two", 3.0, None],
    [[1], [2]],
    {"deep": {"deeper": [{"deepest": Hostile()}]}},
    "x" * 1_000_000,
    list(range(100_000)),
    {"n" * 10_000: 1},
    object(),
    Hostile,
    len,
    iter([1]),
    TraceFlags(1),
    complex(1, 2),
    range(3),
    memoryview(b"abc"),
    [],
    {},
    "",
    ...,
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: type(value).__name__)
def test_whatever_a_variable_holds_no_span_and_no_log_suffers(
    value: object, caplog: pytest.LogCaptureFixture
) -> None:
    span = TracerProvider().get_tracer("x").start_span("x")
    attribute = to_attribute(value)
    span.set_attribute("before", 1)
    if attribute is not None:
        span.set_attributes({"flask.g.value": attribute})
    assert isinstance(span, ReadableSpan)
    kept = dict(span.attributes or {})
    assert kept["before"] == 1
    assert ("flask.g.value" in kept) is (attribute is not None)
    encoded = json.dumps(kept)  # as an exporter would
    assert len(encoded) < 20_000
    encoded.encode()
    assert caplog.messages == []


@both_orders
def test_chests_of_one_app_are_linked_alike_and_show_what_each_was_asked_to(
    traced: Callable[..., Traced], *, chest_first: bool
) -> None:
    it = traced(chest_first=chest_first, span_attributes=SpanAttributes(prefix="first."))
    with closing(
        FlaskChest(
            it.app,
            store=MemoryStore,
            tracked_vars=["user_id"],
            span_attributes=SpanAttributes(prefix="second."),
            journal_dir="memory:",
            config_prefix="SECOND",
        )
    ) as second:
        it.app.test_client().get("/ok")
        (other,) = second.query()
    assert (it.record.trace_id, it.record.span_id) == (other.trace_id, other.span_id) == hexadecimal(it.span)
    assert it.record.request_id == other.request_id
    shown = {name: value for name, value in (it.span.attributes or {}).items() if name.endswith("user_id")}
    assert shown == {"first.user_id": 7, "second.user_id": 7}
