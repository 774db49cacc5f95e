"""The exporters of one chest on one app: registered with the store, run, and scheduled in this process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from flask_chest.errors import CapabilityMissing
from flask_chest.export import ExportReport, run_export
from flask_chest.protocols import Exporter, ExporterRegistry, Outbox, StartAt, Store
from flask_chest.stats import describe

if TYPE_CHECKING:
    from flask_chest.scheduler import ExportScheduler

logger = logging.getLogger("flask_chest.export")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportJob:
    """An exporter and how it is to be run."""

    name: str
    make: Callable[[], Exporter]
    interval: timedelta
    batch_size: int
    start_at: StartAt


@dataclass(slots=True)
class Delivery:
    """Runs export jobs from a store, now or on schedule."""

    open_store: Callable[[], Store]
    """Gives the store of the current process, ready for use."""
    _exporters: dict[str, Exporter] = field(default_factory=dict)
    _registered: set[str] = field(default_factory=set)
    _scheduler: ExportScheduler | None = None
    _scheduled: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, job: ExportJob) -> ExportReport:
        """Run *job* once in this thread; only a store without an outbox raises, `CapabilityMissing`."""
        try:
            store = self.open_store()
            self._register(store, job)
            exporter = self._exporter(job)
        except Exception as exc:  # an own store or factory may raise anything; the other exporters run
            logger.debug("the export of %s did not begin", job.name, exc_info=True)
            return ExportReport(exporter=job.name, error=f"the export did not begin{describe(exc)}")
        if not isinstance(store, Outbox):
            raise CapabilityMissing(store, "Outbox")
        return run_export(store, exporter, name=job.name, batch_size=job.batch_size)

    def schedule(self, jobs: Iterable[ExportJob]) -> None:
        """Run *jobs* at their intervals from now on; those that are scheduled already stay."""
        # APScheduler costs more than all of flask_chest to import, and most processes never schedule.
        from flask_chest.scheduler import ExportScheduler  # noqa: PLC0415

        with self._lock:
            self._scheduler = self._scheduler or ExportScheduler()
            for job in jobs:
                if job.name not in self._scheduled:
                    self._scheduler.add(job.name, self._bind(job), interval=job.interval)
                    self._scheduled.add(job.name)
            self._scheduler.start()

    def close(self, timeout: float) -> bool:
        """Stop scheduling and close the exporters; False when a run goes on after *timeout* seconds."""
        with self._lock:
            scheduler, self._scheduler = self._scheduler, None
            self._scheduled.clear()
        ended = scheduler.close(timeout) if scheduler is not None else True
        for name, exporter in self._exporters.items():
            try:
                exporter.close()
            except Exception as exc:  # noqa: BLE001 - an own exporter may raise anything; the others still close
                logger.warning("the exporter %s did not close%s", name, describe(exc))
        self._exporters.clear()
        self._registered.clear()
        return ended

    def _bind(self, job: ExportJob) -> Callable[[], ExportReport]:
        return lambda: self.run(job)

    def _exporter(self, job: ExportJob) -> Exporter:
        with self._lock:
            if job.name not in self._exporters:
                self._exporters[job.name] = job.make()
            return self._exporters[job.name]

    def _register(self, store: Store, job: ExportJob) -> None:
        if job.name not in self._registered and isinstance(store, ExporterRegistry):
            store.register(job.name, start_at=job.start_at)
            self._registered.add(job.name)
