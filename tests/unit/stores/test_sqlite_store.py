from __future__ import annotations

import gc
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregation_property import AggregationProperty
from finding_property import FindingProperty, IndexedFindingProperty
from flask_chest.errors import ConfigurationError, SchemaError, StoreUnavailable
from flask_chest.protocols import Claim
from flask_chest.record import JSONValue, Query
from flask_chest.stores.sql.query import chunk
from flask_chest.stores.sql.tables import Tables
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.stores.sqlite.connections import SQLITE, SQLiteSession
from flask_chest.stores.sqlite.schema import SQLiteSchema
from flask_chest.testing.contracts import (
    AggregationContract,
    ArchiveContract,
    DeletionContract,
    IndexContract,
    LeasesContract,
    OutboxContract,
    StoreContract,
)
from flask_chest.testing.records import make_record
from index_sql_contract import IndexSQLContract
from json_values import json_values, texts
from older_release import SQLITE_INSERT, MakeSQLStore, OlderReleaseContract
from sampled_property import SampledProperty
from view_contract import RunSQL, ViewContract

MINUTE = timedelta(minutes=1)


class TestSQLiteStore(
    StoreContract,
    OutboxContract,
    DeletionContract,
    LeasesContract,
    AggregationContract,
    AggregationProperty,
    SampledProperty,
    FindingProperty,
    ArchiveContract,
    IndexContract,
    IndexedFindingProperty,
    IndexSQLContract,
    ViewContract,
    OlderReleaseContract,
):
    its_insert = SQLITE_INSERT

    @pytest.fixture
    def make_sql_store(self, path: Path) -> Iterator[MakeSQLStore]:
        with ExitStack() as made:
            yield lambda: made.enter_context(closing(SQLiteStore(path)))

    @pytest.fixture
    def run_sql(self, path: Path) -> RunSQL:
        return partial(execute, path)

    @pytest.fixture
    def store(self, path: Path) -> Iterator[SQLiteStore]:
        with closing(opened(path)) as store:
            yield store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chest.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with closing(opened(path)) as store:
        yield store


def opened(path: Path, name: str = "flask_chest") -> SQLiteStore:
    store = SQLiteStore(path, name=name)
    store.open()
    return store


