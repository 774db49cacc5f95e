"""The hooks of one app: request → record → each chest that asked for it.

The middleware around ``app.wsgi_app`` sees the beginning, the status that really went out and the end of every
request, whatever happens inside; the hooks inside see ``g`` while it is alive. The record is handed over when
the inner app has returned or raised, so before the server can send a byte.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from flask import Flask, Request, Response, current_app, g, got_request_exception, has_app_context, request

from flask_chest.binding import Binding
from flask_chest.capture import METHODS, Names, SharedG, capture, rules_of
from flask_chest.protocols import RequestIdGenerator
from flask_chest.record import JSONValue, Record
from flask_chest.request_ids import (
    new_record_id,
    normalise_request_id,
    unique_time_unix_nano,
    uuid4_request_id,
)
from flask_chest.values import Conversion, storable_text

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

T = TypeVar("T")
WSGIBody: TypeAlias = Iterable[bytes]

_serial = itertools.count(1)
_MAX_METHOD = 32


def behind(proxy: T) -> T:
    """Give the object behind one of Flask's proxies, which look it up anew at every attribute."""
    found: T = proxy._get_current_object()  # type: ignore[attr-defined]  # Flask types a proxy as its object
    return found


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to do for one route and method: found once, used for every request to it."""

    view: object
    names: tuple[tuple[Binding, Names], ...]
    request_id_generator: RequestIdGenerator


class _Observation:
    """One request as far as it is known; lives in ``environ``, since ``g`` may outlive the request."""

    __slots__ = (
        "captured",
        "ended",
        "error",
        "kept",
        "request",
        "request_id",
        "shared_g",
        "started_ns",
        "status_code",
        "time_unix_nano",
    )

    def __init__(self, time_unix_nano: int) -> None:
        self.time_unix_nano = time_unix_nano
        self.started_ns = time.perf_counter_ns()
        self.request: Request | None = None
        """Flask's request, known from the first hook on: `environ` forgets it when the context ends."""
        self.request_id: str | None = None
        self.status_code: int | None = None
        self.error: str | None = None
        self.captured: list[tuple[Binding, dict[str, JSONValue]]] = []
        self.shared_g: SharedG | None = None
        self.ended = False
        """Whether the inner app has returned or raised."""
        self.kept = False


