"""Records as JSON to any HTTP endpoint."""

from __future__ import annotations

import gzip
import logging
import os
import socket
import subprocess
import sys
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flask_chest import ConfigurationError, ContractError, Record, RecordsRejected, TargetUnavailable
from flask_chest.background.export_run import ExportRun
from flask_chest.exporter.http import HTTPExporter, idempotency_key
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import ExporterContract, make_record
from http_receiver import Answer, Receiver, Request, saying, self_signed


@pytest.fixture
def receiver() -> Iterator[Receiver[Request]]:
    with Receiver(Request) as receiver:
        yield receiver


@pytest.fixture
def exporter(receiver: Receiver[Request]) -> Iterator[HTTPExporter]:
    with closing(HTTPExporter(url=f"{receiver.url}/records")) as exporter:
        yield exporter


def received(receiver: Receiver[Request]) -> list[str]:
    """Give the ids of what was received, each once, as a receiver that tells records apart has them."""
    return list(dict.fromkeys(each["id"] for request in receiver.requests for each in request.json["records"]))


class TestHTTPExporter(ExporterContract):
    @pytest.fixture
    def delivered(self, receiver: Receiver[Request]) -> Callable[[], list[str]]:
        return lambda: received(receiver)


def test_batch_is_one_request_with_every_field(receiver: Receiver[Request], exporter: HTTPExporter) -> None:
    record = make_record(variables={"user_id": 7, "plan": "pro", "deep": {"x": [1, 1.5, None, True, "ü"]}})
    exporter.export([record, make_record()])

    (request,) = receiver.requests
    assert (request.method, request.path) == ("POST", "/records")
    assert request.headers["Content-Type"] == "application/json"
    first, _ = request.json["records"]
    assert Record(**first) == record


def test_integers_arrive_to_the_last_digit(receiver: Receiver[Request], exporter: HTTPExporter) -> None:
    record = make_record(time_unix_nano=1_795_439_270_123_456_789, variables={"n": 2**62 + 1})
    exporter.export([record])

    (sent,) = receiver.requests[0].json["records"]
    assert sent["time_unix_nano"] == 1_795_439_270_123_456_789
    assert sent["variables"]["n"] == 2**62 + 1


def test_same_batch_has_the_same_key_in_any_order(receiver: Receiver[Request], exporter: HTTPExporter) -> None:
    records = [make_record() for _ in range(3)]
    receiver.answer(Answer(503))
    with pytest.raises(TargetUnavailable):
        exporter.export(records)
    exporter.export(records[::-1])
    exporter.export(records[:2])

    first, again, other = (request.headers["Idempotency-Key"] for request in receiver.requests)
    assert first == again == idempotency_key(records)
    assert other != first


def test_large_bodies_are_compressed_and_small_ones_not(
    receiver: Receiver[Request], exporter: HTTPExporter
) -> None:
    exporter.export([make_record()])
    exporter.export([make_record() for _ in range(100)])

    small, large = receiver.requests
    assert "Content-Encoding" not in small.headers
    assert large.headers["Content-Encoding"] == "gzip"
    assert len(large.json["records"]) == 100


def test_compression_can_be_left_out(receiver: Receiver[Request]) -> None:
    with closing(HTTPExporter(url=receiver.url, compress=False)) as exporter:
        exporter.export([make_record() for _ in range(100)])

    assert "Content-Encoding" not in receiver.requests[0].headers


def test_deliveries_share_a_connection(receiver: Receiver[Request], exporter: HTTPExporter) -> None:
    receiver.respond = lambda _: Answer(200, b'{"taken": true}')
    for _ in range(3):
        exporter.export([make_record()])

    assert len({request.connection for request in receiver.requests}) == 1


def test_closed_exporter_connects_again(receiver: Receiver[Request], exporter: HTTPExporter) -> None:
    exporter.export([make_record()])
    exporter.close()
    exporter.export([make_record()])

    assert len({request.connection for request in receiver.requests}) == 2


