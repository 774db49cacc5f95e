"""What the SQL stores share: their columns, their rows, their names."""

from __future__ import annotations

import logging
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any, LiteralString, Protocol, TypeAlias

from flask_chest.errors import ConfigurationError, SchemaError
from flask_chest.record import JSONValue, Record, decode_variables
from flask_chest.stores._records import SCALARS

if TYPE_CHECKING:
    from flask_chest.stores.sql.narrowing import Variables
    from flask_chest.stores.sql.views import ViewSyntax

logger = logging.getLogger("flask_chest.stores")

SQLValue: TypeAlias = str | float | None

Condition: TypeAlias = tuple[LiteralString, tuple[SQLValue, ...]]
"""SQL that is true or false, and the values of its question marks."""

COLUMNS: tuple[str, ...] = (*SCALARS, "variables")
"""The columns of a record's row, in order."""

COLUMN_LIST = ", ".join(COLUMNS)

MANY_IDS = 200
"""Ids in one statement: then it is no longer than the least that a MySQL may be set to take."""

MAX_IDENTIFIER = 63
"""Bytes in a name; PostgreSQL cuts what is longer, and two names may be cut to one."""

TABLE_SUFFIXES = {
    "records": "",
    "variables": "_variables",
    "exporters": "_exporters",
    "rejected": "_rejected",
    "deletions": "_deletions",
    "forgotten": "_forgotten",
    "leases": "_leases",
    "schema": "_schema",
}
_MAX_NAME = MAX_IDENTIFIER - max(map(len, TABLE_SUFFIXES.values()))
_NAME = re.compile(rf"(?!(?i:sqlite_))[A-Za-z_][A-Za-z0-9_-]{{0,{_MAX_NAME - 1}}}")


def row_record(row: Sequence[Any]) -> Record:
    """Make the record that `storable_rows` made *row* from."""
    # By position and name: a third of the time that a dictionary in between takes, and exporters wait for it.
    (
        record_id,
        request_id,
        time_unix_nano,
        duration_ns,
        method,
        route,
        endpoint,
        status_code,
        error,
        trace_id,
        span_id,
        trace_flags,
        trace_remote,
        instance,
        sample_rate,
        variables,
    ) = row
    return Record(
        id=record_id,
        request_id=request_id,
        time_unix_nano=time_unix_nano,
        duration_ns=duration_ns,
        method=method,
        route=route,
        endpoint=endpoint,
        status_code=status_code,
        instance=instance,
        error=error,
        trace_id=trace_id,
        span_id=span_id,
        trace_flags=trace_flags,
        # SQLite and MySQL keep it as an integer.
        trace_remote=None if trace_remote is None else bool(trace_remote),
        variables=_variables(record_id, variables),
        sample_rate=sample_rate,
    )


def _variables(record_id: str, text: str) -> dict[str, JSONValue]:
    try:
        return decode_variables(str(text))
    except ValueError as exc:
        raise SchemaError(
            f"the variables of record {record_id} are not a JSON object; correct or delete its row"
        ) from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """Where the statements that the SQL stores share differ from one database to the other."""

    mark: str
    """The driver's mark for a value; statements are written with question marks."""
    lock: str
    """End of a SELECT whose rows no other transaction may change before this one ends."""
    variables: Callable[[Session, Tables], Variables]
    """What narrows a search by a variable's name, as far as the database has it now."""
    value: Callable[[str], Condition]
    """Function that returns the variable of a name of a ``record`` as JSON text; NULL where there is none.

    Equal numbers and texts are written alike, byte by byte, but for 0.0 and -0.0.
    """
    number: LiteralString
    """The number in a ``{value}`` in double precision; NULL where that holds no number."""
    written: LiteralString
    """The text of a scalar, bound as JSON, as it is in a ``value``."""
    seconds: LiteralString
    """The duration of a record in double precision."""
    status_class: LiteralString
    """The first digit of a status code."""
    weight: LiteralString
    """For how many millionths of a request a record counts, as a whole number."""
    view: ViewSyntax
    quote: str = '"'
    """Character around names."""
    on_conflict: LiteralString = "ON CONFLICT ({key}) DO UPDATE SET"
    """Words between an INSERT and the assignments made where there is such a row; with a ``{key}``."""
    keep: LiteralString = "ON CONFLICT ({key}) DO NOTHING"
    """End of an INSERT that leaves such a row as it is; with a ``{key}``, and its ``{first}`` column."""
    divide: LiteralString = "/"
    """Operator that divides whole numbers."""
    once: LiteralString = " LIMIT 9223372036854775807"
    """End of a SELECT within another whose columns are then made once, and not at each use."""
    percentiles: LiteralString = ""
    """The numbers that a ``{number}`` has at each of the ``{fractions}`` of a group, as an array.

    A fraction f of n numbers is that of rank ceil(f * n), in double precision. Empty where there is no such
    aggregate: then the records are numbered by a window function.
    """
    reached: LiteralString = ""
    """How many of the ``{bounds}`` a ``{number}`` has reached, NULL for none; empty where comparisons tell."""
    has_grouping_sets: bool = False
    """Whether a statement may group in several ways at once."""
    keeps_found: bool = False
    """Whether what several statements read is kept for them in a temporary table."""
    has_slow_windows: bool = False
    """Whether it takes long to number all records by a window function."""
    by_hash: LiteralString = ""
    """Statements before those that add up groups, where the database would sort all records for them."""
    by_rank: LiteralString = ""
    """Statements before those that sort numbers, where the database takes reading them to be cheap."""
    misjudges_equal: bool = False
    """Whether it takes an index for what equals one value, however many records do; of a range it knows."""
    scan: LiteralString = ""
    """Words after a table that is to be read from end to end; empty where the database itself knows when to."""


