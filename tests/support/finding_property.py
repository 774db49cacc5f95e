"""Questions for any variables, whose answers are compared with what `Query.matches` makes of all records."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_chest.protocols import Store
from flask_chest.record import Bound, Condition, IsSet, JSONValue, OneOf, Query, Record
from flask_chest.testing import make_record
from flask_chest.testing.contracts import IndexedStore
from json_values import integers, json_values, texts

INDEXED_NAME = "user_id"

# Two long texts that differ behind what an index may hold of them.
_LONG = "é" * 254 + "\U0001f600"
_SCALARS: list[JSONValue] = [
    *(None, True, False, 0, 0.0, -0.0, 1, 1.0, -1, 77, 77.0, "77", "1", "0", "true", "null", "", " ", "-0.0"),
    *(2**53 - 1, 2**53, 2**53 + 1, float(2**53), float(2**53 + 2), 2**63 - 1, -(2**63), float(2**63)),
    *(1e15, 10**15, 1e15 + 0.125, 1e16, 10**16, 0.1, 0.1 + 0.2, 0.3, 5e-324, -5e-324, 2.2e-308, 1e-7),
    *(1.7976931348623157e308, -1.7976931348623157e308, 1e308),
    *("a", "A", "a ", " a", "a\0", "a\0b", "a\x01", "\0", "\\u0000", "\\u0001", "\ufffd", "\uffff", "\U0001f600"),
    *(
        _LONG,
        _LONG + "a",
        _LONG + "b",
        _LONG[:-1],
        "x" * 8192,
        "é",
        "e\u0301",
        "ß",
        "ss",
        "'",
        '"',
        "\\",
        "%",
        "_",
    ),
    *("[]", "{}", "[1]"),
]
_CONTAINERS: list[JSONValue] = [
    [],
    [1],
    [1.0],
    {},
    {"a": 1},
    {"a": 1.0},
    [[]],
    {INDEXED_NAME: 77},
    [None],
]
_DEEP: JSONValue = 7
for _ in range(60):
    _DEEP = [_DEEP]

_floats = st.floats(allow_nan=False, allow_infinity=False)
_near_limits = st.builds(
    lambda power, offset: power + offset, st.sampled_from([2**53, -(2**53), 10**15]), st.integers(-3, 3)
)
_few = st.sampled_from(_SCALARS + _CONTAINERS)
_values: st.SearchStrategy[JSONValue] = _few | json_values | integers | _near_limits | _floats | texts
_hostile = [
    'a"b',
    "x') --",
    "a'b",
    "$set",
    "$",
    "a.b",
    "[0]",
    "",
    " ",
    "`",
    "%s",
    "?",
    "\\",
    "a\0b",
    "é",
    "User_ID",
]
_names = st.sampled_from([INDEXED_NAME] * 20 + ["x" * 63, "x" * 64, "_", "1a", "select", "position", *_hostile])


@st.composite
def _conditions(draw: st.DrawFn, values: st.SearchStrategy[JSONValue]) -> Condition:
    kind = draw(st.sampled_from(["bound", "bound", "one_of", "is_set"]))
    if kind == "one_of":
        return OneOf(tuple(draw(st.lists(values, max_size=4))))
    value = draw(values)
    if kind == "is_set" or not isinstance(value, int | float | str) or isinstance(value, bool):
        return IsSet()
    return Bound(draw(st.sampled_from(["gt", "ge", "lt", "le"])), value)


@st.composite
def _questions(draw: st.DrawFn) -> tuple[list[dict[str, JSONValue]], list[Query]]:
    """Draw the variables of some records, and questions of which most have an answer among them."""
    name = draw(_names)
    rows = draw(st.lists(st.dictionaries(st.just(name) | _names, _values, min_size=1, max_size=3), max_size=10))
    there = [value for row in rows for value in row.values()]
    asked = st.sampled_from(there) | _values if there else _values
    queries = []
    for _ in range(draw(st.integers(1, 4))):
        query = Query(limit=None)
        if draw(st.booleans()):
            query = Query(limit=None, where={name: draw(asked)})
        if draw(st.booleans()) or not query.where:
            query = Query(limit=None, where=query.where, conditions=((name, draw(_conditions(asked))),))
        if draw(st.integers(0, 3)) == 0:
            other = draw(_names)
            query = Query(
                limit=None,
                where=query.where,
                conditions=(*query.conditions, (other, draw(_conditions(asked)))),
            )
        queries.append(query)
    return rows, queries


_moments = count(1)


class FindingProperty:
    """Needs the fixture *store*, which is open; what else it holds does not matter."""

    @pytest.mark.slow
    @settings(
        max_examples=60,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.differing_executors,
        ],
    )
    @given(drawn=_questions(), deep=st.integers(0, 9))
    def test_answer_for_any_variables_is_what_the_query_matches(
        self, store: Store, drawn: tuple[list[dict[str, JSONValue]], list[Query]], deep: int
    ) -> None:
        rows, queries = drawn
        assert_found(store, [{"a": _DEEP, **row} for row in rows] if deep == 0 else rows, queries)


class IndexedFindingProperty:
    """Needs the fixture *store*, which is open; what else it holds does not matter."""

    smallest_indexed = 0.0
    """Distance from zero below which the engine is known to misplace a number in an index."""

    @pytest.mark.slow
    @settings(
        max_examples=60,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.differing_executors,
        ],
    )
    @given(drawn=_questions(), deep=st.integers(0, 9))
    def test_answer_by_an_index_is_what_the_query_matches(
        self, store: IndexedStore, drawn: tuple[list[dict[str, JSONValue]], list[Query]], deep: int
    ) -> None:
        rows, queries = drawn
        if not store.indexes():
            store.add_index(INDEXED_NAME)
        for row in rows:
            value = row.get(INDEXED_NAME)
            if isinstance(value, float) and abs(value) < self.smallest_indexed:
                row[INDEXED_NAME] = 0.0
        assert_found(store, [{"a": _DEEP, **row} for row in rows] if deep == 0 else rows, queries)


def assert_found(store: Store, rows: list[dict[str, JSONValue]], queries: list[Query]) -> None:
    """Write a record for each of *rows* at a time of their own, and ask in that time."""
    began = next(_moments) * 1_000
    records = [
        make_record(variables=variables, time_unix_nano=began + number) for number, variables in enumerate(rows)
    ]
    store.write(records)
    for query in queries:
        question = Query(
            limit=None,
            where=query.where,
            conditions=query.conditions,
            since_unix_nano=began,
            until_unix_nano=began + 1_000,
        )
        expected: list[Record] = [record for record in reversed(records) if question.matches(record)]
        assert list(store.query(question)) == expected, question
