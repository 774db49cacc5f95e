"""A receiver of HTTP on the loopback: real requests, answers as told."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Generic, Self, TypeVar
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, kw_only=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    raw: bytes
    """The body, unpacked."""
    connection: int
    """The port of the client: the same for two requests on one connection."""

    @property
    def body(self) -> str:
        return self.raw.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    status: int = 204
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


R = TypeVar("R", bound=Request)


class Receiver(Generic[R]):
    """Keeps every request as a *kind* of its own; *respond* makes the answer."""

    def __init__(self, kind: type[R], *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[R] = []
        self.respond: Callable[[R], Answer] = lambda request: Answer()
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", port), _handler(self, kind))
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "http" if tls is None else "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

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


@contextmanager
def saying(data: bytes, *, pause: float = 0.0) -> Iterator[str]:
    """Send *data* to whoever connects, with a *pause* of seconds after each byte; give the url."""
    over = threading.Event()

    def speak(listener: socket.socket) -> None:
        with suppress(OSError), closing(listener.accept()[0]) as connection:
            for byte in data:
                connection.sendall(bytes([byte]))
                over.wait(pause)
            over.wait()

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=speak, args=(listener,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            over.set()
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def self_signed(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Make a certificate for the loopback; give the server's side of TLS with it, and the certificate."""
    if (openssl := shutil.which("openssl")) is None:
        raise RuntimeError("openssl is needed to make a certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    make: list[str | Path] = [
        openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate,
    ]  # fmt: skip
    subprocess.run(make, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


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


def _handler(receiver: Receiver[R], kind: type[R]) -> type[BaseHTTPRequestHandler]:
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
            request = kind(
                method=self.command,
                path=parts.path,
                query=dict(parse_qsl(parts.query, keep_blank_values=True)),
                headers=dict(self.headers),
                raw=unpacked,
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

        def do_PUT(self) -> None:
            self.do_POST()

    return Handler
