"""The nouns: a record, a question about records, and their exact encoding."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeGuard

import msgspec

from flask_chest.errors import ConfigurationError

if TYPE_CHECKING:
    JSONValue: TypeAlias = "bool | int | float | str | list[JSONValue] | dict[str, JSONValue] | None"
    """Value of a variable: JSON's types, with signed integers of 64 bits and finite floats."""
else:
    JSONValue = object  # msgspec reads the annotations where it decodes records, and knows no recursive type

MAX_LEVELS = 200
"""Levels of arrays and objects that are read: far more than a store takes, and few enough to walk by recursion.

Where a decoder itself gives up differs by Python: at 1,000 levels, at 10,000, or where the stack ends.
"""

SERVER_ERROR = 500
"""Status code from which on a response tells of an error of the app."""
DEFAULT_TOP = 20
"""Number of groups that an aggregate gives, unless it is asked for another one."""


class Record(msgspec.Struct, frozen=True, kw_only=True, eq=False, array_like=True):
    """What one request left behind: its captured variables and its circumstances.

    A ``msgspec.Struct`` rather than a dataclass: it is made in every request, and is made five times faster.
    Equality is strict about types, in variables too: 1, 1.0 and ``True`` are three values.
    """

    id: str
    """UUIDv7, made at capture; the one identity. Writing a record twice keeps it once."""
    request_id: str
    """Request id of at most 255 characters; not unique, as retries and fan-out may share one."""
    time_unix_nano: int
    """Time at which the request began, in nanoseconds since 1970; unique in its process."""
    duration_ns: int
    method: str
    route: str | None
    """The URL rule, as in ``/users/<int:id>``; ``None`` where nothing matched."""
    endpoint: str | None
    status_code: int
    instance: str
    """``host:process``, unique among the live processes that write to one store."""
    error: str | None = None
    """The type name of the exception that ended the request."""
    trace_id: str | None = None
    span_id: str | None = None
    trace_flags: int | None = None
    trace_remote: bool | None = None
    variables: Mapping[str, JSONValue] = {}
    sample_rate: float = 1.0
    """Probability, above 0, with which a request like it is kept: it stands for ``1 / sample_rate`` requests."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return all(same_value(getattr(self, name), getattr(other, name)) for name in FIELDS)

    def __ne__(self, other: object) -> bool:
        return not self == other  # msgspec's own does not ask __eq__

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def is_error(self) -> bool:
        """Whether the request ended in an error of the app: in an exception, or with a status from 500 on."""
        return self.error is not None or self.status_code >= SERVER_ERROR


FIELDS: tuple[str, ...] = Record.__struct_fields__
"""The names of a record's fields, in their order of definition."""


_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}


class Bound(msgspec.Struct, frozen=True, tag="bound"):
    """A number is more or less than another one, or a text comes after or before another by code points.

    Numbers are compared exactly, whole ones with others too. A value of another kind is neither.
    """

    operator: Literal["gt", "ge", "lt", "le"]
    value: int | float | str
    """Number or text."""

    def holds(self, value: JSONValue) -> bool:
        """Return whether *value* is of the same kind and on the right side."""
        same_kind = isinstance(value, str) if isinstance(self.value, str) else is_number(value)
        return same_kind and _COMPARISONS[self.operator](value, self.value)


class OneOf(msgspec.Struct, frozen=True, tag="one_of"):
    """A variable has one of several values, by exact value and type."""

    values: tuple[JSONValue, ...]

    def holds(self, value: JSONValue) -> bool:
        """Return whether *value* is one of them."""
        return any(same_value(value, each) for each in self.values)


class IsSet(msgspec.Struct, frozen=True, tag="is_set"):
    """A record has the variable, whatever its value, ``None`` included."""

    def holds(self, value: JSONValue) -> bool:  # noqa: ARG002 - whatever it is
        """Return True: it is there."""
        return True


Condition: TypeAlias = Bound | OneOf | IsSet
"""What a variable is asked for instead of one value: made by `gt`, `ge`, `lt`, `le`, `one_of` and `is_set`."""
Where: TypeAlias = "Mapping[str, JSONValue | Condition | tuple[Condition, ...]]"
"""Variable → its exact value, a condition that it meets, or several that it meets all."""


def gt(value: float | str, /) -> Condition:
    """Return the condition that a variable is more than *value*, a number, or after it, a text."""
    return _bound("gt", value)


def ge(value: float | str, /) -> Condition:
    """Return the condition that a variable is *value* or more, a number, or after it, a text."""
    return _bound("ge", value)


def lt(value: float | str, /) -> Condition:
    """Return the condition that a variable is less than *value*, a number, or before it, a text."""
    return _bound("lt", value)


def le(value: float | str, /) -> Condition:
    """Return the condition that a variable is *value* or less, a number, or before it, a text."""
    return _bound("le", value)


def one_of(*values: JSONValue) -> Condition:
    """Return the condition that a variable has one of *values*, by exact value and type."""
    return OneOf(values)


def is_set() -> Condition:
    """Return the condition that a record has the variable, whatever its value, ``None`` included."""
    return IsSet()


