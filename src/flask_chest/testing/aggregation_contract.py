"""What a store must do that aggregates: each test states one fact, of the same answer on every store."""
# ruff: noqa: D102 - a test's name states the fact

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import pytest

from flask_chest.aggregates import (
    AggregateQuery,
    Answer,
    Column,
    Count,
    Distinct,
    ErrorRate,
    Histogram,
    Key,
    Maximum,
    Mean,
    Measure,
    Minimum,
    NoScalar,
    Percentiles,
    Row,
    Sum,
    Variable,
)
from flask_chest.protocols import Aggregation, Store
from flask_chest.record import JSONValue, Query, Record, ge, is_set, one_of
from flask_chest.testing.records import make_record

V = Variable("v")
SECOND = 1_000_000_000


class AggregatingStore(Store, Aggregation, Protocol):
    """A store whose records can be aggregated."""


_OF_NINE = (
    (Query(route="/even"), {2, 4, 6, 8}),
    (Query(route="no such"), set[int]()),
    (Query(method="POST", limit=1), {3, 6, 9}),
    (Query(since_unix_nano=3, until_unix_nano=6), {3, 4, 5}),
    (Query(where={"w": 1}), {1, 5, 9}),
    (Query(where={"w": "1"}), {2, 6}),
    (Query(where={"w": 1.0}), {3, 7}),
    (Query(where={"w": [1]}), {4, 8}),
    (Query(where={"w": None}), set[int]()),
    (Query(where={"a\0b": 1}), set[int]()),
    (Query(conditions=(("v", ge(7)),)), {7, 8, 9}),
    (Query(conditions=(("w", ge("1")),)), {2, 6}),
    (Query(conditions=(("w", one_of(1, "1")),)), {1, 2, 5, 6, 9}),
    (Query(conditions=(("x", is_set()),), errors=True), {5}),
    (Query(errors=True), {5}),
    (Query(status_class=5), {5}),
    (Query(error="KeyError"), {5}),
    (Query(status_code=200, where={"w": "1"}), {2, 6}),
)
"""Questions about the records of a test, and the numbers in those that are meant."""