def execute(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


@pytest.mark.slow
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(variables=st.dictionaries(texts, json_values, max_size=4), request_id=texts)
def test_any_variables_come_back_equal_and_are_found(
    store: SQLiteStore, variables: dict[str, JSONValue], request_id: str
) -> None:
    record = make_record(request_id=request_id, variables=variables)
    store.write([record])
    assert record in list(store.query(Query(request_id=request_id, limit=None)))
    assert record in list(store.query(Query(where=variables, limit=None)))


class TestBeforeItIsOpened:
    @pytest.mark.parametrize(
        "use",
        [
            lambda store: store.write([make_record()]),
            lambda store: list(store.query(Query())),
            lambda store: store.status(),
            lambda store: store.claim("a", limit=1, lease=MINUTE),
            lambda store: store.register("a"),
            lambda store: store.exporters(),
            lambda store: store.drop("a"),
            lambda store: list(store.rejections("a")),
        ],
        ids="write query status claim register exporters drop rejections".split(),
    )
    def test_every_use_says_so_and_creates_nothing(
        self, tmp_path: Path, use: Callable[[SQLiteStore], object]
    ) -> None:
        store = SQLiteStore(tmp_path / "folder" / "chest.db")
        with pytest.raises(SchemaError) as absent:
            use(store)
        assert str(absent.value) == (
            f"SQLite {tmp_path}/folder/chest.db does not exist yet; it is made when the first record is written"
        )
        assert list(tmp_path.iterdir()) == []

    def test_tables_are_missed_in_a_file_that_is_there(self, path: Path) -> None:
        execute(path, "CREATE TABLE mine (a)")
        with pytest.raises(SchemaError, match=r"the tables of 'flask_chest' in .* do not exist yet"):
            SQLiteStore(path).write([make_record()])
        assert execute(path, "SELECT name FROM sqlite_master") == [("mine",)]

    def test_open_makes_the_folder(self, tmp_path: Path) -> None:
        opened(tmp_path / "a" / "b" / "chest.db").close()
        assert (tmp_path / "a" / "b" / "chest.db").exists()


class TestSettings:
    @pytest.mark.parametrize("path", ["", ":memory:", "file:chest.db?mode=memory"])
    def test_what_is_no_path_of_a_file_is_refused_with_the_way_out(self, path: str) -> None:
        with pytest.raises(ConfigurationError) as refused:
            SQLiteStore(path)
        assert str(refused.value) == (
            f"path must be the path of a file, got {path!r}; MemoryStore keeps records in memory"
        )

    @pytest.mark.parametrize("seconds", [-1.0, 3601.0, float("nan"), float("inf")])
    def test_busy_timeout_must_be_a_time(self, path: Path, seconds: float) -> None:
        with pytest.raises(
            ConfigurationError, match=f"busy_timeout must be from 0 to 3600 seconds, got {seconds}"
        ):
            SQLiteStore(path, busy_timeout=seconds)

    def test_relative_path_stays_where_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        store = SQLiteStore("chest.db")
        monkeypatch.chdir("/")
        store.open()
        store.close()
        assert (tmp_path / "chest.db").exists()

    def test_path_is_not_read_as_a_uri(self, tmp_path: Path) -> None:
        opened(tmp_path / "a?mode=memory#%20.db").close()
        assert (tmp_path / "a?mode=memory#%20.db").exists()

    def test_repr_shows_path_and_name(self, path: Path) -> None:
        assert repr(SQLiteStore(path, name="my-table")) == f"<SQLiteStore '{path}' name='my-table'>"

    def test_chests_of_two_names_share_a_file(self, path: Path) -> None:
        with closing(opened(path)) as one, closing(opened(path, "my-table")) as other:
            record = make_record()
            one.write([record])
            other.write([record, make_record()])
            assert (one.status().records, other.status().records) == (1, 2)

    def test_what_is_kept_is_durable(self, store: SQLiteStore) -> None:
        with store._database.connection() as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


class TestForeignFiles:
    @pytest.mark.parametrize(
        ("create", "table"),
        [
            ("CREATE TABLE flask_chest (unique_id, request_id, name, value)", "flask_chest"),
            ("CREATE TABLE Flask_Chest (id)", "flask_chest"),
            ("CREATE TABLE flask_chest_schema (version)", "flask_chest_schema"),
            ("CREATE TABLE flask_chest_schema (program, version)", "flask_chest_schema"),
            ("CREATE VIEW flask_chest_variables AS SELECT 1", "flask_chest_variables"),
            ("CREATE TABLE flask_chest_time (a)", "flask_chest_time"),
        ],
    )
    def test_table_of_another_program_is_left_alone(self, path: Path, create: str, table: str) -> None:
        execute(path, create)
        before = path.read_bytes()
        with closing(SQLiteStore(path)) as store:
            for use in (store.open, lambda: store.write([make_record()])):
                with pytest.raises(SchemaError) as foreign:
                    use()
                assert str(foreign.value) == (
                    f"SQLite {path} has a table {table!r} that flask_chest did not make; "
                    "choose another name= for the chest, or another file"
                )
        assert path.read_bytes() == before

    def test_tables_of_a_newer_version_are_left_alone(self, path: Path) -> None:
        opened(path).close()
        execute(path, "UPDATE flask_chest_schema SET version = 99")
        with closing(SQLiteStore(path)) as store:
            for use in (store.open, store.status):
                with pytest.raises(
                    SchemaError, match=r"of version 99, which this release does not know .* upgrade"
                ):
                    use()

    def test_tables_of_an_older_version_are_migrated_by_open_alone(self, path: Path) -> None:
        opened(path).close()

        class NextSchema(SQLiteSchema):
            _migrations = (*SQLiteSchema._migrations, ("ALTER TABLE {records} ADD more",))

        second = NextSchema(Tables("flask_chest", SQLITE), place="SQLite")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            older = f"of the older version {len(SQLiteSchema._migrations)}; they are migrated when"
            with pytest.raises(SchemaError, match=older):
                second.check(SQLiteSession(connection))
            second.make(SQLiteSession(connection))
            second.make(SQLiteSession(connection))
            second.check(SQLiteSession(connection))
            assert connection.execute("SELECT more FROM flask_chest").fetchall() == []

    def test_file_that_is_no_database_is_left_alone(self, path: Path) -> None:
        path.write_bytes(b"not a database, " * 64)
        for use in (SQLiteStore(path).open, SQLiteStore(path).status):
            with pytest.raises(SchemaError, match="file is not a database; choose another file"):
                use()

    def test_folder_in_place_of_the_file_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(StoreUnavailable, match="unable to open database file; check the permissions"):
            SQLiteStore(tmp_path).open()

    def test_folder_that_cannot_be_made_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StoreUnavailable, match="the folder cannot be made"):
            SQLiteStore(tmp_path / "file" / "chest.db").open()

    def test_table_that_was_dropped_is_told(self, store: SQLiteStore, path: Path) -> None:
        execute(path, "DROP TABLE flask_chest_exporters")
        with pytest.raises(
            SchemaError, match=r"no such table: \S*flask_chest_exporters; another program changed"
        ):
            store.claim("a", limit=1, lease=MINUTE)


