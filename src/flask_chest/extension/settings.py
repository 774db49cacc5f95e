"""``CHEST_*`` → frozen `Settings`, with all validation.

A value comes from the constructor, else from ``app.config["CHEST_X"]``, else from the environment as
``FLASK_CHEST_X``, else it is the default. The environment is read as Flask's ``from_prefixed_env`` reads it:
as JSON where it is JSON. But a variable that is empty is not set, and what must be a string is one, whatever it
looks like: a key may consist of digits.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Generic, Literal, Self, TypeAlias, TypedDict, TypeVar, cast, get_args

import msgspec

from flask_chest.background.retention import RetentionPolicy
from flask_chest.capture.options import listed
from flask_chest.capture.redaction import MIN_KEY_BYTES, Redact, Redaction, parse_redact
from flask_chest.capture.sampling import Rate, Sampling
from flask_chest.capture.tracking import (
    Computed,
    Rename,
    TrackedVars,
    parse_computed,
    parse_rename,
    parse_routes,
)
from flask_chest.capture.values import MAX_RECORD_BYTES, MAX_VALUE_BYTES, Encoders, ValueRules
from flask_chest.errors import ConfigurationError
from flask_chest.protocols import PartitionBy
from flask_chest.record import is_number
from flask_chest.stores import MAX_INDEXED_NAME, is_indexable

SchedulerMode: TypeAlias = Literal["auto", "on", "off"]
"""Whether a process schedules exporters and retention; ``"auto"`` does unless ``app.testing`` is true."""

WriterMode: TypeAlias = Literal["thread", "off"]
"""Writer of what is in the journal: a thread of the process, or with ``"off"`` another process."""

MEMORY = "memory:"
"""Value of ``CHEST_JOURNAL_DIR`` that keeps the journal in memory instead of on disk."""
MIN_JOURNAL_BYTES = 64 * 1024
LEAST_BYTES, MOST_BYTES = 64, 1024 * 1024
"""Range of the limits for a value and for a record, in bytes: a frame of the journal must hold a record."""

T = TypeVar("T")

_ALL: Rate = 1.0
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


class SettingOptions(TypedDict, total=False):
    """The settings as keyword arguments of a chest; elsewhere each is ``CHEST_`` and its name in capitals."""

    tracked_vars: TrackedVars | None
    include: str | Sequence[str] | None
    exclude: str | Sequence[str] | None
    rename: Rename | None
    computed: Computed | None
    encoders: Encoders | None
    indexed: str | Sequence[str] | None
    partition: PartitionBy | None
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


MISSPELT = "Unknown setting {name} is ignored. Did you mean {meant}?"
NEARLY = 0.85
"""Similarity, from 0 to 1, from which on a name is taken for a misspelt setting; an app may have its own."""


class _UnknownOption(ConfigurationError, TypeError):
    """A keyword argument is not an option."""


def check_options(options: Mapping[str, object]) -> Mapping[str, object]:
    """Return *options*; raise a `ConfigurationError` that is also a `TypeError` for an unknown one."""
    for name in options:
        if name not in SettingOptions.__annotations__:
            close = get_close_matches(name, SettingOptions.__annotations__, n=1)
            way_out = f"; did you mean {close[0]!r}?" if close else ""
            if "uri" in name:
                way_out = "; FlaskChest takes its database from CHEST_URI, or as store="
            raise _UnknownOption(f"unexpected keyword argument {name!r}{way_out}")
    return options


def _text(value: object, key: str) -> str:
    if not isinstance(value, str) or not value:
        # Without the value: an address may hold a password.
        got = "an empty one" if value == "" else f"a value of type {type(value).__name__}"
        raise ConfigurationError(
            f"{key} must be a non-empty string, got {got}; where JSON is read, quote it: '\"…\"'"
        )
    return value


def _boolean(value: object, key: str) -> bool:
    word = str(value).lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ConfigurationError(f"{key} must be true or false, got {value!r}")


def _path(value: object, key: str) -> str:
    return _text(os.fspath(value) if isinstance(value, os.PathLike) else value, key)


def _header_name(value: object, key: str) -> str:
    name = _text(value, key)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name):
        raise ConfigurationError(f"{key} must be the name of a header, such as X-Request-ID, got {value!r}")
    return name


def _trace_url(value: object, key: str) -> str:
    template = _text(value, key)
    if "{trace_id}" not in template:
        raise ConfigurationError(
            f"{key} must contain {{trace_id}}, as in https://traces.example/trace/{{trace_id}}"
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
    if not is_number(value) or not 0 <= value <= 1:
        raise ConfigurationError(f"{key} must be a number from 0 to 1, such as 0.1, or a function, got {value!r}")
    return value


def _seconds(value: object, key: str) -> int:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not is_number(seconds) or not 0 <= seconds < float("inf"):
        raise ConfigurationError(f"{key} must be a number of seconds, such as 0.5, or a timedelta, got {value!r}")
    return round(seconds * 1_000_000_000)


def _cap(value: object, key: str) -> RetentionPolicy:
    cap = RetentionPolicy.parse(value, key)
    if cap.age is not None:
        raise ConfigurationError(
            f"{key} limits rows and bytes, got {value!r}: age alone deletes nothing that an exporter still needs"
        )
    return cap


def _hash_key(value: object, key: str) -> str:
    if not isinstance(value, str) or len(value.encode()) < MIN_KEY_BYTES:
        # Without the value, which is a secret.
        raise ConfigurationError(f"{key} must be a random string of at least {MIN_KEY_BYTES} characters")
    return value


def _indexed(value: object, key: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",")]
    names: dict[str, None] = {}
    for name in listed(value, str, f"{key} must list names of variables, as in user_id,plan"):
        if not isinstance(name, str) or not is_indexable(name):
            raise ConfigurationError(
                f"{key} must hold names of at most {MAX_INDEXED_NAME} ASCII letters, digits or _, none of which "
                f"begins with a digit, got {name!r}"
            )
        names[name] = None
    return tuple(names)


def _partition(value: object, key: str) -> PartitionBy:
    return _one_of(get_args(PartitionBy), value, key)


def _encoders(value: object, key: str) -> Encoders:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{key} must map types to functions, as in {{Money: str}}, got {value!r}")
    encoders: dict[type, Callable[[Any], object]] = {}
    for kind, encode in value.items():
        if not isinstance(kind, type) or not callable(encode):
            raise ConfigurationError(f"{key} must map types to functions, as in {{Money: str}}, got {kind!r}")
        if kind in {str, int, float, bool, type(None), object}:
            raise ConfigurationError(
                f"{key} has the type {kind.__name__}, which is never converted; use a class of your own"
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
    {_boolean, _journal_bytes, _size, _rate, _seconds, _scheduler_mode, _writer_mode}
)
"""Checks of settings that may be numbers or booleans; all others may be strings that look like such."""


class Unchecked(msgspec.Struct, frozen=True):
    """A value that is checked by whoever uses it, and the name of its setting for the message."""

    value: object
    setting: str


class _Declaration(msgspec.Struct, Generic[T], frozen=True):
    name: str | None
    check: Callable[[object, str], T]
    default: T
    shown: bool


def _setting(check: Callable[[object, str], T], *, default: T, name: str | None = None, shown: bool = True) -> T:
    """Declare a field as a setting.

    *check* makes the field's value of what was set and the key under which that was found, or raises
    `ConfigurationError`. *name* is the setting's where it is not the field's; a value that may be secret is not
    *shown* in the representation.
    """
    return cast("T", _Declaration(name, check, default, shown))


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment may set for one chest on one app."""

    uri: str | None = _setting(_text, default=None, shown=False)
    """Address of the store, for a chest that was given no store."""
    instance: str = _setting(_text, default="")
    """The host's part of `Record.instance`; the host's name unless it is set."""
    strict: bool = _setting(_boolean, default=False)
    """Whether to raise what otherwise is counted and logged: for tests."""
    scheduler: SchedulerMode = _setting(_scheduler_mode, default="auto")
    """Whether this process runs exporters and retention on schedule."""
    journal_dir: str | None = _setting(_path, default=None)
    """Folder of the journals, relative to ``app.root_path``, or ``"memory:"`` for none."""
    journal_local: bool | None = _setting(_boolean, default=None)
    """Whether that folder is on a local disk; ``None`` goes by what the kernel says."""
    journal_bytes: int = _setting(_journal_bytes, default=256 * 1024 * 1024)
    """Number of bytes that may wait in the journals of all processes together."""
    journal_sync: bool = _setting(_boolean, default=False)
    """Whether each request waits until the disk has its record."""
    writer: WriterMode = _setting(_writer_mode, default="thread")
    """Writer of what is in the journal."""
    response_header: str | None = _setting(_header_name, default=None)
    """Name of the response's header that holds the request id; ``None`` sends none."""
    trace_url: str | None = _setting(_trace_url, default=None)
    """Address of a trace, with ``{trace_id}`` in it."""
    tracked_vars: Unchecked | None = _setting(Unchecked, default=None)
    """Variables of every route; ``None`` records only decorated views and tracked blueprints."""
    include: tuple[str, ...] | None = _setting(parse_routes, default=None)
    """Globs of the routes or endpoints that *tracked_vars* is for; ``None`` for all."""
    exclude: tuple[str, ...] = _setting(parse_routes, default=())
    """Globs of the routes or endpoints that *tracked_vars* is not for."""
    rename: Rename = _setting(parse_rename, default=MappingProxyType({}))
    """Other names for variables, in every record."""
    computed: Computed = _setting(parse_computed, default=MappingProxyType({}))
    """Functions whose results every record holds, by the variables' names."""
    encoders: Encoders = _setting(_encoders, default=MappingProxyType({}), shown=False)
    """Functions that convert values of the app's own types."""
    indexed: tuple[str, ...] = _setting(_indexed, default=())
    """Variables by which the database is to find records without reading all the others."""
    partition: PartitionBy | None = _setting(_partition, default=None)
    """Span of time for which a new table of PostgreSQL, MySQL or MariaDB has a partition; ``None`` for none."""
    redact: tuple[Redact, ...] = _setting(parse_redact, default=())
    """Rules for what is hidden, besides what has a name that looks secret."""
    hash_key: str | None = _setting(_hash_key, default=None, shown=False)
    """Key of the hashes that rules may ask for."""
    error_messages: bool = _setting(_boolean, default=False)
    """Whether a record has the text of an exception besides its type."""
    max_value_bytes: int = _setting(_size, default=MAX_VALUE_BYTES)
    """Longest value that is kept whole, in bytes of JSON."""
    max_record_bytes: int = _setting(_size, default=MAX_RECORD_BYTES)
    """Longest variables of a record, all together, in bytes of JSON."""
    sample: Rate = _setting(_rate, default=_ALL)
    """Share of the requests that is kept."""
    keep_errors: bool = _setting(_boolean, default=True)
    """Whether to keep every request with an error or a status from 500 on, whatever *sample* says."""
    keep_slower_than_ns: int | None = _setting(_seconds, default=None, name="keep_slower_than")
    """Nanoseconds from which on a request is kept, whatever *sample* says; ``None`` for no such limit."""
    retention: RetentionPolicy = _setting(RetentionPolicy.parse, default=RetentionPolicy())
    """Limits for records that every exporter has had."""
    retention_cap: RetentionPolicy = _setting(_cap, default=RetentionPolicy())
    """Limits for all records."""
    misspelt: Mapping[str, str] = MappingProxyType({})
    """Names that are not settings, and the settings that they resemble."""

    def __post_init__(self) -> None:
        for name, declared in _declared():
            if getattr(self, name) is declared:
                msgspec.structs.force_setattr(self, name, declared.default)

    def __repr__(self) -> str:
        shown = [f"{name}={getattr(self, name)!r}" for name, declared in _declared() if declared.shown]
        return f"Settings({', '.join(shown)})"

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
        values: dict[str, Any] = {
            name: source.get(declared.name or name, declared.check, declared.default)
            for name, declared in _declared()
        }
        values["instance"] = values["instance"] or socket.gethostname()
        settings = cls(**values, misspelt=dict(source.misspelt()))
        settings._check(prefix)
        return settings

    def _check(self, prefix: str) -> None:
        """Check how settings go together."""
        if self.tracked_vars is None:
            for name in ("include", "exclude"):
                if getattr(self, name):
                    raise ConfigurationError(
                        f"{name} limits tracked_vars, which is not set: set it to what every route captures, "
                        'as in tracked_vars=["user_id"], or to ["*"] for everything'
                    )
        if self.hash_key is None and any(rule.action == "hash" for rule in self.redact):
            raise ConfigurationError(
                f"a rule in redact has action='hash', which needs a key: set {prefix}_HASH_KEY "
                f"to a random string of at least {MIN_KEY_BYTES} characters"
            )
        if self.max_value_bytes > self.max_record_bytes:
            raise ConfigurationError(
                f"max_value_bytes is {self.max_value_bytes}, but must not exceed max_record_bytes, "
                f"which is {self.max_record_bytes}"
            )

    @property
    def value_rules(self) -> ValueRules:
        """Rules by which values are converted, and hidden."""
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
        """Rule by which requests are kept, or ``None`` if all are."""
        if self.sample == 1:
            return None
        return Sampling(
            rate=self.sample, keep_errors=self.keep_errors, keep_slower_than_ns=self.keep_slower_than_ns
        )


def _declared() -> Iterator[tuple[str, _Declaration[object]]]:
    """Yield each setting's field and its declaration, which stands where the field's default would."""
    for name, default in zip(Settings.__struct_fields__, Settings.__struct_defaults__, strict=True):
        if isinstance(default, _Declaration):
            yield name, default


class _Source(msgspec.Struct, frozen=True):
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
    """Return what *config* has as *key*, or *environ* as ``FLASK_`` and *key*, and the name it was found under.

    The value is ``None`` where neither has one. With *as_text*, a variable that consists of digits is a string.
    """
    text = environ.get(f"FLASK_{key}")
    # What `from_prefixed_env` read there is read here again, since it takes a string of digits for a number.
    if (value := config.get(key)) is not None and (text is None or not _same(value, _read(text))):
        return value, key
    return (_read(text, as_text=as_text) if text is not None and text.strip() else None), f"FLASK_{key}"


def _same(value: object, read: object) -> bool:
    return type(value) is type(read) and repr(value) == repr(read)


def _read(text: str, *, as_text: bool = False) -> object:
    """Return *text* as JSON, or as it is; *as_text* keeps numbers and truth values as they are written."""
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return text if as_text and isinstance(value, int | float) else value
