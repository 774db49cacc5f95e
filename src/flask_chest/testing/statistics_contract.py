"""What a store that counts and sums up must do."""
# ruff: noqa: D102 - a test's name states the fact

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol, cast

import pytest

from flask_chest.errors import ConfigurationError
from flask_chest.protocols import GroupBy, Statistics, Store, Summary, ValueCount, Variable
from flask_chest.record import Bound, IsSet, JSONValue, OneOf, Query, Record, same_value
from flask_chest.testing.records import make_record
from flask_chest.testing.store_contract import NAMES, VALUES

_SAME_BUT_FOR_THEIR_TYPE: Sequence[JSONValue] = (
    1,
    1.0,
    True,
    "1",
    "true",
    None,
    "null",
    0,
    False,
    "",
    [1],
    [1.0],
)
_EVERYTHING = Query()
_NEIGHBOURS: Sequence[JSONValue] = (
    *(2**60, 2**60 + 1, 2**63 - 1, 2**63 - 2, -(2**63), 1e18, 10**18),
    *(0.1, 0.1 + 2**-56, 1.7976931348623157e308, 5e-324, 1e16, 10**16),
    *("a", "A", "ä", "a ", "a\0", "a\0b", "\\", "\\u0000", "\\\0", "a\n", '"'),
    *("x" * 2_000 + "y", "x" * 2_000 + "z"),
)


class CountingStore(Store, Statistics, Protocol):
    """A store with statistics."""


