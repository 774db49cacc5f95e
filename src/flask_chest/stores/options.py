"""Options of the stores: their defaults, their checks, and which of them tell two stores on a server apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import get_args

import msgspec

from flask_chest.errors import ConfigurationError
from flask_chest.protocols import PartitionBy

DEFAULT_NAME = "flask_chest"
"""Prefix of the tables' names."""
CONNECT_TIMEOUT = 5.0
"""Seconds to connect to a server, and to wait for a connection of the pool."""
STATEMENT_TIMEOUT = 30.0
"""Seconds that a statement may take."""
LOCK_TIMEOUT = 5.0
"""Seconds to wait for a lock of another process on a server."""
BUSY_TIMEOUT = 5.0
"""Seconds to wait for another writer of an SQLite file."""
POOL_SIZE = 4
"""Connections to a server that are open in a process at most."""

MAX_TIMEOUT = 3600
"""Seconds that a time-out may be at most."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,59}")
_DIGITS = 16


def check_options(*, pool_size: int, **times: float) -> None:
    """Raise `ConfigurationError` unless *pool_size* and the time-outs *times*, by option, can be used."""
    for option, seconds in times.items():
        if not 0 < seconds <= MAX_TIMEOUT:
            raise ConfigurationError(
                f"{option} must be more than 0 and at most {MAX_TIMEOUT} seconds, got {seconds!r}"
            )
    if pool_size < 1:
        raise ConfigurationError(f"pool_size must be at least 1, got {pool_size!r}")


def check_name(name: str) -> None:
    """Raise `ConfigurationError` unless *name* can be the prefix of names where there are no tables of SQL."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"name must be at most 60 ASCII letters, digits, _ or -, and begin with a letter or _, got {name!r}"
        )


def check_partition(partition: PartitionBy | None) -> None:
    """Raise `ConfigurationError` unless *partition* is a span of time for which there can be partitions."""
    if partition is not None and partition not in get_args(PartitionBy):
        raise ConfigurationError(f'partition must be "day", "week" or None, got {partition!r}')


def full_address(place: str, choosing: Mapping[str, object]) -> str:
    """Return *place* and a digest of the other parameters that choose its tables, as a role does.

    Only those, since a password could be guessed from a digest, and a worker with other time-outs
    still stores what the app leaves.
    """
    given = {name: str(value) for name, value in sorted(choosing.items()) if value not in {None, ""}}
    if not given:
        return place
    text = msgspec.json.encode(list(given.items()))
    return f"{place}?{sha256(text).hexdigest()[:_DIGITS]}"
