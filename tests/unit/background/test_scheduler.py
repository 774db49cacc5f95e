"""What ExportScheduler promises: runs at intervals, never two at once, and an exit that nobody holds up."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from types import ModuleType

import pytest

from flask_chest.background.exports import MAX_INTERVAL
from flask_chest.background.scheduler import ExportScheduler, _Every
from flask_chest.errors import TargetUnavailable

SHORT = timedelta(milliseconds=20)
DEADLINE = 10.0


class Runs:
    """A job that counts its runs."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.count = 0

    def __call__(self) -> None:
        with self._changed:
            self.count += 1
            self._changed.notify_all()

    def reach(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.count >= count, DEADLINE)


@pytest.fixture
def scheduler() -> Iterator[ExportScheduler]:
    scheduler = ExportScheduler()
    yield scheduler
    scheduler.close(DEADLINE)


def until(fact: Callable[[], bool]) -> bool:
    """Poll *fact* up to the deadline."""
    ticks = threading.Event()
    deadline = time.monotonic() + DEADLINE
    while not fact() and time.monotonic() < deadline:
        ticks.wait(0.005)
    return fact()


def scheduler_threads() -> int:
    return sum(thread.name == "APScheduler" for thread in threading.enumerate())


@pytest.mark.parametrize("started", [True, False])
def test_job_that_is_to_run_at_once_does_not_wait_for_its_interval(
    scheduler: ExportScheduler, started: bool
) -> None:
    if started:
        scheduler.start()
    runs = Runs()
    scheduler.add("now", runs, interval=timedelta(days=1), at_once=True)
    scheduler.start()
    assert runs.reach(1)
    assert runs.count == 1


def test_job_runs_again_and_again(scheduler: ExportScheduler) -> None:
    runs = Runs()
    scheduler.add("influxdb", runs, interval=SHORT)
    scheduler.start()
    assert runs.reach(3)


def test_nothing_runs_before_the_start(scheduler: ExportScheduler) -> None:
    early, clock = Runs(), Runs()
    scheduler.add("influxdb", early, interval=SHORT)
    other = ExportScheduler()
    other.add("clock", clock, interval=SHORT)
    other.start()
    assert clock.reach(3)
    assert other.close(DEADLINE)
    assert early.count == 0


def test_first_run_comes_one_interval_after_the_start(scheduler: ExportScheduler) -> None:
    interval = timedelta(seconds=0.3)
    runs = Runs()
    scheduler.add("influxdb", runs, interval=interval)
    begin = time.monotonic()
    scheduler.start()
    assert runs.reach(1)
    assert time.monotonic() - begin >= 0.95 * interval.total_seconds()  # two clocks are compared


@pytest.mark.parametrize(
    ("interval", "most"),
    [(timedelta(minutes=1), timedelta(seconds=6)), (timedelta(days=1), timedelta(seconds=30))],
)
def test_interval_is_lengthened_at_random_and_within_bounds(interval: timedelta, most: timedelta) -> None:
    last_run = datetime.now(UTC)
    trigger = _Every(interval)
    delays = {trigger.get_next_fire_time(last_run, last_run) - last_run - interval for _ in range(200)}
    rounding = timedelta(microseconds=2)
    assert -rounding <= min(delays)
    assert most / 2 < max(delays) <= most + rounding
    assert len(delays) > 100


@pytest.mark.parametrize("step", [timedelta(hours=-1), timedelta(hours=1)], ids=["back", "forward"])
def test_jobs_keep_their_interval_when_the_clock_is_set(
    scheduler: ExportScheduler, monkeypatch: pytest.MonkeyPatch, step: timedelta
) -> None:
    class SetClock:
        @staticmethod
        def now(zone: tzinfo) -> datetime:
            """Tell the time by a clock that was set, as `datetime.now` does."""
            return zone.fromutc((datetime.now(UTC) + step).replace(tzinfo=zone))

    frequent, seldom = Runs(), Runs()
    scheduler.add("frequent", frequent, interval=SHORT)
    scheduler.add("seldom", seldom, interval=timedelta(minutes=30))
    scheduler.start()
    assert frequent.reach(1)
    monkeypatch.setattr("apscheduler.schedulers.base.datetime", SetClock)
    assert frequent.reach(frequent.count + 5)
    assert seldom.count == 0


