"""A process that has used a chest may fork: parent and child both record, and nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
from benchmarks.visits import SUCCESSOR, Site

from folders import PYTHONPATH
from forking_app import VISITS


def run(how: str, site: Site, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # Python 3.12 and later warn of each fork beside threads, of which docs/operating.md tells.
        [
            sys.executable,
            "-W",
            "ignore:This process:DeprecationWarning",
            "-m",
            "forking_app",
            how,
            str(site.folder),
        ],
        env=os.environ | settings | {"PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def visits_of(*all_who: str) -> Counter[str]:
    return Counter(f"{who}-{number}" for who in all_who for number in range(VISITS))


@pytest.mark.parametrize("how", ["os.fork", "libc", "multiprocessing-fork", "multiprocessing-spawn"])
def test_parent_and_child_both_record(site: Site, how: str) -> None:
    done = run(how, site)
    assert (done.returncode, done.stderr) == (0, "")
    expected = visits_of("before", "parent", "child")
    assert site.settle(expected.keys()) == expected


@pytest.mark.parametrize("how", ["os.fork", "libc"])
def test_parent_and_child_that_never_reach_the_store_have_ids_of_their_own(site: Site, how: str) -> None:
    done = run(how, site, FLASK_CHEST_WRITER="off")
    assert (done.returncode, done.stderr) == (0, "")
    assert site.records() == []
    expected = visits_of("before", "parent", "child")
    assert site.settle(expected.keys()) == expected
    records = site.records()
    instances = {str(record.variables["visit"]).partition("-")[0]: record.instance for record in records}
    assert instances["before"] == instances["parent"] != instances["child"]
    # Not the time alone: where the clock was set back, parent and child both count on from the last time given.
    points = Counter(
        (record.instance, record.time_unix_nano) for record in records if record.variables["visit"] != SUCCESSOR
    )
    assert set(points.values()) == {1}


def test_journals_of_a_killed_parent_and_of_its_child_are_stored_while_that_lives_on(site: Site) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "forking_app", "orphan", str(site.folder)],
        env=os.environ | {"PYTHONPATH": PYTHONPATH, "FLASK_CHEST_WRITER": "off"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            assert process.wait(60) == -signal.SIGKILL
            everything = visits_of("before", "parent", "child")
            stored = site.settle(everything.keys())
            os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)
    assert stored == everything
    assert site.settle(everything.keys()) == everything
