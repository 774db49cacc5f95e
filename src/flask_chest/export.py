"""One export run: claim → export → acknowledge, until nothing is pending. Knows no clock."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from flask_chest.errors import ChestError, RecordsRejected
from flask_chest.protocols import Busy, Claim, Exporter, ExporterRegistry, Outbox, hand_over
from flask_chest.record import Record
from flask_chest.stats import describe

logger = logging.getLogger("flask_chest.export")

DEFAULT_BATCH_SIZE = 1_000
DEFAULT_LEASE = timedelta(minutes=2)
"""Longer than an exporter's own time limit for one batch: another process takes over after it."""


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of one exporter did."""

    exporter: str
    delivered: int = 0
    rejected: int = 0
    """Set aside with a reason: the target will never take them."""
    pending: int | None = None
    """What is still waiting; ``None`` where the store cannot tell."""
    busy: str | None = None
    """The process that delivers for this exporter just now; then this run did nothing."""
    error: str | None = None
    """Why the run ended early; what is pending stays so for the next one."""


def run_export(
    outbox: Outbox,
    exporter: Exporter,
    *,
    name: str | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    lease: timedelta = DEFAULT_LEASE,
) -> ExportReport:
    """Deliver all that is pending for *exporter*, under *name* or its own; never raises, the report tells.

    A batch counts as delivered only once the store took the acknowledgement. A run that ends early, or whose
    process dies, leaves its batch to be delivered again as it was.
    """
    name = name or exporter.name
    delivered = rejected = 0
    busy: str | None = None
    error: str | None = None
    try:
        while (claim := outbox.claim(name, limit=batch_size, lease=lease)) is not None:
            if isinstance(claim, Busy):
                busy = claim.holder
                break
            refused = _deliver(outbox, exporter, claim)
            delivered += len(claim.records) - refused
            rejected += refused
    except ChestError as exc:
        error = str(exc)
    except Exception as exc:  # an own exporter may raise anything; its batch stays pending
        error = f"{name} raised {describe(exc).removeprefix(': ')}"
        logger.debug("export to %s failed", name, exc_info=True)
    report = ExportReport(
        exporter=name,
        delivered=delivered,
        rejected=rejected,
        pending=_backlog(outbox, name),
        busy=busy,
        error=error,
    )
    _log(report)
    return report


def _deliver(outbox: Outbox, exporter: Exporter, claim: Claim) -> int:
    """Export and acknowledge one claim; return how many of it were set aside."""
    try:
        rejected = _export(exporter, claim.records)
    except BaseException:
        _release(outbox, claim)
        raise
    if not outbox.acknowledge(claim, rejected=rejected):
        raise ChestError(
            f"{claim.exporter} lost its claim while it delivered {len(claim.records)} records; "
            "another process delivers them again"
        )
    return len(rejected)


def _release(outbox: Outbox, claim: Claim) -> None:
    try:
        outbox.release(claim)
    except Exception as exc:  # noqa: BLE001 - what ended the export is to be told; the lease ends by itself
        logger.debug("the claim of %s was not released%s", claim.exporter, describe(exc))


def _export(exporter: Exporter, records: Sequence[Record]) -> dict[str, str]:
    """Export *records* but those that the target names as never acceptable; return these with the reasons."""
    rejected: dict[str, str] = {}
    remaining = records
    while remaining:
        try:
            hand_over(exporter.export, remaining)
        except RecordsRejected as exc:
            named = {record.id: exc.reasons[record.id] for record in remaining if record.id in exc.reasons}
            if not named:
                raise
            rejected |= named
            remaining = [record for record in remaining if record.id not in named]
        else:
            break
    return rejected


def _backlog(outbox: Outbox, name: str) -> int | None:
    if not isinstance(outbox, ExporterRegistry):
        return None
    try:
        return next((known.backlog for known in outbox.exporters() if known.name == name), 0)
    except Exception as exc:  # noqa: BLE001 - an own store may raise anything; the run itself is over
        logger.debug("the backlog of %s is not known%s", name, describe(exc))
        return None


def _log(report: ExportReport) -> None:
    if report.error is not None:
        logger.warning(
            "%s: %d delivered, then: %s; %s pending",
            report.exporter,
            report.delivered,
            report.error,
            report.pending,
        )
    elif report.delivered or report.rejected:
        logger.info("%s: %d delivered, %d set aside", report.exporter, report.delivered, report.rejected)
