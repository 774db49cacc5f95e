"""What a chest delivers and deletes: its exporters, now, on schedule or once more, and retention."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from weakref import WeakKeyDictionary

from flask import Flask

from flask_chest.background.export_run import DEFAULT_BATCH_SIZE, DEFAULT_LEASE, ExportReport
from flask_chest.background.exports import ExportJob
from flask_chest.background.redelivery import Redelivered
from flask_chest.background.retention import RetentionReport
from flask_chest.background.selection import Selection
from flask_chest.errors import CapabilityMissing, ConfigurationError, describe
from flask_chest.extension.reading import ChestReader
from flask_chest.extension.state import Binding
from flask_chest.protocols import Exporter, Rejections, StartAt
from flask_chest.record import Record

DEFAULT_INTERVAL = timedelta(minutes=5)


class ChestDeliverer(ChestReader):
    """The part of `FlaskChest` that exports from its store, and deletes from it what is too much."""

    _bindings: WeakKeyDictionary[Flask, Binding]
    _jobs_for_all: dict[str, Callable[[Mapping[str, object]], ExportJob]]
    """What makes, of its settings, the job of each app that is not added for one app; by the exporters' names."""

    @abstractmethod
    def start(self, app: Flask) -> None:
        """Begin in this process to run the jobs of *app*."""

    def add_exporter(
        self,
        exporter: Exporter | Callable[[], Exporter],
        *,
        app: Flask | None = None,
        interval: timedelta = DEFAULT_INTERVAL,
        name: str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        lease: timedelta = DEFAULT_LEASE,
        start_at: StartAt = "beginning",
        filter: Callable[[Record], bool] | None = None,  # noqa: A002 - the word for it
        transform: Callable[[Record], Record | None] | None = None,
    ) -> None:
        """Deliver this chest's records by *exporter* at every *interval*, from the first request on.

        Those of *app*, on which the chest is registered; without it those of every app, also of later ones.
        A callable is called for an exporter in each process, and needs a *name*. Delivery goes on where it
        ended for this name, in whichever process: rename an exporter and it begins anew at *start_at*.
        When a process is killed in the middle of a delivery, another one takes it up after the time of *lease*.
        *filter* says which records it is to have; *transform* changes them on the way, or makes them ``None``
        for none, and leaves their id as it is. A record at which one of the two raises is set aside.
        Raises `ConfigurationError` for a name that is taken.
        """
        job = ExportJob.checked(
            exporter,
            interval=interval,
            name=name,
            batch_size=batch_size,
            lease=lease,
            start_at=start_at,
            selection=Selection(wanted=filter, transform=transform),
        )
        self.add_job(job.name, lambda _: job, app=app)

    def add_job(
        self, name: str, job_for: Callable[[Mapping[str, object]], ExportJob], *, app: Flask | None = None
    ) -> None:
        """Add what *job_for* makes of the settings of *app*, or of those of every app."""
        if app is not None and app not in self._bindings:
            raise ConfigurationError(
                f"this chest is not registered on the app {app.name!r}; call chest.init_app(app) before"
            )
        chosen = list(self._bindings.items()) if app is None else [(app, self._bindings[app])]
        if name in self._jobs_for_all or any(name in binding.jobs for _, binding in chosen):
            raise ConfigurationError(
                f"the chest has an exporter named {name!r} already; give the second one another name=, "
                "and in an app factory each its app="
            )
        jobs = [(each, binding, job_for(each.config)) for each, binding in chosen]
        if app is None:
            self._jobs_for_all[name] = job_for
        for each, binding, job in jobs:
            binding.jobs[name] = job
            if binding.started:
                self.start(each)

    def run_exports(self, *names: str) -> list[ExportReport]:
        """Run the exporters of these *names*, or all, once, now, in this thread.

        Raises `CapabilityMissing` if the store has no outbox, `ConfigurationError` for a name that none has.
        """
        binding = self.binding()
        jobs = [self._job(name) for name in names or binding.jobs]
        self._await_own_records()
        return [binding.delivery.run(job) for job in jobs]

    def replay(self, name: str, *, since: datetime | None = None, until: datetime | None = None) -> ExportReport:
        """Deliver what began from *since* until before *until* once more by the exporter *name*, now.

        For a target that has lost something: what it has, it is to tell by the records' ids. Where the exporter
        goes on is not changed, and what it refuses is counted and not set aside. An error ends it and is told.
        """
        job = self._job(name)
        found = self.iter(since=since, until=until)
        return self._again(job, lambda: found, lambda _: None)

    def retry_rejected(self, name: str, record_ids: Sequence[str] = ()) -> ExportReport:
        """Deliver once more what was set aside for the exporter *name*: these records, or all.

        What is delivered, or wanted no more, is not set aside any more; what is refused again is.
        """
        job, store = self._job(name), self._rejections()
        ids = self._set_aside(store, name, record_ids)
        records = (record for each in ids for record in self.iter(id=each))
        return self._again(
            job, lambda: records, lambda batch: store.discard(name, [*batch.delivered, *batch.filtered])
        )

    def drop_rejected(self, name: str, record_ids: Sequence[str] = ()) -> int:
        """Forget what was set aside for the exporter *name*, these records or all; give how many those were."""
        store = self._rejections()
        return store.discard(name, self._set_aside(store, name, record_ids))

    def export_obstacle(self, name: str) -> str | None:
        """Say why the exporter *name* can deliver nothing, as far as it knows without a record to deliver."""
        job = self._job(name)
        try:
            self.binding().delivery.try_out(job)
        except Exception as exc:  # noqa: BLE001 - an own exporter, or what makes it, may raise anything
            return describe(exc).removeprefix(": ")
        return None

    def _job(self, name: str) -> ExportJob:
        jobs = self.binding().jobs
        if name not in jobs:
            raise ConfigurationError(f"the chest has no exporter named {name!r}, only {list(jobs)}")
        return jobs[name]

    def _rejections(self) -> Rejections:
        store = self.binding().open_store()
        if not isinstance(store, Rejections):
            raise CapabilityMissing(store, "Rejections")
        return store

    def _set_aside(self, store: Rejections, name: str, record_ids: Sequence[str]) -> list[str]:
        known = [each.record_id for each in store.rejections(name)]
        for record_id in record_ids:
            if record_id not in known:
                raise ConfigurationError(f"no record {record_id!r} was set aside for {name!r}")
        return [each for each in known if not record_ids or each in record_ids]

    def _again(
        self, job: ExportJob, find: Callable[[], Iterable[Record]], note: Callable[[Redelivered], object]
    ) -> ExportReport:
        delivered = filtered = rejected = 0
        error: str | None = None
        try:
            for batch in self.binding().delivery.redeliver(job, find()):
                note(batch)
                delivered += len(batch.delivered)
                filtered += len(batch.filtered)
                rejected += len(batch.rejected)
        except Exception as exc:  # noqa: BLE001 - an own store or exporter may raise anything
            error = describe(exc).removeprefix(": ")
        return ExportReport(
            exporter=job.name, delivered=delivered, filtered=filtered, rejected=rejected, error=error
        )

    def run_retention(self) -> RetentionReport:
        """Delete what is beyond ``CHEST_RETENTION`` and its cap, once, now, in this thread.

        Raises `CapabilityMissing` if the store cannot prune, and what the store raises.
        """
        return self.binding().run_retention()

    @property
    def exporter_names(self) -> tuple[str, ...]:
        """The names of the current app's exporters; where there is no such app, of those for every app."""
        try:
            return tuple(self.binding().jobs)
        except ConfigurationError:
            return tuple(self._jobs_for_all)
