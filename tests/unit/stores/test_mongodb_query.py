"""Questions as MongoDB's filters: what can narrow does, and what cannot loses nothing."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chest import Condition, ge, gt, is_set, le, lt, one_of
from flask_chest.record import JSONValue, Query
from flask_chest.stores.mongodb.query import condition


def filter_of(value: JSONValue | Condition, *others: Condition, name: str = "v") -> dict[str, Any]:
    """Return the operators that a question for the variable *name* comes to."""
    conditions = (value, *others) if isinstance(value, Condition) else others
    where = {} if isinstance(value, Condition) else {name: value}
    query = Query(where=where, conditions=tuple((name, each) for each in conditions))
    (operators,) = condition(query, before=None).values()
    return dict(operators)


@pytest.mark.parametrize("value", [7, 7.5, -0.0, True, "pro", ""])
def test_scalar_is_looked_for(value: JSONValue) -> None:
    assert filter_of(value) == {"$eq": value}
    assert filter_of(one_of(value, "other")) == {"$in": [value, "other"]}


def test_none_is_told_from_what_is_not_there() -> None:
    assert filter_of(None) == {"$eq": None, "$exists": True}
    assert filter_of(one_of(None, 7)) == {"$in": [None, 7], "$exists": True}


@pytest.mark.parametrize(
    ("asked", "operators"),
    [
        (gt(7), {"$gte": 7}),
        (ge(7.5), {"$gte": 7.5}),
        (lt("m"), {"$lte": "m"}),
        (le(7), {"$lte": 7}),
        (gt(5e-324), {"$gte": 0.0}),
        (gt(-5e-324), {"$gte": -5e-324}),
        (lt(-5e-324), {"$lte": 0.0}),
        (lt(5e-324), {"$lte": 5e-324}),
        (is_set(), {"$exists": True}),
        (one_of(), {"$in": []}),
    ],
)
def test_condition_is_an_operator_that_leaves_all_which_meets_it(
    asked: Condition, operators: dict[str, Any]
) -> None:
    assert filter_of(asked) == operators


@pytest.mark.parametrize("value", [[1], {"a": 1, "b": 2}, 2**70, -(2**70), "\ud800", "a\0b"], ids=ascii)
def test_value_that_the_database_compares_otherwise_asks_for_the_variable_alone(value: JSONValue) -> None:
    assert filter_of(value) == {"$exists": True}
    assert filter_of(one_of("other", value)) == {"$exists": True}


@pytest.mark.parametrize("bound", [2**70, -(2**70), "\ud800"], ids=ascii)
def test_bound_that_no_document_can_hold_asks_for_the_variable_alone(bound: int | str) -> None:
    assert filter_of(ge(bound)) == {"$exists": True}


def test_conditions_on_one_variable_are_put_together() -> None:
    assert filter_of(ge(100), lt(200), one_of(150, 160)) == {"$gte": 100, "$lte": 200, "$in": [150, 160]}
    assert filter_of(7, ge(5)) == {"$eq": 7, "$gte": 5}


def test_of_two_conditions_of_a_kind_one_narrows() -> None:
    assert filter_of(ge(100), gt(500)) == {"$gte": 100}


@pytest.mark.parametrize("name", ["a\0b", "\ud800"], ids=ascii)
def test_name_that_no_database_takes_narrows_nothing(name: str) -> None:
    assert condition(Query(where={name: 1}, conditions=((name, is_set()),)), before=None) == {}


@pytest.mark.parametrize(
    ("name", "path"), [("a.b", "a%2Eb"), ("$or", "%24or"), ("", "%"), ("$where", "%24where")]
)
def test_name_is_never_an_operator_or_a_path(name: str, path: str) -> None:
    assert list(condition(Query(where={name: 1}), before=None)) == [f"variables.{path}"]
