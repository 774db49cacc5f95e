"""`FlaskChest`: the extension, bound to one store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Unpack, cast
from weakref import WeakKeyDictionary

import msgspec
from flask import Blueprint, Flask, current_app, has_app_context, has_request_context, request

from flask_chest.background.export_run import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_LEASE,
    ExportReport,
    RecordFilter,
    Redelivered,
)
from flask_chest.background.exports import ExportJob
from flask_chest.background.retention import RetentionReport
from flask_chest.background.stats import ChestStats, Health
from flask_chest.capture.explain import explanations
from flask_chest.capture.names import Computed, Rename, TrackedNames, TrackedVars, known_method
from flask_chest.capture.rules import BlueprintRule
from flask_chest.errors import CapabilityMissing, ConfigurationError, describe
from flask_chest.extension.endings import EXIT_TIMEOUT_SECONDS
from flask_chest.extension.middleware import EXTENSION_KEY, Middleware, behind, middleware_of
from flask_chest.extension.route_plan import RoutePlan
from flask_chest.extension.settings import MISSPELT, SettingOptions, Settings, check_options
from flask_chest.extension.state import ChestState, JournalPlace, logger
from flask_chest.journal import forget_refused
from flask_chest.protocols import (
    Erasure,
    Exporter,
    Rejections,
    RequestIdGenerator,
    StartAt,
    Store,
    VariablesObserver,
)
from flask_chest.record import JSONValue, Query, Record
from flask_chest.stores import store_from_uri

DEFAULT_INTERVAL = timedelta(minutes=5)
READ_PATIENCE_SECONDS = 2.0
"""Seconds that a reader waits for what its own process recorded before."""
_NO_VARIABLES: Mapping[str, JSONValue] = MappingProxyType({})


class FlaskChest:
    """Keeps chosen variables of ``flask.g`` of each request in a store.

    A request appends its record to a journal on disk, and a thread of the process moves it on to the store.

    *store* is a `Store`, or a callable that makes one for each app and process. Without it the setting
    ``CHEST_URI`` says which (``sqlite:///relative/to/root_path.db``, ``memory:``), else it is SQLite in the
    app's instance folder.

    *tracked_vars* and *request_id_generator* are for every route of the app; without *tracked_vars* only views
    under `flask_chest.decorator.flask_chest` are recorded, and the blueprints given to `track`.
    *span_attributes* (`flask_chest.otel.SpanAttributes`) copies the variables onto the request's OpenTelemetry
    span. *config_prefix* takes the place of ``CHEST`` in the names of settings, for a second chest on one app.
    All other options are settings, which the README lists.

    Nothing is opened, connected or started before the first request in a process.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        store: Store | Callable[[], Store] | None = None,
        request_id_generator: RequestIdGenerator | None = None,
        span_attributes: VariablesObserver | None = None,
        config_prefix: str = "CHEST",
        **settings: Unpack[SettingOptions],
    ) -> None:
        check_generator(request_id_generator)
        self._store = store
        self._request_id_generator = request_id_generator
        self._span_attributes = span_attributes
        self._config_prefix = config_prefix
        self._given: Mapping[str, object] = MappingProxyType(check_options(settings))
        self._jobs_for_all: dict[str, Callable[[Mapping[str, object]], ExportJob]] = {}
        self._blueprint_rules: list[BlueprintRule] = []
        self._states: WeakKeyDictionary[Flask, ChestState] = WeakKeyDictionary()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Register this chest on *app*; raise `ConfigurationError` for a wrong setting, or the second time."""
        if app in self._states:
            raise ConfigurationError(f"this chest is registered on the app {app.name!r} already; use it as it is")
        settings = Settings.load(
            prefix=self._config_prefix, given=self._given, config=app.config, environ=os.environ
        )
        for name, meant in settings.misspelt.items():
            logger.warning(MISSPELT.format(name=name, meant=meant))
        state = ChestState(
            chest=self,
            settings=settings,
            make_store=self._store_factory(app, settings),
            store_is_lent=_is_store(self._store),
            request_id_generator=self._request_id_generator,
            observer=self._span_attributes,
            blueprint_rules=self._blueprint_rules,
            jobs={name: job_for(app.config) for name, job_for in self._jobs_for_all.items()},
            place=JournalPlace(
                root=Path(app.root_path),
                default=Path(app.instance_path) / EXTENSION_KEY,
                chest=self.name,
                app=app.import_name,
            ),
        )
        middleware = middleware_of(app)
        if middleware is None:
            middleware = app.extensions[EXTENSION_KEY] = Middleware(app)
        middleware.add(state)
        self._states[app] = state

    def track(
        self,
        blueprint: Blueprint,
        tracked_vars: TrackedVars | None = None,
        *,
        rename: Rename | None = None,
        computed: Computed | None = None,
    ) -> None:
        """Record the requests to *blueprint* and to those nested in it; the options are the decorator's."""
        tracked = TrackedNames.parse(tracked_vars, rename=rename, computed=computed)
        if not isinstance(blueprint, Blueprint):
            raise ConfigurationError(f"track takes a blueprint, got a {type(blueprint).__name__}")
        self._blueprint_rules.append(BlueprintRule(blueprint, tracked))
        for app in list(self._states):
            middleware: Middleware = app.extensions[EXTENSION_KEY]
            middleware.forget_plans()

    def query(
        self,
        *,
        id: str | None = None,  # noqa: A002 - the record's field
        request_id: str | None = None,
        trace_id: str | None = None,
        route: str | None = None,
        method: str | None = None,
        status_code: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        where: Mapping[str, JSONValue] = _NO_VARIABLES,
        limit: int | None = 100,
    ) -> list[Record]:
        """Give the records that match all that is asked, newest first, at most *limit* (``None``: all).

        *since* is inclusive, *until* exclusive; both must know their time zone. *where* asks for variables by
        exact value and type (1, 1.0 and ``True`` differ); it has no index and reads the time range. What this
        process recorded is waited for, up to two seconds. Raises `StoreError` when the store cannot answer.
        """
        return list(
            self.iter(
                id=id,
                request_id=request_id,
                trace_id=trace_id,
                route=route,
                method=method,
                status_code=status_code,
                since=since,
                until=until,
                where=where,
                limit=limit,
            )
        )

    def iter(
        self,
        *,
        id: str | None = None,  # noqa: A002 - the record's field
        request_id: str | None = None,
        trace_id: str | None = None,
        route: str | None = None,
        method: str | None = None,
        status_code: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        where: Mapping[str, JSONValue] = _NO_VARIABLES,
        limit: int | None = None,
    ) -> Iterator[Record]:
        """Yield what `query` would give, fetched while you iterate, without a limit unless you set one."""
        question = _question(
            id=id,
            request_id=request_id,
            trace_id=trace_id,
            route=route,
            method=method,
            status_code=status_code,
            since_unix_nano=_unix_nano(since, "since"),
            until_unix_nano=_unix_nano(until, "until"),
            where=where,
            limit=limit,
        )
        if limit is not None and limit < 0:
            raise ConfigurationError(f"limit must be 0 or more, or None for all, got {limit!r}")
        state = self._state
        self._await_own_records()
        return iter(state.here.open_store().query(question))

    def trace_link(self, record: Record) -> str | None:
        """Make the address of the trace of *record*; ``None`` if it has none, or ``trace_url`` is not set."""
        template = self._state.settings.trace_url
        if template is None or record.trace_id is None:
            return None
        return template.replace("{trace_id}", record.trace_id)

    def forget(self, *, where: Mapping[str, JSONValue], request_id: str | None = None) -> int:
        """Delete every record that matches, as a person may ask for; give how many were in the store.

        *where* names variables and their exact values, as for `query`; one at least, or a *request_id*. Deletion
        is final: what waits in a journal, of any process, is not kept either, nor what begins up to a minute
        later, as a clock may be ahead. What the store refused and lies in this machine's journal goes too. What
        exporters have delivered already is theirs to delete. Raises `CapabilityMissing` if the store cannot
        delete.
        """
        if not where and request_id is None:
            raise ConfigurationError('forget needs to know whose records, as in where={"user_id": 7}')
        store = self._state.here.open_store()
        if not isinstance(store, Erasure):
            raise CapabilityMissing(store, "Erasure")
        self._await_own_records()
        question = _question(where=where, request_id=request_id, limit=None)
        count = store.forget(question)
        for state in list(self._states.values()):
            forget_refused(state.here.journal_config.folder, question)
        return count

    def _await_own_records(self) -> None:
        """Wait a little until what this process recorded is in the store; other apps may share it."""
        deadline = time.monotonic() + READ_PATIENCE_SECONDS
        for state in list(self._states.values()):
            state.here.flush(max(0.0, deadline - time.monotonic()))

    def explain(self, record: Record) -> list[str]:
        """Say which rules hid or cut what in *record*, in sentences that hold no value.

        What a rule dropped has left no trace: only those variables are told of that are asked for by name.
        """
        app = self._app()
        state = self._states[app]
        view = app.view_functions.get(record.endpoint) if record.endpoint is not None else None
        plan = RoutePlan.make(
            [state], app, view, endpoint=record.endpoint, route=record.route, method=record.method
        )
        asked = plan.asked[0].capture.variables if plan.asked else ()
        return list(explanations(record.variables, state.value_rules, asked))

    def add_exporter(
        self,
        exporter: Exporter | Callable[[], Exporter],
        *,
        app: Flask | None = None,
        interval: timedelta = DEFAULT_INTERVAL,
        name: str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        lease: timedelta = DEFAULT_LEASE,
        start_at: StartAt = "beginning",
        filter: Callable[[Record], bool] | None = None,  # noqa: A002 - the word for it
        transform: Callable[[Record], Record | None] | None = None,
    ) -> None:
        """Deliver this chest's records by *exporter* at every *interval*, from the first request on.

        Those of *app*, on which the chest is registered; without it those of every app, also of later ones.
        A callable is called for an exporter in each process, and needs a *name*. Delivery goes on where it
        ended for this name, in whichever process: rename an exporter and it begins anew at *start_at*.
        When a process is killed in the middle of a delivery, another one takes it up after the time of *lease*.
        *filter* says which records it is to have; *transform* changes them on the way, or makes them ``None``
        for none, and leaves their id as it is. A record at which one of the two raises is set aside.
        Raises `ConfigurationError` for a name that is taken.
        """
        job = ExportJob.checked(
            exporter,
            interval=interval,
            name=name,
            batch_size=batch_size,
            lease=lease,
            start_at=start_at,
            selection=RecordFilter(wanted=filter, transform=transform),
        )
        self.add_job(job.name, lambda _: job, app=app)

    def add_job(
        self, name: str, job_for: Callable[[Mapping[str, object]], ExportJob], *, app: Flask | None = None
    ) -> None:
        """Add what *job_for* makes of the settings of *app*, or of those of every app."""
        if app is not None and app not in self._states:
            raise ConfigurationError(
                f"this chest is not registered on the app {app.name!r}; call chest.init_app(app) before"
            )
        chosen = list(self._states.items()) if app is None else [(app, self._states[app])]
        if name in self._jobs_for_all or any(name in state.jobs for _, state in chosen):
            raise ConfigurationError(
                f"the chest has an exporter named {name!r} already; give the second one another name=, "
                "and in an app factory each its app="
            )
        jobs = [(each, state, job_for(each.config)) for each, state in chosen]
        if app is None:
            self._jobs_for_all[name] = job_for
        for each, state, job in jobs:
            state.jobs[name] = job
            if state.here.started:
                middleware: Middleware = each.extensions[EXTENSION_KEY]
                middleware.start(state)

    def run_exports(self, *names: str) -> list[ExportReport]:
        """Run the exporters of these *names*, or all, once, now, in this thread.

        Raises `CapabilityMissing` if the store has no outbox, `ConfigurationError` for a name that none has.
        """
        state = self._state
        jobs = [self._job(name) for name in names or state.jobs]
        self._await_own_records()
        return [state.here.exports.run(job) for job in jobs]

    def replay(self, name: str, *, since: datetime | None = None, until: datetime | None = None) -> ExportReport:
        """Deliver what began from *since* until before *until* once more by the exporter *name*, now.

        For a target that has lost something: what it has, it is to tell by the records' ids. Where the exporter
        goes on is not changed, and what it refuses is counted and not set aside. An error ends it and is told.
        """
        job = self._job(name)
        found = self.iter(since=since, until=until)
        return self._deliver_again(job, found, lambda _: None)

    def retry_rejected(self, name: str, record_ids: Sequence[str] = ()) -> ExportReport:
        """Deliver once more what was set aside for the exporter *name*: these records, or all.

        What is delivered, or wanted no more, is not set aside any more; what is refused again is.
        """
        job, store = self._job(name), self._rejections()
        ids = self._set_aside(store, name, record_ids)
        records = (record for each in ids for record in self.iter(id=each))
        return self._deliver_again(
            job, records, lambda batch: store.discard(name, [*batch.delivered, *batch.filtered])
        )

    def drop_rejected(self, name: str, record_ids: Sequence[str] = ()) -> int:
        """Forget what was set aside for the exporter *name*, these records or all; give how many those were."""
        store = self._rejections()
        return store.discard(name, self._set_aside(store, name, record_ids))

    def export_obstacle(self, name: str) -> str | None:
        """Say why the exporter *name* can deliver nothing, as far as it knows without a record to deliver."""
        job = self._job(name)
        try:
            self._state.here.exports.try_out(job)
        except Exception as exc:  # noqa: BLE001 - an own exporter, or what makes it, may raise anything
            return describe(exc)
        return None

    def _job(self, name: str) -> ExportJob:
        jobs = self._state.jobs
        if name not in jobs:
            raise ConfigurationError(f"the chest has no exporter named {name!r}, only {list(jobs)}")
        return jobs[name]

    def _rejections(self) -> Rejections:
        store = self._state.here.open_store()
        if not isinstance(store, Rejections):
            raise CapabilityMissing(store, "Rejections")
        return store

    def _set_aside(self, store: Rejections, name: str, record_ids: Sequence[str]) -> list[str]:
        known = [each.record_id for each in store.rejections(name)]
        for record_id in record_ids:
            if record_id not in known:
                raise ConfigurationError(f"no record {record_id!r} was set aside for {name!r}")
        return [each for each in known if not record_ids or each in record_ids]

    def _deliver_again(
        self, job: ExportJob, records: Iterable[Record], note: Callable[[Redelivered], object]
    ) -> ExportReport:
        delivered = filtered = rejected = 0
        error: str | None = None
        try:
            for batch in self._state.here.exports.redeliver(job, records):
                note(batch)
                delivered += len(batch.delivered)
                filtered += len(batch.filtered)
                rejected += len(batch.rejected)
        except Exception as exc:  # noqa: BLE001 - an own store or exporter may raise anything
            error = describe(exc)
        return ExportReport(
            exporter=job.name, delivered=delivered, filtered=filtered, rejected=rejected, error=error
        )

    def run_retention(self) -> RetentionReport:
        """Delete what is beyond ``CHEST_RETENTION`` and its cap, once, now, in this thread.

        Raises `CapabilityMissing` if the store cannot prune, and what the store raises.
        """
        return self._state.here.run_retention()

    @property
    def exporter_names(self) -> tuple[str, ...]:
        """The names of the current app's exporters; where there is no such app, of those for every app."""
        try:
            return tuple(self._state.jobs)
        except ConfigurationError:
            return tuple(self._jobs_for_all)

    def stats(self) -> ChestStats:
        """Count what happened to records in this process."""
        return self._state.here.stats()

    def health(self) -> Health:
        """Tell whether records are lost, in this process or those beside it, without asking the store.

        To alert on, and never to route on; see `health_blueprint`.
        """
        return self._state.here.health()

    def stats_of_apps(self) -> Iterator[tuple[str, ChestStats]]:
        """Count that for each app that this chest is registered on, with the app's name."""
        return ((app.name, state.here.stats()) for app, state in list(self._states.items()))

    @property
    def name(self) -> str:
        """What tells this chest from others of an app: the prefix of its settings, in lower case."""
        return self._config_prefix.lower()

    @property
    def config_prefix(self) -> str:
        """What the names of its settings begin with."""
        return self._config_prefix

    def flush(self, timeout: float = EXIT_TIMEOUT_SECONDS) -> bool:
        """Wait until what was recorded in this process is in the store; False if *timeout* seconds do not do.

        With ``CHEST_WRITER=off`` it is a worker or another process that stores it; without one, nobody does.
        """
        return self._state.here.flush(timeout)

    def close(self, timeout: float = EXIT_TIMEOUT_SECONDS) -> bool:
        """Store what waits, stop the exporters and close the store on every app, each within *timeout* seconds.

        False means that something was left undone; what waits in a journal on disk is stored by the next
        process. It happens by itself at the end of the process; a request that comes later begins all that again.
        """
        undone = 0
        for app, state in list(self._states.items()):
            undone += not state.close(timeout)
            middleware: Middleware = app.extensions[EXTENSION_KEY]
            middleware.begin_again()
        return undone == 0

    @property
    def _state(self) -> ChestState:
        """The state for the current app, or for the only one outside of an app context."""
        return self._states[self._app()]

    def _app(self) -> Flask:
        if has_app_context():
            app = behind(current_app)
            if app in self._states:
                return app
            raise ConfigurationError(
                f"this chest is not registered on the app {app.name!r}; call chest.init_app(app) there"
            )
        if len(self._states) == 1:
            return next(iter(self._states))
        raise ConfigurationError(
            f"this chest is registered on {len(self._states)} apps; "
            + ("use it within app.app_context()" if self._states else "call chest.init_app(app) first")
        )

    def work(self) -> bool:
        """Do in this process, which is to serve no requests, what the others leave to it, until `close`.

        That is, on each app: to store what waits in the journals of processes that are gone, or whose setting
        ``CHEST_WRITER`` is off; to run the exporters, at once and then at their intervals; and retention. False
        means that there was no thread for something, which another call tries again.
        """
        # Each is asked, also behind one that could not.
        begun = [state.here.work() for state in list(self._states.values())]
        return all(begun)

    def _store_factory(self, app: Flask, settings: Settings, /) -> Callable[[], Store]:
        """Say how the store for *app* is made in each process."""
        store = self._store
        if store is None:
            if settings.uri is not None:
                key = f"{self._config_prefix}_URI"
                return store_from_uri(settings.uri, root=Path(app.root_path), setting=key)
            return store_from_uri("sqlite:///flask_chest.sqlite3", root=Path(app.instance_path))
        if _is_store(store):
            made = cast("Store", store)
            return lambda: made
        if callable(store):
            return store
        raise ConfigurationError(
            f"store must be a Store or a callable that makes one, got a {type(store).__name__}; "
            "a URI belongs into CHEST_URI"
        )


