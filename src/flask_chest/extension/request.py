"""One request, from its beginning to its records: what to capture, what was captured, how it ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from flask import Request
from msgspec.structs import replace

from flask_chest._process import pass_interruption
from flask_chest.capture.trace_context import TRACE_MODULE, TRACEPARENT_KEY, TraceContext, trace_context
from flask_chest.capture.tracking import Rule
from flask_chest.capture.values import storable_text
from flask_chest.extension.route_plan import NOTHING_ASKED, RoutePlan
from flask_chest.extension.shared_g import SharedG
from flask_chest.extension.state import ChestState
from flask_chest.protocols import VariablesObserver
from flask_chest.record import JSONValue, Record
from flask_chest.request_ids import is_header_value, new_record_id, new_request_id, process

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Variables: TypeAlias = dict[str, JSONValue]

_MAX_METHOD = 32
MAX_ERROR = 500
"""Longest `Record.error`, in characters."""
_NOTHING: Mapping[str, object] = MappingProxyType({})


class RequestState(msgspec.Struct, eq=False):
    """One request as far as it is known; lives in ``environ``, since ``g`` may outlive the request.

    It holds no request, which would hold its ``environ``: a body would be kept until cycles are collected.
    A ``msgspec.Struct``, as `Record` is and for the same reason.
    """

    time_unix_nano: int
    started_ns: int
    """Start by the clock that never goes back, in nanoseconds."""
    shared_g: SharedG | None
    ran: tuple[Rule, ...] = ()
    """Rules of the decorated functions that ran."""
    plan: RoutePlan = NOTHING_ASKED
    """Plan for its route and method; set by the capture, as *method* is."""
    method: str = ""
    g: object = None
    """The ``g`` from which the variables were taken."""
    seen: Mapping[str, object] = _NOTHING
    """Contents of ``g`` at the capture, if they may change without being set again."""
    compares: bool = False
    """Whether variables are still to be compared with their declarations, as they were not when taken."""
    request_id: str | None = None
    trace: TraceContext | None = None
    captured: Sequence[tuple[ChestState, Variables]] = ()
    """Variables for each chest, until the chests have them."""
    status_code: int = 500
    error: str | None = None
    error_text: str = ""
    """Text of the exception, if a chest keeps it."""
    rates: Mapping[ChestState, float] | None = None
    """Share of such requests that each chest keeps; ``None`` if all keep all of them."""
    skipped: bool = False
    """Whether the app wants no record of this request."""
    stream: StreamedResponse | None = None
    """Response that streams, until it closes or another one takes its place."""
    ended: bool = False
    """Whether the inner app has returned or raised."""

    def capture(self, plan: RoutePlan, current: Request, g: object) -> None:
        """Take the *current* request and what it left on *g*, in place of what was taken before."""
        if self.request_id is None:
            self.request_id = plan.make_request_id()
        environ = current.environ
        # Checked here, since most requests have no trace, and to find that out takes four calls.
        if self.trace is None and (TRACEPARENT_KEY in environ or TRACE_MODULE in sys.modules):
            self.trace = _trace(plan, environ)
        self.g = g
        held = self.held()
        captured: list[tuple[ChestState, Variables]] = []
        for state, capture in plan.asked:
            variables = capture.plain(held)
            if variables is None:
                self.seen, self.compares = dict(held), True
                variables, failures = capture.convert(held)
                if failures:
                    state.latest.tally.problem("a value raised while it was read")
            captured.append((state, variables))
            if state.observer is not None:
                _show(state, state.observer, variables, current)
        self.plan = plan
        self.method = plan.method or storable_text(current.method[:_MAX_METHOD])
        self.captured = captured
        if plan.samples:
            self.rates = _rates(plan)

    def held(self) -> Mapping[str, object]:
        """Return what the request has on ``g``."""
        return vars(self.g) if self.shared_g is None else self.shared_g.of_request(self.g)

    def capture_late(self) -> None:
        """Add what was set since; what is gone from ``g`` or would need the app's code stays as it was."""
        self.captured = self.again(self.captured)

    def again(self, captured: Sequence[tuple[ChestState, Variables]]) -> list[tuple[ChestState, Variables]]:
        """Return what was *captured* with what was set since, without running the app's code."""
        held = self.held()
        later: list[tuple[ChestState, Variables]] = []
        for (state, capture), (_, earlier) in zip(self.plan.asked, captured, strict=True):
            plain = capture.plain(held)
            self.compares = self.compares or plain is None
            variables = capture.again(held, self.seen, earlier) if plain is None else earlier | plain
            later.append((state, variables))
        return later

    def note(self, raised: BaseException, *, text: bool) -> None:
        """Note the exception that ends the request, and with *text* what it says: that runs its own code."""
        self.error, self.status_code = type(raised).__name__, 500
        self.error_text = _said(raised) if text else ""

    def failed(self, raised: BaseException) -> None:
        """Note that *raised* left the app: there is no response."""
        if isinstance(raised, StopIteration):
            return  # so websockets tell gunicorn that the connection is over
        if self.error is None:
            self.note(raised, text=bool(self.captured) and self.plan.tells_errors)
        self.status_code, self.stream = 500, None

    def records(self) -> list[tuple[ChestState, Record]]:
        """Return a record for each chest, made from what was captured."""
        duration_ns = time.perf_counter_ns() - self.started_ns
        time_unix_nano = self.time_unix_nano
        plan, trace = self.plan, self.trace
        records: list[tuple[ChestState, Record]] = []
        for state, variables in self.captured:
            record = Record(
                id=new_record_id(),
                request_id=self.request_id or new_request_id(),
                time_unix_nano=time_unix_nano,
                duration_ns=duration_ns,
                method=self.method,
                route=plan.route,
                endpoint=plan.endpoint,
                status_code=self.status_code,
                instance=state.latest.instance,
                error=self.error_for(state) if plan.tells_errors else self.error,
                variables=variables,
            )
            if trace is not None:
                record = replace(
                    record,
                    trace_id=trace.trace_id,
                    span_id=trace.span_id,
                    trace_flags=trace.trace_flags,
                    trace_remote=trace.is_remote,
                )
            records.append((state, record))
            time_unix_nano += 1  # each has its own: two chests may deliver into one InfluxDB series
        return records

    def sampled(self, state: ChestState, record: Record) -> Record | None:
        """Return *record* as the chest of *state* keeps it; ``None`` if it does not, which is counted."""
        if self.rates is None or state.sampling is None:
            return record
        kept = state.sampling.sampled(record, self.rates[state])
        if kept is None:
            state.latest.tally.sampled_out()
        return kept

    def error_for(self, state: ChestState) -> str | None:
        """Return what the chest of *state* keeps of the exception."""
        if self.error is None or not self.error_text or not state.settings.error_messages:
            return self.error
        redaction = state.value_rules.redaction
        text = redaction.cleaned(self.error_text, redaction.patterns)
        return self.error if text is None else storable_text(f"{self.error}: {text}"[:MAX_ERROR])

    def header(self) -> tuple[str, str] | None:
        """Return the response header with the request id, if one is wanted and the id is fit for a header."""
        name = self.plan.response_header
        if name is None or self.request_id is None or not is_header_value(self.request_id):
            return None
        return name, self.request_id


