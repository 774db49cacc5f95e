"""One chest on one app: its settings, its store in this process, its exporters, its counts."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flask_chest.capture import TrackedNames
from flask_chest.delivery import Delivery, ExportJob
from flask_chest.errors import StoreUnavailable
from flask_chest.protocols import Flushable, RequestIdGenerator, Sink, Store, hand_over
from flask_chest.record import Record
from flask_chest.settings import Settings
from flask_chest.stats import ChestStats, Tally, describe

logger = logging.getLogger("flask_chest")

OPEN_PAUSE_SECONDS = 1.0
"""How long a store that could not be opened is left alone."""


@dataclass(slots=True)
class _InProcess:
    """What a binding has in one process: nothing of it may cross a fork."""

    delivery: Delivery
    instance: str
    tally: Tally = field(default_factory=lambda: Tally(logger))
    lock: threading.Lock = field(default_factory=threading.Lock)
    store: Store | None = None
    opened: bool = False
    open_failure: Exception | None = None
    open_again: float = 0.0
    started: bool = False
    """Whether it was told to start."""


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
        tracked = settings.tracked_vars
        self.tracked = None if tracked is None else TrackedNames.parse(tracked.value, setting=tracked.setting)
        """What is captured on every route; ``None``: only decorated views are recorded."""
        self._make_store = make_store
        # Those of parents stay here after a fork, so that their connections are never finalised in a child.
        self._processes: dict[int, _InProcess] = {}

    @property
    def _here(self) -> _InProcess:
        pid = os.getpid()
        here = self._processes.get(pid)
        if here is None:
            # setdefault, not a lock: one held at a fork would be held for ever, and setdefault is atomic.
            fresh = _InProcess(Delivery(self.open_store), f"{self.settings.instance}:{pid}")
            here = self._processes.setdefault(pid, fresh)
        return here

    @property
    def tally(self) -> Tally:
        """The counts of this process."""
        return self._here.tally

    @property
    def delivery(self) -> Delivery:
        """The exporters of this process."""
        return self._here.delivery

    @property
    def instance(self) -> str:
        """The name of this process in `Record.instance`."""
        return self._here.instance

    @property
    def started(self) -> bool:
        """Whether this process has begun to serve requests."""
        return self._here.started

    @property
    def store(self) -> Store:
        """The store of this process, made but perhaps never opened: looking at it creates nothing."""
        here = self._here
        with here.lock:
            return self._made(here)

    def open_store(self) -> Store:
        """Give the store of this process, opened; raise `StoreError` when it cannot be."""
        here = self._here
        with here.lock:
            store = self._made(here)
            if not here.opened:
                self._open(store, here)
            return store

    def _open(self, store: Store, here: _InProcess) -> None:
        # Requests wait here for each other: one that failed slowly is not to be repeated by each of them.
        if here.open_failure is not None and time.monotonic() < here.open_again:
            raise StoreUnavailable(
                f"the store did not open a moment ago{describe(here.open_failure)}"
            ) from here.open_failure
        try:
            store.open()
        except Exception as exc:
            here.open_failure, here.open_again = exc, time.monotonic() + OPEN_PAUSE_SECONDS
            raise
        here.opened, here.open_failure = True, None

    def _made(self, here: _InProcess) -> Store:
        if here.store is None:
            here.store = self._make_store()
        return here.store

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
        self._here.started = True
        mode = self.settings.scheduler
        if jobs and (mode == "on" or (mode == "auto" and not testing)):
            self.delivery.schedule(jobs)

    def close(self, timeout: float) -> bool:
        """Stop the exporters and close the store; False when something was left undone at *timeout*.

        The binding stays usable: the next record opens the store again.
        """
        here = self._here
        flushed = self.flush(timeout)
        ended = here.delivery.close(timeout)
        with here.lock:
            store, here.store, here.opened, here.started = here.store, None, False, False
            here.open_failure = None
        if store is not None:
            try:
                store.close()
            except Exception as exc:  # noqa: BLE001 - an own store may raise anything; the others still close
                here.tally.fault("the store did not close", exc)
        return flushed and ended

    def _queue(self) -> Flushable | None:
        """Give the sink of this process if it keeps later than it takes."""
        sink = self._here.store
        if sink is None:
            return None
        return sink if isinstance(sink, Flushable) else None