class AggregationContract:
    """Needs the fixture *store*, which is open and empty."""

    def test_nothing_is_measured_of_no_records(self, store: AggregatingStore) -> None:
        measures = (
            Count(),
            ErrorRate(),
            Sum(V),
            Mean(V),
            Minimum(V),
            Maximum(V),
            Percentiles("duration", 50, 99),
            Distinct("route"),
            Histogram(V, 1.0),
        )
        answer = _ask(store, *measures, by=["route"], bounds=(0, 10))
        assert answer.groups == ()
        for row in (answer.all, answer.others, answer.series[0].all):
            assert row.records == 0
            assert list(row.values.values()) == [
                *(0, None, 0.0, None, None, None, {50: None, 99: None}, 0),
                ((None, 1.0, 0), (1.0, None, 0)),
            ]

    def test_each_measure_is_of_all_numbers(self, store: AggregatingStore) -> None:
        values: list[JSONValue] = [4, 1.5, -2, True, "7", None, [9], {"v": 9}, 4]
        store.write([_record(variables={"v": value}) for value in values])
        store.write([_record(variables={"w": 100}, status_code=503), _record(error="KeyError", status_code=200)])
        row = _ask(
            store,
            Count(),
            ErrorRate(),
            Sum(V),
            Mean(V),
            Minimum(V),
            Maximum(V),
            Percentiles(V, 1, 25, 50, 75, 100),
            Histogram(V, -2, 2, 4),
        ).all
        assert row.records == row[Count()] == 11
        assert row[ErrorRate()] == 2 / 11
        assert row[Sum(V)] == pytest.approx(7.5, rel=1e-9)
        assert row[Mean(V)] == pytest.approx(1.875, rel=1e-9)
        assert (row[Minimum(V)], row[Maximum(V)]) == (-2.0, 4.0)
        assert row[Percentiles(V, 1, 25, 50, 75, 100)] == {1: -2.0, 25: -2.0, 50: 1.5, 75: 4.0, 100: 4.0}
        assert [each.requests for each in row[Histogram(V, -2, 2, 4)]] == [0, 2, 0, 2]

    def test_measure_that_is_asked_for_twice_is_one(self, store: AggregatingStore) -> None:
        store.write([_record(route=f"/{at % 3}", variables={"v": at % 2}) for at in range(6)])
        measures = (Distinct("route"), Sum(V), Distinct("route"), Percentiles(V, 50), Distinct(V), Sum(V))
        row = _ask(store, *measures, Percentiles(V, 50)).all
        assert (row[Distinct("route")], row[Distinct(V)]) == (3, 2)
        assert (row[Sum(V)], row[Percentiles(V, 50)]) == (3.0, {50: 0.0})
        bins = _ask(store, Histogram(V, 1), Histogram(V, 1)).all[Histogram(V, 1)]
        assert [each.requests for each in bins] == [3, 3]

    def test_duration_is_in_seconds(self, store: AggregatingStore) -> None:
        store.write([_record(duration_ns=number * 100_000_000) for number in range(1, 11)])
        row = _ask(store, Mean("duration"), Percentiles("duration", 50, 95), Maximum("duration")).all
        assert row[Mean("duration")] == pytest.approx(0.55, rel=1e-9)
        assert row[Percentiles("duration", 50, 95)] == {50: 0.5, 95: 1.0}
        assert row[Maximum("duration")] == 1.0

    def test_percentile_is_the_element_of_its_rank(self, store: AggregatingStore) -> None:
        every = Percentiles(V, *range(1, 101))
        for size in (1, 2, 3, 25, 99, 100, 101, 200):
            route = f"/{size}"
            store.write([_record(route=route, variables={"v": number}) for number in range(size, 0, -1)])
            expected = {p: float((size * p + 99) // 100) for p in range(1, 101)}
            assert _ask(store, every, query=Query(route=route)).all[every] == expected

    def test_key_is_a_scalar_by_its_type(self, store: AggregatingStore) -> None:
        values: list[bool | int | float | str | None] = [
            1,
            1.0,
            True,
            "1",
            None,
            "",
            " ",
            "a",
            "A",
            "a ",
            "é",
            "\U0001f600",
        ]
        values += [
            "[",
            "null",
            '"',
            "\\",
            "a\nb",
            "\uffff",
            0,
            0.0,
            False,
            2**53,
            2**53 + 1,
            -(2**63),
            1e300,
            0.1,
        ]
        for number, value in enumerate(values):
            store.write([_record(variables={"v": value}) for _ in range(1 + number % 3)])
        answer = _ask(store, Count(), by=[V], top=100)
        found = {_exact(row.key): row.records for row in answer.groups}
        assert found == {_exact((value,)): 1 + number % 3 for number, value in enumerate(values)}

    def test_lists_are_one_group_and_objects_another(self, store: AggregatingStore) -> None:
        values: list[JSONValue] = [[], [1], ["a"], {}, {"a": 1}, None]
        store.write([*(_record(variables={"v": value}) for value in values), _record(variables={"w": 1})])
        assert _counts(_ask(store, Count(), by=[V])) == [
            ((NoScalar.LIST,), 3),
            ((NoScalar.OBJECT,), 2),
            ((NoScalar.ABSENT,), 1),
            ((None,), 1),
        ]

    def test_zero_is_one_key_whatever_its_sign(self, store: AggregatingStore) -> None:
        store.write([_record(variables={"v": value}) for value in (0.0, -0.0, 0)])
        answer = _ask(store, Count(), Distinct(V), by=[V])
        assert _counts(answer) == [((0.0,), 2), ((0,), 1)]
        assert answer.all[Distinct(V)] == 2

    def test_groups_are_by_the_first_measure_and_then_by_type_and_value(self, store: AggregatingStore) -> None:
        values: list[JSONValue] = ["b", "a", "B", 10, 9, 9.5, True, False, None, [1], {"a": 1}, -1]
        store.write(
            [*(_record(variables={"v": value}) for value in values), _record(), _record(variables={"v": "z"})]
        )
        store.write([_record(variables={"v": "z"})])
        expected: list[Key] = ["z", NoScalar.ABSENT, None, False, True, -1, 9, 9.5, 10, "B", "a", "b"]
        expected += [NoScalar.LIST, NoScalar.OBJECT]
        assert [_exact(row.key) for row in _ask(store, Count(), by=[V]).groups] == [
            _exact((key,)) for key in expected
        ]
        for top in (1, 2, 5, 11):
            answer = _ask(store, Count(), by=[V], top=top)
            assert [_exact(row.key) for row in answer.groups] == [_exact((key,)) for key in expected[:top]]
            assert answer.others.records == 15 - sum(row.records for row in answer.groups)

    def test_groups_without_a_value_come_last(self, store: AggregatingStore) -> None:
        for route, value in (("/a", 1), ("/b", None), ("/c", -5), ("/d", 7)):
            store.write([_record(route=route, variables={"v": value})])
        for measure in (Mean(V), Maximum(V), Percentiles(V, 50), Minimum(V)):
            keys = [row.key for row in _ask(store, measure, by=["route"]).groups]
            assert keys == [("/d",), ("/a",), ("/c",), ("/b",)]

    def test_others_and_all_are_measured_by_themselves(self, store: AggregatingStore) -> None:
        for route, numbers in (("/a", [1, 1, 1, 100]), ("/b", [2, 3]), ("/c", [50]), (None, [60])):
            store.write([_record(route=route, variables={"v": number, "user": number % 3}) for number in numbers])
        measures = (Count(), Percentiles(V, 50, 95), Distinct(Variable("user")), Mean(V))
        answer = _ask(store, *measures, by=["route"], top=2)
        assert _counts(answer) == [(("/a",), 4), (("/b",), 2)]
        _, percentiles, distinct, mean = measures
        assert answer.others[percentiles] == {50: 50.0, 95: 60.0}
        assert answer.others[distinct] == 2
        assert answer.all[percentiles] == {50: 2.0, 95: 100.0}
        assert answer.all[distinct] == 3
        assert answer.all[mean] == pytest.approx(27.25, rel=1e-9)
        assert (answer.others.records, answer.all.records) == (2, 8)

    def test_columns_and_variables_group_together(self, store: AggregatingStore) -> None:
        rows = [
            ("/a", "GET", "pro"),
            ("/a", "GET", "pro"),
            ("/a", "POST", "pro"),
            (None, "GET", None),
            ("/a", "GET", 1),
        ]
        store.write([_record(route=route, method=method, variables={"v": plan}) for route, method, plan in rows])
        assert _counts(_ask(store, Count(), by=["route", "method", V])) == [
            (("/a", "GET", "pro"), 2),
            ((None, "GET", None), 1),
            (("/a", "GET", 1), 1),
            (("/a", "POST", "pro"), 1),
        ]

    def test_records_are_grouped_by_any_column(self, store: AggregatingStore) -> None:
        keys: dict[Column, Key] = {
            "route": "/x",
            "method": "PUT",
            "endpoint": "view",
            "status_code": 404,
            "status_class": 4,
            "instance": "host:1",
            "error": "KeyError",
            "request_id": "r-1",
            "trace_id": "0" * 31 + "1",
        }
        store.write(
            [
                make_record(
                    route="/x",
                    method="PUT",
                    endpoint="view",
                    status_code=404,
                    instance="host:1",
                    error="KeyError",
                    request_id="r-1",
                    trace_id="0" * 31 + "1",
                    variables=dict.fromkeys(keys, "a variable of the same name"),
                )
            ]
        )
        for column, key in keys.items():
            answer = _ask(store, Count(), Distinct(column), by=[column])
            assert _counts(answer) == [((key,), 1)]
            assert answer.all[Distinct(column)] == 1
            named = _ask(store, Count(), by=[Variable(column)])
            assert _counts(named) == [(("a variable of the same name",), 1)]

    def test_series_has_every_span_and_every_group(self, store: AggregatingStore) -> None:
        times = {"/a": [0, 5, 9, 30], "/b": [9, 10], "/c": [31]}
        for route, moments in times.items():
            store.write([_record(route=route, time_unix_nano=moment) for moment in moments])
        answer = _ask(store, Count(), by=["route"], bounds=(0, 10, 20, 30), top=2)
        assert _counts(answer) == [(("/a",), 4), (("/b",), 2)]
        assert [(bucket.begin_unix_nano, bucket.end_unix_nano) for bucket in answer.series] == [
            (0, 10),
            (10, 20),
            (20, 30),
        ]
        assert [[row.records for row in bucket.groups] for bucket in answer.series] == [[3, 1], [0, 1], [0, 0]]
        assert [bucket.all.records for bucket in answer.series] == [4, 1, 0]
        assert [bucket.others.records for bucket in answer.series] == [0, 0, 0]

    def test_times_before_1970_have_spans(self, store: AggregatingStore) -> None:
        store.write([_record(time_unix_nano=moment) for moment in (-20, -11, -10, -1, 0, 9)])
        answer = _ask(store, Count(), bounds=(-20, -10, 0, 10))
        assert [bucket.all[Count()] for bucket in answer.series] == [2, 2, 2]

    def test_percentiles_are_of_each_span(self, store: AggregatingStore) -> None:
        measure = Percentiles(V, 50)
        store.write([_record(time_unix_nano=number, variables={"v": 100 - number}) for number in range(20)])
        answer = _ask(store, measure, by=["route"], bounds=(0, 10, 20))
        assert [bucket.all[measure][50] for bucket in answer.series] == [95.0, 85.0]
        assert [bucket.groups[0][measure][50] for bucket in answer.series] == [95.0, 85.0]

    def test_only_records_that_match_are_measured(self, store: AggregatingStore) -> None:
        kinds: Sequence[JSONValue] = [[1], 1, "1", 1.0]
        for number in range(1, 10):
            variables: dict[str, JSONValue] = {"v": number, "w": kinds[number % 4]}
            store.write(
                [
                    _record(
                        route="/odd" if number % 2 else "/even",
                        method="GET" if number % 3 else "POST",
                        time_unix_nano=number,
                        status_code=500 if number == 5 else 200,
                        error="KeyError" if number == 5 else None,
                        variables=variables | ({"x": None} if number == 5 else {}),
                    )
                ]
            )
        for query, numbers in _OF_NINE:
            answer = _ask(store, Sum(V), Count(), by=[V], query=query)
            assert {row.key[0] for row in answer.groups} == numbers
            assert answer.all[Count()] == len(numbers)
            assert answer.all[Sum(V)] == pytest.approx(sum(numbers))

    def test_numbers_beyond_what_can_be_added_are_left_out_and_counted(self, store: AggregatingStore) -> None:
        store.write([_record(variables={"v": number}) for number in (1e300, -1e300, 1e290, 1, 1.7e308)])
        answer = _ask(store, Count(), Sum(V), Maximum(V), Percentiles(V, 50))
        assert answer.left_out == 3
        assert not answer.complete
        assert answer.all[Count()] == 5
        assert answer.all[Sum(V)] == answer.all[Maximum(V)] == 1e290
        assert answer.all[Percentiles(V, 50)] == {50: 1.0}

    def test_sampled_record_counts_for_those_that_were_left_out(self, store: AggregatingStore) -> None:
        store.write([_record(sample_rate=0.1, variables={"v": 10}) for _ in range(9)])
        store.write([_record(status_code=500, variables={"v": 1000}) for _ in range(5)])
        measures = (Count(), ErrorRate(), Sum(V), Mean(V), Histogram(V, 100))
        row = _ask(store, *measures, by=["method"]).groups[0]
        assert row.records == 14
        assert row[Count()] == 95
        assert row[ErrorRate()] == pytest.approx(5 / 95, rel=1e-9)
        assert row[Sum(V)] == pytest.approx(9 * 10 * 10 + 5 * 1000, rel=1e-9)
        assert row[Mean(V)] == pytest.approx(5900 / 95, rel=1e-9)
        assert [each.requests for each in row[Histogram(V, 100)]] == [90, 5]
        assert _ask(store, Minimum(V), Maximum(V)).all[Maximum(V)] == 1000

    def test_percentile_goes_by_weight(self, store: AggregatingStore) -> None:
        store.write([_record(sample_rate=0.1, variables={"v": 10}) for _ in range(9)])
        store.write([_record(variables={"v": 1000}) for _ in range(5)])
        weighted, plain = Percentiles(V, 50, 94, 95, 100), Percentiles(V, 50, 64, 65, weighted=False)
        row = _ask(store, weighted, plain).all
        assert row[weighted] == {50: 10.0, 94: 10.0, 95: 1000.0, 100: 1000.0}
        assert row[plain] == {50: 10.0, 64: 10.0, 65: 1000.0}

    def test_what_is_not_weighted_is_of_records(self, store: AggregatingStore) -> None:
        store.write([_record(sample_rate=0.5, variables={"v": 1}), _record(variables={"v": 4}, error="E")])
        measures = (
            Count(weighted=False),
            ErrorRate(weighted=False),
            Sum(V, weighted=False),
            Mean(V, weighted=False),
            Histogram(V, 2, weighted=False),
        )
        row = _ask(store, *measures).all
        assert list(row.values.values()) == [2, 0.5, 5.0, 2.5, ((None, 2.0, 1), (2.0, None, 1))]

    def test_request_counts_are_rounded_once(self, store: AggregatingStore) -> None:
        store.write([_record(sample_rate=2 / 3) for _ in range(3)])
        answer = _ask(store, Count(), by=["route"], bounds=(-1, 0, 1))
        assert answer.all[Count()] == 5  # 4.5 and, as a weight is rounded to a millionth, no less
        assert answer.all.records == 3

    def test_weight_is_rounded_to_a_millionth(self, store: AggregatingStore) -> None:
        store.write([_record(sample_rate=0.6, variables={"v": 3})])
        assert _ask(store, Sum(V)).all[Sum(V)] == pytest.approx(3 * 1.666_667, rel=1e-9)

    def test_hostile_names_of_variables_are_only_names(self, store: AggregatingStore) -> None:
        for name in ['a"b', "x') --", "a'b", "$set", "a.b", "[0]", "", " ", "`", "%s", "?", "\\", "é", "select"]:
            store.write([_record(request_id=repr(name), variables={name: 3})])
            query = Query(request_id=repr(name))
            answer = _ask(store, Sum(Variable(name)), Distinct(Variable(name)), by=[Variable(name)], query=query)
            assert [(row.key, row[Sum(Variable(name))]) for row in answer.groups] == [((3,), 3.0)]

    def test_wheres_and_groups_of_many_records_agree(self, store: AggregatingStore) -> None:
        store.write(
            [
                _record(variables={"v": number % 7, "user": f"user {number % 400}"}, time_unix_nano=number)
                for number in range(1_000)
            ]
        )
        answer = _ask(store, Count(), Distinct(Variable("user")), by=[V], top=2, bounds=(0, 500, 1_000))
        assert _counts(answer) == [((0,), 143), ((1,), 143)]
        assert answer.all[Distinct(Variable("user"))] == 400
        assert answer.others.records == 714
        assert [bucket.all.records for bucket in answer.series] == [500, 500]


def _record(
    *,
    route: str | None = "/r",
    method: str = "GET",
    status_code: int = 200,
    error: str | None = None,
    duration_ns: int = 1_000_000,
    time_unix_nano: int = 0,
    request_id: str = "r",
    variables: dict[str, JSONValue] | None = None,
    sample_rate: float = 1.0,
) -> Record:
    return make_record(
        route=route,
        method=method,
        status_code=status_code,
        error=error,
        duration_ns=duration_ns,
        time_unix_nano=time_unix_nano,
        request_id=request_id,
        variables=variables or {},
        sample_rate=sample_rate,
    )


def _ask(
    store: Aggregation,
    *measures: Measure[object],
    by: Iterable[Column | Variable] = (),
    bounds: tuple[int, ...] = (),
    query: Query | None = None,
    top: int = 20,
) -> Answer:
    asked = AggregateQuery(measures=measures, by=tuple(by), bounds=bounds, query=query or Query(), top=top)
    return store.aggregate(asked)


def _counts(answer: Answer) -> list[tuple[tuple[Key, ...], int]]:
    rows: Sequence[Row] = answer.groups
    assert [len(row.key) for row in rows] == [len(answer.query.by)] * len(rows)
    return [(row.key, row.records) for row in rows]


def _exact(key: tuple[Key, ...]) -> tuple[tuple[type, Key], ...]:
    return tuple((type(each), each) for each in key)
