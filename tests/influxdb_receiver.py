"""A receiver of line protocol on the loopback: real HTTP, answers as told, nothing of InfluxDB."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from flask_chest.exporters.influxdb import InfluxDBExporter
from flask_chest.record import JSONValue, Record
from flask_chest.testing.records import make_record


@dataclass(frozen=True)
class Point:
    measurement: str
    tags: Mapping[str, str]
    fields: Mapping[str, object]
    time: int


@dataclass(frozen=True)
class Request:
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: str
    connection: int
    """The port of the client: the same for two requests on one connection."""

    @property
    def points(self) -> list[Point]:
        return parse(self.body)

    @property
    def ids(self) -> list[object]:
        return [point.fields["record_id"] for point in self.points]


@dataclass(frozen=True)
class Answer:
    status: int = 204
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def problem(status: int, message: str) -> Answer:
    """Answer as InfluxDB 2 does."""
    return Answer(status, json.dumps({"code": "some code", "message": message}).encode())


class Receiver:
    """Keeps every request; *respond* makes the answer."""

    def __init__(self, *, port: int = 0, tls: SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.respond: Callable[[Request], Answer] = lambda request: Answer()
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", port), _handler(self))
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def points(self) -> list[Point]:
        """All points of all requests, in order."""
        return [point for request in self.requests for point in request.points]

    def answer(self, *answers: Answer) -> None:
        """Give *answers* in turn, and then 204."""
        remaining = iter(answers)
        self.respond = lambda request: next(remaining, Answer())

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.handlers: set[BaseHTTPRequestHandler] = set()
        super().__init__(address, handler)

    def close_connections(self) -> None:
        for handler in list(self.handlers):
            with suppress(OSError):
                handler.connection.shutdown(2)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that go away are what some tests are about."""


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server: _Server

        def setup(self) -> None:
            super().setup()
            self.server.handlers.add(self)

        def finish(self) -> None:
            self.server.handlers.discard(self)
            super().finish()

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            unpacked = gzip.decompress(raw) if self.headers["Content-Encoding"] == "gzip" else raw
            parts = urlsplit(self.path)
            request = Request(
                path=parts.path,
                query=dict(parse_qsl(parts.query, keep_blank_values=True)),
                headers=dict(self.headers),
                body=unpacked.decode(),
                connection=self.client_address[1],
            )
            receiver.requests.append(request)
            answer = receiver.respond(request)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


_KEY = r"(?:\\.|[^\\\s,=])+"
_VALUE = r'(?:"(?:\\.|[^"\\])*"|[^\s,"]+)'
_PAIR = re.compile(rf"({_KEY})=({_VALUE})", re.DOTALL)
_LINE = re.compile(
    rf"({_KEY})((?:,{_KEY}={_KEY})*) ({_KEY}={_VALUE}(?:,{_KEY}={_VALUE})*) (-?\d+)(?:\n|$)", re.DOTALL
)


def parse(body: str) -> list[Point]:
    """Parse line protocol; ``ValueError`` for what is none."""
    points: list[Point] = []
    end = 0
    while end < len(body):
        if (line := _LINE.match(body, end)) is None:
            raise ValueError(f"no line protocol: {body[end : end + 200]!r}")
        tags = re.findall(rf"({_KEY})=({_KEY})", line[2])
        points.append(
            Point(
                _plain(line[1]),
                {_plain(name): _plain(text) for name, text in tags},
                {_plain(name): _value(text) for name, text in _PAIR.findall(line[3])},
                int(line[4]),
            )
        )
        end = line.end()
    return points


def _plain(text: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", text)


def _value(text: str) -> object:
    if text.startswith('"'):
        return re.sub(r"\\([\"\\])", r"\1", text[1:-1])
    if text in {"true", "false"}:
        return text == "true"
    return int(text[:-1]) if text.endswith("i") else float(text)


def exporter_to(
    url: str, *, token: str | None = "s3cret-t0ken", timeout: float = 10.0, verify_ssl: bool = True
) -> InfluxDBExporter:
    return InfluxDBExporter(
        url=url, token=token, org="my-org", bucket="my-bucket", timeout=timeout, verify_ssl=verify_ssl
    )


def record(number: int = 0, **variables: JSONValue) -> Record:
    return make_record(id=f"record-{number}", variables=variables)
