"""A Flask app whose requests leave a span, a log line and a record, which carry the same id."""

import logging
import sys

from flask import Flask, g
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from flask_chest import FlaskChest
from flask_chest.decorator import flask_chest
from flask_chest.logs import RequestIdFilter
from flask_chest.otel import SpanAttributes, otel_request_id
from flask_chest.stores.memory import MemoryStore

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)

handler = logging.StreamHandler(sys.stdout)
handler.addFilter(RequestIdFilter())
handler.setFormatter(logging.Formatter("%(levelname)s request_id=%(request_id)s %(message)s"))
logging.basicConfig(level=logging.INFO, handlers=[handler])
logger = logging.getLogger("shop")

app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)  # type: ignore[no-untyped-call]  # it has no types
chest = FlaskChest(
    app,
    store=MemoryStore,
    request_id_generator=otel_request_id(),
    span_attributes=SpanAttributes(),
    response_header="X-Request-ID",
)


@app.route("/buy/<item>")
@flask_chest(tracked_vars=["item", "plan"])
def buy(item: str) -> str:
    g.item, g.plan = item, "pro"
    logger.info("somebody bought a %s", item)
    return "bought"
