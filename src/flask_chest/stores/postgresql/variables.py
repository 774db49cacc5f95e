"""A variable in PostgreSQL."""

from __future__ import annotations

from typing import LiteralString

from flask_chest.stores._indexes import is_indexable
from flask_chest.stores.sql.as_written import AsWritten
from flask_chest.stores.sql.narrowing import VariableSQL
from flask_chest.stores.sql.text_key import TextKey

NUL = "\x01"
"""Character that stands for a NUL, which PostgreSQL does not take: the next one, so that the order stays."""


_SORTED = {"UTF8", "LATIN1", "SQL_ASCII"}
"""Encodings whose bytes sort as code points do; the last one holds what we write, which is UTF-8."""


def of_record(name: str, *, encoding: str = "UTF8") -> VariableSQL | None:
    """Return the variable *name* of a ``record`` in a database of this *encoding*."""
    if not is_indexable(name):
        return None
    json: LiteralString = f"({_document('record.')} -> '{name}')::text"
    read = TextKey(
        key=key(name, "record."),
        json=json,
        number=f"{json}::double precision",
        null_is_absent=True,
        floats_as_written=True,
        cut="left(?, 255)",
        sorts=encoding in _SORTED,
        nul=NUL,
    )
    return AsWritten(name=name, contains="strpos(record.variables::text, ?) > 0", read=read)


def key(name: LiteralString, prefix: LiteralString = "") -> LiteralString:
    """Return the expression that an index is on: with a name that is a literal."""
    return f"""left({_document(prefix)} ->> '{name}', 255) COLLATE "C\""""


def _document(prefix: LiteralString) -> LiteralString:
    # The functions that read JSON refuse an escaped NUL, in whatever variable, and with an index a write would.
    # An escaped backslash is written as another escape first, of which no NUL can be a part.
    variables: LiteralString = f"{prefix}variables"
    return rf"""(CASE
        WHEN strpos({variables}::text, '\u0000') = 0 THEN {variables}
        ELSE replace(replace({variables}::text, '\\', '\u005c'), '\u0000', '\u0001')::json
    END)"""
