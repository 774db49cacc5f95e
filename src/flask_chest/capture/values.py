"""Any Python value → a JSON value that every store can keep.

The conversion is total: it raises nothing, runs no code of an unknown object and ends in bounded time. The
table of forms is in docs/values.md.
"""

from __future__ import annotations

import base64
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite, isnan
from operator import itemgetter
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, TypeAlias, TypeGuard, cast
from uuid import UUID

import msgspec
import uuid_utils
from werkzeug.local import LocalProxy

from flask_chest._process import pass_interruption
from flask_chest.capture.object_fields import fields, mro, tuple_fields
from flask_chest.capture.redaction import MASK, NOTHING_HIDDEN, Redact, Redaction, Verdict
from flask_chest.record import JSONValue, is_number

MAX_VALUE_BYTES = 8 * 1024
"""UTF-8 bytes of text in one variable; what is beyond is cut and marked."""
MAX_RECORD_BYTES = 64 * 1024
"""The same for all variables of a record together, names included."""
MAX_NAME_CHARACTERS = 255
MAX_NAMES = 2_000
"""Keys in the objects of one record, and variables that nobody asked for by name: to look at each takes time."""
MAX_DEPTH = 8

TRUNCATED = "…[truncated]"
CYCLE = "…[cycle]"
TOO_DEEP = "…[too deep]"

_INT64 = 1 << 63
MAX_EXACT = 1 << 53
"""Whole numbers up to this one are the same as floats."""
SMALL_BYTES = 1024
"""Bytes of a record's limit that a value takes at most if it `is_small`."""
_INTEGER_BYTES = 8
_CONSTANT_BYTES = 4
_UNSTORABLE = "[\0\ud800-\udfff]"  # PostgreSQL takes no NUL, UTF-8 no lone surrogate


Encoders: TypeAlias = Mapping[type, Callable[[Any], object]]
"""Type → what makes of its instances something that has a form."""


class ValueRules(msgspec.Struct, frozen=True, kw_only=True):
    """How one chest converts values, and what it hides of them."""

    redaction: Redaction = msgspec.field(default_factory=Redaction)
    encoders: Encoders = MappingProxyType({})
    max_value_bytes: int = MAX_VALUE_BYTES
    max_record_bytes: int = MAX_RECORD_BYTES


class Dropped(Exception):
    """A value that leaves nothing behind."""


def storable_text(text: str) -> str:
    """Replace what some store would refuse, NUL and lone surrogates, by U+FFFD."""
    if text.isascii() and "\0" not in text:
        return text
    return re.sub(_UNSTORABLE, "\ufffd", text)


def is_small(value: object) -> TypeGuard[str | float | None]:
    """Return whether *value* is a scalar that is its own form and takes at most `SMALL_BYTES`."""
    # type(), asked thrice, narrows for mypy; cast() would be a call each time.
    if type(value) is str:
        return value.isascii() and len(value) <= SMALL_BYTES and "\0" not in value
    if type(value) is float:
        return isfinite(value)
    if type(value) is int:
        return -_INT64 <= value < _INT64
    return value is None or type(value) is bool


class _Over(Exception):
    """A value that asks for the app's code when the request is over."""


