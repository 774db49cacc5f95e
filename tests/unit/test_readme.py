"""The README's code blocks do what the README says."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.web_servers import PATIENCE, happens

from documents import Page, run, shape
from flask_server import answer, serving

README = Path(__file__).parents[2] / "README.md"
PAGE = Page(README)
MOST_LINES = 200


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2))
def test_program_runs(number: int, tmp_path: Path) -> None:
    run(PAGE.programs()[number], tmp_path)


def test_every_program_is_run() -> None:
    assert len(PAGE.programs()) == 2


def test_it_is_read_in_minutes() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.slow
def test_first_record_is_had_as_it_says(tmp_path: Path) -> None:
    (program,), (console,) = PAGE.blocks("python", "start"), PAGE.blocks("console", "start")
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
