"""The trace that a request belongs to: OpenTelemetry's where the app uses it, else that of its ``traceparent``.

OpenTelemetry is not imported for that. An app that has not imported it has no spans either.
"""

from __future__ import annotations

import re
import secrets
import sys
from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol, cast

import msgspec

MAX_TRACEPARENT = 512
"""Characters; the defined ones are 55, and a later version may add to them."""
NO_TRACE = "0" * 32
NO_SPAN = "0" * 16
SAMPLED = 0x01

TRACEPARENT_KEY = "HTTP_TRACEPARENT"
"""Key of the header in ``environ``."""
TRACE_MODULE = "opentelemetry.trace"
"""Among the loaded modules, if there can be a span at all."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SPAN_KEY = "opentelemetry-flask.span_key"
"""Key under which OpenTelemetry's instrumentation of Flask keeps the request's span in ``environ``."""
_STARTED_KEY = "opentelemetry-flask.starttime_key"
"""There from the beginning of a request, before its span is."""

_KNOWN_KEY = "flask_chest.trace_context"


class SpanContext(Protocol):
    """What of OpenTelemetry's span context is read."""

    @property
    @abstractmethod
    def trace_id(self) -> int:
        """Trace id of 128 bits, or 0."""

    @property
    @abstractmethod
    def span_id(self) -> int:
        """64 bits."""

    @property
    @abstractmethod
    def trace_flags(self) -> int:
        """8 bits."""

    @property
    @abstractmethod
    def is_remote(self) -> bool:
        """Whether the span is another process's."""

    @property
    @abstractmethod
    def is_valid(self) -> bool:
        """Whether there is a trace and a span."""


class Span(Protocol):
    """What of OpenTelemetry's span is used."""

    @abstractmethod
    def get_span_context(self) -> SpanContext:
        """Return the ids of the span."""

    @abstractmethod
    def is_recording(self) -> bool:
        """Return whether attributes would be kept."""


class TraceContext(msgspec.Struct, frozen=True, kw_only=True):
    """The ids of a span, in lower-case hex as W3C's Trace Context writes them."""

    trace_id: str
    span_id: str
    trace_flags: int
    is_remote: bool
    """Whether the span is the caller's: this process has made none for the request."""

    @property
    def sampled(self) -> bool:
        """Whether somebody decided to keep the trace."""
        return bool(self.trace_flags & SAMPLED)

    def to_traceparent(self) -> str:
        """Make the header for requests that this one makes."""
        return f"00-{self.trace_id}-{self.span_id}-{self.trace_flags:02x}"


def parse_traceparent(header: str | None) -> TraceContext | None:
    """Read a ``traceparent`` (https://www.w3.org/TR/trace-context/); ``None`` for one that is not valid."""
    if header is None or len(header) > MAX_TRACEPARENT:
        return None
    found = _TRACEPARENT.fullmatch(header.strip(" \t"))
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or trace_id == NO_TRACE or span_id == NO_SPAN:
        return None
    return TraceContext(trace_id=trace_id, span_id=span_id, trace_flags=int(flags, 16), is_remote=True)


def new_trace_id() -> str:
    """Make a random trace id."""
    return secrets.token_hex(15) + f"{secrets.randbelow(255) + 1:02x}"  # never that of no trace


def new_span_id() -> str:
    """Make a random span id."""
    return secrets.token_hex(7) + f"{secrets.randbelow(255) + 1:02x}"


def server_span(environ: Mapping[str, object]) -> Span | None:
    """Return the request's own span, also while a span within it is current; ``None`` without OpenTelemetry."""
    span = environ.get(_SPAN_KEY)
    if span is not None:
        return cast("Span", span)
    trace = sys.modules.get(TRACE_MODULE)  # whose current span is the innermost one, or one without ids
    return None if trace is None else cast("Span", trace.get_current_span())


def awaits_span(environ: Mapping[str, object]) -> bool:
    """Return whether OpenTelemetry is to begin the request's span, and has not yet."""
    return _STARTED_KEY in environ and _SPAN_KEY not in environ


def _context_of(span: Span, environ: Mapping[str, object]) -> TraceContext | None:
    # Asked for twice in a request, by the id and by the record: it is kept beside the span that it is of.
    known = cast("tuple[Span, TraceContext] | None", environ.get(_KNOWN_KEY))
    if known is not None and known[0] is span:
        return known[1]
    ids = span.get_span_context()
    if not ids.is_valid:
        return None
    context = TraceContext(
        trace_id=f"{ids.trace_id:032x}",
        span_id=f"{ids.span_id:016x}",
        trace_flags=int(ids.trace_flags),
        is_remote=ids.is_remote,
    )
    if isinstance(environ, dict):
        environ[_KNOWN_KEY] = (span, context)
    return context


def trace_context(environ: Mapping[str, object], *, trust_traceparent: bool = True) -> TraceContext | None:
    """Return the context of the request's span, else that of its header if that is to be trusted."""
    span = server_span(environ)
    if span is not None and (context := _context_of(span, environ)) is not None:
        return context
    if not trust_traceparent:
        return None
    header = environ.get(TRACEPARENT_KEY)
    return parse_traceparent(header) if isinstance(header, str) else None
