"""Connections to one HTTP target that end in time.

A timeout of urllib3's starts again with every byte that comes, so a server that sends one now and then holds its
client for hours. Here a deadline ends whatever is being sent or received.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPResponse
from ssl import SSLContext
from typing import Any, cast

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import Url

_deadline: ContextVar[float] = ContextVar("flask_chest_http_deadline")


@contextmanager
def within(timeout: float) -> Iterator[None]:
    """Raise `TimeoutError` from what connections send and receive in this block after *timeout* seconds."""
    token = _deadline.set(time.monotonic() + timeout)
    try:
        yield
    finally:
        _deadline.reset(token)


def remaining() -> float:
    """Return the number of seconds that are left, more than 0, or raise ``TimeoutError``."""
    seconds = _deadline.get() - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("the time for this delivery is over")
    return seconds


def connection_pool(target: Url, tls: SSLContext | None) -> HTTPConnectionPool:
    """Return a pool of connections to *target*, for the process that calls this."""
    query = "" if target.query is None else f"?{target.query}"
    host = target.host or ""
    if tls is None:
        return _Pool(host, target.port, query=query)
    return _TLSPool(host, target.port, query=query, ssl_context=tls)


class _Incoming(io.RawIOBase):
    """Stream of what *sock* receives before the deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._stream = sock.makefile("rb", buffering=0)  # like http.client's own, it outlives sock.close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._sock.settimeout(remaining())
        return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_Incoming(sock))


class _Connection(HTTPConnection):
    response_class = _Response

    def __init__(self, *args: Any, query: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self._query = query

    def putrequest(
        self,
        method: str,
        url: str,
        skip_host: bool = False,  # noqa: FBT001, FBT002 - the signature is urllib3's
        skip_accept_encoding: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        # Only here, since urllib3 logs the url that it is given, and a query may hold a token.
        super().putrequest(method, url + self._query, skip_host, skip_accept_encoding)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        # Until now it is that of connecting, or of the request before.
        cast("socket.socket", self.sock).settimeout(remaining())
        super().send(data)


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = cast("Any", _Connection)  # which has two types in urllib3


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = cast("Any", _TLSConnection)
