"""Many rows with each statement, however many there are and whatever SQLite allows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from flask_chest.protocols import Claim
from flask_chest.record import Query
from flask_chest.stores._records import storable_rows
from flask_chest.stores.sql.tables import COLUMNS, Tables
from flask_chest.stores.sqlite import Insertion, SQLiteStore
from flask_chest.stores.sqlite.connections import SQLITE
from flask_chest.testing.records import make_record

OPEN_FILES = Path("/proc/self/fd")
OLD_LIMIT = 999
"""Parameters of one statement in SQLite before 3.32."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(tmp_path / "chest.db")) as store:
        store.open()
        yield store


@pytest.fixture
def connection(store: SQLiteStore, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "chest.db", isolation_level=None)) as connection:
        yield connection


def statements(connection: sqlite3.Connection, records: int) -> int:
    """Insert so many *records*; give with how many statements that was done."""
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    rows = storable_rows([make_record() for _ in range(records)])
    assert Insertion(Tables("flask_chest", SQLITE)).insert(connection, rows) == records
    return len(seen)


@pytest.mark.parametrize("count", [1, 4, 5, 49, 50, 56, 499, 500, 501, 1_111])
def test_records_of_any_number_are_kept_in_their_order(store: SQLiteStore, count: int) -> None:
    records = [make_record() for _ in range(count)]
    store.write(records)
    assert list(store.query(Query(limit=None))) == records[::-1]
    claim = store.claim("exporter", limit=count, lease=timedelta(minutes=1))
    assert isinstance(claim, Claim)
    assert list(claim.records) == records


def test_batch_takes_few_statements(connection: sqlite3.Connection) -> None:
    assert statements(connection, 1_000) == 2
    assert statements(connection, 499) == 22


def test_older_sqlite_gets_no_more_parameters_than_it_takes(connection: sqlite3.Connection) -> None:
    connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, OLD_LIMIT)
    assert 50 * len(COLUMNS) <= OLD_LIMIT < 500 * len(COLUMNS)
    assert statements(connection, 1_000) == 20


def test_records_that_are_there_or_come_twice_are_kept_once(
    store: SQLiteStore, connection: sqlite3.Connection
) -> None:
    records = [make_record() for _ in range(700)]
    store.write(records[200:300])
    rows = storable_rows([*records, *records[400:600]])
    assert Insertion(Tables("flask_chest", SQLITE)).insert(connection, rows) == 600
    assert sorted(store.query(Query(limit=None)), key=lambda record: record.time_unix_nano) == records


@pytest.mark.slow
@pytest.mark.skipif(not OPEN_FILES.exists(), reason="the kernel does not list a process's open files")
def test_no_temporary_file_is_written(connection: sqlite3.Connection) -> None:
    seen: set[str] = set()

    def look() -> int:
        seen.update(str(file.readlink()) for file in OPEN_FILES.iterdir() if file.is_symlink())
        return 0

    statements(connection, 1_000)
    connection.execute("BEGIN")
    connection.set_progress_handler(look, 1_000)
    statements(connection, 1_000)
    connection.execute("COMMIT")
    assert any(file.endswith("chest.db-wal") for file in seen)
    assert not [file for file in seen if "etilqs" in file]
