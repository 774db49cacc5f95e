"""One chest on one app: its settings, its intake and store in this process, its exporters, its counts."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import ParamSpec, TypeVar
from weakref import WeakMethod, WeakSet, ref

import msgspec

from flask_chest._clocks import nanoseconds
from flask_chest._process import threads_run
from flask_chest.background.backoff import pause_seconds
from flask_chest.background.exports import ExportJob, ExportJobs
from flask_chest.background.retention import INTERVAL, RetentionPolicy, RetentionReport, RetentionRun
from flask_chest.background.stats import ChestStats, Health, Tally
from flask_chest.background.suppression import suppress_instrumentation
from flask_chest.background.writer import ADOPT_SECONDS, JournalOnly, Writer, WriteThrough
from flask_chest.capture.names import Names, TrackedNames
from flask_chest.capture.rules import AppRule, BlueprintRule
from flask_chest.errors import ChestError, JournalClosed, JournalError, JournalFull, StoreUnavailable
from flask_chest.extension.endings import close_beside
from flask_chest.extension.lazy_store import LazyStore
from flask_chest.extension.settings import MEMORY, Settings
from flask_chest.journal import (
    JournalConfig,
    digest,
    forget_rejected,
    journal_folder,
    losses_in,
    open_append_only,
    open_journal,
    reopen_append_only,
    reopen_journal,
)
from flask_chest.journal.losses import JOURNAL_FULL, JOURNAL_REFUSED, NOT_TAKEN_BY_STORE, Losses
from flask_chest.journal.protocols import Appendable, Intake, Journal
from flask_chest.protocols import Addressed, Identified, RequestIdGenerator, Store, VariablesObserver
from flask_chest.record import Query, Record
from flask_chest.request_ids import continue_time_after, new_request_id

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("flask_chest")

WORKER_SECONDS = 0.25
"""How often a worker looks for what other processes have left."""
RETENTION = "flask_chest retention"
UNCLOSED = "the record of a streamed response that nobody closed was not completed"
UNCLOSED_A_REQUEST = 2
"""How many a request takes along, more than it may leave, where no writer does."""
FIRST_START_PAUSE_SECONDS = 1.0
LONGEST_START_PAUSE_SECONDS = 60.0
"""Until threads that could not be started are tried again."""
_NO_JOBS: Mapping[str, ExportJob] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalPlace:
    """What an app says of where its journals lie, and under which name."""

    root: Path
    """Folder at which a relative ``CHEST_JOURNAL_DIR`` begins."""
    default: Path
    """Parent of the journals' folders where the settings name none."""
    chest: str
    """Name of the chest."""
    app: str
    """Import name of the app: part of the identity of a store that has no address."""

    def config(self, settings: Settings, store: Store, *, testing: bool) -> JournalConfig:
        """Return how journals for *store* are kept: while *testing*, in memory unless a folder is named."""
        address = store.address if isinstance(store, Addressed) else f"{self.app} {_name_of(type(store))}"
        key = store.place if isinstance(store, Identified) else address
        chosen = settings.journal_dir
        parents = set() if testing else {self.default}
        folder = None
        if key is not None and chosen != MEMORY and (chosen or not testing):
            parent = self.root / chosen if chosen else self.default
            folder = journal_folder(parent, chest=self.chest, address=key)
            parents.add(parent)
        return JournalConfig(
            folder=folder,
            chest=self.chest,
            store=digest(address or ""),
            host=settings.instance,
            max_bytes=settings.journal_bytes,
            synchronous=settings.journal_sync,
            local=settings.journal_local,
            parents=tuple(parents),
        )


@dataclass(slots=True)
class _InProcess:
    """What a binding has in one process: nothing of it may cross a fork."""

    pid: int
    store: LazyStore
    delivery: ExportJobs
    instance: str
    tally: Tally = field(default_factory=lambda: Tally(logger))
    making: threading.RLock = field(default_factory=threading.RLock)
    """Held while the intake is made, by requests too: never while the store is called."""
    intake: Intake | None = None
    testing: bool = False
    started: bool = False
    """Whether it was told to start."""
    unclosed: deque[Callable[[], Record | None]] = field(default_factory=deque)
    """What completes the records of streams that were collected before anybody closed them."""
    failed_starts: int = 0
    start_again: float = 0.0
    """When the exporters may be tried again, by the monotonic clock."""
    works: bool = False
    """Whether it is a worker, which stores what others leave whatever the settings say."""

    @property
    def begun(self) -> bool:
        """Whether there is something to be closed."""
        return self.intake is not None or self.store.is_made or self.delivery.is_scheduled or bool(self.unclosed)


