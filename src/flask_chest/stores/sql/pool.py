"""The connections of one process to a database server."""

from __future__ import annotations

import select
import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Generic, Protocol, TypeVar

from flask_chest._process import PerProcess, hub_id
from flask_chest.errors import ChestError, StoreUnavailable

C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)

LIFE_SECONDS = 600.0
"""Age in seconds up to which a connection is lent: a mere reader is never refused by a former primary."""

READ_ONLY = "try again; if this persists, point the address at the server that takes writes"
"""The way out after a refusal like that of a replica."""


class ServerReadOnly(StoreUnavailable):
    """The server took no write: it is a replica, or was the primary until a moment ago."""


class SnapshotLost(StoreUnavailable):
    """A table was changed after the snapshot of an answer had begun: what reads it has to begin again."""


class Lender(Protocol[C_co]):
    """Lends connections, and ends those that lead nowhere any more."""

    most_stale: int
    """Connections to a server that is no longer the primary that it may lend in a row."""

    @abstractmethod
    def connection(self) -> AbstractContextManager[C_co]:
        """Lend a connection; one that does not outlive an exception of the block is closed."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections that it made; those of the app stay open."""


class AppPool(Protocol[C_co]):
    """The part that is used of a pool which the app made."""

    @abstractmethod
    def connection(self) -> AbstractContextManager[C_co]:
        """Lend a connection."""


class Connector(Protocol[C]):
    """How a driver's connections are made, and what state they are in."""

    @abstractmethod
    def connect(self) -> C:
        """Make a connection."""

    @abstractmethod
    def descriptor(self, connection: C, /) -> int:
        """Return the descriptor of its socket; below 0 when it is closed."""

    @abstractmethod
    def settle(self, connection: C, /) -> bool:
        """End the transaction that somebody left; return False when the connection is of no use any more."""

    @staticmethod
    @abstractmethod
    def outlives(error: BaseException, /) -> bool:
        """Return whether a connection is as good after the driver's *error* as before: a lock, or a value."""

    @abstractmethod
    def close(self, connection: C, /) -> None:
        """Close *connection*, whatever its state."""


class GivenPool(Lender[C]):
    """A pool that the app made, which is never closed; a connection that it lends is, where it is of no use."""

    most_stale = 8

    def __init__(self, pool: AppPool[C], *, outlives: Callable[[BaseException], bool]) -> None:
        """Close a lent connection after an error for which *outlives* is False; see `Connector.outlives`."""
        self._pool = pool
        self._outlives = outlives

    @contextmanager
    def connection(self) -> Iterator[C]:
        """Lend a connection of the app's."""
        failure: BaseException | None = None
        try:
            with self._pool.connection() as connection:
                try:
                    yield connection
                except BaseException as exc:
                    failure = exc
                    if not _outlived(exc, self._outlives):
                        _end(connection)
                    raise
        except Exception:
            if failure is None:
                raise
        if failure is not None:
            raise failure  # whatever the pool makes of it, and says of a connection that is closed

    def close(self) -> None:
        """Do nothing."""


class _Held(Generic[C]):
    """What one process has of a `ServerPool`."""

    def __init__(self, size: int) -> None:
        self.idle: dict[object, list[tuple[C, float]]] = {}
        """Connections that nobody uses and when they were made, by the threads that may share a socket."""
        self.free = threading.BoundedSemaphore(size)
        self.generation = 0
        """Counts up when all connections are to be closed; one of an earlier generation is not kept."""


class ServerPool(Lender[C]):
    """Lends connections, at most *size* at a time; those that come back are taken again, last in first out.

    Not the driver's own pool: that one tries again in a thread of its own, ever more seldom and for minutes
    after the server is back, and says only that there was no connection in time, not why.
    """

    most_stale = 1

    def __init__(self, connector: Connector[C], *, size: int, patience: float, place: str) -> None:
        """Wait *patience* seconds for a connection that is lent."""
        self._connector = connector
        self._size = size
        self._patience = patience
        self._place = place
        self._here: PerProcess[_Held[C]] = PerProcess(partial(_Held, size))

    @contextmanager
    def connection(self) -> Iterator[C]:
        """Lend a connection; one that was not left in good order is closed.

        After an error that it does not outlive, all are: they lead to the same server, which may be the wrong
        one by now.
        """
        here = self._here.get()
        if not here.free.acquire(timeout=self._patience):
            raise StoreUnavailable(
                f"{self._place}: all {self._size} connections are in use; try again, or raise pool_size"
            )
        try:
            generation = here.generation
            connection, made = self._take(here) or (self._connector.connect(), time.monotonic())
            try:
                yield connection
            except BaseException as exc:
                if not _outlived(exc, self._connector.outlives):
                    self.close()
                raise
            finally:
                self._give_back(here, connection, made, generation)
        finally:
            here.free.release()

    def close(self) -> None:
        """Close what nobody uses now, and the others when they come back; later users get new ones."""
        here = self._here.peek()
        if here is None:
            return
        here.generation += 1
        for idle in list(here.idle.values()):
            while idle:
                self._connector.close(idle.pop()[0])

    def _take(self, here: _Held[C]) -> tuple[C, float] | None:
        idle = here.idle.get(hub_id(), [])
        while idle:
            connection, made = idle.pop()
            young = time.monotonic() - made < LIFE_SECONDS
            if young and not _speaks_unasked(self._connector.descriptor(connection)):
                return connection, made
            self._connector.close(connection)
        return None

    def _give_back(self, here: _Held[C], connection: C, made: float, generation: int) -> None:
        if here is not self._here.peek():
            return  # this thread forked while it had it
        if self._connector.settle(connection) and generation == here.generation:
            here.idle.setdefault(hub_id(), []).append((connection, made))
        else:
            self._connector.close(connection)


def _outlived(error: BaseException, outlives: Callable[[BaseException], bool]) -> bool:
    # Our own say that a record, a setting or the tables are wrong, or that another process has a lock.
    return isinstance(error, ChestError) or outlives(error)


def _end(connection: object) -> None:
    """Close a connection of somebody else's pool so that it is not lent again."""
    # SQLAlchemy's pools take back what is closed; what they lend is ended by another name.
    end: object = getattr(connection, "invalidate", None) or getattr(connection, "close", None)
    if callable(end):
        with suppress(Exception):  # the pool finds out by itself
            end()


def _speaks_unasked(descriptor: int) -> bool:
    """Return whether an idle connection has something to read: the server's farewell, or its end."""
    if descriptor < 0:
        return True
    if sys.platform != "win32" and hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | select.POLLHUP | select.POLLERR)
        return bool(poll.poll(0))
    # Windows has no poll, and eventlet takes it away.
    try:
        return bool(select.select([descriptor], [], [], 0)[0])
    except (OSError, ValueError):  # it is closed, or has too high a number to be asked
        return True
