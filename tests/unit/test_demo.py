"""`make demo` ends by itself and shows what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
REQUESTS = 20


@pytest.fixture(scope="module")
def demo() -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFLUXDB_")}
    return subprocess.run(
        [sys.executable, "-m", "examples.demo", "--requests", str(REQUESTS)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_demo_succeeds_and_leaves_nothing_on_stderr(demo: subprocess.CompletedProcess[str]) -> None:
    assert (demo.returncode, demo.stderr) == (0, "")
    assert demo.stdout.endswith("\nEvery request was kept and delivered.\n")


def test_demo_counts_records_by_method_and_status(demo: subprocess.CompletedProcess[str]) -> None:
    assert f"Sent {REQUESTS} requests" in demo.stdout
    assert f"The chest holds {REQUESTS} records" in demo.stdout
    assert re.search(r"^  GET     200     10$", demo.stdout, re.MULTILINE)
    assert re.search(r"^  POST    200     10$", demo.stdout, re.MULTILINE)


def test_demo_shows_the_last_five_records_with_their_variables(
    demo: subprocess.CompletedProcess[str],
) -> None:
    row = re.compile(
        r"^  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  (GET|POST) +/ +200 +\d+\.\d ms +(\{.*\})$", re.MULTILINE
    )
    rows = row.findall(demo.stdout)
    assert len(rows) == 5
    gets = [variables for method, variables in rows if method == "GET"]
    assert all('"user_id": "123"' in variables and '"total_time": 0.1' in variables for variables in gets)
    assert gets


def test_demo_shows_what_was_delivered_and_says_that_the_target_is_a_stand_in(
    demo: subprocess.CompletedProcess[str],
) -> None:
    assert "Delivered to a stand-in, since INFLUXDB_URL is not set:" in demo.stdout
    assert f"The stand-in received {REQUESTS} points in line protocol. Two of them:" in demo.stdout
    points = re.findall(r"^flask_chest,\S*method=\S+ .*duration.* \d{19}$", demo.stdout, re.MULTILINE)
    assert len(points) == 2


def test_demo_fails_when_the_target_does_not_answer() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo", "--requests", "2"],
        cwd=ROOT,
        env={**os.environ, "INFLUXDB_URL": "http://127.0.0.1:1", "INFLUXDB_TOKEN": "s3cret"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "Delivered to the InfluxDB at http://127.0.0.1:1:" in done.stdout
    assert "NOT every request was kept and delivered." in done.stdout
    assert "s3cret" not in done.stdout + done.stderr
