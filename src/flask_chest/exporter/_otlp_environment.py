"""The options of an exporter over OTLP from OpenTelemetry's environment variables.

Those for logs alone come before the general ones. As the specification wants it
(https://opentelemetry.io/docs/specs/otel/protocol/exporter/), an empty variable counts as not set, and one that
cannot be read is logged and ignored.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cache
from math import isfinite
from urllib.parse import unquote

from flask_chest.exporter._options import TIMEOUT

logger = logging.getLogger("flask_chest.export")

DEFAULT_ENDPOINT = "http://localhost:4318/v1/logs"

_PREFIX = "OTEL_EXPORTER_OTLP_"
_SUSPICIOUS_MILLISECONDS = 1_000


def endpoint() -> str:
    """Return the whole address, with the path for logs."""
    whole, _ = _variable("ENDPOINT", general=False)
    if whole:
        return whole
    base, name = _variable("ENDPOINT")
    if not base:
        return DEFAULT_ENDPOINT
    protocol, key = _variable("PROTOCOL")
    if protocol == "grpc":
        _warn(f"{key} is grpc, but records are sent over HTTP to {name}: if that takes only gRPC, pass endpoint")
    return f"{base.rstrip('/')}/v1/logs"


def headers() -> Mapping[str, str]:
    """Return the headers of each request; the variable holds them as ``api-key=secret,x-tenant=a%20b``."""
    text, name = _variable("HEADERS")
    found: dict[str, str] = {}
    for pair in filter(str.strip, (text or "").split(",")):
        key, equals, value = pair.partition("=")
        if equals and key.strip():
            found[unquote(key.strip())] = unquote(value.strip())
        else:
            _warn(f"a part of {name} is not like key=value and is left out")
    return found


def compress() -> bool:
    """Return whether bodies are compressed."""
    text, name = _variable("COMPRESSION")
    if text not in {None, "gzip", "none"}:
        _warn(f"{name} must be gzip or none, and is something else: it is left out")
    return text != "none"


def timeout() -> float:
    """Return the seconds for a delivery; the variable counts milliseconds."""
    text, name = _variable("TIMEOUT")
    if text is None:
        return TIMEOUT
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = 0.0
    if not (isfinite(milliseconds) and milliseconds > 0):
        _warn(f"{name} must be a number of milliseconds above 0, and is something else: it is left out")
        return TIMEOUT
    if milliseconds < _SUSPICIOUS_MILLISECONDS:
        _warn(
            f"{name} is {milliseconds:g} milliseconds, which is what the specification counts in, and "
            "opentelemetry-python does not; pass timeout= in seconds if it was meant for that"
        )
    return milliseconds / 1_000


def certificate() -> tuple[str | None, str]:
    """Return the path of the certificates to trust, and the variable's name."""
    return _variable("CERTIFICATE")


def identity() -> tuple[str, str | None] | None:
    """Return the paths of the client's certificate and of its key."""
    own, _ = _variable("CLIENT_CERTIFICATE")
    key, _ = _variable("CLIENT_KEY")
    return (own, key) if own else None


def _variable(name: str, *, general: bool = True) -> tuple[str | None, str]:
    """Return the value, and the name of the variable that it was found in."""
    for key in (f"{_PREFIX}LOGS_{name}", f"{_PREFIX}{name}")[: 1 + general]:
        if text := os.environ.get(key, "").strip():
            return text, key
    return None, f"{_PREFIX}{name}"


@cache
def _warn(message: str) -> None:
    logger.warning(message)
