"""The exporters of one chest on one app: registered with the store, run, scheduled, and run again by hand."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING
from weakref import ref

import msgspec

from flask_chest._process import is_made, maker_of
from flask_chest.background.backoff import pause_seconds
from flask_chest.background.export_run import (
    BatchOutcome,
    ExportReport,
    ExportRun,
    RecordFilter,
    deliver_batch,
    log_run,
    with_batch,
)
from flask_chest.background.poison import PATIENCE
from flask_chest.background.stats import ExportCounts, LogLimit
from flask_chest.background.suppression import suppress_instrumentation
from flask_chest.errors import CapabilityMissing, ConfigurationError, describe
from flask_chest.protocols import Exporter, ExporterRegistry, Outbox, StartAt, Store, hand_over
from flask_chest.record import Record

if TYPE_CHECKING:
    from flask_chest.background.scheduler import ExportScheduler

logger = logging.getLogger("flask_chest.export")


FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0
"""Longest pause between two scheduled runs of an exporter whose target is away, unless its interval is longer."""
MAX_INTERVAL = timedelta(days=36_500)
"""Longest interval; far beyond it the next run would be later than a ``datetime`` can say."""
RUN_SECONDS = 300.0
"""Seconds for which a run goes on from batch to batch, before others have their turn."""


class ExportJob(msgspec.Struct, frozen=True, kw_only=True):
    """An exporter, and when and how it is run."""

    name: str
    make: Callable[[], Exporter]
    interval: timedelta
    batch_size: int
    lease: timedelta
    start_at: StartAt
    record_filter: RecordFilter

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for what no job can be run with."""
        interval, lease = self.interval, self.lease
        if not isinstance(interval, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance] - not all users check types
            raise ConfigurationError(
                f"interval must be a timedelta, as in timedelta(seconds=30), got a {type(interval).__name__}"
            )
        if not timedelta(0) < interval <= MAX_INTERVAL:
            raise ConfigurationError(
                f"interval must be above 0 and at most {MAX_INTERVAL.days} days, got {interval!r}"
            )
        if not timedelta(0) < lease <= MAX_INTERVAL:
            raise ConfigurationError(
                f"lease must be a timedelta above 0 and of at most {MAX_INTERVAL.days} days, got {lease!r}"
            )
        if self.batch_size < 1:
            raise ConfigurationError(f"batch_size must be at least 1, got {self.batch_size!r}")
        if self.start_at not in ("beginning", "now"):
            raise ConfigurationError(f"start_at must be 'beginning' or 'now', got {self.start_at!r}")


def named_maker(
    exporter: Exporter | Callable[[], Exporter], name: str | None
) -> tuple[str, Callable[[], Exporter]]:
    """Return the name for *exporter* and what makes it in each process; raise `ConfigurationError`."""
    make = maker_of(exporter, "export", setting="exporter", kind="an Exporter")
    if is_made(exporter, "export"):
        return name or make().name, make
    if not name:
        raise ConfigurationError("an exporter that is made in each process needs a name=")
    return name, make


class _History(msgspec.Struct):
    """History of one job's runs in this process."""

    counts: ExportCounts = msgspec.field(default_factory=ExportCounts)
    failures: int = 0
    """Number of failures in a row."""
    not_before: float = 0.0
    """Monotonic time of the end of the pause after a failure."""
    limit: LogLimit = msgspec.field(default_factory=LogLimit)
    outage_said: bool = False

    def log(self, report: ExportReport) -> None:
        """Log a run: a failure at most once a minute, and the success after it at the same level."""
        if report.error is None:
            log_run(report, again=self.outage_said)
            self.outage_said = self.outage_said and not report.moved
        elif self.limit.passes("failure"):
            self.outage_said = True
            log_run(report)

    def note(self, report: ExportReport) -> None:
        counts = self.counts
        failed = report.error is not None
        self.counts = ExportCounts(
            runs=counts.runs + (failed or report.moved > 0),
            delivered=counts.delivered + report.delivered,
            filtered=counts.filtered + report.filtered,
            rejected=counts.rejected + report.rejected,
            failures=counts.failures + failed,
        )
        self.failures = self.failures + 1 if failed else 0
        if failed:
            pause = pause_seconds(self.failures, first=FIRST_PAUSE_SECONDS, longest=LONGEST_PAUSE_SECONDS)
            self.not_before = time.monotonic() + pause
        else:
            self.not_before = 0.0


