"""How SQLite is spoken to."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from types import NoneType

import msgspec

from flask_chest.record import JSONValue
from flask_chest.stores._records import bindable
from flask_chest.stores.sql.tables import Condition, Dialect


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

_pieces = msgspec.json.Decoder(dict[str, msgspec.Raw])


def add_functions(connection: sqlite3.Connection) -> None:
    """Let statements on *connection* read a variable exactly.

    SQLite's own functions end a text at a NUL, and not every release reads a float to its last digit.
    """
    connection.create_function("flask_chest_value", 2, _value, deterministic=True)
    connection.create_function("flask_chest_number", 1, _number, deterministic=True)


def _value(variables: str, name: str) -> str | None:
    found = _pieces.decode(variables).get(name)
    return None if found is None else bytes(found).decode()


def _number(value: str | None) -> float | None:
    return float(value) if value is not None and value[0] in "-0123456789" else None


SQLITE = Dialect(
    quote='"',
    mark="?",
    lock="",  # one transaction writes at a time
    on_conflict="ON CONFLICT ({key}) DO UPDATE SET",
    keep="ON CONFLICT ({key}) DO NOTHING",
    conditions=_conditions,
    value="flask_chest_value(record.variables, ?)",
    path=str,
    number="flask_chest_number(value)",
    seen="printf('%d%019d', time_unix_nano >= 0, time_unix_nano & 9223372036854775807) || id",
)
