"""The connections of one process to a database server: which are kept, and which are closed."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from flask_chest.errors import SchemaError
from flask_chest.stores.sql import pool as pool_module
from flask_chest.stores.sql.pool import Connector, GivenPool, ServerPool


class LockedError(Exception):
    """What a driver raises when another has the lock."""


class AwayError(Exception):
    """What a driver raises at anything else."""


class Sockets(Connector[socket.socket]):
    """A driver whose connections are sockets with a peer that may speak."""

    def __init__(self) -> None:
        self.peers: list[socket.socket] = []
        self.made: list[socket.socket] = []

    def connect(self) -> socket.socket:
        connection, peer = socket.socketpair()
        self.made.append(connection)
        self.peers.append(peer)
        return connection

    def descriptor(self, connection: socket.socket, /) -> int:
        return connection.fileno()

    def settle(self, connection: socket.socket, /) -> bool:
        return connection.fileno() >= 0

    @staticmethod
    def outlives(error: BaseException, /) -> bool:
        return isinstance(error, LockedError)

    def close(self, connection: socket.socket, /) -> None:
        connection.close()

    @property
    def open(self) -> list[bool]:
        """Of each connection that was made."""
        return [connection.fileno() >= 0 for connection in self.made]


@pytest.fixture
def driver() -> Iterator[Sockets]:
    driver = Sockets()
    yield driver
    for end in [*driver.made, *driver.peers]:
        end.close()


@pytest.fixture
def pool(driver: Sockets) -> ServerPool[socket.socket]:
    return ServerPool(driver, size=4, patience=1, place="x")


def use(pool: ServerPool[socket.socket], error: BaseException | None = None) -> None:
    with pool.connection():
        if error is not None:
            raise error


@pytest.mark.parametrize("error", [LockedError(), SchemaError("of older version")])
def test_connection_outlives_a_lock_and_an_error_of_ours(
    driver: Sockets, pool: ServerPool[socket.socket], error: Exception
) -> None:
    with pytest.raises(type(error)):
        use(pool, error)
    use(pool)
    assert driver.open == [True]


@pytest.mark.parametrize("error", [AwayError(), OSError(), KeyboardInterrupt()])
def test_after_any_other_failure_all_connections_are_made_anew(
    driver: Sockets, pool: ServerPool[socket.socket], error: BaseException
) -> None:
    with pool.connection(), pool.connection():
        pass  # two are idle then
    with pool.connection():  # and this one comes back later
        with pytest.raises(type(error)):
            use(pool, error)
        assert driver.open in ([True, False], [False, True])
    assert driver.open == [False, False]
    use(pool)
    assert driver.open == [False, False, True]


def test_old_connection_is_replaced(
    driver: Sockets, pool: ServerPool[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(pool)
    use(pool)
    assert driver.open == [True]
    monkeypatch.setattr(pool_module, "LIFE_SECONDS", 0.0)
    use(pool)
    assert driver.open == [False, True]


@pytest.fixture
def without_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be as on Windows, and under eventlet."""
    monkeypatch.delattr(select, "poll")


def test_without_poll_a_connection_is_used_again(
    without_poll: None, driver: Sockets, pool: ServerPool[socket.socket]
) -> None:
    for _ in range(6):
        use(pool)
    assert driver.open == [True]


def test_without_poll_a_connection_that_the_server_ended_is_replaced(
    without_poll: None, driver: Sockets, pool: ServerPool[socket.socket]
) -> None:
    use(pool)
    driver.peers[0].close()
    use(pool)
    assert driver.open == [False, True]


class Given:
    """A pool of the app's own, of one connection, that complains when that is closed in its hands."""

    def __init__(self, connection: object) -> None:
        self._connection = connection

    @contextmanager
    def connection(self) -> Iterator[object]:
        try:
            yield self._connection
        except AwayError as exc:
            raise RuntimeError("already closed") from exc


class Fairy:
    """What SQLAlchemy lends: closed, it goes back to its pool."""

    ended_by = ""

    def invalidate(self) -> None:
        self.ended_by += "invalidate"

    def close(self) -> None:
        self.ended_by += "close"


@pytest.mark.parametrize(("error", "ended_by"), [(LockedError(), ""), (AwayError(), "invalidate")])
def test_connection_of_the_apps_pool_is_ended_when_it_is_of_no_use(
    driver: Sockets, error: Exception, ended_by: str
) -> None:
    fairy = Fairy()
    pool = GivenPool[object](Given(fairy), outlives=driver.outlives)
    with pytest.raises(type(error)), pool.connection():
        raise error
    assert fairy.ended_by == ended_by
    pool.close()
    assert fairy.ended_by == ended_by


def test_failure_that_the_apps_pool_swallows_is_raised(driver: Sockets) -> None:
    class Swallowing:
        @contextmanager
        def connection(self) -> Iterator[object]:
            with suppress(LockedError):
                yield object()

    pool = GivenPool[object](Swallowing(), outlives=driver.outlives)
    with pytest.raises(LockedError), pool.connection():
        raise LockedError


def test_socket_of_the_apps_pool_is_closed_when_it_is_of_no_use(driver: Sockets) -> None:
    pool = GivenPool(Given(driver.connect()), outlives=driver.outlives)
    with pytest.raises(AwayError), pool.connection():
        raise AwayError
    assert driver.open == [False]
