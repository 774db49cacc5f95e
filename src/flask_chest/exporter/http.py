"""Records as JSON to any HTTP endpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence

from flask_chest.errors import ConfigurationError, MissingDriverError
from flask_chest.exporter._bodies import Payload, encoded, require_payload
from flask_chest.exporter._options import ACCEPTED, REJECTING, TIMEOUT
from flask_chest.record import Record
from flask_chest.stores.options import CONNECT_TIMEOUT

try:
    from flask_chest.exporter._http import Endpoint, EndpointExporter, Method, Verify
except ImportError as exc:
    raise MissingDriverError("urllib3", extra="http") from exc


class HTTPExporter(EndpointExporter):
    """Sends each batch as one request, whose body is ``{"records": [...]}`` unless *payload* makes another.

    A batch whose answer is lost is sent again: at least once. It has the same ``Idempotency-Key`` then, and
    every record the same ``id``. A status code in *accept* means that the batch is delivered. One in *rejecting*
    means that it will never be taken, and its records are set aside, each once it was refused alone. After any
    other the batch is kept for later.

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
        timeout: float = TIMEOUT,
        connect_timeout: float = CONNECT_TIMEOUT,
        verify: Verify = True,
        compress: bool = True,
        name: str = "http",
    ) -> None:
        _require_statuses(accept=accept, rejecting=rejecting)
        require_payload(payload)
        endpoint = Endpoint(
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
        super().__init__(endpoint, name=name)
        self._payload = payload
        self._accept = frozenset(accept)
        self._rejecting = frozenset(rejecting)

    def _deliver(self, records: Sequence[Record]) -> None:
        body = encoded(records, self._payload)
        answer = self._endpoint.send(body, {"Idempotency-Key": idempotency_key(records)})
        if answer.status not in self._accept:
            self._not_taken(answer, records, rejecting=self._rejecting)


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
