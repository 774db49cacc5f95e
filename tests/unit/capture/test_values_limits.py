"""No value makes a record large, or its conversion long."""

from __future__ import annotations

import tracemalloc
from collections import deque
from collections.abc import Callable

import pytest
from werkzeug.local import LocalProxy

from flask_chest.capture.values import (
    MAX_DEPTH,
    MAX_RECORD_BYTES,
    MAX_VALUE_BYTES,
    TRUNCATED,
    Conversion,
    ValueRules,
    storable_text,
)
from json_values import assert_storable, convert, text_bytes


@pytest.mark.parametrize(
    "text", ["x" * 8193, "x" * 10_000_000, "ë" * 4097, "😀" * 3000, "\0" * 8192], ids=lambda text: text[0]
)
def test_long_text_is_cut_and_marked(text: str) -> None:
    form = convert(text)
    assert isinstance(form, str)
    assert form.endswith(TRUNCATED)
    assert MAX_VALUE_BYTES - 4 < len(form.encode()) <= MAX_VALUE_BYTES
    assert storable_text(text).startswith(form.removesuffix(TRUNCATED))


@pytest.mark.parametrize("text", ["x" * 1025, "x" * 8192, "ë" * 4096, "😀" * 2048], ids=lambda text: text[0])
def test_text_within_the_limit_is_kept_whole(text: str) -> None:
    assert convert(text) == text


def test_long_bytes_are_cut_and_marked() -> None:
    form = convert(b"x" * 10_000_000)
    assert isinstance(form, str)
    assert form.endswith(TRUNCATED)
    assert_storable(form)


def test_long_containers_are_cut_and_marked() -> None:
    array = convert(list(range(1_000_000)))
    assert isinstance(array, list)
    assert array[:3] == [0, 1, 2]
    assert array[-1] == TRUNCATED
    assert_storable(array)
    fields = convert({f"k{i}": i for i in range(100_000)})
    assert isinstance(fields, dict)
    assert fields["k0"] == 0
    assert fields[TRUNCATED] is True
    assert_storable(fields)


def many_cycles() -> object:
    circle: list[object] = []
    circle.extend([circle] * 10_000)
    return circle


def wide_and_deep() -> object:
    value: object = [[]] * 10_000
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    "make",
    [
        many_cycles,
        wide_and_deep,
        lambda: [[[["x" * 100] * 100] * 100] * 100] * 100,
        lambda: {f"token{i}": 1 for i in range(10_000)},
        lambda: [object()] * 10_000,
        lambda: [None, True] * 10_000,
        lambda: {"k" * 100_000: "v" * 100_000, 1: ["a" * 9000, "b"]},
        lambda: {(i,): i for i in range(10_000)},
    ],
)
def test_marks_and_names_count_too(make: Callable[[], object]) -> None:
    assert_storable(convert(make()))


def enumerate_to_dict(items: list[object]) -> dict[int, object]:
    return dict(enumerate(items))


def nothing_named() -> dict[object, object]:
    nameless = type("", (), {})
    return {nameless(): [] for _ in range(100_000)}


@pytest.mark.parametrize("make", [list, tuple, deque, enumerate_to_dict])
def test_no_more_is_read_of_a_container_than_can_be_kept(make: Callable[[list[object]], object]) -> None:
    read: list[int] = []
    proxy: object = LocalProxy(lambda: read.append(1))
    convert(make([proxy] * 1_000_000))
    assert 0 < len(read) <= MAX_VALUE_BYTES


@pytest.mark.slow
def test_keys_without_a_name_are_bounded_too() -> None:
    assert convert(nothing_named()) == {"": [], TRUNCATED: True}


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10_000_000,
        b"x" * 10_000_000,
        [1] * 1_000_000,
        dict.fromkeys(range(1_000_000)),
        set(range(1_000_000)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_large_value_is_not_copied(value: object) -> None:
    tracemalloc.start()
    try:
        convert(value)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_record_is_limited_as_a_whole() -> None:
    conversion = Conversion(ValueRules())
    texts: list[object] = ["x" * 8192, ["y" * 8000], "z" * 1000, {"a": "b" * 5000}, 1, 1.5, "é" * 2000]
    forms = [conversion.convert(text, objects=True) for text in texts * 20]
    assert forms[: len(texts)] == texts
    assert sum(map(text_bytes, forms)) <= MAX_RECORD_BYTES + len(forms) * 32
    assert TRUNCATED in forms[-7:]
    assert [TRUNCATED] in forms[-7:]
    assert {TRUNCATED: True} in forms[-7:]
    assert conversion.left_in_record <= 0


@pytest.mark.parametrize("text", ["x" * 1000, "x" * 4000])
def test_record_is_cut_at_its_limit_and_not_before(text: str) -> None:
    conversion = Conversion(ValueRules())
    forms = [conversion.convert(text, objects=True) for _ in range(100)]
    whole = MAX_RECORD_BYTES // len(text)
    assert forms[:whole] == [text] * whole
    assert all(isinstance(form, str) and form.endswith(TRUNCATED) for form in forms[whole:])
