"""One HTTP endpoint: sends it requests, and returns its answer or raises an error in time."""

from __future__ import annotations

import gzip
import os
import re
import ssl
import zlib
from abc import abstractmethod
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from math import isfinite
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

from urllib3 import BaseHTTPResponse, HTTPHeaderDict, Timeout
from urllib3.exceptions import HTTPError, LocationParseError, ProtocolError, SSLError
from urllib3.util import Url, parse_url

from flask_chest._process import PerProcess
from flask_chest.errors import ConfigurationError, TargetUnavailable
from flask_chest.exporter._batches import deliver_halves, rejection
from flask_chest.exporter._deadline import connection_pool, remaining, within
from flask_chest.protocols import Exporter
from flask_chest.record import Record

Method: TypeAlias = Literal["POST", "PUT", "PATCH"]
Verify: TypeAlias = Literal[True] | str | os.PathLike[str]
TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
Identity: TypeAlias = tuple[str | os.PathLike[str], str | os.PathLike[str] | None]
"""Files of the client's certificate and of its key; ``None`` if one file holds both."""

_COMPRESSED_FROM_BYTES = 1_024
_READ_BYTES = 65_536
"""Most bytes of an answer that are read."""
_GZIP = b"\x1f\x8b"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BUSY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request."""

    status: int
    retry_after: str
    body: bytes
    """Beginning of the body, which may quote values."""

    @property
    def patience(self) -> str:
        """How long the target asks to be left alone, in words that follow a sentence; empty if it does not."""
        return f" and asks for {self.retry_after} s" if re.fullmatch(r"[0-9]{1,6}", self.retry_after) else ""


class Endpoint:
    """Sends requests to *url*, each within a time limit, without redirects and proxies.

    Each process has its own connections. Raises `ConfigurationError` for options that cannot work, and quotes
    none that may be a credential.
    """

    def __init__(
        self,
        url: str,
        *,
        setting: str = "url",
        example: str,
        target: str = "",
        headers: Mapping[str, str],
        content_type: str,
        method: Method,
        timeout: float,
        connect_timeout: float,
        verify: Verify,
        verify_setting: str = "verify",
        trust_all: bool = False,
        identity: Identity | None = None,
        compress: bool,
    ) -> None:
        """Name the endpoint *target* in messages, or else by its address."""
        _require_seconds(timeout=timeout, connect_timeout=connect_timeout)
        if method not in {"POST", "PUT", "PATCH"}:
            raise ConfigurationError(f"method must be POST, PUT or PATCH, got {method!r}")
        self._target = _target(url, example, setting)
        self._setting = setting
        # What is shown: the path of a webhook may be its credential, as a query may.
        self.where = target or f"{self._target.scheme}://{self._target.netloc}"
        """Name of the endpoint in messages."""
        self._headers = _complete(headers, url, content_type)
        self._method = method
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._verify_setting = verify_setting
        self._tls = (
            _tls(verify, verify_setting, trust_all=trust_all, identity=identity)
            if self._target.scheme == "https"
            else None
        )
        self._compress = compress
        self._pool = PerProcess(lambda: connection_pool(self._target, self._tls))

    def in_time(self) -> AbstractContextManager[None]:
        """Limit all that is sent in the ``with`` block to the time for one delivery."""
        return within(self._timeout)

    def send(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send *body* with *headers*, unless the user set their own; raise `TargetUnavailable`."""
        complete = self._headers.copy()
        for name, value in headers.items():
            complete.setdefault(name, value)
        if self._compress and len(body) >= _COMPRESSED_FROM_BYTES and "Content-Encoding" not in complete:
            complete["Content-Encoding"] = "gzip"
            body = gzip.compress(body, compresslevel=6, mtime=0)
        try:
            response = self._pool.get().urlopen(
                self._method,
                self._target.path or "/",
                body=body,
                headers=complete,
                retries=False,
                redirect=False,
                timeout=Timeout(connect=self._connect_timeout, total=remaining()),
                preload_content=False,
            )
        except (HTTPError, OSError) as exc:
            raise self._unanswered(exc) from _told(exc)
        return _answer(response)

    def close(self) -> None:
        """Let go of this process's connections; the next request makes new ones."""
        if (pool := self._pool.pop()) is not None:
            pool.close()

    def trouble(self, answer: Answer) -> str:
        """Return what an *answer* means that is not about the records, and the way out."""
        status = answer.status
        match status:
            case HTTPStatus.UNAUTHORIZED:
                what = f"refused the credentials ({status}); correct headers"
            case HTTPStatus.FORBIDDEN:
                what = f"does not let these credentials in ({status}); correct headers, or the rights there"
            case HTTPStatus.NOT_FOUND:
                what = f"is not there ({status}); correct {self._setting}"
            case HTTPStatus.METHOD_NOT_ALLOWED:
                what = f"takes no {self._method} ({status}); correct method or {self._setting}"
            case _ if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
                what = f"redirects ({status}), which is not followed; correct {self._setting} to where it leads"
            case _ if status in _BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                what = f"cannot take records just now ({status}){answer.patience}"
            case _:
                what = (
                    f"answered {status}, which is neither in accept nor in rejecting; "
                    f"correct {self._setting}, accept or rejecting"
                )
        return f"{self.where} {what}"

    def _unanswered(self, error: Exception) -> TargetUnavailable:
        reason = _inner(error)
        if isinstance(error, SSLError):
            said = getattr(reason, "verify_message", "") or getattr(reason, "reason", "") or type(reason).__name__
            return TargetUnavailable(
                f"TLS with {self.where} failed: {said}; "
                f"pass the certificate of its authority as {self._verify_setting}, "
                f"or correct {self._setting}"
            )
        try:
            remaining()
        except TimeoutError:
            return TargetUnavailable(f"{self.where} did not take all within {self._timeout:g} s")
        return TargetUnavailable(f"{self.where} does not answer: {type(reason).__name__}")


