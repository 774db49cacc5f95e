"""A TCP relay: the one address of a service whose servers change behind it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Self


class Relay:
    """Passes each connection on to *target*, as host:port, or refuses it while there is none.

    Connections that are open stay with the server that they lead to, as they do when a name in DNS changes.
    """

    def __init__(self, target: str | None) -> None:
        self.target = target
        self.passed = 0
        """How many connections were passed on."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @classmethod
    @contextmanager
    def to(cls, target: str | None) -> Iterator[Self]:
        relay = cls(target)
        try:
            yield relay
        finally:
            relay._listener.shutdown(socket.SHUT_RDWR)
            relay._listener.close()
            relay.cut()

    @property
    def address(self) -> str:
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    def cut(self) -> None:
        """Break all connections."""
        while self._ends:
            _end(self._ends.pop())

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.target is None:
                    near.close()
                    continue
                host, _, port = self.target.partition(":")
                try:
                    far = socket.create_connection((host, int(port)), timeout=5)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                self.passed += 1
                self._ends += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=_pass_on, args=(source, sink), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with closing(source), suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    _end(sink)


def _end(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
