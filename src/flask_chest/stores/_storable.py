"""What a record must be for every store to give it back equal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from operator import attrgetter
from types import NoneType

from flask_chest.errors import RecordRefused
from flask_chest.record import Record, encode_variables

MIN_INTEGER, MAX_INTEGER = -(1 << 63), (1 << 63) - 1
MAX_DEPTH = 64
"""Of arrays and objects in a variable; databases read JSON that is nested a hundred times and no deeper."""

_TEXT: frozenset[type] = frozenset({str})
_INTEGER: frozenset[type] = frozenset({int})
_ABSENT: frozenset[type] = frozenset({NoneType})

_TYPES: dict[str, frozenset[type]] = {
    "id": _TEXT,
    "request_id": _TEXT,
    "time_unix_nano": _INTEGER,
    "duration_ns": _INTEGER,
    "method": _TEXT,
    "route": _TEXT | _ABSENT,
    "endpoint": _TEXT | _ABSENT,
    "status_code": _INTEGER,
    "error": _TEXT | _ABSENT,
    "trace_id": _TEXT | _ABSENT,
    "span_id": _TEXT | _ABSENT,
    "trace_flags": _INTEGER | _ABSENT,
    "trace_remote": _ABSENT | {bool},
    "instance": _TEXT,
}

SCALARS: tuple[str, ...] = tuple(_TYPES)
"""A record's fields but its variables, in the order in which stores keep them."""

scalars = attrgetter(*SCALARS)


def encode_all(records: Sequence[Record]) -> list[str]:
    """Encode the variables of each of *records*.

    Raises `RecordRefused` with the reasons when some could not be given back equal: databases differ in what
    they silently change, so none of them is asked.
    """
    texts: list[str] = []
    reasons: dict[str, str] = {}
    for record in records:
        try:
            texts.append(_encode(record))
        except ValueError as exc:
            reasons[record.id] = str(exc)
    if reasons:
        raise RecordRefused(f"{len(reasons)} of {len(records)} records cannot be kept as they are", reasons)
    return texts


def _encode(record: Record) -> str:
    for value, (name, kinds) in zip(scalars(record), _TYPES.items(), strict=True):
        if type(value) not in kinds:
            raise ValueError(f"{name} is of the type {type(value).__name__}")
        if (fault := _fault(value, 0)) is not None:
            raise ValueError(f"{name} holds {fault}")
    variables = dict(record.variables)
    for key, value in variables.items():
        if (fault := _name_fault(key) or _fault(value, 0)) is not None:
            raise ValueError(f"variable {key!r} holds {fault}")
    return encode_variables(variables)


def _fault(value: object, depth: int) -> str | None:
    """Say what keeps *value* from being a `JSONValue`, without the value itself."""
    kind = type(value)
    if isinstance(value, str) and kind is str:
        return _text_fault(value)
    if value is None or kind is bool:
        return None
    if isinstance(value, int) and kind is int:
        return None if MIN_INTEGER <= value <= MAX_INTEGER else "an integer beyond 64 bits"
    if isinstance(value, float) and kind is float:
        return None if isfinite(value) else "a float that is not finite"
    return _container_fault(value, depth + 1)


def _container_fault(value: object, depth: int) -> str | None:
    if depth > MAX_DEPTH:
        return f"values nested deeper than {MAX_DEPTH}"
    faults: Iterable[str | None]
    if isinstance(value, list) and type(value) is list:
        faults = (_fault(item, depth) for item in value)
    elif isinstance(value, dict) and type(value) is dict:
        faults = (_name_fault(name) or _fault(item, depth) for name, item in value.items())
    else:
        return f"a {type(value).__name__}, which is not a JSON value"
    return next((fault for fault in faults if fault is not None), None)


def _name_fault(name: object) -> str | None:
    if not isinstance(name, str):
        return f"a name of the type {type(name).__name__}"
    return _text_fault(name)


def _text_fault(text: str) -> str | None:
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a lone surrogate"
    return None
