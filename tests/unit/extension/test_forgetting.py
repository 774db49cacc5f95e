"""What is left of somebody who was forgotten: nothing that tells who, and nothing that costs the others."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from flask import Flask, g

from flask_chest import FlaskChestSQLite
from flask_chest.errors import JournalError
from flask_chest.journal import REFUSED, forget_refused
from flask_chest.record import Query
from flask_chest.stores._deletions import NOTE_LIFE_NANO
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import make_record
from journals import journal_in

ADA, BOB = "ada@example.org", "bob@example.org"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "chest.db")
    store.open()
    yield store
    store.close()


def in_files(folder: Path, text: str) -> dict[str, int]:
    """Count *text* in the bytes of each file below *folder* that has it."""
    counts = {path.name: path.read_bytes().count(text.encode()) for path in folder.rglob("*") if path.is_file()}
    return {name: count for name, count in counts.items() if count}


def notes(path: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT * FROM flask_chest_forgotten").fetchall()
    connection.close()
    return found


def test_forgotten_value_is_in_no_file(tmp_path: Path) -> None:
    app = Flask("shop", root_path=str(tmp_path), instance_path=str(tmp_path / "instance"))
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", tracked_vars=["email"])

    @app.route("/<email>")
    def index(email: str) -> str:
        g.email = email
        return "hi"

    client = app.test_client()
    for email in [ADA, BOB] * 200:
        client.get(f"/{email}")
    assert chest.flush()
    folder = chest._state.here.journal_config.folder
    assert folder is not None
    refusing = journal_in(folder)
    for record in chest.query(where={"email": ADA}, limit=2):
        refusing.set_aside(record, "too long")
    refusing.close()
    assert in_files(tmp_path, ADA)
    assert chest.forget(where={"email": ADA}) == 200
    assert [name for name in in_files(tmp_path, ADA) if name.startswith("chest.db")] == []
    chest.close()
    assert in_files(tmp_path, ADA) == {}
    assert in_files(tmp_path, BOB)


def test_record_that_was_set_aside_is_forgotten_and_no_other_line_is(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    hers, his = (make_record(variables={"email": email}) for email in (ADA, BOB))
    for record in (hers, his, hers):
        journal.set_aside(record, "too long")
    path = tmp_path / REFUSED
    with path.open("ab") as file:
        file.write(b"half a line\n")
    assert forget_refused(tmp_path, Query(where={"email": ADA})) == 2
    kept, half = path.read_bytes().splitlines()
    assert msgspec.json.decode(kept)["record"]["id"] == his.id
    assert half == b"half a line"
    journal.set_aside(hers, "too long")
    assert len(path.read_bytes().splitlines()) == 3
    journal.close()


def test_record_that_was_set_aside_goes_when_retention_says_so(tmp_path: Path) -> None:
    app = Flask("shop", root_path=str(tmp_path), instance_path=str(tmp_path / "instance"))
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", tracked_vars=[], retention="30d")
    app.test_client().get("/")
    assert chest.flush()
    folder = chest._state.here.journal_config.folder
    assert folder is not None
    refusing = journal_in(folder)
    day_nano = 24 * 3600 * 10**9
    for days in (1, 29, 31, 400):
        refusing.set_aside(make_record(time_unix_nano=time.time_ns() - days * day_nano), "too long")
    refusing.close()
    chest.run_retention()
    assert len((folder / REFUSED).read_bytes().splitlines()) == 2
    chest.close()


def test_nothing_is_to_be_forgotten_where_nothing_was_set_aside(tmp_path: Path) -> None:
    assert forget_refused(tmp_path, Query(where={"email": ADA})) == 0
    assert list(tmp_path.iterdir()) == []


def test_file_that_cannot_be_rewritten_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / REFUSED).mkdir()
    with pytest.raises(JournalError, match="refused may still hold what is to be forgotten"):
        forget_refused(tmp_path, Query(where={"email": ADA}))


def test_folder_that_cannot_be_looked_into_is_an_error_too(tmp_path: Path) -> None:
    folder = tmp_path / "loop"
    folder.symlink_to(folder)
    with pytest.raises(JournalError, match="refused may still hold what is to be forgotten"):
        forget_refused(folder, Query(where={"email": ADA}))


def test_person_who_is_forgotten_often_is_noted_once(store: SQLiteStore, tmp_path: Path) -> None:
    for _ in range(5):
        store.forget(Query(where={"email": ADA}))
        store.forget(Query(where={"email": BOB}))
    assert len(notes(tmp_path / "chest.db")) == 2


def test_note_ends_when_no_journal_waits_so_long(store: SQLiteStore, tmp_path: Path) -> None:
    long_ago = time.time_ns() - NOTE_LIFE_NANO - 1
    store.forget(Query(where={"email": ADA}))
    with sqlite3.connect(tmp_path / "chest.db") as connection:
        connection.execute("UPDATE flask_chest_forgotten SET noted_unix_nano = ?", (long_ago,))
    connection.close()
    store.forget(Query(where={"email": BOB}))
    assert len(notes(tmp_path / "chest.db")) == 1


def test_note_does_not_end_by_a_clock_that_is_ahead(
    store: SQLiteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write([make_record()])
    store.forget(Query(where={"email": ADA}))
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 2 * NOTE_LIFE_NANO)
    store.forget(Query(where={"email": BOB}))
    assert len(notes(tmp_path / "chest.db")) == 2


def test_ten_thousand_notes_make_no_batch_slow(store: SQLiteStore, tmp_path: Path) -> None:
    later = make_record().time_unix_nano + 3600 * 10**9
    store.forget(Query(where={"email": ADA}))
    with sqlite3.connect(tmp_path / "chest.db") as connection:
        connection.execute("UPDATE flask_chest_deletions SET before_unix_nano = ?", (later,))
        connection.executemany(
            "INSERT INTO flask_chest_forgotten VALUES (?, ?, ?)",
            [(f"{number:064x}", later, 1) for number in range(10_000)],
        )
    connection.close()
    records = [make_record(variables={"email": f"{number}@example.org"}) for number in range(1_000)]
    began = time.thread_time()
    store.write(records)
    assert time.thread_time() - began < 1  # it took 5 where each record was compared with each note
    assert store.status().records == 1_000


def test_digests_of_two_chests_are_not_alike(tmp_path: Path) -> None:
    digests: set[object] = set()
    for name in ("one", "other"):
        path = tmp_path / f"{name}.db"
        store = SQLiteStore(path)
        store.open()
        store.forget(Query(where={"email": ADA}))
        store.close()
        digests.update(digest for digest, *_ in notes(path))
    assert len(digests) == 2
