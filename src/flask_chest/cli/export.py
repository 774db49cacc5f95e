"""``flask chest export`` and ``flask chest rejected``: deliver now, and look at what a target will never take."""

from __future__ import annotations

from contextlib import suppress
from datetime import tzinfo

import click
import msgspec

from flask_chest.background.export_run import ExportReport
from flask_chest.cli._group import Failure, answered_report, asking_store, chest_group, the_chests
from flask_chest.cli._options import check_span, json_option, since_option, until_option, zone_option
from flask_chest.cli._output import say, say_json, say_progress
from flask_chest.cli._times import at, format_time
from flask_chest.errors import StoreAbsent
from flask_chest.extension.chest import FlaskChest
from flask_chest.protocols import Rejection, Rejections


@chest_group.command("export")
@click.argument("name", required=False)
@since_option("Also deliver again records")
@zone_option
@click.option("--all", "everything", is_flag=True, help="Also deliver again all that is kept.")
def export(*, name: str | None, since: int | None, zone: tzinfo, everything: bool) -> None:  # noqa: ARG001 - times are read in the zone
    """Deliver now what the exporter NAME has not had yet, or all exporters of the app.

    \b
    Example: flask --app shop chest export influxdb
    Example: flask --app shop chest export influxdb --since 2h

    Exits with 1 if one of them could not deliver everything; the rest stays pending.
    """  # noqa: D301 - \b is click's mark for lines to keep
    undone = 0
    for chest, each in _chosen(name):
        report = _deliver(chest, each)
        undone += _tell(report)
        if (everything or since is not None) and not report.error:
            undone += _replay(chest, each, since=since, until=None)
    if undone:
        raise SystemExit(1)


@chest_group.command("replay")
@click.argument("name")
@since_option("Deliver records", required=True)
@until_option("Deliver records")
@zone_option
def replay(*, name: str, since: int, until: int | None, zone: tzinfo) -> None:  # noqa: ARG001 - times are read in the zone
    """Deliver again, by the exporter NAME, what it has had: for a target that has lost something.

    A target that recognises record ids keeps each record once.

    \b
    Example: flask --app shop chest replay influxdb --since 2h
    """  # noqa: D301
    check_span(since, until)
    ((chest, each),) = _chosen(name)
    if _replay(chest, each, since=since, until=until):
        raise SystemExit(1)


def _chosen(name: str | None) -> list[tuple[FlaskChest, str]]:
    known = [(chest, each) for chest in the_chests() for each in chest.exporter_names]
    if not known:
        raise Failure("The app has no exporter: add one with chest.add_exporter")
    chosen = [(chest, each) for chest, each in known if name in (None, each)]
    if not chosen:
        names = ", ".join(each for _, each in known)
        raise Failure(f"The app has no exporter {name!r}; it has {names}")
    return chosen


def _tell(report: ExportReport, *, again: bool = False) -> bool:
    """Print what was done; return whether something is left undone."""
    say(_report_line(report, again=again))
    return bool(report.error or report.busy or report.pending)


def _replay(chest: FlaskChest, name: str, *, since: int | None, until: int | None) -> bool:
    begin, end = (None if unix_nano is None else at(unix_nano) for unix_nano in (since, until))
    with asking_store():
        report = chest.replay(name, since=begin, until=end)
    return _tell(report, again=True)


def _deliver(chest: FlaskChest, name: str) -> ExportReport:
    """Run until nothing is pending or no progress is made; return what all runs together did."""
    delivered = filtered = rejected = 0
    while True:
        (report,) = chest.run_exports(name)
        delivered += report.delivered
        filtered += report.filtered
        rejected += report.rejected
        moved = report.delivered + report.filtered + report.rejected
        say_progress(f"{name}: {delivered:,} delivered")
        if report.error is not None or report.busy is not None or not report.pending or not moved:
            return msgspec.structs.replace(report, delivered=delivered, filtered=filtered, rejected=rejected)


def _report_line(report: ExportReport, *, again: bool = False) -> str:
    parts = [f"{report.delivered:,} delivered{' again' if again else ''}"]
    parts += [f"{report.filtered:,} left out"] if report.filtered else []
    parts += [f"{report.rejected:,} {'refused' if again else 'set aside'}"] if report.rejected else []
    parts += [f"{report.pending:,} pending"] if report.pending else []
    parts += [f"being delivered by {report.busy}"] if report.busy is not None else []
    parts += [report.error] if report.error is not None else []
    return f"{report.exporter}: {', '.join(parts)}"


@chest_group.group("rejected")
def rejected() -> None:
    """Manage dead letters: records that an exporter's target will never take."""


@rejected.command("list")
@click.argument("exporter")
@zone_option
@json_option
def list_rejected(*, exporter: str, zone: tzinfo, as_json: bool) -> None:
    """List the records that were set aside for EXPORTER, oldest first, with the reason.

    \b
    Example: flask --app shop chest rejected list influxdb
    """  # noqa: D301
    chests = the_chests()
    if not any(exporter in _known_exporters(chest) for chest in chests):
        raise Failure(f"No chest knows an exporter {exporter!r}; see: flask chest exporters list")
    for chest in chests:
        store = chest._state.here.store
        if not isinstance(store, Rejections):
            raise Failure(f"{type(store).__name__} keeps no dead letters: it does not implement Rejections")
        with suppress(StoreAbsent), asking_store():
            for each in store.rejections(exporter):
                say_json(each) if as_json else say(_rejection_line(each, zone))


@rejected.command("retry")
@click.argument("exporter")
@click.argument("record_ids", metavar="[ID]...", nargs=-1)
def retry_rejected(*, exporter: str, record_ids: tuple[str, ...]) -> None:
    """Deliver again what was set aside for EXPORTER: the records with these IDs, or all.

    What is delivered is no longer set aside.

    \b
    Example: flask --app shop chest rejected retry influxdb

    Exits with 1 if some are refused again.
    """  # noqa: D301
    ((chest, name),) = _chosen(exporter)
    with asking_store():
        report = chest.retry_rejected(name, record_ids)
    undone = _tell(report, again=True)
    if report.rejected:
        say(f"Why they are refused: flask chest rejected list {name}", err=True)
    if undone or report.rejected:
        raise SystemExit(1)


@rejected.command("drop")
@click.argument("exporter")
@click.argument("record_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Forget all that was set aside.")
def drop_rejected(*, exporter: str, record_ids: tuple[str, ...], everything: bool) -> None:
    """Forget that the records of these IDs were set aside for EXPORTER; the store keeps the records.

    \b
    Example: flask --app shop chest rejected drop influxdb --all
    """  # noqa: D301
    if bool(record_ids) == everything:
        raise click.UsageError("give the ids of records, or --all")
    count = 0
    for chest in the_chests():
        with asking_store():
            count += chest.drop_rejected(exporter, record_ids)
    say(f"{count:,} forgotten.")


def _known_exporters(chest: FlaskChest) -> set[str]:
    """Return the names of the exporters of *chest*, and of those that its store knows."""
    return {*chest.exporter_names, *(exporter.name for exporter in answered_report(chest).exporters)}


def _rejection_line(rejection: Rejection, zone: tzinfo) -> str:
    return f"{format_time(rejection.time_unix_nano, zone)} {rejection.record_id} {rejection.reason}"
