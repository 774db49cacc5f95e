"""The form of each value, as docs/values.md tells it."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from pathlib import Path, PurePosixPath
from types import MappingProxyType, SimpleNamespace
from typing import ClassVar, NamedTuple, NoReturn
from uuid import UUID, uuid4

import pytest
import uuid_utils
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.local import LocalProxy

from flask_chest.capture.redaction import MASK, NOTHING_HIDDEN, Redaction
from flask_chest.capture.values import (
    CYCLE,
    MAX_DEPTH,
    MAX_NAME_CHARACTERS,
    MAX_RECORD_BYTES,
    MAX_VALUE_BYTES,
    TOO_DEEP,
    storable_text,
)
from flask_chest.record import JSONValue, same_value
from hostile_values import Plan, Point
from ids import steady
from json_values import convert

DOCUMENT = (Path(__file__).parents[3] / "docs" / "values.md").read_text()


class Pair(NamedTuple):
    left: int
    right: int


class User:
    def __str__(self) -> str:
        return "Ada, born 1815"


def unbound() -> NoReturn:
    raise RuntimeError("working outside of a context")


def itself() -> list[object]:
    circle: list[object] = []
    circle.append(circle)
    return circle


DOCUMENTED: dict[str, object] = {
    "datetime": datetime,
    "date": date,
    "time": time,
    "timedelta": timedelta,
    "UTC": UTC,
    "Decimal": Decimal,
    "UUID": UUID,
    "PurePosixPath": PurePosixPath,
    "LocalProxy": LocalProxy,
    "Plan": Plan,
    "Point": Point,
    "Pair": Pair,
    "User": User,
    "unbound": unbound,
    "itself": itself(),
}


def rows(heading: str) -> list[list[str]]:
    table = DOCUMENT.partition(f"| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in row.split("|")[1:-1]] for row in table]


@pytest.mark.parametrize(("expression", "form", "_note"), rows("on `g`"))
def test_document_tells_the_form_of_a_value(expression: str, form: str, _note: str) -> None:
    value: object = eval(expression, dict(DOCUMENTED))
    assert same_value(convert(value), json.loads(form))


@pytest.mark.parametrize(("name", "masked"), rows("name"))
def test_document_tells_which_names_are_masked(name: str, masked: str) -> None:
    assert masked in {"yes", "no"}
    assert (Redaction().verdict(name) is not NOTHING_HIDDEN) is (masked == "yes")


def test_document_tells_the_limits() -> None:
    assert f"{MAX_VALUE_BYTES // 1024} KiB of text" in DOCUMENT
    assert f"{MAX_RECORD_BYTES // 1024} KiB" in DOCUMENT
    assert f"{MAX_NAME_CHARACTERS} characters" in DOCUMENT
    assert MAX_DEPTH == 8
    assert len(rows("on `g`")) > 30
    assert len(rows("name")) > 15


# Forms beside the document's


class Level(IntEnum):
    HIGH = 2


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (bytearray(b"ab"), "YWI="),
        (memoryview(b"ab"), "YWI="),
        (memoryview(b"a-b-")[::2], "YWI="),
        (memoryview(b"abcd").cast("B", (2, 2)), "YWJjZA=="),
        (b"", ""),
        (uuid_utils.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Level.HIGH, 2),
        (OrderedDict(a=1), {"a": 1}),
        (frozenset({"b", "a"}), ["a", "b"]),
        ({2, 1.5, "x", None}, [None, 1.5, 2, "x"]),
        ({float("nan"): 1, b"ab": 2, (1,): 3}, {"nan": 1, "ab": 2, "tuple": 3}),
        (Fraction(1, 3), "Fraction"),
        (SimpleNamespace(x=1), "SimpleNamespace"),
        ("\0" * 3, "\ufffd" * 3),
    ],
    ids=steady,
)
def test_value_has_its_form(value: object, form: JSONValue) -> None:
    converted = convert(value)
    expected = sorted(form, key=repr) if isinstance(form, list) and isinstance(value, set) else form
    actual = sorted(converted, key=repr) if isinstance(converted, list) and isinstance(value, set) else converted
    assert same_value(actual, expected)


def test_key_that_is_a_huge_integer_costs_no_other_key() -> None:
    assert convert({1 << 20_000: 1, "a": 2}) == {"integer of 20001 bits": 1, "a": 2}


def test_generator_and_iterator_are_not_consumed() -> None:
    def numbers() -> Iterator[int]:
        yield from (1, 2)

    generator, iterator = numbers(), iter([1, 2])
    assert convert([generator, iterator]) == ["generator", "list_iterator"]
    assert list(generator) == list(iterator) == [1, 2]


def test_value_that_stands_at_two_places_is_no_cycle() -> None:
    shared = [1]
    assert convert({"a": shared, "b": [shared, shared]}) == {"a": [1], "b": [[1], [1]]}


def test_cycle_is_cut_where_it_closes() -> None:
    inner: dict[str, object] = {}
    outer: list[object] = [inner, 1]
    inner["back"] = outer
    assert convert(outer) == [{"back": CYCLE}, 1]
    proxied: list[object] = []
    proxied.append(MappingProxyType({"back": proxied}))
    assert convert(proxied) == [{"back": CYCLE}]


def test_deep_nesting_is_cut() -> None:
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    form = convert(deep)
    for _ in range(MAX_DEPTH):
        assert isinstance(form, list)
        form = form[0]
    assert form == TOO_DEEP


# Objects with fields


@dataclass(slots=True, kw_only=True)
class Slotted:
    x: int
    y: int = field(default=2, init=False)
    _hidden: int = 3


class Base:
    """Has a ``__dict__``, which a subclass with slots then has as well."""


@dataclass(slots=True)
class SlottedChild(Base):
    x: int


def test_fields_in_slots_are_read_however_they_were_declared() -> None:
    assert convert(Slotted(x=1)) == {"x": 1, "y": 2}
    assert convert(SlottedChild(1)) == {"x": 1}


def test_empty_slot_is_left_out() -> None:
    point = Slotted(x=1)
    del point.y
    assert convert(point) == {"x": 1}


def test_objects_are_taken_apart_only_when_asked() -> None:
    assert convert([Point(1, 2)], objects=True) == [{"x": 1, "y": 2}]
    assert convert([Point(1, 2)], objects=False) == ["Point"]


class Marked:
    """As attrs and pydantic mark their classes."""

    def __init__(self) -> None:
        self.x = 1


@pytest.mark.parametrize("mark", ["__attrs_attrs__", "__pydantic_complete__"])
def test_attrs_and_pydantic_objects_are_taken_apart(mark: str) -> None:
    kind = type("Model", (Marked,), {mark: ()})
    assert convert(kind()) == {"x": 1}
    assert convert(Marked()) == "Marked"


def test_lazy_attribute_is_not_fetched() -> None:
    fetched: list[object] = []

    class Lazy:
        def __get__(self, instance: object, owner: type) -> int:
            fetched.append(instance)
            return 1

    @dataclass
    class Order:
        number: int
        lines: ClassVar[Lazy] = Lazy()

        @property
        def customer(self) -> str:
            fetched.append(self)
            return "Ada"

    fetched.clear()  # @dataclass itself looks at the class
    assert convert(Order(7)) == {"number": 7}
    assert not fetched


# Masks and names


def test_masked_value_is_not_even_read() -> None:
    read: list[object] = []
    proxy = LocalProxy(lambda: read.append(1))
    form = convert([{"a": [{"client_secret": proxy, "n": 1}]}])
    assert form == [{"a": [{"client_secret": MASK, "n": 1}]}]
    assert not read


def test_field_of_an_object_is_masked_by_its_name() -> None:
    @dataclass
    class Login:
        user: str
        password: str

    assert convert(Login("ada", "x")) == {"user": "ada", "password": MASK}


def test_long_key_is_cut() -> None:
    assert convert({"k" * 1000: 1}) == {"k" * MAX_NAME_CHARACTERS: 1}


@pytest.mark.slow
@given(st.text(st.characters()))
def test_text_is_changed_only_where_a_store_would_refuse_it(text: str) -> None:
    stored = storable_text(text)
    stored.encode()
    assert len(stored) == len(text)
    assert all(
        new == (old if old != "\0" and not "\ud800" <= old <= "\udfff" else "\ufffd")
        for new, old in zip(stored, text, strict=True)
    )


def test_uuids_of_both_kinds_have_one_form() -> None:
    some = uuid4()
    assert convert(some) == convert(uuid_utils.UUID(str(some))) == str(some)
