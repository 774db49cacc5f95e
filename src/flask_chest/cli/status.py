"""``flask chest status``."""

from __future__ import annotations

from collections.abc import Iterator

import click
import msgspec

from flask_chest.cli._formats import amount, say, say_json
from flask_chest.cli._group import chest_group, moment, the_chests
from flask_chest.cli.journals import refused_by_store, segments_of
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
        say_json({"chests": reports})
    else:
        for report in reports:
            say(*_status_lines(report))
    if any(report.error is not None for report in reports):
        raise SystemExit(1)


class JournalReport(msgspec.Struct, frozen=True, kw_only=True):
    """What waits on disk for the store, of all processes."""

    segments: int
    waiting_records: int
    waiting_bytes: int
    refused: int
    """Records that the store refused for good; they are in the folder's file ``rejected``."""


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What there is to say of one chest: its store and exporters, or why they cannot be seen."""

    store: StoreStatus | None = None
    exporters: list[ExporterStatus] = []
    not_run: list[str] = []
    """The app's exporters that the store does not know yet."""
    journal: JournalReport | None = None
    absent: str | None = None
    error: str | None = None


def report_of(chest: FlaskChest) -> Report:
    """Ask the store of *chest*, which it does not create."""
    journal = _journal_report(chest)
    try:
        store = chest.binding().store
        found = store.status()
        exporters = list(store.exporters()) if isinstance(store, ExporterRegistry) else []
        not_run = sorted(set(chest.exporter_names) - {exporter.name for exporter in exporters})
    except StoreAbsent as exc:
        return Report(absent=str(exc), journal=journal)
    except Exception as exc:  # noqa: BLE001 - an own store may raise anything, and its text may hold a secret
        return Report(error=describe(exc).removeprefix(": "), journal=journal)
    return Report(store=found, exporters=exporters, not_run=not_run, journal=journal)


def _journal_report(chest: FlaskChest) -> JournalReport | None:
    """Look at the folder; ``None`` where nothing waits in one."""
    try:
        segments, refused = segments_of(chest), refused_by_store(chest)
    except OSError:  # another user's; the doctor says so
        return None
    if not segments and not refused:
        return None
    return JournalReport(
        segments=len(segments),
        waiting_records=sum(segment.waiting_records for segment in segments),
        waiting_bytes=sum(segment.waiting_bytes for segment in segments),
        refused=refused,
    )


def _status_lines(report: Report) -> Iterator[str]:
    if report.store is None:
        yield f"no records yet: {report.absent}" if report.error is None else f"not available: {report.error}"
        yield from _journal_lines(report.journal)
        return
    found = report.store
    size = "" if found.size_bytes is None else f", {found.size_bytes / 1024:,.0f} KiB"
    yield f"{found.description}: {amount(found.records)}{size}"
    if found.oldest_unix_nano is not None and found.newest_unix_nano is not None:
        yield f"  from {moment(found.oldest_unix_nano)} to {moment(found.newest_unix_nano)}"
    yield from _journal_lines(report.journal)
    for exporter in report.exporters:
        yield f"  {exporter_line(exporter)}"
    for name in report.not_run:
        yield f"  {not_run_line(name)}"


def _journal_lines(journal: JournalReport | None) -> Iterator[str]:
    if journal is not None:
        refused = f"; {journal.refused:,} refused by the store for good" if journal.refused else ""
        yield (
            f"  journal: {amount(journal.waiting_records)} waiting in {amount(journal.segments, 'segment')}, "
            f"{journal.waiting_bytes / 1024:,.0f} KiB{refused}"
        )


def not_run_line(name: str) -> str:
    """Say that the exporter of this *name* is not known to the store yet."""
    return f"exporter {name}: has not run yet"


def exporter_line(exporter: ExporterStatus) -> str:
    """Say where *exporter* stands."""
    success = "never" if exporter.last_success_unix_nano is None else moment(exporter.last_success_unix_nano)
    holder = f", being delivered by {exporter.holder}" if exporter.holder else ""
    since = "" if exporter.next_unix_nano is None else f" since {moment(exporter.next_unix_nano)}"
    error = f", last error: {exporter.last_error}" if exporter.last_error else ""
    return (
        f"exporter {exporter.name}: {exporter.backlog:,} pending{since}, {exporter.rejected:,} set aside, "
        f"last success {success}{holder}{error}"
    )
