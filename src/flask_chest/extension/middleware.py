"""The middleware and hooks of one app: request → record → each chest that asked for it.

The middleware around ``app.wsgi_app`` sees the beginning, the status that really went out and the end of every
request, whatever happens inside; the hooks inside see ``g`` while it is alive. The record is handed over when
the inner app has returned or raised, so before the server can send a byte; that of a streamed response again,
now complete, when the response closes, or is collected without that.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from inspect import signature
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import flask.globals
from flask import Flask, Request, Response, got_request_exception, has_app_context
from werkzeug.wsgi import ClosingIterator

from flask_chest._process import pass_interruption
from flask_chest.capture.tracking import METHODS, Rule, all_rules_of, misplaced_views
from flask_chest.capture.values import TRUNCATED
from flask_chest.declared import Declaration
from flask_chest.errors import VariablesMismatch
from flask_chest.extension.request import RequestState, StreamedResponse, WatchedApp, WatchedChunks, start_watched
from flask_chest.extension.route_plan import NOTHING_ASKED, RoutePlan
from flask_chest.extension.shared_g import SharedG
from flask_chest.extension.shutdown import close_all, ends_unsaid
from flask_chest.extension.state import ChestState, logger
from flask_chest.journal.losses import NOT_BEGUN, NOT_CAPTURED, STREAM_NOT_CAPTURED, TEARDOWN_NOT_CAPTURED
from flask_chest.record import Record
from flask_chest.request_ids import process, unique_time_unix_nano

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from flask.ctx import RequestContext

    from flask_chest.extension.chest import FlaskChest

EXTENSION_KEY = "flask_chest"
"""Key under which an app's ``extensions`` hold its `Middleware`."""

T = TypeVar("T")
WSGIBody: TypeAlias = Iterable[bytes]

_OK = 200
_WITHOUT_BODY = frozenset({204, 304})
_NOT_UNDERSTOOD = "a response could not be inspected; if it streams, its record has only its beginning"

_ONE_CONTEXT = "ctx" in signature(Flask.process_response).parameters
"""Whether this Flask has one context for an app and its request, which its hooks get: 3.2 does."""
# Before that Flask calls should_ignore_error whatever it is; from then on to have one warns.
FLASK_ASKS_WHAT_TO_IGNORE = not _ONE_CONTEXT

_serial = itertools.count(1)
_MAX_PLANS = 4096


def behind(proxy: T) -> T:
    """Return the object behind one of Flask's proxies, through which every attribute would take 0.7 µs."""
    found: T = proxy._get_current_object()  # type: ignore[attr-defined]  # typed as what is behind it
    return found


def finder(variable: str, proxy: T) -> Callable[[], T]:
    """Return a function that finds what is behind *proxy*, in 0.02 µs instead of 0.15 where Flask has *variable*.

    That is a private name: where another release has none, the proxy is asked.
    """
    found = getattr(flask.globals, variable, None)
    return cast("ContextVar[T]", found).get if isinstance(found, ContextVar) else partial(behind, proxy)


current_app_context = finder("_cv_app", flask.globals.app_ctx)
current_context = (
    cast("Callable[[], RequestContext]", current_app_context)
    if _ONE_CONTEXT
    else finder("_cv_request", flask.globals.request_ctx)
)
"""Finder of the context of the current request; raises ``LookupError`` or ``RuntimeError`` outside of one."""


def _streams(response: Response, method: str) -> bool:
    """Return whether the *response* streams, and the server asks it for its chunks."""
    status_code = response.status_code
    if response.direct_passthrough or method == "HEAD" or status_code < _OK or status_code in _WITHOUT_BODY:
        return False
    if not response.is_streamed:
        return False
    length: int | None = response.content_length  # typed as always known
    # Of known length and the iterator of a WSGI app: an HTTP exception's page, which is there already.
    return length is None or not isinstance(response.response, ClosingIterator)


