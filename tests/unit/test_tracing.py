"""Records, spans and request ids of the same request belong together, whatever becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from flask_chest import FlaskChest, current_request_id
from flask_chest.capture.trace_context import parse_traceparent
from flask_chest.otel import otel_request_id
from flask_chest.stores.memory import MemoryStore
from traced import CALLER, HEADER, TRACE, Traced, hexadecimal, instrument, traced_apps, uninstrument


@pytest.fixture
def traced() -> Iterator[Callable[..., Traced]]:
    with traced_apps() as make:
        yield make


both_orders = pytest.mark.parametrize("chest_first", [True, False], ids=["chest first", "instrumentor first"])


@both_orders
@pytest.mark.parametrize("header", [{}, HEADER], ids=["root", "called"])
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ok", 200),
        ("/nowhere", 404),
        ("/handled", 400),
        ("/teapot", 418),
        ("/boom", 500),
        ("/async", 200),
        ("/stream", 200),
        ("/view", 200),
        ("/blue", 200),
    ],
)
def test_record_and_span_of_a_request_carry_the_same_ids(
    traced: Callable[..., Traced], path: str, status: int, header: Mapping[str, str], *, chest_first: bool
) -> None:
    it = traced(chest_first=chest_first, request_id_generator=otel_request_id())
    with it.app.test_client().get(path, headers=dict(header)) as response:
        assert response.status_code == status
    record, (trace_id, span_id) = it.record, hexadecimal(it.span)
    assert (record.trace_id, record.span_id, record.trace_remote) == (trace_id, span_id, False)
    assert record.trace_flags is not None
    assert record.trace_flags & 1
    assert record.request_id == trace_id
    assert (trace_id == TRACE) is bool(header)
    assert it.span.attributes is not None
    assert it.span.attributes["flask.g.user_id"] == 7


@both_orders
def test_error_that_propagates_leaves_both_the_same_ids(
    traced: Callable[..., Traced], *, chest_first: bool
) -> None:
    it = traced(chest_first=chest_first, request_id_generator=otel_request_id())
    it.app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(RuntimeError, match="boom"):
        it.app.test_client().get("/boom")
    assert (it.record.trace_id, it.record.span_id) == hexadecimal(it.span)
    assert it.record.error == "RuntimeError"
    assert it.span.attributes is not None
    assert it.span.attributes["flask.g.user_id"] == 7


def test_stream_keeps_its_ids_to_the_end(traced: Callable[..., Traced]) -> None:
    it = traced()
    response = it.app.test_client().get("/stream")
    assert response.get_data(as_text=True) == "ab"
    response.close()
    assert (it.record.trace_id, it.record.span_id) == hexadecimal(it.span)


@both_orders
def test_unsampled_request_is_linked_and_has_no_attributes(
    traced: Callable[..., Traced], *, chest_first: bool
) -> None:
    seen: list[SpanContext] = []
    it = traced(
        chest_first=chest_first,
        provider=TracerProvider(sampler=ALWAYS_OFF),
        request_id_generator=otel_request_id(),
    )

    @it.app.route("/seen")
    def view() -> str:
        seen.append(trace.get_current_span().get_span_context())
        return "seen"

    it.app.test_client().get("/seen")
    assert it.record.trace_id == it.record.request_id == f"{seen[0].trace_id:032x}"
    assert it.record.span_id == f"{seen[0].span_id:016x}"
    assert it.record.trace_flags is not None
    assert not it.record.trace_flags & 1
    assert it.spans.get_finished_spans() == ()


def test_caller_is_known_without_an_sdk(traced: Callable[..., Traced]) -> None:
    app = Flask("shop")
    instrument(app, trace.NoOpTracerProvider())
    chest = FlaskChest(app, store=MemoryStore, tracked_vars=["x"], request_id_generator=otel_request_id())
    app.route("/")(lambda: "hi")
    app.test_client().get("/", headers=HEADER)
    (record,) = chest.query()
    assert (record.trace_id, record.span_id, record.trace_remote) == (TRACE, CALLER, True)
    assert record.request_id == TRACE
    chest.close()
    uninstrument(app)


def test_requests_of_one_trace_share_its_id_and_have_spans_of_their_own(traced: Callable[..., Traced]) -> None:
    for form, different in (("trace", 1), ("trace-span", 3)):
        it = traced(request_id_generator=otel_request_id(format=form))  # type: ignore[arg-type]  # one of both
        for _ in range(3):
            it.app.test_client().get("/ok", headers=HEADER)
        ids = {record.request_id for record in it.chest.query()}
        assert len(ids) == different
        assert all(request_id.startswith(TRACE) for request_id in ids)


def test_id_that_is_asked_for_before_the_span_is_warned_of_once(
    caplog: pytest.LogCaptureFixture, traced: Callable[..., Traced]
) -> None:
    app = Flask("shop")
    chest = FlaskChest(app, store=MemoryStore, tracked_vars=["x"], request_id_generator=otel_request_id())
    early: list[str | None] = []
    app.before_request(lambda: early.append(current_request_id()))
    instrument(app, TracerProvider())
    app.route("/")(lambda: "hi")
    for _ in range(2):
        app.test_client().get("/")
    assert [record.request_id for record in chest.query()] == early[::-1]
    (warning,) = [text for text in caplog.messages if "before OpenTelemetry had begun" in text]
    assert warning.endswith("call FlaskInstrumentor().instrument_app(app) before the chest is made")
    chest.close()
    uninstrument(app)


def test_tracer_of_another_kind_costs_neither_request_nor_record(caplog: pytest.LogCaptureFixture) -> None:
    class Strange(NonRecordingSpan):
        def get_span_context(self) -> SpanContext:
            raise RuntimeError("no context here")

    strange = Strange(SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(0)))
    app = Flask("shop")
    chest = FlaskChest(app, store=MemoryStore, tracked_vars=["x"])
    app.route("/")(lambda: "hi")
    with use_span(strange):
        assert app.test_client().get("/").status_code == 200
    (record,) = chest.query()
    chest.close()
    assert record.trace_id is None
    assert "the trace of a request could not be read" in caplog.text


def as_the_api_reads(header: str) -> tuple[str, str, int] | None:
    context = trace.get_current_span(
        TraceContextTextMapPropagator().extract({"traceparent": header})
    ).get_span_context()
    if not context.is_valid:
        return None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags)


@pytest.mark.slow
@settings(max_examples=2_000)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 56), st.integers(0, 1), st.sampled_from([*"0123456789abcdefABF-g \t", ""])),
        max_size=4,
    )
)
def test_header_is_read_as_the_api_reads_it(edits: list[tuple[int, int, str]]) -> None:
    header = HEADER["traceparent"]
    for place, removed, added in edits:
        header = header[:place] + added + header[place + removed :]
    found = parse_traceparent(header)
    assert (found and (found.trace_id, found.span_id, found.trace_flags)) == as_the_api_reads(header)