def _question(**asked: object) -> Query:
    """Make a question; raise `ConfigurationError` for a value of the wrong type, which would find nothing."""
    method = asked.get("method")
    if isinstance(method, str):
        asked["method"] = known_method(method)
    try:
        return msgspec.convert(asked, Query)
    except msgspec.ValidationError as exc:
        raise ConfigurationError(f"this cannot be asked for: {exc}") from None


def _unix_nano(moment: datetime | None, name: str) -> int | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime):  # pyright: ignore[reportUnnecessaryIsInstance] - not all users check types
        raise ConfigurationError(f"{name} must be a datetime, as in datetime.now(UTC), got {moment!r}")
    if moment.tzinfo is None:
        raise ConfigurationError(f"{name} must know its time zone, as in datetime.now(UTC); got {moment!r}")
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since_epoch // timedelta(microseconds=1)) * 1_000


def _is_store(given: object) -> bool:
    """Tell a store from what makes one."""
    return not isinstance(given, type) and hasattr(given, "write")


def current_request_id() -> str | None:
    """Give the id under which the current request is recorded; ``None`` outside of one, or without a chest."""
    if not has_request_context():
        return None
    middleware = middleware_of(current_app)
    return middleware.request_id(behind(request)) if middleware is not None else None


def skip() -> None:
    """Record nothing of the current request, in no chest; call it before the response begins."""
    if has_request_context():
        middleware = middleware_of(current_app)
        if middleware is not None:
            middleware.skip(behind(request))


def check_generator(generator: object) -> None:
    """Raise `ConfigurationError` unless *generator* is ``None`` or can be called."""
    if generator is not None and not callable(generator):
        raise ConfigurationError(
            f"request_id_generator must be callable without arguments, got a {type(generator).__name__}"
        )


def chests_of(app: Flask) -> list[FlaskChest]:
    """Return the chests that are registered on *app*, in the order of their registration."""
    middleware = middleware_of(app)
    return [state.chest for state in middleware.states] if middleware is not None else []