class Binding:
    """What `FlaskChest` keeps for each app that it is registered on."""

    def __init__(
        self,
        *,
        chest: object,
        settings: Settings,
        make_store: Callable[[], Store],
        store_is_lent: bool = False,
        request_id_generator: RequestIdGenerator | None,
        place: JournalPlace,
        jobs: Mapping[str, ExportJob] = _NO_JOBS,
        observer: VariablesObserver | None = None,
        blueprint_rules: Sequence[BlueprintRule] = (),
    ) -> None:
        self.chest = chest
        self.jobs = dict(jobs)
        """Its exporters, by their names."""
        self.observer = observer
        self.settings = settings
        self.request_id_generator = request_id_generator
        self.app_rule = _app_rule(settings)
        """What is captured on every route; ``None``: only decorated views are recorded."""
        self.blueprint_rules = blueprint_rules
        self.value_rules = settings.value_rules
        self.additions = Names(rename=settings.rename, computed=settings.computed)
        """What is renamed and computed in each of its records."""
        self.sampling = settings.sampling
        self.make_store = make_store
        self._store_is_lent = store_is_lent
        self._is_dropped = False
        self._place = place
        # Those of parents stay here after a fork, so that their connections are never finalised in a child.
        self._processes: dict[int, _InProcess] = {}
        self.instance = ""
        """The name of this process in `Record.instance`."""
        self._latest = self.enter()
        _bindings.add(self)

    def __del__(self) -> None:
        """End what this process does for it: the collector comes for an app that nobody holds any more."""
        here = os.getpid()
        for pid, theirs in getattr(self, "_processes", {}).items():
            if pid != here:
                _of_parents.append(theirs)
            elif theirs.begun:
                self._is_dropped = True
                close_beside(self)

    @property
    def _here(self) -> _InProcess:
        here = self._latest
        return here if here.pid == os.getpid() else self.enter()

    def enter(self) -> _InProcess:
        """Begin with nothing in this process, which may be a forked child."""
        self._leave_parents()
        pid = os.getpid()
        # setdefault, not a lock: one held at a fork would be held for ever, and setdefault is atomic.
        store = LazyStore(_making_weakly(self))
        fresh = _InProcess(pid, store, ExportJobs(store.open), f"{self.settings.instance}:{pid}")
        self._latest = here = self._processes.setdefault(pid, fresh)
        if here is fresh:
            self.instance = here.instance
        return here

    def _leave_parents(self) -> None:
        # The locks of the parent's journal go with the last of those who have its files open.
        here = os.getpid()
        for pid, theirs in list(self._processes.items()):
            if pid != here and theirs.intake is not None:
                intake, theirs.intake = theirs.intake, None
                intake.abandon()

    @property
    def tally(self) -> Tally:
        """The counts of this process."""
        return self._here.tally

    @property
    def delivery(self) -> ExportJobs:
        """The exporters of this process."""
        return self._here.delivery

    @property
    def started(self) -> bool:
        """Whether this process has begun to serve requests."""
        return self._here.started

    @property
    def store(self) -> Store:
        """The store of this process, made but perhaps never opened: looking at it creates nothing."""
        return self._here.store.made()

    def open_store(self) -> Store:
        """Give the store of this process, opened; raise `StoreError` when it cannot be."""
        return self._here.store.open()

    def keep(self, record: Record, *, take_along: bool = True) -> None:
        """Take *record*, and *take_along* two of those that were left to another thread.

        A failure is counted and logged; under ``strict`` it is raised.
        """
        here = self._latest  # the recorder begins anew in each process
        if here.unclosed and take_along:
            self._keep_unclosed(here, UNCLOSED_A_REQUEST)
        here.tally.captured()
        try:
            intake = here.intake or self._begin(here)
            intake.take(record)
        except JournalClosed:  # between our look and the call
            self._keep_anew(here, record)
        except Exception as exc:
            here.tally.lost(_why_lost(exc), exc)
            if self.settings.strict:
                raise

    def keep_opened(self, record: Record) -> None:
        """Take *record*, whose response streams; `keep` follows for its id unless this process ends before."""
        here = self._here
        # Here too: a loop of streams that nobody closes would leave them all to the writer, whose thread gets
        # Python's lock once in 5 ms then, and the opened would fill the journal.
        if here.unclosed:
            self._keep_unclosed(here, UNCLOSED_A_REQUEST)
        try:
            (here.intake or self._begin(here)).take_opened(record)
        except Exception as exc:  # noqa: BLE001 - the complete record follows
            here.tally.problem(
                "a streamed response was not noted; it would be lost if the process were killed", exc
            )

    def keep_later(self, complete: Callable[[], Record | None], /) -> None:
        """Keep the record that *complete* makes, if it makes one: another thread calls it.

        For finalizers, which may run in the middle of anything: nothing is waited for here.
        """
        here = self._latest
        here.unclosed.append(complete)  # not a SimpleQueue: gevent's has its own in its place
        if here.intake is not None:
            here.intake.wake()

    def keep_unclosed(self) -> None:
        """Keep the records of the streams that were left to another thread."""
        self._keep_unclosed(self._here)

    def _keep_unclosed(self, here: _InProcess, limit: int | None = None) -> None:
        for _ in range(len(here.unclosed) if limit is None else limit):
            try:
                complete = here.unclosed.popleft()
            except IndexError:  # another thread had the last one
                return
            try:
                record = complete()
                if record is not None:
                    self.keep(record, take_along=False)
            except Exception as exc:  # noqa: BLE001 - under strict: whoever calls has nothing to do with it
                here.tally.problem(UNCLOSED, exc)

    def _keep_anew(self, here: _InProcess, record: Record) -> None:
        with here.making:
            here.intake = self._make_intake(here)
        try:
            here.intake.take(record)
        except Exception as exc:  # noqa: BLE001 - an own store may make no journal
            here.tally.lost(_why_lost(exc), exc)

    def _begin(self, here: _InProcess) -> Intake:
        with here.making:
            if here.intake is None:
                here.intake = self._make_intake(here)
            return here.intake

    def _make_intake(self, here: _InProcess) -> Intake:
        if self.settings.strict:
            return WriteThrough(here.store.open, here.tally)
        config = self.journal_config
        if (self.settings.writer == "off" and not here.works) or not _threads_can_run():
            left = open_append_only(config)
            self._continue(here, left)
            return JournalOnly(left, here.tally, reopen=_weakly(self._reopen_left))
        journal = open_journal(config, report=here.tally.found_in_journal, identify=here.store.identify)
        self._continue(here, journal)
        pause = WORKER_SECONDS if here.works else ADOPT_SECONDS
        # Its thread must hold nothing of the app, which is collected when nobody else does.
        return Writer(
            journal,
            here.store.open,
            here.tally,
            gather=_weakly(self.keep_unclosed),
            adopt_seconds=pause,
            reopen=_weakly(self._reopen),
        )

    def _reopen(self) -> Journal | None:
        """Open the journal on disk, where that was not possible before; ``None`` where it is not yet."""
        here = self._here
        journal = reopen_journal(
            self.journal_config, report=here.tally.found_in_journal, identify=here.store.identify
        )
        if journal is not None:
            self._continue(here, journal)
        return journal

    def _reopen_left(self) -> Appendable | None:
        journal = reopen_append_only(self.journal_config)
        if journal is not None:
            self._continue(self._here, journal)
        return journal

    def _continue(self, here: _InProcess, journal: Appendable) -> None:
        self._take_name(journal.instance)
        journal.call_when_renamed(_weakly(self._take_name))
        here.tally.note_losses_by(journal.note_losses)
        continue_time_after(journal.latest_unix_nano)

    def _take_name(self, name: str) -> None:
        self._here.instance = self.instance = name

    def mishap(self, reason: str, error: BaseException) -> None:
        """Count a mishap of the recording itself; raise *error* under ``strict``."""
        self.tally.problem(reason, error)
        if self.settings.strict:
            raise error

    def stats(self) -> ChestStats:
        """Copy the counts of this process."""
        here = self._here
        waiting = here.intake.waiting() if here.intake is not None else 0
        return msgspec.structs.replace(self.tally.snapshot(waiting=waiting), exports=here.delivery.counts())

    def health(self) -> Health:
        """Look at the counts of this process and at the losses of all; a probe waits for no store."""
        here = self._here
        losses = self.losses()
        return Health(
            ok=not losses.recent(),
            store_answers=here.tally.store_answers,
            waiting=here.intake.waiting() if here.intake is not None else 0,
            lost=losses.total,
        )

    def losses(self) -> Losses:
        """Add up what was lost in this process and, where the journal has a folder, in all that share it."""
        return Losses.sum((losses_in(self.journal_config.folder), self.tally.losses()))

    def flush(self, timeout: float) -> bool:
        """Wait until all that was taken is in the store; False when *timeout* seconds did not suffice."""
        here = self._here
        self._keep_unclosed(here)
        return here.intake.flush(timeout) if here.intake is not None else True

    def start(self, *, testing: bool) -> bool:
        """Begin to serve requests in this process: open the journal and `start_jobs`; False as that."""
        here = self._here
        here.testing = testing
        here.started = True
        with suppress(Exception):  # the first record tries it again, and is counted if it fails again
            intake = self._begin(here)
            if isinstance(intake, Writer) and not intake.start_if_needed():
                return False
        return self.start_jobs()

    @property
    def journal_config(self) -> JournalConfig:
        """Where and how the journals of the processes are kept."""
        here = self._here
        return self._place.config(self.settings, here.store.made(), testing=here.testing)

    def store_left(self, orphaned: Path | None = None) -> int:
        """Store now what other processes have left in their journals, and give how many records that were.

        Or what was left in the folder *orphaned*, for whichever store it was.
        """
        here = self._here
        here.store.open()  # what cannot be stored now is told by its error
        config = self.journal_config
        if orphaned is not None:
            config = replace(config, folder=orphaned, local=True, store=None)
            journal = open_journal(config, report=here.tally.found_in_journal)
        else:
            journal = open_journal(config, report=here.tally.found_in_journal, identify=here.store.identify)
            if here.intake is None:
                here.tally.note_losses_by(journal.note_losses)
        writer = Writer(journal, here.store.open, here.tally)
        try:
            return writer.store_left()
        finally:
            journal.close()

    def work(self) -> bool:
        """Begin, in a process that serves no requests, to do what the others leave: storing and delivering.

        False means that there was no thread for that, and that it is to be tried again.
        """
        here = self._here
        with here.making:
            here.works = here.started = True
            former = here.intake if isinstance(here.intake, JournalOnly) else None
            if former is not None:
                here.intake = None
        intake = self._begin(here)
        if former is not None:
            former.close(0)
        if isinstance(intake, Writer) and not intake.start():
            return False
        return self._scheduled(at_once=True)

    def start_jobs(self) -> bool:
        """Schedule the exporters that are not, in this process, unless the settings say otherwise.

        False means that there was no thread for that, and that it is to be tried again.
        """
        here = self._here
        mode = self.settings.scheduler
        if mode == "off" or (mode == "auto" and here.testing):
            return True
        return time.monotonic() >= here.start_again and self._scheduled()

    def _scheduled(self, *, at_once: bool = False) -> bool:
        here = self._here
        try:
            self._schedule(at_once=at_once)
        except RuntimeError as exc:
            here.failed_starts += 1
            here.start_again = time.monotonic() + pause_seconds(
                here.failed_starts, first=FIRST_START_PAUSE_SECONDS, longest=LONGEST_START_PAUSE_SECONDS
            )
            here.tally.problem("there is no thread for exporters and retention just now; it is tried again", exc)
            return False
        return True

    def _schedule(self, *, at_once: bool = False) -> None:
        delivery = self.delivery
        delivery.schedule(self.jobs.values(), at_once=at_once)
        if self.retains:
            delivery.schedule_task(RETENTION, self.run_retention, interval=INTERVAL, at_once=at_once)

    @property
    def retains(self) -> bool:
        """Whether the settings limit what is kept."""
        return self.settings.retention != RetentionPolicy() or self.settings.retention_cap != RetentionPolicy()

    def run_retention(self) -> RetentionReport:
        """Delete what is beyond the limits; raise what the store raises."""
        here = self._here
        with suppress_instrumentation():
            report = RetentionRun(
                store=self.open_store(),
                limits=self.settings.retention,
                cap=self.settings.retention_cap,
                owner=f"{here.instance} {new_request_id()}",
                go_on=here.delivery.term(),
            ).report()
        here.tally.deleted(report.deleted)
        here.tally.spared(report.spared)
        if report.doubt is not None:
            # Not as the reason: it has a number in it, and each would be counted for itself.
            here.tally.problem("retention waits for a clock that is right", ChestError(report.doubt))
        elif not report.busy:
            self._forget_old_rejected()
        if report.unexported:
            here.tally.problem(
                "records that an exporter had not had were deleted at the cap of retention",
                count=report.unexported,
            )
        for name in report.absent:
            here.tally.problem(
                f"the exporter {name!r} was not seen for a week and keeps records from being deleted; "
                f"let it run, or remove it: flask chest exporters remove {name}"
            )
        return report

    def _forget_old_rejected(self) -> None:
        """Remove the refused records that are too old; the clock was found to be right."""
        age = self.settings.retention.age
        if age is not None:
            try:
                forget_rejected(
                    self.journal_config.folder, Query(until_unix_nano=time.time_ns() - nanoseconds(age))
                )
            except JournalError as exc:
                self.tally.problem("refused records beyond the limits of retention were not removed", exc)

    def close(self, timeout: float) -> bool:
        """Store what waits, stop the exporters and close the store; False when something is left at *timeout*.

        What waits in a journal on disk is not lost then. The binding stays usable: the next record opens all
        that again.
        """
        here = self._here
        deadline = time.monotonic() + timeout
        self._keep_unclosed(here)
        intake, here.intake = here.intake, None
        stored = intake.close(timeout) if intake is not None else True
        ended = here.delivery.close(max(0.0, deadline - time.monotonic()))
        store, free = here.store.take_away(max(0.1, deadline - time.monotonic()))
        if not free:
            return False  # it hangs in its opening
        here.started = False
        if store is not None and not (self._store_is_lent and self._is_dropped):  # others may hold it
            try:
                store.close()
            except Exception as exc:  # noqa: BLE001 - an own store may raise anything; the others still close
                here.tally.problem("the store did not close", exc)
        return stored and ended


