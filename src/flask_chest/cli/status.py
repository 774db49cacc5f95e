"""``flask chest status``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import tzinfo

from flask_chest.cli._group import chest_group, the_chests
from flask_chest.cli._options import json_option, zone_option
from flask_chest.cli._output import amount, say, say_json
from flask_chest.cli._times import format_time
from flask_chest.cli.journal import orphan_line
from flask_chest.extension.report import Report, report_of
from flask_chest.journal.losses import Losses
from flask_chest.protocols import ExporterStatus


@chest_group.command("status")
@zone_option
@json_option
def status(*, zone: tzinfo, as_json: bool) -> None:
    """Show what each chest of the app holds, and where its exporters stand.

    \b
    Example: flask --app shop chest status --json

    Exits with 1 when a store does not answer, or the journal is another account's.
    """  # noqa: D301 - \b is click's mark for lines to keep
    reports = [report_of(chest) for chest in the_chests()]
    if as_json:
        say_json({"chests": reports})
    else:
        for report in reports:
            say(*_status_lines(report, zone))
    if any(report.error is not None or report.journal_error is not None for report in reports):
        raise SystemExit(1)


def _status_lines(report: Report, zone: tzinfo) -> Iterator[str]:
    if report.store is None:
        yield f"no records yet: {report.absent}" if report.error is None else f"not available: {report.error}"
        yield from _journal_lines(report, zone)
        return
    found = report.store
    size = "" if found.size_bytes is None else f", {found.size_bytes / 1024:,.0f} KiB"
    yield f"{found.description}: {amount(found.records)}{size}"
    if found.oldest_unix_nano is not None and found.newest_unix_nano is not None:
        yield f"  from {format_time(found.oldest_unix_nano, zone)} to {format_time(found.newest_unix_nano, zone)}"
    if (parted := report.partitions) is not None and parted.until_unix_nano is not None:
        until = format_time(parted.until_unix_nano, zone)
        yield f"  in {amount(parted.count, 'partition')}, one for each {parted.by}, up to {until}"
    yield from _journal_lines(report, zone)
    for exporter in report.exporters:
        yield f"  {exporter_line(exporter, zone)}"
    for name in report.not_run:
        yield f"  {not_run_line(name)}"


def _journal_lines(report: Report, zone: tzinfo) -> Iterator[str]:
    if report.journal_error is not None:
        yield f"  journal: {report.journal_error}"
    yield from (f"  {orphan_line(orphan)}" for orphan in report.orphans)
    journal = report.journal
    if journal is None:
        return
    refused = f"; {journal.refused:,} refused by the store for good" if journal.refused else ""
    yield (
        f"  journal: {amount(journal.waiting_records)} waiting in {amount(journal.segments, 'segment')}, "
        f"{journal.waiting_bytes / 1024:,.0f} KiB{refused}; "
        f"{journal.used_bytes / 1024:,.0f} of {journal.max_bytes / 1024:,.0f} KiB are used"
    )
    if journal.lost:
        yield f"  {losses_line(journal.losses, zone)}"


def losses_line(losses: Losses, zone: tzinfo) -> str:
    """Return what was lost, why and when."""
    reasons = "; ".join(f"{count:,}: {reason}" for reason, count in losses.counts.items())
    last_time = losses.last_unix_nano
    last = "" if last_time is None else f", the last at {format_time(last_time, zone)}"
    return f"lost: {losses.total:,}{last} ({reasons})"


def not_run_line(name: str) -> str:
    """Return the line for an exporter that the store does not know yet."""
    return f"exporter {name}: has not run yet"


def exporter_line(exporter: ExporterStatus, zone: tzinfo) -> str:
    """Return how far *exporter* is."""
    last_success = exporter.last_success_unix_nano
    success = "never" if last_success is None else format_time(last_success, zone)
    holder = f", being delivered by {exporter.holder}" if exporter.holder else ""
    next_began = exporter.next_unix_nano
    since = "" if next_began is None else f" since {format_time(next_began, zone)} (the time of the request)"
    error = f", last error: {exporter.last_error}" if exporter.last_error else ""
    return (
        f"exporter {exporter.name}: {exporter.backlog:,} pending{since}, {exporter.rejected:,} set aside, "
        f"last success {success}{holder}{error}"
    )
