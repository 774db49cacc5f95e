"""The client of a database in each process: its threads and sockets do not cross a fork."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Generic, NoReturn, Protocol, TypeVar

from flask_chest._process import PerProcess
from flask_chest.errors import ConfigurationError


class _Closable(Protocol):
    @abstractmethod
    def close(self) -> None:
        """Close the client."""


C = TypeVar("C", bound=_Closable)


class Clients(Generic[C]):
    """One client for each process, by *make*; or the one that was *given*, in the process that it is of."""

    def __init__(self, make: Callable[[], C], *, given: C | None) -> None:
        self._clients: PerProcess[C] = PerProcess(make if given is None else _refuse_fork)
        self._is_given = given is not None
        if given is not None:
            self._clients.set(given)

    def get(self) -> C:
        """Return this process's client; it connects when it is made, or when it is used."""
        return self._clients.get()

    def close(self) -> None:
        """Close this process's client, but never one that was given."""
        if not self._is_given and (client := self._clients.pop()) is not None:
            client.close()


def _refuse_fork() -> NoReturn:
    raise ConfigurationError(
        "client was made before a fork, and does not work in this process; "
        "give db_uri, or a callable store= that makes both in each process"
    )
