"""Indexes on variables in SQLite: which questions read them, and what is not touched."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flask_chest.errors import SchemaError, StoreUnavailable
from flask_chest.protocols import VariableIndex
from flask_chest.record import Query, Record, ge, gt, le, lt, one_of
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing.records import make_record
from plans import statement_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chest.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(path)) as store:
        store.open()
        yield store


def execute(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


def plan_of(store: SQLiteStore, query: Query, *, before: Record | None = None) -> str:
    statement, values = statement_of(store, query, before=before)
    with store._database.reading() as session:
        rows = session.rows(f"EXPLAIN QUERY PLAN {statement}", values)
    return "\n".join(str(row[-1]) for row in rows)


@pytest.fixture
def records(store: SQLiteStore) -> list[Record]:
    records = [make_record(variables={"user_id": number % 100, "name": str(number)}) for number in range(3_000)]
    store.write(records)
    store.add_index("user_id")
    store.add_index("name")
    return records


@pytest.mark.parametrize("analysed", [False, True])
def test_question_for_a_variable_reads_its_index_in_order(
    store: SQLiteStore, path: Path, records: list[Record], analysed: bool
) -> None:
    if analysed:
        execute(path, "ANALYZE")
    since, until = records[1_000].time_unix_nano, records[2_000].time_unix_nano
    for query in (
        Query(where={"user_id": 77}),
        Query(where={"user_id": 77}, since_unix_nano=since),
        Query(where={"user_id": 77}, since_unix_nano=since, until_unix_nano=until),
    ):
        for before in (None, records[1_500]):
            plan = plan_of(store, query, before=before)
            assert "USING INDEX flask_chest_by_user_id (<expr>=?" in plan, plan
            assert "TEMP B-TREE" not in plan, plan
            bounded = before is not None or query.since_unix_nano is not None
            assert ("time_unix_nano" in plan.partition("<expr>")[2]) == bounded, plan


@pytest.mark.parametrize(
    ("variable", "condition"),
    [
        ("user_id", one_of(7, 77)),
        ("user_id", gt(98)),
        ("user_id", lt(1.5)),
        ("name", ge("299")),
        ("name", le("1")),
        ("name", one_of("7", None)),
    ],
    ids=str,
)
def test_conditions_read_the_index(
    store: SQLiteStore, path: Path, records: list[Record], variable: str, condition: object
) -> None:
    execute(path, "ANALYZE")
    query = Query(conditions=((variable, condition),))  # type: ignore[arg-type]  # of any kind
    plan = plan_of(store, query)
    assert f"USING INDEX flask_chest_by_{variable}" in plan, plan
    assert list(store.query(query)) == [record for record in records[::-1] if query.matches(record)][:100]


def test_what_others_have_made_is_not_touched(store: SQLiteStore, path: Path) -> None:
    execute(path, "CREATE INDEX mine ON flask_chest (json_extract(variables, '$.\"user_id\"'))")
    execute(path, "CREATE INDEX flask_chest_by_plan ON flask_chest (json_extract(variables, '$.plan'))")
    assert store.indexes() == []
    assert store.add_index("user_id")
    with pytest.raises(SchemaError, match=r"has a 'flask_chest_by_plan' that flask_chest did not make.*drop it"):
        store.add_index("plan")
    assert not store.remove_index("plan")
    assert store.indexes() == [VariableIndex(variable="user_id", name="flask_chest_by_user_id")]
    assert store.remove_index("user_id")
    named = {name for (name,) in execute(path, "SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert {"mine", "flask_chest_by_plan"} <= named


def test_indexes_of_another_chest_in_the_file_are_its_own(store: SQLiteStore, path: Path) -> None:
    with closing(SQLiteStore(path, name="other")) as other:
        other.open()
        other.add_index("user_id")
        assert store.indexes() == []
        assert store.add_index("user_id")
        assert store.remove_index("user_id")
        assert [index.name for index in other.indexes()] == ["other_by_user_id"]


def test_writer_that_waits_for_longer_than_its_time_out_keeps_nothing_and_says_so(path: Path) -> None:
    """As for any other writer: then the journal has the records, and they are written later."""
    with closing(SQLiteStore(path, busy_timeout=0.2)) as store, closing(SQLiteStore(path)) as maker:
        store.open()
        begun, ended = threading.Event(), threading.Event()

        def hold() -> None:
            with maker._database.writing():  # as add_index does, for longer than it takes here
                begun.set()
                ended.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        try:
            assert begun.wait(30)
            record = make_record()
            with pytest.raises(StoreUnavailable, match="raise busy_timeout"):
                store.write([record])
            assert list(store.query(Query())) == []  # who reads does not wait
        finally:
            ended.set()
            thread.join()
        store.write([record])
        assert list(store.query(Query())) == [record]


def test_file_in_utf_16_orders_texts_by_code_points_all_the_same(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA encoding = 'UTF-16le'")
        connection.execute("CREATE TABLE mine (a)")
    with closing(SQLiteStore(path)) as store:
        store.open()
        store.add_index("v")
        texts = ["a", "\u0101", "\u01ff", "\uf8ff", "\U0001f600", "", "b"]
        records = [make_record(variables={"v": text}) for text in texts]
        store.write(records)
        assert execute(path, "PRAGMA encoding") == [("UTF-16le",)]
        for text in texts:
            for bound in (gt(text), ge(text), lt(text), le(text)):
                query = Query(conditions=(("v", bound),))
                assert list(store.query(query)) == [each for each in records[::-1] if query.matches(each)]
