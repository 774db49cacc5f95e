"""``CHEST_*`` → frozen `Settings`, with all validation.

A value comes from the constructor, else from ``app.config["CHEST_X"]``, else from the environment as
``FLASK_CHEST_X``, else it is the default. The environment is read as Flask's ``from_prefixed_env`` reads it:
as JSON where it is JSON. But a variable that is empty is not set, and what must be a text is one, whatever it
looks like: a key may consist of digits.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Literal, Self, TypeAlias, TypedDict, TypeVar, cast, get_args

from flask_chest.background.retention import RetentionPolicy
from flask_chest.capture.names import Computed, Rename, TrackedVars, parse_computed, parse_rename
from flask_chest.capture.redaction import MIN_KEY_BYTES, Redact, Redaction, parse_rules
from flask_chest.capture.rules import parse_routes
from flask_chest.capture.sampling import Rate, Sampling
from flask_chest.capture.values import MAX_RECORD_BYTES, MAX_VALUE_BYTES, Encoders, ValueRules
from flask_chest.errors import ConfigurationError

SchedulerMode: TypeAlias = Literal["auto", "on", "off"]
"""``"auto"`` is on, but off while ``app.testing``."""

WriterMode: TypeAlias = Literal["thread", "off"]
"""``"off"`` leaves it to another process to store what is in the journal."""

MEMORY = "memory:"
"""As the journal's folder: none."""
MIN_JOURNAL_BYTES = 64 * 1024
LEAST_BYTES, MOST_BYTES = 64, 1024 * 1024
"""Of the limits of a value and of a record: a journal's frame must hold one."""

T = TypeVar("T")

_NO_NAMES: Rename = MappingProxyType({})
_ALL: Rate = 1.0
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


class SettingOptions(TypedDict, total=False):
    """The settings as options of a chest; each is ``CHEST_`` and its name in capitals elsewhere."""

    tracked_vars: TrackedVars | None
    include: str | Sequence[str] | None
    exclude: str | Sequence[str] | None
    rename: Rename | None
    computed: Computed | None
    encoders: Encoders | None
    redact: str | Redact | Sequence[str | Redact] | None
    hash_key: str | None
    error_messages: bool | None
    max_value_bytes: int | None
    max_record_bytes: int | None
    sample: Rate | None
    keep_errors: bool | None
    keep_slower_than: float | timedelta | None
    retention: str | timedelta | None
    retention_cap: str | None
    response_header: str | None
    trace_url: str | None
    strict: bool | None
    instance: str | None
    scheduler: SchedulerMode | None
    writer: WriterMode | None
    journal_dir: str | os.PathLike[str] | None
    journal_local: bool | None
    journal_bytes: int | None
    journal_sync: bool | None


MISSPELT = "{name} is no setting and does nothing: write {meant} if that is meant"
NEARLY = 0.85
"""How alike a name must be to a setting's to be taken for it; an app may have settings of its own."""


class _UnknownOption(ConfigurationError, TypeError):
    """An option is none."""


