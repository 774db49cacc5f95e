"""``CHEST_*`` → frozen `Settings`, with all validation.

A value comes from the constructor, else from ``app.config["CHEST_X"]``, else from the environment as
``FLASK_CHEST_X``, else it is the default. The environment is read as Flask's ``from_prefixed_env`` reads it:
as JSON where it is JSON.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self, TypeAlias, TypeVar, get_args

from flask_chest.errors import ConfigurationError

SchedulerMode: TypeAlias = Literal["auto", "on", "off"]
"""``"auto"`` is on, but off while ``app.testing``."""

WriterMode: TypeAlias = Literal["thread", "off"]
"""``"off"`` leaves it to another process to store what is in the journal."""

MEMORY = "memory:"
"""As the journal's folder: none."""
MIN_JOURNAL_BYTES = 64 * 1024

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
    journal_dir: str | None
    """The folder of the journal, relative to ``app.root_path``; ``"memory:"`` for none."""
    journal_bytes: int
    """How much may wait there, for all processes together."""
    journal_sync: bool
    """Wait in each request until the disk has the record."""
    writer: WriterMode
    response_header: str | None
    """Under which name the response tells the request id."""
    trace_url: str | None
    """Where to look at a trace, with ``{trace_id}`` in it."""
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
            journal_dir=source.get("journal_dir", _path, None),
            journal_bytes=source.get("journal_bytes", _journal_bytes, 256 * 1024 * 1024),
            journal_sync=source.get("journal_sync", _boolean, default=False),
            writer=source.get("writer", _writer_mode, default="thread"),
            response_header=source.get("response_header", _header_name, None),
            trace_url=source.get("trace_url", _trace_url, None),
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


def _path(value: object, key: str) -> str | None:
    return _text(os.fspath(value) if isinstance(value, os.PathLike) else value, key)


def _header_name(value: object, key: str) -> str | None:
    name = _text(value, key)
    if name is not None and not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name):
        raise ConfigurationError(f"{key} must be a header's name, as X-Request-ID, got {value!r}")
    return name


def _trace_url(value: object, key: str) -> str | None:
    template = _text(value, key)
    if template is not None and "{trace_id}" not in template:
        raise ConfigurationError(
            f"{key} must hold {{trace_id}}, as in https://traces.example/trace/{{trace_id}}, and does not"
        )
    return template


def _journal_bytes(value: object, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < MIN_JOURNAL_BYTES:
        raise ConfigurationError(f"{key} must be a number of bytes, at least {MIN_JOURNAL_BYTES}, got {value!r}")
    return value


def _scheduler_mode(value: object, key: str) -> SchedulerMode:
    return _one_of(get_args(SchedulerMode), value, key)


def _writer_mode(value: object, key: str) -> WriterMode:
    return _one_of(get_args(WriterMode), value, key)


def _one_of(words: tuple[T, ...], value: object, key: str) -> T:
    # YAML and JSON read the words on and off as booleans
    word = {True: "on", False: "off"}[value] if isinstance(value, bool) else value
    for known in words:
        if word == known:
            return known
    raise ConfigurationError(f"{key} must be one of {', '.join(map(str, words))}, got {value!r}")
