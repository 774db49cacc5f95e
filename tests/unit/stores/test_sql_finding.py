"""How many statements a question takes, and how long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flask_chest.errors import QueryTimeout, SchemaError
from flask_chest.record import JSONValue, Query, Record, ge, is_set, le
from flask_chest.stores.sql.query import CHUNK, find
from flask_chest.stores.sql.tables import Database, Session, SQLValue
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing.records import make_record


class Watched(Database):
    """A database that lets *look* look at each statement before it runs."""

    def __init__(self, database: Database, look: Callable[[str], None]) -> None:
        self._database = database
        self._look = look

    def reading(self) -> AbstractContextManager[Session]:
        return self._watched(self._database.reading())

    @contextmanager
    def _watched(self, lent: AbstractContextManager[Session]) -> Iterator[Session]:
        with lent as session:
            yield WatchedSession(session, self._look)

    def answering(self, *, timeout: timedelta | None) -> AbstractContextManager[Session]:
        return self._watched(self._database.answering(timeout=timeout))

    def writing(self) -> AbstractContextManager[Session]:
        return self._database.writing()

    def recording(self) -> AbstractContextManager[Session]:
        return self._database.recording()

    def close(self) -> None:
        self._database.close()


class WatchedSession(Session):
    def __init__(self, session: Session, look: Callable[[str], None]) -> None:
        self._session = session
        self._look = look

    def rows(self, sql: str, values: Sequence[SQLValue] = (), /) -> list[tuple[Any, ...]]:
        self._look(sql)
        return self._session.rows(sql, values)

    def change(self, sql: str, values: Sequence[SQLValue] = (), /) -> int:
        return self._session.change(sql, values)

    def change_many(self, sql: str, rows: Sequence[Sequence[SQLValue]], /) -> None:
        self._session.change_many(sql, rows)

    def now_unix_nano(self) -> int:
        return self._session.now_unix_nano()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(tmp_path / "chest.db")) as store:
        store.open()
        yield store


def asked(store: SQLiteStore, query: Query, look: Callable[[str], None]) -> list[Record]:
    return list(find(Watched(store._database, look), store._tables, query))


def test_question_goes_on_by_the_time_where_an_index_was_just_removed(store: SQLiteStore) -> None:
    records = [make_record(variables={"user_id": number % 2}) for number in range(2 * CHUNK + 10)]
    store.write(records)
    statements: list[str] = []

    def miss_what_looks_into_variables(sql: str) -> None:
        statements.append(sql)
        if "json_extract" in sql:
            raise SchemaError("no such column")

    found = asked(store, Query(where={"user_id": 1}, limit=None), miss_what_looks_into_variables)
    assert found == records[::-2]
    assert len(statements) == 4


@pytest.mark.slow
def test_limit_is_of_all_chunks_and_not_of_what_the_caller_does(store: SQLiteStore) -> None:
    records = [make_record() for _ in range(3 * CHUNK)]
    store.write(records)
    limit = timedelta(seconds=2)
    answer = find(store._database, store._tables, Query(limit=None), timeout=limit)
    first = next(answer)
    time.sleep(limit.total_seconds())
    assert [first, *answer] == records[::-1]


@pytest.mark.slow
def test_chunks_share_the_limit(store: SQLiteStore) -> None:
    store.write([make_record() for _ in range(3 * CHUNK)])
    limit = timedelta(seconds=2)

    def wait(_: str) -> None:
        time.sleep(limit.total_seconds() / 2)

    answer = find(Watched(store._database, wait), store._tables, Query(limit=None), timeout=limit)
    kept: list[Record] = []
    with pytest.raises(QueryTimeout, match="longer than 2 s"):
        kept.extend(answer)
    assert len(kept) in {CHUNK, 2 * CHUNK}  # what came before is valid


@pytest.mark.parametrize(
    ("query", "unindexed"),
    [
        (Query(where={"user_id": 7}), ("user_id",)),
        (Query(where={"user_id": 7}, conditions=(("price", ge(3)), ("plan", is_set()))), ()),
        (Query(conditions=(("price", ge(3)), ("price", le(9)))), ("price",)),
        (Query(where={"the price": 3}), ()),  # which can have no index
        (Query(), ()),
    ],
)
def test_time_out_names_the_variables_that_could_have_an_index(
    store: SQLiteStore, query: Query, unindexed: tuple[str, ...]
) -> None:
    store.add_index("plan")
    with pytest.raises(QueryTimeout) as info:
        list(store.query(query, timeout=timedelta(microseconds=1)))
    assert info.value.unindexed == unindexed
    commands = [f"flask chest index add {name}" for name in unindexed]
    assert [command for command in commands if command in str(info.value)] == commands
    assert ("index" in str(info.value)) is bool(unindexed)


@pytest.mark.parametrize(("value", "other"), [([7], []), ({"a": 1}, {})])  # of both the database knows the type
def test_few_records_among_many_that_may_match_take_few_statements(
    store: SQLiteStore, value: JSONValue, other: JSONValue
) -> None:
    wanted = make_record(variables={"v": value})
    store.write([wanted, *(make_record(variables={"v": other}) for _ in range(4 * CHUNK))])
    statements: list[str] = []
    assert asked(store, Query(where={"v": value}, limit=1), statements.append) == [wanted]
    assert len(statements) < 10


def test_first_chunk_fetches_no_more_than_the_answer_may_have(store: SQLiteStore) -> None:
    store.write([make_record(variables={"user_id": 7}) for _ in range(CHUNK)])
    statements: list[str] = []
    assert len(asked(store, Query(where={"user_id": 7}, limit=3), statements.append)) == 3
    assert len(statements) == 1
