"""What type checkers say of a user's code: nothing of right code, the right thing of wrong code."""

from __future__ import annotations

import json
import operator
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests" / "typing").glob("*.py"))

Place = tuple[str, int]
Messages = Mapping[Place, list[str]]


def expected(checker: str) -> Messages:
    """Read the comments ``# by <checker>: fragment``: each is one error in the next line of code."""
    found: defaultdict[Place, list[str]] = defaultdict(list)
    for path in FILES:
        fragments: list[str] = []
        for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), "end of file"], 1):
            comment = line.lstrip()
            if comment.startswith(f"# by {checker}: "):
                fragments.append(comment.removeprefix(f"# by {checker}: "))
            elif fragments and not comment.startswith("#"):
                found[path.name, number], fragments = fragments, []
    return found


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode in {0, 1}, result.stdout + result.stderr
    return result.stdout


def by_mypy() -> Messages:
    """Ask mypy with the project's settings; an error comes with the notes that explain it."""
    said: defaultdict[Place, list[str]] = defaultdict(list)
    for line in run("mypy", "--output", "json", "--config-file", "mypy.ini", *map(str, FILES)).splitlines():
        message = json.loads(line)
        said[Path(message["file"]).name, message["line"]].append(
            one_line(f"{message['message']} {message['hint'] or ''}")
        )
    return said


def by_pyright(tmp_path: Path) -> Messages:
    """Ask basedpyright as a strict user does: below strict it infers ``Unknown`` and then is silent."""
    settings = {
        "include": [str(path) for path in FILES],
        "extraPaths": [str(ROOT / "src")],
        "stubPath": str(ROOT / "stubs"),
        "pythonVersion": "3.11",
        "typeCheckingMode": "strict",
    }
    config = tmp_path / "pyrightconfig.json"
    config.write_text(json.dumps(settings))
    command = ["basedpyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(config)]
    said: defaultdict[Place, list[str]] = defaultdict(list)
    for message in json.loads(run(*command))["generalDiagnostics"]:
        place = (Path(message["file"]).name, message["range"]["start"]["line"] + 1)
        said[place].append(one_line(message["message"]))
    return said


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def compare(said: Messages, wanted: Messages) -> None:
    """Expect one message for each fragment in its place, and no other."""
    assert {
        place: (wanted.get(place, []), said.get(place, []))
        for place in said.keys() | wanted.keys()
        if not same(said.get(place, []), wanted.get(place, []))
    } == {}


def same(messages: list[str], fragments: list[str]) -> bool:
    return len(messages) == len(fragments) and all(map(operator.contains, messages, fragments))


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_every_wrong_file_expects_errors_and_no_right_one_does(checker: str) -> None:
    files = {name for name, _ in expected(checker)}
    assert files == {path.name for path in FILES if path.name.startswith("wrong_")}
    assert {path.name.partition("_")[0] for path in FILES} == {"right", "wrong"}


@pytest.mark.slow
def test_mypy_says_what_is_wrong_and_nothing_else() -> None:
    compare(by_mypy(), expected("mypy"))


@pytest.mark.slow
@pytest.mark.skipif(version("flask") < "3.1", reason="Flask 3.0 leaves open what a decorator takes")
def test_pyright_says_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    compare(by_pyright(tmp_path), expected("pyright"))
