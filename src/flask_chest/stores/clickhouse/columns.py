"""Columns that the table of the records has for single variables, beside the map that holds all of them.

Each is worked out from the map: by the server when a record is written, and when it is read where the column came
later. So it says what the map says, and a question that needs it reads it alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from flask_chest.declared import Field, Kind
from flask_chest.stores.clickhouse.text import literal, quoted

AS_JSON = "variable_"
"""What the name of a column begins with that holds a variable as the map does, as JSON."""
AS_FLOAT = "float_"
"""What the name of a column begins with that holds the numbers of a variable."""

_AS_DECLARED: Mapping[Kind, tuple[str, str]] = {
    "bool": ("Bool", "multiIf({json} = 'true', true, {json} = 'false', false, NULL)"),
    "int": ("Int64", "toInt64OrNull({json})"),
    "float": ("Float64", "toFloat64OrNull({json})"),
    "text": ("String", "if(startsWith({json}, '\"'), JSONExtractString({json}), NULL)"),
}
"""Type of the column for each kind of a declared variable, and its value; what is of another kind is NULL."""


def in_map(name: str) -> str:
    """Return the SQL of the variable *name* as JSON, which is empty where there is none."""
    return f"variables[{literal(name)}]"


def column_of_json(name: str) -> str:
    """Return what adds the column of the variable *name* as JSON to a table."""
    return _column(f"{AS_JSON}{name}", "String", in_map(name))


def typed_column(field: Field) -> str | None:
    """Return the name of the column of a declared *field*, or ``None`` for one of any kind, which has none."""
    return f"{field.kind}_{field.name}" if field.kind in _AS_DECLARED else None


def column_of_field(column: str, field: Field) -> str:
    """Return what adds the typed *column* of a declared *field* to a table."""
    of_type, value = _AS_DECLARED[field.kind]
    return _column(column, f"Nullable({of_type})", value.format(json=in_map(field.name)))


def _column(name: str, of_type: str, value: str) -> str:
    return f"ADD COLUMN IF NOT EXISTS {quoted(name)} {of_type} MATERIALIZED {value} CODEC(ZSTD(1))"
