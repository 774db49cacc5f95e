"""What the bridge to OpenTelemetry adds to a request that is traced and recorded: links, and attributes.

Three apps serve in turn, in another order each time, all under OpenTelemetry's instrumentation with its SDK and
with a chest that records five variables: one whose records are not linked, one with trace columns and request ids
of the trace, and one that also sets five span attributes. Of each turn the median request counts.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.request_cost import WARM_UP, make_app, serve
from flask import Flask
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from flask_chest import FlaskChestSQLite
from flask_chest.decorator import flask_chest
from flask_chest.otel import SpanAttributes, otel_request_id

VARIABLES = 5


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="tracing_cost")
    parser.add_argument("--rounds", type=int, default=200, metavar="N")
    parser.add_argument("--requests", type=int, default=300, metavar="N", help="of each app in a round")
    parser.add_argument("--small", action="store_true", help="3 rounds of 100")
    options = parser.parse_args(argv)
    rounds, requests = (3, 100) if options.small else (options.rounds, options.requests)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        plain = stack.enter_context(traced_app(Path(folder) / "plain"))
        linked = stack.enter_context(traced_app(Path(folder) / "linked", request_id_generator=otel_request_id()))
        told = stack.enter_context(
            traced_app(
                Path(folder) / "told", request_id_generator=otel_request_id(), span_attributes=SpanAttributes()
            )
        )
        turns: dict[str, Callable[[], float]] = {
            "plain": lambda: unlinked(plain, requests),
            "linked": lambda: cost(linked, requests),
            "told": lambda: cost(told, requests),
        }
        times = [in_any_order(turns) for _ in range(rounds)]
    base = statistics.median(each["plain"] for each in times)
    links = statistics.median(each["linked"] - each["plain"] for each in times)
    attributes = statistics.median(each["told"] - each["linked"] for each in times)
    print(f"traced and recorded, not linked          {base:6.1f} µs a request")
    print(f"id and columns of the trace              {links:+6.1f} µs")
    print(f"{VARIABLES} span attributes                        {attributes:+6.1f} µs")
    return {"base_us": base, "links_us": links, "attributes_us": attributes, "rounds": rounds}


@contextmanager
def traced_app(folder: Path, **options: Any) -> Iterator[Flask]:
    names = [f"variable_{number}" for number in range(VARIABLES)]
    app = make_app(VARIABLES, decorate=flask_chest(tracked_vars=names))
    instrumentor: Any = FlaskInstrumentor()
    instrumentor.instrument_app(app, tracer_provider=TracerProvider())
    chest = FlaskChestSQLite(
        app, db_uri=folder / "chest.db", journal_dir=folder, journal_bytes=1 << 32, writer="off", **options
    )
    serve(app, WARM_UP)
    yield app
    chest.close()


def in_any_order(turns: Mapping[str, Callable[[], float]]) -> Mapping[str, float]:
    names = random.sample(list(turns), len(turns))
    return {name: turns[name]() for name in names}


def cost(app: Flask, requests: int) -> float:
    return statistics.median(serve(app, requests)) / 1e3


def unlinked(app: Flask, requests: int) -> float:
    """Serve without a look at the trace, as it was before there was one."""
    with patch("flask_chest.extension.request.trace_context", lambda _: None):
        return cost(app, requests)


if __name__ == "__main__":
    main(sys.argv[1:])
