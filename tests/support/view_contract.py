"""What a store that shows flat views must do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, ClassVar, Literal, Protocol, TypeAlias

import pytest

from flask_chest.declared import Declaration, Indexed, Unit, Variables
from flask_chest.errors import ConfigurationError, SchemaError
from flask_chest.protocols import FlatViews, Store
from flask_chest.record import JSONValue
from flask_chest.testing.records import make_record


class Visit(Variables):
    """The variables of the first generation of an app."""

    flag: bool
    user_id: Annotated[int, Indexed()]
    total: Annotated[float, Unit("s")] | None = None
    plan: Literal["free", "pro"] = "free"
    at: datetime
    anything: object
    größe: int  # noqa: PLC2401 - so that one is tried


_NEXT: dict[str, object] = {"__annotations__": {"user_id": str, "plan": str}, "__module__": __name__}
NextVisit = type("Visit", (Variables,), _NEXT)
"""The same class in the next generation, where a field has another type."""

_LIST: list[JSONValue] = [1, "a", None]
_OBJECT: dict[str, JSONValue] = {"a": {"b": [1.5]}}
_HOSTILE: tuple[JSONValue, ...] = (
    *(None, True, False, 0, -0.0, 7, 7.0, 2**63 - 1, -(2**63), 1e308, -1e308, 5e-324, 0.1, 1e-7),
    *("", "7", "true", "a\0b", "\\u0000", "x" * 8192, "\U0001f600", "'; DROP TABLE x; --", '"', "{}", "%s"),
    *([], _LIST, {}, _OBJECT),
)


RunSQL: TypeAlias = Callable[[str], Sequence[Sequence[object]]]


class ViewStore(Store, FlatViews, Protocol):
    """A store that shows flat views."""


class ViewContract:
    """What a store that shows flat views must do.

    Needs the fixtures *store*, a store that is open and empty, and *run_sql*, which runs a statement there.
    """

    quote: ClassVar[str] = '"'
    """Character around names in the store's database."""

    def test_view_has_a_typed_column_for_each_field(self, store: ViewStore, run_sql: RunSQL) -> None:
        record = make_record(
            status_code=201,
            variables={
                "flag": True,
                "user_id": 7,
                "total": 3,
                "plan": "pro",
                "at": "2026-11-23T12:00:00+00:00",
                "anything": [1, {"a": None}],
                "größe": 2**53 + 1,
                "other": "x",
            },
        )
        store.write([record])
        self._make(store)
        (row,) = self._select(store, run_sql, "id, status_code, route, flag, user_id, total, plan, at, größe")
        assert list(row) == [record.id, 201, "/", 1, 7, 3.0, "pro", "2026-11-23T12:00:00+00:00", 2**53 + 1]
        assert isinstance(row[5], float)
        ((anything,),) = self._select(store, run_sql, "anything")
        assert str(anything).replace(" ", "") == '[1,{"a":null}]'

    def test_what_is_absent_or_of_another_kind_is_null(self, store: ViewStore, run_sql: RunSQL) -> None:
        held: Sequence[Mapping[str, JSONValue]] = [
            {},
            {"flag": 1, "user_id": "7", "total": "dear", "plan": 1, "at": None},
            {"flag": "true", "user_id": 7.5, "total": True, "plan": ["pro"], "at": {}},
            {"flag": None, "user_id": True, "total": [1], "plan": True, "at": 7},
        ]
        store.write([make_record(variables=variables) for variables in held])
        self._make(store)
        found = self._select(store, run_sql, "flag, user_id, total, plan, at")
        assert [list(row) for row in found] == [[None] * 5] * len(held)

    def test_no_value_makes_the_view_fail(self, store: ViewStore, run_sql: RunSQL) -> None:
        names = [field.name for field in Declaration(Visit).fields]
        store.write([make_record(variables=dict.fromkeys(names, value)) for value in _HOSTILE])
        self._make(store)
        assert len(self._select(store, run_sql, ", ".join(["time", *names]))) == len(_HOSTILE)
        (largest,) = self._select(store, run_sql, "max(user_id)")
        assert int(str(largest[0])) == 2**63 - 1

    def test_no_value_makes_a_write_fail_where_there_is_a_view(self, store: ViewStore, run_sql: RunSQL) -> None:
        self._make(store)
        names = [field.name for field in Declaration(Visit).fields]
        store.write([make_record(variables=dict.fromkeys(names, value)) for value in _HOSTILE])
        assert len(self._select(store, run_sql, ", ".join(["time", *names]))) == len(_HOSTILE)

    def test_view_is_there_once_it_was_made_and_stays_while_it_is_the_same(self, store: ViewStore) -> None:
        declaration = Declaration(Visit)
        assert store.view_state(declaration) == "absent"
        store.make_view(declaration)
        assert store.view_state(declaration) == "same"
        store.make_view(declaration)
        assert store.view_state(Declaration(Visit)) == "same"

    def test_view_of_a_class_that_changed_is_different_and_is_replaced(
        self, store: ViewStore, run_sql: RunSQL
    ) -> None:
        store.write([make_record(variables={"user_id": 7}), make_record(variables={"user_id": "seven"})])
        self._make(store)
        changed = Declaration(NextVisit)
        assert store.view_state(changed) == "different"
        assert {row[0] for row in self._select(store, run_sql, "user_id")} == {7, None}
        store.make_view(changed)
        assert store.view_state(changed) == "same"
        assert store.view_state(Declaration(Visit)) == "different"
        assert {row[0] for row in self._select(store, run_sql, "user_id")} == {"seven", None}

    def test_statements_for_review_make_the_view(self, store: ViewStore) -> None:
        declaration = Declaration(Visit)
        statements = store.view_sql(declaration)
        assert store.view_name(declaration) in statements
        assert statements.endswith(";\n")

    def test_name_that_a_table_of_somebody_else_has_is_refused(self, store: ViewStore, run_sql: RunSQL) -> None:
        # A view of theirs, as here of another class under a name that was not marked, or a table.
        declaration = Declaration(type("Schema2", (Variables,), {"__annotations__": {"x": int}}))
        run_sql(f"CREATE TABLE {self.quote}{store.view_name(declaration)}{self.quote} (x integer)")
        with pytest.raises(
            SchemaError, match="that flask_chest did not make, where the view of Schema2 would be"
        ):
            store.view_state(declaration)
        with pytest.raises(SchemaError, match="rename the class, or it"):
            store.make_view(declaration)

    def test_name_that_is_too_long_is_refused(self, store: ViewStore) -> None:
        declaration = Declaration(type("V" * 60, (Variables,), {"__annotations__": {"x": int}}))
        with pytest.raises(ConfigurationError, match="longer than 63 bytes: give the class"):
            store.make_view(declaration)

    def _make(self, store: ViewStore) -> None:
        store.make_view(Declaration(Visit))

    def _select(self, store: ViewStore, run_sql: RunSQL, columns: str) -> Sequence[Sequence[object]]:
        view = f"{self.quote}{store.view_name(Declaration(Visit))}{self.quote}"
        return run_sql(f"SELECT {columns} FROM {view}")
