"""`flask chest index`: what is made, listed and removed, and what is said when that cannot be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

from flask_chest import FlaskChest, FlaskChestSQLite
from flask_chest.cli import chest_group
from flask_chest.errors import StoreUnavailable
from flask_chest.protocols import VariableIndex
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import make_record
from indexed_store import IndexedStore


@pytest.fixture
def store() -> IndexedStore:
    store = IndexedStore()
    store.open()
    return store


@pytest.fixture
def runner(store: IndexedStore) -> Iterator[FlaskCliRunner]:
    app = Flask("shop")
    with closing(FlaskChest(app, store=store)):
        app.cli.add_command(chest_group)
        yield app.test_cli_runner()


def said(runner: FlaskCliRunner, *arguments: str) -> str:
    result = runner.invoke(args=["chest", "index", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def refused(runner: FlaskCliRunner, *arguments: str) -> str:
    result = runner.invoke(args=["chest", "index", *arguments])
    assert result.exit_code == 1, result.output
    return result.output


def test_index_is_made_once_listed_and_removed(runner: FlaskCliRunner) -> None:
    assert said(runner, "list") == "No variable has an index: flask chest index add NAME makes one.\n"
    assert said(runner, "add", "user_id").startswith("The index on user_id took 0.")
    assert said(runner, "add", "user_id") == "user_id has an index already.\n"
    said(runner, "add", "plan")
    assert said(runner, "list") == "plan: by_plan\nuser_id: by_user_id\n"
    assert said(runner, "remove", "user_id") == "The index on user_id is removed.\n"
    assert refused(runner, "remove", "user_id") == "Error: user_id has no index; see: flask chest index list\n"


def test_index_that_the_database_does_not_use_is_listed_and_made_again(
    runner: FlaskCliRunner, store: IndexedStore
) -> None:
    store.kept["plan"] = VariableIndex(variable="plan", name="by_plan", valid=False)
    assert said(runner, "list") == (
        "plan: by_plan, which the database does not use: if nobody is making it, run flask chest index add plan\n"
    )
    found = json.loads(said(runner, "list", "--json"))
    assert found == {"variable": "plan", "name": "by_plan", "valid": False}
    said(runner, "add", "plan")
    assert said(runner, "list") == "plan: by_plan\n"


@pytest.mark.parametrize("command", ["add", "remove"])
def test_name_that_cannot_be_indexed_is_refused(runner: FlaskCliRunner, command: str) -> None:
    assert refused(runner, command, "a b") == "Error: 'a b' cannot be indexed\n"


@pytest.mark.parametrize("command", ["add", "remove"])
def test_store_that_fails_is_told_of(runner: FlaskCliRunner, store: IndexedStore, command: str) -> None:
    store.failure = StoreUnavailable("the server is away")
    assert refused(runner, command, "plan") == "Error: not available: the server is away\n"


@pytest.mark.parametrize("command", [["list"], ["add", "plan"], ["remove", "plan"]])
def test_store_without_indexes_says_so(command: list[str]) -> None:
    app = Flask("shop")
    app.cli.add_command(chest_group)
    with closing(FlaskChest(app, store=MemoryStore())):
        assert "MemoryStore does not implement VariableIndexes" in refused(app.test_cli_runner(), *command)


SLOW = """
import time
from pathlib import Path
from flask import Flask
from flask_chest import FlaskChest
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import make_record

class SlowStore(MemoryStore):
    def indexes(self):
        return []
    def add_index(self, variable):
        while not Path("done").exists():
            time.sleep(0.01)
        return True
    def index_progress(self, variable):
        return 0.25
    def remove_index(self, variable):
        return False

app = Flask("shop")
FlaskChest(app, store=SlowStore())
"""


@contextmanager
def adding_slowly(folder: Path) -> Iterator[tuple[subprocess.Popen[str], IO[bytes]]]:
    """Run the command, whose standard error is a terminal, until it has shown how far it is."""
    pty = pytest.importorskip("pty")
    (folder / "shop.py").write_text(SLOW)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flask", "--app", "shop", "chest", "index", "add", "plan"]
    with (
        os.fdopen(ours, "rb", buffering=0) as terminal,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=theirs, text=True) as running,
    ):
        os.close(theirs)
        deadline = threading.Timer(60, running.kill)
        deadline.start()
        try:
            shown = b""
            while b"\rplan: 25%, " not in shown:
                shown += terminal.read(1)
            yield running, terminal
        finally:
            deadline.cancel()
            running.kill()


def rest_of(terminal: IO[bytes]) -> str:
    shown = b""
    with suppress(OSError):  # which is how Linux ends it
        while more := terminal.read(1024):
            shown += more
    return shown.decode()


@pytest.mark.slow
def test_build_shows_on_a_terminal_how_far_it_is(tmp_path: Path) -> None:
    with adding_slowly(tmp_path) as (running, _):
        (tmp_path / "done").touch()
        assert running.stdout is not None
        assert running.stdout.read().startswith("The index on plan took ")
        assert running.wait(60) == 0


@pytest.mark.slow
def test_build_that_is_interrupted_says_what_may_be_left_and_how_to_go_on(tmp_path: Path) -> None:
    with adding_slowly(tmp_path) as (running, terminal):
        running.send_signal(signal.SIGINT)
        assert "To make it after all, run flask chest index add plan" in rest_of(terminal)
        assert running.wait(60) == 1


def test_index_in_sqlite_is_made_listed_and_removed(tmp_path: Path) -> None:
    app = Flask("shop", root_path=str(tmp_path))
    app.cli.add_command(chest_group)
    runner = app.test_cli_runner()
    with closing(FlaskChestSQLite(app, db_uri="chest.db", journal_dir="memory:")) as chest:
        chest._state.here.open_store().write([make_record(variables={"user_id": number}) for number in range(9)])
        assert said(runner, "add", "user_id").startswith("The index on user_id took 0.")
        assert said(runner, "list") == "user_id: flask_chest_by_user_id\n"
        found = runner.invoke(args=["chest", "query", "--where", "user_id=7", "--format", "jsonl"]).output
        assert json.loads(found)["variables"] == {"user_id": 7}
        assert "Error: a variable with an index must be named by" in refused(runner, "add", "user id")
        said(runner, "remove", "user_id")
        assert "No variable has an index" in said(runner, "list")


def test_absent_store_has_no_index_and_is_not_made(tmp_path: Path) -> None:
    app = Flask("shop", root_path=str(tmp_path))
    app.cli.add_command(chest_group)
    FlaskChestSQLite(app)
    runner = app.test_cli_runner()
    assert "No variable has an index" in said(runner, "list")
    assert "it is made when the first record is written" in refused(runner, "add", "plan")
    assert "plan has no index" in refused(runner, "remove", "plan")
    assert list(tmp_path.iterdir()) == []
