"""Any value becomes a JSON value, and the code of an unknown object is not run for it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from datetime import datetime, tzinfo
from typing import NoReturn
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from werkzeug.local import LocalProxy

from flask_chest import Redact
from flask_chest.capture.extractor import Extractor
from flask_chest.capture.redaction import Redaction
from flask_chest.capture.tracking import TrackedNames
from flask_chest.capture.values import TRUNCATED, Conversion, Encoders, ValueRules
from flask_chest.record import JSONValue, same_value
from hostile_values import HOSTILE, Plan, anything, hashables, raises
from json_values import assert_storable, convert


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("make", "form"), HOSTILE.values(), ids=HOSTILE)
def test_objects_own_code_is_not_run(make: Callable[[], object], form: JSONValue) -> None:
    conversion = Conversion(ValueRules())
    assert same_value(conversion.convert([{"v": make()}], objects=True), [{"v": form}])
    assert conversion.failures == 0


@pytest.mark.parametrize(("make", "_form"), HOSTILE.values(), ids=HOSTILE)
def test_objects_own_code_is_not_run_for_a_key(make: Callable[[], object], _form: JSONValue) -> None:
    value = make()
    conversion = Conversion(ValueRules())
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
    conversion = Conversion(ValueRules())
    assert conversion.convert({"bad": value, "good": [1]}, objects=True) == {"bad": form, "good": [1]}
    assert conversion.failures == 1


@pytest.mark.slow
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


@pytest.mark.slow
@given(st.sets(hashables, max_size=8))
def test_equal_sets_are_stored_equal(values: set[object]) -> None:
    form = convert(values)
    assume(TRUNCATED not in str(form))  # which of them the limit leaves out depends on their order
    assert same_value(form, convert(frozenset(sorted(values, key=id))))


class Panic(BaseException):
    """As an extension module's."""


def panics(*_: object) -> NoReturn:
    raise Panic


class PanickingZone(tzinfo):
    utcoffset = dst = tzname = panics


def test_exception_that_is_none_costs_its_value_alone() -> None:
    conversion = Conversion(ValueRules())
    held = {"proxy": LocalProxy(panics), "zone": datetime(2024, 1, 1, tzinfo=PanickingZone()), "good": [1]}
    form = conversion.convert(held, objects=True)
    assert form == {"proxy": "LocalProxy", "zone": "datetime", "good": [1]}
    assert conversion.failures == 2


class Panicking(Mapping[str, object]):
    __contains__ = __getitem__ = __iter__ = __len__ = panics


def test_mapping_that_panics_when_asked_costs_its_path_alone() -> None:
    names = TrackedNames.parse(["session.user", "plan"], computed={"computed": panics}).for_method("GET")
    encoders: Encoders = {Plan: panics}
    captured = Extractor(names, ValueRules(encoders=encoders)).convert(
        {"session": Panicking(), "plan": Plan.FREE}
    )
    assert captured == ({"plan": "Plan"}, 3)


def test_value_is_hidden_when_the_apps_own_judgement_panics() -> None:
    rules = ValueRules(redaction=Redaction([Redact(when=panics)]))
    capture = Extractor(TrackedNames.parse(["a"]).for_method("GET"), rules)
    assert capture.convert({"a": 1}) == ({"a": "[masked]"}, 1)


class CancelledSoon(asyncio.CancelledError):
    """Derived by an app."""


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit, GeneratorExit, CancelledSoon])
def test_what_ends_the_request_passes(ending: type[BaseException]) -> None:
    def ends() -> NoReturn:
        raise ending

    with pytest.raises(ending):
        convert([LocalProxy(ends)])


def test_no_view_of_a_bytearray_is_seen_by_another_thread() -> None:
    shared = bytearray(b"x" * 100_000)
    failures: list[BufferError] = []

    def resize(*_: object) -> None:  # called wherever another thread might get its turn
        try:
            shared.append(1)
        except BufferError as error:
            failures.append(error)

    sys.setprofile(resize)
    try:
        form = convert([shared])
    finally:
        sys.setprofile(None)
    assert str(form).startswith("['eHh4")
    assert len(shared) > 100_000
    assert failures == []


class Buffered(bytearray):
    def __buffer__(self, _flags: int, /) -> memoryview:
        raise AssertionError("the app's own code was run")


def test_own_buffer_of_a_class_is_not_asked() -> None:
    conversion = Conversion(ValueRules())
    assert conversion.convert([Buffered(b"ab")], objects=True) == ["YWI="]
    assert conversion.failures == 0
