"""A variable in MySQL and MariaDB: an expression, or the generated column that an index is on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import LiteralString

from flask_chest.stores._indexes import is_indexable
from flask_chest.stores.sql.as_written import AsWritten
from flask_chest.stores.sql.indexes import index_name
from flask_chest.stores.sql.narrowing import Variables, VariableSQL, is_name
from flask_chest.stores.sql.tables import Session, Tables
from flask_chest.stores.sql.text_key import UNREADABLE, TextKey

_OURS = "flask_chest: "
"""Beginning of the comment on our generated columns, before the name of the variable."""


def names_mariadb(version: str) -> bool:
    """Return whether a server of this *version* is MariaDB rather than MySQL."""
    return "mariadb" in version.lower()


def is_mariadb(session: Session) -> bool:
    """Return whether the server is MariaDB rather than MySQL."""
    ((version,),) = session.rows("SELECT version()")
    return names_mariadb(version)


def collation(*, mariadb: bool) -> LiteralString:
    """Return the collation that goes by bytes, without MySQL's older habit to ignore spaces at the end."""
    return "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"


def variables_of(session: Session, tables: Tables) -> Variables:
    """Return what narrows by a variable's name: by its column, where the table has one now.

    MariaDB uses no index on a column for the same expression. Another process may make a column at any time.
    """
    return partial(of_record, columns=columns_of(session, tables), mariadb=is_mariadb(session))


def of_record(name: str, *, columns: Mapping[str, LiteralString], mariadb: bool) -> VariableSQL | None:
    """Return the variable *name* of a ``record``, by its column if *columns* has one for it."""
    if not is_indexable(name):
        return None
    json = _json(name, "record.")
    column = columns.get(name)
    read = TextKey(
        key=key(name, "record.", mariadb=mariadb) if column is None else f"record.`{column}`",
        json=json,
        number=f"CAST(CAST({json} AS CHAR) AS DOUBLE)",
        floats_as_written=mariadb,  # MySQL has another way of writing some
        has_unreadable=mariadb,
    )
    if column is not None:
        return read
    return AsWritten(name=name, contains="INSTR(record.variables, ?) > 0", read=read)


def column_comment(variable: str) -> str:
    """Return the comment by which the column of *variable* is known again."""
    return _OURS + variable


def columns_of(session: Session, tables: Tables) -> Mapping[str, LiteralString]:
    """Look up the generated columns by their variables: before most questions, so in one that is cheap."""
    select = """
        SELECT column_name, column_comment FROM information_schema.columns
        WHERE table_schema = database() AND table_name = '{name}' AND generation_expression <> ''
    """
    return {
        variable: name
        for name, comment in session.rows(tables.sql(select))
        if (variable := str(comment).removeprefix(_OURS)) != comment
        and is_indexable(variable)
        and name == index_name(tables.name, variable)
        and is_name(name)
    }


def key(name: LiteralString, prefix: LiteralString = "", *, mariadb: bool) -> LiteralString:
    """Return the expression of which a generated column is made."""
    return f"LEFT(JSON_UNQUOTE({_json(name, prefix)}), 255) COLLATE {collation(mariadb=mariadb)}"


def _json(name: LiteralString, prefix: LiteralString) -> LiteralString:
    # MariaDB reads no JSON nested deeper than 32: without the question first, each write of such would fail.
    variables: LiteralString = f"{prefix}variables"
    return f"""IF(JSON_VALID({variables}), JSON_EXTRACT({variables}, '$."{name}"'), {UNREADABLE})"""