class ExportJobs:
    """Runs export jobs from a store, now or on schedule."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self.open_store = open_store
        """Returns the store of the current process, ready for use."""
        self._exporters: dict[str, Exporter] = {}
        self._registered: set[str] = set()
        self._histories: dict[str, _History] = {}
        self._scheduler: ExportScheduler | None = None
        self._scheduled: dict[str, Callable[[], object]] = {}
        self._lock = threading.Lock()
        self._closings = 0
        """Number of calls of `close`; a run that began before the last one ends after its batch."""

    def run(self, job: ExportJob) -> ExportReport:
        """Run *job* once in this thread; only a store without an outbox raises, `CapabilityMissing`."""
        with suppress_instrumentation():
            report = self._run(job)
        with self._lock:
            self._history(job).note(report)
        return report

    def redeliver(
        self, job: ExportJob, records: Iterable[Record], *, settle: Callable[[BatchOutcome], object]
    ) -> ExportReport:
        """Deliver *records* again by the exporter of *job*; call *settle* after each batch.

        No claim is needed and none is made: delivering a record again changes nothing if the target can tell, and
        the exporter's place stays where it is. An exception ends the delivery and is reported.
        """
        report = ExportReport(exporter=job.name)
        waiting = iter(records)
        try:
            with suppress_instrumentation():
                export = partial(hand_over, self._exporter(job).export)
                while batch := list(islice(waiting, job.batch_size)):
                    outcome = deliver_batch(export, batch, record_filter=job.record_filter)
                    settle(outcome)
                    report = with_batch(report, outcome)
        except Exception as exc:  # noqa: BLE001 - a third party's store or exporter may raise anything
            return msgspec.structs.replace(report, error=describe(exc))
        return report

    def try_out(self, job: ExportJob) -> None:
        """Call the exporter of *job* with no records, so that it raises if it knows that it cannot deliver."""
        with suppress_instrumentation():
            self._exporter(job).export(())

    def run_in_turn(self, job: ExportJob) -> None:
        """Run *job*, unless its last runs failed and the pause after them is not over."""
        with self._lock:
            waits = time.monotonic() < self._history(job).not_before
        if not waits:
            self.run(job)

    def term(self) -> Callable[[], bool]:
        """Return a callable that tells a run that begins now whether it may go on."""
        closings, deadline = self._closings, time.monotonic() + RUN_SECONDS
        return lambda: self._closings == closings and time.monotonic() < deadline

    @property
    def is_scheduled(self) -> bool:
        """Whether jobs are scheduled in this process."""
        return self._scheduler is not None

    def counts(self) -> dict[str, ExportCounts]:
        """Return what each exporter did in this process."""
        # Without the lock: a signal handler may ask in the middle of a run.
        return {name: history.counts for name, history in self._histories.copy().items()}

    def _run(self, job: ExportJob) -> ExportReport:
        try:
            store = self.open_store()
            self._register(store, job)
            exporter = self._exporter(job)
        except Exception as exc:  # a third-party store or factory may raise anything; the other exporters run
            logger.debug("the export of %s did not begin", job.name, exc_info=True)
            report = ExportReport(exporter=job.name, error=f"the export did not begin: {describe(exc)}")
            self._history(job).log(report)
            return report
        if not isinstance(store, Outbox):
            raise CapabilityMissing(store, "Outbox")
        run = ExportRun(
            store,
            exporter,
            name=job.name,
            batch_size=job.batch_size,
            lease=job.lease,
            record_filter=job.record_filter,
            suspicious=self._history(job).failures >= PATIENCE,
            go_on=self.term(),
            log=self._history(job).log,
        )
        return run.report()

    def _history(self, job: ExportJob) -> _History:
        return self._histories.setdefault(job.name, _History())

    def schedule(self, jobs: Iterable[ExportJob], *, at_once: bool = False) -> None:
        """Run *jobs* at their intervals from now on; those that are scheduled already stay."""
        for job in jobs:
            self.schedule_task(job.name, partial(self.run_in_turn, job), interval=job.interval, at_once=at_once)

    def schedule_task(
        self, name: str, run: Callable[[], object], *, interval: timedelta, at_once: bool = False
    ) -> None:
        """Call *run* at every *interval* from now on, first at its end or *at_once*, unless it is scheduled.

        Raises ``RuntimeError`` where no thread can be started.
        """
        with self._lock:
            scheduler = self._started_scheduler()
            if name not in self._scheduled:
                # The scheduler's thread must hold nothing of the app, which is collected when nobody else does.
                scheduler.add(name, partial(_run_scheduled, ref(self), name), interval=interval, at_once=at_once)
                self._scheduled[name] = run

    def scheduled(self, name: str) -> Callable[[], object] | None:
        """Return what is called at the intervals of *name*; ``None`` once it is not scheduled any more."""
        return self._scheduled.get(name)

    def close(self, timeout: float) -> bool:
        """Stop scheduling and close the exporters; return False if a run outlasts *timeout* seconds."""
        with self._lock:
            scheduler, self._scheduler = self._scheduler, None
            self._scheduled.clear()
            self._closings += 1
        ended = scheduler.close(timeout) if scheduler is not None else True
        for name, exporter in self._exporters.items():
            try:
                exporter.close()
            except Exception as exc:  # noqa: BLE001 - a third-party exporter may raise anything; the others still close
                logger.warning("the exporter %s did not close: %s", name, describe(exc))
        self._exporters.clear()
        self._registered.clear()
        return ended

    def _started_scheduler(self) -> ExportScheduler:
        # APScheduler costs more than all of flask_chest to import, and most processes never schedule.
        from flask_chest.background.scheduler import ExportScheduler  # noqa: PLC0415

        if self._scheduler is None:
            self._scheduler = ExportScheduler()
        self._scheduler.start()
        return self._scheduler

    def _exporter(self, job: ExportJob) -> Exporter:
        with self._lock:
            if job.name not in self._exporters:
                self._exporters[job.name] = job.make()
            return self._exporters[job.name]

    def _register(self, store: Store, job: ExportJob) -> None:
        if job.name not in self._registered and isinstance(store, ExporterRegistry):
            store.register(job.name, start_at=job.start_at)
            self._registered.add(job.name)


def _run_scheduled(reference: ref[ExportJobs], name: str) -> None:
    delivery = reference()
    run = delivery.scheduled(name) if delivery is not None else None
    if run is not None:
        run()
