"""Copies of an SQLite file, by SQLite's online backup."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from flask_chest.errors import ConfigurationError, SchemaError
from flask_chest.stores.sql.schema import SQLSchema
from flask_chest.stores.sqlite.connections import SQLiteConnections, SQLiteSession
from flask_chest.stores.sqlite.files import make_file

PAGES = 2_000
"""Pages that are copied at a time, after which a caller may be told or interrupt."""


def copy_into(database: SQLiteConnections, path: Path, *, progress: Callable[[float], object]) -> None:
    """Write what *database* holds now into the file *path*, whole: nothing is to lie beside it."""
    with database.connection() as connection, closing(sqlite3.connect(path)) as copy:
        shutil.copymode(database.path, path)
        copy.execute("PRAGMA journal_mode = OFF")  # a copy that is interrupted is begun anew
        # A snapshot: without one, each write of others would make the copy begin again. It ends with the loan.
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.backup(
            copy, pages=PAGES, progress=lambda _, left, total: progress(1 - left / total if total else 1.0)
        )
        copy.execute("PRAGMA journal_mode = DELETE")
        _check(copy, path)


def copy_from(database: SQLiteConnections, path: Path, *, schema: SQLSchema, overwrite: bool) -> None:
    """Put the content of the file *path* in place of what *database* holds, in one transaction of SQLite's.

    Other processes may have it open. No file is moved, so that no log of another one is left beside it.
    """
    with _opened(path) as kept:
        _check(kept, path)
        if schema.version(SQLiteSession(kept)) is None:
            raise SchemaError(f"{path} has no chest named {schema.tables.name!r}; is it another file?")
        make_file(database.path)
        with database.connection(create=True) as connection:
            if not overwrite and (filled := _filled(connection, schema)) is not None:
                raise ConfigurationError(f"SQLite {database.path} has {filled}, which would be gone")
            kept.backup(connection)
            connection.execute("PRAGMA journal_mode = WAL")
    database.close()


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            yield connection
    except sqlite3.Error as exc:
        raise SchemaError(f"{path} is no SQLite file that can be read ({exc}); take another backup") from exc


def _check(connection: sqlite3.Connection, path: Path) -> None:
    ((found,),) = connection.execute("PRAGMA integrity_check(1)").fetchall()
    if found != "ok":
        raise SchemaError(f"{path} is damaged ({found}); take another backup")


def _filled(connection: sqlite3.Connection, schema: SQLSchema) -> str | None:
    """Return what is in the file already, or ``None``."""
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    ours = set(schema.tables.names.values())
    if others := sorted(name for (name,) in tables if name not in ours and not name.startswith("sqlite_")):
        return f"the table {others[0]!r} beside the chest"
    if (schema.tables.name,) in tables:
        ((count,),) = connection.execute(schema.tables.sql("SELECT count(*) FROM {records}")).fetchall()
        return f"{count:,} records" if count else None
    return None