def _trace(plan: RoutePlan, environ: Mapping[str, object]) -> TraceContext | None:
    try:
        return trace_context(environ)
    except BaseException as error:  # noqa: BLE001 - another tracer's span may do anything; the request goes on
        pass_interruption(error)
        for state, _ in plan.asked:
            state.latest.tally.problem("the trace of a request could not be read", error)
        return None


def _show(state: ChestState, observer: VariablesObserver, variables: Variables, current: Request) -> None:
    try:
        if observer.observe(variables, current.environ):
            state.latest.tally.problem("a span had no room for some variables")
    except BaseException as error:  # noqa: BLE001 - as above
        pass_interruption(error)
        state.latest.tally.problem("the observer of variables raised", error)


def _said(raised: BaseException) -> str:
    try:
        return str(raised)[: 2 * MAX_ERROR]  # what redaction hides may be longer than what replaces it
    except BaseException as error:  # noqa: BLE001 - the app's own class; the record has its type
        pass_interruption(error)
        return ""


def _rates(plan: RoutePlan) -> Mapping[ChestState, float]:
    rates: dict[ChestState, float] = {}
    for state, _ in plan.asked:
        if state.sampling is not None:
            try:
                rates[state] = state.sampling.current_rate()
            except BaseException as error:  # noqa: BLE001 - the app's own function; the record is kept
                pass_interruption(error)
                state.latest.tally.problem("sample raised, or returned no number from 0 to 1", error)
                rates[state] = 1.0
    return rates


