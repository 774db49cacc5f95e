"""Flat views in ClickHouse: a row for each record, and a typed column for each field of a class of variables."""
# ruff: noqa: S608 - all that comes from outside is a literal

from __future__ import annotations

from hashlib import sha256

from flask_chest.declared import Declaration
from flask_chest.errors import ConfigurationError, SchemaError
from flask_chest.protocols import FlatViews, ViewState
from flask_chest.stores.clickhouse.columns import column_of_field, in_map, typed_column
from flask_chest.stores.clickhouse.schema import ClickHousePart
from flask_chest.stores.clickhouse.text import literal, quoted

MAX_NAME = 63
"""Bytes in the name of a view, as in the other databases."""
_MARK = "flask_chest view"
_DIGITS = 16
_COLUMNS = (
    "id, request_id, time_unix_nano, fromUnixTimestamp64Nano(time_unix_nano, 'UTC') AS time, duration_ns, method,"
    " route, endpoint, status_code, error, trace_id, span_id, trace_flags, trace_remote, instance, sample_rate"
)


class ClickHouseViews(ClickHousePart, FlatViews):
    """Makes views, and recognises its own by their comment.

    Each shows typed columns that the table gets with it. A class that is declared otherwise shows others, and the
    former ones stay: two generations of an app may run at once.
    """

    def view_name(self, declaration: Declaration, /) -> str:
        """Return the name of the view of *declaration*."""
        name = f"{self._database.name}_{declaration.view}"
        if len(name.encode()) > MAX_NAME:
            raise ConfigurationError(
                f"the view of {declaration.declared.__name__} would be named {name!r}, which is longer than "
                f"{MAX_NAME} bytes: give the class or the chest a shorter name"
            )
        return name

    def view_sql(self, declaration: Declaration, /) -> str:
        """Return the statements that make or replace the view of *declaration*."""
        return "".join(f"{statement};\n" for statement in self._view_statements(declaration))

    def view_state(self, declaration: Declaration, /) -> ViewState:
        """Return whether the view of *declaration* is there, and as it is declared."""
        self._schema.check()
        name = self.view_name(declaration)
        view = self._database.tables(name).get(name)
        if view is None:
            return "absent"
        if not view.comment.startswith(_MARK):
            raise SchemaError(
                f"the database has a table or view {name!r} that flask_chest did not make, where the view of "
                f"{declaration.declared.__name__} would be: rename the class, or it"
            )
        return "same" if view.comment == self._mark(declaration) else "different"

    def make_view(self, declaration: Declaration, /) -> None:
        """Make the view of *declaration*, or replace that of an earlier declaration."""
        if self.view_state(declaration) != "same":
            for statement in self._view_statements(declaration):
                self._database.run(statement)

    def _view_statements(self, declaration: Declaration) -> list[str]:
        database = self._database
        columns = {column: field for field in declaration.fields if (column := typed_column(field)) is not None}
        changes = [
            ", ".join(column_of_field(column, field) for column, field in columns.items()),
            ", ".join(f"MATERIALIZE COLUMN {quoted(column)}" for column in columns),
        ]
        view = database.table(f"_{declaration.view}")
        make = (
            f"CREATE OR REPLACE VIEW {view}{database.on_cluster} AS {self._select(declaration)}"
            f" COMMENT {literal(self._mark(declaration))}"
        )
        return [*(f"{self._alter} {change}" for change in changes if change), make]

    def _select(self, declaration: Declaration) -> str:
        database = self._database
        columns = [_COLUMNS]
        for field in declaration.fields:
            column = typed_column(field)
            value = f"nullIf({in_map(field.name)}, '')" if column is None else quoted(column)
            columns.append(f"{value} AS {quoted(field.name)}")
        where = f"time_unix_nano >= {database.cut_off}"
        return f"SELECT {', '.join(columns)} FROM {database.records} FINAL WHERE {where}"

    def _mark(self, declaration: Declaration) -> str:
        return f"{_MARK} {sha256(self._select(declaration).encode()).hexdigest()[:_DIGITS]}"