class StatisticsContract:
    """What `Statistics` must do; needs the fixture *store*, which is open and empty."""

    def test_top_gives_the_most_frequent_values_first(self, store: CountingStore) -> None:
        _write(store, ["a", "b", "c", "b", "c", "c"])
        assert _top(store) == [("c", 3), ("b", 2), ("a", 1)]

    def test_top_gives_at_most_its_limit(self, store: CountingStore) -> None:
        _write(store, ["a", "b", "c", "b", "c", "c"])
        assert _top(store, limit=2) == [("c", 3), ("b", 2)]
        assert _top(store, limit=0) == []

    def test_values_of_several_types_are_several(self, store: CountingStore) -> None:
        values = [value for value in _SAME_BUT_FOR_THEIR_TYPE for _ in range(2)]
        _write(store, values)
        _assert_counts(_top(store), [(value, 2) for value in _SAME_BUT_FOR_THEIR_TYPE])

    def test_values_that_hardly_differ_are_several(self, store: CountingStore) -> None:
        _write(store, _NEIGHBOURS)
        _assert_counts(_top(store, limit=100), [(value, 1) for value in _NEIGHBOURS])

    @pytest.mark.parametrize("value", VALUES, ids=ascii)
    def test_any_value_is_counted_and_comes_back_equal(self, store: CountingStore, value: JSONValue) -> None:
        _write(store, ["other", value, "another", value])
        _assert_counts(_top(store), [(value, 2), ("other", 1), ("another", 1)])

    def test_equal_values_are_one_however_they_are_written(self, store: CountingStore) -> None:
        pairs: list[tuple[JSONValue, JSONValue]] = [
            ({"a": 1, "bb": [0.0]}, {"bb": [-0.0], "a": 1}),
            (0.0, -0.0),
        ]
        _write(store, ["x", "x", "x", "y", *(value for pair in pairs for value in pair)])
        _assert_counts(_top(store, limit=3), [("x", 3), (pairs[0][0], 2), (0.0, 2)])

    def test_records_without_the_variable_are_not_counted(self, store: CountingStore) -> None:
        store.write([make_record(variables={"w": 1}), make_record(variables={})])
        assert _top(store) == []
        store.write([make_record(variables={"v": None, "deep": {"v": 2}})])
        assert _top(store) == [(None, 1)]

    def test_store_without_records_gives_nothing(self, store: CountingStore) -> None:
        assert _top(store) == []
        groups: Sequence[GroupBy | None] = (None, "route", Variable("w"))
        for by in groups:
            assert _summaries(store, by=by) == []

    def test_of_equally_frequent_values_the_one_that_was_first_seen_comes_first(
        self, store: CountingStore
    ) -> None:
        moments = {"c": (5, 9), "b": (7, 6), "a": (8, 20), "d": (-1, 30)}
        store.write(
            [
                make_record(variables={"v": value}, time_unix_nano=moment)
                for value, pair in moments.items()
                for moment in pair
            ]
        )
        assert _top(store) == [("d", 2), ("c", 2), ("b", 2), ("a", 2)]
        assert _top(store, limit=2) == [("d", 2), ("c", 2)]

    def test_of_values_that_were_seen_at_once_the_one_with_the_least_id_comes_first(
        self, store: CountingStore
    ) -> None:
        ids = {"a": "3", "b": "B", "c": "a", "d": "20", "e": "é"}
        store.write(
            [
                make_record(id=id_, variables={"v": value, "n": 1}, time_unix_nano=7, route=value)
                for value, id_ in ids.items()
            ]
        )
        assert [value for value, _ in _top(store)] == ["d", "a", "b", "c", "e"]
        assert [value for value, _ in _top(store, limit=2)] == ["d", "a"]
        assert [group for group, *_ in _summaries(store, variable="n", by="route")] == ["d", "a", "b", "c", "e"]

    @pytest.mark.parametrize("variable", NAMES, ids=ascii)
    def test_variable_may_have_any_name(self, store: CountingStore, variable: str) -> None:
        others = {other: "other" for other in NAMES if other != variable}
        store.write([make_record(variables={**others, variable: value}) for value in (7, 7, 8)])
        store.write([make_record(variables=others)])
        assert _top(store, variable=variable) == [(7, 2), (8, 1)]
        assert _summaries(store, variable=variable) == [(None, 3, 22 / 3, 7, 8)]
        assert _summaries(store, variable=variable, by=Variable(variable)) == [(7, 2, 7, 7, 7), (8, 1, 8, 8, 8)]

    def test_name_that_no_database_takes_is_looked_for_all_the_same(self, store: CountingStore) -> None:
        store.write([make_record(variables={"a\0b": 7}), make_record(variables={"a": 8})])
        assert _top(store, variable="a\0b") == [(7, 1)]
        assert _summaries(store, variable="a\0b", by="route") == [("/", 1, 7, 7, 7)]
        assert _top(store, variable="\ud800") == []

    @pytest.mark.parametrize(
        "query",
        [
            Query(id="it"),
            Query(request_id="r"),
            Query(trace_id="0" * 31 + "1"),
            Query(route="/x"),
            Query(method="POST"),
            Query(status_code=503),
            Query(status_class=5),
            Query(errors=True),
            Query(since_unix_nano=90),
            Query(until_unix_nano=20),
            Query(since_unix_nano=5, until_unix_nano=20, method="POST", route="/x"),
        ],
        ids=str,
    )
    def test_only_records_that_match_are_counted(self, store: CountingStore, query: Query) -> None:
        late = query.since_unix_nano == 90
        wanted = make_record(
            id="it",
            request_id="r",
            trace_id="0" * 31 + "1",
            route="/x",
            method="POST",
            status_code=503,
            time_unix_nano=90 if late else 10,
            variables={"v": 7},
        )
        store.write([wanted, make_record(variables={"v": 8}, time_unix_nano=20, route=None)])
        assert _top(store, query) == [(7, 1)]
        assert _summaries(store, query) == [(None, 1, 7, 7, 7)]

    @pytest.mark.parametrize(
        "query",
        [
            Query(request_id="a\0b"),
            Query(route="\ud800"),
            Query(status_code=2**70),
            Query(since_unix_nano=2**70),
            Query(until_unix_nano=-(2**70)),
        ],
        ids=ascii,
    )
    def test_filter_that_nothing_can_match_leaves_nothing(self, store: CountingStore, query: Query) -> None:
        _write(store, [1, 2])
        assert _top(store, query) == []
        assert _summaries(store, query, by="route") == []

    def test_limit_of_the_query_is_not_looked_at(self, store: CountingStore) -> None:
        _write(store, [1, 1, 2])
        assert _top(store, Query(limit=1)) == [(1, 2), (2, 1)]
        assert _summaries(store, Query(limit=1, until_unix_nano=2**70)) == [(None, 3, 4 / 3, 1, 2)]

    @pytest.mark.parametrize(
        ("query", "matching"),
        [
            (Query(where={"w": 1}), (0, 1)),
            (Query(where={"w": 1.0}), (2,)),
            (Query(where={"w": None}), (4,)),
            (Query(conditions=(("w", Bound("gt", 1)),)), (3,)),
            (Query(conditions=(("w", OneOf((1.0, 2))),)), (2, 3)),
            (Query(conditions=(("w", IsSet()), ("v", Bound("le", 30)))), (0, 1, 2)),
            (Query(where={"w": 1}, route="/x", limit=1), (0,)),
            (Query(where={"w": "nobody's"}), ()),
            (Query(where={"a\0b": 1}), ()),
        ],
        ids=ascii,
    )
    def test_only_records_with_the_variables_asked_for_are_counted(
        self, store: CountingStore, query: Query, matching: tuple[int, ...]
    ) -> None:
        rows: list[dict[str, JSONValue]] = [{"w": 1}, {"w": 1}, {"w": 1.0}, {"w": 2}, {"w": None}, {}]
        store.write(
            [
                make_record(
                    variables={**row, "v": (number + 1) * 10},
                    route="/" if number else "/x",
                    time_unix_nano=number,
                )
                for number, row in enumerate(rows)
            ]
        )
        numbers = [(number + 1) * 10 for number in matching]
        assert _top(store, query) == [(number, 1) for number in numbers]
        expected = [(None, len(numbers), sum(numbers) / len(numbers), numbers[0], numbers[-1])] if numbers else []
        assert _summaries(store, query) == expected

    def test_only_numbers_are_summed_up(self, store: CountingStore) -> None:
        _write(store, [2, True, "7", None, [8], {"v": 9}, 4.5, False, "", "9 lives"])
        assert _summaries(store) == [(None, 2, 3.25, 2, 4.5)]

    @pytest.mark.parametrize(
        "numbers",
        [
            [-3, -1.5, 2],
            [2**63 - 1, -(2**63)],
            [2**60, 2**60 + 1],
            [0.1, 0.2, 0.3],
            [1.7976931348623157e308] * 3,
            [1e308, 1.0, -1e308],
            [5e-324],
            [-0.0],
            [1e16, 10**16],
        ],
        ids=str,
    )
    def test_numbers_of_any_size_are_summed_up(self, store: CountingStore, numbers: list[int | float]) -> None:
        _write(store, numbers)
        (summary,) = store.summarise("v", Query())
        assert summary.records == len(numbers)
        exact = float(sum(map(Fraction, numbers)) / len(numbers))
        size = max(abs(number) for number in numbers)
        assert math.isclose(summary.mean, exact, rel_tol=1e-9, abs_tol=1e-9 * size)
        assert (summary.minimum, summary.maximum) == (float(min(numbers)), float(max(numbers)))
        assert {type(summary.mean), type(summary.minimum), type(summary.maximum)} == {float}

    def test_numbers_are_summed_up_by_route(self, store: CountingStore) -> None:
        for route, number in [("/a", 1), (None, 5), ("/b", 2), (None, 7), ("/a", 4), ("/a ", 9), ("/a", 1)]:
            store.write([make_record(route=route, variables={"v": number})])
        store.write([make_record(route="/c", variables={"v": "none"})])
        assert _summaries(store, by="route") == [
            ("/a", 3, 2, 1, 4),
            (None, 2, 6, 5, 7),
            ("/b", 1, 2, 2, 2),
            ("/a ", 1, 9, 9, 9),
        ]

    def test_numbers_are_summed_up_by_another_variable(self, store: CountingStore) -> None:
        groups: list[JSONValue] = [
            *("pro", "free", "pro", 1, 1.0, True, None, "pro", "free"),
            [1],
            {"a": 1, "b": 2},
            [1.0],
            {"b": 2, "a": 1},
        ]
        store.write([make_record(variables={"plan": group, "v": number}) for number, group in enumerate(groups)])
        store.write([make_record(variables={"v": 100}), make_record(variables={"plan": "pro"})])
        expected: list[tuple[JSONValue, int, float, float, float]] = [
            ("pro", 3, 3, 0, 7),
            ("free", 2, 4.5, 1, 8),
            ({"a": 1, "b": 2}, 2, 11, 10, 12),
            *((groups[number], 1, number, number, number) for number in (3, 4, 5, 6, 9, 11)),
        ]
        found = _summaries(store, by=Variable("plan"))
        assert [row[1:] for row in found] == [row[1:] for row in expected]
        assert all(same_value(row[0], wanted[0]) for row, wanted in zip(found, expected, strict=True))

    def test_variable_may_be_called_like_the_column(self, store: CountingStore) -> None:
        store.write([make_record(route="/a", variables={"route": "/b", "v": 1})])
        assert _summaries(store, by=Variable("route")) == [("/b", 1, 1, 1, 1)]
        assert _summaries(store, by="route") == [("/a", 1, 1, 1, 1)]

    def test_variable_may_be_grouped_by_itself(self, store: CountingStore) -> None:
        _write(store, [1, 1.0, 1])
        found = _summaries(store, by=Variable("v"))
        assert found == [(1, 2, 1, 1, 1), (1.0, 1, 1, 1, 1)]
        assert [type(group) for group, *_ in found] == [int, float]

    def test_other_groups_are_refused(self, store: CountingStore) -> None:
        with pytest.raises(ConfigurationError, match='by must be "route", Variable'):
            store.summarise("v", Query(), by=cast("GroupBy", "plan"))

    def test_counts_agree_with_the_records_for_many_of_them(self, store: CountingStore) -> None:
        records = [
            make_record(variables={"v": number % 7, "w": f"user {number % 400}"}) for number in range(1_000)
        ]
        store.write(records)
        assert _top(store, limit=2) == [(0, 143), (1, 143)]
        assert len(_top(store, variable="w", limit=1_000)) == 400
        assert _top(store, variable="w", limit=1) == [("user 0", 3)]


def _write(store: Store, values: Sequence[JSONValue]) -> list[Record]:
    records = [make_record(variables={"u": "other", "v": value, "w": None}) for value in values]
    store.write(records)
    return records


def _top(
    store: Statistics,
    query: Query = _EVERYTHING,
    *,
    variable: str = "v",
    limit: int = 50,
) -> list[tuple[JSONValue, int]]:
    found: Sequence[ValueCount] = store.top(variable, query, limit=limit)
    return [(each.value, each.records) for each in found]


def _summaries(
    store: Statistics,
    query: Query = _EVERYTHING,
    *,
    variable: str = "v",
    by: GroupBy | None = None,
) -> list[tuple[JSONValue, int, float, float, float]]:
    found: Sequence[Summary] = store.summarise(variable, query, by=by)
    return [(each.group, each.records, each.mean, each.minimum, each.maximum) for each in found]


def _assert_counts(found: Sequence[tuple[JSONValue, int]], expected: Sequence[tuple[JSONValue, int]]) -> None:
    assert [count for _, count in found] == [count for _, count in expected]
    for (value, _), (wanted, _) in zip(found, expected, strict=True):
        assert same_value(value, wanted)
