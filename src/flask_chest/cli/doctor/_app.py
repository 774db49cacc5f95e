"""What may be wrong with how an app is put together: sentences, each with the way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from flask import Flask

from flask_chest.capture.tracking import all_rules_of, misplaced_views
from flask_chest.cli._group import NO_CHEST
from flask_chest.extension.chest import FlaskChest, chests_of
from flask_chest.extension.middleware import endpoints_of_absent_chests
from flask_chest.extension.settings import MISSPELT

_OLDER = "flask-chest"
_OTEL = "opentelemetry.instrumentation.flask"


def another_distribution(_app: Flask) -> Iterator[str]:
    """Look for the older project on the package index, whose modules lie in the same folder."""
    with suppress(PackageNotFoundError):
        yield (
            f"The distribution {_OLDER!r} {version(_OLDER)} is installed too and has the same import name, so "
            f"one may have replaced files of the other: pip uninstall {_OLDER}, and install this one again."
        )


def no_chest(app: Flask) -> Iterator[str]:
    if not chests_of(app):
        yield NO_CHEST.format(name=app.name)


def misspelt_settings(chest: FlaskChest) -> Iterator[str]:
    for name, meant in chest._state.settings.misspelt.items():
        yield MISSPELT.format(name=name, meant=meant)


def nothing_tracked(app: Flask) -> Iterator[str]:
    chests = chests_of(app)
    app_wide = any(chest._state.app_rule is not None or chest._state.blueprint_rules for chest in chests)
    decorated = any(all_rules_of(view) for view in app.view_functions.values())
    if chests and not app_wide and not decorated and not misplaced_views(app.view_functions):
        yield (
            "No view is decorated with @flask_chest and no chest has tracked_vars, so nothing is recorded: "
            "decorate a view, or pass tracked_vars= to the chest. (A view that calls a decorated function "
            "is recorded, and not seen from here.)"
        )


def misplaced(app: Flask) -> Iterator[str]:
    for endpoint in misplaced_views(app.view_functions):
        yield (
            f"@flask_chest stands above @app.route for the endpoint {endpoint!r}, so the route serves the bare "
            "view and nothing is recorded: put @flask_chest below @app.route."
        )


def absent_chests(app: Flask) -> Iterator[str]:
    for endpoint in endpoints_of_absent_chests(app, chests_of(app)):
        yield (
            f"@flask_chest of the endpoint {endpoint!r} names in chests= one that is not registered on the app: "
            "call its init_app(app)."
        )


def tracing_begins_late(app: Flask) -> Iterator[str]:
    first = [function.__module__ for function in app.before_request_funcs.get(None, [])]
    traced = [number for number, module in enumerate(first) if module.startswith(_OTEL)]
    observed = [chest for chest in chests_of(app) if chest._state.observer is not None]
    if observed and not traced:
        yield (
            "span_attributes is given, but OpenTelemetry does not instrument the app, so there is no span: call "
            "FlaskInstrumentor().instrument_app(app)."
        )
    if traced and traced[0] > 0:
        yield (
            f"{traced[0]} before_request functions run before OpenTelemetry begins the request's span: a request "
            "id that they ask for is not that of a trace. Call FlaskInstrumentor().instrument_app(app) before "
            "they are registered."
        )
