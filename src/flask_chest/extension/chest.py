"""`FlaskChest`: the extension, bound to one store."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Unpack, cast
from weakref import WeakKeyDictionary

from flask import Blueprint, Flask, current_app, has_app_context, has_request_context, request

from flask_chest.background.stats import ChestStats, Health
from flask_chest.capture.explain import explanations
from flask_chest.capture.names import Computed, Rename, TrackedNames, TrackedVars
from flask_chest.capture.rules import BlueprintRule, all_rules_of, misplaced_views
from flask_chest.errors import ConfigurationError
from flask_chest.extension.delivering import ChestDeliverer
from flask_chest.extension.endings import EXIT_TIMEOUT_SECONDS, close_at_exit
from flask_chest.extension.journals import Place
from flask_chest.extension.middleware import AppRecorder, behind
from flask_chest.extension.route_plan import Plan
from flask_chest.extension.settings import MISSPELT, SettingOptions, Settings, check_options
from flask_chest.extension.state import Binding, logger
from flask_chest.protocols import RequestIdGenerator, Store, VariablesObserver
from flask_chest.record import Record
from flask_chest.stores import store_from_uri

EXTENSION_KEY = "flask_chest"


class FlaskChest(ChestDeliverer):
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
        self._jobs_for_all = {}
        self._blueprint_rules: list[BlueprintRule] = []
        self._bindings = WeakKeyDictionary()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Register this chest on *app*; raise `ConfigurationError` for a wrong setting, or the second time."""
        if app in self._bindings:
            raise ConfigurationError(f"this chest is registered on the app {app.name!r} already; use it as it is")
        settings = Settings.load(
            prefix=self._config_prefix, given=self._given, config=app.config, environ=os.environ
        )
        for name, meant in settings.misspelt.items():
            logger.warning(MISSPELT.format(name=name, meant=meant))
        binding = Binding(
            chest=self,
            settings=settings,
            make_store=self._store_factory(app, settings),
            store_is_lent=_is_store(self._store),
            request_id_generator=self._request_id_generator,
            observer=self._span_attributes,
            blueprint_rules=self._blueprint_rules,
            jobs={name: job_for(app.config) for name, job_for in self._jobs_for_all.items()},
            place=Place(
                root=Path(app.root_path),
                default=Path(app.instance_path) / EXTENSION_KEY,
                chest=self.name,
                app=app.import_name,
            ),
        )
        recorder: AppRecorder | None = app.extensions.get(EXTENSION_KEY)
        if recorder is None:
            recorder = app.extensions[EXTENSION_KEY] = AppRecorder(app, at_start=_starter(app))
        recorder.add(binding)
        self._bindings[app] = binding

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
        for app in list(self._bindings):
            recorder: AppRecorder = app.extensions[EXTENSION_KEY]
            recorder.forget_plans()

    def stats(self) -> ChestStats:
        """Count what happened to records in this process."""
        return self.binding().stats()

    def health(self) -> Health:
        """Tell whether records are lost, in this process or those beside it, without asking the store.

        To alert on, and never to route on; see `health_blueprint`.
        """
        return self.binding().health()

    def stats_of_apps(self) -> Iterator[tuple[str, ChestStats]]:
        """Count that for each app that this chest is registered on, with the app's name."""
        return ((app.name, binding.stats()) for app, binding in list(self._bindings.items()))

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
        return self.binding().flush(timeout)

    def close(self, timeout: float = EXIT_TIMEOUT_SECONDS) -> bool:
        """Store what waits, stop the exporters and close the store on every app, each within *timeout* seconds.

        False means that something was left undone; what waits in a journal on disk is stored by the next
        process. It happens by itself at the end of the process; a request that comes later begins all that again.
        """
        undone = 0
        for app, binding in list(self._bindings.items()):
            undone += not binding.close(timeout)
            recorder: AppRecorder = app.extensions[EXTENSION_KEY]
            recorder.begin_anew()
        return undone == 0

    def explain(self, record: Record) -> list[str]:
        """Say which rules hid or cut what in *record*, in sentences that hold no value.

        What a rule dropped has left no trace: only those variables are told of that are asked for by name.
        """
        app = self._app()
        binding = self._bindings[app]
        view = app.view_functions.get(record.endpoint) if record.endpoint is not None else None
        plan = Plan.make([binding], app, view, endpoint=record.endpoint, route=record.route, method=record.method)
        asked = plan.asked[0].capture.variables if plan.asked else ()
        return list(explanations(record.variables, binding.value_rules, asked))

    def binding(self) -> Binding:
        """Give the state for the current app, or for the only one outside of an app context."""
        return self._bindings[self._app()]

    def bindings(self) -> Sequence[Binding]:
        """Give the state for each app."""
        return list(self._bindings.values())

    def _app(self) -> Flask:
        if has_app_context():
            app = behind(current_app)
            if app in self._bindings:
                return app
            raise ConfigurationError(
                f"this chest is not registered on the app {app.name!r}; call chest.init_app(app) there"
            )
        if len(self._bindings) == 1:
            return next(iter(self._bindings))
        raise ConfigurationError(
            f"this chest is registered on {len(self._bindings)} apps; "
            + ("use it within app.app_context()" if self._bindings else "call chest.init_app(app) first")
        )

    def start(self, app: Flask) -> None:
        """Begin in this process: schedule the exporters. The first request does it by itself.

        Where there is no thread for that, the next request tries it again.
        """
        binding = self._bindings[app]
        close_at_exit(binding)
        if not binding.start(testing=app.testing):
            recorder: AppRecorder = app.extensions[EXTENSION_KEY]
            recorder.begin_anew()

    def work(self) -> bool:
        """Do in this process, which is to serve no requests, what the others leave to it, until `close`.

        That is, on each app: to store what waits in the journals of processes that are gone, or whose setting
        ``CHEST_WRITER`` is off; to run the exporters, at once and then at their intervals; and retention. False
        means that there was no thread for something, which another call tries again.
        """
        begun = [binding.work() for binding in self.bindings()]  # each, also behind one that could not
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