def test_forked_child_uses_a_connection_of_its_own(receiver: Receiver[Request], exporter: HTTPExporter) -> None:
    exporter.export([make_record()])
    if (pid := os.fork()) == 0:
        try:
            exporter.export([make_record()])
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    exporter.export([make_record()])

    parents, childs, again = (request.connection for request in receiver.requests)
    assert parents == again != childs


def test_method_headers_and_query_are_sent(receiver: Receiver[Request]) -> None:
    url = f"{receiver.url}/in?key=s3cret"
    with closing(HTTPExporter(url=url, method="PUT", headers={"X-Team": "shop"})) as exporter:
        exporter.export([make_record()])

    (request,) = receiver.requests
    assert (request.method, request.query, request.headers["X-Team"]) == ("PUT", {"key": "s3cret"}, "shop")


def test_user_and_password_of_the_url_are_sent_and_never_shown(
    receiver: Receiver[Request], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = receiver.url.replace("//", "//shop:s3cret@") + "/in?key=s3cret"
    receiver.answer(Answer(), Answer(503), Answer(401))
    with closing(HTTPExporter(url=url, headers={"X-Key": "s3cret"})) as exporter:
        exporter.export([make_record()])
        for _ in range(2):
            with pytest.raises(TargetUnavailable) as raised:
                exporter.export([make_record()])
            assert "s3cret" not in "".join(traceback.format_exception(raised.value))
        assert "s3cret" not in repr(exporter)

    assert receiver.requests[0].headers["Authorization"] == "Basic c2hvcDpzM2NyZXQ="
    assert "s3cret" not in caplog.text


def test_payload_makes_the_body(receiver: Receiver[Request]) -> None:
    def payload(records: Sequence[Record]) -> object:
        return [{"who": record.variables["user_id"]} for record in records]

    with closing(HTTPExporter(url=receiver.url, payload=payload)) as exporter:
        exporter.export([make_record(variables={"user_id": 7})])

    assert receiver.requests[0].json == [{"who": 7}]


@pytest.mark.parametrize("made", [b"a,b\n1,2\n", "a,b\n1,2\n"])
def test_payload_may_be_the_body_itself(receiver: Receiver[Request], made: bytes | str) -> None:
    with closing(
        HTTPExporter(url=receiver.url, payload=lambda _: made, headers={"content-type": "text/csv"})
    ) as exporter:
        exporter.export([make_record()])

    (request,) = receiver.requests
    assert request.body == "a,b\n1,2\n"
    assert request.headers["content-type"] == "text/csv"


def test_record_at_which_payload_fails_is_set_aside_and_the_others_arrive(receiver: Receiver[Request]) -> None:
    def payload(records: Sequence[Record]) -> object:
        return {"records": [{"id": record.id, "who": record.variables["user_id"]} for record in records]}

    store = MemoryStore()
    store.open()
    records = [make_record(variables={"user_id": number}) for number in range(9)]
    strange = make_record(variables={})
    store.write([*records[:4], strange, *records[4:]])
    with closing(HTTPExporter(url=receiver.url, payload=payload)) as exporter:
        report = ExportRun(store, exporter).report()

    assert report.delivered == 9
    assert sorted(received(receiver)) == sorted(record.id for record in records)
    (rejection,) = store.rejections("http")
    assert rejection.record_id == strange.id
    assert "payload failed with KeyError" in rejection.reason


def test_payload_that_forgets_its_return_is_told_so(receiver: Receiver[Request]) -> None:
    with (
        closing(HTTPExporter(url=receiver.url, payload=lambda _: None)) as exporter,
        pytest.raises(ContractError, match="payload returned None"),
    ):
        exporter.export([make_record()])


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_success_is_a_delivery(receiver: Receiver[Request], exporter: HTTPExporter, status: int) -> None:
    receiver.answer(Answer(status))
    exporter.export([make_record()])


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (301, "redirects (301), which is not followed; correct url to where it leads"),
        (401, "refused the credentials (401); correct headers"),
        (403, "does not let these credentials in (403); correct headers, or the rights there"),
        (404, "is not there (404); correct url"),
        (405, "takes no POST (405); correct method or url"),
        (409, "answered 409, which is neither in accept nor in rejecting; correct url, accept or rejecting"),
        (429, "cannot take records just now (429) and asks for 30 s"),
        (500, "cannot take records just now (500) and asks for 30 s"),
    ],
)
def test_other_answers_keep_the_batch(
    receiver: Receiver[Request], exporter: HTTPExporter, status: int, words: str
) -> None:
    receiver.answer(Answer(status, b"s3cret", {"Location": f"{receiver.url}/there", "Retry-After": "30"}))
    with pytest.raises(TargetUnavailable) as raised:
        exporter.export([make_record()])

    # The path of a webhook may be its credential, so it is not told.
    assert str(raised.value) == f"{receiver.url} {words}"
    assert repr(exporter) == f"<HTTPExporter 'http' {receiver.url}>"
    assert len(receiver.requests) == 1


