"""A journal that is replayed after its records were deleted brings none of them back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flask_chest.record import Query, Record
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore
from journals import drain, journal_in, kill, make_records, only_segment

Deleting = SQLiteStore | MemoryStore


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deleting]:
    store = SQLiteStore(tmp_path / "chest.db") if request.param == "sqlite" else MemoryStore()
    with closing(store):
        store.open()
        yield store


def store_and_replay_after(store: Deleting, folder: Path, records: list[Record], *, deleted: str) -> None:
    """Store *records*, delete them, and replay their segment as it was before it was known to be stored."""
    journal = journal_in(folder)
    for record in records:
        journal.append(record)
    segment = only_segment(folder)
    shutil.copy(segment, folder / "copy")
    store.write(drain(journal))
    kill(journal)
    shutil.move(folder / "copy", segment)
    if deleted == "pruned":
        assert store.prune(max(record.time_unix_nano for record in records) + 1, limit=1_000) == len(records)
    else:
        assert store.forget(Query(route="/")) == len(records)
    successor = journal_in(folder)
    replayed = drain(successor)
    assert replayed == records
    store.write(replayed)
    successor.close()


@pytest.mark.parametrize("deleted", ["pruned", "forgotten"])
def test_segment_replayed_after_its_records_were_deleted_stays_gone(
    store: Deleting, tmp_path: Path, deleted: str
) -> None:
    store_and_replay_after(store, tmp_path / "journal", make_records(5), deleted=deleted)
    assert list(store.query(Query(limit=None))) == []
    assert store.status().conflicts == 0


def test_segment_replayed_after_nothing_was_deleted_changes_nothing(store: Deleting, tmp_path: Path) -> None:
    records = make_records(5)
    store.write(records)
    journal = journal_in(tmp_path / "journal")
    for record in records:
        journal.append(record)
    store.write(drain(journal))
    assert sorted(record.id for record in store.query(Query(limit=None))) == sorted(r.id for r in records)
    assert store.status().conflicts == 0
    journal.close()