def _bound(name: Literal["gt", "ge", "lt", "le"], value: object) -> Bound:
    if isinstance(value, str) or (is_number(value) and isfinite(value)):
        return Bound(name, value)
    raise ConfigurationError(f"{name}() compares finite numbers or texts, got a {type(value).__name__}")


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A question to a store; every field that is not ``None`` or empty narrows the answer.

    Times are nanoseconds since 1970 UTC, *since* inclusive and *until* exclusive. *where* asks for variables
    by exact value and type, and *conditions*, each of a variable, must all hold. *status_class* is the first
    digit of a status code, as 5 for 500 to 599; *errors* asks for `Record.is_error`, *error* for an
    exception as it was recorded. *limit* bounds the answer; ``None`` means all there is.
    """

    id: str | None = None
    request_id: str | None = None
    trace_id: str | None = None
    route: str | None = None
    method: str | None = None
    status_code: int | None = None
    status_class: int | None = None
    errors: bool = False
    error: str | None = None
    since_unix_nano: int | None = None
    until_unix_nano: int | None = None
    where: Mapping[str, JSONValue] = {}
    conditions: tuple[tuple[str, Condition], ...] = ()
    limit: int | None = 100

    def matches(self, record: Record) -> bool:
        """Return whether *record* belongs to the answer: the one definition that every store shares."""
        since, until = self.since_unix_nano, self.until_unix_nano
        return (
            all(getattr(self, name) in (None, getattr(record, name)) for name in COLUMN_FILTERS)
            and (since is None or record.time_unix_nano >= since)
            and (until is None or record.time_unix_nano < until)
            and self.status_class in (None, record.status_code // 100)
            and (record.is_error or not self.errors)
            and self.matches_variables(record)
        )

    def matches_variables(self, record: Record) -> bool:
        """Return whether *record* has every variable that is asked for, as it is asked for."""
        variables = record.variables
        return all(
            name in variables and same_value(variables[name], value) for name, value in self.where.items()
        ) and all(name in variables and asked.holds(variables[name]) for name, asked in self.conditions)

    @property
    def asks_for_time_alone(self) -> bool:
        """Whether nothing narrows it but times and the limit, which every database decides exactly."""
        others = msgspec.structs.replace(self, since_unix_nano=None, until_unix_nano=None, limit=None)
        return others == Query(limit=None)

    @property
    def asks_for_variables(self) -> bool:
        """Whether it narrows by variables, which a store may leave to `matches`."""
        return bool(self.where or self.conditions)


COLUMN_FILTERS = ("id", "request_id", "trace_id", "route", "method", "status_code", "error")
"""The fields of a query that ask for equality with the record's field of the same name."""


_SINGLE = frozenset({str, int, float, bool, type(None)})


def same_value(left: object, right: object) -> bool:
    """Compare two JSON values strictly: 1, 1.0 and ``True`` differ; the order of keys does not matter."""
    if type(left) in _SINGLE:  # nearly all of them, and asking for an abstract class takes long
        return type(left) is type(right) and left == right
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same_value(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_value, left, right))
    return type(left) is type(right) and left == right


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether *value* is a number of JSON, which ``True`` is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, object])


class _Object(msgspec.Struct, gc=False):
    """Any object of JSON, of which nothing is kept: thousands of them are nothing to the garbage collector."""


_checker = msgspec.json.Decoder(_Object)


def encode_variables(variables: Mapping[str, JSONValue]) -> str:
    """Encode as JSON text from which `decode_variables` makes the equal value.

    Raises ``ValueError`` for text with a lone surrogate, which no database takes as text.
    """
    return _encoder.encode(variables).decode()


def encode_value(value: JSONValue) -> str:
    """Encode as `encode_variables` does a name or a value."""
    return _encoder.encode(value).decode()


def decode_variables(text: str | bytes) -> dict[str, JSONValue]:
    """Decode what `encode_variables` made; ``ValueError`` for anything that is not a JSON object."""
    # No record is made so deep, but other programs write rows, too.
    try:
        variables: dict[str, JSONValue] = _decoder.decode(text)  # type: ignore[assignment]  # JSON holds JSON values only
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if _may_be_too_deep(text) and is_too_deep(variables):
        raise ValueError(_TOO_DEEP)
    return variables


def check_variables(texts: Sequence[str]) -> None:
    """Raise ``ValueError`` if one of *texts* is not a JSON object, in a fraction of `decode_variables`'s time.

    That of a number which is too large for a record is left to `decode_variables`.
    """
    for text in texts:
        if _may_be_too_deep(text):
            decode_variables(text)
    lines = "\n".join(texts)
    if lines.count("\n") >= len(texts):  # other programs may write one in several lines
        for text in texts:
            _checker.decode(text)
    elif len(_checker.decode_lines(lines)) < len(texts):
        raise ValueError("an empty text is not a JSON object")


_TOO_DEEP = "the variables are nested too deeply"


def _may_be_too_deep(text: str | bytes) -> bool:
    if len(text) <= 2 * MAX_LEVELS:  # as nearly all are
        return False
    if isinstance(text, str):
        return text.count("[") + text.count("{") > MAX_LEVELS
    return text.count(b"[") + text.count(b"{") > MAX_LEVELS


def is_too_deep(value: object) -> bool:
    """Return whether *value* has more than `MAX_LEVELS` of arrays and objects in one another."""
    level: list[Iterable[object]] = [[value]]
    for _ in range(MAX_LEVELS + 1):
        level = [
            inner.values() if isinstance(inner, dict) else inner
            for outer in level
            for inner in outer
            if isinstance(inner, _CONTAINERS)
        ]
        if not level:
            return False
    return True


_CONTAINERS = (dict, list)
