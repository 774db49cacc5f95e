"""``flask chest exporters``: who is known to the stores, and who is gone."""

from __future__ import annotations

from contextlib import suppress
from datetime import tzinfo

import click

from flask_chest.cli._group import Failure, answered_report, asking_store, chest_group, the_chests
from flask_chest.cli._options import json_option, zone_option
from flask_chest.cli._output import say, say_json
from flask_chest.cli.status import exporter_line, not_run_line
from flask_chest.errors import StoreAbsent
from flask_chest.protocols import ExporterRegistry


@chest_group.group("exporters")
def exporters() -> None:
    """List the exporters that the stores know, or remove one that is gone."""


@exporters.command("list")
@zone_option
@json_option
def list_exporters(*, zone: tzinfo, as_json: bool) -> None:
    """Show how far each exporter is, also those that the app no longer has.

    \b
    Example: flask --app shop chest exporters list

    Exits with 1 if a store does not answer.
    """  # noqa: D301
    reports = [(chest, answered_report(chest)) for chest in the_chests()]
    if as_json:
        known = [exporter for _, report in reports for exporter in report.exporters]
        say_json({"exporters": known})
        return
    for chest, report in reports:
        for exporter in report.exporters:
            gone = "" if exporter.name in chest.exporter_names else " (the app no longer has it)"
            say(f"{exporter_line(exporter, zone)}{gone}")
        for name in report.not_run:
            say(not_run_line(name))
    if not any(report.exporters or report.not_run for _, report in reports):
        say("The chest has no exporter: add one with chest.add_exporter.", err=True)


@exporters.command("remove")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also remove one that the app still has: it begins again.")
def remove_exporter(name: str, *, force: bool) -> None:
    """Forget the exporter NAME: its place, and what was set aside for it.

    \b
    Example: flask --app shop chest exporters remove influxdb
    """  # noqa: D301
    removed = 0
    for chest in the_chests():
        if name in chest.exporter_names and not force:
            raise Failure(
                f"The app still has the exporter {name!r}, which would deliver everything again: "
                "take it out of the app first, or use --force."
            )
        store = chest._state.here.store
        with suppress(StoreAbsent), asking_store():
            removed += isinstance(store, ExporterRegistry) and store.drop(name)
    if not removed:
        raise Failure(f"No store knows an exporter {name!r}; see: flask chest exporters list")
    say(f"The exporter {name!r} is forgotten.")
