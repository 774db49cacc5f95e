"""The page for those who come from the older project: its example runs unchanged, and does what it did."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from documents import Page, run, shape
from flask_server import answer, serving

ROOT = Path(__file__).parents[2]
PAGE = Page(ROOT / "docs" / "older.md")
(EXAMPLE,) = PAGE.programs()


@pytest.mark.slow
def test_example_runs(tmp_path: Path) -> None:
    run(EXAMPLE, tmp_path)


def test_example_is_the_original_one_and_is_what_the_demo_serves() -> None:
    example = (ROOT / "examples" / "readme_app.py").read_text(encoding="utf-8")
    assert example == EXAMPLE


@pytest.mark.slow
def test_example_serves_records_and_answers_the_sql(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(EXAMPLE)
    code = (
        "import shop\n"
        "client = shop.app.test_client()\n"
        "assert client.get('/').text == client.post('/').text == 'Hello, World!'\n"
        "newest, oldest = shop.chest.query()\n"
        "assert (newest.method, dict(newest.variables)) == ('POST', {})\n"
        "assert oldest.variables['user_id'] == '123' and oldest.variables['session_id'] == 'abc'\n"
        "assert 0.1 <= oldest.variables['total_time'] < 5 and oldest.duration_ns >= 100_000_000\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    (block,) = Page(ROOT / "docs" / "asking.md").blocks("sql")
    with closing(sqlite3.connect(tmp_path / "db.sqlite3")) as connection:
        ((route, count, mean),) = connection.execute(block.code.replace("'price'", "'total_time'")).fetchall()
    assert (route, count) == ("/", 1)
    assert mean >= 0.1


@pytest.mark.slow
def test_demo_prints_what_the_page_shows() -> None:
    (block,) = PAGE.blocks("console", "demo")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("INFLUXDB_")}
    command = [sys.executable, "-m", "examples.demo", "--requests", "60"]
    result = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert shape(result.stdout) == shape(block.code)


@pytest.mark.slow
def test_example_serves_by_its_own_app_run(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(EXAMPLE)
    # On a port that is free: the example's is 5000, which somebody may have.
    code = (
        "import functools, runpy, flask\n"
        "flask.Flask.run = functools.partialmethod(flask.Flask.run, port=0)\n"
        "runpy.run_path('program.py', run_name='__main__')\n"
    )
    with serving(["-u", "-c", code], tmp_path) as port:
        for method in ("GET", "POST"):
            assert answer(port, "/", method) == "Hello, World!"
    with closing(sqlite3.connect(tmp_path / "db.sqlite3")) as database:
        kept = database.execute("SELECT method, status_code FROM flask_chest ORDER BY position").fetchall()
    assert kept == [("GET", 200), ("POST", 200)]
