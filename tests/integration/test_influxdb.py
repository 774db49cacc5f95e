"""Delivery to a real InfluxDB, read back with InfluxQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from uuid import uuid4

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_chest.errors import RecordsRejected, TargetUnavailable
from flask_chest.exporter.influxdb import InfluxDBExporter
from flask_chest.record import JSONValue
from flask_chest.testing.contracts import ExporterContract
from flask_chest.testing.records import make_record
from servers import InfluxServer


@pytest.fixture
def bucket(influxdb: InfluxServer) -> str:
    return influxdb.create_bucket(f"bucket-{uuid4()}")


def exporter_to(
    influxdb: InfluxServer,
    bucket: str,
    *,
    token: str | None = None,
    org: str | None = None,
    tags: Sequence[str] = (),
    measurement: str = "flask_chest",
) -> InfluxDBExporter:
    return InfluxDBExporter(
        url=influxdb.url,
        token=token or influxdb.token,
        org=org or influxdb.org,
        bucket=bucket,
        tags=tags,
        measurement=measurement,
    )


@pytest.fixture
def exporter(influxdb: InfluxServer, bucket: str) -> Iterator[InfluxDBExporter]:
    with closing(exporter_to(influxdb, bucket)) as exporter:
        yield exporter


def arrived(influxdb: InfluxServer, bucket: str) -> list[str]:
    return [str(point["record_id"]) for point in influxdb.points(bucket)]


class TestInfluxDBExporter(ExporterContract):
    @pytest.fixture
    def exporter(self, influxdb: InfluxServer, bucket: str) -> Iterator[InfluxDBExporter]:
        with closing(exporter_to(influxdb, bucket)) as exporter:
            yield exporter

    @pytest.fixture
    def delivered(self, influxdb: InfluxServer, bucket: str) -> Callable[[], list[str]]:
        return lambda: arrived(influxdb, bucket)


def test_points_have_the_right_types_and_times(influxdb: InfluxServer, bucket: str) -> None:
    sent = make_record(
        variables={
            "user_id": 42,
            "score": 0.1,
            "huge": 2**63 - 1,
            "plan": "pro",
            "beta": True,
            "roles": ["a", "b"],
            "coupon": None,
            "method": "mine",
        }
    )
    with closing(exporter_to(influxdb, bucket, tags=["plan"])) as exporter:
        exporter.export([sent])

    assert influxdb.points(bucket) == [
        {
            "time": sent.time_unix_nano,
            "method": "GET",
            "route": "/",
            "endpoint": "index",
            "status_code": "200",
            "instance": "test:0",
            "plan": "pro",
            "record_id": sent.id,
            "request_id": sent.request_id,
            "duration_ns": 1_500_000,
            "sample_rate": 1.0,
            "user_id": 42,
            "score": 0.1,
            "huge": 2.0**63,
            "huge_int": 2**63 - 1,
            "beta": True,
            "roles": '["a","b"]',
            "g_method": "mine",
        }
    ]
    assert influxdb.tag_names(bucket) == {"method", "route", "endpoint", "status_code", "instance", "plan"}
    assert influxdb.field_types(bucket) == {
        "record_id": "string",
        "request_id": "string",
        "duration_ns": "float",
        "sample_rate": "float",
        "user_id": "float",
        "score": "float",
        "huge": "float",
        "huge_int": "integer",
        "beta": "boolean",
        "roles": "string",
        "g_method": "string",
    }


def test_record_delivered_twice_is_there_once(
    influxdb: InfluxServer, bucket: str, exporter: InfluxDBExporter
) -> None:
    batch = [make_record(variables={"n": number}) for number in range(3)]

    exporter.export(batch)
    exporter.export(batch)

    assert arrived(influxdb, bucket) == [each.id for each in batch]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"token": "wr0ng"}, r"refused the token \(401\); pass one that may write to bucket"),
        ({"bucket": "no-such"}, "has no bucket 'no-such' of organisation 'my-org' .* correct bucket"),
        ({"org": "no-such"}, r"has no organisation 'no-such' \(404\); create it or correct org"),
    ],
)  # fmt: skip
def test_wrong_setting_is_told_and_the_records_arrive_once_it_is_right(
    influxdb: InfluxServer, bucket: str, wrong: dict[str, str], message: str
) -> None:
    batch = [make_record(), make_record()]
    setting = {"bucket": bucket, **wrong}

    with (
        closing(exporter_to(influxdb, **setting)) as mistaken,
        pytest.raises(TargetUnavailable, match=message) as raised,
    ):
        mistaken.export(batch)
    with closing(exporter_to(influxdb, bucket)) as right:
        right.export(batch)

    assert "wr0ng" not in str(raised.value)
    assert arrived(influxdb, bucket) == [each.id for each in batch]


def test_bucket_that_is_made_later_gets_the_records(influxdb: InfluxServer) -> None:
    late = f"bucket-{uuid4()}"
    sent = make_record()
    with closing(exporter_to(influxdb, late)) as exporter:
        with pytest.raises(TargetUnavailable, match=f"has no bucket '{late}'"):
            exporter.export([sent])
        influxdb.create_bucket(late)
        exporter.export([sent])

    assert arrived(influxdb, late) == [sent.id]


def test_stopped_server_is_told_and_the_records_arrive_once_it_runs(
    influxdb: InfluxServer, bucket: str, exporter: InfluxDBExporter
) -> None:
    first, second = make_record(), make_record()
    exporter.export([first])

    with (
        influxdb.server.stopped(),
        pytest.raises(TargetUnavailable, match=r"InfluxDB at 127\.0\.0\.1:\d+ does not answer"),
    ):
        exporter.export([first, second])
    with closing(exporter_to(influxdb, bucket)) as again:  # the server has another port now
        again.export([first, second])

    assert arrived(influxdb, bucket) == [first.id, second.id]


def test_conflict_of_types_loses_nothing(influxdb: InfluxServer, bucket: str, exporter: InfluxDBExporter) -> None:
    exporter.export([make_record(variables={"plan": "pro", "level": 1})])
    batch = [
        make_record(variables={"plan": "basic", "level": 2}),
        make_record(variables={"plan": 3, "level": "high"}),
        make_record(variables={"plan": True, "level": 4}),
        make_record(variables={"plan": None}),
    ]

    exporter.export(batch)
    exporter.export(batch)

    of_batch = influxdb.points(bucket)[1:]
    assert [point["record_id"] for point in of_batch] == [each.id for each in batch]
    names = {"plan", "level", "plan_number", "plan_bool", "level_text"}
    assert [{name: point[name] for name in names & point.keys()} for point in of_batch] == [
        {"plan": "basic", "level": 2},
        {"plan_number": 3, "level_text": "high"},
        {"plan_bool": True, "level": 4},
        {},
    ]


def test_conflict_within_one_batch_loses_nothing(
    influxdb: InfluxServer, bucket: str, exporter: InfluxDBExporter
) -> None:
    batch = [make_record(variables={'my "plan", = x': value}) for value in (1, "pro", True, 2)]

    exporter.export(batch)

    assert arrived(influxdb, bucket) == [each.id for each in batch]
    values = [
        next(value for name, value in point.items() if name.startswith("my "))
        for point in influxdb.points(bucket)
    ]
    assert values == [1, "pro", True, 2]


def test_conflict_with_another_writers_own_fields_loses_nothing(
    influxdb: InfluxServer, bucket: str, exporter: InfluxDBExporter
) -> None:
    answer = requests.post(
        f"{influxdb.url}/api/v2/write",
        params={"org": influxdb.org, "bucket": bucket},
        headers={"Authorization": f"Token {influxdb.token}"},
        data=f"flask_chest duration_ns=1i {time.time_ns()}",
        timeout=10,
    )
    assert answer.status_code == 204
    sent = make_record()

    exporter.export([sent])

    (point,) = [point for point in influxdb.points(bucket) if "record_id" in point]
    assert point["record_id"] == sent.id
    assert point["duration_ns_number"] == 1_500_000


def test_record_that_is_older_than_the_bucket_keeps_is_rejected(influxdb: InfluxServer) -> None:
    short = influxdb.create_bucket(f"bucket-{uuid4()}", keep_seconds=3600)
    old, new = make_record(time_unix_nano=time.time_ns() - 10**15), make_record()
    with closing(exporter_to(influxdb, short)) as exporter:
        with pytest.raises(RecordsRejected, match="refused what is older than the bucket keeps") as raised:
            exporter.export([old])
        exporter.export([new])

    assert set(raised.value.reasons) == {old.id}
    assert arrived(influxdb, short) == [new.id]


@pytest.fixture(scope="module")
def shared_bucket(influxdb: InfluxServer) -> str:
    return influxdb.create_bucket(f"bucket-{uuid4()}")


def _round_trip(
    influxdb: InfluxServer,
    bucket: str,
    variables: Mapping[str, JSONValue],
    *,
    tags: Sequence[str] = (),
) -> dict[str, object]:
    measurement = f"measurement-{uuid4()}"
    with closing(exporter_to(influxdb, bucket, tags=tags, measurement=measurement)) as exporter:
        exporter.export([make_record(variables=variables), make_record()])
    first, _ = influxdb.points(bucket, measurement)
    return first


_few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# What capture lets through: no lone surrogates and no NUL.
_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
_spiky = st.text(st.sampled_from("a\\\"' ,=\n\r\t%#_é☃😀"), max_size=12)


@_few
@given(value=_texts | _spiky)
def test_text_comes_back_as_it_was(influxdb: InfluxServer, shared_bucket: str, value: str) -> None:
    assert _round_trip(influxdb, shared_bucket, {"v": value})["v"] == value


@_few
@given(names=st.lists(_texts | _spiky, min_size=1, max_size=4, unique=True))
def test_variable_of_any_name_arrives(influxdb: InfluxServer, shared_bucket: str, names: list[str]) -> None:
    point = _round_trip(influxdb, shared_bucket, {name: f"value {n}" for n, name in enumerate(names)})

    assert {f"value {n}" for n in range(len(names))} <= set(point.values())


@_few
@given(name=_texts | _spiky, value=_texts | _spiky)
def test_tag_of_any_name_and_value_spoils_nothing(
    influxdb: InfluxServer, shared_bucket: str, name: str, value: str
) -> None:
    point = _round_trip(influxdb, shared_bucket, {name: value, "other": "x"}, tags=[name])

    assert "request_id" in point
    assert point["other" if name != "other" else "method"] in {"x", "GET"}


@_few
@given(number=st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False))
def test_number_comes_back_as_it_was(influxdb: InfluxServer, shared_bucket: str, number: float) -> None:
    point = _round_trip(influxdb, shared_bucket, {"n": number})

    assert point.get("n_int", point["n"]) == number
