"""The code blocks of the pages in docs/ that need no server."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from documents import Page, run
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import make_record

DOCS = Path(__file__).parents[2] / "docs"


PROGRAMS = {
    "asking.md": 1,
    "backends.md": 1,
    "capture.md": 4,
    "data.md": 1,
    "delivery.md": 3,
    "guarantees.md": 1,
    "monitoring.md": 1,
    "operating.md": 3,
    "opentelemetry.md": 2,
    "privacy.md": 1,
    "records.md": 1,
    "variables.md": 1,
    "viewer.md": 1,
    "what_to_record.md": 1,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "number"), [(page, number) for page in PROGRAMS for number in range(PROGRAMS[page])]
)
def test_program_runs_and_prints_what_is_shown(page: str, number: int, tmp_path: Path) -> None:
    shown = [block.code for block in Page(DOCS / page).blocks("console", "output")]
    assert run(Page(DOCS / page).programs()[number], tmp_path) == (shown[number] if shown else "")


@pytest.mark.parametrize(("page", "programs"), PROGRAMS.items())
def test_every_program_is_run(page: str, programs: int) -> None:
    assert len(Page(DOCS / page).programs()) == programs


RUN_MARKS = {
    "aggregates.md": {"command", "call"},
    "alembic.md": {"env.py"},
    "asking.md": {"sql"},
    "backends.md": {"output", "file"},
    "capture.md": {"sql"},
    "clickhouse.md": {"chest", "exporter", "store", "query", "answer", "grants"},
    "commands.md": {"help"},
    "data.md": {"output"},
    "databases.md": {"postgresql", "mysql", "mongodb"},
    "deployment.md": {"file"},
    "factories.md": {"shop.py", "conftest.py", "test_shop.py", "exporting.py"},
    "mongodb.md": {"chest", "query", "answer"},
    "mysql.md": {"chest", "store", "creating", "running", "query", "answer"},
    "older.md": {"demo"},
    "operating.md": {"command"},
    "postgresql.md": {"chest", "store", "creating", "running", "query", "answer"},
    "privacy.md": {"output"},
    "README.md": {"start"},
    "testing.md": {"file", "plugin"},
    "tutorial.md": {"file", "buying", "asking"},
    "users.md": {"file", "commands"},
    "variables.md": {"output"},
    "viewer.md": {"login", "password", "console"},
}
"""Page → how its marked blocks begin that some test runs; one that none runs says ``not run: `` and why."""
RUN_ELSEWHERE = {"older.md", "README.md"}
"""Pages whose programs have tests of their own."""


@pytest.mark.parametrize(
    "page", [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name
)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    left = [
        str(block)
        for block in Page(page).all
        if block.mark != "continues"
        and not block.mark.startswith("not run: ")
        and re.split("[: ]", block.mark)[0] not in RUN_MARKS.get(page.name, ())
        and not (block.language == "python" and not block.mark and page.name in {*PROGRAMS, *RUN_ELSEWHERE})
    ]
    assert left == []


def test_query_of_a_sample_estimates_requests(tmp_path: Path) -> None:
    with closing(SQLiteStore(tmp_path / "chest.db")) as store:
        store.open()
        store.write([make_record(status_code=code, route="/", sample_rate=0.1) for code in (200, 200, 503)])
    (block,) = Page(DOCS / "capture.md").blocks("sql")
    with closing(sqlite3.connect(tmp_path / "chest.db")) as connection:
        assert connection.execute(block.code).fetchall() == [("/", 30.0, pytest.approx(1 / 3))]


USERS_TESTS = {("backends.md", "archive"): 6, ("backends.md", "store"): 50, ("testing.md", "shop"): 2}
"""Page and what it tests → how many tests pass at least."""


@pytest.mark.slow
@pytest.mark.parametrize(("page", "tested", "least"), [(*about, least) for about, least in USERS_TESTS.items()])
def test_tests_for_users_pass(page: str, tested: str, least: int, tmp_path: Path) -> None:
    for block in Page(DOCS / page).blocks("python", "file: "):
        (tmp_path / block.mark.removeprefix("file: ")).write_text(block.code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"test_{tested}.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed is not None
    assert int(passed[1]) >= least
