"""The nouns: a record, a question about records, and their exact encoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

import msgspec

if TYPE_CHECKING:
    JSONValue: TypeAlias = "bool | int | float | str | list[JSONValue] | dict[str, JSONValue] | None"
    """Value of a variable: JSON's types, with signed integers of 64 bits and finite floats."""
else:
    JSONValue = object  # msgspec reads the annotations where it decodes records, and knows no recursive type


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

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return all(same_value(getattr(self, name), getattr(other, name)) for name in FIELDS)

    def __ne__(self, other: object) -> bool:
        return not self == other  # msgspec's own does not ask __eq__

    def __hash__(self) -> int:
        return hash(self.id)


FIELDS: tuple[str, ...] = Record.__struct_fields__
"""The names of a record's fields, in their order of definition."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A question to a store; every field that is not ``None`` narrows the answer.

    Times are nanoseconds since 1970 UTC, *since* inclusive and *until* exclusive. *where* asks for variables
    by exact value and type. *limit* bounds the answer; ``None`` means all there is.
    """

    id: str | None = None
    request_id: str | None = None
    trace_id: str | None = None
    route: str | None = None
    method: str | None = None
    status_code: int | None = None
    since_unix_nano: int | None = None
    until_unix_nano: int | None = None
    where: Mapping[str, JSONValue] = {}
    limit: int | None = 100

    def matches(self, record: Record) -> bool:
        """Return whether *record* belongs to the answer: the one definition that every store shares."""
        since, until = self.since_unix_nano, self.until_unix_nano
        return (
            all(getattr(self, name) in (None, getattr(record, name)) for name in COLUMN_FILTERS)
            and (since is None or record.time_unix_nano >= since)
            and (until is None or record.time_unix_nano < until)
            and self.matches_variables(record)
        )

    def matches_variables(self, record: Record) -> bool:
        """Return whether *record* has every variable of *where*, with that very value."""
        variables = record.variables
        return all(name in variables and same_value(variables[name], value) for name, value in self.where.items())


COLUMN_FILTERS = ("id", "request_id", "trace_id", "route", "method", "status_code")
"""The fields of a query that ask for equality with the record's field of the same name."""


def same_value(left: object, right: object) -> bool:
    """Compare two JSON values strictly: 1, 1.0 and ``True`` differ; the order of keys does not matter."""
    if _is_object(left) and _is_object(right):
        return left.keys() == right.keys() and all(same_value(value, right[key]) for key, value in left.items())
    if _is_array(left) and _is_array(right):
        return len(left) == len(right) and all(map(same_value, left, right))
    return type(left) is type(right) and left == right


def _is_object(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, Mapping)


def _is_array(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, object])


def encode_variables(variables: Mapping[str, JSONValue]) -> str:
    """Encode as JSON text from which `decode_variables` makes the equal value.

    Raises ``ValueError`` for text with a lone surrogate, which no database takes as text.
    """
    return _encoder.encode(variables).decode()


def encode_text(text: str) -> str:
    """Encode as `encode_variables` does a name."""
    return _encoder.encode(text).decode()


def decode_variables(text: str | bytes) -> dict[str, JSONValue]:
    """Decode what `encode_variables` made; ``ValueError`` for anything that is not a JSON object."""
    variables: dict[str, JSONValue] = _decoder.decode(text)  # type: ignore[assignment]  # JSON holds JSON values only
    return variables
