"""One export run: claim, filter, export and acknowledge batch after batch until nothing is pending.

The store's claim decides which process delivers, so a run needs no other lock and knows no clock. When and how
often runs happen is decided in `flask_chest.background.exports`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import msgspec

from flask_chest._process import signals_blocked
from flask_chest.background.poison import Poison, deliver_isolating_poison
from flask_chest.background.suppression import suppress_instrumentation
from flask_chest.errors import ChestError, TargetUnavailable, describe
from flask_chest.protocols import Busy, Claim, Exporter, ExporterRegistry, Outbox, hand_over
from flask_chest.record import Record

logger = logging.getLogger("flask_chest.export")

DEFAULT_BATCH_SIZE = 1_000
"""Number of records in one claim."""
DEFAULT_LEASE = timedelta(minutes=2)
"""Length of a claim, which is renewed during delivery; after a crash another process takes over at its end."""
RENEWALS = 3
"""Number of renewals within the length of a lease: one that fails leaves time for another."""


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of one exporter did."""

    exporter: str
    """Name of the exporter."""
    delivered: int = 0
    """Number of records that the target took."""
    filtered: int = 0
    """Number of records that the exporter's filter or transform left out."""
    rejected: int = 0
    """Number of records that the target will never take, set aside with a reason (dead letters)."""
    pending: int | None = None
    """Number of records still waiting for the exporter; ``None`` if the store cannot tell."""
    busy: str | None = None
    """The process that is delivering for this exporter, because of which this run did nothing; else ``None``."""
    error: str | None = None
    """Reason for which the run ended early; what is pending waits for the next run."""

    @property
    def moved(self) -> int:
        """Number of records that are no longer pending: delivered, filtered or rejected."""
        return self.delivered + self.filtered + self.rejected


class BatchOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the records of one batch."""

    delivered: Sequence[str] = ()
    """Ids of the records that the target took."""
    filtered: Sequence[str] = ()
    """Ids of the records that the filter or transform left out."""
    poison: Mapping[str, Poison] = {}
    """Records that will never be delivered, by id."""


class RecordFilter(msgspec.Struct, frozen=True, kw_only=True):
    """An exporter's ``filter`` and ``transform``.

    A record at which one of them raises is poison: another attempt would raise again, and delivering it as it is
    could disclose what the function was there to hide. So is one that comes back under another id, since the
    target could not tell any more that it has it already.
    """

    wanted: Callable[[Record], bool] | None = None
    """Returns whether a record is delivered."""
    transform: Callable[[Record], Record | None] | None = None
    """Returns the record to deliver in place of another; ``None`` leaves it out."""

    def apply(self, records: Sequence[Record]) -> tuple[Sequence[Record], dict[str, Poison]]:
        """Return the records to deliver, and the poison among *records* by id."""
        if self.wanted is None and self.transform is None:
            return records, {}
        chosen: list[Record] = []
        poison: dict[str, Poison] = {}
        for record in records:
            try:
                result = self._filter(record)
            except Exception as exc:  # noqa: BLE001 - the app's own function
                poison[record.id] = Poison(f"its filter or transform failed: {describe(exc)}", 1)
                continue
            if result is not None and result.id != record.id:
                poison[record.id] = Poison("its transform changed its id", 1)
            elif result is not None:
                chosen.append(result)
        return chosen, poison

    def _filter(self, record: Record) -> Record | None:
        if self.wanted is not None and not self.wanted(record):
            return None
        return record if self.transform is None else self.transform(record)


def deliver_batch(
    export: Callable[[Sequence[Record]], object],
    records: Sequence[Record],
    *,
    record_filter: RecordFilter,
    suspicious: bool = False,
) -> BatchOutcome:
    """Filter *records* and deliver them by *export*; raise what it raises when no single record is to blame."""
    chosen, poison = record_filter.apply(records)
    poison |= deliver_isolating_poison(export, chosen, suspicious=suspicious, convict_alone=True)
    wanted = {record.id for record in chosen}
    return BatchOutcome(
        delivered=[record.id for record in chosen if record.id not in poison],
        filtered=[each.id for each in records if each.id not in wanted and each.id not in poison],
        poison=poison,
    )


def log_run(report: ExportReport, *, again: bool = False) -> None:
    """Log what a run did, if it did something; *again* says that failures were logged before it."""
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


NO_FILTER = RecordFilter()


@dataclass(eq=False, repr=False)
class ExportRun:
    """One run of one exporter: delivers what *outbox* has for *exporter*.

    A batch counts as delivered only once the store took the acknowledgement. A run that ends early, or whose
    process dies, leaves its batch to be delivered again as it was.
    """

    outbox: Outbox
    exporter: Exporter
    name: str = ""
    """Name in the outbox, if it is not the exporter's own."""
    batch_size: int = DEFAULT_BATCH_SIZE
    lease: timedelta = DEFAULT_LEASE
    record_filter: RecordFilter = NO_FILTER
    suspicious: bool = False
    """Whether to search for poison also if the exporter does not say that a record is to blame."""
    go_on: Callable[[], bool] = lambda: True
    """Callable that is asked before each batch."""
    log: Callable[[ExportReport], None] = log_run
    """Callable that is told the report."""

    def __post_init__(self) -> None:
        """Begin with nothing done."""
        self.name = self.name or self.exporter.name
        self._lease = _Lease(self.outbox, self.lease)
        self._report = ExportReport(exporter=self.name)

    def report(self) -> ExportReport:
        """Deliver what is pending; return what was done, and never raise an ``Exception``."""
        busy: str | None = None
        error: str | None = None
        try:
            busy = self._deliver_all()
        except ChestError as exc:
            error = str(exc)
        except Exception as exc:  # a third-party exporter may raise anything; its batch stays pending
            error = f"{self.name} raised {describe(exc)}"
            logger.debug("export to %s failed", self.name, exc_info=True)
        finally:
            self._lease.end()
        pending = _backlog(self.outbox, self.name)
        report = msgspec.structs.replace(self._report, pending=pending, busy=busy, error=error)
        self.log(report)
        return report

    def _deliver_all(self) -> str | None:
        """Deliver batch after batch; return the process that holds the claim, if it is another one."""
        while self.go_on():
            claim = self.outbox.claim(self.name, limit=self.batch_size, lease=self._lease.length)
            if claim is None:
                return None
            if isinstance(claim, Busy):
                return claim.holder
            self._report = with_batch(self._report, self._deliver(claim))
        return None

    def _deliver(self, claim: Claim) -> BatchOutcome:
        try:
            with self._lease.held(claim):
                outcome = deliver_batch(
                    self._export, claim.records, record_filter=self.record_filter, suspicious=self.suspicious
                )
        except BaseException as exc:
            self._release(claim, error=describe(exc))
            raise
        if not self.outbox.acknowledge(claim, rejected=_reasons(outcome.poison)):
            raise ChestError(
                f"{claim.exporter} lost its claim while it delivered {len(claim.records)} records; "
                "another process delivers them again"
            )
        return outcome

    def _export(self, records: Sequence[Record]) -> None:
        if self._lease.lost:  # a search may be long
            raise TargetUnavailable(f"{self.name} lost its claim; another process delivers the batch")
        hand_over(self.exporter.export, records)

    def _release(self, claim: Claim, *, error: str) -> None:
        try:
            self.outbox.release(claim, error=error)
        except Exception as exc:  # noqa: BLE001 - what ended the run is to be reported; the lease ends by itself
            logger.debug("the claim of %s was not released: %s", claim.exporter, describe(exc))