def _app_rule(settings: Settings) -> AppRule | None:
    tracked = settings.tracked_vars
    if tracked is None:
        return None
    names = TrackedNames.parse(tracked.value, setting=tracked.setting)
    return AppRule(names, settings.include, settings.exclude)


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _threads_can_run() -> bool:
    """Return whether a thread of ours would run; log a warning if not."""
    if threads_run():
        return True
    logger.warning(
        "threads do not run under this uWSGI: start it with --enable-threads; until then records wait in "
        "the journal for another process"
    )
    return False


def _why_lost(error: Exception) -> str:
    if isinstance(error, JournalFull):
        return JOURNAL_FULL
    if isinstance(error, JournalError):
        return JOURNAL_REFUSED
    return NOT_TAKEN_BY_STORE


def _weakly(method: Callable[P, T]) -> Callable[P, T | None]:
    """Return what calls *method* for as long as its object is there, and returns ``None`` after that."""
    reference = WeakMethod(method)

    def call(*arguments: P.args, **named: P.kwargs) -> T | None:
        alive = reference()
        return None if alive is None else alive(*arguments, **named)

    return call


def _making_weakly(binding: Binding) -> Callable[[], Store]:
    """Return what makes the store for as long as *binding* is there."""
    reference = ref(binding)

    def make() -> Store:
        alive = reference()
        if alive is None:
            raise StoreUnavailable("the app that this store was for is gone")
        return alive.make_store()

    return make


_bindings: WeakSet[Binding] = WeakSet()
_of_parents: list[_InProcess] = []
"""What came over a fork: it is never finalised here, since its connections are the parent's."""


def _after_fork_in_child() -> None:
    for binding in list(_bindings):
        binding.enter()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
