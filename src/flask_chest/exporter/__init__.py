"""The exporters by their target, under the names of the original: each is a chest's `add_exporter`.

What differs between deployments may come from each app's settings: an option that is not given is looked for in
``app.config`` and then in the environment. Its name there is made of the exporter's, as in ``CHEST_HTTP_URL`` and
``FLASK_CHEST_HTTP_URL``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from flask import Flask

from flask_chest.background.export_run import DEFAULT_BATCH_SIZE, DEFAULT_LEASE, RecordFilter
from flask_chest.background.exports import ExportJob
from flask_chest.errors import ConfigurationError
from flask_chest.exporter._options import ACCEPTED, REJECTING, TIMEOUT, Default, ExporterOptions, OptionMissing
from flask_chest.exporter.store import StoreExporter
from flask_chest.extension.chest import FlaskChest
from flask_chest.protocols import Exporter, StartAt, Store
from flask_chest.record import Record
from flask_chest.stores.options import CONNECT_TIMEOUT, LOCK_TIMEOUT, STATEMENT_TIMEOUT

if TYPE_CHECKING:
    from flask_chest.exporter import _bodies
    from flask_chest.stores.clickhouse import client as clickhouse_client
    from flask_chest.stores.mongodb import client as mongodb_client
    from flask_chest.stores.mysql import connections as mysql_connections
    from flask_chest.stores.postgresql import connections as postgresql_connections

DEFAULT_MINUTES = 5.0
DEFAULT_PORT = 8086


class DeliveryOptions(TypedDict, total=False):
    """The options of `FlaskChest.add_exporter` that every exporter takes.

    *interval*, if given, takes the place of *interval_minutes*. With *app*, as in an app factory, the exporter is
    added to that app alone.
    """

    interval_minutes: float
    interval: timedelta | None
    batch_size: int
    start_at: StartAt
    filter: Callable[[Record], bool] | None
    transform: Callable[[Record], Record | None] | None
    app: Flask | None


class FlaskChestExporterInfluxDB:
    """Delivers a chest's records to InfluxDB 2, every *interval_minutes*.

    *url* takes the place of *https*, *host* and *port*. *tags* names variables that become tags: they should
    have few values, since each combination is a series. *custom_tags* go on every point. A *token* of ``None``,
    as from an unset variable, is accepted and reported by every run. *timeout* is in seconds. *name* tells
    several exporters of one chest apart. The other options are those of `FlaskChest.add_exporter`.
    """

    def __init__(
        self,
        chest: FlaskChest,
        https: bool = False,  # noqa: FBT001, FBT002 - the original's signature
        host: str = Default("localhost"),
        port: int = DEFAULT_PORT,
        token: str | None = Default(""),
        org: str = Default("my-org"),
        bucket: str = Default("my-bucket"),
        interval_minutes: float = DEFAULT_MINUTES,
        *,
        interval: timedelta | None = None,
        url: str | None = None,
        measurement: str = "flask_chest",
        tags: Sequence[str] = (),
        custom_tags: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
        verify_ssl: bool | str | os.PathLike[str] = True,
        name: str = "influxdb",
        batch_size: int = DEFAULT_BATCH_SIZE,
        start_at: StartAt = "beginning",
        filter: Callable[[Record], bool] | None = None,  # noqa: A002 - the word for it
        transform: Callable[[Record], Record | None] | None = None,
        app: Flask | None = None,
    ) -> None:
        from flask_chest.exporter.influxdb import InfluxDBExporter  # noqa: PLC0415 - a driver loads when chosen

        placed = url
        if url is None and (https or port != DEFAULT_PORT or not isinstance(host, Default)):
            placed = f"{'https' if https else 'http'}://{host}:{port}"

        def make(options: ExporterOptions) -> InfluxDBExporter:
            return InfluxDBExporter(
                url=options.text("url", placed) or f"http://{host}:{port}",
                token=options.text("token", token),
                org=options.needed_text("org", org),
                bucket=options.needed_text("bucket", bucket),
                measurement=measurement,
                tags=tags,
                custom_tags=custom_tags,
                timeout=timeout,
                verify_ssl=verify_ssl,
                name=name,
            )

        _add(
            chest,
            name,
            make,
            interval_minutes=interval_minutes,
            interval=interval,
            batch_size=batch_size,
            start_at=start_at,
            filter=filter,
            transform=transform,
            app=app,
        )


class FlaskChestExporterPostgreSQL:
    """Delivers a chest's records into a table of another PostgreSQL database.

    *table* is the table's name and the prefix of those beside it; it is made as a chest's is, and each record is
    in it once. *name* tells several exporters of one chest apart. The settings of the connection are those of
    `FlaskChestPostgreSQL`, the other options those of `FlaskChest.add_exporter`.
    """

    def __init__(
        self,
        chest: FlaskChest,
        db_uri: str = Default("postgresql:///"),
        *,
        table: str = "flask_chest",
        name: str = "postgresql",
        create: bool = True,
        connect_timeout: float = CONNECT_TIMEOUT,
        statement_timeout: float = STATEMENT_TIMEOUT,
        lock_timeout: float = LOCK_TIMEOUT,
        pool: postgresql_connections.Pool | None = None,
        **delivery: Unpack[DeliveryOptions],
    ) -> None:
        from flask_chest.stores.postgresql import PostgreSQLStore  # noqa: PLC0415 - a driver loads when chosen

        make = partial(
            PostgreSQLStore,
            name=table,
            create=create,
            connect_timeout=connect_timeout,
            statement_timeout=statement_timeout,
            lock_timeout=lock_timeout,
            pool=pool,
        )
        _add_store(chest, name, db_uri, make, **delivery)


class FlaskChestExporterMySQL:
    """Delivers a chest's records into a table of another MySQL or MariaDB database.

    *table* is the table's name and the prefix of those beside it; it is made as a chest's is, and each record is
    in it once. *name* tells several exporters of one chest apart. The settings of the connection are those of
    `FlaskChestMySQL`, the other options those of `FlaskChest.add_exporter`.
    """

    def __init__(
        self,
        chest: FlaskChest,
        db_uri: str = Default("mysql://localhost/flask_chest"),
        *,
        table: str = "flask_chest",
        name: str = "mysql",
        create: bool = True,
        connect_timeout: float = CONNECT_TIMEOUT,
        statement_timeout: float = STATEMENT_TIMEOUT,
        lock_timeout: float = LOCK_TIMEOUT,
        pool: mysql_connections.Pool | None = None,
        **delivery: Unpack[DeliveryOptions],
    ) -> None:
        from flask_chest.stores.mysql import MySQLStore  # noqa: PLC0415 - a driver loads when chosen

        make = partial(
            MySQLStore,
            name=table,
            create=create,
            connect_timeout=connect_timeout,
            statement_timeout=statement_timeout,
            lock_timeout=lock_timeout,
            pool=pool,
        )
        _add_store(chest, name, db_uri, make, **delivery)


class FlaskChestExporterMongoDB:
    """Delivers a chest's records into a collection of another MongoDB database.

    *collection* is its name and the prefix of those beside it; it is made as a chest's is, and each record is in
    it once. *name* tells several exporters of one chest apart. The settings of the connection are those of
    `FlaskChestMongoDB`, the other options those of `FlaskChest.add_exporter`.
    """

    def __init__(
        self,
        chest: FlaskChest,
        db_uri: str = Default("mongodb://localhost/flask_chest"),
        *,
        collection: str = "flask_chest",
        name: str = "mongodb",
        database: str | None = None,
        create: bool = True,
        connect_timeout: float = CONNECT_TIMEOUT,
        timeout: float = 30.0,
        client: mongodb_client.Client | None = None,
        client_options: Mapping[str, object] | None = None,
        **delivery: Unpack[DeliveryOptions],
    ) -> None:
        from flask_chest.stores.mongodb import MongoDBStore  # noqa: PLC0415 - a driver loads when chosen

        make = partial(
            MongoDBStore,
            name=collection,
            database=database,
            create=create,
            connect_timeout=connect_timeout,
            timeout=timeout,
            client=client,
            options=client_options,
        )
        _add_store(chest, name, db_uri, make, **delivery)


class FlaskChestExporterClickHouse:
    """Delivers a chest's records into a table of a ClickHouse database.

    *table* is its name and the prefix of the tables beside it; it is made as a chest is, and with ``FINAL`` each
    record is in it once. *name* tells several exporters of one chest apart. The settings of the connection are
    those of `FlaskChestClickHouse`, the other options those of `FlaskChest.add_exporter`.
    """

    def __init__(
        self,
        chest: FlaskChest,
        db_uri: str = Default("clickhouse://localhost/default"),
        *,
        table: str = "flask_chest",
        name: str = "clickhouse",
        database: str | None = None,
        create: bool = True,
        connect_timeout: float = CONNECT_TIMEOUT,
        timeout: float = 30.0,
        engine: str | None = None,
        cluster: str | None = None,
        client: clickhouse_client.Client | None = None,
        client_options: Mapping[str, object] | None = None,
        **delivery: Unpack[DeliveryOptions],
    ) -> None:
        from flask_chest.stores.clickhouse import ClickHouseStore  # noqa: PLC0415 - a driver loads when chosen

        make = partial(
            ClickHouseStore,
            name=table,
            database=database,
            create=create,
            connect_timeout=connect_timeout,
            timeout=timeout,
            engine=engine,
            cluster=cluster,
            client=client,
            options=client_options,
        )
        _add_store(chest, name, db_uri, make, **delivery)


class FlaskChestExporterHTTP:
    """Delivers a chest's records as JSON to any HTTP endpoint: each at least once, told apart by its ``id``.

    *payload* makes the body of a batch: what JSON can hold, or bytes. The other settings of the request are
    those of `HTTPExporter`, and the rest those of `FlaskChest.add_exporter`.
    """

    def __init__(
        self,
        chest: FlaskChest,
        url: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        payload: _bodies.Payload | None = None,
        method: Literal["POST", "PUT", "PATCH"] = "POST",
        accept: Collection[int] = ACCEPTED,
        rejecting: Collection[int] = REJECTING,
        timeout: float = TIMEOUT,
        connect_timeout: float = CONNECT_TIMEOUT,
        verify: Literal[True] | str | os.PathLike[str] = True,
        compress: bool = True,
        name: str = "http",
        **delivery: Unpack[DeliveryOptions],
    ) -> None:
        from flask_chest.exporter.http import HTTPExporter  # noqa: PLC0415 - urllib3 loads when chosen

        def make(options: ExporterOptions) -> HTTPExporter:
            return HTTPExporter(
                url=options.needed_text("url", url),
                headers=options.texts("headers", headers),
                payload=payload,
                method=method,
                accept=accept,
                rejecting=rejecting,
                timeout=timeout,
                connect_timeout=connect_timeout,
                verify=verify,
                compress=compress,
                name=name,
            )

        _add(chest, name, make, **delivery)


class FlaskChestExporterOTLP:
    """Delivers a chest's records to an OpenTelemetry collector, as log events with the ids of their traces.

    *endpoint* is the whole address, as in ``http://localhost:4318/v1/logs``; an option that is ``None`` is what
    OpenTelemetry's own variables say. The other settings of the request are those of `OTLPExporter`, and the
    rest those of `FlaskChest.add_exporter`.
    """

    def __init__(
        self,
        chest: FlaskChest,
        endpoint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        resource: Mapping[str, str] | None = None,
        prefix: str = "flask.g.",
        timeout: float | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        verify: Literal[True] | str | os.PathLike[str] | None = None,
        client_certificate: str | os.PathLike[str] | None = None,
        client_key: str | os.PathLike[str] | None = None,
        compress: bool | None = None,
        name: str = "otlp",
        **delivery: Unpack[DeliveryOptions],
    ) -> None:
        from flask_chest.exporter.otlp import OTLPExporter  # noqa: PLC0415 - OpenTelemetry loads when chosen

        def make(options: ExporterOptions) -> OTLPExporter:
            return OTLPExporter(
                endpoint=options.text("endpoint", endpoint),
                headers=options.texts("headers", headers),
                resource=resource,
                prefix=prefix,
                timeout=timeout,
                connect_timeout=connect_timeout,
                verify=verify,
                client_certificate=client_certificate,
                client_key=client_key,
                compress=compress,
                name=name,
            )

        _add(chest, name, make, **delivery)


def _add_store(
    chest: FlaskChest,
    name: str,
    db_uri: str,
    make: Callable[[str], Store],
    **delivery: Unpack[DeliveryOptions],
) -> None:
    """Add an exporter into the store that *make* makes of *db_uri*, or of the one in the settings."""

    def make_exporter(options: ExporterOptions) -> StoreExporter:
        return StoreExporter(make(options.needed_text("db_uri", db_uri)), name=name)

    _add(chest, name, make_exporter, **delivery)


def _add(
    chest: FlaskChest,
    name: str,
    make: Callable[[ExporterOptions], Exporter],
    **delivery: Unpack[DeliveryOptions],
) -> None:
    """Add the exporter that *make* makes for each app of *chest*, or for the one that *delivery* names."""
    interval = delivery.get("interval")
    if interval is None:
        interval = _minutes(delivery.get("interval_minutes", DEFAULT_MINUTES))

    def job_for(config: Mapping[str, object]) -> ExportJob:
        options = ExporterOptions(prefix=chest.config_prefix, name=name, config=config, environ=os.environ)
        try:
            exporter = make(options)
        except OptionMissing:
            raise
        except ConfigurationError as exc:
            raise ConfigurationError(f"{exc}{options.origins}") from exc.__cause__
        return ExportJob(
            name=name,
            make=lambda: exporter,
            interval=interval,
            batch_size=delivery.get("batch_size", DEFAULT_BATCH_SIZE),
            lease=DEFAULT_LEASE,
            start_at=delivery.get("start_at", "beginning"),
            record_filter=RecordFilter(wanted=delivery.get("filter"), transform=delivery.get("transform")),
        )

    with suppress(OptionMissing):  # an app's settings may have it; whatever else is wrong is raised here
        job_for({})
    chest.add_job(name, job_for, app=delivery.get("app"))


def _minutes(interval_minutes: float) -> timedelta:
    try:
        return timedelta(minutes=interval_minutes)
    except (OverflowError, ValueError) as exc:  # infinite, or no number
        raise ConfigurationError(f"interval_minutes must be minutes, above 0, got {interval_minutes!r}") from exc
