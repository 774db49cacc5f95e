"""Stores, one package per database; `store_from_uri` chooses one by its address."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

from flask_chest.errors import ConfigurationError
from flask_chest.protocols import PartitionBy, Store
from flask_chest.stores._indexes import MAX_INDEXED_NAME, is_indexable
from flask_chest.stores.options import DEFAULT_NAME

__all__ = ["MAX_INDEXED_NAME", "is_indexable", "store_from_uri"]

_Chooser: TypeAlias = Callable[[str, Path, str], Callable[..., Store]]


def store_from_uri(
    uri: str,
    *,
    root: Path,
    name: str = DEFAULT_NAME,
    setting: str = "uri",
    partition: PartitionBy | None = None,
) -> Callable[[], Store]:
    """Return a factory of stores at *uri*; a relative path in it begins at *root*.

    A factory, so that each process makes its own store. A wrong *uri* or *name* raises `ConfigurationError` here,
    naming *setting*, and not when the store is first used.
    """
    scheme, colon, rest = uri.partition(":")
    if not colon or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        raise ConfigurationError(
            f"{setting} has no scheme; it must begin with one of {_known()}, as in sqlite:///chest.db"
        )
    if scheme not in _SCHEMES:
        raise ConfigurationError(
            f"{setting} has the scheme {scheme!r}, which is not known; it must begin with one of {_known()}"
        )
    factory = _SCHEMES[scheme](rest, root, name)
    if partition is not None:
        if _SCHEMES[scheme] not in {_postgresql, _mysql}:
            raise ConfigurationError(
                f"partition is {partition!r}, which is for PostgreSQL, MySQL and MariaDB, and {setting} has the "
                f"scheme {scheme!r}"
            )
        factory = partial(factory, partition=partition)
    factory()  # does no work, but tells a wrong setting where it is set
    return factory


def _memory(rest: str, root: Path, name: str) -> Callable[..., Store]:  # noqa: ARG001 - nothing to place or name
    if rest not in {"", "//"}:
        raise ConfigurationError("memory: takes nothing after the colon")
    from flask_chest.stores.memory import MemoryStore  # noqa: PLC0415 - a store loads when it is chosen

    return MemoryStore


def _sqlite(rest: str, root: Path, name: str) -> Callable[..., Store]:
    path = rest.removeprefix("///")
    if path in {rest, ""}:
        raise ConfigurationError(
            "sqlite: needs a path after three slashes: sqlite:///relative.db or sqlite:////absolute.db"
        )
    if "?" in path:
        raise ConfigurationError("sqlite: takes no options after a question mark; pass them to SQLiteStore")
    from flask_chest.stores.sqlite import SQLiteStore  # noqa: PLC0415 - a store loads when it is chosen

    return partial(SQLiteStore, path if path == ":memory:" else root / path, name=name)


def _postgresql(rest: str, root: Path, name: str) -> Callable[..., Store]:  # noqa: ARG001 - it has no path
    from flask_chest.stores.postgresql import PostgreSQLStore  # noqa: PLC0415 - a store loads when it is chosen

    return partial(PostgreSQLStore, f"postgresql:{rest}", name=name)


def _mysql(rest: str, root: Path, name: str) -> Callable[..., Store]:  # noqa: ARG001 - it has no path
    from flask_chest.stores.mysql import MySQLStore  # noqa: PLC0415 - a store loads when it is chosen

    return partial(MySQLStore, f"mysql:{rest}", name=name)


def _mongodb(rest: str, root: Path, name: str, *, scheme: str) -> Callable[..., Store]:  # noqa: ARG001 - as above
    from flask_chest.stores.mongodb import MongoDBStore  # noqa: PLC0415 - a store loads when it is chosen

    return partial(MongoDBStore, f"{scheme}:{rest}", name=name)


def _clickhouse(rest: str, root: Path, name: str, *, scheme: str) -> Callable[[], Store]:  # noqa: ARG001 - as above
    from flask_chest.stores.clickhouse import ClickHouseStore  # noqa: PLC0415 - a store loads when it is chosen

    return partial(ClickHouseStore, f"{scheme}:{rest}", name=name)


_SCHEMES: dict[str, _Chooser] = {
    "clickhouse": partial(_clickhouse, scheme="clickhouse"),
    "clickhouses": partial(_clickhouse, scheme="clickhouses"),
    "mariadb": _mysql,
    "memory": _memory,
    "mongodb": partial(_mongodb, scheme="mongodb"),
    "mongodb+srv": partial(_mongodb, scheme="mongodb+srv"),
    "mysql": _mysql,
    "mysql+pymysql": _mysql,
    "postgres": _postgresql,
    "postgresql": _postgresql,
    "sqlite": _sqlite,
}


def _known() -> str:
    return ", ".join(f"{scheme}:" for scheme in sorted(_SCHEMES))