class Conversion:
    """Converts the variables of one record, within its limits, and hides what its rules say.

    With *over* the request is: no proxy is followed, and no function of the app is called. A value that would
    need that counts as one that raised.
    """

    __slots__ = (
        "_enclosing",
        "_encoders",
        "_left",
        "_max_value_bytes",
        "_objects",
        "_over",
        "_path",
        "_patterns",
        "_redaction",
        "failures",
        "left_in_record",
        "names_left",
    )

    def __init__(self, rules: ValueRules, *, over: bool = False) -> None:
        """Begin with the whole allowance of a record."""
        self._over = over
        self.left_in_record = rules.max_record_bytes
        self.names_left = MAX_NAMES
        self.failures = 0
        """Values that raised while they were read; each became its type's name."""
        self._max_value_bytes = rules.max_value_bytes
        self._encoders = rules.encoders
        self._redaction = rules.redaction
        self._left = 0
        self._objects = False
        self._path = ""
        self._patterns: tuple[Redact, ...] = ()
        self._enclosing: set[int] = set()

    def convert(
        self, value: object, *, objects: bool, path: str = "", verdict: Verdict = NOTHING_HIDDEN
    ) -> JSONValue:
        """Convert one variable's *value*; with *objects* a dataclass, attrs or pydantic object too.

        *verdict* holds what is hidden of the variable of that *path*. Raises `Dropped` if that is all of it.
        """
        if is_small(value) and not verdict.judges and self._max_value_bytes >= SMALL_BYTES:
            return self._small(value) if verdict is NOTHING_HIDDEN else self._small_hidden(value, verdict)
        allowance = self._left = max(0, min(self._max_value_bytes, self.left_in_record))
        self._objects = objects
        self._path, self._patterns = path, ()
        self._enclosing.clear()
        form = self._walk(value, 0) if verdict is NOTHING_HIDDEN else self._of_name(value, path, verdict, 0)
        self.left_in_record -= allowance - max(0, self._left)
        return form

    def _small_hidden(self, value: str | float | None, verdict: Verdict) -> JSONValue:
        """Do what `_of_name` would for a value that is its own form, without the way there."""
        last = verdict.last
        if last is None:
            self._patterns = verdict.patterns
            return self._small(value if value is None else self._cleaned(value))
        if last.action == "drop":
            raise Dropped
        return self._small(MASK if last.action == "mask" else self._redaction.hashed(value))

    def _of_name(self, value: object, path: str, verdict: Verdict, depth: int) -> JSONValue:
        """Convert what has a name of its own, a variable or a key, as the rules for that name say."""
        last = verdict.last
        if last is not None and last.action != "hash" and not verdict.judges:
            return self._hide(last, value, None)
        outer, left = (self._path, self._patterns), self._left
        self._path, self._patterns = path, tuple(dict.fromkeys(self._patterns + verdict.patterns))
        try:
            form = self._walk(value, depth)
        finally:
            self._path, self._patterns = outer
        for rule in verdict.judges:
            if self._condemns(rule, path, form):
                last = rule
                break
        if last is None:
            return form
        self._left = left  # what is hidden takes no room
        return self._hide(last, value, form)

    def _condemns(self, rule: Redact, path: str, form: JSONValue) -> bool:
        if self._over:
            self.failures += 1
            return True
        try:
            return rule.when is not None and bool(rule.when(path, form))
        except BaseException as error:  # noqa: BLE001 - the app's own code; what it cannot judge is hidden
            pass_interruption(error)
            self.failures += 1
            return True

    def _hide(self, rule: Redact, value: object, form: JSONValue) -> JSONValue:
        if rule.action == "drop":
            raise Dropped
        if rule.action == "mask":
            return self._text(MASK)
        # Of a text that was cut the whole: else all that begin alike would be one.
        return self._text(self._redaction.hashed(value if type(value) is str else form))

    def _small(self, value: str | float | None) -> JSONValue:
        if isinstance(value, str):
            self.left_in_record -= len(value)
            return value if self.left_in_record >= 0 else TRUNCATED
        if value is None or isinstance(value, bool):
            self.left_in_record -= _CONSTANT_BYTES
        else:
            self.left_in_record -= _INTEGER_BYTES if isinstance(value, int) else len(repr(value))
        return value

    def _walk(self, value: object, depth: int) -> JSONValue:
        try:
            return self._form(value, depth)
        except Dropped:
            raise
        except BaseException as error:  # noqa: BLE001 - an object's own code may raise anything; the request goes on
            pass_interruption(error)
            self.failures += 1
            return self._text(_type_name(value))

    def _form(self, value: object, depth: int) -> JSONValue:
        kind = type(value)
        if self._over and kind in _RUNS_CODE:
            raise _Over
        if kind is LocalProxy:
            value = cast("LocalProxy[object]", value)._get_current_object()
            kind = type(value)
        if value is None or kind is bool:
            self._left -= _CONSTANT_BYTES
            return cast("bool | None", value)
        if self._encoders and depth < MAX_DEPTH and (encode := self._encoder(kind)) is not None:
            if self._over:
                raise _Over
            return self._walk(encode(value), depth + 1)
        for base, form in _SCALAR_FORMS:
            if issubclass(kind, base):
                return self._scalar(form(value))
        if issubclass(kind, Enum) and depth < MAX_DEPTH:
            return self._walk(cast("Enum", value)._value_, depth + 1)
        return self._container(value, kind, depth)

    def _encoder(self, kind: type) -> Callable[[Any], object] | None:
        return next((self._encoders[base] for base in mro(kind) if base in self._encoders), None)

    def _scalar(self, value: str | float) -> JSONValue:
        if isinstance(value, int):
            if not -_INT64 <= value < _INT64:
                value = _digits(value)
        elif isinstance(value, float) and not isfinite(value):
            value = "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
        if self._patterns:
            value = self._cleaned(value)
        if isinstance(value, str):
            return self._text(value)
        self._left -= len(repr(value))
        return value

    def _cleaned(self, value: str | float) -> str | float:
        """Hide what the patterns find in a text, or in the digits of a number, which is one no more then."""
        if isinstance(value, bool):
            return value
        if not isinstance(value, str):
            digits = repr(value)
            return value if (cleaned := self._cleaned_text(digits)) == digits else cleaned
        return self._cleaned_text(value)

    def _cleaned_text(self, text: str) -> str:
        # Somewhat more than will be kept: what is cut in its middle would not be found.
        cleaned = self._redaction.cleaned(text[: max(0, self._left) + SMALL_BYTES], self._patterns)
        if cleaned is None:
            raise Dropped
        return cleaned

    def _bytes(self, begin: bytes) -> str:
        if self._patterns and (cleaned := self._cleaned_text(text := _decoded(begin))) != text:
            return self._text(cleaned)
        return self._text(base64.b64encode(begin).decode("ascii"))

    def _text(self, text: str) -> str:
        room = max(0, self._left)
        raw = storable_text(text[: room + 1]).encode()
        if len(raw) > room:
            kept = raw[: max(0, room - len(TRUNCATED.encode()))]
            self._left = 0
            return kept.decode(errors="ignore") + TRUNCATED
        self._left -= len(raw)
        return raw.decode()

    def _container(self, value: object, kind: type, depth: int) -> JSONValue:
        if (begin := _bytes_begin(value, kind, self._left + SMALL_BYTES)) is not None:
            return self._bytes(begin)
        if depth >= MAX_DEPTH:
            return self._text(TOO_DEEP)
        if id(value) in self._enclosing:
            return self._text(CYCLE)
        self._enclosing.add(id(value))
        try:
            if (items := _items(value, kind, objects=self._objects)) is not None:
                return self._object(items, depth)
            for base in (list, tuple, deque, set, frozenset):
                if issubclass(kind, base):
                    array = self._array(cast("Callable[[object], Iterable[object]]", base.__iter__)(value), depth)
                    return _in_order(array) if base in (set, frozenset) else array
            return self._text(_type_name(value))
        finally:
            self._enclosing.discard(id(value))

    def _array(self, items: Iterable[object], depth: int) -> list[JSONValue]:
        result: list[JSONValue] = []
        for item in items:
            self._left -= 1
            if self._left <= 0:
                result.append(TRUNCATED)
                break
            result.append(self._walk(item, depth + 1))
        return result

    def _object(self, items: Iterable[tuple[object, object]], depth: int) -> dict[str, JSONValue]:
        result: dict[str, JSONValue] = {}
        for key, item in items:
            name = _key(key)
            self._left -= len(name.encode()) + 1
            self.names_left -= 1
            if self._left <= 0 or self.names_left < 0:
                result[TRUNCATED] = True
                break
            path = f"{self._path}.{name}" if self._redaction.needs_paths else name
            verdict = self._redaction.verdict(name, path)
            with suppress(Dropped):
                kept = self._cleaned_text(name) if self._patterns else name
                result[kept] = (
                    self._walk(item, depth + 1)
                    if verdict is NOTHING_HIDDEN and not self._redaction.needs_paths
                    else self._of_name(item, path, verdict, depth + 1)
                )
        return result


