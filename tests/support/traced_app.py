"""An app under OpenTelemetry whose records go to a collector, for real servers.

Everything that could become a span of our own I/O is instrumented; the spans go to the file ``spans``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.visits import FOLDER, Site, make_app
from flask import Flask
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from flask_chest.exporter.otlp import OTLPExporter

COLLECTOR = "COLLECTOR"
SPANS = "spans"


class LineExporter(SpanExporter):
    """Writes a line for each span: its kind and name, its trace and its id."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._path.open("a", encoding="utf-8") as file:  # one write a line, which appends as a whole
            for span in spans:
                context: Any = span.get_span_context()
                file.write(f"{span.kind.name} {context.trace_id:032x} {context.span_id:016x}\n")
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Hold nothing."""


def serve() -> Flask:
    site = Site(Path(os.environ[FOLDER]))
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(LineExporter(site.folder / SPANS)))
    trace.set_tracer_provider(provider)
    SQLite3Instrumentor().instrument()
    URLLib3Instrumentor().instrument()
    app, chest = make_app(site)
    flask_instrumentor: Any = FlaskInstrumentor()
    flask_instrumentor.instrument_app(app)
    # Made in each process, so that the collector is told which process sends.
    chest.add_exporter(
        lambda: OTLPExporter(endpoint=os.environ[COLLECTOR], resource={"sender": str(os.getpid())}),
        name="otlp",
        interval=timedelta(milliseconds=50),
    )
    return app
