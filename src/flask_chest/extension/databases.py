"""`FlaskChest` with its database already chosen: one class for each."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from flask import Flask

from flask_chest.errors import ConfigurationError
from flask_chest.extension.chest import FlaskChest, check_unparted
from flask_chest.extension.settings import SettingOptions, Settings
from flask_chest.protocols import RequestIdGenerator, Store, VariablesObserver
from flask_chest.stores.options import (
    BUSY_TIMEOUT,
    CONNECT_TIMEOUT,
    DEFAULT_NAME,
    LOCK_TIMEOUT,
    POOL_SIZE,
    STATEMENT_TIMEOUT,
)

if TYPE_CHECKING:
    from flask_chest.stores.clickhouse import client as clickhouse_client
    from flask_chest.stores.mongodb import client as mongodb_client
    from flask_chest.stores.mysql import connections as mysql_connections
    from flask_chest.stores.postgresql import connections as postgresql_connections


class ChestOptions(SettingOptions, total=False):
    """Options of `FlaskChest` that the chests of all databases take."""

    request_id_generator: RequestIdGenerator | None
    span_attributes: VariablesObserver | None
    config_prefix: str


class FlaskChestSQLite(FlaskChest):
    """A chest in an SQLite file.

    *db_uri* is a path; a relative one begins at ``app.root_path``. *name* is the name of the table and the prefix
    of the other tables. *busy_timeout* is the number of seconds for which a write waits for another process's
    lock. The other options are those of `FlaskChest`.
    """

    def __init__(
        self,
        app: Flask | None = None,
        name: str = DEFAULT_NAME,
        db_uri: str | os.PathLike[str] = "db.sqlite3",
        *,
        busy_timeout: float = BUSY_TIMEOUT,
        **options: Unpack[ChestOptions],
    ) -> None:
        self._path = os.fspath(db_uri)
        self._name = name
        self._busy_timeout = busy_timeout
        super().__init__(app, **options)

    def _store_factory(self, app: Flask, settings: Settings, /) -> Callable[[], Store]:
        from flask_chest.stores.sqlite import SQLiteStore  # noqa: PLC0415 - a driver is imported when its database is chosen

        check_unparted(settings)
        path = self._path.removeprefix("sqlite:///")
        if re.match(r"(?!sqlite:)[a-z+]+://", path):  # which may hold a password
            raise ConfigurationError(
                "db_uri of FlaskChestSQLite must be the path of a file; for another database use its own class, "
                "such as FlaskChestPostgreSQL, or FlaskChest with CHEST_URI"
            )
        if not path or path.startswith("sqlite:"):
            raise ConfigurationError(
                f"db_uri must be the path of a file, or sqlite:/// and the path, got {self._path!r}"
            )
        if not path.startswith((":", "file:")):
            path = str(Path(app.root_path) / path)
        store = SQLiteStore(path, name=self._name, busy_timeout=self._busy_timeout)
        return lambda: store


class FlaskChestPostgreSQL(FlaskChest):
    """A chest in a PostgreSQL database.

    *db_uri* is as libpq takes it, ``postgresql://user:password@host:5432/database?sslmode=verify-full``; what it
    omits comes from libpq's own variables, such as ``PGPASSWORD``. *name* is the name of the table and the prefix
    of the other tables. With ``create=False`` the tables must exist. Time-outs are in seconds. *pool* is the
    app's own pool, such as psycopg_pool's, which is never closed. The other options are those of `FlaskChest`;
    with ``partition="day"`` a new table has a partition for each day, which retention drops as a whole.
    """

    def __init__(
        self,
        app: Flask | None = None,
        name: str = DEFAULT_NAME,
        db_uri: str = "postgresql:///",
        *,
        create: bool = True,
        connect_timeout: float = CONNECT_TIMEOUT,
        statement_timeout: float = STATEMENT_TIMEOUT,
        lock_timeout: float = LOCK_TIMEOUT,
        pool_size: int = POOL_SIZE,
        pool: postgresql_connections.Pool | None = None,
        **options: Unpack[ChestOptions],
    ) -> None:
        from flask_chest.stores.postgresql import PostgreSQLStore  # noqa: PLC0415 - a driver is imported when its database is chosen

        self._make = partial(
            PostgreSQLStore,
            db_uri,
            name=name,
            create=create,
            connect_timeout=connect_timeout,
            statement_timeout=statement_timeout,
            lock_timeout=lock_timeout,
            pool_size=pool_size,
            pool=pool,
        )
        super().__init__(app, store=_tried(self._make), **options)

    def _store_factory(self, _app: Flask, settings: Settings, /) -> Callable[[], Store]:
        return _tried(partial(self._make, partition=settings.partition))


class FlaskChestMySQL(FlaskChest):
    """A chest in a MySQL or MariaDB database.

    *db_uri* is ``mysql://user:password@host:3306/database?ssl_ca=ca.pem``, with PyMySQL's options after the
    question mark. *name* is the name of the table and the prefix of the other tables. With ``create=False`` the
    tables must exist. Time-outs are in seconds. *pool* is the app's own pool, of connections in autocommit mode,
    which is never closed. The other options are those of `FlaskChest`; with ``partition="day"`` a new table has a
    partition for each day, which retention drops as a whole.
    """

    def __init__(
        self,
        app: Flask | None = None,
        name: str = DEFAULT_NAME,
        db_uri: str = "",
        *,
        create: bool = True,
        connect_timeout: float = CONNECT_TIMEOUT,
        statement_timeout: float = STATEMENT_TIMEOUT,
        lock_timeout: float = LOCK_TIMEOUT,
        pool_size: int = POOL_SIZE,
        pool: mysql_connections.Pool | None = None,
        **options: Unpack[ChestOptions],
    ) -> None:
        from flask_chest.stores.mysql import MySQLStore  # noqa: PLC0415 - a driver is imported when its database is chosen

        self._make = partial(
            MySQLStore,
            db_uri,
            name=name,
            create=create,
            connect_timeout=connect_timeout,
            statement_timeout=statement_timeout,
            lock_timeout=lock_timeout,
            pool_size=pool_size,
            pool=pool,
        )
        super().__init__(app, store=_tried(self._make), **options)

    def _store_factory(self, _app: Flask, settings: Settings, /) -> Callable[[], Store]:
        return _tried(partial(self._make, partition=settings.partition))


class FlaskChestMongoDB(FlaskChest):
    """A chest in a MongoDB database.

    *db_uri* is ``mongodb://user:password@host:27017/database``, with MongoDB's options after a question mark;
    *client_options* are pymongo's. *name* is the name of the collection and the prefix of the other collections.
    With ``create=False`` the collections must exist. Time-outs are in seconds. *expire_after* is the time after
    which a record is deleted that every registered exporter has had. *client* is the app's own, which is never
    closed. The other options are those of `FlaskChest`.
    """

    def __init__(
        self,
        app: Flask | None = None,
        name: str = DEFAULT_NAME,
        db_uri: str = "mongodb://localhost/flask_chest",
        *,
        database: str | None = None,
        create: bool = True,
        connect_timeout: float = CONNECT_TIMEOUT,
        timeout: float = 30.0,
        pool_size: int = POOL_SIZE,
        expire_after: timedelta | None = None,
        client: mongodb_client.Client | None = None,
        client_options: Mapping[str, object] | None = None,
        **options: Unpack[ChestOptions],
    ) -> None:
        from flask_chest.stores.mongodb import MongoDBStore  # noqa: PLC0415 - a driver is imported when its database is chosen

        make = partial(
            MongoDBStore,
            db_uri,
            name=name,
            database=database,
            create=create,
            connect_timeout=connect_timeout,
            timeout=timeout,
            pool_size=pool_size,
            expire_after=expire_after,
            client=client,
            options=client_options,
        )
        super().__init__(app, store=_tried(make), **options)


class FlaskChestClickHouse(FlaskChest):
    """A chest in a ClickHouse database, for apps that export nothing from it: it has no outbox.

    *db_uri* is ``clickhouse://user:password@host:8123/database``, or ``clickhouses://`` for TLS, with options
    after a question mark; *client_options* are those of clickhouse-connect. *name* is the name of the table and
    the prefix of the other tables. With ``create=False`` the tables must exist. Time-outs are in seconds.
    *engine* is the family of table engines, such as ``"ReplicatedMergeTree"``, and *cluster* the cluster on whose
    nodes tables are made. *client* is the app's own, which is never closed. The other options are those of
    `FlaskChest`.
    """

    def __init__(
        self,
        app: Flask | None = None,
        name: str = DEFAULT_NAME,
        db_uri: str = "clickhouse://localhost/default",
        *,
        database: str | None = None,
        create: bool = True,
        connect_timeout: float = CONNECT_TIMEOUT,
        timeout: float = 30.0,
        engine: str | None = None,
        cluster: str | None = None,
        client: clickhouse_client.Client | None = None,
        client_options: Mapping[str, object] | None = None,
        **options: Unpack[ChestOptions],
    ) -> None:
        from flask_chest.stores.clickhouse import ClickHouseStore  # noqa: PLC0415 - a driver is imported when its database is chosen

        make = partial(
            ClickHouseStore,
            db_uri,
            name=name,
            database=database,
            create=create,
            connect_timeout=connect_timeout,
            timeout=timeout,
            engine=engine,
            cluster=cluster,
            client=client,
            options=client_options,
        )
        super().__init__(app, store=_tried(make), **options)


def _tried(make: Callable[[], Store]) -> Callable[[], Store]:
    """Return *make*, after a call that opens nothing, but raises for a wrong option where that is given."""
    make()
    return make
