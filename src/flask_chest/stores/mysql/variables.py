"""A variable in MySQL and MariaDB: an expression, or the generated column that an index is on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import LiteralString

from flask_chest.stores.sql.narrowing import VariableSQL, is_identifier
from flask_chest.stores.sql.text_key import UNREADABLE, TextKey


def of_record(name: str, *, columns: Mapping[str, LiteralString], mariadb: bool) -> VariableSQL | None:
    """Return the variable *name* of a ``record``, by its column where there is one.

    MariaDB uses no index on a column for the same expression.
    """
    if not is_identifier(name):
        return None
    json = _json(name, "record.")
    column = columns.get(name)
    return TextKey(
        key=key(name, "record.", mariadb=mariadb) if column is None else f"record.{column}",
        json=json,
        number=f"CAST(CAST({json} AS CHAR) AS DOUBLE)",
        floats_as_written=mariadb,  # MySQL has another way of writing some
        has_unreadable=mariadb,
    )


def key(name: LiteralString, prefix: LiteralString = "", *, mariadb: bool) -> LiteralString:
    """Return the expression of which a generated column is made."""
    # Bytewise, and without the older habit to ignore spaces at the end.
    collation: LiteralString = "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"
    return f"LEFT(JSON_UNQUOTE({_json(name, prefix)}), 255) COLLATE {collation}"


def _json(name: LiteralString, prefix: LiteralString) -> LiteralString:
    # MariaDB reads no JSON nested deeper than 32: without the question first, each write of such would fail.
    variables: LiteralString = f"{prefix}variables"
    return f"""IF(JSON_VALID({variables}), JSON_EXTRACT({variables}, '$."{name}"'), {UNREADABLE})"""