class AppRecorder:
    """Records the requests of one app into the chests that are registered on it."""

    def __init__(self, app: Flask, *, at_start: Callable[[], None]) -> None:
        """Put the hooks into *app*; call *at_start* before the first request in each process."""
        self.bindings: list[Binding] = []
        self._at_start = at_start
        self._pid: int | None = None
        self._plans: dict[tuple[str | None, str], _Plan] = {}
        self._environ_key = f"flask_chest.{next(_serial)}"
        self._inner = app.wsgi_app
        app.wsgi_app = self.wsgi_app  # type: ignore[method-assign]  # Flask's documented way to add a middleware
        # First in the list is run last, so that what other after_request functions set is seen.
        app.after_request_funcs.setdefault(None, []).insert(0, self._after_request)
        app.teardown_request_funcs.setdefault(None, []).append(self._teardown_request)
        got_request_exception.connect(self._on_exception, app)

    def add(self, binding: Binding) -> None:
        """Record into *binding*'s chest too."""
        self.bindings.append(binding)
        self._plans.clear()
        self.begin_anew()

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> WSGIBody:
        """Serve the request with the app that was there before, and record it."""
        observation = self._begin()
        if observation is None:
            return self._inner(environ, start_response)
        outer = environ.get(self._environ_key)
        environ[self._environ_key] = observation

        def observed_start(
            status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None
        ) -> Callable[[bytes], object]:
            code = status[:3]
            observation.status_code = int(code) if code.isdecimal() else 0
            if exc_info is None:
                return start_response(status, headers)
            return start_response(status, headers, exc_info)

        try:
            body = self._inner(environ, observed_start)
        except BaseException as raised:
            observation.error = observation.error or type(raised).__name__
            raise
        finally:
            self._end(observation)
            if outer is not None:
                environ[self._environ_key] = outer
        return body

    def request_id(self, current: Request) -> str | None:
        """Give the id of the *current* request, made now if it was not yet; ``None`` if it is not recorded."""
        observation: _Observation | None = current.environ.get(self._environ_key)
        if observation is None:
            return None
        plan = self._plan(current)
        return self._request_id(observation, plan) if plan.names else None

    def begin_anew(self) -> None:
        """Take the next request for the first of this process."""
        self._pid = None

    def _begin(self) -> _Observation | None:
        try:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self._at_start()
            observation = _Observation(unique_time_unix_nano(len(self.bindings)))
            if has_app_context():
                observation.shared_g = SharedG(behind(g))
        except Exception as error:
            self._lost("recording a request did not begin", error)
            return None
        return observation

    def _after_request(self, response: Response) -> Response:
        self._capture()
        return response

    def _on_exception(self, _sender: object, *, exception: BaseException, **_: object) -> None:
        # Under PROPAGATE_EXCEPTIONS no after_request follows; else it does and captures again, later values too.
        self._capture(error=type(exception).__name__)

    def _teardown_request(self, _error: BaseException | None) -> None:
        observation: _Observation | None = behind(request).environ.get(self._environ_key)
        if observation is None or observation.kept:
            return
        if observation.request is None:
            # Nothing else was reached when no Exception ended the view, but a worker's time-out or an exit.
            self._capture()
        if observation.ended:
            # A middleware inside ours is a generator: it called Flask only after we had seen it return.
            self._keep(observation)

    def _capture(self, *, error: str | None = None) -> None:
        try:
            current = behind(request)
            observation: _Observation | None = current.environ.get(self._environ_key)
            if observation is None:
                return
            observation.request = current
            if error is not None:
                observation.error, observation.status_code = error, 500
            plan = self._plan(current)
            if plan.names:
                self._request_id(observation, plan)
                self._capture_g(observation, plan)
        except Exception as mishap:
            self._lost("the variables of a request were not captured", mishap)

    def _capture_g(self, observation: _Observation, plan: _Plan) -> None:
        current_g = behind(g)
        shared = observation.shared_g
        held = shared.own() if shared is not None and shared.shared is current_g else vars(current_g)
        observation.captured = []
        for binding, names in plan.names:
            conversion = Conversion()
            observation.captured.append((binding, capture(held, names, conversion)))
            if conversion.failures:
                binding.tally.fault("a value raised while it was read")

    def _request_id(self, observation: _Observation, plan: _Plan) -> str:
        if observation.request_id is None:
            try:
                observation.request_id = normalise_request_id(plan.request_id_generator())
            except Exception as error:
                observation.request_id = uuid4_request_id()
                for binding, _ in plan.names:
                    binding.mishap("the request_id_generator raised", error)
        return observation.request_id

    def _plan(self, current: Request) -> _Plan:
        endpoint = current.endpoint
        view = behind(current_app).view_functions.get(endpoint) if endpoint is not None else None
        method = current.method if current.method in METHODS else ""
        plan = self._plans.get((endpoint, method))
        if plan is None or plan.view is not view:
            plan = self._plans[endpoint, method] = self._make_plan(view, method)
        return plan

    def _make_plan(self, view: object, method: str) -> _Plan:
        rules = rules_of(view, method) if view is not None else ()
        names: list[tuple[Binding, Names]] = []
        for binding in self.bindings:
            asked = [binding.tracked] if binding.tracked is not None else []
            asked += [rule.tracked for rule in rules if rule.chests is None or binding.chest in rule.chests]
            if asked:
                joined = Names()
                for tracked in asked:
                    joined |= tracked.for_method(method)
                names.append((binding, joined))
        generators = [rule.request_id_generator for rule in rules]
        generators += [binding.request_id_generator for binding, _ in names]
        chosen = next((generator for generator in generators if generator is not None), uuid4_request_id)
        return _Plan(view, tuple(names), chosen)

    def _end(self, observation: _Observation) -> None:
        observation.ended = True
        if observation.shared_g is not None:
            observation.shared_g.end()
        if observation.captured:
            self._keep(observation)

    def _keep(self, observation: _Observation) -> None:
        duration_ns = time.perf_counter_ns() - observation.started_ns
        observation.kept = True
        failure: Exception | None = None
        for offset, (binding, variables) in enumerate(observation.captured):
            try:
                # Each record has a time of its own: two chests may deliver into one InfluxDB series.
                binding.keep(_record(observation, binding, variables, offset, duration_ns))
            except Exception as error:
                failure = failure or error
        # environ holds the observation and the request its environ: a cycle would keep a body until collected.
        observation.request = None
        if failure is not None:  # only under strict
            raise failure

    def _lost(self, reason: str, error: Exception) -> None:
        for binding in self.bindings:
            binding.tally.lost(reason, error)
        if any(binding.settings.strict for binding in self.bindings):
            raise error


def _record(
    observation: _Observation,
    binding: Binding,
    variables: dict[str, JSONValue],
    offset: int,
    duration_ns: int,
) -> Record:
    current = observation.request
    if current is None:
        raise RuntimeError("a request was captured without being known")
    rule = current.url_rule
    return Record(
        id=new_record_id(),
        request_id=observation.request_id or uuid4_request_id(),
        time_unix_nano=observation.time_unix_nano + offset,
        duration_ns=duration_ns,
        method=current.method if current.method in METHODS else storable_text(current.method[:_MAX_METHOD]),
        route=rule.rule if rule is not None else None,
        endpoint=current.endpoint,
        status_code=500 if observation.status_code is None else observation.status_code,
        instance=binding.instance,
        error=observation.error,
        variables=variables,
    )
