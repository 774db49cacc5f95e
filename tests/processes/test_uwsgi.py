"""Under uWSGI, which forks without Python's hooks, every request that was answered is stored once."""

from __future__ import annotations

import signal
from collections import Counter

import pytest
from benchmarks.visits import APP, Site
from benchmarks.web_servers import serving, uwsgi, visit_all, visit_until

MASTER = ("--master", "--processes=3")
# Without it uWSGI kills its workers when it is asked to end, and not all of them get round to Python's atexit.
GRACEFUL = ("--hook-master-start", "unix_signal:15 gracefully_kill_them_all")
lazy_or_not = pytest.mark.parametrize("lazy", [[], ["--lazy-apps"]], ids=["", "lazy-apps"])


@lazy_or_not
def test_a_server_that_is_asked_to_end_stores_all_it_answered(site: Site, lazy: list[str]) -> None:
    command = uwsgi(APP, site.address, *MASTER, *GRACEFUL, "--enable-threads", *lazy)
    with serving(command, address=site.address, environ=site.environ) as server:
        answered = visit_until(site.address, processes=3)  # one that still loads the app misses the signal
        server.send(signal.SIGTERM)
        server.wait_until_gone()
    assert site.stored() == Counter(answered.keys())
    assert "Traceback" not in server.log


@lazy_or_not
def test_a_server_without_threads_leaves_all_it_answered_to_the_next_process(site: Site, lazy: list[str]) -> None:
    command = uwsgi(APP, site.address, *MASTER, *lazy)
    with serving(command, address=site.address, environ=site.environ) as server:
        answered = visit_all(site.address, map(str, range(60)))
        server.send(signal.SIGTERM)
        server.wait_until_gone()
    assert site.settle(answered.keys()) == Counter(answered.keys())


def test_a_server_that_ends_without_grace_loses_nothing(site: Site) -> None:
    command = uwsgi(APP, site.address, *MASTER, "--enable-threads")
    with serving(command, address=site.address, environ=site.environ) as server:
        answered = visit_all(site.address, map(str, range(60)))
        server.send(signal.SIGTERM)
        server.wait_until_gone()
    assert site.settle(answered.keys()) == Counter(answered.keys())


@pytest.mark.parametrize("threads", [[], ["--enable-threads"]], ids=["", "enable-threads"])
def test_a_group_that_is_killed_right_after_the_last_answer_loses_nothing(site: Site, threads: list[str]) -> None:
    command = uwsgi(APP, site.address, *MASTER, *threads)
    with serving(command, address=site.address, environ=site.environ) as server:
        answered = visit_all(site.address, map(str, range(60)))
        server.send_to_all(signal.SIGKILL)
        server.wait_until_gone()
    assert site.settle(answered.keys()) == Counter(answered.keys())


def test_records_of_one_server_have_ids_and_instances_of_their_own(site: Site) -> None:
    command = uwsgi(APP, site.address, *MASTER, *GRACEFUL, "--enable-threads")
    with serving(command, address=site.address, environ=site.environ) as server:
        answered = visit_until(site.address, processes=3)
        server.send(signal.SIGTERM)
        server.wait_until_gone()
    records = site.records()
    assert len({record.id for record in records}) == len(answered)
    served_as: dict[int, set[str]] = {}
    for record in records:
        served_as.setdefault(answered[str(record.variables["visit"])], set()).add(record.instance)
    assert [len(instances) for instances in served_as.values()] == [1, 1, 1], served_as
    assert len(set.union(*served_as.values())) == 3, served_as
