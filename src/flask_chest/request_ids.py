"""Ids: of requests, made or taken from a trusted header; of records; and unique times."""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import re
import threading
import time
from typing import Literal, TypeAlias, get_args

import uuid_utils
from flask import has_request_context, request
from uuid_utils import uuid4, uuid7

from flask_chest._clocks import MAX_STEP_NANO
from flask_chest.capture.trace_context import awaits_span, new_span_id, new_trace_id, trace_context
from flask_chest.capture.values import storable_text
from flask_chest.errors import ConfigurationError, ContractError
from flask_chest.protocols import RequestIdGenerator

logger = logging.getLogger("flask_chest")

MAX_REQUEST_ID = 255
TraceFormat: TypeAlias = Literal["trace", "trace-span"]

_ACCEPTABLE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class _Process:
    """What must differ between a process and its forked child, and what must only ever grow."""

    __slots__ = ("last_time", "lock", "pid")

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.last_time = 0

    def begin(self) -> None:
        uuid_utils.reseed_rng()
        self.lock = threading.Lock()
        self.pid = os.getpid()


process = _Process()
"""This process, as `unique_time_unix_nano` knows it."""

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=process.begin)


def unique_time_unix_nano(count: int = 1) -> int:
    """Return the time in nanoseconds since 1970, and reserve *count* of them.

    They increase, and no nanosecond is given out twice, also where the clock is set back a little: InfluxDB takes
    two points of one series and time for one point. Where it is set back by more than a second it was ahead, and
    the times begin again with it.

    A fork is noticed here, that of uWSGI too, which calls no hooks. So ask for the time before you ask for ids:
    the process's id is dearer than they are, and one look at it for each request has to do.
    """
    if process.pid != os.getpid():
        process.begin()
    with process.lock:
        now = time.time_ns()
        if 0 <= process.last_time - now < MAX_STEP_NANO:
            now = process.last_time + 1
        process.last_time = now + count - 1
    return now


def continue_time_after(unix_nano: int) -> None:
    """Let every later time be after *unix_nano*, unless that is far ahead of the clock."""
    with process.lock:
        process.last_time = max(process.last_time, unix_nano)


def new_record_id() -> str:
    """Make a UUIDv7: unique in every process, and increasing, which keeps indexes dense."""
    return str(uuid7())


def new_request_id() -> str:
    """Make a random request id."""
    return str(uuid4())


def uuid4_request_id() -> str:
    """Make a random request id; the default `RequestIdGenerator`."""
    if process.pid != os.getpid():
        process.begin()
    return new_request_id()


def uuid7_request_id() -> str:
    """Make a request id that begins with the time; a `RequestIdGenerator`.

    Ids that come in order spare a store the work of putting each into its own place of the index. Whoever sees
    one can read from it, to the millisecond, when the request began.
    """
    if process.pid != os.getpid():
        process.begin()
    return str(uuid7())


def normalise_request_id(value: object) -> str:
    """Make a generator's result storable: text of at most 255 characters.

    A longer one is replaced by its SHA-256 in hex, never cut: two long ids may begin alike. Raises
    `ContractError` for a coroutine: nobody would await it, and its text is no id.
    """
    if type(value) is str and len(value) <= MAX_REQUEST_ID:
        return storable_text(value)
    if inspect.iscoroutine(value):
        value.close()
        raise ContractError("request_id_generator must return a str and not be async")
    # Exactly a str: Record compares types, and a subclass such as Markup would not come back as one.
    text = storable_text(str.__str__(value if isinstance(value, str) else str(value)))
    if len(text) > MAX_REQUEST_ID:
        return hashlib.sha256(text.encode()).hexdigest()
    return text


def header_request_id(
    header: str = "X-Request-ID", *, fallback: RequestIdGenerator = uuid4_request_id
) -> RequestIdGenerator:
    """Make a generator that takes the id from a request *header*: for apps behind a proxy that sets it.

    A client can send the header as well, so use this only where the proxy overwrites it. A value that is
    not 1 to 128 characters of ``A-Za-z0-9._:/+=@-`` is not taken; *fallback* then makes the id.
    """

    def from_header() -> str:
        sent = request.headers.get(header, "") if has_request_context() else ""
        return sent if _ACCEPTABLE.fullmatch(sent) else fallback()

    return from_header


def otel_request_id(
    *,
    format: TraceFormat = "trace",  # noqa: A002 - the word for it
    trust_traceparent: bool = True,
    fallback: RequestIdGenerator = new_trace_id,
) -> RequestIdGenerator:
    """Make a generator that takes the id from the request's trace: sampled or not, with or without an SDK.

    ``"trace"`` is the trace id, which the requests of one trace share; ``"trace-span"`` adds the span's, or a
    random one where this process has no span. Without OpenTelemetry it is that of the ``traceparent`` header. A
    client can send that: with *trust_traceparent* off it is not read, and neither is a context that is only the
    caller's. Where there is no trace, *fallback* makes the id.
    """
    if format not in get_args(TraceFormat):
        raise ConfigurationError(f"format must be 'trace' or 'trace-span', got {format!r}")
    warned = False

    def from_trace() -> str:
        nonlocal warned
        environ = request.environ if has_request_context() else {}
        context = trace_context(environ, trust_traceparent=trust_traceparent)
        if context is None or (context.is_remote and not trust_traceparent):
            if awaits_span(environ) and not warned:
                warned = True
                logger.warning(
                    "a request id was asked for before OpenTelemetry had begun the request's span, and is not "
                    "the trace's; call FlaskInstrumentor().instrument_app(app) before the chest is made"
                )
            return fallback()
        if format == "trace":
            return context.trace_id
        return f"{context.trace_id}-{new_span_id() if context.is_remote else context.span_id}"

    return from_trace


def is_header_value(text: str) -> bool:
    """Return whether *text* may go into a header as it is: visible ASCII."""
    return text.isascii() and text.isprintable() and " " not in text and bool(text)
