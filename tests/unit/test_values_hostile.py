"""Any value becomes a JSON value, and the code of an unknown object is not run for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, tzinfo
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from werkzeug.local import LocalProxy

from flask_chest.record import JSONValue, same_value
from flask_chest.values import TRUNCATED, Conversion
from hostile_values import HOSTILE, anything, hashables, raises
from json_values import assert_storable, convert


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("make", "form"), HOSTILE.values(), ids=HOSTILE)
def test_objects_own_code_is_not_run(make: Callable[[], object], form: JSONValue) -> None:
    conversion = Conversion()
    assert same_value(conversion.convert([{"v": make()}], objects=True), [{"v": form}])
    assert conversion.failures == 0


@pytest.mark.parametrize(("make", "_form"), HOSTILE.values(), ids=HOSTILE)
def test_objects_own_code_is_not_run_for_a_key(make: Callable[[], object], _form: JSONValue) -> None:
    value = make()
    conversion = Conversion()
    assert_storable(conversion.convert({value: 1}, objects=True))
    assert conversion.failures == 0


class BadZone(tzinfo):
    utcoffset = dst = tzname = raises


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (LocalProxy(raises), "LocalProxy"),
        (datetime(2024, 1, 1, tzinfo=BadZone()), "datetime"),
        (object.__new__(UUID), "UUID"),
    ],
    ids=["proxy", "zone", "no content"],
)
def test_value_that_raises_becomes_its_types_name_and_the_rest_stays(value: object, form: str) -> None:
    conversion = Conversion()
    assert conversion.convert({"bad": value, "good": [1]}, objects=True) == {"bad": form, "good": [1]}
    assert conversion.failures == 1


@given(anything, st.booleans())
def test_every_value_becomes_one_that_every_store_keeps(value: object, objects: bool) -> None:
    assert_storable(convert(value, objects=objects))


@given(st.integers())
def test_integer_is_a_number_within_64_bits_and_else_its_digits(value: int) -> None:
    form = convert(value)
    assert type(form) is (int if -(2**63) <= value < 2**63 else str)
    assert str(form) == str(value)


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63)])
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value]])
def test_bounds_of_64_bits_are_numbers_and_their_neighbours_text(
    value: int, wrap: Callable[[object], object]
) -> None:
    beyond = value + 1 if value > 0 else value - 1
    assert same_value(convert(wrap(value)), wrap(value))
    assert same_value(convert(wrap(beyond)), wrap(str(beyond)))


@given(st.sets(hashables, max_size=8))
def test_equal_sets_are_stored_equal(values: set[object]) -> None:
    form = convert(values)
    assume(TRUNCATED not in str(form))  # which of them the limit leaves out depends on their order
    assert same_value(form, convert(frozenset(sorted(values, key=id))))
