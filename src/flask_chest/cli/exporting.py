"""``flask chest export`` and ``flask chest rejected``: deliver now, and look at what a target will never take."""

from __future__ import annotations

import click
import msgspec

from flask_chest.cli._formats import printable
from flask_chest.cli._group import chest_group, give_up, moment, the_chests
from flask_chest.errors import CapabilityMissing, StoreAbsent
from flask_chest.export import ExportReport
from flask_chest.extension import FlaskChest
from flask_chest.protocols import Rejection, Rejections


@chest_group.command("export")
@click.argument("name", required=False)
def export(*, name: str | None) -> None:
    """Deliver now what the exporter NAME has not had yet, or all exporters of the app.

    \b
    Example: flask --app shop chest export influxdb

    Exits with 1 when one of them could not deliver all; the rest stays pending.
    """  # noqa: D301 - \b is click's mark for lines to keep
    chests = the_chests()
    known = [each for chest in chests for each in chest.exporter_names]
    if not known:
        raise click.ClickException("The app has no exporter; see docs/delivery.md")
    if name is not None and name not in known:
        raise click.ClickException(f"The app has no exporter {name!r}; it has {', '.join(known)}")
    undone = 0
    for chest in chests:
        for each in chest.exporter_names:
            if name in (None, each):
                report = _deliver(chest, each)
                click.echo(_report_line(report))
                undone += bool(report.error or report.busy or report.pending)
    if undone:
        raise SystemExit(1)


def _deliver(chest: FlaskChest, name: str) -> ExportReport:
    """Run until nothing is pending or no progress is made; give what all runs together did."""
    delivered = filtered = rejected = 0
    while True:
        try:
            (report,) = chest.run_exports(name)
        except CapabilityMissing as exc:
            raise click.ClickException(str(exc)) from exc
        delivered += report.delivered
        filtered += report.filtered
        rejected += report.rejected
        moved = report.delivered + report.filtered + report.rejected
        if report.error is not None or report.busy is not None or not report.pending or not moved:
            return msgspec.structs.replace(report, delivered=delivered, filtered=filtered, rejected=rejected)


def _report_line(report: ExportReport) -> str:
    parts = [f"{report.delivered:,} delivered"]
    parts += [f"{report.filtered:,} left out"] if report.filtered else []
    parts += [f"{report.rejected:,} set aside"] if report.rejected else []
    parts += [f"{report.pending:,} pending"] if report.pending else []
    parts += [f"being delivered by {report.busy}"] if report.busy is not None else []
    parts += [report.error] if report.error is not None else []
    return f"{report.exporter}: {', '.join(parts)}"


@chest_group.group("rejected")
def rejected() -> None:
    """Look at the records that an exporter's target will never take."""


@rejected.command("list")
@click.argument("exporter")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, for programs.")
def list_rejected(*, exporter: str, as_json: bool) -> None:
    """List what was set aside for EXPORTER, oldest first, with the reason.

    \b
    Example: flask --app shop chest rejected list influxdb
    """  # noqa: D301
    for chest in the_chests():
        store = chest.binding().store
        if not isinstance(store, Rejections):
            raise click.ClickException(
                f"{type(store).__name__} sets nothing aside: it does not implement Rejections"
            )
        try:
            for each in store.rejections(exporter):
                click.echo(msgspec.json.encode(each).decode() if as_json else _rejection_line(each))
        except StoreAbsent:
            continue
        except Exception as exc:  # noqa: BLE001 - an own store may raise anything
            give_up(exc)


def _rejection_line(rejection: Rejection) -> str:
    return f"{moment(rejection.time_unix_nano)} {rejection.record_id} {printable(rejection.reason)}"
