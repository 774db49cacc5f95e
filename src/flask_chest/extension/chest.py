"""`FlaskChest`: the class that users hold.

It checks what it is asked and passes it on; what it knows of an app is in a `ChestState`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Unpack, overload
from weakref import WeakKeyDictionary

from flask import Blueprint, Flask, current_app, has_app_context, has_request_context, request

from flask_chest._process import is_made, maker_of
from flask_chest.background.export_run import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_LEASE,
    ExportReport,
    RecordFilter,
)
from flask_chest.background.exports import ExportJob, named_maker
from flask_chest.background.retention import RetentionReport
from flask_chest.background.stats import ChestStats, Health
from flask_chest.capture.explain import explanations
from flask_chest.capture.tracking import BlueprintRule, Computed, Rename, TrackedNames, TrackedVars
from flask_chest.declared import Typed, V
from flask_chest.errors import CapabilityMissing, ConfigurationError, describe
from flask_chest.extension.journal_place import JournalPlace
from flask_chest.extension.middleware import EXTENSION_KEY, Middleware, behind, middleware_of
from flask_chest.extension.questions import (
    DEFAULT_TIMEOUT,
    Filters,
    RecordFilters,
    checked_timeout,
    query_of,
    without_one_of,
)
from flask_chest.extension.route_plan import RoutePlan
from flask_chest.extension.settings import MISSPELT, SettingOptions, Settings, check_options
from flask_chest.extension.shutdown import EXIT_TIMEOUT_SECONDS
from flask_chest.extension.state import ChestState, logger
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
from flask_chest.record import DEFAULT_TOP, Record, Where
from flask_chest.stores import store_from_uri

if TYPE_CHECKING:
    import pyarrow

    from flask_chest.aggregates import Answer, Column, Measure, Variable
    from flask_chest.extension.spans import Every

DEFAULT_INTERVAL = timedelta(minutes=5)
READ_PATIENCE_SECONDS = 2.0
"""Seconds for which a query waits for records that this process has just made."""


class FlaskChest:
    """Keeps chosen variables of ``flask.g`` of each request in a store.

    A request appends its record to a journal on disk, and a thread of the process moves it on to the store.

    *store* is a `Store`, or a callable that makes one for each app and process. Without it the setting
    ``CHEST_URI`` chooses one (``sqlite:///relative/to/root_path.db``, ``memory:``); the default is SQLite in the
    app's instance folder.

    *tracked_vars* and *request_id_generator* apply to every route of the app; without *tracked_vars* only views
    decorated by `flask_chest.decorator.flask_chest` are recorded, and the blueprints given to `track`.
    *span_attributes* (`flask_chest.otel.SpanAttributes`) copies the variables onto the request's OpenTelemetry
    span. *config_prefix* replaces ``CHEST`` in the names of settings, for a second chest on one app.
    All other options are settings, which docs/settings.md lists.

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
        """Register this chest on *app*.

        Raises `ConfigurationError` for a wrong setting, or if it is registered there already.
        """
        if app in self._states:
            raise ConfigurationError(f"this chest is already registered on the app {app.name!r}")
        settings = Settings.load(
            prefix=self._config_prefix, given=self._given, config=app.config, environ=os.environ
        )
        for name, meant in settings.misspelt.items():
            logger.warning(MISSPELT.format(name=name, meant=meant))
        state = ChestState(
            chest=self,
            app=app,
            settings=settings,
            make_store=self._store_factory(app, settings),
            store_is_lent=is_made(self._store, "write"),
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

    @overload
    def query(self, /, **filters: Unpack[Filters]) -> list[Record]: ...

    @overload
    def query(self, declared: type[V], /, **filters: Unpack[Filters]) -> list[Typed[V]]: ...

    def query(
        self, declared: type[V] | None = None, /, **filters: Unpack[Filters]
    ) -> list[Record] | list[Typed[V]]:
        """Return the records that match every one of the `Filters`, newest first, at most 100 without a *limit*.

        With a class of *declared* variables, return `Typed` rows; those of other classes and routes are among
        them unless filtered out. Records that this process has just made are waited for, up to two seconds.
        Raises `QueryTimeout` when the store has worked on the answer for *timeout*, 30 seconds unless said or
        ``None``, and another `StoreError` when it cannot answer.
        """
        found = self._records({"limit": 100, **filters})
        return list(found) if declared is None else [Typed(record, declared) for record in found]

    @overload
    def iter(self, /, **filters: Unpack[Filters]) -> Iterator[Record]: ...

    @overload
    def iter(self, declared: type[V], /, **filters: Unpack[Filters]) -> Iterator[Typed[V]]: ...

    def iter(
        self, declared: type[V] | None = None, /, **filters: Unpack[Filters]
    ) -> Iterator[Record] | Iterator[Typed[V]]:
        """Iterate over what `query` returns, fetched on the way, without a limit unless you set one."""
        found = self._records(filters)
        return found if declared is None else (Typed(record, declared) for record in found)

    def _records(self, filters: Filters) -> Iterator[Record]:
        timeout = checked_timeout(filters.pop("timeout", DEFAULT_TIMEOUT))
        question = query_of(filters)
        state = self._state
        self._await_own_records()
        return iter(state.here.open_store().query(question, timeout=timeout))

    def to_arrow(self, **filters: Unpack[Filters]) -> pyarrow.RecordBatchReader:
        """Return what `iter` yields as a stream of Arrow's batches, 50,000 records in each, newest first.

        polars, DuckDB and pandas take it as it is. There is a column for each field of a record, times being
        ``timestamp[ns, UTC]`` and ``duration[ns]``; one for each variable of the declared classes, null where it
        is absent or not as declared; all other variables are JSON in the column ``variables``. Needs the extra
        ``arrow``.
        """
        from flask_chest.extension import arrow  # noqa: PLC0415 - an extra

        timeout = checked_timeout(filters.pop("timeout", DEFAULT_TIMEOUT))
        question = query_of(filters)
        state = self._state
        kinds = arrow.kinds_of(state.derived().views)
        self._await_own_records()
        return arrow.reader(arrow.columns_of(state.here.open_store(), question, timeout=timeout), kinds)

    def aggregate(
        self,
        *measures: Measure[object],
        by: Column | Variable | Sequence[Column | Variable] = (),
        every: Every | None = None,
        top: int = DEFAULT_TOP,
        timeout: timedelta | None = DEFAULT_TIMEOUT,
        **filters: Unpack[RecordFilters],
    ) -> Answer:
        """Return what *measures* give for all records that match, computed in the database.

        With *by*, columns of the record or variables, also for each group of records that have them in common:
        the *top* ones by the first measure, all others together, and all. With *every*, a time or ``"auto"``,
        also for each span of time from *since*, which it needs, until *until*, or else now; spans of days begin
        at midnight in the zone of *since*. Records of a sample count for those that it left out, unless a measure
        is not weighted. ``row[measure]`` is the value of a measure in a row of the answer.

        Records that this process has just made are waited for, up to two seconds. Raises `QueryTimeout` after
        *timeout*, and `CapabilityMissing` if the store cannot aggregate.
        """
        since = filters.get("since")
        from flask_chest.extension.aggregation import aggregate_query, ask  # noqa: PLC0415 - few processes ask

        query = aggregate_query(
            measures,
            query=query_of(filters),
            by=by if isinstance(by, Sequence) and not isinstance(by, str) else (by,),
            every=every,
            zone=since.tzinfo if since is not None else UTC,
            top=top,
        )
        store = self._state.here.open_store()
        self._await_own_records()
        return ask(store, query, timeout=checked_timeout(timeout))

    def trace_link(self, record: Record) -> str | None:
        """Return the URL of the trace of *record*, or ``None`` if it has none or ``trace_url`` is not set."""
        template = self._state.settings.trace_url
        if template is None or record.trace_id is None:
            return None
        return template.replace("{trace_id}", record.trace_id)

    def forget(self, *, where: Where, request_id: str | None = None) -> int:
        """Delete every record that matches, for good, and return how many were in the store.

        *where* names variables and their exact values, as for `query`; at least one, or a *request_id*. Matching
        records that wait in a journal of any process are never stored, nor those of requests that begin up to a
        minute later, since a clock may be ahead. Those that the store refused are deleted from this machine's
        journal. What exporters have delivered already has to be deleted there. Raises `CapabilityMissing` if the
        store cannot delete.
        """
        if not where and request_id is None:
            raise ConfigurationError('forget() needs where= or request_id=, as in where={"user_id": 7}')
        store = self._state.here.open_store()
        if not isinstance(store, Erasure):
            raise CapabilityMissing(store, "Erasure")
        self._await_own_records()
        count = 0
        for question in without_one_of(query_of({"where": where, "request_id": request_id})):
            count += store.forget(question)
            for state in list(self._states.values()):
                forget_refused(state.here.journal_config.folder, question)
        return count

    def _await_own_records(self) -> None:
        """Wait a little until what this process recorded is stored, for every app: they may share the store."""
        deadline = time.monotonic() + READ_PATIENCE_SECONDS
        for state in list(self._states.values()):
            state.here.flush(max(0.0, deadline - time.monotonic()))

    def explain(self, record: Record) -> list[str]:
        """Return sentences about what rules hid or cut in *record*; none of them contains a value.

        A variable that a rule dropped leaves no trace, so it is mentioned only if it is tracked by its name.
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

        It delivers the records of *app*, on which the chest must be registered, or else those of every app, now
        and later. A callable is called for an exporter in each process, and needs a *name*.
        Delivery continues where it ended under this name, in whichever process: under another name it begins at
        *start_at* again. When a process is killed in the middle of a delivery, another one repeats it once the
        *lease* has expired. *filter* returns whether a record is delivered; *transform* returns the record to
        deliver in its place, with the same id, or ``None`` for none. A record at which one of the two raises is
        set aside. Raises `ConfigurationError` for a name that is taken.
        """
        job_name, make = named_maker(exporter, name)
        job = ExportJob(
            name=job_name,
            make=make,
            interval=interval,
            batch_size=batch_size,
            lease=lease,
            start_at=start_at,
            record_filter=RecordFilter(wanted=filter, transform=transform),
        )
        self.add_job(job.name, lambda _: job, app=app)

    def add_job(
        self, name: str, job_for: Callable[[Mapping[str, object]], ExportJob], *, app: Flask | None = None
    ) -> None:
        """Add the export job that *job_for* makes from the configuration of *app*, or from that of every app."""
        if app is not None and app not in self._states:
            raise ConfigurationError(
                f"this chest is not registered on the app {app.name!r}; call chest.init_app(app) first"
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
        """Run the exporters of these *names*, or all of them, once in this thread, and return a report for each.

        Raises `CapabilityMissing` if the store has no outbox, and `ConfigurationError` for an unknown name.
        """
        state = self._state
        jobs = [self._job(name) for name in names or state.jobs]
        self._await_own_records()
        return [state.here.exports.run(job) for job in jobs]

    def replay(self, name: str, *, since: datetime | None = None, until: datetime | None = None) -> ExportReport:
        """Deliver the records of the requests from *since* until before *until* again by the exporter *name*.

        For a target that has lost something; it recognises what it still has by the records' ids. The place where
        the exporter continues does not change, and records that it refuses are counted and not set aside. An
        error ends the run and is in the report.
        """
        job = self._job(name)
        found = self.iter(since=since, until=until)
        return self._state.here.exports.redeliver(job, found, settle=lambda _: None)

    def retry_rejected(self, name: str, record_ids: Sequence[str] = ()) -> ExportReport:
        """Deliver again what was set aside for the exporter *name*: the records of these ids, or all.

        What is delivered now, or filtered out, is no longer set aside; what is refused again stays so.
        """
        job, store = self._job(name), self._rejections()
        ids = self._set_aside(store, name, record_ids)
        records = (record for each in ids for record in self.iter(id=each))
        return self._state.here.exports.redeliver(
            job, records, settle=lambda batch: store.discard(name, [*batch.delivered, *batch.filtered])
        )

    def drop_rejected(self, name: str, record_ids: Sequence[str] = ()) -> int:
        """Drop what was set aside for the exporter *name*, the records of these ids or all; return how many."""
        store = self._rejections()
        return store.discard(name, self._set_aside(store, name, record_ids))

    def export_obstacle(self, name: str) -> str | None:
        """Return why the exporter *name* cannot deliver, as far as it knows without a record, or ``None``."""
        job = self._job(name)
        try:
            self._state.here.exports.try_out(job)
        except Exception as exc:  # noqa: BLE001 - a third-party exporter, or what makes it, may raise anything
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

    def run_retention(self) -> RetentionReport:
        """Delete what exceeds ``CHEST_RETENTION`` or ``CHEST_RETENTION_CAP``, once, in this thread.

        Raises `CapabilityMissing` if the store cannot delete by age and number, and what the store raises.
        """
        return self._state.here.run_retention()

    @property
    def exporter_names(self) -> tuple[str, ...]:
        """Names of the current app's exporters; without a current app, of those that every app has."""
        try:
            return tuple(self._state.jobs)
        except ConfigurationError:
            return tuple(self._jobs_for_all)

    def stats(self) -> ChestStats:
        """Return how many records this process captured, stored, delivered and lost."""
        return self._state.here.stats()

    def health(self) -> Health:
        """Return whether records are being lost, in this process or those beside it, without asking the store.

        For alerts, never for routing; see `flask_chest.health.health_blueprint`.
        """
        return self._state.here.health()

    def stats_of_apps(self) -> Iterator[tuple[str, ChestStats]]:
        """Iterate over the apps that this chest is registered on: the name of each, and its `stats`."""
        return ((app.name, state.here.stats()) for app, state in list(self._states.items()))

    @property
    def name(self) -> str:
        """Name that distinguishes this chest from others on an app: the prefix of its settings in lower case."""
        return self._config_prefix.lower()

    @property
    def config_prefix(self) -> str:
        """First part of the names of its settings."""
        return self._config_prefix

    def flush(self, timeout: float = EXIT_TIMEOUT_SECONDS) -> bool:
        """Wait until what this process recorded is stored; return False if that takes over *timeout* seconds.

        With ``CHEST_WRITER=off`` a worker or another process has to store it; without one, nothing is stored.
        """
        return self._state.here.flush(timeout)

    def close(self, timeout: float = EXIT_TIMEOUT_SECONDS) -> bool:
        """Store what waits, stop the exporters and close the store, within *timeout* seconds for each app.

        Return False if something was left undone; what waits in a journal on disk is stored by the next process.
        The end of the process closes a chest by itself. A request after that starts everything again.
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
        """Make this process, which serves no requests, a worker for those that do, until `close`.

        For each app it stores what waits in the journals of processes that are gone, or that have
        ``CHEST_WRITER=off``; it runs the exporters, at once and then at their intervals, and retention. Return
        False if a thread could not be started; another call tries it again.
        """
        # Every app, also after one that could not start.
        begun = [state.here.work() for state in list(self._states.values())]
        return all(begun)

    def _store_factory(self, app: Flask, settings: Settings, /) -> Callable[[], Store]:
        """Return what makes the store for *app* in each process."""
        if self._store is None and settings.uri is not None:
            key = f"{self._config_prefix}_URI"
            return store_from_uri(
                settings.uri, root=Path(app.root_path), setting=key, partition=settings.partition
            )
        check_unparted(settings)
        if self._store is None:
            return store_from_uri("sqlite:///flask_chest.sqlite3", root=Path(app.instance_path))
        hint = "; an address belongs in CHEST_URI"
        return maker_of(self._store, "write", setting="store", kind="a Store", hint=hint)


def current_request_id() -> str | None:
    """Return the id of the current request, or ``None`` outside of a request or if no chest records it."""
    if not has_request_context():
        return None
    middleware = middleware_of(current_app)
    return middleware.request_id(behind(request)) if middleware is not None else None


def skip() -> None:
    """Let no chest record the current request; call it before the response begins."""
    if has_request_context():
        middleware = middleware_of(current_app)
        if middleware is not None:
            middleware.skip(behind(request))


def check_unparted(settings: Settings) -> None:
    """Raise `ConfigurationError` if *settings* ask for partitions, which the store of a chest has not got."""
    if settings.partition is not None:
        raise ConfigurationError(
            f"partition is {settings.partition!r}, which is for PostgreSQL, MySQL and MariaDB, chosen by their "
            'classes or by CHEST_URI; a store of your own takes it as in PostgreSQLStore(…, partition="day")'
        )


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
