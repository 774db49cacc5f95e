"""ClickHouse's engine behind as much of its HTTP interface as its client needs.

``clickhouse_front.py FOLDER PORT [CONFIG]``, where CONFIG is a file of the engine's settings.

For tests with several clients, and with a server that is killed: an engine lives in one process.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import clickhouse_connect
from clickhouse_connect.driver import exceptions as clickhouse

_NO_SETTINGS = {"database", "query_id", "default_format", "compress", "client_protocol_version", "role"}
_NO_SETTINGS |= {"wait_end_of_query", "send_progress_in_http_headers", "http_headers_progress_interval_ms"}
_NO_SETTINGS |= {"enable_http_compression", "cancel_http_readonly_queries_on_client_close", "query"}
_INSERT = re.compile(rb"INSERT INTO (\S+) \((.*)\) FORMAT Native\n")


class Front(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    client: Any

    def do_GET(self) -> None:
        self._say(200, b"Ok.\n")

    def do_POST(self) -> None:
        given = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        body = self._body()
        settings = {name: value for name, value in given.items() if name not in _NO_SETTINGS}
        try:
            self._say(200, self._run(body, given.get("query", ""), settings))
        except clickhouse.Error as exc:
            self._say(500, str(exc).encode(), code=exc.code or 0)

    def _run(self, body: bytes, query: str, settings: dict[str, str]) -> bytes:
        # What is inserted follows the statement.
        if (insert := _INSERT.match(body)) is None:
            return bytes(self.client.raw_query(body.decode() or query, settings=settings))
        table, columns = insert[1].decode(), insert[2].decode().replace("`", "").split(", ")
        self.client.raw_insert(table, columns, body[insert.end() :], settings=settings, fmt="Native")
        return b""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> Iterable[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _say(self, status: int, body: bytes, *, code: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-ClickHouse-Summary", "{}")
        self.send_header("X-ClickHouse-Timezone", "UTC")
        if code is not None:
            self.send_header("X-ClickHouse-Exception-Code", str(code))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def main(folder: str, port: str, config: str = "") -> None:
    options = {"config-file": config} if config else None
    Front.client = clickhouse_connect.get_client(interface="chdb", path=folder, chdb_options=options)
    if not config:
        Front.client.command("CREATE DATABASE IF NOT EXISTS chest ENGINE = Atomic")
    with _Server(("127.0.0.1", int(port)), Front) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