def test_accept_and_rejecting_are_the_users(receiver: Receiver[Request]) -> None:
    receiver.answer(Answer(409), Answer(418))
    with closing(HTTPExporter(url=receiver.url, accept=[200, 409], rejecting=[418])) as exporter:
        exporter.export([make_record()])
        with pytest.raises(RecordsRejected):
            exporter.export([make_record()])


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_refused_record_is_set_aside_and_the_others_of_its_batch_arrive(
    receiver: Receiver[Request], exporter: HTTPExporter, status: int
) -> None:
    store = MemoryStore()
    store.open()
    records = [make_record() for _ in range(1_000)]
    store.write(records)
    culprit = records[617].id
    arrived: set[str] = set()

    def judge(request: Request) -> Answer:
        ids = {each["id"] for each in request.json["records"]}
        if culprit in ids:
            return Answer(status, b"it says s3cret")
        arrived.update(ids)
        return Answer()

    receiver.respond = judge
    report = ExportRun(store, exporter).report()

    assert report.delivered == 999
    assert arrived == {record.id for record in records} - {culprit}
    (rejection,) = store.rejections("http")
    assert rejection.record_id == culprit
    assert f"({status})" in rejection.reason
    assert "s3cret" not in rejection.reason


def test_batch_that_is_too_large_goes_in_parts(receiver: Receiver[Request], exporter: HTTPExporter) -> None:
    receiver.respond = lambda request: Answer(413 if len(request.json["records"]) > 30 else 204)
    records = [make_record() for _ in range(100)]
    exporter.export(records)

    sizes = [len(request.json["records"]) for request in receiver.requests]
    assert [size for size in sizes if size <= 30] == [25, 25, 25, 25]


def test_absent_server_keeps_the_batch() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    with (
        closing(HTTPExporter(url=f"http://127.0.0.1:{port}/x")) as exporter,
        pytest.raises(TargetUnavailable, match=f"http://127.0.0.1:{port} does not answer: NewConnectionError"),
    ):
        exporter.export([make_record()])


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1_000])
def test_server_that_is_silent_or_drips_is_left_after_the_timeout(said: bytes) -> None:
    with saying(said, pause=0.05) as url, closing(HTTPExporter(url=url, timeout=0.3)) as exporter:
        began = time.monotonic()
        with pytest.raises(TargetUnavailable, match=r"did not take all within 0\.3 s"):
            exporter.export([make_record()])
        assert time.monotonic() - began < 5


def test_compressed_answer_is_unpacked_no_further_than_it_is_read(
    receiver: Receiver[Request], exporter: HTTPExporter
) -> None:
    bomb = gzip.compress(bytes(50_000_000), compresslevel=1)
    receiver.answer(Answer(503, bomb, {"Content-Encoding": "gzip"}))
    tracemalloc.start()
    try:
        with pytest.raises(TargetUnavailable, match="cannot take records just now"):
            exporter.export([make_record()])
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_answer_that_is_no_http_is_not_quoted() -> None:
    with (
        saying(b"s3cret\r\n\r\n") as url,
        closing(HTTPExporter(url=url)) as exporter,
        pytest.raises(TargetUnavailable, match="does not answer: BadStatusLine") as raised,
    ):
        exporter.export([make_record()])
    assert "s3cret" not in "".join(traceback.format_exception(raised.value))