class Middleware:
    """Records the requests of one app into the chests that are registered on it."""

    def __init__(self, app: Flask) -> None:
        """Put the hooks into *app*."""
        self.states: list[ChestState] = []
        self._app = app
        self._pid: int | None = None
        """Id of the process that has begun; any other begins with its next request."""
        self._warned_pid: int | None = None
        self._plans: dict[tuple[str | None, str | None, str, tuple[Rule, ...]], RoutePlan] = {}
        self.environ_key = f"flask_chest.{next(_serial)}"
        """Key of the `RequestState` in a request's environment."""
        self._inner = app.wsgi_app
        app.wsgi_app = self.wsgi_app  # type: ignore[method-assign]  # Flask's documented way to add a middleware
        # Methods that are there to be overridden: functions that Flask calls after each request and at its
        # teardown would do, for 0.7 µs apiece, since it looks each time whether they are coroutines.
        self._inner_process_response = app.process_response
        app.process_response = self._process_response  # type: ignore[method-assign, assignment]  # as above
        got_request_exception.connect(self._on_exception, app)
        self._inner_should_ignore_error: Callable[[BaseException | None], bool] | None = getattr(
            app, "should_ignore_error", None
        )
        asks = FLASK_ASKS_WHAT_TO_IGNORE or self._inner_should_ignore_error is not None
        if asks:
            app.should_ignore_error = self._should_ignore_error  # type: ignore[method-assign]  # as above
        self._flask_is_next = getattr(self._inner, "__func__", None) is Flask.wsgi_app
        """Else a middleware inside ours may change the status, or call Flask only after we have returned."""
        if not self._flask_is_next or not asks:
            app.teardown_request_funcs.setdefault(None, []).append(self._teardown_request)

    def add(self, state: ChestState) -> None:
        """Record into the chest of *state* too."""
        self.states.append(state)
        self.forget_plans()
        self.begin_again()

    def forget_plans(self) -> None:
        """Make the plans of all routes again, since there is a new rule."""
        self._plans.clear()

    def begin_again(self) -> None:
        """Take the next request for the first one of this process."""
        self._pid = None

    def start(self, state: ChestState) -> None:
        """Start *state* in this process; where there is no thread for that, the next request tries it again."""
        if not state.start(testing=self._app.testing):
            self.begin_again()

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> WSGIBody:
        """Serve the request with the app that was there before, and record it."""
        try:
            now = unique_time_unix_nano(len(self.states))
            if process.pid != self._pid:
                now = self._begin_process()
            shared_g = SharedG(current_app_context().g) if has_app_context() else None
            request_state = RequestState(now, perf_counter_ns(), shared_g)
        except Exception as error:
            self._lost(NOT_BEGUN, error)
            return self._inner(environ, start_response)
        outer = environ.get(self.environ_key)
        environ[self.environ_key] = request_state
        try:
            if self._flask_is_next:
                return self._inner(environ, start_response)
            return self._inner(environ, partial(start_watched, request_state, start_response))
        except BaseException as raised:
            request_state.failed(raised)
            raise
        finally:
            request_state.ended = True
            self._tell(request_state)
            if outer is not None:
                environ[self.environ_key] = outer

    def request_id(self, current: Request) -> str | None:
        """Return the id of the *current* request, made now if need be, or ``None`` if it is not recorded."""
        request_state: RequestState | None = current.environ.get(self.environ_key)
        if request_state is None:
            return None
        plan = self._plan(current, request_state)
        if request_state.request_id is None and plan.asked:
            request_state.request_id = plan.make_request_id()
        return request_state.request_id

    def skip(self, current: Request) -> None:
        """Record nothing of the *current* request."""
        request_state: RequestState | None = current.environ.get(self.environ_key)
        if request_state is not None:
            request_state.skipped = True

    def _begin_process(self) -> int:
        if ends_unsaid():
            self._inner = partial(_to_the_end, self._inner)
        self._pid = process.pid
        if self._warned_pid != process.pid:
            self._warned_pid = process.pid
            _warn_of_rules(self._app, [state.chest for state in self.states])
        for state in self.states:
            self.start(state)
        return unique_time_unix_nano(len(self.states))  # again: a journal may know of later ones

    def _process_response(self, *arguments: Any) -> Response:
        response = self._inner_process_response(*arguments)  # from Flask 3.2 on the context is one of them
        request_state = self._capture()
        if request_state is None:
            return response
        try:
            status_code: object = response.status_code
        except Exception:
            status_code = None
        if type(status_code) is not int:  # its status is seen when it answers
            return WatchedApp(response, request_state)  # type: ignore[return-value]  # it stands in for the response
        request_state.status_code = status_code
        try:
            if request_state.plan.response_header is not None and (header := request_state.header()) is not None:
                response.headers.setdefault(*header)
            if type(response.response) is not list and _streams(response, request_state.method):  # nearly all are
                self._watch(request_state, response)
        except Exception as error:
            for state in self.states:
                state.latest.problem(_NOT_UNDERSTOOD, error)
        return response

    def _watch(self, request_state: RequestState, response: Response) -> None:
        stream = StreamedResponse(request_state)
        chunks = response.response
        response.response = WatchedChunks(chunks, partial(self._on_end, stream))  # type: ignore[assignment]  # of whatever they are
        try:
            response.call_on_close(partial(self._on_close, request_state, stream))
        except BaseException:
            response.response = chunks
            raise
        request_state.stream = stream

    def _on_exception(self, _sender: object, *, exception: BaseException, **_: object) -> None:
        # Under PROPAGATE_EXCEPTIONS no after_request follows; else it does and captures again, later values too.
        self._capture(raised=exception)

    def _should_ignore_error(self, error: BaseException | None) -> bool:
        self._on_exit(error)
        return self._inner_should_ignore_error is not None and self._inner_should_ignore_error(error)

    def _teardown_request(self, error: BaseException | None) -> None:
        self._on_exit(error)
        request_state: RequestState | None = current_context().request.environ.get(self.environ_key)
        if request_state is not None and request_state.ended:
            self._tell(request_state)

    def _on_exit(self, error: BaseException | None) -> None:
        """Capture where nothing else was reached: a worker's time-out or an exit ended the view."""
        if error is not None and not isinstance(error, Exception):
            request_state: RequestState | None = current_context().request.environ.get(self.environ_key)
            if request_state is not None and request_state.plan is NOTHING_ASKED:
                # Nothing may leave this: Flask has its context still to pop, and the exit goes on anyhow.
                with suppress(BaseException):
                    self._capture()

    def _capture(self, *, raised: BaseException | None = None) -> RequestState | None:
        try:
            current = current_context().request
            request_state: RequestState | None = current.environ.get(self.environ_key)
            if request_state is None or request_state.skipped:
                return None
            request_state.stream = None  # of a response that gave way to this one
            plan = self._plan(current, request_state)
            if raised is not None:
                request_state.note(raised, text=plan.tells_errors)
            if not plan.asked:
                return None
            request_state.capture(plan, current, current_app_context().g)
        except BaseException as error:
            pass_interruption(error)
            self._lost(NOT_CAPTURED, error)
            return None
        return request_state

    def _plan(self, current: Request, request_state: RequestState) -> RoutePlan:
        rule = current.url_rule
        endpoint, route = (rule.endpoint, rule.rule) if rule is not None else (None, None)
        method = current.method if current.method in METHODS else ""
        ran = request_state.ran
        plan = self._plans.get((endpoint, route, method, ran))
        view = self._app.view_functions.get(endpoint) if endpoint is not None else None
        if plan is None or plan.view is not view:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()  # functions that are decorated again in each request have new rules each time
            plan = RoutePlan.make(
                self.states, self._app, view, endpoint=endpoint, route=route, method=method, ran=ran
            )
            self._plans[endpoint, route, method, ran] = plan
        return plan

    def _tell(self, request_state: RequestState) -> None:
        """Hand what was captured to the chests, once."""
        stream, request_state.stream = request_state.stream, None
        if stream is None and request_state.captured:
            app = self._app
            if app.teardown_request_funcs or app.teardown_appcontext_funcs:
                self._capture_late(request_state)
        records = request_state.records() if request_state.captured and not request_state.skipped else []
        request_state.captured = ()
        if stream is None or not records:
            if request_state.shared_g is not None:
                request_state.shared_g.end()
            _keep(request_state, records)
            return
        stream.opened = records
        for state, record in records:
            if (
                request_state.rates is None or state.sampling is None
            ):  # else it is not known yet whether it is kept
                state.latest.keep_opened(record)

    def _capture_late(self, request_state: RequestState) -> None:
        try:
            request_state.capture_late()
        except Exception as error:
            self._lost(TEARDOWN_NOT_CAPTURED, error)

    def _on_end(self, stream: StreamedResponse, raised: BaseException | None, begun: bool) -> None:  # noqa: FBT001
        try:
            stream.end(raised, begun=begun)
        except Exception as error:
            self._lost(STREAM_NOT_CAPTURED, error)

    def _on_close(self, request_state: RequestState, stream: StreamedResponse) -> None:
        if request_state.stream is stream:
            request_state.stream = None  # the app has not returned yet, and will tell of it
        elif not stream.opened:
            return  # closed already, or another response went out
        request_state.error = request_state.error or stream.error()
        try:
            stream.capture()
        except Exception as error:
            self._lost(STREAM_NOT_CAPTURED, error)
        _keep(request_state, stream.close())

    def _lost(self, reason: str, error: BaseException) -> None:
        for state in self.states:
            state.latest.tally.lost(reason, error)
        if any(state.settings.strict for state in self.states):
            raise error


