"""``CHEST_*`` → frozen `Settings`, with all validation.

A value comes from the constructor, else from ``app.config["CHEST_X"]``, else from the environment as
``FLASK_CHEST_X``, else it is the default. The environment is read as Flask's ``from_prefixed_env`` reads it:
as JSON where it is JSON.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self, TypeAlias, TypeVar, get_args

from flask_chest.errors import ConfigurationError

SchedulerMode: TypeAlias = Literal["auto", "on", "off"]
"""``"auto"`` is on, but off while ``app.testing``."""

T = TypeVar("T")

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


@dataclass(frozen=True, slots=True)
class Unchecked:
    """A value that whoever uses it checks, with the name of its setting for the message."""

    value: object
    setting: str = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a deployment may set for one chest on one app."""

    uri: str | None = field(repr=False)
    """The store's address, for a chest that was given no store."""
    instance: str
    """The host's part of `Record.instance`."""
    strict: bool
    """Raise what otherwise is counted and logged: for tests."""
    scheduler: SchedulerMode
    tracked_vars: Unchecked | None
    """What to capture on every route; ``None``: only decorated views are recorded."""

    @classmethod
    def load(
        cls,
        *,
        prefix: str,
        given: Mapping[str, object],
        config: Mapping[str, object],
        environ: Mapping[str, str],
    ) -> Self:
        """Read and check all settings; raise `ConfigurationError` that names the key and the way out."""
        source = _Source(prefix, given, config, environ)
        return cls(
            uri=source.get("uri", _text, None),
            instance=source.get("instance", _text, None) or socket.gethostname(),
            strict=source.get("strict", _boolean, default=False),
            scheduler=source.get("scheduler", _scheduler_mode, default="auto"),
            tracked_vars=source.get("tracked_vars", Unchecked, None),
        )


@dataclass(frozen=True, slots=True)
class _Source:
    prefix: str
    given: Mapping[str, object]
    config: Mapping[str, object]
    environ: Mapping[str, str]

    def get(self, name: str, check: Callable[[object, str], T], default: T) -> T:
        key = f"{self.prefix}_{name.upper()}"
        if self.given.get(name) is not None:
            return check(self.given[name], name)
        if self.config.get(key) is not None:
            return check(self.config[key], key)
        value = _from_environment(self.environ.get(f"FLASK_{key}", "null"))
        return default if value is None else check(value, f"FLASK_{key}")


def _from_environment(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value


def _text(value: object, key: str) -> str | None:
    if not isinstance(value, str) or not value:
        # Not the value: an address may hold a password.
        got = "an empty one" if value == "" else f"a value of type {type(value).__name__}"
        raise ConfigurationError(
            f"{key} must be a text that is not empty, got {got}; where JSON is read, quote it: '\"…\"'"
        )
    return value


def _boolean(value: object, key: str) -> bool:
    word = str(value).lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ConfigurationError(f"{key} must be true or false, got {value!r}")


def _scheduler_mode(value: object, key: str) -> SchedulerMode:
    # YAML and JSON read the word on as true
    word = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
    for mode in get_args(SchedulerMode):
        if word == mode:
            return mode  # type: ignore[no-any-return]  # get_args is not typed by the alias
    raise ConfigurationError(f"{key} must be one of {', '.join(get_args(SchedulerMode))}, got {value!r}")
