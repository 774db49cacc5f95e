"""``flask chest status``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from flask_chest.cli._group import Failure, chest_group, format_time, the_chests
from flask_chest.cli._options import json_option
from flask_chest.cli._output import amount, say, say_json
from flask_chest.cli.journal import Orphan, folder_of, orphan_line, orphans_of, refused_by_store, segments_of
from flask_chest.errors import JournalError, StoreAbsent, describe
from flask_chest.extension.chest import FlaskChest
from flask_chest.journal import used_bytes
from flask_chest.journal.losses import Losses, losses_in
from flask_chest.protocols import ExporterRegistry, ExporterStatus, StoreStatus


@chest_group.command("status")
@json_option
def status(*, as_json: bool) -> None:
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
            say(*_status_lines(report))
    if any(report.error is not None or report.journal_error is not None for report in reports):
        raise SystemExit(1)


class JournalReport(msgspec.Struct, frozen=True, kw_only=True):
    """What lies on disk for the store, of all processes, and what they lost."""

    segments: int
    waiting_records: int
    waiting_bytes: int
    refused: int
    """Records that the store refused for good; they are in the folder's file ``refused``."""
    used_bytes: int
    max_bytes: int
    """Bytes that the folder may hold; what comes when it is full is lost."""
    lost: Mapping[str, int]
    """Records that nobody took, by reason, also of processes that are gone."""
    last_loss_unix_nano: int | None = None

    @property
    def losses(self) -> Losses:
        """What was lost, and when."""
        return Losses(counts=self.lost, last_unix_nano=self.last_loss_unix_nano)


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What there is to say of one chest: its store and exporters, or why they cannot be seen."""

    store: StoreStatus | None = None
    exporters: list[ExporterStatus] = []
    not_run: list[str] = []
    """The app's exporters that the store does not know yet."""
    journal: JournalReport | None = None
    orphans: list[Orphan] = []
    journal_error: str | None = None
    """Reason for which the journal cannot be looked at."""
    absent: str | None = None
    error: str | None = None


def report_of(chest: FlaskChest) -> Report:
    """Ask the store of *chest*, which it does not create."""
    report = _store_report(chest)  # which tells the store's id, should the segments have another
    journal, orphans, journal_error = None, list[Orphan](), None
    try:
        journal, orphans = _journal_report(chest), orphans_of(chest)
    except Failure as exc:
        journal_error = exc.message
    except (OSError, JournalError) as exc:  # a damaged disk, or a link that leads nowhere
        journal_error = f"the journal cannot be looked at: {exc}"
    return msgspec.structs.replace(report, journal=journal, orphans=orphans, journal_error=journal_error)


def _store_report(chest: FlaskChest) -> Report:
    try:
        store = chest._state.here.store
        found = store.status()
        exporters = list(store.exporters()) if isinstance(store, ExporterRegistry) else []
        not_run = sorted(set(chest.exporter_names) - {exporter.name for exporter in exporters})
    except StoreAbsent as exc:
        return Report(absent=str(exc))
    except Exception as exc:  # noqa: BLE001 - a third-party store may raise anything, and its text may hold a secret
        return Report(error=describe(exc))
    return Report(store=found, exporters=exporters, not_run=not_run)


def _journal_report(chest: FlaskChest) -> JournalReport | None:
    """Look at the folder; ``None`` where there is nothing to tell of one."""
    folder = folder_of(chest)
    if folder is None:
        return None
    segments, refused, losses = segments_of(chest), refused_by_store(chest), losses_in(folder)
    if not segments and not refused and not losses.total:
        return None
    return JournalReport(
        segments=len(segments),
        waiting_records=sum(segment.waiting_records for segment in segments),
        waiting_bytes=sum(segment.waiting_bytes for segment in segments),
        refused=refused,
        used_bytes=used_bytes(folder),
        max_bytes=chest._state.settings.journal_bytes,
        lost=losses.counts,
        last_loss_unix_nano=losses.last_unix_nano,
    )


def _status_lines(report: Report) -> Iterator[str]:
    if report.store is None:
        yield f"no records yet: {report.absent}" if report.error is None else f"not available: {report.error}"
        yield from _journal_lines(report)
        return
    found = report.store
    size = "" if found.size_bytes is None else f", {found.size_bytes / 1024:,.0f} KiB"
    yield f"{found.description}: {amount(found.records)}{size}"
    if found.oldest_unix_nano is not None and found.newest_unix_nano is not None:
        yield f"  from {format_time(found.oldest_unix_nano)} to {format_time(found.newest_unix_nano)}"
    yield from _journal_lines(report)
    for exporter in report.exporters:
        yield f"  {exporter_line(exporter)}"
    for name in report.not_run:
        yield f"  {not_run_line(name)}"


def _journal_lines(report: Report) -> Iterator[str]:
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
        yield f"  {losses_line(journal.losses)}"


def losses_line(losses: Losses) -> str:
    """Return what was lost, why and when."""
    reasons = "; ".join(f"{count:,}: {reason}" for reason, count in losses.counts.items())
    last = f", the last at {format_time(losses.last_unix_nano)}" if losses.last_unix_nano is not None else ""
    return f"lost: {losses.total:,}{last} ({reasons})"


def not_run_line(name: str) -> str:
    """Return the line for an exporter that the store does not know yet."""
    return f"exporter {name}: has not run yet"


def exporter_line(exporter: ExporterStatus) -> str:
    """Return how far *exporter* is."""
    success = "never" if exporter.last_success_unix_nano is None else format_time(exporter.last_success_unix_nano)
    holder = f", being delivered by {exporter.holder}" if exporter.holder else ""
    next_began = exporter.next_unix_nano
    since = "" if next_began is None else f" since {format_time(next_began)} (the time of the request)"
    error = f", last error: {exporter.last_error}" if exporter.last_error else ""
    return (
        f"exporter {exporter.name}: {exporter.backlog:,} pending{since}, {exporter.rejected:,} set aside, "
        f"last success {success}{holder}{error}"
    )
