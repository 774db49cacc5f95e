"""The tutorial does what it says."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.web_servers import PATIENCE, happens

from documents import Page, shape
from flask_server import answer, serving

PAGE = Page(Path(__file__).parents[2] / "docs" / "tutorial.md")


@pytest.mark.slow
def test_tutorial_does_what_it_says(tmp_path: Path) -> None:
    for block in PAGE.blocks("python", "file: "):
        (tmp_path / block.mark.removeprefix("file: ")).write_text(block.code)
    (buying,), (asking,) = PAGE.blocks("console", "buying"), PAGE.blocks("console", "asking")

    def printed(command: str) -> str:
        asked = [sys.executable, "-m", *shlex.split(command)]
        return subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    with serving(["-m", "flask", "--app", "shop", "run", "--port", "0"], tmp_path) as port:
        _, *visits = buying.code.split("$ ")[1:]
        for command, _, shown in (visit.partition("\n") for visit in visits):
            url = command.split()[-1]
            found = answer(port, url.removeprefix("http://127.0.0.1:5000"))
            assert not shown or found == shown.rstrip("\n")
        for command, _, shown in (part.partition("\n") for part in asking.code.split("$ ")[1:]):

            def is_shown(command: str = command, shown: str = shown) -> bool:
                return shape(printed(command)) == shape(shown)

            assert happens(is_shown, seconds=PATIENCE)
        assert "Not Found" in answer(port, "/chest")

    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shop.py"]
    assert "1 passed" in subprocess.run(test, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True).stdout
