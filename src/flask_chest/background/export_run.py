"""One export run: claim → select → export → acknowledge, until nothing is pending. Knows no clock."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import NamedTuple

import msgspec

from flask_chest.background.poison import Poison, deliver_isolating_poison
from flask_chest.background.suppression import suppress_instrumentation
from flask_chest.errors import ChestError, TargetUnavailable, describe
from flask_chest.protocols import Busy, Claim, Exporter, ExporterRegistry, Outbox, hand_over
from flask_chest.record import Record

logger = logging.getLogger("flask_chest.export")

DEFAULT_BATCH_SIZE = 1_000
DEFAULT_LEASE = timedelta(minutes=2)
"""It is renewed while a batch is delivered; after a crash another process takes over when it ends."""
RENEWALS = 3
"""How often a lease is renewed in its time: one that fails leaves time for another."""


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


class Selected(NamedTuple):
    """What became of a batch."""

    records: Sequence[Record]
    faults: dict[str, Poison]
    """Of the records at which the app's own function raised."""


class RecordFilter:
    """Leaves out what *wanted* does not want, and what *transform* makes ``None``.

    A record at which one of them raises is set aside: another try would raise again, and to deliver it as it is
    might tell what it was there to hide. So is one that comes back under another id, as the target could not
    tell then that it has it already.
    """

    def __init__(
        self,
        *,
        wanted: Callable[[Record], bool] | None = None,
        transform: Callable[[Record], Record | None] | None = None,
    ) -> None:
        self._wanted = wanted
        self._transform = transform

    def of(self, records: Sequence[Record]) -> Selected:
        """Select from *records*."""
        if self._wanted is None and self._transform is None:
            return Selected(records, {})
        selected: list[Record] = []
        faults: dict[str, Poison] = {}
        for record in records:
            try:
                chosen = self._select(record)
            except Exception as exc:  # noqa: BLE001 - the app's own function
                faults[record.id] = Poison(f"its filter or transform failed: {describe(exc)}", 1)
                continue
            if chosen is not None and chosen.id != record.id:
                faults[record.id] = Poison("its transform changed its id", 1)
            elif chosen is not None:
                selected.append(chosen)
        return Selected(selected, faults)

    def _select(self, record: Record) -> Record | None:
        if self._wanted is not None and not self._wanted(record):
            return None
        return record if self._transform is None else self._transform(record)


class Lease:
    """Renews the lease of one claim after the other, from a thread that the first of them begins."""

    def __init__(self, outbox: Outbox, length: timedelta) -> None:
        self._outbox = outbox
        self._length = length
        self._claim: Claim | None = None
        self._lost = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def lost(self) -> bool:
        """Whether another process has taken the claim that is held."""
        return self._lost

    @contextmanager
    def held(self, claim: Claim) -> Iterator[None]:
        """Keep *claim* until the block ends."""
        self._claim, self._lost = claim, False
        if self._thread is None:
            self._thread = threading.Thread(target=self._renew, name="flask_chest lease", daemon=True)
            self._thread.start()
        try:
            yield
        finally:
            self._claim = None

    def end(self) -> None:
        """Renew nothing any more."""
        self._over.set()

    def _renew(self) -> None:
        with suppress_instrumentation():
            self._renew_until_over()

    def _renew_until_over(self) -> None:
        while not self._over.wait(self._length.total_seconds() / RENEWALS):
            claim = self._claim
            if claim is None:
                continue
            try:
                kept = self._outbox.renew(claim, lease=self._length)
            except Exception as exc:  # noqa: BLE001 - the next renewal may succeed, and the acknowledgement tells
                logger.debug("the lease of %s was not renewed: %s", claim.exporter, describe(exc))
                continue
            if not kept and self._claim is claim:
                self._lost = True


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
        selection: RecordFilter | None = None,
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
        self._selection = selection or RecordFilter()
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
            error = f"{self._name} raised {describe(exc)}"
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
            _release(self._outbox, claim, error=describe(exc))
            raise
        if not self._outbox.acknowledge(claim, rejected=_reasons(faults)):
            raise _lost(claim)
        return Batch(
            delivered=sum(record.id not in faults for record in selected),
            filtered=sum(record.id not in faults for record in claim.records)
            - sum(record.id not in faults for record in selected),
            rejected=len(faults),
        )

    def _export(self, records: Sequence[Record]) -> dict[str, Poison]:
        return deliver_isolating_poison(self._hand_over, records, suspicious=self._suspicious, convict_alone=True)

    def _hand_over(self, records: Sequence[Record]) -> None:
        if self._lease.lost:  # a search may be long
            raise TargetUnavailable(f"{self._name} lost its claim; another process delivers the batch")
        hand_over(self._exporter.export, records)


class Redelivered(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one batch."""

    delivered: Sequence[str]
    """Ids of records."""
    filtered: Sequence[str]
    rejected: Mapping[str, str]
    """The reasons, by id."""


def redeliver(
    records: Iterable[Record], exporter: Exporter, *, batch_size: int, selection: RecordFilter
) -> Iterator[Redelivered]:
    """Deliver *records* in batches, beside what the exporter is to have anyway; raise what ends the delivery.

    No claim is needed: to deliver a record again changes nothing where the target can tell.
    """
    waiting = iter(records)
    while batch := list(islice(waiting, batch_size)):
        selected, faults = selection.of(batch)
        faults |= deliver_isolating_poison(exporter.export, selected, suspicious=False, convict_alone=True)
        wanted = {record.id for record in selected}
        yield Redelivered(
            delivered=[record.id for record in selected if record.id not in faults],
            filtered=[each.id for each in batch if each.id not in wanted and each.id not in faults],
            rejected={record_id: fault.reason for record_id, fault in faults.items()},
        )


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


def _reasons(faults: Mapping[str, Poison]) -> dict[str, str]:
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
        logger.debug("the claim of %s was not released: %s", claim.exporter, describe(exc))


def _backlog(outbox: Outbox, name: str) -> int | None:
    if not isinstance(outbox, ExporterRegistry):
        return None
    try:
        return next((known.backlog for known in outbox.exporters() if known.name == name), 0)
    except Exception as exc:  # noqa: BLE001 - an own store may raise anything; the run itself is over
        logger.debug("the backlog of %s is not known: %s", name, describe(exc))
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
