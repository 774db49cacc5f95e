"""Statements in an SQLite file that are ended before they are done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from flask_chest._process import start_native_thread
from flask_chest.errors import QueryTimeout, StoreError
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing.records import make_record

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
SECOND = timedelta(seconds=1)
MOMENT = timedelta(milliseconds=50)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(tmp_path / "chest.db")) as store:
        store.open()
        yield store


def test_statement_beyond_the_limit_is_ended(store: SQLiteStore) -> None:
    with (
        pytest.raises(QueryTimeout, match=r"longer than 0\.05 s"),
        store._database.answering(timeout=MOMENT) as session,
    ):
        session.rows(ENDLESS)


def test_statement_after_the_limit_is_not_begun(store: SQLiteStore) -> None:
    with store._database.answering(timeout=MOMENT) as session:
        time.sleep(MOMENT.total_seconds())
        with pytest.raises(QueryTimeout):
            session.rows("SELECT 1")


def test_connection_is_as_good_after_the_limit_as_before(store: SQLiteStore) -> None:
    for _ in range(20):
        with pytest.raises(QueryTimeout), store._database.answering(timeout=MOMENT / 10) as session:
            session.rows(ENDLESS)
        with store._database.answering(timeout=None) as session:
            assert session.rows("SELECT 1") == [(1,)]
        store.write([make_record()])
    assert len(store._database._idle) == 1


def test_answer_sees_one_state_of_the_records(store: SQLiteStore) -> None:
    count = f"SELECT count(*) FROM {store._tables.name}"
    with store._database.answering(timeout=None) as session:
        before = session.rows(count)
        store.write([make_record()])
        assert session.rows(count) == before == [(0,)]
    with store._database.answering(timeout=None) as session:
        assert session.rows(count) == [(1,)]


def test_error_of_a_statement_reaches_whoever_asked(store: SQLiteStore) -> None:
    with pytest.raises(StoreError, match="syntax error"), store._database.answering(timeout=SECOND) as session:
        session.rows("SELEC 1")


@pytest.mark.parametrize("limit", [SECOND * 60, None])
def test_statement_runs_where_no_thread_can_be_started(
    store: SQLiteStore, limit: timedelta | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("flask_chest.stores.sqlite.interruption.start_native_thread", refuse)
    with store._database.answering(timeout=limit) as session:
        assert session.rows("SELECT 1") == [(1,)]


@pytest.mark.parametrize("started", [True, False])
def test_signal_while_the_thread_starts_leaves_no_statement_behind(
    store: SQLiteStore, started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(work: Callable[[], None]) -> None:
        if started:
            start_native_thread(work)
            time.sleep(MOMENT.total_seconds())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("flask_chest.stores.sqlite.interruption.start_native_thread", start)
        with pytest.raises(KeyboardInterrupt), store._database.answering(timeout=None) as session:
            session.rows(ENDLESS)
    with store._database.answering(timeout=SECOND) as session:  # on the same connection
        assert session.rows("SELECT 1") == [(1,)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("handler", ["default_int_handler", "lambda *_: sys.exit(3)"])
def test_signal_ends_the_statement(store: SQLiteStore, handler: str) -> None:
    script = f"""
import signal, sys
from signal import default_int_handler
from flask_chest.stores.sqlite import SQLiteStore
signal.signal(signal.SIGINT, {handler})
store = SQLiteStore({str(store._path)!r})
try:
    with store._database.answering(timeout=None) as session:
        session.rows("SELECT 1")
        print("asking", flush=True)
        session.rows({ENDLESS!r})
except BaseException as exc:
    assert not store._database.busy()
    with store._database.answering(timeout=None) as session:  # on the same connection
        print(type(exc).__name__, session.rows("SELECT 1"))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asking\n"
        os.kill(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    expected = "KeyboardInterrupt" if handler == "default_int_handler" else "SystemExit"
    assert out == f"{expected} [(1,)]\n"