class _Lease:
    """Keeps a claim while its batch is delivered, however long that takes.

    A thread, which the first claim starts, renews the claim of one batch after the other.
    """

    def __init__(self, outbox: Outbox, length: timedelta) -> None:
        self.length = length
        self.lost = False
        """Whether another process has taken the claim that is held."""
        self._outbox = outbox
        self._claim: Claim | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def held(self, claim: Claim) -> Iterator[None]:
        """Renew *claim* until the block ends."""
        self._claim, self.lost = claim, False
        if self._thread is None:
            self._thread = threading.Thread(target=self._renew, name="flask_chest lease", daemon=True)
            with signals_blocked():
                self._thread.start()
        try:
            yield
        finally:
            self._claim = None

    def end(self) -> None:
        """End the thread."""
        self._over.set()

    def _renew(self) -> None:
        with suppress_instrumentation():
            while not self._over.wait(self.length.total_seconds() / RENEWALS):
                if (claim := self._claim) is None:
                    continue
                try:
                    kept = self._outbox.renew(claim, lease=self.length)
                except Exception as exc:  # noqa: BLE001 - the next may succeed, and the acknowledgement tells
                    logger.debug("the lease of %s was not renewed: %s", claim.exporter, describe(exc))
                    continue
                if not kept and self._claim is claim:
                    self.lost = True


def with_batch(report: ExportReport, outcome: BatchOutcome) -> ExportReport:
    """Return *report* with the counts of another batch."""
    return msgspec.structs.replace(
        report,
        delivered=report.delivered + len(outcome.delivered),
        filtered=report.filtered + len(outcome.filtered),
        rejected=report.rejected + len(outcome.poison),
    )


def _reasons(poison: Mapping[str, Poison]) -> dict[str, str]:
    return {
        record_id: each.reason if each.attempts == 1 else f"{each.reason} ({each.attempts} attempts)"
        for record_id, each in poison.items()
    }


def _backlog(outbox: Outbox, name: str) -> int | None:
    if not isinstance(outbox, ExporterRegistry):
        return None
    try:
        return next((known.backlog for known in outbox.exporters() if known.name == name), 0)
    except Exception as exc:  # noqa: BLE001 - a third-party store may raise anything; the run itself is over
        logger.debug("the backlog of %s is not known: %s", name, describe(exc))
        return None
