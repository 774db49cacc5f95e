"""Records as JSON to any HTTP endpoint."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import ssl
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from math import isfinite
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from flask_chest.errors import (
    ConfigurationError,
    ExportError,
    MissingDriverError,
    RecordsRejected,
    TargetUnavailable,
)
from flask_chest.exporters._bodies import Payload, encoded, require_payload
from flask_chest.exporters._halves import deliver_halves
from flask_chest.exporters._urls import http_address
from flask_chest.protocols import Exporter
from flask_chest.record import Record

try:
    from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPHeaderDict, Timeout
    from urllib3.exceptions import HTTPError, LocationParseError, ProtocolError, SSLError
    from urllib3.util import Url, parse_url

    from flask_chest.exporters._connections import connection_pool, remaining, within
except ImportError as exc:
    raise MissingDriverError("urllib3", extra="http") from exc

Method: TypeAlias = Literal["POST", "PUT", "PATCH"]

ACCEPTED = frozenset(range(200, 300))
REJECTING = frozenset({400, 413, 422})

_EXAMPLE = "https://collector.example/records"
_COMPRESSED_FROM_BYTES = 1_024
_DRAINED_BYTES = 65_536
"""How much of an answer is read, and thrown away, to keep the connection."""
_TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


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
        verify: Literal[True] | str | os.PathLike[str] = True,
        compress: bool = True,
        name: str = "http",
    ) -> None:
        _require_seconds(timeout=timeout, connect_timeout=connect_timeout)
        _require_statuses(accept=accept, rejecting=rejecting)
        require_payload(payload)
        if method not in {"POST", "PUT", "PATCH"}:
            raise ConfigurationError(f"method must be POST, PUT or PATCH, got {method!r}")
        if not name:
            raise ConfigurationError("name must not be empty")
        self._target = _target(url)
        self._where = self._target.url.partition("?")[0]  # a query may hold a credential
        self._headers = _complete(headers or {}, url)
        self._payload = payload
        self._method = method
        self._accept = frozenset(accept)
        self._rejecting = frozenset(rejecting)
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._tls = _tls(verify) if self._target.scheme == "https" else None
        self._compress = compress
        self._name = name
        self._pools: dict[int, HTTPConnectionPool] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r} {self._where}>"

    @property
    def name(self) -> str:
        """The exporter's identity in the store."""
        return self._name

    def export(self, records: Sequence[Record], /) -> None:
        """Send *records* in one request, or in several when the target finds one too large."""
        if not records:
            return
        with within(self._timeout):
            self._deliver(records)

    def close(self) -> None:
        """Let go of this process's connections; the next delivery makes new ones."""
        if pool := self._pools.pop(os.getpid(), None):
            pool.close()

    def _deliver(self, records: Sequence[Record]) -> None:
        answer = self._post(records)
        if answer.status in self._accept:
            return
        if answer.status == _TOO_LARGE and len(records) > 1:
            deliver_halves(self._deliver, records)
        else:
            raise self._error(answer, records)

    def _post(self, records: Sequence[Record]) -> _Answer:
        body = encoded(records, self._payload)
        headers = self._headers.copy()
        headers.setdefault("Idempotency-Key", idempotency_key(records))
        if self._compress and len(body) >= _COMPRESSED_FROM_BYTES and "Content-Encoding" not in headers:
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, compresslevel=6, mtime=0)
        try:
            response = self._pool().urlopen(
                self._method,
                self._target.path or "/",
                body=body,
                headers=headers,
                retries=False,
                redirect=False,
                timeout=Timeout(connect=self._connect_timeout, total=remaining()),
                preload_content=False,
            )
        except (HTTPError, OSError) as exc:
            raise self._unanswered(exc) from _told(exc)
        return _answer(response)

    def _pool(self) -> HTTPConnectionPool:
        # One for each process: a fork's child must neither use its parent's connections nor close them,
        # which letting go of the parent's pool would do.
        pid = os.getpid()
        if (pool := self._pools.get(pid)) is None:
            pool = self._pools[pid] = connection_pool(self._target, self._tls)
        return pool

    def _unanswered(self, error: Exception) -> TargetUnavailable:
        reason = _inner(error)
        if isinstance(error, SSLError):
            said = getattr(reason, "verify_message", "") or getattr(reason, "reason", "") or type(reason).__name__
            return TargetUnavailable(
                f"TLS with {self._where} failed: {said}; pass the certificate of its authority as verify, "
                "or correct url"
            )
        try:
            remaining()
        except TimeoutError:
            return TargetUnavailable(f"{self._where} did not take all within {self._timeout:g} s")
        return TargetUnavailable(f"{self._where} does not answer: {type(reason).__name__}")

    def _error(self, answer: _Answer, records: Sequence[Record]) -> ExportError:
        if answer.status not in self._rejecting:
            return TargetUnavailable(self._trouble(answer))
        why = "takes no request of this size" if answer.status == _TOO_LARGE else "refused the records"
        message = f"{self._where} {why} ({answer.status})"
        return RecordsRejected(message, {records[0].id: message} if len(records) == 1 else {})

    def _trouble(self, answer: _Answer) -> str:
        status = answer.status
        match status:
            case HTTPStatus.UNAUTHORIZED:
                what = f"refused the credentials ({status}); correct headers"
            case HTTPStatus.FORBIDDEN:
                what = f"does not let these credentials in ({status}); correct headers, or the rights there"
            case HTTPStatus.NOT_FOUND:
                what = f"is not there ({status}); correct url"
            case HTTPStatus.METHOD_NOT_ALLOWED:
                what = f"takes no {self._method} ({status}); correct method or url"
            case _ if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
                what = f"redirects ({status}), which is not followed; correct url to where it leads"
            case _ if status in _BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                what = f"cannot take records just now ({status}){answer.patience}"
            case _:
                what = (
                    f"answered {status}, which is neither in accept nor in rejecting; "
                    "correct url, accept or rejecting"
                )
        return f"{self._where} {what}"


