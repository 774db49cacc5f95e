"""Records as points of InfluxDB 2, and of whatever else takes line protocol at ``/api/v2/write``."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from math import isfinite
from typing import cast

from flask_chest.errors import (
    ConfigurationError,
    ExportError,
    MissingDriverError,
    RecordsRejected,
    TargetUnavailable,
)
from flask_chest.exporters._halves import deliver_halves
from flask_chest.exporters._points import (
    OWN_FIELDS,
    OWN_TAGS,
    Conflicts,
    PointParts,
    PointRules,
    is_conflict,
    writable,
)
from flask_chest.exporters._urls import http_address
from flask_chest.protocols import Exporter
from flask_chest.record import Record

try:
    from influxdb_client import InfluxDBClient, Point, WriteService
    from influxdb_client.rest import ApiException
    from urllib3.exceptions import HTTPError
except ImportError as exc:
    raise MissingDriverError("influxdb-client", extra="influxdb") from exc


class InfluxDBExporter(Exporter):
    """Writes one point a record; delivered again, the point overwrites itself.

    A *token* of ``None`` is an unset variable, and every delivery says so; the empty one is for servers
    without authentication. *tags* names variables that become tags instead of fields, *custom_tags* are the
    same on every point. *timeout* is for one delivery as a whole. Proxies of the environment are not used.
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
        timeout: float = 10.0,
        verify_ssl: bool = True,
        name: str = "influxdb",
    ) -> None:
        _require_texts(org=org, bucket=bucket, measurement=measurement, name=name)
        _require_measurement(measurement)
        _require_custom_tags(custom_tags or {})
        if not (isfinite(timeout) and timeout > 0):
            raise ConfigurationError(f"timeout must be a number of seconds above 0, got {timeout!r}")
        address = http_address(url, example="https://influxdb.example:8086")
        self._url = address.geturl()
        self._host = address.netloc
        self._token = _usable_token(token)
        self._org = org
        self._bucket = bucket
        self._measurement = writable(measurement)
        self._rules = PointRules((tags,) if isinstance(tags, str) else tags, custom_tags or {})
        self._timeout = timeout
        self._verify_ssl = verify_ssl
        self._name = name
        self._clients: dict[int, InfluxDBClient] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r} {self._host} org={self._org!r} bucket={self._bucket!r}>"

    @property
    def name(self) -> str:
        """The exporter's identity in the store."""
        return self._name

    def export(self, records: Sequence[Record], /) -> None:
        """Write *records*, those of a refused field type under suffixed field names."""
        if self._token is None:
            raise TargetUnavailable(
                f"nothing is sent to InfluxDB at {self._host}: token is None: the variable it was read from "
                'is not set; set it, or pass token="" to a server without authentication'
            )
        if not records:
            return
        self._deliver(records, Conflicts(), time.monotonic() + self._timeout)

    def close(self) -> None:
        """Let go of this process's connections; the next delivery makes new ones."""
        if client := self._clients.pop(os.getpid(), None):
            client.close()

    def _deliver(self, records: Sequence[Record], conflicts: Conflicts, deadline: float) -> None:
        batch = self._batch(records, conflicts)
        answer = self._post(batch.body, deadline)
        while learned := conflicts.after(answer.complaint, batch.kinds):
            # All of it again, not only the records concerned: what of a refused batch was kept differs
            # between releases, and a point that was kept overwrites itself.
            conflicts = learned
            batch = self._batch(records, conflicts)
            answer = self._post(batch.body, deadline)
        if answer.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and len(records) > 1:
            deliver_halves(lambda half: self._deliver(half, conflicts, deadline), records)
        elif answer.status != HTTPStatus.NO_CONTENT:
            raise self._error(answer, records) from answer.cause

    def _batch(self, records: Sequence[Record], conflicts: Conflicts) -> _Batch:
        lines: list[bytes] = []
        kinds: set[tuple[str, str]] = set()
        unwritable: dict[str, str] = {}
        for record in records:
            try:
                parts = self._rules.parts(record, conflicts)
                lines.append(self._point(parts).to_line_protocol().encode())
            except UnicodeEncodeError:
                unwritable[record.id] = "it holds a lone surrogate, which is no text in UTF-8"
            else:
                kinds |= parts.kinds
        if unwritable:
            raise RecordsRejected(f"InfluxDB cannot take {len(unwritable)} of the records", unwritable)
        return _Batch(b"\n".join(lines), kinds)

    def _point(self, parts: PointParts) -> Point:
        point = Point(self._measurement).time(parts.time_unix_nano)
        for name, text in parts.tags.items():
            point.tag(name, text)
        for name, value in parts.fields.items():
            point.field(name, value)
        return point

    def _post(self, body: bytes, deadline: float) -> _Answer:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TargetUnavailable(f"InfluxDB at {self._host} did not take all within {self._timeout:g} s")
        try:
            # Not WriteApi: it keeps the status to itself, and the 200 of a wrong address is no delivery.
            _, status, _ = WriteService(self._client().api_client).post_write_with_http_info(
                self._org,
                self._bucket,
                body,
                content_type="text/plain; charset=utf-8",
                precision="ns",
                _request_timeout=remaining * 1000,
            )
        except ApiException as exc:
            return _Answer.from_error(exc)
        except (HTTPError, OSError) as exc:
            raise TargetUnavailable(f"InfluxDB at {self._host} does not answer: {type(exc).__name__}") from exc
        except UnicodeDecodeError as exc:
            raise TargetUnavailable(f"{self._host} does not answer as InfluxDB does; correct url") from exc
        return _Answer(status)

    def _client(self) -> InfluxDBClient:
        # One for each process: a fork's child must neither use its parent's connections nor close them,
        # which letting go of the parent's client would do.
        pid = os.getpid()
        if (client := self._clients.get(pid)) is None:
            client = self._clients[pid] = self._new_client()
        return client

    def _new_client(self) -> InfluxDBClient:
        # InfluxDBClient sets the level of urllib3's logger, which is the application's business.
        logger = logging.getLogger("urllib3")
        level = logger.level
        try:
            return InfluxDBClient(
                self._url, self._token, enable_gzip=True, verify_ssl=self._verify_ssl, retries=False
            )
        finally:
            logger.setLevel(level)

    def _error(self, answer: _Answer, records: Sequence[Record]) -> ExportError:
        reason = answer.rejection
        if reason is None:
            return TargetUnavailable(self._trouble(answer))
        message = f"InfluxDB at {self._host} {reason}"
        return RecordsRejected(message, {records[0].id: message} if len(records) == 1 else {})

    def _trouble(self, answer: _Answer) -> str:
        where = f"InfluxDB at {self._host}"
        place = f"bucket {self._bucket!r} of organisation {self._org!r}"
        match answer.status:
            case 0:
                text = f"TLS with {where} failed: {answer.reason}"
            case HTTPStatus.UNAUTHORIZED:
                text = f"{where} refused the token (401); pass one that may write to {place}"
            case HTTPStatus.FORBIDDEN:
                text = f"{where} does not let this token write to {place} (403)"
            case HTTPStatus.NOT_FOUND if answer.complaint.startswith("organization"):
                text = f"{where} has no organisation {self._org!r} (404); create it or correct org"
            case HTTPStatus.NOT_FOUND if answer.complaint.startswith(("bucket", "database")):
                text = f"{where} has no {place} that this token may see (404); create it or correct bucket"
            case status if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                text = f"{where} cannot take records just now ({status})"
            case status:
                text = f"{self._host} answered {status}, and not as InfluxDB does; correct url"
        return text


