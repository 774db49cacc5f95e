"""Records, spans and request ids of the same request belong together, whatever becomes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, g
from flask.views import MethodView
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from flask_chest import ConfigurationError, FlaskChest, Record, current_request_id
from flask_chest.otel import SpanAttributes, otel_request_id, to_attribute
from flask_chest.stores.memory import MemoryStore
from flask_chest.trace_context import parse_traceparent

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
HEADER = {"traceparent": f"00-{TRACE}-{CALLER}-01"}


_instrumentor: Any = FlaskInstrumentor()  # whose methods have no types


def instrument(app: Flask, provider: trace.TracerProvider) -> None:
    _instrumentor.instrument_app(app, tracer_provider=provider)


def uninstrument(app: Flask) -> None:
    _instrumentor.uninstrument_app(app)


class Traced:
    """An app with a chest and OpenTelemetry's instrumentation, and what both have seen."""

    def __init__(self, *, chest_first: bool, provider: TracerProvider | None = None, **options: Any) -> None:
        self.app = Flask("shop")
        self.spans = InMemorySpanExporter()
        provider = provider or TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.tracer = provider.get_tracer("shop")
        given: dict[str, Any] = {
            "store": MemoryStore,
            "tracked_vars": ["user_id"],
            "span_attributes": SpanAttributes(),
            "journal_dir": "memory:",
        }
        make_chest: Callable[[], FlaskChest] = lambda: FlaskChest(self.app, **(given | options))  # noqa: E731
        if chest_first:
            self.chest = make_chest()
        instrument(self.app, provider)
        if not chest_first:
            self.chest = make_chest()
        add_routes(self.app, self.tracer)

    @property
    def span(self) -> ReadableSpan:
        (span,) = [span for span in self.spans.get_finished_spans() if span.kind is trace.SpanKind.SERVER]
        return span

    @property
    def record(self) -> Record:
        (record,) = self.chest.query()
        return record


def add_routes(app: Flask, tracer: trace.Tracer) -> None:
    @app.before_request
    def remember() -> None:
        g.user_id = 7

    add_mishaps(app)

    @app.route("/ok")
    def ok() -> str:
        return current_request_id() or ""

    @app.route("/async")
    async def coroutine() -> str:
        return "async"

    @app.route("/stream")
    def stream() -> Response:
        return Response(iter(["a", "b"]))

    @app.route("/child")
    def child() -> str:
        with tracer.start_as_current_span("inner"):
            g.user_id = 8
            return "child"

    class Page(MethodView):
        def get(self) -> str:
            return "page"

    blueprint = Blueprint("blue", "blue")
    blueprint.add_url_rule("/blue", view_func=lambda: "blue", endpoint="blue")
    app.add_url_rule("/view", view_func=Page.as_view("page"))
    app.register_blueprint(blueprint)


def add_mishaps(app: Flask) -> None:
    @app.route("/handled")
    def handled() -> str:
        raise KeyError("handled")

    @app.errorhandler(KeyError)
    def handle(_: KeyError) -> tuple[str, int]:
        return "handled", 400

    @app.route("/teapot")
    def teapot() -> str:
        abort(418)

    @app.route("/boom")
    def boom() -> str:
        raise RuntimeError("boom")


@pytest.fixture
def traced() -> Iterator[Callable[..., Traced]]:
    made: list[Traced] = []

    def make(*, chest_first: bool = False, **options: Any) -> Traced:
        made.append(Traced(chest_first=chest_first, **options))
        return made[-1]

    yield make
    for each in made:
        each.chest.close()
        uninstrument(each.app)


def hexadecimal(span: ReadableSpan) -> tuple[str, str]:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


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
        ({"prefix": "otel.x"}, "prefix must be a name that does not begin with otel., which is OpenTelemetry's"),
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
    assert "the trace of a request was not read" in caplog.text


def as_the_api_reads(header: str) -> tuple[str, str, int] | None:
    context = trace.get_current_span(
        TraceContextTextMapPropagator().extract({"traceparent": header})
    ).get_span_context()
    if not context.is_valid:
        return None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags)


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
