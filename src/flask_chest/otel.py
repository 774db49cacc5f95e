"""The bridge to OpenTelemetry: request ids from traces, and captured variables on the request's span.

Records are linked to traces without it: `flask_chest.trace_context` needs no OpenTelemetry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import TypeAlias, cast

import msgspec

from flask_chest.errors import ConfigurationError, MissingDriverError
from flask_chest.protocols import VariablesObserver
from flask_chest.record import JSONValue
from flask_chest.request_ids import otel_request_id
from flask_chest.trace_context import TraceContext, server_span
from flask_chest.values import Conversion

try:
    from opentelemetry.trace import Span, get_current_span
except ImportError as exc:
    raise MissingDriverError("opentelemetry-api", extra="otel") from exc

__all__ = ["SpanAttributes", "TraceContext", "otel_request_id", "to_attribute"]

Scalar: TypeAlias = str | bool | int | float
Attribute: TypeAlias = Scalar | Sequence[str] | Sequence[bool] | Sequence[int] | Sequence[float]
"""What every release of the SDK keeps as it is."""

MAX_ELEMENTS = 128
"""Of a sequence; a longer one becomes JSON."""
_RESERVED = "otel."
_SPARED = 16
"""So many attributes may be set on a span after ours, as the status is, before the oldest are evicted."""
_NO_NAMES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanAttributes(VariablesObserver):
    """Copies the captured variables onto the request's span, as ``flask.g.<name>``.

    They leave the process with it: hand one to a chest only if that may be. *rename* gives some of them another
    name, as in ``{"user_id": "user.id"}``. At most *max_attributes* are set, texts of at most *max_length*
    characters, and only as many as the span has room for: the instrumentation's own are never evicted. Secrets
    are masked as in the record; ``None`` is left out.
    """

    prefix: str = "flask.g."
    rename: Mapping[str, str] = field(default_factory=lambda: _NO_NAMES)
    max_attributes: int = 32
    max_length: int = 1024

    def __post_init__(self) -> None:
        for setting, name in [("prefix", self.prefix), *(("rename", name) for name in self.rename.values())]:
            if not name or name.startswith(_RESERVED):
                raise ConfigurationError(
                    f"{setting} must be a name that does not begin with {_RESERVED}, which is OpenTelemetry's, "
                    f"got {name!r}"
                )
        for setting, limit in {"max_attributes": self.max_attributes, "max_length": self.max_length}.items():
            if limit < 1:
                raise ConfigurationError(f"{setting} must be at least 1, got {limit!r}")

    def observe(self, variables: Mapping[str, JSONValue], environ: Mapping[str, object], /) -> int:
        """Write *variables* onto the request's own span, also while a span within it is current."""
        span = server_span(environ)
        if span is None or not span.is_recording():
            return 0
        _, left_out = self._write(variables, cast("Span", span))
        return left_out

    def write(self, variables: Mapping[str, JSONValue], span: Span | None = None) -> int:
        """Write *variables* onto *span*, or the current one; give how many it took."""
        span = span or get_current_span()
        if not span.is_recording():
            return 0
        taken, _ = self._write(variables, span)
        return taken

    def _write(self, variables: Mapping[str, JSONValue], span: Span) -> tuple[int, int]:
        """Give how many *span* took, and how many were left out for want of room."""
        # The SDK's limits are on its own mapping, which it does not hand out; else no limit is known.
        kept: object = getattr(span, "_attributes", None)
        longest: int | None = getattr(kept, "max_value_len", None)
        length = self.max_length if longest is None else min(self.max_length, longest)
        wanted = {name: value for name, value in variables.items() if value is not None}
        chosen: dict[str, Attribute] = {}
        for name, value in islice(wanted.items(), self.max_attributes):
            attribute = _attribute(value, length)
            if attribute is not None:
                chosen[self.rename.get(name) or f"{self.prefix}{name}"] = attribute
        fitting = _fitting(chosen, kept)
        span.set_attributes(fitting)
        return len(fitting), len(wanted) - len(fitting)


def _fitting(chosen: dict[str, Attribute], kept: object) -> Mapping[str, Attribute]:
    """Leave out of *chosen* that for which the attributes *kept* have no room."""
    most: int | None = getattr(kept, "maxlen", None)
    if most is None or not isinstance(kept, Mapping):
        return chosen
    room = max(0, most - len(kept) - _SPARED)
    if len(chosen) <= room:
        return chosen
    again = [name for name in chosen if name in kept]
    new = [name for name in chosen if name not in kept]
    return {name: chosen[name] for name in [*again, *new[:room]]}


def to_attribute(value: object, *, max_length: int = 1024) -> Attribute | None:
    """Make of *value* what a span keeps, and says nothing about; ``None`` for what has no form.

    Scalars and sequences of one type of scalars stay, anything else becomes JSON. A text is cut at *max_length*.
    """
    return _attribute(Conversion().convert(value, objects=True), max_length)


def _attribute(value: JSONValue, max_length: int) -> Attribute | None:
    if isinstance(value, str):
        return value[:max_length]
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list) and 0 < len(value) <= MAX_ELEMENTS:
        for kind in (str, bool, int, float):
            if all(type(element) is kind for element in value):
                return [element[:max_length] if isinstance(element, str) else element for element in value]  # type: ignore[return-value]  # of one kind
    return msgspec.json.encode(value).decode()[:max_length]