def middleware_of(app: Flask) -> Middleware | None:
    """Return the middleware of *app*, or ``None`` if no chest is registered there."""
    return app.extensions.get(EXTENSION_KEY)


def endpoints_of_absent_chests(app: Flask, registered: Collection[FlaskChest]) -> list[str]:
    """Return the endpoints of *app* whose rules name a chest that is not among the *registered*."""
    return sorted(
        endpoint
        for endpoint, view in app.view_functions.items()
        if any(chest not in registered for rule in all_rules_of(view) for chest in rule.chests or ())
    )


def _warn_of_rules(app: Flask, registered: Collection[FlaskChest]) -> None:
    for endpoint in misplaced_views(app.view_functions):
        logger.warning(
            "@flask_chest stands above @app.route for the endpoint %r and has no effect there; "
            "put it below the route",
            endpoint,
        )
    for endpoint in endpoints_of_absent_chests(app, registered):
        logger.warning(
            "@flask_chest on the endpoint %r names a chest in chests= that is not registered on the app; "
            "call its init_app(app)",
            endpoint,
        )


def _to_the_end(
    inner: Callable[[WSGIEnvironment, StartResponse], WSGIBody],
    environ: WSGIEnvironment,
    start_response: StartResponse,
) -> WSGIBody:
    """Serve with *inner*, and close all that works beside the app once the response was sent."""
    try:
        return ClosingIterator(inner(environ, start_response), close_all)
    except BaseException:
        close_all()
        raise


def _count_mismatches(state: ChestState, record: Record, declaration: Declaration, names: Iterable[str]) -> None:
    """Count for *state* the variables *names* of *record*, which are not as declared; under ``strict``, raise."""
    for name in names:
        value = record.variables[name]
        if not (isinstance(value, str) and value.endswith(TRUNCATED)):
            wrong = f"{name} is not {declaration.expected(name)}, as {declaration.declared.__name__} declares"
            state.latest.tally.problem(wrong)
            if state.settings.strict:
                raise VariablesMismatch(wrong)


def _keep(request_state: RequestState, records: Iterable[tuple[ChestState, Record]]) -> None:
    failure: Exception | None = None
    for state, made in records:
        record = made if request_state.rates is None else request_state.sampled(state, made)
        if record is None:
            continue
        try:
            state.latest.keep(record)
            if request_state.compares:
                for check in request_state.plan.checks.get(state, ()):
                    if names := check.mismatches(record.variables):
                        _count_mismatches(state, record, check.declaration, names)
        except Exception as error:
            failure = failure or error  # the other chests get their records first
    if failure is not None:  # only under strict
        raise failure