@dataclass(frozen=True, slots=True)
class _Batch:
    body: bytes
    kinds: Collection[tuple[str, str]]
    """The fields in it, each with its type."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    """0 where there was none: the TLS handshake failed."""
    complaint: str = ""
    """InfluxDB's own words, which may quote values; empty where they are not in InfluxDB's form."""
    cause: ApiException | None = None

    @classmethod
    def from_error(cls, error: ApiException) -> _Answer:
        # Without the body: it may quote the line at fault, and a log prints the text of a cause.
        cause = ApiException(status=error.status, reason=error.reason)
        try:
            body: object = json.loads(error.body or "")
        except ValueError:
            return cls(error.status, cause=cause)
        said = cast("Mapping[str, object]", body) if isinstance(body, dict) else {}
        # Version 2 says "message", the others "error", to which version 3 adds the details as "data".
        words = [said[key] for key in ("message", "error", "data") if key in said]
        return cls(error.status, " ".join(map(str, words)), cause)

    @property
    def reason(self) -> str:
        return " ".join(self.cause.reason.split()) if self.cause else ""

    @property
    def rejection(self) -> str | None:
        """Why the records will never be taken, in words without values; ``None`` when they may yet be."""
        if self.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return "takes no request of this size (413)"
        # Others answer 400 too: a TLS port that is spoken to without TLS, a proxy.
        if self.status not in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY} or not self.complaint:
            return None
        if is_conflict(self.complaint):
            return "has a field of another type, under its suffixed name too"
        if "beyond retention policy" in self.complaint:
            return "refused what is older than the bucket keeps"
        return f"refused the points ({self.status}); why is in its log: its answer may quote values"


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
                f"custom_tags must not name {name!r}: it is empty, ours, or begins with _ or g_; use another"
            )


def _usable_token(token: str | None) -> str | None:
    if token is None:
        return None
    token = token.strip()  # one that comes from a file ends with a line end
    if not (token.isascii() and token.isprintable()):
        raise ConfigurationError("token must be printable ASCII; the one given holds something else")
    return token
