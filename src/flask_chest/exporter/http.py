"""Records as JSON to any HTTP endpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus

from flask_chest.errors import (
    ConfigurationError,
    ExportError,
    MissingDriverError,
    RecordsRejected,
    TargetUnavailable,
)
from flask_chest.exporter._bodies import Payload, encoded, require_payload
from flask_chest.protocols import Exporter
from flask_chest.record import Record

try:
    from flask_chest.exporter._http import Answer, Endpoint, Method, Verify, deliver_halves
except ImportError as exc:
    raise MissingDriverError("urllib3", extra="http") from exc

ACCEPTED = frozenset(range(200, 300))
REJECTING = frozenset({400, 413, 422})

_TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class HTTPExporter(Exporter):
    """Sends each batch as one request, whose body is ``{"records": [...]}`` unless *payload* makes another.

    A batch whose answer is lost is sent again: at least once. It has the same ``Idempotency-Key`` then, and
    every record the same ``id``. What *accept* holds counts as delivered. What *rejecting* holds says that the
    batch will never be taken, and its records are set aside, each once it was refused alone; all other answers
    keep the batch for later.

    *timeout* is for one delivery as a whole, *connect_timeout* for connecting to one address of the host, in
    seconds. *verify* is ``True`` or the path of a file or folder with the certificates to trust in place of the
    system's. User and password in *url* are sent as basic authentication. Redirects are not followed and proxies
    of the environment are not used.
    """

    def __init__(
        self,
        *,
        url: str,
        headers: Mapping[str, str] | None = None,
        payload: Payload | None = None,
        method: Method = "POST",
        accept: Collection[int] = ACCEPTED,
        rejecting: Collection[int] = REJECTING,
        timeout: float = 10.0,
        connect_timeout: float = 5.0,
        verify: Verify = True,
        compress: bool = True,
        name: str = "http",
    ) -> None:
        _require_statuses(accept=accept, rejecting=rejecting)
        require_payload(payload)
        if not name:
            raise ConfigurationError("name must not be empty")
        self._endpoint = Endpoint(
            url,
            example="https://collector.example/records",
            headers=headers or {},
            content_type="application/json",
            method=method,
            timeout=timeout,
            connect_timeout=connect_timeout,
            verify=verify,
            compress=compress,
        )
        self._payload = payload
        self._accept = frozenset(accept)
        self._rejecting = frozenset(rejecting)
        self._name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r} {self._endpoint.where}>"

    @property
    def name(self) -> str:
        """The exporter's identity in the store."""
        return self._name

    def export(self, records: Sequence[Record], /) -> None:
        """Send *records* in one request, or in several when the target finds one too large."""
        if not records:
            return
        with self._endpoint.in_time():
            self._deliver(records)

    def close(self) -> None:
        """Let go of this process's connections; the next delivery makes new ones."""
        self._endpoint.close()

    def _deliver(self, records: Sequence[Record]) -> None:
        body = encoded(records, self._payload)
        answer = self._endpoint.send(body, {"Idempotency-Key": idempotency_key(records)})
        if answer.status in self._accept:
            return
        if answer.status == _TOO_LARGE and len(records) > 1:
            deliver_halves(self._deliver, records)
        else:
            raise self._error(answer, records)

    def _error(self, answer: Answer, records: Sequence[Record]) -> ExportError:
        if answer.status not in self._rejecting:
            return TargetUnavailable(self._endpoint.trouble(answer))
        why = "takes no request of this size" if answer.status == _TOO_LARGE else "refused the records"
        message = f"{self._endpoint.where} {why} ({answer.status})"
        return RecordsRejected(message, {records[0].id: message} if len(records) == 1 else {})


def idempotency_key(records: Sequence[Record]) -> str:
    """Return the same text for the same records, in whatever order."""
    return hashlib.sha256("\n".join(sorted(record.id for record in records)).encode()).hexdigest()


def _require_statuses(*, accept: Collection[int], rejecting: Collection[int]) -> None:
    for setting, statuses in (("accept", accept), ("rejecting", rejecting)):
        for status in statuses:
            if not _is_final(status):
                raise ConfigurationError(f"{setting} must hold status codes from 200 to 599, got {status!r}")
    if not accept:
        raise ConfigurationError("accept must not be empty: nothing would ever count as delivered")
    if both := sorted(set(accept) & set(rejecting)):
        raise ConfigurationError(f"accept and rejecting must not share a status code, got {both[0]} in both")


def _is_final(status: object) -> bool:
    return isinstance(status, int) and 200 <= status <= 599  # noqa: PLR2004 - what a final answer has