_RUNS_CODE = (LocalProxy, MappingProxyType)
"""Look like containers or like what is behind them, and ask it by its own code."""


def _bytes_begin(value: object, kind: type, size: int) -> bytes | None:
    """Return the first *size* bytes, as a body of megabytes would be cut anyway; ``None`` if *value* has none.

    No view of the value outlives a call of C: an application's thread that resizes it meanwhile would fail.
    And no method is called that a subclass may have replaced, as ``__buffer__``.
    """
    if issubclass(kind, bytes):
        return bytes.__getitem__(cast("bytes", value), slice(size))
    if issubclass(kind, bytearray):
        return bytes(bytearray.__getitem__(cast("bytearray", value), slice(size)))
    if kind is not memoryview:
        return None
    view = cast("memoryview[int]", value)
    if view.ndim == 1 and view.contiguous:
        return b"".join(map(itemgetter(slice(size)), (view,)))
    return view.tobytes()[:size]


def _decoded(data: bytes) -> str:
    """Read *data* as text: of other encodings than UTF-8 the ASCII at least."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


_SCALAR_FORMS: tuple[tuple[type, Callable[[Any], str | float]], ...] = (
    (str, str.__str__),
    (int, int.__index__),
    (float, float.__float__),
    (datetime, datetime.isoformat),
    (date, date.isoformat),
    (time, time.isoformat),
    (timedelta, timedelta.total_seconds),
    (Decimal, Decimal.__str__),
    (UUID, UUID.__str__),
    (uuid_utils.UUID, uuid_utils.UUID.__str__),
    (PurePath, PurePath.__str__),
)
"""The documented forms. Methods are called on the base type: a subclass may have replaced its own."""


def _digits(value: float) -> str:
    try:
        return repr(value)
    except ValueError:  # beyond sys.get_int_max_str_digits(): decimal digits would take quadratic time
        return f"integer of {cast('int', value).bit_length()} bits"


def _key(key: object) -> str:
    if issubclass(type(key), Enum):
        key = cast("Enum", key)._value_
    if key is None or key is True or key is False:
        return {None: "null", True: "true", False: "false"}[key]
    for base, form in _SCALAR_FORMS:
        if issubclass(type(key), base):
            text = form(key)
            return storable_text((text if isinstance(text, str) else _digits(text))[:MAX_NAME_CHARACTERS])
    if (begin := _bytes_begin(key, type(key), MAX_NAME_CHARACTERS)) is not None:
        return storable_text(_decoded(begin))
    return _type_name(key)


def _type_name(value: object) -> str:
    # type's own descriptor: a metaclass may define a property of that name
    return storable_text(str.__str__(type.__dict__["__qualname__"].__get__(type(value))))[:MAX_NAME_CHARACTERS]


def _in_order(values: list[JSONValue]) -> list[JSONValue]:
    """Sort what came from a set, so that equal sets are stored equal."""
    return sorted(values, key=lambda value: (type(value).__name__, value if is_number(value) else 0, repr(value)))


def _items(value: object, kind: type, *, objects: bool) -> Iterable[tuple[object, object]] | None:
    """List the items of a mapping, or the fields of an object that is one in spirit; else ``None``."""
    if issubclass(kind, dict):
        return dict.items(cast("dict[object, object]", value))
    if kind is MappingProxyType:
        return cast("Mapping[object, object]", value).items()
    if issubclass(kind, tuple):
        return tuple_fields(cast("tuple[object, ...]", value), kind)
    found = fields(value, kind) if objects else None
    return None if found is None else (item for item in found if not _key(item[0]).startswith("_"))
