import math
from collections.abc import Sequence
from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chest.errors import ConfigurationError
from flask_chest.record import (
    COLUMN_FILTERS,
    FIELDS,
    MAX_LEVELS,
    Condition,
    JSONValue,
    Query,
    Record,
    check_variables,
    decode_variables,
    encode_variables,
    ge,
    gt,
    is_set,
    le,
    lt,
    one_of,
    same_value,
)
from flask_chest.testing.contracts import VALUES
from flask_chest.testing.records import make_record

integers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values: st.SearchStrategy[JSONValue] = st.recursive(
    st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def test_every_value_is_the_same_as_itself_and_as_no_other() -> None:
    same = {(i, j) for i, left in enumerate(VALUES) for j, right in enumerate(VALUES) if same_value(left, right)}
    assert same == {(i, i) for i in range(len(VALUES))}


def test_order_of_an_objects_names_does_not_matter() -> None:
    assert same_value({"a": 1, "b": [2]}, {"b": [2], "a": 1})
    assert not same_value([1, 2], [2, 1])


@pytest.mark.slow
@given(st.dictionaries(texts, json_values, max_size=5))
def test_variables_come_back_from_their_encoding(variables: dict[str, JSONValue]) -> None:
    assert same_value(decode_variables(encode_variables(variables)), variables)


def test_negative_zero_keeps_its_sign_in_the_encoding() -> None:
    zero = decode_variables(encode_variables({"v": -0.0}))["v"]
    assert math.copysign(1, cast("float", zero)) == -1


def test_lone_surrogate_cannot_be_encoded() -> None:
    with pytest.raises(ValueError, match="surrogate"):
        encode_variables({"v": "\ud800"})


@pytest.mark.parametrize("text", ["", "[]", "1", "{", '{"a": NaN}', '{"a": 1} x'])
def test_text_that_is_no_json_object_is_not_decoded(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_variables(text)


@pytest.mark.parametrize("brackets", ["[]", ('{"":', "}")])
def test_what_is_nested_too_deeply_is_not_decoded(brackets: Sequence[str]) -> None:
    opening, closing = brackets

    def nested(levels: int) -> str:  # that of all variables is the first
        return f'{{"w": "{"[{" * MAX_LEVELS}", "v": {opening * (levels - 2)}[1]{closing * (levels - 2)}}}'

    assert decode_variables(nested(MAX_LEVELS))["w"] == "[{" * MAX_LEVELS
    check_variables([nested(MAX_LEVELS)])
    for levels in (MAX_LEVELS + 1, 900, 8_000, 200_000):
        with pytest.raises(ValueError, match="nested too deeply"):
            decode_variables(nested(levels))
        with pytest.raises(ValueError, match="nested too deeply"):
            check_variables(["{}", nested(levels)])


def test_variables_are_checked_one_by_one_however_they_are_written() -> None:
    check_variables([])
    check_variables(['{"a":\n1}', "{}"])
    for texts in (["{}\n{}", ""], ["{}", ""], ['{"a":1', '"b":2}'], ["{},{}"], ["{}", "[1]"]):
        with pytest.raises(ValueError, match=r"."):
            check_variables(texts)


def test_records_of_equal_content_are_equal() -> None:
    record = make_record(variables={"a": 1, "b": {"c": [1.0]}})
    copy = msgspec.structs.replace(record, variables={"b": {"c": [1.0]}, "a": 1})
    assert record == copy
    assert not record != copy  # noqa: SIM202 - the other operator
    assert hash(record) == hash(copy)
    assert {record, copy} == {record}


@pytest.mark.parametrize("field", FIELDS)
def test_records_that_differ_in_one_field_are_not_equal(field: str) -> None:
    other: dict[str, object] = {**dict.fromkeys(FIELDS, "other")}
    other |= dict.fromkeys(("time_unix_nano", "duration_ns", "status_code", "trace_flags"), -1)
    other |= {"trace_remote": False, "variables": {"user_id": 42.0}}
    record = make_record()
    changed = msgspec.structs.replace(record, **{field: other[field]})
    assert record != changed
    assert not record == changed  # noqa: SIM201 - the other operator


def test_record_equals_nothing_but_a_record() -> None:
    record = make_record()
    assert record != msgspec.structs.asdict(record)
    assert record != record.id


def test_record_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        make_record().id = "other"  # type: ignore[misc]  # that it is an error is the point


def test_query_without_conditions_matches_every_record() -> None:
    assert Query().matches(make_record(route=None))


@pytest.mark.parametrize("name", COLUMN_FILTERS)
def test_query_asks_for_equality_with_a_field(name: str) -> None:
    record = make_record(trace_id="t", error="KeyError")
    value = getattr(record, name)
    other = 404 if isinstance(value, int) else "other"
    assert _query(**{name: value}).matches(record)
    assert not _query(**{name: other}).matches(record)


@pytest.mark.parametrize(
    ("record", "status_class", "is_error"),
    [
        (make_record(status_code=200), 2, False),
        (make_record(status_code=499), 4, False),
        (make_record(status_code=500), 5, True),
        (make_record(status_code=599), 5, True),
        (make_record(status_code=200, error="ValueError"), 2, True),
    ],
)
def test_query_asks_for_a_class_of_statuses_and_for_errors(
    record: Record, status_class: int, is_error: bool
) -> None:
    assert [digit for digit in range(7) if Query(status_class=digit).matches(record)] == [status_class]
    assert record.is_error == Query(errors=True).matches(record) == is_error
    assert Query(errors=False).matches(record)


def test_query_excludes_the_end_of_its_time_and_includes_the_begin() -> None:
    record = make_record(time_unix_nano=5)
    assert Query(since_unix_nano=5, until_unix_nano=6).matches(record)
    assert not Query(since_unix_nano=6).matches(record)
    assert not Query(until_unix_nano=5).matches(record)


def test_absent_variable_is_not_one_that_is_null() -> None:
    assert Query(where={"v": None}).matches(make_record(variables={"v": None}))
    assert not Query(where={"v": None}).matches(make_record(variables={}))


def test_variables_default_to_none_that_are_shared() -> None:
    records = [
        Record(
            id=str(number),
            request_id="",
            time_unix_nano=number,
            duration_ns=0,
            method="GET",
            route=None,
            endpoint=None,
            status_code=200,
            instance="",
        )
        for number in range(2)
    ]
    assert records[0].variables == {}
    assert records[0].variables is not records[1].variables


def _query(**conditions: object) -> Query:
    return Query(**conditions)  # type: ignore[arg-type]  # the names come from COLUMN_FILTERS


@pytest.mark.parametrize(
    ("condition", "matching", "others"),
    [
        (gt(5), [6, 5.5, 2**62], [5, 5.0, "6", True, None, [6]]),
        (ge(5), [5, 5.0, 6], [4.999, "5", False]),
        (lt(2**53 + 1), [2**53, -1.5], [2**53 + 1, "1"]),
        (le(0.0), [0, -0.0, -7], [1e-300, None]),
        (gt("pro"), ["prob", "q", "\U0001f600"], ["pro", "Pro", 7]),
        (le("\uffff"), ["a", "\uffff"], ["\U00010000"]),
        (one_of(7, "free", None), [7, "free", None], [7.0, True, "7", "Free"]),
        (is_set(), [None, 0, "", [], {}], []),
    ],
    ids=["gt", "ge", "lt", "le", "after", "until", "one_of", "is_set"],
)
def test_condition_holds_for_values_of_its_kind_alone(
    condition: Condition, matching: Sequence[JSONValue], others: Sequence[JSONValue]
) -> None:
    asked = Query(conditions=(("x", condition),))
    assert [
        value for value in (*matching, *others) if asked.matches(make_record(variables={"x": value}))
    ] == list(matching)
    assert not asked.matches(make_record(variables={"y": 1}))


def test_all_conditions_on_a_variable_hold() -> None:
    asked = Query(where={"plan": "pro"}, conditions=(("price", ge(100)), ("price", lt(200))))
    found = [
        price
        for price in (99, 100, 199.9, 200)
        if asked.matches(make_record(variables={"plan": "pro", "price": price}))
    ]
    assert found == [100, 199.9]
    assert not asked.matches(make_record(variables={"plan": "free", "price": 150}))


@pytest.mark.parametrize("value", [True, None, [1], float("nan"), float("inf")])
def test_what_has_no_order_is_no_bound(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"gt\(\) compares finite numbers or texts, got a "):
        gt(value)  # type: ignore[arg-type]  # what is wrong is the point


def test_query_with_conditions_survives_json() -> None:
    asked = Query(conditions=(("a", ge(2**53 + 1)), ("b", one_of(1, "x", None)), ("c", is_set())))
    assert msgspec.json.decode(msgspec.json.encode(asked), type=Query) == asked
