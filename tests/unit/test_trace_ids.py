"""Request ids and traces without OpenTelemetry, told to the client and in logs."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Any

import pytest
import structlog
from flask import Flask, Response, current_app, request

from flask_chest import ConfigurationError, FlaskChest, Record
from flask_chest.capture.trace_context import TraceContext, parse_traceparent
from flask_chest.logs import RequestIdFilter, add_request_id
from flask_chest.request_ids import otel_request_id
from flask_chest.stores.memory import MemoryStore

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
HEADER = {"traceparent": f"00-{TRACE}-{CALLER}-01"}


def serve(*, headers: Mapping[str, str] | None = None, **options: Any) -> Record:
    """Answer one request of an app without instrumentation; give its record."""
    app = Flask("shop")
    chest = FlaskChest(app, store=MemoryStore, tracked_vars=["x"], journal_dir="memory:", **options)
    app.route("/")(lambda: "hi")
    app.test_client().get("/", headers=dict(headers or {}))
    (record,) = chest.query()
    chest.close()
    return record


def test_header_alone_links_the_record() -> None:
    record = serve(headers=HEADER, request_id_generator=otel_request_id())
    assert (record.trace_id, record.span_id, record.trace_flags) == (TRACE, CALLER, 1)
    assert record.trace_remote is True
    assert record.request_id == TRACE


def test_without_a_trace_the_columns_are_empty_and_the_id_is_random() -> None:
    first, second = (serve(request_id_generator=otel_request_id()) for _ in range(2))
    assert (first.trace_id, first.span_id, first.trace_flags, first.trace_remote) == (None, None, None, None)
    assert len(first.request_id) == 32
    assert first.request_id not in {"0" * 32, second.request_id}


def test_header_that_is_not_trusted_makes_no_id() -> None:
    generator = otel_request_id(trust_traceparent=False, fallback=lambda: "mine")
    assert serve(headers=HEADER, request_id_generator=generator).request_id == "mine"


def test_trace_span_is_unique_without_a_span_of_ones_own_too() -> None:
    generator = otel_request_id(format="trace-span")
    ids = {serve(headers=HEADER, request_id_generator=generator).request_id for _ in range(3)}
    assert len(ids) == 3
    assert not any(CALLER in request_id for request_id in ids)


def test_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="format must be 'trace' or 'trace-span', got 'span'"):
        otel_request_id(format="span")  # type: ignore[arg-type]  # the mistake


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.modules['opentelemetry'] = None",
        "import os; os.environ['OTEL_PROPAGATORS'] = 'nonsense'",
    ],
    ids=["not installed", "broken propagators"],
)
def test_chest_works_without_opentelemetry_and_with_a_broken_one(code: str) -> None:
    program = f"""
{code}
from flask import Flask
from flask_chest import FlaskChest
from flask_chest.request_ids import otel_request_id
from flask_chest.stores.memory import MemoryStore
app = Flask("shop")
chest = FlaskChest(app, store=MemoryStore, tracked_vars=["x"], request_id_generator=otel_request_id())
app.route("/")(lambda: "hi")
app.test_client().get("/", headers={HEADER})
(record,) = chest.query()
print(record.request_id, record.trace_id, record.trace_remote)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [TRACE, TRACE, "True"]


@pytest.mark.slow
def test_bridge_without_opentelemetry_names_the_extra() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import flask_chest.otel"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "opentelemetry-api is not installed; install it, or flask_chest with its extra [otel]" in done.stderr


@pytest.mark.slow
def test_no_import_of_ours_brings_opentelemetry() -> None:
    modules = "flask_chest.exporter, flask_chest.request_ids, flask_chest.logs"
    code = f"import {modules}, sys; print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_observer_that_raises_costs_neither_request_nor_record(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def observe(self, variables: Mapping[str, object], environ: Mapping[str, object], /) -> int:
            raise RuntimeError("hunter2")

    assert serve(span_attributes=Broken()).status_code == 200
    assert "the observer of variables raised" in caplog.text
    assert "hunter2" not in caplog.text


def test_response_tells_the_request_id_when_it_is_asked_to() -> None:
    app = Flask("shop")
    ids = iter(["an-id", "bad\r\nSet-Cookie: x=1", "with space", "ü", "last"])
    chest = FlaskChest(
        app,
        store=MemoryStore,
        tracked_vars=["x"],
        request_id_generator=lambda: next(ids),
        response_header="X-Request-ID",
    )

    @app.route("/")
    def view() -> Response:
        response = Response("hi")
        if "own" in request.args:
            response.headers["X-Request-ID"] = "the app's"
        return response

    client = app.test_client()
    answers = [client.get("/").headers.get("X-Request-ID") for _ in range(4)]
    assert answers == ["an-id", None, None, None]
    assert client.get("/?own").headers["X-Request-ID"] == "the app's"
    chest.close()
    assert "X-Request-ID" not in Flask("other").test_client().get("/").headers


