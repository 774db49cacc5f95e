"""What the SQL stores share: their columns, their rows, their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import LiteralString, TypeAlias

from flask_chest.errors import ConfigurationError, SchemaError
from flask_chest.record import Record, decode_variables
from flask_chest.stores._storable import SCALARS, storable_rows

SQLValue: TypeAlias = str | int | None

COLUMNS: tuple[str, ...] = (*SCALARS, "variables")
"""The columns of a record's row, in order."""

COLUMN_LIST = ", ".join(COLUMNS)

MAX_IDENTIFIER = 63
"""Bytes; PostgreSQL cuts what is longer, and two names may be cut to one."""

_SUFFIXES = {
    "records": "",
    "variables": "_variables",
    "exporters": "_exporters",
    "rejected": "_rejected",
    "deletions": "_deletions",
    "schema": "_schema",
}
_MAX_NAME = MAX_IDENTIFIER - max(map(len, _SUFFIXES.values()))
_NAME = re.compile(rf"(?!(?i:sqlite_))[A-Za-z_][A-Za-z0-9_-]{{0,{_MAX_NAME - 1}}}")


record_rows = storable_rows
"""Make the rows of records in the order of `COLUMNS`; `RecordRefused` names those that cannot come back equal."""


def row_record(row: Sequence[object]) -> Record:
    """Make the record that `record_rows` made *row* from."""
    fields = dict(zip(COLUMNS, row, strict=True))
    if fields["trace_remote"] is not None:
        fields["trace_remote"] = bool(fields["trace_remote"])  # SQLite and MySQL keep it as an integer
    try:
        fields["variables"] = decode_variables(str(fields["variables"]))
    except ValueError as exc:
        raise SchemaError(
            f"the variables of record {fields['id']} are not a JSON object; correct or delete its row"
        ) from exc
    return Record(**fields)  # type: ignore[arg-type]  # the columns hold what record_rows put there


def storable_reason(reason: str) -> str:
    """Make a target's words storable: they may hold what no database takes as text."""
    return reason.encode(errors="replace").decode().replace("\0", "\ufffd")


class Tables:
    """The names of one chest's tables, made from the prefix *name*."""

    def __init__(self, name: str, *, quote: str = '"') -> None:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"name must be at most {_MAX_NAME} ASCII letters, digits, _ or -, begin with a letter or _, "
                f"and not begin with sqlite_, got {name!r}"
            )
        self.name = name
        self.names = {role: name + suffix for role, suffix in _SUFFIXES.items()}
        self._fields = {role: f"{quote}{table}{quote}" for role, table in self.names.items()}
        self._fields |= {"name": name, "columns": COLUMN_LIST}

    def sql(self, template: LiteralString) -> str:
        """Fill in the quoted names, as ``{records}``, the ``{columns}`` of a record and the bare ``{name}``.

        The template is a literal, so that no value gets into a statement but as a parameter.
        """
        return template.format_map(self._fields)
