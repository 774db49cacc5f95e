"""Records as MongoDB's documents: all comes back equal, and no name means something to the server."""

from __future__ import annotations

from collections.abc import Iterator

import bson
import pytest
from bson.int64 import Int64
from hypothesis import example, given
from hypothesis import strategies as st

from flask_chest.record import FIELDS, JSONValue, same_value
from flask_chest.stores._records import MAX_INTEGER, MIN_INTEGER
from flask_chest.stores.mongodb.documents import (
    decode_name,
    decode_value,
    document_of,
    encode_name,
    encode_value,
    record_of,
)
from flask_chest.testing.records import make_record
from json_values import integers, json_values, texts

marked_names = texts | st.text("$.%\0024E5ax", max_size=8)


def names_within(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from names_within(item)
    elif isinstance(value, list):
        for item in value:
            yield from names_within(item)


def through_bson(value: object) -> object:
    """Give what the driver reads of what it sends."""
    return bson.decode(bson.encode({"value": value}))["value"]


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("plan", "plan"),
        ("", "%"),
        ("%", "%25"),
        ("%25", "%2525"),
        ("$set", "%24set"),
        ("a$", "a$"),
        ("$$", "%24$"),
        ("a.b", "a%2Eb"),
        ("\0", "%00"),
        ("a\n$b", "a\n$b"),
        ("ü\U0001f600", "ü\U0001f600"),
    ],
)
def test_name_is_kept_readable(name: str, encoded: str) -> None:
    assert encode_name(name) == encoded
    assert decode_name(encoded) == name


@given(name=marked_names)
def test_name_comes_back_and_means_nothing_to_the_server(name: str) -> None:
    encoded = encode_name(name)
    assert decode_name(encoded) == name
    assert encoded
    assert not encoded.startswith("$")
    assert not {".", "\0"} & set(encoded)


@given(one=marked_names, other=marked_names)
@example(one="%2E", other=".")
@example(one="", other="%")
def test_two_names_are_never_encoded_alike(one: str, other: str) -> None:
    assert (encode_name(one) == encode_name(other)) == (one == other)


@pytest.mark.slow
@given(value=json_values)
def test_value_comes_back_with_its_type(value: JSONValue) -> None:
    assert same_value(decode_value(through_bson(encode_value(value))), value)


@pytest.mark.slow
@given(
    variables=st.dictionaries(
        marked_names, st.dictionaries(marked_names, st.lists(json_values, max_size=2), max_size=3), max_size=3
    )
)
def test_names_within_values_are_encoded_too(variables: dict[str, JSONValue]) -> None:
    encoded = encode_value(variables)
    assert not [name for name in names_within(encoded) if not name or name[0] == "$" or set(name) & {".", "\0"}]
    assert same_value(decode_value(through_bson(encoded)), variables)


@given(number=integers)
@example(number=MIN_INTEGER)
@example(number=MAX_INTEGER)
@example(number=0)
def test_integer_of_any_size_is_kept_in_64_bits(number: int) -> None:
    kept = through_bson(encode_value(number))
    assert type(kept) is Int64
    assert type(decode_value(kept)) is int
    assert decode_value(kept) == number


def test_boolean_is_made_no_integer() -> None:
    assert encode_value([True, False]) == [True, False]
    assert {type(each) for each in decode_value(through_bson(encode_value([True, False])))} == {bool}


@pytest.mark.slow
@given(
    variables=st.dictionaries(marked_names, json_values, max_size=4),
    text=texts,
    number=integers,
    flags=st.none() | integers,
    remote=st.none() | st.booleans(),
    route=st.none() | texts,
    rate=st.floats(0, 1, exclude_min=True),
)
def test_record_comes_back_equal(
    variables: dict[str, JSONValue],
    text: str,
    number: int,
    flags: int | None,
    remote: bool | None,
    route: str | None,
    rate: float,
) -> None:
    record = make_record(
        request_id=text,
        time_unix_nano=number,
        route=route,
        error=route,
        trace_id=route,
        trace_flags=flags,
        trace_remote=remote,
        variables=variables,
        sample_rate=rate,
    )
    document = through_bson(document_of(record, written_unix_nano=number))
    assert isinstance(document, dict)
    assert record_of(document) == record


def test_document_holds_a_record_and_its_place_in_the_order() -> None:
    record = make_record()
    document = document_of(record, written_unix_nano=7)
    fields = {name for name in FIELDS if name != "id"}
    assert document.keys() == fields | {"_id", "position", "written_unix_nano"}
    assert (document["_id"], document["position"], document["written_unix_nano"]) == (record.id, None, 7)


def test_document_of_an_earlier_release_has_the_rate_of_one() -> None:
    record = make_record()
    document = document_of(record, written_unix_nano=7)
    assert document.pop("sample_rate") == 1.0
    assert record_of(document) == record


def test_what_others_added_to_a_document_is_left_out() -> None:
    record = make_record()
    document = document_of(record, written_unix_nano=7) | {"expire_at": None, "position": Int64(1), "noted": "x"}
    assert record_of(document) == record