class EndpointExporter(Exporter):
    """Delivers batches to one endpoint, each in time; what it sends is for the class that is derived."""

    def __init__(self, endpoint: Endpoint, *, name: str) -> None:
        if not name:
            raise ConfigurationError("name must not be empty")
        self._endpoint = endpoint
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

    @abstractmethod
    def _deliver(self, records: Sequence[Record]) -> None:
        """Send *records*, or raise why they are not delivered."""

    def _not_taken(self, answer: Answer, records: Sequence[Record], *, rejecting: Collection[int]) -> None:
        """Deliver halves of *records* if they are too large for the target, or raise what *answer* means.

        With a status code in *rejecting* it will never take them.
        """
        where, status = self._endpoint.where, answer.status
        if status == TOO_LARGE and len(records) > 1:
            deliver_halves(self._deliver, records)
        elif status in rejecting:
            why = "takes no request of this size" if status == TOO_LARGE else "refused the records"
            raise rejection(f"{where} {why} ({status})", records)
        else:
            raise TargetUnavailable(self._endpoint.trouble(answer))


def _answer(response: BaseHTTPResponse) -> Answer:
    body = b""
    try:
        body = _unpacked(response.read(_READ_BYTES, decode_content=False))
    except (HTTPError, OSError, zlib.error):
        pass  # the status is an answer too
    finally:
        if not response.closed:
            response.close()
        response.release_conn()
    return Answer(response.status, response.headers.get("Retry-After", ""), body)


def _unpacked(data: bytes) -> bytes:
    # Not by urllib3, some of whose releases unpack all that has come: a thousand bytes for each.
    if not data.startswith(_GZIP):
        return data
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(data, _READ_BYTES)


def _inner(error: Exception) -> object:
    """Return the error that urllib3 wrapped, or *error* itself."""
    last = error.args[-1] if error.args else None
    return last if isinstance(error, (ProtocolError, SSLError)) and isinstance(last, Exception) else error


def _told(error: Exception) -> Exception | None:
    # One of http.client's quotes what came instead of an answer, and a log prints the text of a cause.
    return None if isinstance(_inner(error), HTTPException) else error


def _target(url: str, example: str, setting: str) -> Url:
    address = http_address(url, example=example, query=True, setting=setting)
    try:
        return parse_url(address.geturl())
    except LocationParseError:
        raise ConfigurationError(f"{setting} must be like {example!r}; got something else") from None


def _complete(headers: Mapping[str, str], url: str, content_type: str) -> HTTPHeaderDict:
    complete = HTTPHeaderDict({"Content-Type": content_type, "User-Agent": "flask_chest"})
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


def _tls(verify: object, setting: str, *, trust_all: bool, identity: Identity | None) -> ssl.SSLContext:
    context = _trusting(verify, setting)
    if trust_all:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if identity is not None:
        certificate, key = identity
        try:
            # Without a password OpenSSL would ask for that of an encrypted key at the terminal.
            context.load_cert_chain(certificate, key, password="")
        except (ssl.SSLError, OSError) as exc:
            raise ConfigurationError(
                f"client_certificate and client_key must be a certificate and its key, unencrypted, in PEM; "
                f"got {os.fspath(certificate)!r} and {os.fspath(key) if key else None!r}"
            ) from exc
    return context


def _trusting(verify: object, setting: str) -> ssl.SSLContext:
    if verify is True:
        return ssl.create_default_context()
    complaint = f"{setting} must be True or the path of certificates to trust, got {verify!r}"
    if not isinstance(verify, str | os.PathLike) or not Path(verify).exists():
        raise ConfigurationError(complaint)
    is_folder = Path(verify).is_dir()
    try:
        return ssl.create_default_context(
            cafile=None if is_folder else verify, capath=verify if is_folder else None
        )
    except (ssl.SSLError, OSError) as exc:
        raise ConfigurationError(f"{complaint}, which cannot be read as such") from exc


def http_address(url: str, *, example: str, query: bool = False, setting: str = "url") -> SplitResult:
    """Check *url* and take user and password out of it, since messages show what is returned.

    With *query*, it may have one. The message names *setting*, and shows *example* in place of a bad url.
    """
    # No message quotes a bad url and no cause is kept: what is wrong may be a password with a slash in it.
    complaint = ConfigurationError(f"{setting} must be like {example!r}; got something else")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise complaint from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.fragment:
        raise complaint
    if parts.query and not query:
        raise complaint
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    netloc = host if port is None else f"{host}:{port}"
    return SplitResult(parts.scheme, netloc, parts.path, query=parts.query, fragment="")
