"""What a store must do whose indexes somebody else may make by SQL."""

from __future__ import annotations

from typing import Protocol

import pytest

from flask_chest.errors import ConfigurationError
from flask_chest.protocols import IndexesBySQL, Store
from flask_chest.record import Query
from flask_chest.testing.records import make_record
from view_contract import RunSQL


class StoreWithIndexesBySQL(Store, IndexesBySQL, Protocol):
    """A store that tells how it makes indexes."""


class IndexSQLContract:
    """Needs the fixtures *store*, which is open and empty, and *run_sql*, which runs a statement there."""

    @pytest.mark.parametrize("variable", ["user_id", "Plan", "select", "x" * 63])
    def test_statements_make_the_same_index_by_hand(
        self, store: StoreWithIndexesBySQL, run_sql: RunSQL, variable: str
    ) -> None:
        records = [make_record(variables={variable: number % 10}) for number in range(30)]
        store.write(records)
        for statement in store.index_sql(variable).split(";\n")[:-1]:
            run_sql(statement)
        (by_hand,) = store.indexes()
        assert (by_hand.variable, by_hand.valid) == (variable, True)
        assert store.index_sql(variable) == ""
        assert not store.add_index(variable)
        store.write([make_record(variables={variable: 7})])
        assert len(list(store.query(Query(where={variable: 7})))) == 4
        assert store.remove_index(variable)
        assert store.index_sql(variable) != ""
        assert store.add_index(variable)
        assert store.indexes() == [by_hand]

    def test_to_tell_the_statements_makes_nothing(self, store: StoreWithIndexesBySQL) -> None:
        told = store.index_sql("user_id")
        assert told.endswith(";\n")
        assert store.indexes() == []
        assert store.index_sql("user_id") == told

    @pytest.mark.parametrize("variable", ["a'b", "x') --", "1a", "", "a\0", "%s", "{name}"], ids=ascii)
    def test_statements_for_a_name_that_is_no_identifier_are_refused(
        self, store: StoreWithIndexesBySQL, variable: str
    ) -> None:
        with pytest.raises(ConfigurationError, match="got "):
            store.index_sql(variable)