def test_job_added_while_running_runs_too(scheduler: ExportScheduler) -> None:
    scheduler.start()
    runs = Runs()
    scheduler.add("influxdb", runs, interval=SHORT)
    assert runs.reach(2)


def test_start_twice_is_one_scheduler(scheduler: ExportScheduler) -> None:
    before = scheduler_threads()
    scheduler.start()
    scheduler.start()
    assert scheduler_threads() == before + 1


def test_longest_interval_is_accepted(scheduler: ExportScheduler) -> None:
    scheduler.start()
    scheduler.add("influxdb", Runs(), interval=MAX_INTERVAL)


def test_job_that_raises_runs_again_and_is_logged_once_a_minute(
    scheduler: ExportScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    runs = Runs()

    def fail() -> None:
        runs()
        raise OSError("token s3cret refused")

    caplog.set_level(logging.INFO)
    scheduler.add("influxdb", fail, interval=SHORT)
    scheduler.start()
    assert runs.reach(3)
    assert scheduler.close(DEADLINE)
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert errors == ["the run of influxdb failed: builtins.OSError"]
    assert "s3cret" not in caplog.text


def test_traceback_of_a_failed_run_is_logged_at_debug(
    scheduler: ExportScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    runs = Runs()

    def fail() -> None:
        runs()
        raise TargetUnavailable("http://localhost:8086 does not answer")

    caplog.set_level(logging.DEBUG, logger="flask_chest")
    scheduler.add("influxdb", fail, interval=SHORT)
    scheduler.start()
    assert runs.reach(1)
    assert scheduler.close(DEADLINE)
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.DEBUG] * runs.count
    assert "the run of influxdb failed: http://localhost:8086 does not answer" in caplog.messages


def test_job_that_exits_its_thread_runs_again(scheduler: ExportScheduler) -> None:
    runs = Runs()

    def leave() -> None:
        runs()
        raise SystemExit

    scheduler.add("influxdb", leave, interval=SHORT)
    scheduler.start()
    assert runs.reach(2)


def test_job_longer_than_its_interval_never_runs_twice_at_once_and_warns_nobody(
    scheduler: ExportScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    runs, release = Runs(), threading.Event()

    def block() -> None:
        runs()
        release.wait(DEADLINE)

    caplog.set_level(logging.INFO)
    scheduler.add("influxdb", block, interval=SHORT)
    scheduler.start()
    skipped = "influxdb is still at work; its next run waits for the next interval"
    assert until(lambda: caplog.messages.count(skipped) >= 3)
    assert runs.count == 1
    release.set()
    assert runs.reach(2)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_one_job_that_hangs_does_not_hold_up_another(scheduler: ExportScheduler) -> None:
    release, runs = threading.Event(), Runs()
    scheduler.add("stuck", lambda: release.wait(DEADLINE), interval=SHORT)
    scheduler.add("influxdb", runs, interval=SHORT)
    scheduler.start()
    assert runs.reach(3)
    release.set()


def test_close_honours_its_deadline(scheduler: ExportScheduler) -> None:
    runs, release = Runs(), threading.Event()

    def block() -> None:
        runs()
        release.wait(DEADLINE)

    scheduler.add("influxdb", block, interval=SHORT)
    scheduler.start()
    assert runs.reach(1)
    begin = time.monotonic()
    assert scheduler.close(0.05) is False
    assert time.monotonic() - begin < DEADLINE / 2
    release.set()
    assert scheduler.close(DEADLINE) is True


def test_nothing_runs_after_close(scheduler: ExportScheduler) -> None:
    runs, clock = Runs(), Runs()
    scheduler.add("influxdb", runs, interval=SHORT)
    scheduler.start()
    assert runs.reach(1)
    assert scheduler.close(DEADLINE)
    kept = runs.count
    scheduler.start()
    other = ExportScheduler()
    other.add("clock", clock, interval=SHORT)
    other.start()
    assert clock.reach(3)
    assert other.close(DEADLINE)
    assert runs.count == kept


def test_close_without_start_is_harmless() -> None:
    scheduler = ExportScheduler()
    assert scheduler.close(0)
    assert scheduler.close(0)


def test_uwsgi_without_threads_is_said_once(
    scheduler: ExportScheduler, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    uwsgi = ModuleType("uwsgi")
    monkeypatch.setattr(uwsgi, "has_threads", False, raising=False)
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    scheduler.start()
    scheduler.start()
    warnings = [message for message in caplog.messages if "--enable-threads" in message]
    assert len(warnings) == 1
    assert warnings[0].startswith("no exports are scheduled in process ")
    assert scheduler.close(0)


def run_script(script: str) -> str:
    """Run *script* in an interpreter of its own; one that does not end fails the test."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_job_that_hangs_does_not_hold_up_the_exit() -> None:
    output = run_script(
        """
import datetime, threading
from flask_chest.background.scheduler import ExportScheduler
begun = threading.Event()
def hang():
    begun.set()
    threading.Event().wait()
scheduler = ExportScheduler()
scheduler.add("influxdb", hang, interval=datetime.timedelta(milliseconds=10))
scheduler.start()
assert begun.wait(10)
print("end of main")
"""
    )
    assert output == "end of main\n"


@pytest.mark.slow
def test_forked_child_starts_anew_though_the_lock_was_held() -> None:
    output = run_script(
        """
import datetime, os, threading
from flask_chest.background.scheduler import ExportScheduler
ran_in = {}
ran = threading.Event()
def run():
    ran_in[os.getpid()] = True
    ran.set()
scheduler = ExportScheduler()
scheduler.add("influxdb", run, interval=datetime.timedelta(milliseconds=10))
scheduler.start()
assert ran.wait(10)
with scheduler._background.get().lock:
    child = os.fork()
if child == 0:
    ran = threading.Event()
    scheduler.start()
    in_time = ran.wait(10)
    print("child ran", in_time and os.getpid() in ran_in, flush=True)
    os._exit(0)
os.waitpid(child, 0)
ran.clear()
print("parent goes on", ran.wait(10), scheduler.close(10))
"""
    )
    assert output.splitlines() == ["child ran True", "parent goes on True True"]


@pytest.mark.slow
def test_forked_child_of_a_closed_parent_starts() -> None:
    output = run_script(
        """
import datetime, os, threading
from flask_chest.background.scheduler import ExportScheduler
ran = threading.Event()
scheduler = ExportScheduler()
scheduler.add("influxdb", ran.set, interval=datetime.timedelta(milliseconds=10))
scheduler.close(0)
if (child := os.fork()) == 0:
    scheduler.start()
    print("child ran", ran.wait(10), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent ran", ran.is_set())
"""
    )
    assert output.splitlines() == ["child ran True", "parent ran False"]


@pytest.mark.slow
def test_forked_child_that_closes_leaves_the_parent_running() -> None:
    output = run_script(
        """
import datetime, os, threading
from flask_chest.background.scheduler import ExportScheduler
begun, release = threading.Event(), threading.Event()
def hang():
    begun.set()
    release.wait()
scheduler = ExportScheduler()
scheduler.add("influxdb", hang, interval=datetime.timedelta(milliseconds=10))
scheduler.start()
assert begun.wait(10)
if (child := os.fork()) == 0:
    print("child closed", scheduler.close(0), flush=True)
    os._exit(0)
os.waitpid(child, 0)
begun.clear()
release.set()
print("parent goes on", begun.wait(10))
"""
    )
    assert output.splitlines() == ["child closed True", "parent goes on True"]