def check_options(options: Mapping[str, object]) -> Mapping[str, object]:
    """Raise a `ConfigurationError` that is a `TypeError` too for an option that is none."""
    for name in options:
        if name not in SettingOptions.__annotations__:
            close = get_close_matches(name, SettingOptions.__annotations__, n=1)
            way_out = f"; it has {close[0]!r}" if close else ""
            if "uri" in name:
                way_out = "; FlaskChest has its database from CHEST_URI, or takes store="
            raise _UnknownOption(f"a chest got an unexpected keyword argument {name!r}{way_out}")
    return options


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
    journal_local: bool | None
    """Whether that folder is on a local disk; ``None``: what the kernel calls its file system tells."""
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
    include: tuple[str, ...] | None
    """On which routes or endpoints, as globs; ``None``: on all."""
    exclude: tuple[str, ...]
    """On which not."""
    rename: Rename
    computed: Computed
    encoders: Encoders = field(repr=False)
    redact: tuple[Redact, ...]
    """What is hidden, beside names that look secret."""
    hash_key: str | None = field(repr=False)
    """The key of hashes, which the rules may ask for."""
    error_messages: bool
    """Keep the text of an exception beside its type."""
    max_value_bytes: int
    max_record_bytes: int
    sample: Rate
    """The share of requests that is kept."""
    keep_errors: bool
    """Keep those that ended in an error or a status from 500 on, whatever *sample* says."""
    keep_slower_than_ns: int | None
    """And those that took as long or longer."""
    retention: RetentionPolicy
    """How much the store keeps, of what every exporter has had."""
    retention_cap: RetentionPolicy
    """How much it keeps in any case."""
    misspelt: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Names that are no settings, and the ones that were meant."""

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
        settings = cls(
            uri=source.get("uri", _text, None),
            instance=source.get("instance", _text, None) or socket.gethostname(),
            strict=source.get("strict", _boolean, default=False),
            scheduler=source.get("scheduler", _scheduler_mode, default="auto"),
            journal_dir=source.get("journal_dir", _path, None),
            journal_local=source.get("journal_local", _boolean, default=None),
            journal_bytes=source.get("journal_bytes", _journal_bytes, 256 * 1024 * 1024),
            journal_sync=source.get("journal_sync", _boolean, default=False),
            writer=source.get("writer", _writer_mode, default="thread"),
            response_header=source.get("response_header", _header_name, None),
            trace_url=source.get("trace_url", _trace_url, None),
            tracked_vars=source.get("tracked_vars", Unchecked, None),
            include=source.get("include", parse_routes, None),
            exclude=source.get("exclude", parse_routes, ()),
            rename=source.get("rename", parse_rename, _NO_NAMES),
            computed=source.get("computed", parse_computed, MappingProxyType({})),
            encoders=source.get("encoders", _encoders, MappingProxyType({})),
            redact=source.get("redact", parse_rules, ()),
            hash_key=source.get("hash_key", _hash_key, None),
            error_messages=source.get("error_messages", _boolean, default=False),
            max_value_bytes=source.get("max_value_bytes", _size, MAX_VALUE_BYTES),
            max_record_bytes=source.get("max_record_bytes", _size, MAX_RECORD_BYTES),
            sample=source.get("sample", _rate, _ALL),
            keep_errors=source.get("keep_errors", _boolean, default=True),
            keep_slower_than_ns=source.get("keep_slower_than", _nanoseconds, None),
            retention=source.get("retention", RetentionPolicy.parse, RetentionPolicy()),
            retention_cap=source.get("retention_cap", _cap, RetentionPolicy()),
            misspelt=dict(source.misspelt()),
        )
        settings._check(prefix)
        return settings

    def _check(self, prefix: str) -> None:
        """Check what no setting can be asked for alone."""
        if self.tracked_vars is None:
            for name in ("include", "exclude"):
                if getattr(self, name):
                    raise ConfigurationError(
                        f"{name} is for what is captured on every route; say with tracked_vars what that is, "
                        'as in tracked_vars=["user_id"], or ["*"] for all'
                    )
        if self.hash_key is None and any(rule.action == "hash" for rule in self.redact):
            raise ConfigurationError(
                f"a rule of redact hashes, which needs a key: set {prefix}_HASH_KEY to a random text of "
                f"{MIN_KEY_BYTES} characters or more"
            )
        if self.max_value_bytes > self.max_record_bytes:
            raise ConfigurationError(
                f"max_value_bytes is {self.max_value_bytes} and must not be above max_record_bytes, "
                f"which is {self.max_record_bytes}"
            )

    @property
    def value_rules(self) -> ValueRules:
        """How values are converted, and what is hidden of them."""
        return ValueRules(
            redaction=Redaction(self.redact, key=self.hash_key),
            encoders=self.encoders,
            max_value_bytes=self.max_value_bytes,
            max_record_bytes=self.max_record_bytes,
        )

    @property
    def retains(self) -> bool:
        """Whether there is a limit to what the store keeps."""
        return self.retention != RetentionPolicy() or self.retention_cap != RetentionPolicy()

    @property
    def sampling(self) -> Sampling | None:
        """Which requests are kept; ``None``: all."""
        if self.sample == 1:
            return None
        return Sampling(
            rate=self.sample, keep_errors=self.keep_errors, keep_slower_than_ns=self.keep_slower_than_ns
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
        value, key = found(key, config=self.config, environ=self.environ, as_text=check not in _NUMBERS)
        return default if value is None else check(value, key)

    def misspelt(self) -> Iterator[tuple[str, str]]:
        known = [f"{self.prefix}_{name.upper()}" for name in SettingOptions.__annotations__]
        known.append(f"{self.prefix}_URI")
        for lead, names in (("", self.config), ("FLASK_", self.environ)):
            for name in names:
                key = name.removeprefix("FLASK_")
                misplaced = key in known and name != lead + key and not self._is_set(key)
                if key.startswith(f"{self.prefix}_") and (key not in known or misplaced):
                    for meant in get_close_matches(key, known, n=1, cutoff=NEARLY):
                        yield name, lead + meant

    def _is_set(self, key: str) -> bool:
        given = self.given.get(key.removeprefix(f"{self.prefix}_").lower())
        return given is not None or self.config.get(key) is not None or bool(self.environ.get(f"FLASK_{key}"))


def found(
    key: str, *, config: Mapping[str, object], environ: Mapping[str, str], as_text: bool
) -> tuple[object, str]:
    """Give what *config* has as *key*, or *environ* with ``FLASK_`` before it, and the name it was found under.

    ``None``: it is not set. With *as_text*, a variable of digits is a text.
    """
    text = environ.get(f"FLASK_{key}")
    # What `from_prefixed_env` read there is read here anew, since it takes a text of digits for a number.
    if (value := config.get(key)) is not None and (text is None or not _same(value, _read(text))):
        return value, key
    return (_read(text, as_text=as_text) if text is not None and text.strip() else None), f"FLASK_{key}"


def _same(value: object, read: object) -> bool:
    return type(value) is type(read) and repr(value) == repr(read)


def _read(text: str, *, as_text: bool = False) -> object:
    """Read a variable of the environment; *as_text* keeps digits and words that JSON would take for values."""
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return text if as_text and isinstance(value, int | float) else value


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


def _size(value: object, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not LEAST_BYTES <= value <= MOST_BYTES:
        raise ConfigurationError(
            f"{key} must be a number of bytes from {LEAST_BYTES} to {MOST_BYTES}, got {value!r}"
        )
    return value


def _rate(value: object, key: str) -> Rate:
    if callable(value):
        return cast("Rate", value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigurationError(f"{key} must be a share from 0 to 1, as 0.1, or a function, got {value!r}")
    return value


def _nanoseconds(value: object, key: str) -> int:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise ConfigurationError(f"{key} must be seconds, as 0.5, or a timedelta, got {value!r}")
    return round(seconds * 1_000_000_000)


def _cap(value: object, key: str) -> RetentionPolicy:
    cap = RetentionPolicy.parse(value, key)
    if cap.age is not None:
        raise ConfigurationError(
            f"{key} is for rows and bytes, got {value!r}: what an exporter has not had is not deleted for its age"
        )
    return cap


def _hash_key(value: object, key: str) -> str:
    if not isinstance(value, str) or len(value.encode()) < MIN_KEY_BYTES:
        # Not the value, which is a secret.
        raise ConfigurationError(f"{key} must be a random text of at least {MIN_KEY_BYTES} characters")
    return value


def _encoders(value: object, key: str) -> Encoders:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{key} must map types to functions, as in {{Money: str}}, got {value!r}")
    encoders: dict[type, Callable[[Any], object]] = {}
    for kind, encode in value.items():
        if not isinstance(kind, type) or not callable(encode):
            raise ConfigurationError(f"{key} must map types to functions, as in {{Money: str}}, got {kind!r}")
        if kind in {str, int, float, bool, type(None), object}:
            raise ConfigurationError(
                f"{key} has the type {kind.__name__}, which stays as it is; take a class of your own"
            )
        encoders[kind] = encode
    return MappingProxyType(encoders)


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


_NUMBERS: frozenset[Callable[[Any, str], object]] = frozenset(
    {_boolean, _journal_bytes, _size, _rate, _nanoseconds, _scheduler_mode, _writer_mode}
)
"""The checks of settings that may be numbers or booleans; every other may be a text."""
