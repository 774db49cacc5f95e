"""One chest on one app: `ChestState`, which may cross a fork, and `ProcessState`, which never does.

What was decided when the app was set up holds in every process. Stores, files, threads, locks and counts belong
to the process that made them: a forked child makes its own, and neither uses nor closes those of its parent.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import InitVar, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from weakref import WeakMethod, WeakSet, ref

import msgspec
from msgspec.structs import replace

from flask_chest._clocks import nanoseconds
from flask_chest._process import PerProcess, threads_run
from flask_chest.background.backoff import pause_seconds
from flask_chest.background.exports import ExportJob, ExportJobs
from flask_chest.background.retention import INTERVAL, RetentionReport, RetentionRun
from flask_chest.background.stats import ChestStats, Health, Tally
from flask_chest.background.suppression import suppress_instrumentation
from flask_chest.background.writer import ADOPT_SECONDS, JournalOnly, Writer, WriteThrough
from flask_chest.capture.tracking import AppRule, BlueprintRule, Names, TrackedNames
from flask_chest.errors import ChestError, JournalClosed, JournalError, JournalFull, StoreUnavailable
from flask_chest.extension.derived import Derived, Making, declarations_of, derived_from, make_if_empty
from flask_chest.extension.journal_place import JournalPlace
from flask_chest.extension.lazy_store import LazyStore
from flask_chest.extension.settings import Settings
from flask_chest.extension.shutdown import close_at_exit, close_beside
from flask_chest.journal import (
    JournalConfig,
    forget_refused,
    open_append_only,
    open_journal,
    reopen_append_only,
    reopen_journal,
)
from flask_chest.journal.losses import JOURNAL_FULL, JOURNAL_REFUSED, NOT_TAKEN_BY_STORE, Losses, losses_in
from flask_chest.journal.protocols import Appendable, Intake, Journal
from flask_chest.protocols import RequestIdGenerator, Store, VariablesObserver
from flask_chest.record import Query, Record
from flask_chest.request_ids import continue_time_after, new_request_id

if TYPE_CHECKING:
    from flask import Flask

    from flask_chest.extension.chest import FlaskChest

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("flask_chest")

WORKER_SECONDS = 0.25
"""Seconds between two looks of a worker for what other processes have left."""
RETENTION = "flask_chest retention"
UNCLOSED = "the record of a streamed response that nobody closed was not completed"
UNCLOSED_A_REQUEST = 2
"""Number of unclosed streams that a request completes: more than it may leave itself, where no writer does it."""
FIRST_START_PAUSE_SECONDS = 1.0
LONGEST_START_PAUSE_SECONDS = 60.0
"""Shortest and longest pause before threads that could not be started are tried again."""


@dataclass(kw_only=True, eq=False, repr=False)
class ChestState:
    """One chest on one app: what was set up once and holds in every process, and a `ProcessState` for each."""

    chest: FlaskChest
    app: InitVar[Flask]
    settings: Settings
    make_store: Callable[[], Store]
    store_is_lent: bool = False
    """Whether the store was given as an object, which others may hold too."""
    request_id_generator: RequestIdGenerator | None = None
    place: JournalPlace
    """Place of the journals."""
    jobs: dict[str, ExportJob] = field(default_factory=dict)
    """The exporters by name; a chest may add more at any time."""
    observer: VariablesObserver | None = None
    blueprint_rules: Sequence[BlueprintRule] = ()
    """The chest's own list, to which `FlaskChest.track` adds."""

    def __post_init__(self, app: Flask) -> None:
        self._processes = PerProcess(partial(ProcessState, self))
        self._app = ref(app)
        self.app_name = app.name
        self.app_rule = _app_rule(self.settings)
        """Rule for every route, or ``None`` if only decorated views are recorded."""
        self.additions = Names(rename=self.settings.rename, computed=self.settings.computed)
        """Names that are renamed and computed in every record."""
        self.value_rules = self.settings.value_rules
        self.sampling = self.settings.sampling
        self.latest = self.enter()
        """The `ProcessState` that was entered last.

        Requests take it as theirs, which spares them a look at the process's id: the middleware enters each
        process before its first request.
        """
        _states.add(self)

    def __del__(self) -> None:
        """Close what this process holds: the collector has found that nobody holds the app any more."""
        _of_parents.extend(self._processes.inherited())
        here = self._processes.peek()
        if here is not None:
            here.drop()

    @property
    def here(self) -> ProcessState:
        """The state of this process, which may be a forked child that no request has entered yet."""
        latest = self.latest
        return latest if latest.pid == os.getpid() else self.enter()

    def enter(self) -> ProcessState:
        """Leave what came over a fork, and return the state of this process, which becomes the `latest`."""
        for theirs in self._processes.inherited():
            theirs.abandon()
        self.latest = self._processes.get()
        return self.latest

    def derived(self) -> Derived:
        """Return what the store is to have for what is declared now, for the app, its blueprints and its views.

        Raise `ConfigurationError` if two classes would have one view.
        """
        rules = [self.app_rule, *self.blueprint_rules]
        tracked = [rule.tracked for rule in rules if rule is not None]
        return derived_from(declarations_of(self._app(), self.chest, tracked), self.settings.indexed)

    def start(self, *, testing: bool) -> bool:
        """Start in this process, and close at its end; see `ProcessState.start`."""
        close_at_exit(self)
        return self.here.start(testing=testing)

    def close(self, timeout: float) -> bool:
        """Close what this process holds; see `ProcessState.close`."""
        return self.here.close(timeout)