@pytest.mark.parametrize("name", ["X Request", "X-Id\r\n", "", "ü"])
def test_header_of_the_response_must_be_a_header(name: str) -> None:
    with pytest.raises(ConfigurationError, match="response_header must"):
        FlaskChest(Flask("shop"), response_header=name)


def test_record_links_to_its_trace() -> None:
    app = Flask("shop")
    chest = FlaskChest(
        app, store=MemoryStore, tracked_vars=["x"], trace_url="https://traces.example/trace/{trace_id}?a={b}"
    )
    app.route("/")(lambda: "hi")
    app.test_client().get("/", headers=HEADER)
    app.test_client().get("/")
    without, linked = chest.query()
    assert chest.trace_link(linked) == f"https://traces.example/trace/{TRACE}?a={{b}}"
    assert chest.trace_link(without) is None
    assert chest.query(trace_id=TRACE) == [linked]
    chest.close()
    with pytest.raises(ConfigurationError, match=r"trace_url must contain \{trace_id\}"):
        FlaskChest(Flask("other"), trace_url="https://traces.example/")


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addFilter(RequestIdFilter())

    def emit(self, record: logging.LogRecord) -> None:
        self.ids.append(record.request_id)  # type: ignore[attr-defined]  # the filter's


def test_log_lines_carry_the_id_of_their_request() -> None:
    app = Flask("shop")
    lines = Lines()
    logger = logging.getLogger("shop.orders")
    logger.addHandler(lines)
    chest = FlaskChest(app, store=MemoryStore, tracked_vars=["x"])

    @app.route("/")
    def view() -> str:
        logger.warning("in the request")
        worker = threading.Thread(target=logger.warning, args=("in a thread of its own",))
        worker.start()
        worker.join()
        return "hi"

    logger.warning("outside")
    app.test_client().get("/")
    (record,) = chest.query()
    assert lines.ids == ["-", record.request_id, "-"]
    logger.removeHandler(lines)
    chest.close()


def test_events_of_structlog_carry_the_id_of_their_request() -> None:
    events: list[MutableMapping[str, object]] = []

    def keep(_logger: object, _name: str, event: MutableMapping[str, object]) -> str:
        events.append(event)
        return ""

    logger = structlog.wrap_logger(structlog.testing.CapturingLogger(), processors=[add_request_id, keep])
    app = Flask("shop")
    chest = FlaskChest(app, store=MemoryStore, tracked_vars=["x"])

    @app.route("/")
    def view() -> str:
        logger.info("in the request")
        logger.info("of another", request_id="7")
        return "hi"

    logger.info("outside")
    app.test_client().get("/")
    (record,) = chest.query()
    assert [event["request_id"] for event in events] == ["-", record.request_id, "7"]
    chest.close()


def test_generator_that_logs_and_one_that_raises_do_not_go_round_in_circles() -> None:
    lines = Lines()
    logging.getLogger().addHandler(lines)

    def talkative() -> str:
        logging.getLogger("shop").warning("making an id")
        raise RuntimeError("hunter2")

    app = Flask("shop")
    chest = FlaskChest(app, store=MemoryStore, tracked_vars=["x"], request_id_generator=talkative)

    @app.route("/")
    def view() -> str:
        current_app.logger.warning("serving")
        return "hi"

    with suppress(RuntimeError):
        app.test_client().get("/")
    logging.getLogger().removeHandler(lines)
    (record,) = chest.query()
    assert lines.ids == ["-", "-", record.request_id]
    chest.close()


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        f"00-{TRACE}-{CALLER}",
        f"00-{TRACE}-{CALLER}-01-more",
        f"ff-{TRACE}-{CALLER}-01",
        f"00-{'0' * 32}-{CALLER}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{CALLER}-01",
        f"00-{TRACE}-{CALLER}-0g",
        f"01-{TRACE}-{CALLER}-01-" + "x" * 512,
    ],
)
def test_header_that_is_not_valid_is_none(header: str | None) -> None:
    assert parse_traceparent(header) is None


def test_header_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    found = parse_traceparent(f"01-{TRACE}-{CALLER}-03-more")
    assert found == TraceContext(trace_id=TRACE, span_id=CALLER, trace_flags=3, is_remote=True)
    assert found.sampled
    assert found.to_traceparent() == f"00-{TRACE}-{CALLER}-03"
