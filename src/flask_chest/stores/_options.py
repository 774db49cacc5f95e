"""What every store on a server lets itself be told of time and connections."""

from __future__ import annotations

from flask_chest.errors import ConfigurationError

MAX_TIMEOUT = 3600
"""Seconds."""


def check_limits(*, pool_size: int, **times: float) -> None:
    """Raise `ConfigurationError` unless *times*, by option, are some and there may be a connection."""
    for setting, seconds in times.items():
        if not 0 < seconds <= MAX_TIMEOUT:
            raise ConfigurationError(
                f"{setting} must be more than 0 and at most {MAX_TIMEOUT} seconds, got {seconds!r}"
            )
    if pool_size < 1:
        raise ConfigurationError(f"pool_size must be at least 1, got {pool_size!r}")
