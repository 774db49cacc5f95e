"""The connections of one process to a database server."""

from __future__ import annotations

import os
import select
import threading
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from flask_chest.errors import StoreUnavailable
from flask_chest.threads import kin_of_thread

C = TypeVar("C")


class Connector(Protocol[C]):
    """How a driver's connections are made, and what state they are in."""

    @abstractmethod
    def connect(self) -> C:
        """Make a connection."""

    @abstractmethod
    def descriptor(self, connection: C, /) -> int:
        """Give the descriptor of its socket; below 0 when it is closed."""

    @abstractmethod
    def settle(self, connection: C, /) -> bool:
        """End the transaction that somebody left; False when the connection is of no use any more."""

    @abstractmethod
    def close(self, connection: C, /) -> None:
        """Close it, whatever its state."""


class ServerPool(Generic[C]):
    """Lends connections, at most *size* at a time; those that come back are taken again, last in first out.

    Not the driver's own pool: that one tries again in a thread of its own, ever more seldom and for minutes
    after the server is back, and says only that there was no connection in time, not why.
    """

    def __init__(self, connector: Connector[C], *, size: int, patience: float, place: str) -> None:
        """Wait *patience* seconds for a connection that is lent."""
        self._connector = connector
        self._size = size
        self._patience = patience
        self._place = place
        self._abandoned: list[C] = []
        """The parent's, from before a fork: not closed, which would end its sessions, and never finalised."""
        self._begin()

    @contextmanager
    def connection(self) -> Iterator[C]:
        """Lend a connection; one that was not left in good order is closed."""
        if self._pid != os.getpid():
            self._abandoned += [connection for idle in self._idle.values() for connection in idle]
            self._begin()
        free = self._free
        if not free.acquire(timeout=self._patience):
            raise StoreUnavailable(
                f"{self._place}: all {self._size} connections are in use; try again, or raise pool_size"
            )
        try:
            generation = self._generation
            connection = self._take() or self._connector.connect()
            try:
                yield connection
            finally:
                self._give_back(connection, generation)
        finally:
            free.release()

    def close(self) -> None:
        """Close what nobody uses now, and the others when they come back; later users get new ones."""
        if self._pid != os.getpid():
            return
        self._generation += 1
        while connection := self._take(of_all=True):
            self._connector.close(connection)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._idle: dict[object, list[C]] = {}
        """By the kind of thread that may use them."""
        self._free = threading.BoundedSemaphore(self._size)
        self._generation = 0

    def _take(self, *, of_all: bool = False) -> C | None:
        kins = list(self._idle) if of_all else [kin_of_thread()]
        for kin in kins:
            idle = self._idle.get(kin, [])
            while idle:
                connection = idle.pop()
                if of_all or not _speaks_unasked(self._connector.descriptor(connection)):
                    return connection
                self._connector.close(connection)
        return None

    def _give_back(self, connection: C, generation: int) -> None:
        if self._pid != os.getpid():
            return  # this thread forked while it had it
        if self._connector.settle(connection) and generation == self._generation:
            self._idle.setdefault(kin_of_thread(), []).append(connection)
        else:
            self._connector.close(connection)


def _speaks_unasked(descriptor: int) -> bool:
    """Tell whether an idle connection has something to read: the server's farewell, or its end."""
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))
