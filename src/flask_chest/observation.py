"""One request, from its beginning to its records: what to capture, what was captured, how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from flask import Request
from msgspec.structs import replace

from flask_chest.binding import Binding
from flask_chest.capture import METHODS, Names, SharedG, capture, capture_small, rules_of
from flask_chest.protocols import RequestIdGenerator
from flask_chest.record import JSONValue, Record
from flask_chest.request_ids import new_record_id, new_request_id, normalise_request_id
from flask_chest.values import Conversion, storable_text

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse

_MAX_METHOD = 32
_NO_VARIABLES: Mapping[str, JSONValue] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do for one route and method: found once, used for every request to it."""

    view: object
    names: tuple[tuple[Binding, Names], ...]
    """What each chest asked for; empty: the request is not recorded."""
    make_request_id: Callable[[], str]

    @classmethod
    def make(cls, bindings: Iterable[Binding], view: object, method: str) -> Plan:
        """Join what the rules of *view* and the chests ask for."""
        rules = rules_of(view, method) if view is not None else ()
        names: list[tuple[Binding, Names]] = []
        for binding in bindings:
            asked = [binding.tracked] if binding.tracked is not None else []
            asked += [rule.tracked for rule in rules if rule.chests is None or binding.chest in rule.chests]
            if asked:
                joined = Names()
                for tracked in asked:
                    joined |= tracked.for_method(method)
                names.append((binding, joined))
        generators = [rule.request_id_generator for rule in rules]
        generators += [binding.request_id_generator for binding, _ in names]
        chosen = next((generator for generator in generators if generator is not None), None)
        asking = [binding for binding, _ in names]
        return cls(view, tuple(names), new_request_id if chosen is None else partial(_request_id, chosen, asking))


def _request_id(generate: RequestIdGenerator, asking: Sequence[Binding]) -> str:
    try:
        return normalise_request_id(generate()) or new_request_id()
    except Exception as error:  # noqa: BLE001 - whatever the app's own code raises, its request goes on
        for binding in asking:
            binding.mishap("the request_id_generator raised", error)
        return new_request_id()


class Observation:
    """One request as far as it is known; lives in ``environ``, since ``g`` may outlive the request.

    It holds no request, whose ``environ`` would hold it: a body would be kept until cycles are collected.
    """

    __slots__ = (
        "captured",
        "ended",
        "endpoint",
        "error",
        "g",
        "method",
        "opened",
        "plan",
        "request_id",
        "route",
        "shared_g",
        "started_ns",
        "status",
        "stream",
        "time_unix_nano",
        "told",
    )

    def __init__(self, time_unix_nano: int, shared_g: SharedG | None) -> None:
        self.time_unix_nano = time_unix_nano
        self.started_ns = time.perf_counter_ns()
        self.shared_g = shared_g
        self.request_id: str | None = None
        self.plan: Plan | None = None
        """Set when variables were captured, as are *route*, *method*, *g* and *captured*."""
        self.route: str | None = None
        self.endpoint: str | None = None
        self.method = ""
        self.g: object = None
        """The object behind Flask's proxy: a streamed response fills it when the context has ended."""
        self.captured: Sequence[tuple[Binding, dict[str, JSONValue]]] = ()
        self.status: str | None = None
        self.error: str | None = None
        self.stream: object = None
        """Stands for the streamed response that is on its way, until it closes or another takes its place."""
        self.opened: Sequence[Record] = ()
        """What the chests were told when the streamed response began."""
        self.ended = False
        """Whether the inner app has returned or raised."""
        self.told = False
        """Whether the chests were told of the request, be it that a response is on its way."""

    def capture(self, plan: Plan, current: Request, g: object) -> None:
        """Take the *current* request and the variables of *plan* from *g*, in place of what was taken before."""
        self.plan, self.g = plan, g
        rule, self.method = current.url_rule, current.method
        if rule is not None:
            self.route, self.endpoint = rule.rule, rule.endpoint
        if self.request_id is None:
            self.request_id = plan.make_request_id()
        held = vars(g) if self.shared_g is None else self.shared_g.of_request(g)
        captured: list[tuple[Binding, dict[str, JSONValue]]] = []
        for binding, names in plan.names:
            variables = capture_small(held, names)
            if variables is None:
                variables = _converted(binding, names, held)
            captured.append((binding, variables))
        self.captured = captured

    def capture_again(self) -> None:
        """Add what was set while the response streamed; what is gone or can be read no more stays as it was."""
        if self.plan is None:
            return
        g = self.g
        held = vars(g) if self.shared_g is None else self.shared_g.of_request(g)
        names_of = dict(self.plan.names)
        self.captured = [
            (binding, earlier | _converted(binding, names_of[binding], held, earlier))
            for binding, earlier in self.captured
        ]

    def record(self, binding: Binding, variables: dict[str, JSONValue], offset: int, duration_ns: int) -> Record:
        """Make the record for *binding*'s chest, or complete the one that it has of a streamed response."""
        if self.opened:
            return replace(self.opened[offset], duration_ns=duration_ns, error=self.error, variables=variables)
        method = self.method
        return Record(
            id=new_record_id(),
            request_id=self.request_id or new_request_id(),
            # Each record has a time of its own: two chests may deliver into one InfluxDB series.
            time_unix_nano=self.time_unix_nano + offset,
            duration_ns=duration_ns,
            method=method if method in METHODS else storable_text(method[:_MAX_METHOD]),
            route=self.route,
            endpoint=self.endpoint,
            status_code=500 if self.status is None else _status_code(self.status),
            instance=binding.instance,
            error=self.error,
            variables=variables,
        )


def start_observed(
    observation: Observation,
    start_response: StartResponse,
    status: str,
    headers: list[tuple[str, str]],
    exc_info: OptExcInfo | None = None,
) -> Callable[[bytes], object]:
    """Note the *status* that really goes out and pass everything on to *start_response*."""
    observation.status = status
    if exc_info is None:
        return start_response(status, headers)
    return start_response(status, headers, exc_info)


def _converted(
    binding: Binding, names: Names, held: Mapping[str, object], earlier: Mapping[str, JSONValue] = _NO_VARIABLES
) -> dict[str, JSONValue]:
    conversion = Conversion()
    variables = capture(held, names, conversion, earlier)
    if conversion.failures:
        binding.tally.fault("a value raised while it was read")
    return variables


@lru_cache(maxsize=256)
def _status_code(status: str) -> int:
    code = status[:3]
    return int(code) if code.isdecimal() else 0