class ProcessState:
    """What a chest on an app has in one process: its store, intake, export jobs and counts.

    Threads hold none of it but by weak references, so that an app which nobody else holds is collected.
    """

    def __init__(self, chest_state: ChestState) -> None:
        """Take over what was decided for *chest_state*, which is not held: it holds this."""
        self._settings = chest_state.settings
        self._place = chest_state.place
        self._jobs = chest_state.jobs
        self._store_is_lent = chest_state.store_is_lent
        self._derived = _weakly(chest_state.derived)
        self.pid = os.getpid()
        self.instance = f"{self._settings.instance}:{self.pid}"
        """Name of this process in `Record.instance`."""
        self.tally = Tally(logger)
        self._store = LazyStore(_making_weakly(chest_state), opened=_weakly(self._make_if_empty))
        self._making_derived: Making | None = None
        self.exports = ExportJobs(self._store.open)
        self._making = threading.RLock()
        """Lock under which the intake is made, by requests too: never held while the store is called."""
        self.intake: Intake | None = None
        self._unclosed = deque[Callable[[], Record | None]]()
        """Functions that complete the records of streams that were collected before anybody closed them."""
        self._testing = False
        self.started = False
        """Whether this process has begun to serve requests, or to work for others that do."""
        self._works = False
        """Whether it is a worker, which stores what others leave whatever the settings say."""
        self._failed_starts = 0
        self._start_again = 0.0
        """Time by the monotonic clock from which on starting the exporters may be tried again."""
        self._is_dropped = False
        """Whether nobody holds the app any more."""

    def drop(self) -> None:
        """Close what is open, in another thread: nobody holds the app any more."""
        if self.intake is not None or self._store.is_made or self.exports.is_scheduled or self._unclosed:
            self._is_dropped = True
            close_beside(self)

    def abandon(self) -> None:
        """Leave the intake to the parent, in a forked child.

        The locks of the parent's journal go with the last process that has its files open.
        """
        intake, self.intake = self.intake, None
        if intake is not None:
            intake.abandon()

    @property
    def store(self) -> Store:
        """Store of this process, perhaps not opened: looking at it creates no file or table."""
        return self._store.made()

    def open_store(self) -> Store:
        """Return the store, opened; raise `StoreError` when it cannot be."""
        return self._store.open()

    def _make_if_empty(self, store: Store) -> None:
        try:
            with suppress_instrumentation():
                self._making_derived = make_if_empty(
                    store,
                    self._derived() or Derived(),
                    owner=f"{self.instance} {new_request_id()}",
                    failed=_weakly(self._not_derived),
                )
        except Exception as exc:  # noqa: BLE001 - a third-party store may raise anything
            self._not_derived(exc)

    def _not_derived(self, error: Exception) -> None:
        # Also under strict, as a search without an index finds the same.
        self.tally.problem("indexes or views of variables were not made; flask chest migrate makes them", error)

    def keep(self, record: Record, *, take_along: bool = True) -> None:
        """Take *record*, and with *take_along* complete two of the streams that nobody closed.

        A failure is counted and logged; under ``strict`` it is raised.
        """
        if self._unclosed and take_along:
            self.keep_unclosed(UNCLOSED_A_REQUEST)
        self.tally.captured()
        try:
            intake = self.intake or self._begin()
            intake.take(record)
        except JournalClosed:  # between our look and the call
            self._keep_again(record)
        except Exception as exc:
            self.tally.lost(_why_lost(exc), exc)
            if self._settings.strict:
                raise

    def keep_opened(self, record: Record) -> None:
        """Take *record*, whose response streams; `keep` follows for its id unless this process ends before."""
        # Here too: a loop of streams that nobody closes would leave them all to the writer, whose thread gets
        # Python's lock once in 5 ms then, and the opened would fill the journal.
        if self._unclosed:
            self.keep_unclosed(UNCLOSED_A_REQUEST)
        try:
            (self.intake or self._begin()).take_opened(record)
        except Exception as exc:  # noqa: BLE001 - the complete record follows
            self.tally.problem(
                "a streamed response was not noted; it would be lost if the process were killed", exc
            )

    def keep_later(self, complete: Callable[[], Record | None], /) -> None:
        """Let another thread keep the record that *complete* returns, if it returns one.

        For finalizers, which may run in the middle of anything: this waits for nothing.
        """
        self._unclosed.append(complete)  # not a SimpleQueue: gevent's has its own in its place
        if self.intake is not None:
            self.intake.wake()

    def keep_unclosed(self, limit: int | None = None) -> None:
        """Keep the records of streams that nobody closed, of at most *limit* of them."""
        for _ in range(len(self._unclosed) if limit is None else limit):
            try:
                complete = self._unclosed.popleft()
            except IndexError:  # another thread had the last one
                return
            try:
                record = complete()
                if record is not None:
                    self.keep(record, take_along=False)
            except Exception as exc:  # noqa: BLE001 - under strict: whoever calls has nothing to do with it
                self.tally.problem(UNCLOSED, exc)

    def _keep_again(self, record: Record) -> None:
        with self._making:
            self.intake = self._make_intake()
        try:
            self.intake.take(record)
        except Exception as exc:  # noqa: BLE001 - a third-party store may fail to be made
            self.tally.lost(_why_lost(exc), exc)

    def _begin(self) -> Intake:
        with self._making:
            if self.intake is None:
                self.intake = self._make_intake()
            return self.intake

    def _make_intake(self) -> Intake:
        if self._settings.strict:
            return WriteThrough(self._store.open, self.tally)
        config = self.journal_config
        if (self._settings.writer == "off" and not self._works) or not _threads_can_run():
            left = open_append_only(config)
            self._continue(left)
            return JournalOnly(left, self.tally, reopen=_weakly(self._reopen_left))
        journal = open_journal(config, report=self.tally.found_in_journal, identify=self._store.identify)
        self._continue(journal)
        # Its thread must hold nothing of the app, which is collected when nobody else does.
        return Writer(
            journal,
            self._store.open,
            self.tally,
            gather=_weakly(self.keep_unclosed),
            adopt_seconds=WORKER_SECONDS if self._works else ADOPT_SECONDS,
            reopen=_weakly(self._reopen),
        )

    def _reopen(self) -> Journal | None:
        """Open on disk the journal that had to begin in memory, or return ``None`` while that is not possible."""
        journal = reopen_journal(
            self.journal_config, report=self.tally.found_in_journal, identify=self._store.identify
        )
        if journal is not None:
            self._continue(journal)
        return journal

    def _reopen_left(self) -> Appendable | None:
        journal = reopen_append_only(self.journal_config)
        if journal is not None:
            self._continue(journal)
        return journal

    def _continue(self, journal: Appendable) -> None:
        self._take_name(journal.instance)
        journal.call_when_renamed(_weakly(self._take_name))
        self.tally.note_losses_by(journal.note_losses)
        continue_time_after(journal.latest_unix_nano)

    def _take_name(self, name: str) -> None:
        self.instance = name

    def problem(self, reason: str, error: BaseException) -> None:
        """Count a problem that lost no record; raise *error* under ``strict``."""
        self.tally.problem(reason, error)
        if self._settings.strict:
            raise error

    def stats(self) -> ChestStats:
        """Return a copy of the counts of this process."""
        waiting = self.intake.waiting() if self.intake is not None else 0
        return msgspec.structs.replace(self.tally.snapshot(waiting=waiting), exports=self.exports.counts())

    def health(self) -> Health:
        """Return the health by the counts of this process and the losses of all; no store is asked."""
        losses = self.losses()
        return Health(
            ok=not losses.recent(),
            store_answers=self.tally.store_answers,
            waiting=self.intake.waiting() if self.intake is not None else 0,
            lost=losses.total,
        )

    def losses(self) -> Losses:
        """Return what was lost in this process and, where the journal has a folder, in all that share it."""
        return Losses.sum((losses_in(self.journal_config.folder), self.tally.losses()))

    def flush(self, timeout: float) -> bool:
        """Wait until all that was taken is in the store; return False if that takes over *timeout* seconds."""
        self.keep_unclosed()
        return self.intake.flush(timeout) if self.intake is not None else True

    def start(self, *, testing: bool) -> bool:
        """Begin to serve requests in this process: open the journal and `start_jobs`; return what that does."""
        self._testing = testing
        self.started = True
        with suppress(Exception):  # the first record tries it again, and is counted if it fails again
            intake = self._begin()
            if isinstance(intake, Writer) and not intake.start_if_needed():
                return False
        return self.start_jobs()

    @property
    def journal_config(self) -> JournalConfig:
        """Where and how the processes keep their journals."""
        return self._place.config(self._settings, self._store.made(), testing=self._testing)

    def recover(self, orphaned: Path | None = None) -> int:
        """Store now what other processes have left in their journals, and return the number of records.

        With *orphaned*, store what was left in that folder, whichever store it was meant for.
        """
        self._store.open()  # its error tells why nothing can be stored now
        config = self.journal_config
        if orphaned is not None:
            config = replace(config, folder=orphaned, local=True, store=None)
            journal = open_journal(config, report=self.tally.found_in_journal)
        else:
            journal = open_journal(config, report=self.tally.found_in_journal, identify=self._store.identify)
            if self.intake is None:
                self.tally.note_losses_by(journal.note_losses)
        writer = Writer(journal, self._store.open, self.tally)
        try:
            return writer.recover()
        finally:
            journal.close()

    def work(self) -> bool:
        """Begin to store and deliver what other processes leave, in a process that serves no requests.

        Return False if a thread could not be started, and this has to be called again.
        """
        with self._making:
            self._works = self.started = True
            former = self.intake if isinstance(self.intake, JournalOnly) else None
            if former is not None:
                self.intake = None
        intake = self._begin()
        if former is not None:
            former.close(0)
        if isinstance(intake, Writer) and not intake.start():
            return False
        return self._scheduled(at_once=True)

    def start_jobs(self) -> bool:
        """Schedule exporters and retention that are not scheduled yet, unless the settings say otherwise.

        Return False if a thread could not be started, and this has to be called again.
        """
        mode = self._settings.scheduler
        if mode == "off" or (mode == "auto" and self._testing):
            return True
        return time.monotonic() >= self._start_again and self._scheduled()

    def _scheduled(self, *, at_once: bool = False) -> bool:
        try:
            self.exports.schedule(self._jobs.values(), at_once=at_once)
            if self._settings.retains:
                self.exports.schedule_task(RETENTION, self.run_retention, interval=INTERVAL, at_once=at_once)
        except RuntimeError as exc:
            self._failed_starts += 1
            self._start_again = time.monotonic() + pause_seconds(
                self._failed_starts, first=FIRST_START_PAUSE_SECONDS, longest=LONGEST_START_PAUSE_SECONDS
            )
            self.tally.problem("no thread could be started for exporters and retention; trying again later", exc)
            return False
        return True

    def run_retention(self) -> RetentionReport:
        """Delete what exceeds the limits, and return how much that was; raise what the store raises."""
        with suppress_instrumentation():
            report = RetentionRun(
                store=self.open_store(),
                policy=self._settings.retention,
                cap=self._settings.retention_cap,
                owner=f"{self.instance} {new_request_id()}",
                go_on=self.exports.term(),
            ).report()
        self.tally.deleted(report.deleted)
        self.tally.spared(report.spared)
        if report.doubt is not None:
            # Not as the reason: it contains a number, and each number would be counted separately.
            self.tally.problem("retention waits for a clock that is right", ChestError(report.doubt))
        elif not report.busy:
            self._forget_old_refused()
        if report.unexported:
            self.tally.problem(
                "retention_cap deleted records that an exporter had not received",
                count=report.unexported,
            )
        for name in report.absent:
            self.tally.problem(
                f"the exporter {name!r} was not seen for a week and keeps records from being deleted; "
                f"run it, or remove it: flask chest exporters remove {name}"
            )
        return report

    def _forget_old_refused(self) -> None:
        """Remove the refused records that are too old, after the clock was found to be right."""
        age = self._settings.retention.age
        if age is not None:
            try:
                forget_refused(
                    self.journal_config.folder, Query(until_unix_nano=time.time_ns() - nanoseconds(age))
                )
            except JournalError as exc:
                self.tally.problem("refused records that exceed the retention limits were not removed", exc)

    def close(self, timeout: float) -> bool:
        """Store what waits, stop the exporters and close the store, all within *timeout* seconds.

        Return False if something was left undone; what still waits in a journal on disk is not lost. The state
        stays usable: the next record opens everything again.
        """
        deadline = time.monotonic() + timeout
        self.keep_unclosed()
        intake, self.intake = self.intake, None
        stored = intake.close(timeout) if intake is not None else True
        ended = self.exports.close(max(0.0, deadline - time.monotonic()))
        if self._making_derived is not None:
            self._making_derived.join(max(0.0, deadline - time.monotonic()))
        store, free = self._store.take_away(max(0.1, deadline - time.monotonic()))
        if not free:
            return False  # the store hangs while it opens
        self.started = False
        if store is not None and not (self._store_is_lent and self._is_dropped):  # others may hold it
            try:
                store.close()
            except Exception as exc:  # noqa: BLE001 - a third-party store may raise anything; the others still close
                self.tally.problem("the store did not close", exc)
        return stored and ended


def _app_rule(settings: Settings) -> AppRule | None:
    tracked = settings.tracked_vars
    if tracked is None:
        return None
    names = TrackedNames.parse(tracked.value, setting=tracked.setting)
    return AppRule(names, settings.include, settings.exclude)


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


def _making_weakly(state: ChestState) -> Callable[[], Store]:
    """Return what makes the store for as long as *state* is there."""
    reference = ref(state)

    def make() -> Store:
        alive = reference()
        if alive is None:
            raise StoreUnavailable("the app of this store was garbage-collected")
        return alive.make_store()

    return make


_states: WeakSet[ChestState] = WeakSet()
_of_parents: list[ProcessState] = []
"""States that came over a fork: never finalised here, since their connections are the parent's."""


def _after_fork_in_child() -> None:
    for state in list(_states):
        state.enter()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
