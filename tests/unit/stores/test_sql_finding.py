"""How many statements a question takes, and what happens to one that takes the database too long."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flask_chest.errors import StoreUnavailable
from flask_chest.record import JSONValue, Query, Record
from flask_chest.stores.sql.pool import StatementTimeout
from flask_chest.stores.sql.query import CHUNK, find
from flask_chest.stores.sql.tables import Database, Session, SQLValue
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing.records import make_record


class Watched(Database):
    """A database that lets *look* look at each statement before it runs."""

    def __init__(self, database: Database, look: Callable[[str], None]) -> None:
        self._database = database
        self._look = look

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with self._database.reading() as session:
            yield WatchedSession(session, self._look)

    def answering(self, *, timeout: timedelta | None) -> AbstractContextManager[Session]:
        return self._database.answering(timeout=timeout)

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


def test_question_that_takes_the_database_too_long_goes_on_by_the_time(store: SQLiteStore) -> None:
    records = [make_record(variables={"user_id": number % 2}) for number in range(2 * CHUNK + 10)]
    store.write(records)
    statements: list[str] = []

    def end_what_looks_into_variables(sql: str) -> None:
        statements.append(sql)
        if "json_extract" in sql:
            raise StatementTimeout("it took too long")

    found = asked(store, Query(where={"user_id": 1}, limit=None), end_what_looks_into_variables)
    assert found == records[::-2]
    assert len(statements) == 4


def test_question_without_variables_that_takes_too_long_fails(store: SQLiteStore) -> None:
    store.write([make_record()])

    def end(_: str) -> None:
        raise StatementTimeout("it took too long")

    with pytest.raises(StoreUnavailable, match="too long"):
        asked(store, Query(), end)


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
