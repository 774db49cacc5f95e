"""Connections, time limits, processes and settings."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flask_chest.errors import ConfigurationError, TargetUnavailable
from flask_chest.exporter.influxdb import InfluxDBExporter
from http_receiver import Answer, saying, self_signed
from influxdb_receiver import Receiver, Request, exporter_to, record


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def exporter(receiver: Receiver) -> Iterator[InfluxDBExporter]:
    with closing(exporter_to(receiver.url)) as exporter:
        yield exporter


def test_batch_is_one_compressed_request_to_bucket_and_organisation(
    receiver: Receiver, exporter: InfluxDBExporter
) -> None:
    exporter.export([record(0, text="long " * 300), record(1)])

    (request,) = receiver.requests
    assert request.path == "/api/v2/write"
    assert request.query == {"org": "my-org", "bucket": "my-bucket", "precision": "ns"}
    assert request.headers["Authorization"] == "Token s3cret-t0ken"
    assert request.headers["Content-Encoding"] == "gzip"
    assert request.ids == ["record-0", "record-1"]


def test_path_of_the_url_comes_first(receiver: Receiver) -> None:
    with closing(exporter_to(f"{receiver.url}/influx/")) as exporter:
        exporter.export([record()])

    assert receiver.requests[0].path == "/influx/api/v2/write"


def test_empty_batch_is_no_request(receiver: Receiver, exporter: InfluxDBExporter) -> None:
    exporter.export([])

    assert receiver.requests == []


def test_proxies_of_the_environment_are_not_used(
    receiver: Receiver, exporter: InfluxDBExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    exporter.export([record()])

    assert len(receiver.requests) == 1


def test_unset_token_is_reported_as_what_it_is(receiver: Receiver) -> None:
    with (
        closing(exporter_to(receiver.url, token=None)) as exporter,
        pytest.raises(TargetUnavailable, match="token is None: the variable it was read from is not set"),
    ):
        exporter.export([record()])

    assert receiver.requests == []


def test_empty_token_is_no_authentication(receiver: Receiver) -> None:
    with closing(exporter_to(receiver.url, token="")) as exporter:
        exporter.export([record()])

    assert "Authorization" not in receiver.requests[0].headers


def test_line_end_of_a_token_file_is_no_part_of_the_token(receiver: Receiver) -> None:
    with closing(exporter_to(receiver.url, token="t0ken\n")) as exporter:
        exporter.export([record()])

    assert receiver.requests[0].headers["Authorization"] == "Token t0ken"


def test_absent_server_keeps_the_records() -> None:
    with Receiver() as receiver:
        url = receiver.url
    with (
        closing(exporter_to(url)) as exporter,
        pytest.raises(TargetUnavailable, match=r"127\.0\.0\.1:\d+ does not answer: NewConnectionError"),
    ):
        exporter.export([record()])


def test_server_that_returns_is_delivered_to_by_the_same_exporter() -> None:
    with Receiver() as before, closing(exporter_to(before.url)) as exporter:
        exporter.export([record(0)])
        before.close()
        with pytest.raises(TargetUnavailable):
            exporter.export([record(1)])
        with Receiver(port=before.port) as after:
            exporter.export([record(1)])

            assert [request.ids for request in after.requests] == [["record-1"]]


def test_silent_server_is_left_after_the_timeout(receiver: Receiver) -> None:
    def silence(request: Request) -> Answer:
        receiver.closing.wait()
        return Answer()

    receiver.respond = silence
    began = time.monotonic()
    with (
        closing(exporter_to(receiver.url, timeout=0.2)) as exporter,
        pytest.raises(TargetUnavailable, match=r"did not take all within 0\.2 s"),
    ):
        exporter.export([record()])

    assert 0.2 <= time.monotonic() - began < 5


@pytest.mark.slow
def test_timeout_is_for_all_requests_of_a_delivery(receiver: Receiver) -> None:
    def slow_refusal_and_then_silence(request: Request) -> Answer:
        receiver.closing.wait(0.8 if len(receiver.requests) == 1 else None)
        return Answer(413)

    receiver.respond = slow_refusal_and_then_silence
    began = time.monotonic()
    with closing(exporter_to(receiver.url, timeout=1)) as exporter, pytest.raises(TargetUnavailable):
        exporter.export([record(number) for number in range(64)])

    assert time.monotonic() - began < 1.6
    assert len(receiver.requests) == 2


def test_no_request_is_begun_when_the_time_is_over(receiver: Receiver) -> None:
    with (
        closing(exporter_to(receiver.url, timeout=1e-9)) as exporter,
        pytest.raises(TargetUnavailable, match="did not take all within 1e-09 s"),
    ):
        exporter.export([record()])

    assert receiver.requests == []


def test_forked_child_uses_a_connection_of_its_own(receiver: Receiver, exporter: InfluxDBExporter) -> None:
    exporter.export([record(0)])

    if (child := os.fork()) == 0:
        exporter.export([record(1)])
        exporter.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    exporter.export([record(2)])

    of_parent, of_child, of_parent_again = receiver.requests
    assert of_child.connection != of_parent.connection
    assert of_parent_again.connection == of_parent.connection


def test_closed_exporter_lets_go_of_its_connection(receiver: Receiver, exporter: InfluxDBExporter) -> None:
    exporter.export([record(0)])
    exporter.close()
    exporter.close()
    exporter.export([record(1)])

    first, second = receiver.requests
    assert first.connection != second.connection


def test_name_is_the_one_given() -> None:
    url = "http://influx.example"

    assert InfluxDBExporter(url=url, token="", org="o", bucket="b").name == "influxdb"
    assert InfluxDBExporter(url=url, token="", org="o", bucket="b", name="influxdb-eu").name == "influxdb-eu"


def test_repr_shows_where_it_goes() -> None:
    exporter = exporter_to("https://influx.example/db")

    assert repr(exporter) == ("<InfluxDBExporter 'influxdb' influx.example org='my-org' bucket='my-bucket'>")


def test_level_of_urllib3s_logger_stays_the_applications(receiver: Receiver, exporter: InfluxDBExporter) -> None:
    logger = logging.getLogger("urllib3")
    logger.setLevel(logging.INFO)
    try:
        exporter.export([record()])

        assert logger.level == logging.INFO
    finally:
        logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "influx.example:8086"}, "url must be like"),
        ({"url": "http://user:pa/ss@influx.example"}, "url must be like"),
        ({"url": "http://influx.example?token=s3cret"}, "url must be like"),
        ({"org": ""}, "org must not be empty"),
        ({"bucket": ""}, "bucket must not be empty"),
        ({"measurement": ""}, "measurement must not be empty"),
        ({"measurement": "#x"}, "measurement must not begin with _ .* got '#x'"),
        ({"measurement": "_x"}, "measurement must not begin with _"),
        ({"custom_tags": {"method": "x"}}, "custom_tags must not name 'method'"),
        ({"custom_tags": {"time": "x"}}, "custom_tags must not name 'time'"),
        ({"custom_tags": {"_x": "x"}}, "custom_tags must not name '_x'"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0, got 0"),
        ({"timeout": float("nan")}, "timeout must be .* got nan"),
        ({"token": "s3cret\nX-Evil: 1"}, "token must be printable ASCII"),
    ],
)
def test_wrong_settings_are_refused_without_their_secrets(settings: dict[str, object], message: str) -> None:
    right: dict[str, object] = {"url": "http://influx.example", "token": "", "org": "o", "bucket": "b"}

    with pytest.raises(ConfigurationError, match=message) as raised:
        InfluxDBExporter(**{**right, **settings})  # type: ignore[arg-type]  # some are wrong, that is the point

    said = "".join(traceback.format_exception(raised.value))
    assert "pa/ss" not in said
    assert "s3cret" not in said


def test_certificate_is_verified_unless_told_otherwise(tmp_path: Path) -> None:
    tls, certificate = self_signed(tmp_path)
    with Receiver(tls=tls) as receiver:
        url = receiver.url
        with (
            closing(exporter_to(url)) as careful,
            pytest.raises(TargetUnavailable, match=r"TLS with InfluxDB .* failed: self.signed .* as verify_ssl"),
        ):
            careful.export([record()])
        assert receiver.requests == []

        with closing(exporter_to(url, verify_ssl=False)) as careless, pytest.warns(match="Unverified HTTPS"):
            careless.export([record()])
        with closing(exporter_to(url, verify_ssl=certificate)) as knowing:
            knowing.export([record()])
        assert len(receiver.requests) == 2


@pytest.mark.slow
@pytest.mark.parametrize("said", [b"HTTP/1.1 500 x\r\n\r\nxxxxxxxxx", b"HTTP/1.1 500 x\r\nX: xxxxxxxxx"])
def test_server_that_drips_is_left_after_the_timeout(said: bytes) -> None:
    with saying(said, pause=0.05) as url, closing(exporter_to(url, timeout=0.8)) as exporter:
        began = time.monotonic()
        with pytest.raises(TargetUnavailable):
            exporter.export([record()])

    assert time.monotonic() - began < 5


@pytest.mark.slow
def test_missing_driver_names_the_extra() -> None:
    code = "import sys; sys.modules['influxdb_client'] = None; import flask_chest.exporter.influxdb"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "influxdb-client is not installed; install it, or flask_chest with its extra [influxdb]" in done.stderr
