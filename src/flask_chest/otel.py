"""The bridge to OpenTelemetry: request ids from traces, variables on the request's span, counts as metrics.

Records are linked to traces without it: the trace context is read without importing OpenTelemetry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import TypeAlias, cast
from weakref import WeakKeyDictionary, WeakSet

import msgspec

from flask_chest.background.stats import ChestStats
from flask_chest.capture.trace_context import TraceContext, server_span
from flask_chest.capture.values import Conversion, ValueRules
from flask_chest.errors import ConfigurationError, MissingDriverError
from flask_chest.extension.chest import FlaskChest
from flask_chest.protocols import VariablesObserver
from flask_chest.record import JSONValue
from flask_chest.request_ids import otel_request_id

try:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider
    from opentelemetry.trace import Span, get_current_span
except ImportError as exc:
    raise MissingDriverError("opentelemetry-api", extra="otel") from exc

__all__ = ["SpanAttributes", "TraceContext", "instrument_metrics", "otel_request_id", "to_attribute"]

Scalar: TypeAlias = str | bool | int | float
Attribute: TypeAlias = Scalar | Sequence[str] | Sequence[bool] | Sequence[int] | Sequence[float]
"""Types of values that every release of the SDK keeps as they are."""

MAX_ELEMENTS = 128
"""Longest sequence that stays one; a longer one becomes JSON."""
_RESERVED = "otel."
_SPARED = 16
"""Number of attributes left free on a span for what is set after ours, such as the status."""
_RULES = ValueRules()
_NO_NAMES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanAttributes(VariablesObserver):
    """Copies the captured variables onto the request's span, as ``flask.g.<name>``.

    They leave the process with the span: give one to a chest only if they may. *prefix* precedes their names,
    except those that *rename* gives them, as in ``{"user_id": "user.id"}``. At most *max_attributes* are
    set, strings are cut at *max_length* characters, and only as many are set as the span has room for: the
    instrumentation's own are never evicted. Secrets are masked as in the record; ``None`` is left out.
    """

    prefix: str = "flask.g."
    rename: Mapping[str, str] = field(default_factory=lambda: _NO_NAMES)
    max_attributes: int = 32
    max_length: int = 1024

    def __post_init__(self) -> None:
        for setting, name in [("prefix", self.prefix), *(("rename", name) for name in self.rename.values())]:
            if not name or name.startswith(_RESERVED):
                raise ConfigurationError(
                    f"{setting} must be a name that does not begin with {_RESERVED}, OpenTelemetry's own, "
                    f"got {name!r}"
                )
        for setting, limit in {"max_attributes": self.max_attributes, "max_length": self.max_length}.items():
            if limit < 1:
                raise ConfigurationError(f"{setting} must be at least 1, got {limit!r}")

    def observe(self, variables: Mapping[str, JSONValue], environ: Mapping[str, object], /) -> int:
        """Write *variables* onto the request's own span, even if a span within it is current.

        Return how many were left out for lack of room.
        """
        span = server_span(environ)
        if span is None or not span.is_recording():
            return 0
        _, left_out = self._write(variables, cast("Span", span))
        return left_out

    def write(self, variables: Mapping[str, JSONValue], span: Span | None = None) -> int:
        """Write *variables* onto *span*, or the current one; return how many it took."""
        span = span or get_current_span()
        if not span.is_recording():
            return 0
        taken, _ = self._write(variables, span)
        return taken

    def _write(self, variables: Mapping[str, JSONValue], span: Span) -> tuple[int, int]:
        """Return how many *span* took, and how many were left out for lack of room."""
        # The SDK's limits are on its own mapping, which is not public; other spans have no known limit.
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
    """Return what of *chosen* fits among the attributes *kept*."""
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
    """Return *value* in a form that a span keeps without a warning, or ``None`` if it has none.

    Scalars and lists of one type of scalar stay, anything else becomes JSON. Strings are cut at *max_length*
    characters.
    """
    return _attribute(Conversion(_RULES).convert(value, objects=True), max_length)


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


METER = "flask_chest"
APP = "flask_chest.app.name"
STORE = "flask_chest.store.name"
EXPORTER = "flask_chest.exporter.name"
ERROR = "error.type"

_Attributes: TypeAlias = Mapping[str, str]
_Count: TypeAlias = tuple[_Attributes, int]

_instrumented: WeakKeyDictionary[MeterProvider, WeakSet[FlaskChest]] = WeakKeyDictionary()


def instrument_metrics(chest: FlaskChest, meter_provider: MeterProvider | None = None) -> None:
    """Let *meter_provider*, or the global one, observe what `FlaskChest.stats` counts in this process.

    ``flask_chest.record.processed`` counts the records that the store took, and with ``error.type`` those that
    it refused or that were lost; ``flask_chest.queue.size`` is the number of records that wait in the journal;
    ``flask_chest.target.exported`` counts what each exporter delivered, and with ``error.type`` what was set
    aside. The attributes are the names of the app, of the chest and of the exporter. A provider gets these
    instruments once, however many chests are added; a chest that no longer exists is not observed.
    """
    provider = meter_provider or get_meter_provider()
    first = WeakSet[FlaskChest]()
    # setdefault, not a lock: one held at a fork would be held for ever, and setdefault is atomic.
    chests = _instrumented.setdefault(provider, first)
    if chests is first:
        _make_instruments(provider, chests)
    chests.add(chest)


def _make_instruments(provider: MeterProvider, chests: WeakSet[FlaskChest]) -> None:
    meter = provider.get_meter(METER)
    meter.create_observable_counter(
        "flask_chest.record.processed",
        callbacks=[_callback(chests, _processed)],
        unit="{record}",
        description="Records that the store took, and with error.type those that it did not take.",
    )
    meter.create_observable_up_down_counter(
        "flask_chest.queue.size",
        callbacks=[_callback(chests, _waiting)],
        unit="{record}",
        description="Records that wait in the journal for the store.",
    )
    meter.create_observable_counter(
        "flask_chest.target.exported",
        callbacks=[_callback(chests, _exported)],
        unit="{record}",
        description="Records that an exporter delivered, and with error.type those that were set aside.",
    )


def _callback(
    chests: WeakSet[FlaskChest], read: Callable[[ChestStats], Iterator[_Count]]
) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observe(_options: CallbackOptions) -> Iterator[Observation]:
        # Apps of the same name are one series, in which the last one would overwrite the others.
        total: Counter[tuple[tuple[str, str], ...]] = Counter()
        for chest in list(chests):
            for app, stats in chest.stats_of_apps():
                whose = {APP: app, STORE: chest.name}
                for attributes, count in read(stats):
                    total[tuple((whose | dict(attributes)).items())] += count
        for series, count in total.items():
            yield Observation(count, dict(series))

    return observe


def _processed(stats: ChestStats) -> Iterator[_Count]:
    yield {}, stats.stored
    if stats.set_aside:
        yield {ERROR: "refused"}, stats.set_aside
    for reason, count in stats.lost.items():
        yield {ERROR: reason}, count


def _waiting(stats: ChestStats) -> Iterator[_Count]:
    yield {}, stats.waiting


def _exported(stats: ChestStats) -> Iterator[_Count]:
    for name, counts in stats.exports.items():
        yield {EXPORTER: name}, counts.delivered
        if counts.rejected:
            yield {EXPORTER: name, ERROR: "rejected"}, counts.rejected
