"""The flat view of a class of variables: a row for each record, and a typed column for each field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import LiteralString

from flask_chest.declared import Declaration, Kind
from flask_chest.errors import ConfigurationError, SchemaError, StoreError
from flask_chest.protocols import FlatViews, ViewState
from flask_chest.stores.sql.tables import MAX_IDENTIFIER, SQLPart

_MARK = "flask_chest view"
_DIGITS = 16
_COLUMNS: LiteralString = (
    "record.id, request_id, time_unix_nano, {time} AS time, duration_ns, method, route, endpoint, status_code, "
    "error, trace_id, span_id, trace_flags, trace_remote, instance, sample_rate"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSyntax:
    """How a database writes flat views. No value that a record may hold makes one of these fail."""

    time: LiteralString
    """Time at which the request of a record began, in the database's own type."""
    source: LiteralString
    """What follows FROM, of the table ``{records}``."""
    variable: LiteralString
    """The variable ``{name}`` as JSON; NULL where there is none."""
    columns: Mapping[Kind, LiteralString]
    """Kind → column of the ``{variable}`` named ``{name}``; NULL where its value is of another kind."""
    definition: LiteralString
    """A SELECT of the text of the view of a name, which is empty for a table; no row where there is neither."""
    replace: tuple[LiteralString, ...]
    """What is run to put the view ``{view}`` in the place of a former one, with ``{select}``."""


class SQLViews(SQLPart, FlatViews):
    """Makes views, and recognises its own by a constant in their text, which every database keeps."""

    def view_name(self, declaration: Declaration, /) -> str:
        """Return the name of the view of *declaration*."""
        name = f"{self._tables.name}_{declaration.view}"
        if len(name.encode()) > MAX_IDENTIFIER:
            raise ConfigurationError(
                f"the view of {declaration.declared.__name__} would be named {name!r}, which is longer than "
                f"{MAX_IDENTIFIER} bytes: give the class or the chest a shorter name"
            )
        return name

    def view_sql(self, declaration: Declaration, /) -> str:
        """Return the statements that make or replace the view of *declaration*."""
        return "".join(f"{statement};\n" for statement in self._statements(declaration))

    def view_state(self, declaration: Declaration, /) -> ViewState:
        """Return whether the view of *declaration* is there, and as it is declared."""
        name = self.view_name(declaration)
        with self._database.reading() as session:
            rows = session.rows(self._tables.sql(self._syntax.definition), (name,))
        if not rows:
            return "absent"
        ((definition,),) = rows
        if definition is None:  # a role that may not read it
            return "same"
        if _MARK not in definition:
            raise SchemaError(
                f"the database has a table or view {name!r} that flask_chest did not make, where the view of "
                f"{declaration.declared.__name__} would be: rename the class, or it"
            )
        return "same" if self._mark(declaration) in definition else "different"

    def make_view(self, declaration: Declaration, /) -> None:
        """Make the view of *declaration*, or replace that of an earlier declaration."""
        if self.view_state(declaration) == "same":
            return
        try:
            with self._database.writing() as session:
                for statement in self._statements(declaration):
                    session.change(statement)
        except StoreError:
            if self.view_state(declaration) != "same":  # another process was first
                raise

    def _statements(self, declaration: Declaration) -> list[str]:
        quote = self._tables.dialect.quote
        view = f"{quote}{self.view_name(declaration)}{quote}"
        select = f"{self._select(declaration)} WHERE '{self._mark(declaration)}' <> ''"
        return [statement.format(view=view, select=select) for statement in self._syntax.replace]

    def _select(self, declaration: Declaration) -> str:
        quote, syntax = self._tables.dialect.quote, self._syntax
        columns = [_COLUMNS.format(time=syntax.time)]
        for field in declaration.fields:
            variable = syntax.variable.format(name=field.name)
            column = syntax.columns[field.kind].format(variable=variable)
            columns.append(f"{column} AS {quote}{field.name}{quote}")
        records = f"{quote}{self._tables.names['records']}{quote}"
        # The names are identifiers, and were looked at when the class was declared.
        return f"SELECT {', '.join(columns)} FROM {syntax.source.format(records=records)}"  # noqa: S608

    def _mark(self, declaration: Declaration) -> str:
        return f"{_MARK} {sha256(self._select(declaration).encode()).hexdigest()[:_DIGITS]}"

    @property
    def _syntax(self) -> ViewSyntax:
        return self._tables.dialect.view
