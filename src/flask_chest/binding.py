"""One chest on one app: its settings, its store in this process, its exporters, its counts."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence

from flask_chest.capture import TrackedNames
from flask_chest.delivery import Delivery, ExportJob
from flask_chest.errors import ChestError
from flask_chest.protocols import Flushable, RequestIdGenerator, Sink, Store, hand_over
from flask_chest.record import Record
from flask_chest.settings import Settings
from flask_chest.stats import ChestStats, Tally

logger = logging.getLogger("flask_chest")


class Binding:
    """What `FlaskChest` keeps for each app that it is registered on."""

    def __init__(
        self,
        *,
        chest: object,
        settings: Settings,
        make_store: Callable[[], Store],
        request_id_generator: RequestIdGenerator | None,
    ) -> None:
        self.chest = chest
        self.settings = settings
        self.request_id_generator = request_id_generator
        self.tracked = None if settings.tracked_vars is None else TrackedNames.parse(settings.tracked_vars)
        """What is captured on every route; ``None``: only decorated views are recorded."""
        self.tally = Tally(logger)
        self.delivery = Delivery(self.open_store)
        self._make_store = make_store
        self._store: Store | None = None
        self._opened = False
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self.instance = self._name_instance()
        self.started = False
        """Whether a request was served in this process."""

    def _name_instance(self) -> str:
        return f"{self.settings.instance}:{os.getpid()}"

    @property
    def store(self) -> Store:
        """The store of this process, made but perhaps never opened: looking at it creates nothing."""
        self.own_process()
        with self._lock:
            if self._store is None:
                self._store = self._make_store()
            return self._store

    def open_store(self) -> Store:
        """Give the store of this process, opened; raise `StoreError` when it cannot be."""
        store = self.store
        with self._lock:
            if not self._opened:
                store.open()
                self._opened = True
        return store

    def sink(self) -> Sink:
        """Give what takes records in this process."""
        return self.open_store()

    def keep(self, record: Record) -> None:
        """Hand *record* to the sink. A failure is counted and logged; under ``strict`` it is raised."""
        self.tally.captured()
        try:
            hand_over(self.sink().write, (record,))
        except Exception as exc:
            self.tally.lost("a record was not taken by the store", exc)
            if self.settings.strict:
                raise
        else:
            self.tally.stored()

    def mishap(self, reason: str, error: Exception) -> None:
        """Count a mishap of the recording itself; raise *error* under ``strict``."""
        self.tally.fault(reason, error)
        if self.settings.strict:
            raise error

    def stats(self) -> ChestStats:
        """Copy the counts of this process."""
        queue = self._queue()
        return self.tally.snapshot(waiting=queue.waiting() if queue is not None else 0)

    def flush(self, timeout: float) -> bool:
        """Wait until all that was taken is in the store; False when *timeout* seconds did not suffice."""
        queue = self._queue()
        return queue.flush(timeout) if queue is not None else True

    def start_jobs(self, jobs: Sequence[ExportJob], *, testing: bool) -> None:
        """Schedule *jobs* in this process unless the settings say otherwise."""
        self.started = True
        mode = self.settings.scheduler
        if jobs and (mode == "on" or (mode == "auto" and not testing)):
            self.delivery.schedule(jobs)

    def close(self, timeout: float) -> bool:
        """Stop the exporters and close the store; False when something was left undone at *timeout*.

        The binding stays usable: the next record opens the store again.
        """
        self.own_process()
        flushed = self.flush(timeout)
        ended = self.delivery.close(timeout)
        with self._lock:
            store, self._store, self._opened = self._store, None, False
        if store is not None:
            try:
                store.close()
            except ChestError as exc:
                self.tally.fault("the store did not close", exc)
        return flushed and ended

    def _queue(self) -> Flushable | None:
        """Give the sink of this process if it keeps later than it takes."""
        self.own_process()
        sink = self._store
        if sink is None:
            return None
        return sink if isinstance(sink, Flushable) else None

    def own_process(self) -> None:
        """Start afresh if this process was forked from the one that last used this binding."""
        # A lock may be held in the parent by a thread that does not exist here: only assign.
        if self._pid != os.getpid():
            self._lock = threading.Lock()
            self._store = None
            self._opened = False
            self.tally = Tally(logger)
            self.delivery.forget_process()
            self.started = False
            self._pid = os.getpid()
            self.instance = self._name_instance()
