"""JSON values, and checks that a conversion's result is what every store keeps."""

from __future__ import annotations

from hypothesis import strategies as st

from flask_chest.capture.values import MAX_VALUE_BYTES, Conversion, ValueRules
from flask_chest.record import JSONValue, decode_variables, encode_variables, same_value

integers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values: st.SearchStrategy[JSONValue] = st.recursive(
    st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)

MARKS_OF_ONE_VALUE = 256
"""More than a mark at each level takes."""


def convert(value: object, *, objects: bool = True) -> JSONValue:
    return Conversion(ValueRules()).convert(value, objects=objects)


def text_bytes(value: JSONValue) -> int:
    """Count the UTF-8 bytes of text and digits, all types being exactly JSON's."""
    if type(value) is dict:
        assert all(type(name) is str for name in value)
        return sum(len(name.encode()) + text_bytes(item) for name, item in value.items())
    if type(value) is list:
        return sum(map(text_bytes, value))
    if type(value) is str:
        return len(value.encode())
    assert value is None or type(value) in {bool, int, float}, type(value)
    return len(repr(value))


def assert_storable(value: JSONValue) -> None:
    assert text_bytes(value) <= MAX_VALUE_BYTES + MARKS_OF_ONE_VALUE
    text = encode_variables({"v": value})
    assert "\0" not in text
    assert "\\u0000" not in text
    assert same_value(decode_variables(text), {"v": value})
