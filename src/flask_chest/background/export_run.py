"""One export run: claim → select → export → acknowledge, until nothing is pending. Knows no clock."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import msgspec

from flask_chest.background.lease import Lease
from flask_chest.background.poison import Fault, hand_over_sound
from flask_chest.background.selection import Selection
from flask_chest.errors import ChestError, TargetUnavailable, describe
from flask_chest.protocols import Busy, Claim, Exporter, ExporterRegistry, Outbox, hand_over
from flask_chest.record import Record

logger = logging.getLogger("flask_chest.export")

DEFAULT_BATCH_SIZE = 1_000
DEFAULT_LEASE = timedelta(minutes=2)
"""It is renewed while a batch is delivered; after a crash another process takes over when it ends."""


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of one exporter did."""

    exporter: str
    delivered: int = 0
    filtered: int = 0
    """Left out by the exporter's filter or transform."""
    rejected: int = 0
    """Set aside with a reason: the target will never take them."""
    pending: int | None = None
    """What is still waiting; ``None`` where the store cannot tell."""
    busy: str | None = None
    """The process that delivers for this exporter just now; then this run did nothing."""
    error: str | None = None
    """Why the run ended early; what is pending stays so for the next one."""

    @property
    def moved(self) -> int:
        """How many records it was done with."""
        return self.delivered + self.filtered + self.rejected


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one claim."""

    delivered: int
    filtered: int
    rejected: int


class ExportRun:
    """One run of one exporter, under *name* or its own.

    A batch counts as delivered only once the store took the acknowledgement. A run that ends early, or whose
    process dies, leaves its batch to be delivered again as it was. *go_on* is asked before each batch. A
    *suspicious* run searches for a record at fault also where the exporter does not say that one is. What
    it did is told *log* instead of `log_run`.
    """

    def __init__(
        self,
        outbox: Outbox,
        exporter: Exporter,
        *,
        name: str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        lease: timedelta = DEFAULT_LEASE,
        selection: Selection | None = None,
        suspicious: bool = False,
        go_on: Callable[[], bool] = lambda: True,
        log: Callable[[ExportReport], None] | None = None,
    ) -> None:
        self._outbox = outbox
        self._exporter = exporter
        self._name = name or exporter.name
        self._batch_size = batch_size
        self._length = lease
        self._lease = Lease(outbox, lease)
        self._selection = selection or Selection()
        self._suspicious = suspicious
        self._go_on = go_on
        self._log = log or log_run
        self._batches: list[Batch] = []

    def report(self) -> ExportReport:
        """Deliver what is pending; never raises, the report tells."""
        busy: str | None = None
        error: str | None = None
        try:
            busy = self._deliver_all()
        except ChestError as exc:
            error = str(exc)
        except Exception as exc:  # an own exporter may raise anything; its batch stays pending
            error = f"{self._name} raised {describe(exc).removeprefix(': ')}"
            logger.debug("export to %s failed", self._name, exc_info=True)
        finally:
            self._lease.end()
        report = ExportReport(
            exporter=self._name,
            delivered=sum(batch.delivered for batch in self._batches),
            filtered=sum(batch.filtered for batch in self._batches),
            rejected=sum(batch.rejected for batch in self._batches),
            pending=_backlog(self._outbox, self._name),
            busy=busy,
            error=error,
        )
        self._log(report)
        return report

    def _deliver_all(self) -> str | None:
        """Deliver batch after batch; give who else delivers, if somebody does."""
        while self._go_on():
            claim = self._outbox.claim(self._name, limit=self._batch_size, lease=self._length)
            if claim is None:
                return None
            if isinstance(claim, Busy):
                return claim.holder
            self._batches.append(self._deliver(claim))
        return None

    def _deliver(self, claim: Claim) -> Batch:
        try:
            with self._lease.held(claim):
                selected, faults = self._selection.of(claim.records)
                faults |= self._export(selected)
        except BaseException as exc:
            _release(self._outbox, claim, error=describe(exc).removeprefix(": "))
            raise
        if not self._outbox.acknowledge(claim, rejected=_reasons(faults)):
            raise _lost(claim)
        return Batch(
            delivered=sum(record.id not in faults for record in selected),
            filtered=sum(record.id not in faults for record in claim.records)
            - sum(record.id not in faults for record in selected),
            rejected=len(faults),
        )

    def _export(self, records: Sequence[Record]) -> dict[str, Fault]:
        return hand_over_sound(self._hand_over, records, suspicious=self._suspicious, convict_alone=True)

    def _hand_over(self, records: Sequence[Record]) -> None:
        if self._lease.lost:  # a search may be long
            raise TargetUnavailable(f"{self._name} lost its claim; another process delivers the batch")
        hand_over(self._exporter.export, records)


def run_export(
    outbox: Outbox,
    exporter: Exporter,
    *,
    name: str | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    lease: timedelta = DEFAULT_LEASE,
) -> ExportReport:
    """Deliver all that is pending for *exporter*, once, now; see `ExportRun`."""
    return ExportRun(outbox, exporter, name=name, batch_size=batch_size, lease=lease).report()


def _reasons(faults: Mapping[str, Fault]) -> dict[str, str]:
    return {
        record_id: fault.reason if fault.attempts == 1 else f"{fault.reason} ({fault.attempts} attempts)"
        for record_id, fault in faults.items()
    }


def _lost(claim: Claim) -> ChestError:
    return ChestError(
        f"{claim.exporter} lost its claim while it delivered {len(claim.records)} records; "
        "another process delivers them again"
    )


def _release(outbox: Outbox, claim: Claim, *, error: str) -> None:
    try:
        outbox.release(claim, error=error)
    except Exception as exc:  # noqa: BLE001 - what ended the export is to be told; the lease ends by itself
        logger.debug("the claim of %s was not released%s", claim.exporter, describe(exc))


def _backlog(outbox: Outbox, name: str) -> int | None:
    if not isinstance(outbox, ExporterRegistry):
        return None
    try:
        return next((known.backlog for known in outbox.exporters() if known.name == name), 0)
    except Exception as exc:  # noqa: BLE001 - an own store may raise anything; the run itself is over
        logger.debug("the backlog of %s is not known%s", name, describe(exc))
        return None


def log_run(report: ExportReport, *, again: bool = False) -> None:
    """Log what a run did, if it did something; *again*: after failures that were logged."""
    if report.error is not None:
        pending = "" if report.pending is None else f"; {report.pending} pending"
        logger.warning("%s: %d delivered, then: %s%s", report.exporter, report.delivered, report.error, pending)
    elif report.moved:
        left_out = f", {report.filtered} left out by its filter" if report.filtered else ""
        logger.log(
            logging.WARNING if again else logging.INFO,
            "%s: %d delivered%s, %d set aside%s",
            report.exporter,
            report.delivered,
            " again" if again else "",
            report.rejected,
            left_out,
        )
