"""An app with a chest and OpenTelemetry's instrumentation, and all that may become of a request to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask import Blueprint, Flask, Response, abort, g
from flask.views import MethodView
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flask_chest import FlaskChest, Record, current_request_id
from flask_chest.otel import SpanAttributes
from flask_chest.stores.memory import MemoryStore

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


@contextmanager
def traced_apps() -> Iterator[Callable[..., Traced]]:
    """Give what makes them; all are taken apart at the end."""
    made: list[Traced] = []

    def make(*, chest_first: bool = False, **options: Any) -> Traced:
        made.append(Traced(chest_first=chest_first, **options))
        return made[-1]

    try:
        yield make
    finally:
        for each in made:
            each.chest.close()
            uninstrument(each.app)


def hexadecimal(span: ReadableSpan) -> tuple[str, str]:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"