class StreamedResponse:
    """A response that is still being sent when the app has returned, and what is needed when it ends.

    The response holds it, so that it ends with the response at the latest: nothing that lives longer may hold it.
    """

    __slots__ = ("_around", "_captured", "_duration_ns", "_ended", "_pid", "_request_state", "opened")

    def __init__(self, request_state: RequestState) -> None:
        """Wait for the response to the request of *request_state*, which may go on to fill ``g``."""
        self.opened: Sequence[tuple[ChestState, Record]] = ()
        """Records that the chests got when it began, until they get the completed ones."""
        self._request_state = request_state
        self._captured = request_state.captured
        self._duration_ns: int | None = None
        """Duration, once it is known."""
        self._ended = False
        """Whether its last chunk was sent."""
        self._pid = process.pid
        # By its id: an exception that is being handled would hold its frames, and they the response.
        self._around = id(sys.exc_info()[1])

    def __del__(self) -> None:
        """Let another thread or request complete what the server never closed.

        This may run in the middle of anything, the journal's lock held by this very thread: so it takes no lock
        and calls nothing of the app.
        """
        if self.opened and self._pid == process.pid:
            self._duration_ns = self._duration_ns or self._lasted()
            for state, opened in self.opened:
                state.latest.keep_later(partial(self._unclosed, state, opened))

    def end(self, raised: BaseException | None = None, *, begun: bool = True) -> None:
        """Note that there are no more chunks, or what was *raised*, and whether any had *begun* before."""
        request_state = self._request_state
        if raised is not None and request_state.error is None:
            status_code = request_state.status_code
            request_state.note(raised, text=request_state.plan.tells_errors)
            if begun:
                request_state.status_code = status_code
        self._duration_ns, self._ended = self._lasted(), True
        self.capture()

    def capture(self) -> None:
        """Add what was set on ``g`` since; what is gone from it or would need the app's code stays as it was."""
        request_state = self._request_state
        self._captured = request_state.again(self._captured)
        if request_state.captured:  # it closed before the app returned, which then hands it over
            request_state.captured = self._captured

    def close(self) -> list[tuple[ChestState, Record]]:
        """Return the records that were opened, completed; none if that was done, or is the parent process's."""
        request_state = self._request_state
        opened, self.opened = self.opened, ()
        if not opened or self._pid != process.pid:
            return []
        if request_state.shared_g is not None:
            request_state.shared_g.end()
        return [(state, self._completed(state, record)) for state, record in opened]

    def error(self) -> str | None:
        """Return the type of the exception for which the server closes the response, or ``None``."""
        error = sys.exc_info()[1]
        if error is None or id(error) == self._around or isinstance(error, GeneratorExit):
            return None
        return type(error).__name__

    def _completed(self, state: ChestState, opened: Record) -> Record:
        request_state = self._request_state
        return replace(
            opened,
            duration_ns=self._duration_ns or self._lasted(),
            status_code=request_state.status_code,
            error=request_state.error_for(state),
            variables=next(variables for whose, variables in self._captured if whose is state),
        )

    def _unclosed(self, state: ChestState, opened: Record) -> Record | None:
        """Return the record that *state* opened and nobody closed, completed; ``None`` if it is not kept."""
        request_state = self._request_state
        if request_state.shared_g is not None:
            request_state.shared_g.end()
        elif not self._ended:  # a client left
            with suppress(Exception):
                self.capture()
        return request_state.sampled(state, self._completed(state, opened))

    def _lasted(self) -> int:
        return time.perf_counter_ns() - self._request_state.started_ns


class WatchedChunks:
    """The chunks of a response that streams, which can be iterated over once; *end* is called when they end.

    In all else it behaves as the iterable in whose place it stands, so that closing it closes that.
    """

    __slots__ = ("_chunks", "_end")

    def __init__(self, chunks: Iterable[object], end: Callable[[BaseException | None, bool], None]) -> None:
        self._chunks = chunks
        self._end = end

    def __iter__(self) -> Iterator[object]:
        begun = False
        try:
            # Not "yield from", which would close them when this is collected: in a finalizer, by the app's code.
            for chunk in self._chunks:
                begun = True
                yield chunk
        except GeneratorExit:
            raise
        except BaseException as raised:
            self._end(raised, begun)
            raise
        self._end(None, begun)

    def __getattr__(self, name: str) -> object:
        return getattr(self._chunks, name)


class WatchedApp:
    """A WSGI app in place of a response; its status is noted when it sends one, and all else is that app's."""

    __slots__ = ("_app", "_request_state")

    def __init__(self, app: WSGIApplication, request_state: RequestState) -> None:
        self._app = app
        self._request_state = request_state

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve the request with it."""
        return self._app(environ, partial(start_watched, self._request_state, start_response))

    def __getattr__(self, name: str) -> object:
        return getattr(self._app, name)


def start_watched(
    request_state: RequestState,
    start_response: StartResponse,
    status: str,
    headers: list[tuple[str, str]],
    exc_info: OptExcInfo | None = None,
) -> Callable[[bytes], object]:
    """Note the *status* that really goes out and pass everything on to *start_response*."""
    with suppress(Exception):  # whatever its type, the server has to judge it
        code = status[:3]
        request_state.status_code = int(code) if code.isdecimal() else 0
    if exc_info is None:
        return start_response(status, headers)
    return start_response(status, headers, exc_info)
