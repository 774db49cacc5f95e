"""Under gunicorn every request that was answered is stored once."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing

import pytest
from benchmarks.visits import APP, Site
from benchmarks.web_servers import gunicorn, serving, visit, visit_all, visit_until, wait_until

WORKERS = {
    "sync": ["--worker-class=sync"],
    "gthread": ["--worker-class=gthread", "--threads=4"],
    "gevent": ["--worker-class=gevent"],
}
LOCKED_SECONDS = 3.0
every_worker = pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS)


@every_worker
@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preload"])
def test_a_server_that_is_asked_to_end_stores_all_it_answered(
    site: Site, worker: list[str], preload: list[str]
) -> None:
    command = gunicorn(APP, site.address, "--workers=2", *worker, *preload)
    with serving(command, address=site.address, environ=site.environ) as server:
        answered = visit_until(site.address, processes=2)  # one that still begins misses the signal
        server.send(signal.SIGTERM)
        server.wait_until_gone()
    assert site.stored() == Counter(answered.keys())
    assert "Traceback" not in server.log


@every_worker
def test_workers_that_are_recycled_under_load_lose_nothing(site: Site, worker: list[str]) -> None:
    # A worker that begins while the server is asked to end may miss it, and is killed at this time.
    recycle = ["--preload", "--max-requests=10", "--graceful-timeout=2"]
    command = gunicorn(APP, site.address, "--workers=2", *recycle, *worker)
    with serving(command, address=site.address, environ=site.environ) as server:
        answered = visit_until(site.address, processes=3)  # under gevent they are recycled once a second
        server.send(signal.SIGTERM)
        server.wait_until_gone()
    assert site.settle(answered.keys()) == Counter(answered.keys())


@every_worker
def test_a_group_that_is_killed_right_after_the_last_answer_loses_nothing(site: Site, worker: list[str]) -> None:
    command = gunicorn(APP, site.address, "--workers=2", *worker)
    with serving(command, address=site.address, environ=site.environ) as server:
        answered = visit_all(site.address, map(str, range(60)))
        server.send_to_all(signal.SIGKILL)
        server.wait_until_gone()
    assert site.settle(answered.keys()) == Counter(answered.keys())


@pytest.mark.parametrize("worker", [WORKERS["gthread"], WORKERS["gevent"]], ids=["gthread", "gevent"])
def test_requests_go_on_while_another_process_locks_the_database(site: Site, worker: list[str]) -> None:
    # The app waits ten minutes for the lock: a request that waits with it outlasts the client's patience.
    command = gunicorn("patient_app:serve()", site.address, "--workers=1", *worker)
    with serving(command, address=site.address, environ=site.environ) as server:
        visit(site.address, "before")
        wait_until(lambda: site.stored() == Counter(["before"]))
        with closing(sqlite3.connect(site.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            locked_until = time.monotonic() + LOCKED_SECONDS
            answered = visit_all(site.address, [f"first-{number}" for number in range(40)])
            while time.monotonic() < locked_until:
                answered |= visit_all(site.address, [f"{len(answered)}-{number}" for number in range(8)])
            assert site.stored().keys().isdisjoint(answered)
            other.execute("ROLLBACK")
        server.send(signal.SIGTERM)
        server.wait_until_gone()
    assert site.stored() == Counter(["before", *answered])
