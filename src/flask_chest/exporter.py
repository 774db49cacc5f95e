"""The exporters by their target, under the names of the original: each is a chest's `add_exporter`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from flask_chest.errors import ConfigurationError
from flask_chest.export import DEFAULT_BATCH_SIZE
from flask_chest.exporters.influxdb import InfluxDBExporter
from flask_chest.extension import FlaskChest
from flask_chest.protocols import StartAt
from flask_chest.record import Record


class FlaskChestExporterInfluxDB:
    """Delivers a chest's records to InfluxDB 2, every *interval_minutes*.

    *url* takes the place of *https*, *host* and *port*. *tags* names variables that become tags: they should
    have few values, since each combination is a series. *custom_tags* go on every point. A *token* of ``None``,
    as from an unset variable, is accepted and reported by every run. *timeout* is in seconds. *interval* is for
    who does not count in minutes; *name* tells several exporters of one chest apart. The other options are those
    of `FlaskChest.add_exporter`.
    """

    def __init__(
        self,
        chest: FlaskChest,
        https: bool = False,  # noqa: FBT001, FBT002 - the original's signature
        host: str = "localhost",
        port: int = 8086,
        token: str | None = "",
        org: str = "my-org",
        bucket: str = "my-bucket",
        interval_minutes: float = 5,
        *,
        interval: timedelta | None = None,
        url: str | None = None,
        measurement: str = "flask_chest",
        tags: Sequence[str] = (),
        custom_tags: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        verify_ssl: bool = True,
        name: str = "influxdb",
        batch_size: int = DEFAULT_BATCH_SIZE,
        start_at: StartAt = "beginning",
        filter: Callable[[Record], bool] | None = None,  # noqa: A002 - the word for it
        transform: Callable[[Record], Record | None] | None = None,
    ) -> None:
        self.exporter = InfluxDBExporter(
            url=url or f"{'https' if https else 'http'}://{host}:{port}",
            token=token,
            org=org,
            bucket=bucket,
            measurement=measurement,
            tags=tags,
            custom_tags=custom_tags,
            timeout=timeout,
            verify_ssl=verify_ssl,
            name=name,
        )
        chest.add_exporter(
            self.exporter,
            interval=interval or _minutes(interval_minutes),
            batch_size=batch_size,
            start_at=start_at,
            filter=filter,
            transform=transform,
        )


def _minutes(interval_minutes: float) -> timedelta:
    try:
        return timedelta(minutes=interval_minutes)
    except (OverflowError, ValueError) as exc:  # infinite, or no number
        raise ConfigurationError(f"interval_minutes must be minutes, above 0, got {interval_minutes!r}") from exc
