"""Records as points of InfluxDB 2, and of whatever else takes line protocol at ``/api/v2/write``."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from urllib.parse import urlencode

from flask_chest.errors import ConfigurationError, MissingDriverError, RecordsRejected, TargetUnavailable
from flask_chest.exporter._batches import deliver_halves, rejection
from flask_chest.exporter._options import TIMEOUT
from flask_chest.exporter._points import (
    OWN_FIELDS,
    OWN_TAGS,
    FieldTypeConflicts,
    PointParts,
    PointSchema,
    writable,
)
from flask_chest.exporter._refusals import Refusal
from flask_chest.record import Record

try:
    from influxdb_client import Point

    from flask_chest.exporter._http import TOO_LARGE, Answer, Endpoint, EndpointExporter, http_address
except ImportError as exc:
    raise MissingDriverError("influxdb-client", extra="influxdb") from exc

_NO_CONFLICTS = FieldTypeConflicts()


class InfluxDBExporter(EndpointExporter):
    """Writes one point a record; delivered again, the point overwrites itself.

    A *token* of ``None`` comes from an unset variable, and every delivery fails with that reason; the empty one
    is for servers without authentication. *tags* names variables that become tags instead of fields,
    *custom_tags* are the same on every point. *timeout* is for one delivery as a whole, in seconds. *verify_ssl*
    may be the path of the certificates to trust in place of the system's. Proxies of the environment are not
    used.
    """

    def __init__(
        self,
        *,
        url: str,
        token: str | None,
        org: str,
        bucket: str,
        measurement: str = "flask_chest",
        tags: Sequence[str] = (),
        custom_tags: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
        verify_ssl: bool | str | os.PathLike[str] = True,
        name: str = "influxdb",
    ) -> None:
        _require_texts(org=org, bucket=bucket, measurement=measurement)
        _require_measurement(measurement)
        _require_custom_tags(custom_tags or {})
        address = http_address(url, example="https://influxdb.example:8086")
        self._host = address.netloc
        self._token = _usable_token(token)
        query = urlencode({"org": org, "bucket": bucket, "precision": "ns"})
        endpoint = Endpoint(
            f"{address.geturl().rstrip('/')}/api/v2/write?{query}",
            example="https://influxdb.example:8086",
            target=f"InfluxDB at {self._host}",
            headers={"Authorization": f"Token {self._token}"} if self._token else {},
            content_type="text/plain; charset=utf-8",
            method="POST",
            timeout=timeout,
            connect_timeout=timeout,
            verify=verify_ssl or True,
            verify_setting="verify_ssl",
            trust_all=verify_ssl is False,
            compress=True,
        )
        super().__init__(endpoint, name=name)
        self._org = org
        self._bucket = bucket
        self._measurement = writable(measurement)
        self._schema = PointSchema((tags,) if isinstance(tags, str) else tags, custom_tags or {})

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r} {self._host} org={self._org!r} bucket={self._bucket!r}>"

    def export(self, records: Sequence[Record], /) -> None:
        """Write *records*, those of a refused field type under suffixed field names."""
        if self._token is None:
            raise TargetUnavailable(
                f"nothing is sent to {self._endpoint.where}: token is None: the variable it was read from "
                'is not set; set it, or pass token="" to a server without authentication'
            )
        super().export(records)

    def _deliver(self, records: Sequence[Record], conflicts: FieldTypeConflicts = _NO_CONFLICTS) -> None:
        answer, kinds = self._send(records, conflicts)
        while learned := conflicts.after(refusal := Refusal.read(answer), kinds):
            # All of it again, not only the records concerned: what of a refused batch was kept differs
            # between releases, and a point that was kept overwrites itself.
            conflicts = learned
            answer, kinds = self._send(records, conflicts)
        if answer.status == TOO_LARGE and len(records) > 1:
            deliver_halves(lambda half: self._deliver(half, conflicts), records)
        elif refusal.verdict is not None:
            raise rejection(f"{self._endpoint.where} {refusal.verdict}", records)
        elif answer.status != HTTPStatus.NO_CONTENT:
            raise TargetUnavailable(self._trouble(answer, refusal))

    def _send(
        self, records: Sequence[Record], conflicts: FieldTypeConflicts
    ) -> tuple[Answer, Collection[tuple[str, str]]]:
        """Return the answer, and the fields that were sent, each with InfluxDB's name of its type."""
        lines: list[bytes] = []
        kinds: set[tuple[str, str]] = set()
        unwritable: dict[str, str] = {}
        for record in records:
            try:
                parts = self._schema.parts(record, conflicts)
                lines.append(self._point(parts).to_line_protocol().encode())
            except UnicodeEncodeError:
                unwritable[record.id] = "it holds a lone surrogate, which UTF-8 cannot encode"
            else:
                kinds |= parts.kinds
        if unwritable:
            raise RecordsRejected(f"InfluxDB cannot take {len(unwritable)} of the records", unwritable)
        return self._endpoint.send(b"\n".join(lines), {}), kinds

    def _point(self, parts: PointParts) -> Point:
        point = Point(self._measurement).time(parts.time_unix_nano)
        for name, text in parts.tags.items():
            point.tag(name, text)
        for name, value in parts.fields.items():
            point.field(name, value)
        return point

    def _trouble(self, answer: Answer, refusal: Refusal) -> str:
        where = self._endpoint.where
        place = f"bucket {self._bucket!r} of organisation {self._org!r}"
        match answer.status:
            case HTTPStatus.UNAUTHORIZED:
                text = f"{where} refused the token (401); pass one that may write to {place}"
            case HTTPStatus.FORBIDDEN:
                text = f"{where} does not let this token write to {place} (403)"
            case HTTPStatus.NOT_FOUND if refusal.complaint.startswith("organization"):
                text = f"{where} has no organisation {self._org!r} (404); create it or correct org"
            case HTTPStatus.NOT_FOUND if refusal.complaint.startswith(("bucket", "database")):
                text = f"{where} has no {place} that this token may see (404); create it or correct bucket"
            case status if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                text = f"{where} cannot take records just now ({status}){answer.patience}"
            case status:
                text = f"{self._host} answered {status}, and not as InfluxDB does; correct url"
        return text


def _require_texts(**settings: str) -> None:
    for setting, value in settings.items():
        if not value:
            raise ConfigurationError(f"{setting} must not be empty")


def _require_measurement(measurement: str) -> None:
    if measurement.startswith(("_", "#")):
        raise ConfigurationError(
            f"measurement must not begin with _ (InfluxDB's own) or # (a comment), got {measurement!r}"
        )


def _require_custom_tags(custom_tags: Mapping[str, str]) -> None:
    for name in custom_tags:
        if not name or name.startswith(("_", "g_")) or name in {"time", *OWN_TAGS, *OWN_FIELDS}:
            raise ConfigurationError(
                f"custom_tags must not name {name!r}: a name must not be empty, begin with _ or g_, or be "
                "one that every point has; use another"
            )


def _usable_token(token: str | None) -> str | None:
    if token is None:
        return None
    token = token.strip()  # one that comes from a file ends with a line end
    if not (token.isascii() and token.isprintable()):
        raise ConfigurationError("token must be printable ASCII; the one given holds something else")
    return token
