"""One request, from its beginning to its records: what to capture, what was captured, how it ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

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

Variables: TypeAlias = dict[str, JSONValue]

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

    def capture(self, held: Mapping[str, object]) -> list[tuple[Binding, Variables]]:
        """Take from what ``g`` held what each chest asked for."""
        captured: list[tuple[Binding, Variables]] = []
        for binding, names in self.names:
            variables = capture_small(held, names)
            if variables is None:
                variables = _converted(binding, names, held)
            captured.append((binding, variables))
        return captured


def _request_id(generate: RequestIdGenerator, asking: Sequence[Binding]) -> str:
    try:
        return normalise_request_id(generate()) or new_request_id()
    except Exception as error:  # noqa: BLE001 - whatever the app's own code raises, its request goes on
        for binding in asking:
            binding.mishap("the request_id_generator raised", error)
        return new_request_id()


def _converted(
    binding: Binding, names: Names, held: Mapping[str, object], earlier: Mapping[str, JSONValue] = _NO_VARIABLES
) -> Variables:
    conversion = Conversion()
    variables = capture(held, names, conversion, earlier)
    if conversion.failures:
        binding.tally.fault("a value raised while it was read")
    return variables


class Observation:
    """One request as far as it is known; lives in ``environ``, since ``g`` may outlive the request."""

    __slots__ = (
        "captured",
        "ended",
        "error",
        "request",
        "request_id",
        "shared_g",
        "started_ns",
        "status",
        "stream",
        "time_unix_nano",
    )

    def __init__(self, time_unix_nano: int, shared_g: SharedG | None) -> None:
        self.time_unix_nano = time_unix_nano
        self.started_ns = time.perf_counter_ns()
        self.shared_g = shared_g
        self.request: Request | None = None
        """Flask's request, from the capture until the chests are told: `environ` forgets it earlier."""
        self.request_id: str | None = None
        self.captured: Sequence[tuple[Binding, Variables]] = ()
        self.status: str | None = None
        self.error: str | None = None
        self.stream: Stream | None = None
        """The response that streams, until it closes or another takes its place."""
        self.ended = False
        """Whether the inner app has returned or raised."""

    def held_by(self, g: object) -> Mapping[str, object]:
        """Give what this request has set on *g*."""
        return vars(g) if self.shared_g is None else self.shared_g.of_request(g)

    def records(self) -> list[tuple[Binding, Record]]:
        """Make the record for each chest; none if the request was not captured."""
        request = self.request
        if request is None or self.request_id is None:
            return []
        duration_ns = time.perf_counter_ns() - self.started_ns
        time_unix_nano = self.time_unix_nano
        rule, method, status = request.url_rule, request.method, self.status
        records: list[tuple[Binding, Record]] = []
        for binding, variables in self.captured:
            record = Record(
                id=new_record_id(),
                request_id=self.request_id,
                time_unix_nano=time_unix_nano,
                duration_ns=duration_ns,
                method=method if method in METHODS else storable_text(method[:_MAX_METHOD]),
                route=rule.rule if rule is not None else None,
                endpoint=rule.endpoint if rule is not None else None,
                status_code=500 if status is None else status_code(status),
                instance=binding.instance,
                error=self.error,
                variables=variables,
            )
            records.append((binding, record))
            time_unix_nano += 1  # each has its own: two chests may deliver into one InfluxDB series
        return records


class Stream:
    """A response that is on its way when the app has returned, and what is needed when it closes."""

    __slots__ = ("_around", "_g", "_observation", "_plan", "opened")

    def __init__(self, observation: Observation, plan: Plan, g: object) -> None:
        """Wait for the response to the request of *observation*, which may go on to fill *g*."""
        self._observation = observation
        self._plan = plan
        self._g = g
        # By its id: an exception that is being handled would hold its frames, and they the response.
        self._around = id(sys.exc_info()[1])
        self.opened: Sequence[tuple[Binding, Record]] = ()
        """What the chests were told when it began."""

    def capture(self) -> None:
        """Add what ``g`` holds by now; what is gone from it or can be read no more stays as it was."""
        observation = self._observation
        held = observation.held_by(self._g)
        observation.captured = [
            (binding, earlier | _converted(binding, names, held, earlier))
            for (binding, names), (_, earlier) in zip(self._plan.names, observation.captured, strict=True)
        ]

    def records(self) -> list[tuple[Binding, Record]]:
        """Complete the records that were opened."""
        observation = self._observation
        duration_ns = time.perf_counter_ns() - observation.started_ns
        pairs = zip(self.opened, observation.captured, strict=True)
        return [
            (binding, replace(opened, duration_ns=duration_ns, error=observation.error, variables=variables))
            for (binding, opened), (_, variables) in pairs
        ]

    def error(self) -> str | None:
        """Name the exception for which the server closes the response, if it is one."""
        error = sys.exc_info()[1]
        if error is None or id(error) == self._around or isinstance(error, GeneratorExit):
            return None
        return type(error).__name__


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


@lru_cache(maxsize=256)
def status_code(status: str) -> int:
    """Read the code of a *status* line, as in ``200 OK``; 0 where there is none."""
    code = status[:3]
    return int(code) if code.isdecimal() else 0
