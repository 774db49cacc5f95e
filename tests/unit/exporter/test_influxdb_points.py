"""What of a record becomes which part of a point, as it arrives at the other side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_chest.exporter.influxdb import InfluxDBExporter
from flask_chest.record import JSONValue, Record
from flask_chest.testing.records import make_record
from influxdb_receiver import Point, Receiver

OWN_FIELDS = {"record_id", "request_id", "duration_ns", "sample_rate"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def point_of(
    receiver: Receiver,
    sent: Record,
    *,
    tags: tuple[str, ...] | str = (),
    custom_tags: Mapping[str, str] | None = None,
    measurement: str = "flask_chest",
) -> Point:
    exporter = InfluxDBExporter(
        url=receiver.url,
        token="t0ken",
        org="my-org",
        bucket="my-bucket",
        tags=tags,
        custom_tags=custom_tags,
        measurement=measurement,
    )
    with closing(exporter):
        exporter.export([sent])
    (point,) = receiver.requests[-1].points
    return point


def variables_of(receiver: Receiver, sent: Record, *, tags: tuple[str, ...] = ()) -> dict[str, object]:
    fields = point_of(receiver, sent, tags=tags).fields
    return {name: value for name, value in fields.items() if name not in OWN_FIELDS}


def test_whole_record_is_one_point(receiver: Receiver) -> None:
    sent = Record(
        id="0190a1b2-0000-7000-8000-000000000001",
        request_id="request-1",
        time_unix_nano=1_700_000_000_123_456_789,
        duration_ns=1_234_567,
        method="POST",
        route="/users/<int:id>",
        endpoint="users.get",
        status_code=500,
        instance="web:3",
        error="ZeroDivisionError",
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
        trace_flags=1,
        trace_remote=True,
        sample_rate=0.1,
        variables={"user_id": 42, "plan": "pro"},
    )

    assert point_of(receiver, sent) == Point(
        measurement="flask_chest",
        tags={
            "method": "POST",
            "route": "/users/<int:id>",
            "endpoint": "users.get",
            "status_code": "500",
            "instance": "web:3",
        },
        fields={
            "record_id": "0190a1b2-0000-7000-8000-000000000001",
            "request_id": "request-1",
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
            "span_id": "b7ad6b7169203331",
            "duration_ns": 1_234_567,
            "error": "ZeroDivisionError",
            "sample_rate": 0.1,
            "user_id": 42.0,
            "plan": "pro",
        },
        time=1_700_000_000_123_456_789,
    )


def test_what_is_absent_is_left_out(receiver: Receiver) -> None:
    sent = make_record(variables={"coupon": None}, route=None)

    point = point_of(receiver, sent, tags=("plan",), custom_tags={"region": ""})

    assert set(point.tags) == {"method", "endpoint", "status_code", "instance"}
    assert set(point.fields) == OWN_FIELDS


def test_invented_method_makes_no_series_of_its_own(receiver: Receiver) -> None:
    assert point_of(receiver, make_record(method="BREW")).tags["method"] == "_OTHER"


def test_measurement_is_the_one_given(receiver: Receiver) -> None:
    assert point_of(receiver, make_record(), measurement="web requests, 100%").measurement == "web requests, 100%"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (1, 1.0),
        (1.5, 1.5),
        (-0.25, -0.25),
        (1e308, 1e308),
        (True, True),
        (False, False),
        ("", ""),
        ('C:\\dir\\ "quoted"\nsecond line', 'C:\\dir\\ "quoted"\nsecond line'),
        ([1, "a", None], '[1,"a",null]'),
        ({"a": {"b": 1.0}}, '{"a":{"b":1.0}}'),
    ],
)
def test_type_of_a_variable_decides_the_type_of_its_field(
    receiver: Receiver, value: JSONValue, field: object
) -> None:
    found = variables_of(receiver, make_record(variables={"v": value}))

    assert found == {"v": field}
    assert type(found["v"]) is type(field)


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)])
def test_integer_that_no_float_holds_is_there_exactly_too(receiver: Receiver, number: int) -> None:
    assert variables_of(receiver, make_record(variables={"n": number})) == {"n": float(number), "n_int": number}


@pytest.mark.parametrize("number", [2**53, -(2**53)])
def test_integer_that_a_float_holds_is_there_once(receiver: Receiver, number: int) -> None:
    assert variables_of(receiver, make_record(variables={"n": number})) == {"n": float(number)}


def test_variable_named_in_tags_is_a_tag_and_no_field(receiver: Receiver) -> None:
    sent = make_record(variables={"plan": "pro", "beta": True, "level": 3, "roles": ["a", "b"], "user_id": 42})

    point = point_of(receiver, sent, tags=("plan", "beta", "level", "roles"))

    assert {name: point.tags[name] for name in ("plan", "beta", "level", "roles")} == {
        "plan": "pro",
        "beta": "true",
        "level": "3",
        "roles": '["a","b"]',
    }
    assert set(point.fields) == {*OWN_FIELDS, "user_id"}


def test_one_name_in_tags_is_not_taken_for_its_letters(receiver: Receiver) -> None:
    assert point_of(receiver, make_record(variables={"plan": "pro"}), tags="plan").tags["plan"] == "pro"


def test_custom_tags_are_on_every_point(receiver: Receiver) -> None:
    point = point_of(
        receiver, make_record(variables={"region": 1}), custom_tags={"region": "eu", "data center": "ber, 1"}
    )

    assert point.tags["region"] == "eu"
    assert point.tags["data center"] == "ber, 1"
    assert point.fields["g_region"] == 1.0


@pytest.mark.parametrize(
    ("text", "written"),
    [("ends with \\", "ends with %5C"), ("two\nlines", "two%0Alines"), ("a, b=c", "a, b=c"), ("ü ☃", "ü ☃")],
)
def test_tag_holds_what_line_protocol_can_write(receiver: Receiver, text: str, written: str) -> None:
    assert point_of(receiver, make_record(variables={"plan": text}), tags=("plan",)).tags["plan"] == written


@pytest.mark.parametrize(
    ("variables", "fields"),
    [
        ({"method": "x"}, {"g_method": "x"}),
        ({"record_id": "x"}, {"g_record_id": "x"}),
        ({"time": "x"}, {"g_time": "x"}),
        ({"_id": "x"}, {"g__id": "x"}),
        ({"": "x"}, {"g_": "x"}),
        ({"g_plan": "x"}, {"g_plan": "x"}),
        ({"route": "a", "g_route": "b"}, {"g_route": "a", "g_g_route": "b"}),
        ({"": "a", "g_": "b"}, {"g_": "a", "g_g_": "b"}),
        ({"a\\": "x", "a%5C": "y"}, {"a%5C": "x", "a%255C": "y"}),
        ({"two\nlines": "x"}, {"two%0Alines": "x"}),
        ({"a b,c=d": "x"}, {"a b,c=d": "x"}),
        ({"n": 2**60, "n_int": "x"}, {"n": 2.0**60, "n_int": "x", "n_int_int": 2**60}),
    ],
)
def test_names_that_mean_something_else_give_way(
    receiver: Receiver, variables: Mapping[str, JSONValue], fields: Mapping[str, object]
) -> None:
    assert variables_of(receiver, make_record(variables=variables)) == fields


def test_exact_integer_gives_way_to_a_tag_of_its_name(receiver: Receiver) -> None:
    sent = make_record(variables={"n": 2**60, "n_int": "x"})

    assert variables_of(receiver, sent, tags=("n_int",)) == {"n": 2.0**60, "n_int_int": 2**60}


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.one_of(
            st.text(st.sampled_from('g_n\\% ,=\n"int'), max_size=8),
            st.sampled_from(["method", "g_method", "time", "n", "n_int", "n_int_int", "error", "g_error"]),
        ),
        st.sampled_from([1, 2**60, "text", True]),
        max_size=8,
    )
)
def test_no_variable_overwrites_another(receiver: Receiver, variables: dict[str, JSONValue]) -> None:
    sent = make_record(variables=variables)

    fields = variables_of(receiver, sent)

    huge = sum(value == 2**60 for value in variables.values())
    assert len(fields) == len(variables) + huge


def test_order_of_the_variables_changes_nothing(receiver: Receiver) -> None:
    variables: dict[str, JSONValue] = {"n": 2**60, "n_int": 2**61}

    one_way = variables_of(receiver, make_record(variables=variables))
    other_way = variables_of(receiver, make_record(variables=dict(reversed(variables.items()))))

    assert one_way == other_way
    assert one_way["n_int_int"] == 2**60