class TestQueries:
    @pytest.mark.parametrize(
        ("query", "index"),
        [
            (Query(), "flask_chest_time"),
            (Query(since_unix_nano=1, until_unix_nano=9), "flask_chest_time"),
            (Query(where={"plan": "pro"}), "flask_chest_time"),
            (Query(method="GET"), "flask_chest_time"),
            (Query(request_id="r"), "flask_chest_request"),
            (Query(trace_id="t"), "flask_chest_trace"),
            (Query(route="/"), "flask_chest_route"),
            (Query(route="/", since_unix_nano=1), "flask_chest_route"),
            (Query(status_code=500, until_unix_nano=9), "flask_chest_status"),
            (Query(status_code=404), "flask_chest_status"),
            (Query(status_code=200), "flask_chest_time"),
            (Query(errors=True), "flask_chest_errors"),
            (Query(errors=True, since_unix_nano=1), "flask_chest_errors"),
            (Query(status_class=5), "flask_chest_errors"),
            (Query(error="KeyError"), "flask_chest_errors"),
            (Query(status_class=4), "flask_chest_time"),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("continued", [False, True], ids=["first", "next"])
    def test_query_uses_an_index(self, store: SQLiteStore, query: Query, index: str, continued: bool) -> None:
        statement, values = chunk(store._tables, query, before=make_record() if continued else None, size=10)
        with store._database.connection() as connection:
            rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
        plan = " | ".join(row[-1] for row in rows)
        assert f"INDEX {index}" in plan
        # What asks for one request or trace finds few records; they may be sorted.
        assert ("TEMP B-TREE" in plan) == (index in {"flask_chest_request", "flask_chest_trace"})

    def test_table_whose_index_holds_every_status_answers_alike(self, store: SQLiteStore, path: Path) -> None:
        execute(path, "DROP INDEX flask_chest_status")
        execute(path, "CREATE INDEX flask_chest_status ON flask_chest (status_code, time_unix_nano, id)")
        store.close()
        store.open()
        found, missing = make_record(status_code=200), make_record(status_code=404)
        store.write([found, missing])
        assert list(store.query(Query(status_code=404))) == [missing]
        assert list(store.query(Query(status_code=200))) == [found]

    def test_view_answers_questions_about_variables(self, store: SQLiteStore, path: Path) -> None:
        store.write(
            [
                make_record(route="/a", variables={"total_time": 0.5, "plan": "pro"}),
                make_record(route="/a", variables={"total_time": 1, "plan": None}),
                make_record(route="/b", variables={"total_time": 2.0}),
            ]
        )
        rows = execute(
            path,
            "SELECT route, avg(number) FROM flask_chest_variables WHERE name = 'total_time' GROUP BY route",
        )
        assert rows == [("/a", 0.75), ("/b", 2.0)]

    @pytest.mark.parametrize(
        ("value", "row"),
        [
            (None, ("null", None, None)),
            (True, ("boolean", 1, None)),
            (False, ("boolean", 0, None)),
            (-(2**63), ("integer", -(2**63), None)),
            (1.5, ("number", 1.5, None)),
            ("it's", ("string", None, "it's")),
            ([1, "a"], ("array", None, '[1,"a"]')),
            ({"a": None}, ("object", None, '{"a":null}')),
        ],
        ids=str,
    )
    def test_view_shows_a_value_by_its_type(
        self, store: SQLiteStore, path: Path, value: JSONValue, row: tuple[object, ...]
    ) -> None:
        store.write([make_record(variables={"v": value})])
        assert execute(path, "SELECT type, number, text FROM flask_chest_variables WHERE name = 'v'") == [row]

    def test_view_shows_the_time_in_utc_and_the_record_beside_the_variable(
        self, store: SQLiteStore, path: Path
    ) -> None:
        record = make_record(time_unix_nano=1_700_000_000_007_999_999, variables={"v": 1})
        store.write([record])
        rows = execute(path, "SELECT time, id, request_id, method, status_code, name FROM flask_chest_variables")
        assert rows == [("2023-11-14T22:13:20.007Z", record.id, record.request_id, "GET", 200, "v")]


class TestConnections:
    def test_closed_store_may_be_used_again(self, store: SQLiteStore) -> None:
        record = make_record()
        store.write([record])
        store.close()
        assert list(store.query(Query())) == [record]

    @pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
    def test_closed_store_holds_no_file_open(self, store: SQLiteStore, tmp_path: Path) -> None:
        answer = iter(store.query(Query()))
        store.write([make_record()])
        next(answer)
        with store._database.connection():
            store.close()
        assert open_files(tmp_path) == []

    def test_one_user_at_a_time_needs_one_connection(self, store: SQLiteStore) -> None:
        for _ in range(5):
            store.write([make_record()])
            list(store.query(Query()))
        assert len(store._database._idle) == 1

    def test_transaction_that_fails_leaves_nothing_behind(self, store: SQLiteStore) -> None:
        def fail() -> None:
            with store._database.writing() as session:
                session.change("DELETE FROM flask_chest_schema")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        record = make_record()
        store.write([record])
        store.close()
        assert list(store.query(Query())) == [record]

    def test_thread_that_waits_too_long_for_its_turn_to_write_is_told(self, path: Path) -> None:
        with closing(SQLiteStore(path, busy_timeout=0.05)) as store:
            store.open()
            with (
                store._database.writing(),
                pytest.raises(StoreUnavailable, match="other threads write; try again, or raise busy_timeout"),
            ):
                store.write([make_record()])
            store.write([make_record()])
            assert store.status().records == 1

    def test_status_tells_place_and_size(self, store: SQLiteStore, path: Path) -> None:
        status = store.status()
        assert status.description == f"SQLite {path}"
        assert status.size_bytes == path.stat().st_size + Path(f"{path}-wal").stat().st_size

    def test_conflict_is_logged_with_the_id_alone(
        self, store: SQLiteStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        record = make_record(id="the-id", variables={"plan": "hidden-1"})
        store.write([record])
        store.write([msgspec.structs.replace(record, variables={"plan": "hidden-2"})])
        assert [entry.levelno for entry in caplog.records] == [logging.WARNING]
        assert "the-id" in caplog.text
        assert "hidden" not in caplog.text


class TestDeletedRecords:
    def test_claimed_batch_that_was_deleted_is_skipped(self, store: SQLiteStore, path: Path) -> None:
        records = [make_record() for _ in range(4)]
        store.write(records)
        store.claim("a", limit=2, lease=timedelta(0))
        execute(path, "DELETE FROM flask_chest WHERE position <= 2")
        claim = store.claim("a", limit=10, lease=MINUTE)
        assert isinstance(claim, Claim)
        assert list(claim.records) == records[2:]

    def test_nothing_is_pending_when_all_was_deleted(self, store: SQLiteStore, path: Path) -> None:
        store.write([make_record()])
        lost = store.claim("a", limit=2, lease=timedelta(0))
        assert isinstance(lost, Claim)
        execute(path, "DELETE FROM flask_chest")
        assert store.claim("a", limit=10, lease=MINUTE) is None
        assert not store.acknowledge(lost)
        record = make_record()
        store.write([record])
        claim = store.claim("a", limit=10, lease=MINUTE)
        assert isinstance(claim, Claim)
        assert list(claim.records) == [record]


def open_files(folder: Path) -> list[str]:
    targets: list[str] = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            targets.append(str(entry.readlink()))
        except OSError:  # the folder's own descriptor
            continue
    return [target for target in targets if target.startswith(os.fspath(folder))]


@pytest.mark.slow
def test_columns_of_many_records_are_no_work_for_the_garbage_collector(store: SQLiteStore) -> None:
    store.write([make_record(variables={"n": number}) for number in range(12_000)])
    collections = 0

    def note(phase: str, _: object) -> None:
        nonlocal collections
        collections += phase == "start"

    gc.callbacks.append(note)
    try:
        found = sum(len(columns["id"]) for columns in store.columns(Query(limit=None)))
    finally:
        gc.callbacks.remove(note)
    assert found == 12_000
    assert collections < 3  # with a tuple of each row there are eight