def _is_store(given: object) -> bool:
    """Tell a store from what makes one."""
    return not isinstance(given, type) and hasattr(given, "write")


def current_request_id() -> str | None:
    """Give the id under which the current request is recorded; ``None`` outside of one, or without a chest."""
    if not has_request_context():
        return None
    recorder: AppRecorder | None = current_app.extensions.get(EXTENSION_KEY)
    return recorder.request_id(behind(request)) if recorder is not None else None


def skip() -> None:
    """Record nothing of the current request, in no chest; call it before the response begins."""
    if has_request_context():
        recorder: AppRecorder | None = current_app.extensions.get(EXTENSION_KEY)
        if recorder is not None:
            recorder.skip(behind(request))


def check_generator(generator: object) -> None:
    """Raise `ConfigurationError` unless *generator* is ``None`` or can be called."""
    if generator is not None and not callable(generator):
        raise ConfigurationError(
            f"request_id_generator must be callable without arguments, got a {type(generator).__name__}"
        )


def chests_of(app: Flask) -> list[FlaskChest]:
    """List the chests that are registered on *app*, in that order."""
    recorder: AppRecorder | None = app.extensions.get(EXTENSION_KEY)
    bindings = recorder.bindings if recorder is not None else []
    return [binding.chest for binding in bindings if isinstance(binding.chest, FlaskChest)]


def endpoints_of_absent_chests(app: Flask) -> list[str]:
    """List the endpoints whose rules name a chest that is not registered on *app*."""
    registered = chests_of(app)
    return sorted(
        endpoint
        for endpoint, view in app.view_functions.items()
        if any(chest not in registered for rule in all_rules_of(view) for chest in rule.chests or ())
    )


def _starter(app: Flask) -> Callable[[], None]:
    app_reference = weakref.ref(app)
    warned: set[int] = set()

    def start() -> None:
        app = app_reference()
        if app is None:
            return
        if os.getpid() not in warned:
            warned.add(os.getpid())
            _warn_of_rules(app)
        for chest in chests_of(app):
            chest.start(app)

    return start


def _warn_of_rules(app: Flask) -> None:
    for endpoint in misplaced_views(app.view_functions):
        logger.warning(
            "@flask_chest stands above @app.route for the endpoint %r and has no effect there; "
            "put it below the route",
            endpoint,
        )
    for endpoint in endpoints_of_absent_chests(app):
        logger.warning(
            "@flask_chest of the endpoint %r names in chests= one that is not registered on the app; "
            "call its init_app(app)",
            endpoint,
        )
