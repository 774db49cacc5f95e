"""The README's code blocks do what the README says."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path

import pytest
from benchmarks.web_servers import PATIENCE, happens

from documents import Block, Page, run

ROOT = Path(__file__).parents[2]
PAGE = Page(ROOT / "README.md")
blocks, programs = PAGE.blocks, PAGE.programs


@pytest.mark.parametrize("program", programs(), ids=lambda program: program.split("\n", 1)[0])
def test_program_runs(program: str, tmp_path: Path) -> None:
    run(program, tmp_path)


def test_there_are_programs_to_run() -> None:
    assert len(programs()) == 6


@pytest.mark.slow
@pytest.mark.parametrize(("block", "least"), list(zip(blocks("python", "file: "), [50, 2], strict=True)), ids=str)
def test_tests_for_users_pass(block: Block, least: int, tmp_path: Path) -> None:
    path = tmp_path / block.mark.removeprefix("file: ")
    path.write_text(block.code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path.name]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed is not None
    assert int(passed[1]) >= least


def test_example_is_the_original_one_and_is_what_the_demo_serves() -> None:
    example = (ROOT / "examples" / "readme_app.py").read_text(encoding="utf-8")
    assert programs()[0] == example


@pytest.mark.slow
def test_example_serves_records_and_answers_the_sql(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(programs()[0])
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
    (block,) = blocks("sql")
    with contextlib.closing(sqlite3.connect(tmp_path / "db.sqlite3")) as connection:
        ((route, count, mean),) = connection.execute(block.code).fetchall()
    assert (route, count) == ("/", 1)
    assert mean >= 0.1


def shape(output: str) -> set[str]:
    """Give the lines of a demo's output without what differs from run to run: numbers, ids, widths, order."""
    for pattern, word in [
        (r"instance=[^,]+", "instance=I"),
        (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID"),
        (r"[0-9.:]+", "N"),
        (r"-{2,}", "-"),
        (r" +", " "),
    ]:
        output = re.sub(pattern, word, output)
    return {line.strip() for line in output.splitlines()}


@pytest.mark.slow
def test_demo_prints_what_the_readme_shows() -> None:
    (block,) = blocks("console", "demo")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("INFLUXDB_")}
    command = [sys.executable, "-m", "examples.demo", "--requests", "60"]
    result = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert shape(result.stdout) == shape(block.code)


@contextlib.contextmanager
def serving(command: Sequence[str], folder: Path) -> Iterator[int]:
    """Run Flask's own server in *folder* while the block lasts; give its port."""
    process = subprocess.Popen(
        [sys.executable, *command], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    with process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        deadline = threading.Timer(60, process.kill)
        deadline.start()
        stack.callback(deadline.cancel)
        assert process.stderr is not None
        yield next(
            int(match[1])
            for line in process.stderr
            if (match := re.search(r"Running on http://[^:]+:(\d+)", line))
        )
        process.send_signal(signal.SIGINT)
        process.stderr.read()


def answer(port: int, path: str, method: str = "GET") -> str:
    with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, path)
        return connection.getresponse().read().decode()


@pytest.mark.slow
def test_first_record_is_had_as_it_says(tmp_path: Path) -> None:
    (program,), (console,) = blocks("python", "start"), blocks("console", "start")
    (tmp_path / "app.py").write_text(program.code)
    parts = [part.split("\n", 1) for part in console.code.split("$ ")[1:]]
    run_, curl, *commands = [command for command, _ in parts]
    assert run_ == "flask run &"

    def printed(command: str) -> str:
        asked = [sys.executable, "-m", *shlex.split(command)]
        return subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    with serving(["-m", "flask", "run", "--port", "0"], tmp_path) as port:
        assert answer(port, curl.removeprefix("curl http://127.0.0.1:5000")) + "\n" == parts[1][1]
        assert happens(lambda: printed(commands[0]) != "", seconds=PATIENCE)
        for command, (_, shown) in zip(commands, parts[2:], strict=True):
            assert shape(printed(command)) == shape(shown)


@pytest.mark.slow
def test_example_serves_by_its_own_app_run(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(programs()[0])
    # On a port that is free: the example's is 5000, which somebody may have.
    code = (
        "import functools, runpy, flask\n"
        "flask.Flask.run = functools.partialmethod(flask.Flask.run, port=0)\n"
        "runpy.run_path('program.py', run_name='__main__')\n"
    )
    with serving(["-u", "-c", code], tmp_path) as port:
        for method in ("GET", "POST"):
            assert answer(port, "/", method) == "Hello, World!"
    with contextlib.closing(sqlite3.connect(tmp_path / "db.sqlite3")) as database:
        kept = database.execute("SELECT method, status_code FROM flask_chest ORDER BY position").fetchall()
    assert kept == [("GET", 200), ("POST", 200)]
