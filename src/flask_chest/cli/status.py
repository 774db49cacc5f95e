"""``flask chest status``."""

from __future__ import annotations

from collections.abc import Iterator

import click
import msgspec

from flask_chest.cli._group import chest_group, moment, the_chests
from flask_chest.errors import StoreAbsent
from flask_chest.extension import FlaskChest
from flask_chest.protocols import ExporterRegistry, ExporterStatus, StoreStatus
from flask_chest.stats import describe


@chest_group.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
def status(*, as_json: bool) -> None:
    """Show what each chest of the app holds, and where its exporters stand.

    \b
    Example: flask --app shop chest status --json

    Exits with 1 when a store does not answer.
    """  # noqa: D301 - \b is click's mark for lines to keep
    reports = [report_of(chest) for chest in the_chests()]
    if as_json:
        click.echo(msgspec.json.encode({"chests": reports}).decode())
    else:
        for report in reports:
            click.echo("\n".join(_status_lines(report)))
    if any(report.error is not None for report in reports):
        raise SystemExit(1)


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What there is to say of one chest: its store and exporters, or why they cannot be seen."""

    store: StoreStatus | None = None
    exporters: list[ExporterStatus] = []
    absent: str | None = None
    error: str | None = None


def report_of(chest: FlaskChest) -> Report:
    """Ask the store of *chest*, which it does not create."""
    try:
        store = chest.binding().store
        found = store.status()
        exporters = list(store.exporters()) if isinstance(store, ExporterRegistry) else []
    except StoreAbsent as exc:
        return Report(absent=str(exc))
    except Exception as exc:  # noqa: BLE001 - an own store may raise anything, and its text may hold a secret
        return Report(error=describe(exc).removeprefix(": "))
    return Report(store=found, exporters=exporters)


def _status_lines(report: Report) -> Iterator[str]:
    if report.store is None:
        yield f"no records yet: {report.absent}" if report.error is None else f"not available: {report.error}"
        return
    found = report.store
    size = "" if found.size_bytes is None else f", {found.size_bytes / 1024:,.0f} KiB"
    yield f"{found.description}: {found.records:,} records{size}"
    if found.oldest_unix_nano is not None and found.newest_unix_nano is not None:
        yield f"  from {moment(found.oldest_unix_nano)} to {moment(found.newest_unix_nano)}"
    for exporter in report.exporters:
        yield f"  {exporter_line(exporter)}"


def exporter_line(exporter: ExporterStatus) -> str:
    """Say where *exporter* stands."""
    success = "never" if exporter.last_success_unix_nano is None else moment(exporter.last_success_unix_nano)
    holder = f", being delivered by {exporter.holder}" if exporter.holder else ""
    return (
        f"exporter {exporter.name}: {exporter.backlog:,} pending, {exporter.rejected:,} set aside, "
        f"last success {success}{holder}"
    )
