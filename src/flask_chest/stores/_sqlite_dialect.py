"""How SQLite is spoken to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import NoneType

from flask_chest.record import JSONValue
from flask_chest.stores._sql import Condition, Dialect, bindable


def _conditions(where: Mapping[str, JSONValue]) -> Iterator[Condition]:
    for name, value in where.items():
        if not bindable(name):
            continue
        kind = "true" if value is True else "false" if value is False else _JSON_TYPES.get(type(value))
        if kind is None:
            yield f"{_HAS_VARIABLE})", (name,)
        elif isinstance(value, str | int) and bindable(value):
            yield f"{_HAS_VARIABLE} AND type = ? AND atom = ?)", (name, kind, value)
        else:
            yield f"{_HAS_VARIABLE} AND type = ?)", (name, kind)


_HAS_VARIABLE = "EXISTS (SELECT 1 FROM json_each(record.variables) WHERE key = ?"

_JSON_TYPES: dict[type, str] = {
    NoneType: "null",
    int: "integer",
    float: "real",
    str: "text",
    list: "array",
    dict: "object",
}

SQLITE = Dialect(
    quote='"',
    mark="?",
    lock="",  # one transaction writes at a time
    on_conflict="ON CONFLICT ({key}) DO UPDATE SET",
    keep="ON CONFLICT ({key}) DO NOTHING",
    conditions=_conditions,
)
