"""What an SQL store owes to the release before it, whose processes may write and read beside it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar, LiteralString, TypeAlias

import pytest

from flask_chest.errors import SchemaError
from flask_chest.record import Query
from flask_chest.stores.sql.store import SQLStore
from flask_chest.testing.records import make_record
from view_contract import RunSQL

MakeSQLStore: TypeAlias = Callable[[], SQLStore]

ITS_COLUMNS = (
    "id, request_id, time_unix_nano, duration_ns, method, route, endpoint, status_code, error, "
    "trace_id, span_id, trace_flags, trace_remote, instance, variables"
)
"""The columns that the release before ``sample_rate`` writes and reads, as its text had them."""
ITS_RECORD = make_record(
    id="01890a5d-ac96-774b-bcce-b302099a8057", request_id="r-older", time_unix_nano=1_700_000_000_000_000_001
)
_ITS_VALUES = (
    "'01890a5d-ac96-774b-bcce-b302099a8057', 'r-older', 1700000000000000001, 1500000, 'GET', '/', 'index', 200, "
    """NULL, NULL, NULL, NULL, NULL, 'test:0', '{"user_id":42}'"""
)
SERVER_INSERT = (
    f"INSERT INTO {{records}} (position, {ITS_COLUMNS}) SELECT position + 1, {_ITS_VALUES} FROM {{schema}}",
    "UPDATE {schema} SET position = position + 1",
)
SQLITE_INSERT = (
    f"INSERT OR FAIL INTO {{records}} ({ITS_COLUMNS}) VALUES ({_ITS_VALUES}) ON CONFLICT (id) DO NOTHING",
)


class OlderReleaseContract:
    """Needs the fixtures *make_sql_store*, which makes one that is not open, and *run_sql*."""

    its_insert: ClassVar[tuple[str, ...]] = SERVER_INSERT
    """The statements with which the older release writes `ITS_RECORD`."""

    def test_older_release_writes_and_reads_beside_this_one(
        self, make_sql_store: MakeSQLStore, run_sql: RunSQL
    ) -> None:
        store = make_sql_store()
        store.open()
        newer = make_record(sample_rate=0.1)
        store.write([newer])
        self._write_as_it_does(store, run_sql)
        assert sorted(record.id for record in store.query(Query())) == sorted([newer.id, ITS_RECORD.id])
        assert [record for record in store.query(Query()) if record.id == ITS_RECORD.id] == [ITS_RECORD]
        rows = run_sql(_filled(store, f"SELECT {ITS_COLUMNS} FROM {{records}} ORDER BY request_id <> 'r-older'"))
        assert [row[0] for row in rows] == [ITS_RECORD.id, newer.id]
        store.write([ITS_RECORD, make_record()])
        assert store.status().records == 3

    def test_version_at_which_the_older_release_would_stop_is_not_raised(
        self, make_sql_store: MakeSQLStore, run_sql: RunSQL
    ) -> None:
        store = make_sql_store()
        store.open()
        assert [list(row) for row in run_sql(_filled(store, "SELECT version FROM {schema}"))] == [[2]]

    def test_its_tables_are_migrated_by_open(self, make_sql_store: MakeSQLStore, run_sql: RunSQL) -> None:
        self._make_its_tables(make_sql_store)
        store = make_sql_store()
        self._write_as_it_does(store, run_sql)
        assert len(run_sql(_filled(store, "SELECT * FROM {records}"))[0]) == len(
            f"position, {ITS_COLUMNS}".split(", ")
        )
        store.open()
        make_sql_store().open()
        assert list(store.query(Query())) == [ITS_RECORD]
        newer = make_record(sample_rate=1 / 3)
        store.write([newer])
        self._write_as_it_does(store, run_sql, id="later")
        assert {record.id: record.sample_rate for record in store.query(Query())} == {
            ITS_RECORD.id: 1.0,
            newer.id: 1 / 3,
            "later": 1.0,
        }
        rows = run_sql(_filled(store, "SELECT DISTINCT sample_rate FROM {variables} ORDER BY sample_rate"))
        assert [list(row) for row in rows] == [[1 / 3], [1.0]]

    def test_its_tables_are_told_before_they_are_migrated(
        self, make_sql_store: MakeSQLStore, run_sql: RunSQL
    ) -> None:
        self._make_its_tables(make_sql_store)
        store = make_sql_store()
        with pytest.raises(SchemaError, match=r"without the column sample_rate; .* run flask chest migrate$"):
            list(store.query(Query()))
        store._schema.creates = False
        if self.its_insert is SERVER_INSERT:
            with pytest.raises(SchemaError, match="without the column sample_rate"):
                store.open()
        rows = run_sql(_filled(store, "SELECT * FROM {records}"))
        assert list(rows) == []

    def test_view_that_was_dropped_is_not_made_again(self, make_sql_store: MakeSQLStore, run_sql: RunSQL) -> None:
        store = make_sql_store()
        store.open()
        run_sql(_filled(store, "DROP VIEW {variables}"))
        make_sql_store().open()
        with pytest.raises(Exception, match=r"(?i)variables"):
            run_sql(_filled(store, "SELECT * FROM {variables}"))

    def test_migration_that_ended_between_table_and_view_is_completed(
        self, make_sql_store: MakeSQLStore, run_sql: RunSQL
    ) -> None:
        self._make_its_tables(make_sql_store)
        half = make_sql_store()
        half._schema._additions = half._schema._additions[:1]
        half.open()
        store = make_sql_store()
        store.open()
        run_sql(_filled(store, "SELECT sample_rate FROM {variables}"))

    def _make_its_tables(self, make_sql_store: MakeSQLStore) -> None:
        older = make_sql_store()
        older._schema._additions = ()
        older._schema._migrations = tuple(
            tuple(_without_rate(statement) for statement in migration) for migration in older._schema._migrations
        )
        older.open()
        older.close()

    def _write_as_it_does(self, store: SQLStore, run_sql: RunSQL, *, id: str = ITS_RECORD.id) -> None:  # noqa: A002
        for statement in self.its_insert:
            run_sql(_filled(store, statement).replace(ITS_RECORD.id, id))


def _without_rate(statement: str) -> LiteralString:
    return re.sub(r",\s*sample_rate[^,\n]*", "", statement)


def _filled(store: SQLStore, statement: str) -> str:
    quote = store._tables.dialect.quote
    for role, table in store._tables.names.items():
        statement = statement.replace(f"{{{role}}}", f"{quote}{table}{quote}")
    return statement
