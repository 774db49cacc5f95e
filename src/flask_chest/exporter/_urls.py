"""The addresses of HTTP targets."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from flask_chest.errors import ConfigurationError


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