def test_proxies_of_the_environment_are_not_used(
    receiver: Receiver[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with closing(HTTPExporter(url=receiver.url)) as exporter:
        exporter.export([make_record()])

    assert len(receiver.requests) == 1


@pytest.mark.slow
def test_certificate_is_verified(tmp_path: Path) -> None:
    tls, certificate = self_signed(tmp_path)
    with Receiver(Request, tls=tls) as receiver:
        with (
            closing(HTTPExporter(url=receiver.url)) as stranger,
            pytest.raises(TargetUnavailable, match=r"TLS with https://.* failed: .*; pass the certificate"),
        ):
            stranger.export([make_record()])
        assert receiver.requests == []

        with closing(HTTPExporter(url=receiver.url, verify=certificate)) as knowing:
            knowing.export([make_record()])
        assert len(receiver.requests) == 1


@pytest.mark.slow
def test_name_of_the_certificate_is_verified(tmp_path: Path) -> None:
    tls, certificate = self_signed(tmp_path)
    with (
        Receiver(Request, tls=tls) as receiver,
        closing(HTTPExporter(url=f"https://localhost:{receiver.port}", verify=certificate)) as exporter,
        pytest.raises(TargetUnavailable, match="Hostname mismatch"),
    ):
        exporter.export([make_record()])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": ""}, "url must be like 'https://collector.example/records'"),
        ({"url": "ftp://collector.example"}, "url must be like"),
        ({"url": "https://user:pa/ss@collector.example"}, "url must be like"),
        ({"url": "https://collector.example/#here"}, "url must be like"),
        ({"method": "GET"}, "method must be POST, PUT or PATCH, got 'GET'"),
        ({"name": ""}, "name must not be empty"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0, got 0"),
        ({"connect_timeout": float("inf")}, "connect_timeout must be .* got inf"),
        ({"headers": {"X Key": "s3cret"}}, "headers must have names of letters, digits and hyphens, got 'X Key'"),
        ({"headers": {"X-Key": "s3cret\r\nEvil: 1"}}, r"headers\['X-Key'\] must be printable ASCII"),
        ({"headers": {"X-Key": None}}, r"headers\['X-Key'\] is None: the variable it was read from is not set"),
        ({"headers": {"Content-Length": "3"}}, "headers must not have Content-Length"),
        ({"payload": "records"}, "payload must be a function, and not an async one, got 'records'"),
        ({"accept": []}, "accept must not be empty"),
        ({"accept": ["200"]}, "accept must hold status codes from 200 to 599, got '200'"),
        ({"rejecting": [99]}, "rejecting must hold status codes from 200 to 599, got 99"),
        ({"accept": [200, 400]}, "accept and rejecting must not share a status code, got 400 in both"),
        ({"verify": False}, "verify must be True or the path of certificates to trust, got False"),
        ({"verify": "/no/such/ca.pem"}, "verify must be True or the path of certificates to trust"),
    ],
)
def test_wrong_settings_are_refused_without_their_secrets(settings: dict[str, Any], message: str) -> None:
    right: dict[str, Any] = {"url": "https://collector.example"}
    with pytest.raises(ConfigurationError, match=message) as raised:
        HTTPExporter(**{**right, **settings})

    said = "".join(traceback.format_exception(raised.value))
    assert "pa/ss" not in said
    assert "s3cret" not in said


def test_missing_driver_names_the_extra() -> None:
    code = "import sys; sys.modules['urllib3'] = None; import flask_chest.exporter.http"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "urllib3 is not installed; install it, or flask_chest with its extra [http]" in done.stderr
