"""``flask chest doctor``: examinations, each of which says in sentences what it found."""

from __future__ import annotations

from collections.abc import Iterator

import click
from flask import Flask, current_app

from flask_chest.cli._group import NO_CHEST, chest_group
from flask_chest.cli.status import report_of
from flask_chest.extension import chests_of, endpoints_of_absent_chests
from flask_chest.protocols import ExporterRegistry
from flask_chest.recorder import behind
from flask_chest.rules import all_rules_of, misplaced_views


@chest_group.command("doctor")
def doctor() -> None:
    """Say in sentences why nothing is recorded or exported, with the way out.

    \b
    Example: flask --app shop chest doctor

    Exits with 1 when something is wrong.
    """  # noqa: D301
    app = behind(current_app)
    findings = [finding for examine in _EXAMINATIONS for finding in examine(app)]
    for finding in findings:
        click.echo(f"- {finding}")
    if findings:
        raise SystemExit(1)
    click.echo("\n".join(["Nothing is wrong.", *_nothing_recorded_yet(app)]))


def _no_chest(app: Flask) -> Iterator[str]:
    if not chests_of(app):
        yield NO_CHEST.format(name=app.name)


def _nothing_tracked(app: Flask) -> Iterator[str]:
    chests = chests_of(app)
    app_wide = any(chest.binding().app_rule is not None or chest.binding().blueprint_rules for chest in chests)
    decorated = any(all_rules_of(view) for view in app.view_functions.values())
    if chests and not app_wide and not decorated and not misplaced_views(app.view_functions):
        yield (
            "No view is decorated with @flask_chest and no chest has tracked_vars, so nothing is recorded: "
            "decorate a view, or pass tracked_vars= to the chest. (A decorator above it that does not use "
            "functools.wraps hides it.)"
        )


def _misplaced(app: Flask) -> Iterator[str]:
    for endpoint in misplaced_views(app.view_functions):
        yield (
            f"@flask_chest stands above @app.route for the endpoint {endpoint!r}, so the route serves the bare "
            "view and nothing is recorded: put @flask_chest below @app.route."
        )


def _absent_chests(app: Flask) -> Iterator[str]:
    for endpoint in endpoints_of_absent_chests(app):
        yield (
            f"@flask_chest of the endpoint {endpoint!r} names in chests= one that is not registered on the app: "
            "call its init_app(app)."
        )


def _store_unreachable(app: Flask) -> Iterator[str]:
    for chest in chests_of(app):
        if (error := report_of(chest).error) is not None:
            yield f"The store does not answer: {error}"


def _nothing_recorded_yet(app: Flask) -> Iterator[str]:
    for chest in chests_of(app):
        if (absent := report_of(chest).absent) is not None:
            yield f"Nothing is recorded yet: {absent}"


def _exports_stuck(app: Flask) -> Iterator[str]:
    for chest in chests_of(app):
        binding = chest.binding()
        if chest.exporter_names and not isinstance(binding.store, ExporterRegistry):
            kind = type(binding.store).__name__
            yield f"{kind} cannot export: it does not implement Outbox and ExporterRegistry."
        if chest.exporter_names and binding.settings.scheduler == "off":
            yield (
                "The chest has exporters, but its scheduler is off: set CHEST_SCHEDULER to auto, "
                "or call chest.run_exports() yourself."
            )
        for exporter in report_of(chest).exporters:
            if exporter.name in chest.exporter_names and exporter.backlog and not exporter.last_success_unix_nano:
                yield (
                    f"The exporter {exporter.name!r} has {exporter.backlog:,} records pending and never "
                    "succeeded: its errors are in the app's log, and chest.run_exports() returns them."
                )


_EXAMINATIONS = (_no_chest, _nothing_tracked, _misplaced, _absent_chests, _store_unreachable, _exports_stuck)
