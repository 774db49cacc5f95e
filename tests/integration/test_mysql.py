"""MySQL and MariaDB as stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import count
from typing import Any, TypeAlias

import pymysql
import pytest

from aggregation_property import AggregationProperty
from emptied_tables import EmptiedTables
from finding_property import FindingProperty, IndexedFindingProperty
from flask_chest.aggregates import (
    AggregateQuery,
    Column,
    Count,
    Distinct,
    ErrorRate,
    Histogram,
    Mean,
    Measure,
    Minimum,
    Percentiles,
    Variable,
)
from flask_chest.record import JSONValue, Query, ge, is_set, one_of
from flask_chest.stores.mysql import MySQLStore
from flask_chest.stores.mysql.connections import MYSQL, Address, MySQLAnswer
from flask_chest.stores.sql import percentiles
from flask_chest.stores.sql.query import chunk
from flask_chest.stores.sql.tables import SQLValue, Tables
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
from older_release import MakeSQLStore, OlderReleaseContract
from sampled_property import SampledProperty
from server_contract import MakeStore, ServerStoreContract, ServerTroubles, kept, make_varied_records
from servers import DatabaseServer
from view_contract import RunSQL, ViewContract

_numbers = count()


@pytest.fixture(params=["mysql", "mariadb"], scope="session")
def database(request: pytest.FixtureRequest) -> DatabaseServer:
    server: DatabaseServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def name() -> str:
    """Tables of its own for each test."""
    return f"chest_{next(_numbers)}"


@pytest.fixture
def make_store(database: DatabaseServer, name: str) -> Iterator[MakeStore]:
    stores: list[MySQLStore] = []

    def make(uri: str = "", **options: Any) -> MySQLStore:
        stores.append(MySQLStore(uri or database.uri, **{"name": name, **options}))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> Any:
    store = make_store()
    store.open()
    return store


@pytest.fixture
def admin(database: DatabaseServer) -> Iterator[pymysql.cursors.Cursor]:
    parameters: dict[str, Any] = {**Address(database.uri, {}).parameters, "autocommit": True}
    with closing(pymysql.connect(**parameters)) as connection, connection.cursor() as cursor:
        if database.scheme == "mysql":
            cursor.execute("SET SESSION explain_format = 'TRADITIONAL'")
        yield cursor


class TestMySQLStore(
    EmptiedTables,
    StoreContract,
    OutboxContract,
    DeletionContract,
    LeasesContract,
    AggregationContract,
    AggregationProperty,
    SampledProperty,
    FindingProperty,
    ArchiveContract,
):
    """Does what every store does."""


class TestMySQLTables(
    IndexContract,
    IndexedFindingProperty,
    IndexSQLContract,
    ViewContract,
    OlderReleaseContract,
    ServerStoreContract,
):
    """Does what every store on a server does, and what changes its tables; each test has its own."""

    quote = "`"

    @pytest.fixture
    def make_sql_store(self, make_store: Callable[[], MySQLStore]) -> MakeSQLStore:
        return make_store

    @pytest.fixture
    def run_sql(self, admin: pymysql.cursors.Cursor) -> RunSQL:
        def run(sql: str) -> Sequence[Sequence[object]]:
            admin.execute(sql)
            return admin.fetchall()

        return run


class TestPercentilesByBins(AggregationProperty):
    """Finds the percentiles of few records as it does those of many."""

    @pytest.fixture(autouse=True, params=[1_000_000, 2], ids=["by bins", "by bins or a window"])
    def _many(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        few: dict[str, int] = {"FEW": 0, "FEWEST_BINS": 4, "MOST_BINS": 4, "MOST": request.param}
        for name, number in few.items():
            monkeypatch.setattr(percentiles, name, number)


class TestTroubles(ServerTroubles):
    """Outlives its server."""


def plan_of(admin: pymysql.cursors.Cursor, name: str, question: Query, **options: Any) -> dict[str, Any]:
    statement, values = chunk(Tables(name, MYSQL), question, **{"before": None, "size": 50, **options})
    admin.execute("EXPLAIN " + statement, values)
    columns = [column[0] for column in admin.description]
    (row,) = admin.fetchall()
    return dict(zip(columns, row, strict=True))


def test_filters_read_an_index(store: MySQLStore, name: str, admin: pymysql.cursors.Cursor) -> None:
    store.write(make_varied_records(3_000))
    admin.execute(f"ANALYZE TABLE `{name}`")
    questions = {
        "_request": Query(request_id="r7"),
        "_trace": Query(trace_id=f"{7:032x}"),
        "_route": Query(route="/7"),
        "_time": Query(),
    }
    for index, question in questions.items():
        plan = plan_of(admin, name, question)
        assert plan["key"] == f"{name}{index}", plan
        assert int(plan["rows"]) <= 100, plan


def test_following_chunks_read_the_index_from_where_the_last_ended(
    store: MySQLStore, name: str, admin: pymysql.cursors.Cursor
) -> None:
    store.write([make_record() for _ in range(3_000)])
    admin.execute(f"ANALYZE TABLE `{name}`")
    plan = plan_of(admin, name, Query(), before=kept(store)[2_900])
    assert (plan["key"], plan["type"]) == (f"{name}_time", "range"), plan
    assert "filesort" not in str(plan["Extra"]), plan


@pytest.mark.parametrize("limit", [None, 1, 3, 20, 700])
@pytest.mark.parametrize("user_id", [1, 500, 777, 10_000])
def test_answer_without_an_index_is_the_same_by_time_and_by_a_scan(
    store: MySQLStore, monkeypatch: pytest.MonkeyPatch, user_id: int, limit: int | None
) -> None:
    monkeypatch.setattr("flask_chest.stores.sql.query.NEWEST", 50)
    numbers = range(1_500)
    records = [
        make_record(
            time_unix_nano=1_000 + number // 7, variables={"user_id": 1 if number % 2 else number, "n": number}
        )
        for number in numbers
    ]
    store.write(records)
    question = Query(where={"user_id": user_id}, limit=limit)
    in_order = sorted(filter(question.matches, records), key=lambda record: (record.time_unix_nano, record.id))
    assert list(store.query(question)) == in_order[::-1][:limit]


def test_scan_reads_no_index(store: MySQLStore, name: str, admin: pymysql.cursors.Cursor) -> None:
    store.write([make_record() for _ in range(3_000)])
    admin.execute(f"ANALYZE TABLE `{name}`")
    plan = plan_of(admin, name, Query(until_unix_nano=kept(store)[10].time_unix_nano), scan=True)
    assert (plan["key"], plan["type"]) == (None, "ALL"), plan


MEASURES: list[tuple[Measure[object], ...]] = [
    (Count(), ErrorRate(), Mean("duration")),
    (Percentiles("duration", 50, 95, 99), Minimum(Variable("n"))),
    (Histogram("duration", 0.001, 0.1), Distinct(Variable("n"))),
    (Mean(Variable("n")), Percentiles(Variable("n"), 95), Distinct("route")),
]
GROUPS: Sequence[tuple[Column | Variable, ...]] = [
    (),
    ("route",),
    ("status_code",),
    ("status_class",),
    ("request_id",),
    ("trace_id",),
    (Variable("n"),),
    ("route", Variable("n")),
]


HOUR = 3_600_000_000_000

Access: TypeAlias = "tuple[object, object]"
"""How a statement reads the records: the type of that, and the index."""
AccessesOf: TypeAlias = "Callable[..., set[Access]]"


@pytest.fixture
def accesses_of(store: MySQLStore, admin: pymysql.cursors.Cursor, monkeypatch: pytest.MonkeyPatch) -> AccessesOf:
    """Return what tells how the statements of some questions read the records."""
    asked: dict[tuple[str, tuple[SQLValue, ...]], None] = {}
    fetch = MySQLAnswer.rows

    def rows(session: MySQLAnswer, sql: str, values: Sequence[SQLValue] = (), /) -> list[tuple[Any, ...]]:
        asked[sql, tuple(values)] = None
        return fetch(session, sql, values)

    def accesses(*queries: AggregateQuery) -> set[Access]:
        asked.clear()
        with monkeypatch.context() as patch:
            patch.setattr(MySQLAnswer, "rows", rows)
            for query in queries:
                store.aggregate(query)
        found: set[Access] = set()
        for sql, values in asked:
            if " AS record" in sql:
                admin.execute("EXPLAIN " + sql, values)
                columns = [column[0] for column in admin.description]
                plan = [dict(zip(columns, row, strict=True)) for row in admin.fetchall()]
                found |= {(each["type"], each["key"]) for each in plan if each["table"] == "record"}
        return found

    return accesses


@pytest.mark.parametrize("hours", [None, 1, 40], ids=["all time", "a narrow range", "a wide range"])
@pytest.mark.parametrize("few", [20_000, 0], ids=["few records", "many records"])
def test_aggregates_scan_the_table_or_a_range_of_time(
    store: MySQLStore,
    name: str,
    admin: pymysql.cursors.Cursor,
    monkeypatch: pytest.MonkeyPatch,
    accesses_of: AccessesOf,
    few: int,
    hours: int | None,
) -> None:
    groups = 7
    records = [
        make_record(route=f"/{number % groups}", time_unix_nano=number * HOUR // 60, variables={"n": number % 5})
        for number in range(3_000)
    ]
    store.write(records)
    store.add_index("n")
    admin.execute(f"ANALYZE TABLE `{name}`")
    monkeypatch.setattr(percentiles, "FEW", few)
    query = Query() if hours is None else Query(since_unix_nano=HOUR, until_unix_nano=(1 + hours) * HOUR)
    accesses = accesses_of(
        *(
            AggregateQuery(measures=measures, by=by, bounds=bounds, query=query, top=3)
            for measures, by in zip(MEASURES * 2, GROUPS, strict=True)
            for bounds in ((), (HOUR, 2 * HOUR, 3 * HOUR))
        )
    )
    assert accesses == {("range", f"{name}_time") if hours == 1 else ("ALL", None)}


MINUTES = 3_000
"""Records of the next test, one a minute."""
EARLY, LATE = 30 * HOUR // 60, (MINUTES - 30) * HOUR // 60
"""Times after the first, and before the last half hour."""
MANY: Mapping[str, Query] = {
    "a route": Query(route="/usual"),
    "a route in nearly all time": Query(route="/usual", since_unix_nano=EARLY),
    "a status": Query(status_code=200),
    "a status in nearly all time": Query(status_code=200, since_unix_nano=EARLY),
    "a class of status": Query(status_class=2),
    "a method": Query(method="GET"),
    "an indexed variable": Query(where={"plan": "free"}),
    "an indexed variable in nearly all time": Query(where={"plan": "free"}, since_unix_nano=EARLY),
    "an indexed number": Query(where={"usual": 1}),
    "several values of an indexed variable": Query(conditions=(("plan", one_of("free", "pro")),)),
    "an indexed variable that is set": Query(conditions=(("plan", is_set()),)),
    "a bound of an indexed number": Query(conditions=(("user_id", ge(100)),)),
    "another variable": Query(where={"n": 1}),
    "errors, which no index is on": Query(errors=True),
    "an exception, which no index is on": Query(error="KeyError"),
    "nearly all time": Query(since_unix_nano=EARLY, until_unix_nano=LATE),
    "a route and a variable": Query(route="/usual", where={"plan": "free"}),
}
"""Questions about most records, or that only all of them answer."""
FEW: Mapping[str, tuple[Query, set[str]]] = {
    "a route": (Query(route="/3"), {"route"}),
    "a route in nearly all time": (Query(route="/3", since_unix_nano=EARLY), {"route"}),
    "a status": (Query(status_code=404), {"status"}),
    "a class of status": (Query(status_class=5), {"status"}),
    "a request": (Query(request_id="r7"), {"request"}),
    "a trace": (Query(trace_id=f"{7:032x}"), {"trace"}),
    "an indexed variable": (Query(where={"user_id": 7}), {"by_user_id"}),
    "an indexed variable in nearly all time": (
        Query(where={"user_id": 7}, since_unix_nano=EARLY),
        {"by_user_id"},
    ),
    "some values of an indexed variable": (Query(conditions=(("user_id", one_of(7, 8)),)), {"by_user_id"}),
    "the last half hour": (Query(since_unix_nano=LATE), {"time"}),
    "a usual route in the last half hour": (Query(route="/usual", since_unix_nano=LATE), {"time", "route"}),
    "a usual value in the last half hour": (
        Query(where={"plan": "free"}, since_unix_nano=LATE),
        {"time", "by_plan"},
    ),
    "a rare value of a usual route": (Query(route="/usual", where={"user_id": 7}), {"by_user_id"}),
}
"""Questions about few records, and the ends of the names of the indexes by which these may be read."""


def test_aggregates_read_by_an_index_what_few_records_have_alone(
    store: MySQLStore, name: str, admin: pymysql.cursors.Cursor, accesses_of: AccessesOf
) -> None:
    """By an index each record is fetched at random: of most records that takes longer than a scan of all."""
    store.write(
        [
            make_record(
                route="/usual" if number % 10 else f"/{number // 10 % 20}",
                request_id=f"r{number}",
                trace_id=f"{number:032x}",
                status_code={1: 500, 2: 404}.get(number % 100, 200),
                error="KeyError" if number % 100 == 1 else None,
                time_unix_nano=number * HOUR // 60,
                variables={
                    "plan": "free" if number % 10 else "pro",
                    "usual": 1 if number % 10 else number,
                    "user_id": number % 500,
                    "n": number % 3,
                    "text": "x" * 150,
                },
            )
            for number in range(MINUTES)
        ]
    )
    for variable in ("plan", "usual", "user_id"):
        store.add_index(variable)
    admin.execute(f"ANALYZE TABLE `{name}`")

    def accesses(query: Query) -> set[Access]:
        return accesses_of(AggregateQuery(measures=MEASURES[1], by=("route",), query=query, top=3))

    scans = {("ALL", None)}
    assert {about: found for about, query in MANY.items() if (found := accesses(query)) != scans} == {}
    for about, (query, ends) in FEW.items():
        kinds, keys = zip(*accesses(query), strict=True)
        assert set(keys) <= {f"{name}_{end}" for end in ends}, about
        assert set(kinds) <= {"range", "ref", "const"}, about


def test_view_gives_a_row_for_each_variable(store: MySQLStore, name: str, admin: pymysql.cursors.Cursor) -> None:
    variables: dict[str, JSONValue] = {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": None,
        "e": 'te"xt',
        "f": [1, {"x": 2}],
        "g": 2**63 - 1,
        'h"\\.$': "ü",
    }
    store.write([make_record(variables=variables, time_unix_nano=1_700_000_000_123_456_789)])
    admin.execute(f"SELECT name, type, number, text, time FROM `{name}_variables` ORDER BY name")
    rows = admin.fetchall()
    assert [(key, kind, number, str(text or "").replace(" ", "")) for key, kind, number, text, _ in rows] == [
        ("a", "integer", 1, ""),
        ("b", "number", 1.5, ""),
        ("c", "boolean", 1, ""),
        ("d", "null", None, ""),
        ("e", "string", None, 'te"xt'),
        ("f", "array", None, '[1,{"x":2}]'),
        ("g", "integer", float(2**63 - 1), ""),
        ('h"\\.$', "string", None, "ü"),
    ]
    assert {moment.isoformat() for *_, moment in rows} == {"2023-11-14T22:13:20.123456"}


def test_each_table_has_a_primary_key(store: MySQLStore, name: str, admin: pymysql.cursors.Cursor) -> None:
    """A server may refuse others (sql_require_primary_key), and replicates them slowly."""
    tables = f"FROM information_schema.tables WHERE table_type = 'BASE TABLE' AND table_name LIKE '{name}%'"
    admin.execute(f"SELECT table_name {tables}")
    assert len(admin.fetchall()) == 7
    admin.execute(
        f"SELECT table_name {tables} AND table_name NOT IN"
        " (SELECT table_name FROM information_schema.table_constraints WHERE constraint_type = 'PRIMARY KEY')"
    )
    assert admin.fetchall() == ()