def by_column(chunks: Iterable[Sequence[Sequence[Any]]]) -> list[list[Any]]:
    """Return the columns of the rows in *chunks*."""
    columns: list[list[Any]] = []
    for rows in chunks:
        if rows and not columns:
            columns = [[] for _ in rows[0]]
        # Not zip(*rows), whose thousands of iterators make the garbage collector run.
        for at, column in enumerate(columns):
            column.extend(map(itemgetter(at), rows))
    return columns


class Session(Protocol):
    """One connection while it is lent, in its transaction if it has one."""

    @abstractmethod
    def rows(self, sql: str, values: Sequence[SQLValue] = (), /) -> list[tuple[Any, ...]]:
        """Fetch all that a SELECT finds; what a column holds is known where it is asked for."""

    def columns(self, sql: str, values: Sequence[SQLValue] = (), /) -> list[list[Any]]:
        """Fetch all that a SELECT finds by column; none where it finds nothing."""
        return by_column([self.rows(sql, values)])

    @abstractmethod
    def change(self, sql: str, values: Sequence[SQLValue] = (), /) -> int:
        """Run another statement; return how many rows it changed."""

    @abstractmethod
    def change_many(self, sql: str, rows: Sequence[Sequence[SQLValue]], /) -> None:
        """Run a statement for each of *rows*."""

    @abstractmethod
    def now_unix_nano(self) -> int:
        """Return the time by the database's clock, by which leases end."""


class Database(Protocol):
    """Lends connections; what their driver raises comes out as one of our errors."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[Session]:
        """Lend a session for single statements."""

    @abstractmethod
    def answering(self, *, timeout: timedelta | None) -> AbstractContextManager[Session]:
        """Lend a session for the statements of one answer, which read one snapshot of the database.

        When *timeout* is over, from the beginning of the block, the statement that runs is ended in the
        database and raises `QueryTimeout`, and so does each later one. A statement that any exception
        interrupts, such as Ctrl-C, is ended there too.
        """

    @abstractmethod
    def writing(self) -> AbstractContextManager[Session]:
        """Lend a session in a transaction: committed at the end, rolled back after any exception."""

    @abstractmethod
    def recording(self) -> AbstractContextManager[Session]:
        """Lend a session in a transaction that records are written in: there is one at a time."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections, those in use when they come back; later users get new ones."""


def table_names(name: str) -> dict[str, str]:
    """Return the names of the tables of the chest *name*, and of its view, by their roles."""
    return {role: name + suffix for role, suffix in TABLE_SUFFIXES.items()}


class Tables:
    """The names of one chest's tables, made from the prefix *name*."""

    def __init__(self, name: str, dialect: Dialect) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"name must be at most {_MAX_NAME} ASCII letters, digits, _ or -, begin with a letter or _, "
                f"and not begin with sqlite_, got {name!r}"
            )
        self.name = name
        self.names = table_names(name)
        self.dialect = dialect
        self._fields = {role: f"{dialect.quote}{table}{dialect.quote}" for role, table in self.names.items()}
        self._fields |= {"name": name, "columns": COLUMN_LIST, "lock": dialect.lock}

    def sql(self, template: LiteralString, *, many: int = 0, rows: int = 0, width: int = len(COLUMNS)) -> str:
        """Fill in the quoted names, as ``{records}``, the ``{columns}`` of a record and the bare ``{name}``.

        The template is a literal, so that no value gets into a statement but as a parameter, which is written
        as a question mark; ``{many}`` stands for as many as *many* says, and ``{rows}`` for as many
        *rows* of *width* values, the ``{columns}`` of a record unless said.
        """
        row = f"({', '.join('?' * width)})"
        fields = self._fields | {"many": ", ".join("?" * many), "rows": ", ".join([row] * rows)}
        return template.format_map(fields).replace("?", self.dialect.mark)

    def upsert(self, insert: LiteralString, *, key: LiteralString, assignments: LiteralString) -> str:
        """Make an INSERT that makes *assignments* to the row with the same *key* where there is one."""
        return self.sql(f"{insert} {self.dialect.on_conflict.format(key=key)} {assignments}")

    def insert_new(self, insert: LiteralString, *, key: LiteralString) -> str:
        """Make an INSERT that leaves the row with the same *key* as it is where there is one."""
        first = key.partition(",")[0]
        return self.sql(f"{insert} {self.dialect.keep.format(key=key, first=first)}")


class SQLPart:
    """A part of an SQL store: what all parts work on."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._database = database
        self._tables = tables
