"""Runs export jobs at their intervals in this process: the only file that knows APScheduler."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

import msgspec
from apscheduler.executors.base import BaseExecutor, MaxInstancesReachedError
from apscheduler.job import Job
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from flask_chest._process import PerProcess, signals_blocked, threads_run
from flask_chest.background.stats import LogLimit
from flask_chest.errors import describe

logger = logging.getLogger("flask_chest.scheduler")

HURRY = timedelta(seconds=5)
"""Time until a run that found no thread is tried again."""
JITTER_SHARE = 0.1
JITTER_LIMIT_SECONDS = 30.0


class ExportScheduler:
    """Runs export jobs at their intervals, in this process, in threads that do not hold up its exit.

    The first run comes one interval after the start unless it is to come at once. Every interval is lengthened
    at random, by a tenth and at most 30 seconds, so that the processes of a deployment do not all ask for the
    lease at once. No job runs twice at the same time in one process. `start` and `close` concern the current
    process alone: after a fork the child has the jobs, and neither the threads nor the locks.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, _ExportJob] = {}
        self._background = PerProcess(_Background)

    def add(self, name: str, run: Callable[[], object], *, interval: timedelta, at_once: bool = False) -> None:
        """Call *run* at every *interval*, first at its end or *at_once*, also when it has been started.

        No other job has this *name*.
        """
        background = self._background.get()
        with background.lock:
            job = self._jobs[name] = _ExportJob(name=name, run=run, interval=interval, at_once=at_once)
            background.add(job)

    def start(self) -> None:
        """Begin to run the jobs in this process; harmless when begun, without effect once closed.

        Raises ``RuntimeError`` where no thread can be started just now. Where threads never run, as under uWSGI
        without ``--enable-threads``, that is logged once.
        """
        background = self._background.get()
        with background.lock:
            background.start(self._jobs.values())

    def close(self, timeout: float) -> bool:
        """Begin no more runs and wait for those under way; return False if one outlasts *timeout* seconds."""
        background = self._background.get()
        with background.lock:
            background.stop()
        return background.threads.wait_until_idle(timeout)


class _ExportJob(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    run: Callable[[], object]
    interval: timedelta
    at_once: bool


class _Every(BaseTrigger):
    """Trigger of APScheduler at every *interval*, lengthened at random, counted from when it is asked."""

    def __init__(self, interval: timedelta) -> None:
        self._interval = interval
        self._hurries = False
        self._jitter_seconds = min(interval.total_seconds() * JITTER_SHARE, JITTER_LIMIT_SECONDS)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:  # noqa: ARG002
        """Return the next moment, whatever was missed before."""
        if self._hurries:
            self._hurries = False
            return now + min(self._interval, HURRY)
        jitter = random.uniform(0, self._jitter_seconds)  # noqa: S311 - it guards nothing
        return now + self._interval + timedelta(seconds=jitter)

    def hurry(self) -> None:
        """Be due soon, for once: the last run could not begin."""
        self._hurries = True


class _SteadyZone(tzinfo):
    """UTC by a clock that nobody sets.

    APScheduler asks for the time in its zone, and by the machine's clock: were that set back an hour, nothing
    would run for an hour. Here the answer is what the time was at first, and what has gone by since.
    """

    def __init__(self) -> None:
        self._first = datetime.now(UTC).replace(tzinfo=self)
        self._first_monotonic = time.monotonic()

    def fromutc(self, dt: datetime, /) -> datetime:  # noqa: ARG002
        """Return the time, for ``datetime.now(zone)``."""
        return self._first + timedelta(seconds=time.monotonic() - self._first_monotonic)

    def utcoffset(self, dt: datetime | None, /) -> timedelta:  # noqa: ARG002
        """Return 0."""
        return timedelta(0)

    def dst(self, dt: datetime | None, /) -> timedelta:  # noqa: ARG002
        """Return 0."""
        return timedelta(0)

    def tzname(self, dt: datetime | None, /) -> str:  # noqa: ARG002
        """Return its name in logs."""
        return "UTC"


class _Background:
    """APScheduler in one process. Whoever calls holds the lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads = _DaemonThreads()
        self._zone = _SteadyZone()
        self._scheduler: BackgroundScheduler | None = None
        self._ended = False

    def start(self, jobs: Iterable[_ExportJob]) -> None:
        """Schedule *jobs*, unless that was done or is over."""
        if self._scheduler is not None or self._ended:
            return
        # A zone of its own: APScheduler would look for the machine's, which containers often lack.
        self._scheduler = BackgroundScheduler(
            daemon=True, timezone=self._zone, executors={"default": self.threads}
        )
        for job in jobs:
            self.add(job)
        try:
            with signals_blocked():
                self._scheduler.start()
        except RuntimeError as exc:
            self._scheduler = None
            if threads_run():
                raise
            self._ended = True
            logger.warning("no exports are scheduled in process %d: %s", os.getpid(), exc)

    def add(self, job: _ExportJob) -> None:
        """Schedule *job*, if that has begun."""
        if self._scheduler is not None:
            scheduled = self._scheduler.add_job(
                job.run,
                _Every(job.interval),
                id=job.name,
                name=job.name,
                # A run that is late, because the machine slept or was busy, is still worth as much; one makes up
                # for all that were missed meanwhile.
                misfire_grace_time=None,
                coalesce=True,
                max_instances=1,
            )
            if job.at_once:
                scheduled.modify(next_run_time=datetime.now(self._zone))

    def stop(self) -> None:
        """Begin no more runs, now or later."""
        scheduler, self._scheduler, self._ended = self._scheduler, None, True
        if scheduler is not None:
            scheduler.shutdown(wait=False)


class _DaemonThreads(BaseExecutor):
    """Runs each job in a daemon thread of its own.

    The threads of APScheduler's own executor are waited for at the exit of the interpreter, however long an
    exporter's target keeps one of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._running = 0
        self._limit = LogLimit()

    def submit_job(self, job: Job, run_times: Sequence[datetime]) -> None:
        """Begin a run of *job*, unless the last one goes on.

        APScheduler would warn at each interval that is skipped so. But nothing is lost: the next run takes what
        has gathered, and an exporter that gets nothing done shows in its errors and its backlog.
        """
        try:
            super().submit_job(job, run_times)
        except MaxInstancesReachedError:
            logger.info("%s is still at work; its next run waits for the next interval", job.id)
        except RuntimeError as exc:
            if self._limit.passes("no thread"):
                logger.warning("a run of %s did not begin, and is tried again soon: %s", job.id, exc)
            if isinstance(job.trigger, _Every):
                job.trigger.hurry()

    def wait_until_idle(self, timeout: float) -> bool:
        """Wait at most *timeout* seconds until no job runs."""
        with self._changed:
            return self._changed.wait_for(lambda: self._running == 0, timeout)

    def _do_submit_job(self, job: Job, run_times: Sequence[datetime]) -> None:  # noqa: ARG002  # APScheduler's
        thread = threading.Thread(target=self._run, args=(job,), name=f"flask_chest {job.id}", daemon=True)
        with self._changed:
            thread.start()
            self._running += 1

    def _run(self, job: Job) -> None:
        try:
            job.func()
        except BaseException as exc:  # nobody is above; the job has its next interval
            # Without the message, save of our own errors: somebody else's may hold a token.
            if self._limit.passes(job.id):
                logger.error("the run of %s failed: %s", job.id, describe(exc))  # noqa: TRY400
            logger.debug("the run of %s failed", job.id, exc_info=True)
        finally:
            self._run_job_success(job.id, [])
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
