"""What type checkers say of a user's code: nothing of right code, the right thing of wrong code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests" / "typing").glob("*.py"))

Place = tuple[str, int]


def expected(checker: str) -> dict[Place, str]:
    """Read the comments ``# by <checker>: fragment of the message``; each is about the next line of code."""
    found: dict[Place, str] = {}
    for path in FILES:
        fragment = ""
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.startswith("#"):
                found |= {(path.name, number): fragment} if fragment else {}
                fragment = ""
            elif line.startswith(f"# by {checker}: "):
                fragment = line.removeprefix(f"# by {checker}: ")
    return found


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode in {0, 1}, result.stdout + result.stderr
    return result.stdout


def by_mypy() -> Mapping[Place, str]:
    """Ask mypy, errors with the notes that explain them."""
    said: defaultdict[Place, str] = defaultdict(str)
    for line in run("mypy", "--output", "json", "--config-file", "mypy.ini", *map(str, FILES)).splitlines():
        message = json.loads(line)
        said[Path(message["file"]).name, message["line"]] += f"{message['message']}\n{message['hint'] or ''}\n"
    return said


def by_pyright(tmp_path: Path) -> Mapping[Place, str]:
    """Ask basedpyright with the project's settings, but for the exclusion of the files with mistakes."""
    settings = {
        "include": [str(path) for path in FILES],
        "extraPaths": [str(ROOT / "src")],
        "stubPath": str(ROOT / "stubs"),
        "pythonVersion": "3.11",
        "typeCheckingMode": "standard",
    }
    config = tmp_path / "pyrightconfig.json"
    config.write_text(json.dumps(settings))
    command = ["basedpyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(config)]
    said: defaultdict[Place, str] = defaultdict(str)
    for message in json.loads(run(*command))["generalDiagnostics"]:
        place = (Path(message["file"]).name, message["range"]["start"]["line"] + 1)
        said[place] += re.sub(r"\s+", " ", message["message"]) + "\n"
    return said


def compare(said: Mapping[Place, str], wanted: Mapping[Place, str]) -> None:
    assert {place: text for place, text in said.items() if place not in wanted} == {}
    missing = {
        place: (want, said.get(place)) for place, want in wanted.items() if want not in said.get(place, "")
    }
    assert missing == {}


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_every_wrong_file_expects_errors_and_no_right_one_does(checker: str) -> None:
    files = {name for name, _ in expected(checker)}
    assert files == {path.name for path in FILES if path.name.startswith("wrong_")}
    assert {path.name.partition("_")[0] for path in FILES} == {"right", "wrong"}


def test_mypy_says_what_is_wrong_and_nothing_else() -> None:
    compare(by_mypy(), expected("mypy"))


def test_pyright_says_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    compare(by_pyright(tmp_path), expected("pyright"))
