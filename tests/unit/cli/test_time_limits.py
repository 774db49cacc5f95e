"""Questions that would take for ever: limits of time, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_chest import ConfigurationError, FlaskChest, FlaskChestSQLite, QueryTimeout
from flask_chest.cli import chest_group
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import make_record

ENDLESS = """
    ALTER TABLE flask_chest RENAME TO kept;
    CREATE VIEW flask_chest AS
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT kept.* FROM kept, n WHERE i < 0;
"""
"""Looks for the records of a chest endlessly: it finds none, so that no limit of rows ends it, in any plan."""

SECOND = timedelta(seconds=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "chest.db"
    with closing(SQLiteStore(path)) as store:
        store.open()
        store.write([make_record(variables={"user_id": 7})])
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(ENDLESS)
    return path


@pytest.fixture
def app() -> Flask:
    app = Flask("shop")
    app.cli.add_command(chest_group)
    return app


@pytest.fixture
def chest(app: Flask, path: Path) -> Iterator[FlaskChestSQLite]:
    with closing(FlaskChestSQLite(app, db_uri=str(path), journal_dir="memory:")) as chest:
        yield chest


@pytest.mark.slow
def test_question_ends_after_its_timeout(app: Flask, chest: FlaskChestSQLite) -> None:
    with app.app_context():
        with pytest.raises(QueryTimeout, match="longer than 1 s") as info:
            chest.query(where={"user_id": 7}, timeout=SECOND)
        assert info.value.unindexed == ("user_id",)
        with pytest.raises(QueryTimeout):
            next(chest.iter(timeout=SECOND))


class Noting(MemoryStore):
    """Notes how long an answer may take."""

    def __init__(self) -> None:
        super().__init__()
        self.timeouts: list[timedelta | None] = []

    def query(self, *query: Any, timeout: timedelta | None = None) -> Any:
        self.timeouts.append(timeout)
        return super().query(*query, timeout=timeout)


def test_question_may_take_30_seconds_unless_said(app: Flask) -> None:
    store = Noting()
    with closing(FlaskChest(app, store=store)) as chest, app.app_context():
        chest.query()
        chest.query(timeout=SECOND)
        chest.query(timeout=None)
        list(chest.iter(route="/"))
        list(chest.iter(timeout=None))
    assert store.timeouts == [timedelta(seconds=30), SECOND, None, timedelta(seconds=30), None]


@pytest.mark.parametrize("timeout", [timedelta(0), -SECOND, 30])
def test_timeout_of_no_time_is_refused(app: Flask, timeout: Any) -> None:
    with (
        closing(FlaskChest(app, store=MemoryStore())) as chest,
        app.app_context(),
        pytest.raises(ConfigurationError, match="timeout must be"),
    ):
        chest.query(timeout=timeout)


@pytest.mark.parametrize(
    ("arguments", "timeout"),
    [
        ((), timedelta(seconds=30)),
        (("--timeout", "5m"), timedelta(minutes=5)),
        (("--timeout", "none"), None),
        (("--timeout", "0"), None),
    ],
)
@pytest.mark.parametrize("command", [("query",), ("tail",), ("show", "7")])
def test_commands_take_a_timeout(
    app: Flask, command: tuple[str, ...], arguments: tuple[str, ...], timeout: timedelta | None
) -> None:
    store = Noting()
    store.open()
    with closing(FlaskChest(app, store=store)):
        app.test_cli_runner().invoke(args=["chest", *command, *arguments])
    assert set(store.timeouts) == {timeout}


@pytest.mark.parametrize("timeout", ["0s", "soon", "-1s", "99999999999w"])
def test_command_refuses_what_is_no_time(app: Flask, timeout: str) -> None:
    with closing(FlaskChest(app, store=MemoryStore())):
        result = app.test_cli_runner().invoke(args=["chest", "query", "--timeout", timeout])
    assert result.exit_code == 2
    assert "is not a time to wait; write 30s, 5m or 2h, or none" in result.output


@pytest.mark.slow
def test_command_says_in_a_sentence_what_to_do_about_its_limit(app: Flask, chest: FlaskChestSQLite) -> None:
    result = app.test_cli_runner().invoke(
        args=["chest", "query", "--timeout", "1s", "--where", "user_id=7"], catch_exceptions=False
    )
    assert result.exit_code == 1
    assert result.output == (
        "Error: the answer took longer than 1 s; ask for a narrower range of time, "
        "make an index (`flask chest index add user_id`), or allow a longer timeout\n"
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
@pytest.mark.parametrize("timeout", ["5m", "none"])
def test_ctrl_c_ends_a_command_at_once(path: Path, timeout: str) -> None:
    (path.parent / "asked.py").write_text(
        "from flask import Flask\nfrom flask_chest import FlaskChestSQLite\n"
        f"app = Flask(__name__)\nFlaskChestSQLite(app, db_uri={str(path)!r}, journal_dir='memory:')\n"
        "print('begun', flush=True)\n"
    )
    environ = os.environ | {"FLASK_APP": "asked"}
    command = [sys.executable, "-m", "flask", "chest", "query", "--timeout", timeout]
    with subprocess.Popen(
        command, env=environ, cwd=path.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            until = time.monotonic() + 60
            while _processor_seconds(process.pid) < 3 and time.monotonic() < until:  # it works on the answer
                time.sleep(0.05)
            assert process.poll() is None
            os.kill(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 1
    assert errors.strip() == "Aborted!"


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
