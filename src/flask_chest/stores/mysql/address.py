"""Where a MySQL server is, as the user said it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

from flask_chest.errors import ConfigurationError
from flask_chest.stores.sql.server import ServerAddress

DEFAULT_PORT = 3306

_TEXTS = frozenset({"unix_socket", "ssl_ca", "ssl_cert", "ssl_key", "ssl_key_password", "server_public_key"})
_SWITCHES = frozenset({"ssl_disabled", "ssl_verify_cert", "ssl_verify_identity"})
_WORDS = {"true": True, "1": True, "false": False, "0": False}
_COMPLAINT = (
    "db_uri must be like mysql://user:password@host:3306/database; got something else"
    " (in user and password / ? # and @ are written as %2F %3F %23 and %40)"
)


_CHOOSING = ("user", "init_command", "read_default_file", "read_default_group")
"""What chooses the tables beside host, port and database."""


class Address(ServerAddress):
    """PyMySQL's parameters, from a URI and from what was given beside it."""

    def __init__(self, uri: str, given: Mapping[str, object]) -> None:
        self.parameters: dict[str, object] = {**_parse(uri), **given}
        if not (self.parameters.get("database") or self.parameters.get("db")):
            raise ConfigurationError(
                "db_uri names no database; it must be like mysql://user:password@host/database"
            )

    def __str__(self) -> str:
        known = self.parameters
        host = known.get("unix_socket") or f"{known.get('host', 'localhost')}:{known.get('port', DEFAULT_PORT)}"
        return f"{host}/{known.get('database') or known.get('db')}"

    def choosing(self) -> Mapping[str, object]:
        """Give what beside that chooses the tables."""
        return {name: self.parameters.get(name) for name in _CHOOSING}


class UnknownAddress(ServerAddress):
    """That of a pool beside which nothing was said."""

    def __str__(self) -> str:
        return "pool"

    def choosing(self) -> Mapping[str, object]:
        """Give nothing."""
        return {}


def _parse(uri: str) -> dict[str, object]:
    if not uri:
        return {}
    # No message quotes a bad URI and no cause is kept: what is wrong may be a password with a slash in it.
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        raise ConfigurationError(_COMPLAINT) from None
    # After the host, an @ is the end of a password that has a slash or a question mark in it.
    odd = parts.fragment or port == 0 or "@" in parts.path + parts.query
    if odd or parts.scheme.partition("+")[0] not in {"mysql", "mariadb"}:
        raise ConfigurationError(_COMPLAINT)
    named = {
        "host": parts.hostname,
        "port": port,
        "user": None if parts.username is None else unquote(parts.username),
        "password": None if parts.password is None else unquote(parts.password),
        "database": unquote(parts.path.removeprefix("/")) or None,
    }
    found: dict[str, object] = {name: value for name, value in named.items() if value is not None}
    return found | dict(_option(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True))


def _option(name: str, value: str) -> tuple[str, object]:
    if name in _TEXTS:
        return name, value
    if name in _SWITCHES and value.lower() in _WORDS:
        return name, _WORDS[value.lower()]
    known = ", ".join(sorted(_TEXTS | _SWITCHES))
    raise ConfigurationError(f"db_uri has the option {name!r}, which is not one of {known} or has no such value")