def idempotency_key(records: Sequence[Record]) -> str:
    """Give the same text for the same records, in whatever order."""
    return hashlib.sha256("\n".join(sorted(record.id for record in records)).encode()).hexdigest()


_BUSY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer without its body, which may quote values."""

    status: int
    retry_after: str

    @property
    def patience(self) -> str:
        return f" and asks for {self.retry_after} s" if re.fullmatch(r"[0-9]{1,6}", self.retry_after) else ""


def _answer(response: BaseHTTPResponse) -> _Answer:
    try:
        response.read(_DRAINED_BYTES, decode_content=False)
    except (HTTPError, OSError):
        pass  # the status was the answer
    finally:
        if not response.closed:
            response.close()
        response.release_conn()
    return _Answer(response.status, response.headers.get("Retry-After", ""))


def _inner(error: Exception) -> object:
    """Take what happened out of urllib3's wrapping."""
    last = error.args[-1] if error.args else None
    return last if isinstance(error, (ProtocolError, SSLError)) and isinstance(last, Exception) else error


def _told(error: Exception) -> Exception | None:
    # One of http.client's quotes what came instead of an answer, and a log prints the text of a cause.
    return None if isinstance(_inner(error), HTTPException) else error


def _target(url: str) -> Url:
    address = http_address(url, example=_EXAMPLE, query=True)
    try:
        return parse_url(address.geturl())
    except LocationParseError:
        raise ConfigurationError(f"url must be like {_EXAMPLE!r}; got something else") from None


def _complete(headers: Mapping[str, str], url: str) -> HTTPHeaderDict:
    complete = HTTPHeaderDict({"Content-Type": "application/json", "User-Agent": "flask_chest"})
    parts = urlsplit(url)
    if parts.username or parts.password:
        pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        complete["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    for name, value in headers.items():
        _require_header(name, value)
        complete[name] = value
    return complete


def _require_header(name: str, value: object) -> None:
    # No message quotes a value: it may be a credential.
    if not _TOKEN.fullmatch(name):
        raise ConfigurationError(f"headers must have names of letters, digits and hyphens, got {name!r}")
    if name.lower() in {"content-length", "transfer-encoding"}:
        raise ConfigurationError(f"headers must not have {name}, which depends on the body; leave it out")
    if value is None:
        raise ConfigurationError(
            f"headers[{name!r}] is None: the variable it was read from is not set; set it, or leave it out"
        )
    if not (isinstance(value, str) and value.isascii() and value.isprintable()):
        raise ConfigurationError(
            f"headers[{name!r}] must be printable ASCII without a line end; the one given holds something else"
        )


def _require_seconds(**settings: float) -> None:
    for setting, value in settings.items():
        if not (isfinite(value) and value > 0):
            raise ConfigurationError(f"{setting} must be a number of seconds above 0, got {value!r}")


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


def _tls(verify: object) -> ssl.SSLContext:
    if verify is True:
        return ssl.create_default_context()
    complaint = f"verify must be True or the path of certificates to trust, got {verify!r}"
    if not isinstance(verify, str | os.PathLike) or not Path(verify).exists():
        raise ConfigurationError(complaint)
    is_folder = Path(verify).is_dir()
    try:
        return ssl.create_default_context(
            cafile=None if is_folder else verify, capath=verify if is_folder else None
        )
    except (ssl.SSLError, OSError) as exc:
        raise ConfigurationError(f"{complaint}, which cannot be read as such") from exc
