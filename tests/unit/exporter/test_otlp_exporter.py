"""Records as OpenTelemetry's log events, to a real receiver on the loopback."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber

from flask_chest import ConfigurationError, RecordsRejected, TargetUnavailable
from flask_chest.background.export_run import ExportRun
from flask_chest.exporter import _otlp_environment
from flask_chest.exporter.otlp import OTLPExporter
from flask_chest.record import JSONValue
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import ExporterContract, make_record
from http_receiver import Answer, Receiver, Request, self_signed
from json_values import json_values, texts

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
TAKEN = Answer(200, ExportLogsServiceResponse().SerializeToString())


def partly(rejected: int) -> Answer:
    partial = ExportLogsPartialSuccess(rejected_log_records=rejected, error_message="s3cret")
    return Answer(200, ExportLogsServiceResponse(partial_success=partial).SerializeToString())


@pytest.fixture
def receiver() -> Iterator[Receiver[Request]]:
    with Receiver(Request) as receiver:
        receiver.respond = lambda _: TAKEN
        yield receiver


@pytest.fixture
def exporter(receiver: Receiver[Request]) -> Iterator[OTLPExporter]:
    with closing(OTLPExporter(endpoint=f"{receiver.url}/v1/logs")) as exporter:
        yield exporter


def events(request: Request) -> list[LogRecord]:
    (resource,) = ExportLogsServiceRequest.FromString(request.raw).resource_logs
    (scope,) = resource.scope_logs
    return list(scope.log_records)


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: value(pair.value) for pair in pairs}


def value(any_value: AnyValue) -> Any:
    match any_value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [value(item) for item in any_value.array_value.values]
        case "kvlist_value":
            return attributes(any_value.kvlist_value.values)
        case kind:
            return getattr(any_value, kind)


def uids(request: Request) -> list[str]:
    return [attributes(event.attributes)["log.record.uid"] for event in events(request)]


class TestOTLPExporter(ExporterContract):
    @pytest.fixture
    def delivered(self, receiver: Receiver[Request]) -> Callable[[], list[str]]:
        return lambda: list(dict.fromkeys(uid for request in receiver.requests for uid in uids(request)))


def test_record_is_an_event_with_the_ids_of_its_trace(
    receiver: Receiver[Request], exporter: OTLPExporter
) -> None:
    record = make_record(
        trace_id=TRACE,
        span_id=SPAN,
        trace_flags=3,
        trace_remote=False,
        sample_rate=0.1,
        variables={"user_id": 7, "plan": "pro", "deep": {"x": [1, 1.5, None, True]}},
    )
    exporter.export([record])

    (request,) = receiver.requests
    assert request.path == "/v1/logs"
    assert request.headers["Content-Type"] == "application/x-protobuf"
    (event,) = events(request)
    assert event.time_unix_nano == record.time_unix_nano
    assert (event.trace_id.hex(), event.span_id.hex(), event.flags) == (TRACE, SPAN, 3)
    assert event.event_name == "flask_chest.request"
    assert event.severity_number == SeverityNumber.SEVERITY_NUMBER_INFO
    assert not event.HasField("body")
    assert attributes(event.attributes) == {
        "log.record.uid": record.id,
        "flask_chest.request_id": record.request_id,
        "flask_chest.instance": record.instance,
        "flask_chest.duration_ns": record.duration_ns,
        "flask_chest.sample_rate": 0.1,
        "http.request.method": "GET",
        "http.route": "/",
        "http.response.status_code": 200,
        "flask.endpoint": "index",
        "flask.g.user_id": 7,
        "flask.g.plan": "pro",
        "flask.g.deep": {"x": [1, 1.5, None, True]},
    }


def test_callers_span_is_not_taken_for_ours(receiver: Receiver[Request], exporter: OTLPExporter) -> None:
    exporter.export([make_record(trace_id=TRACE, span_id=SPAN, trace_flags=1, trace_remote=True)])
    (event,) = events(receiver.requests[0])
    assert (event.trace_id.hex(), event.span_id) == (TRACE, b"")


def test_error_is_one(receiver: Receiver[Request], exporter: OTLPExporter) -> None:
    exporter.export([make_record(error="KeyError")])
    (event,) = events(receiver.requests[0])
    assert event.severity_number == SeverityNumber.SEVERITY_NUMBER_ERROR
    assert attributes(event.attributes)["error.type"] == "KeyError"


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(variables=st.dictionaries(texts, json_values, max_size=4))
def test_any_variables_arrive(
    receiver: Receiver[Request], exporter: OTLPExporter, variables: dict[str, JSONValue]
) -> None:
    receiver.requests.clear()
    exporter.export([make_record(variables=variables)])
    (event,) = events(receiver.requests[0])
    sent = attributes(event.attributes)
    assert {name: sent[f"flask.g.{name}"] for name in variables} == variables


def test_what_otlp_cannot_carry_is_named_and_the_others_arrive(
    receiver: Receiver[Request], exporter: OTLPExporter
) -> None:
    store = MemoryStore()
    store.open()
    good = make_record()
    bad = [make_record(variables={"x": "\ud800"}), make_record(variables={"x": 2**70})]
    with pytest.raises(RecordsRejected) as rejected:
        exporter.export([good, *bad])
    assert rejected.value.reasons.keys() == {record.id for record in bad}
    assert receiver.requests == []


def test_resource_says_whose_records_they_are(
    receiver: Receiver[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    with closing(OTLPExporter(endpoint=receiver.url, resource={"team": "orders"})) as exporter:
        exporter.export([make_record()])
    (resource,) = ExportLogsServiceRequest.FromString(receiver.requests[0].raw).resource_logs
    said = attributes(resource.resource.attributes)
    expected = {"service.name": "shop", "deployment.environment.name": "test", "team": "orders"}
    assert expected.items() <= said.items()


@pytest.mark.parametrize(
    ("variable", "path"),
    [
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "/v1/logs"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "/v1/logs"),
    ],
)
def test_endpoint_of_the_environment_is_taken(
    receiver: Receiver[Request], monkeypatch: pytest.MonkeyPatch, variable: str, path: str
) -> None:
    monkeypatch.setenv(variable, receiver.url + (path if "LOGS" in variable else ""))
    with closing(OTLPExporter()) as exporter:
        exporter.export([make_record()])
    assert receiver.requests[0].path == path


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(302, headers={"Location": "/login"}), "redirects (302), which is not followed"),
        (Answer(200, b"<html>log in</html>"), "answers 200, and not as a collector does; correct endpoint"),
        (Answer(401), "refused the credentials (401); correct headers"),
        (Answer(404), "is not there (404); correct endpoint"),
        (Answer(429), "cannot take records just now (429)"),
        (Answer(503), "cannot take records just now (503)"),
    ],
)
def test_what_is_no_delivery_keeps_the_batch(
    receiver: Receiver[Request], exporter: OTLPExporter, answer: Answer, words: str
) -> None:
    receiver.answer(answer)
    with pytest.raises(TargetUnavailable) as kept:
        exporter.export([make_record()])
    assert words in str(kept.value)
    assert len(receiver.requests) == 1


@pytest.mark.slow
@pytest.mark.parametrize("refusal", [Answer(400, b"s3cret"), Answer(422), Answer(413), partly(1)])
def test_one_refused_record_is_set_aside_and_the_others_of_its_batch_arrive(
    receiver: Receiver[Request], exporter: OTLPExporter, refusal: Answer
) -> None:
    store = MemoryStore()
    store.open()
    records = [make_record() for _ in range(1_000)]
    store.write(records)
    culprit = records[617].id
    arrived: set[str] = set()

    def judge(request: Request) -> Answer:
        found = set(uids(request))
        arrived.update(found - {culprit} if refusal.status == 200 else set() if culprit in found else found)
        return refusal if culprit in found else TAKEN

    receiver.respond = judge
    report = ExportRun(store, exporter).report()
    assert report.delivered == 999
    assert arrived == {record.id for record in records} - {culprit}
    (rejection,) = store.rejections("otlp")
    assert rejection.record_id == culprit
    assert "s3cret" not in rejection.reason


def test_collector_that_is_away_keeps_the_batch_and_gets_it_later() -> None:
    with Receiver(Request) as gone:
        port = gone.port
    store = MemoryStore()
    store.open()
    record = make_record()
    store.write([record])
    with closing(OTLPExporter(endpoint=f"http://127.0.0.1:{port}/v1/logs")) as exporter:
        assert "does not answer" in (ExportRun(store, exporter).report().error or "")
        with Receiver(Request, port=port) as receiver:
            receiver.respond = lambda _: TAKEN
            assert ExportRun(store, exporter).report().delivered == 1
            assert uids(receiver.requests[0]) == [record.id]


@pytest.mark.slow
def test_processes_of_a_fork_have_connections_of_their_own(
    receiver: Receiver[Request], exporter: OTLPExporter
) -> None:
    exporter.export([make_record()])
    children: list[int] = []
    for _ in range(3):
        if (pid := os.fork()) == 0:
            try:
                for _ in range(20):
                    exporter.export([make_record()])
            finally:
                os._exit(0)
        children.append(pid)
    for _ in range(20):
        exporter.export([make_record()])
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    assert len({request.connection for request in receiver.requests}) == 4
    assert len({uid for request in receiver.requests for uid in uids(request)}) == 81


def test_threads_share_the_exporter(receiver: Receiver[Request], exporter: OTLPExporter) -> None:
    threads = [threading.Thread(target=exporter.export, args=([make_record()],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({uid for request in receiver.requests for uid in uids(request)}) == 8


@pytest.mark.slow
def test_certificate_is_verified(tmp_path: Any) -> None:
    tls, certificate = self_signed(tmp_path)
    with Receiver(Request, tls=tls) as receiver:
        receiver.respond = lambda _: TAKEN
        with (
            closing(OTLPExporter(endpoint=receiver.url)) as stranger,
            pytest.raises(TargetUnavailable, match="TLS"),
        ):
            stranger.export([make_record()])
        with closing(OTLPExporter(endpoint=receiver.url, verify=certificate)) as knowing:
            knowing.export([make_record()])
        assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"endpoint": "localhost:4318"},
            "endpoint must be like 'http://localhost:4318/v1/logs'; got something else",
        ),
        ({"endpoint": "http://u:pa/ss@h"}, "endpoint must be like"),
        ({"name": ""}, "name must not be empty"),
        ({"timeout": -1}, "timeout must be a number of seconds above 0"),
        ({"headers": {"Authorization": "s3cret\n"}}, "must be printable ASCII"),
    ],
)
def test_wrong_settings_are_refused_without_their_secrets(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        OTLPExporter(**options)
    said = "".join(traceback.format_exception(raised.value))
    assert "pa/ss" not in said
    assert "s3cret" not in said


@pytest.mark.slow
def test_missing_driver_names_the_extra() -> None:
    code = "import sys; sys.modules['opentelemetry.proto'] = None; import flask_chest.exporter.otlp"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "is not installed; install it, or flask_chest with its extra [otlp]" in done.stderr


@pytest.fixture
def anew() -> Iterator[None]:
    """Let warnings be said that were said before."""
    _otlp_environment._warn.cache_clear()
    yield
    _otlp_environment._warn.cache_clear()


def test_handled_failure_is_an_error(receiver: Receiver[Request], exporter: OTLPExporter) -> None:
    exporter.export([make_record(status_code=503), make_record(status_code=404)])

    failure, refusal = events(receiver.requests[0])
    assert failure.severity_number == SeverityNumber.SEVERITY_NUMBER_ERROR
    assert attributes(failure.attributes)["error.type"] == "503"
    assert refusal.severity_number == SeverityNumber.SEVERITY_NUMBER_INFO
    assert "error.type" not in attributes(refusal.attributes)


@pytest.mark.parametrize("kind", ["LOGS_", ""])
def test_headers_and_compression_come_from_the_environment(
    receiver: Receiver[Request], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=general")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    else:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "")
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{kind}HEADERS", "api-key = s3cret%3D , x-tenant=a%20b,")
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{kind}COMPRESSION", "none")

    with closing(OTLPExporter(endpoint=receiver.url)) as exporter:
        exporter.export([make_record() for _ in range(20)])

    (request,) = receiver.requests
    assert (request.headers["api-key"], request.headers["x-tenant"]) == ("s3cret=", "a b")
    assert "Content-Encoding" not in request.headers


def test_what_is_passed_goes_before_the_environment(
    receiver: Receiver[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HEADERS": "api-key=general", "COMPRESSION": "none", "TIMEOUT": "1"}.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_LOGS_{name}", value)

    with closing(
        OTLPExporter(endpoint=receiver.url, headers={"x-mine": "1"}, compress=True, timeout=5)
    ) as exporter:
        exporter.export([make_record() for _ in range(20)])

    (request,) = receiver.requests
    assert "api-key" not in request.headers
    assert request.headers["Content-Encoding"] == "gzip"


def test_timeout_of_the_environment_is_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1500")
    with closing(OTLPExporter()) as exporter:
        assert exporter._endpoint._timeout == 1.5


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TIMEOUT", "10", "OTEL_EXPORTER_OTLP_TIMEOUT is 10 milliseconds, which is what the specification"),
        ("TIMEOUT", "soon", "OTEL_EXPORTER_OTLP_TIMEOUT must be a number of milliseconds above 0"),
        ("TIMEOUT", "-1", "OTEL_EXPORTER_OTLP_TIMEOUT must be a number of milliseconds above 0"),
        ("COMPRESSION", "snappy", "OTEL_EXPORTER_OTLP_COMPRESSION must be gzip or none"),
        ("HEADERS", "s3cret", "a part of OTEL_EXPORTER_OTLP_HEADERS is not like key=value and is left out"),
    ],
)
@pytest.mark.usefixtures("anew")
def test_variable_that_cannot_be_read_is_told_once_and_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    for _ in range(2):
        OTLPExporter().close()

    assert caplog.text.count(said) == 1
    assert "s3cret" not in caplog.text


@pytest.mark.usefixtures("anew")
def test_endpoint_that_is_for_grpc_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    OTLPExporter(endpoint="http://localhost:4318/v1/logs").close()
    assert caplog.messages == []
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317")
    OTLPExporter().close()
    warning = "OTEL_EXPORTER_OTLP_PROTOCOL is grpc, but records are sent over HTTP to OTEL_EXPORTER_OTLP_ENDPOINT"
    assert warning in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("passed", [True, False])
def test_certificates_of_both_sides_come_from_the_environment_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, passed: bool
) -> None:
    tls, certificate = self_signed(tmp_path)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(certificate)
    files = {"CERTIFICATE": certificate, "CLIENT_CERTIFICATE": certificate, "CLIENT_KEY": tmp_path / "key.pem"}
    if not passed:
        for name, path in files.items():
            monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", str(path))
    with Receiver(Request, tls=tls) as receiver:
        receiver.respond = lambda request: TAKEN
        with closing(
            OTLPExporter(
                endpoint=receiver.url,
                verify=certificate if passed else None,
                client_certificate=certificate if passed else None,
                client_key=tmp_path / "key.pem" if passed else None,
            )
        ) as exporter:
            exporter.export([make_record()])
        assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE must be True or the path of certificates to trust"),
        ("CLIENT_CERTIFICATE", "client_certificate and client_key must be a certificate and its key"),
    ],
)
def test_certificate_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", "/no/such.pem")
    with pytest.raises(ConfigurationError, match=said):
        OTLPExporter(endpoint="https://localhost")
