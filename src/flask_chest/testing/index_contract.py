"""What a store that makes indexes on variables must do."""
# ruff: noqa: D102 - a test's name states the fact

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from typing import Protocol

import pytest

from flask_chest.errors import ConfigurationError, StoreUnavailable
from flask_chest.protocols import Store, VariableIndexes
from flask_chest.record import JSONValue, Query, ge, is_set, lt, one_of
from flask_chest.testing.records import make_record
from flask_chest.testing.store_contract import NAMES, VALUES

PATIENCE_SECONDS = 60.0

_UNUSUAL = ("_", "V", "select", "id", "time", "position", "variables", "a1", "x" * 63)
_NO_IDENTIFIERS = (
    *(name for name in NAMES if not name.isidentifier()),
    *("a'b", "x') --", "x\"') , id) --", "`", "a b", "1a", "é", "user_id\n", "x" * 64, "a\0", "{name}", "%s"),
)
_DEEP: JSONValue = 7
for _ in range(60):
    _DEEP = [_DEEP]
_LISTED: list[JSONValue] = [None, "\0", "x" * 8192]
_NESTED: dict[str, JSONValue] = {"user_id": {"user_id": "\0"}}
_HOSTILE: tuple[JSONValue, ...] = (
    *("a\0b", "\0", "\\u0000", "x" * 8192, "\U0001f600" * 2_000, "\x01" * 300, 1e308, -1e308, 5e-324, -0.0),
    *(2**63 - 1, -(2**63), _LISTED, _NESTED, _DEEP),
)


class IndexedStore(Store, VariableIndexes, Protocol):
    """A store that makes indexes."""


class IndexContract:
    """What a store that makes indexes must do; needs the fixture *store*, a store that is open and empty."""

    def test_index_that_is_added_twice_is_there_once(self, store: IndexedStore) -> None:
        assert store.add_index("user_id")
        assert not store.add_index("user_id")
        (index,) = store.indexes()
        assert (index.variable, index.valid) == ("user_id", True)
        assert index.name

    def test_index_that_is_removed_is_gone_and_may_be_made_again(self, store: IndexedStore) -> None:
        assert not store.remove_index("user_id")
        store.add_index("user_id")
        store.add_index("plan")
        assert store.remove_index("user_id")
        assert not store.remove_index("user_id")
        assert [index.variable for index in store.indexes()] == ["plan"]
        assert store.add_index("user_id")
        assert [index.variable for index in store.indexes()] == ["plan", "user_id"]

    def test_index_is_on_the_variable_of_any_identifier(self, store: IndexedStore) -> None:
        assert store.indexes() == []
        for variable in _UNUSUAL:
            assert store.add_index(variable)
        assert [index.variable for index in store.indexes()] == sorted(_UNUSUAL)
        assert len({index.name.lower() for index in store.indexes()}) == len(_UNUSUAL)
        record = make_record(variables=dict.fromkeys(_UNUSUAL, 7))
        store.write([record, make_record()])
        assert [list(store.query(Query(where={name: 7}))) for name in _UNUSUAL] == [[record]] * len(_UNUSUAL)
        assert [store.remove_index(variable) for variable in _UNUSUAL] == [True] * len(_UNUSUAL)

    def test_names_that_begin_alike_or_differ_in_case_have_their_own_indexes(self, store: IndexedStore) -> None:
        variables = ["User_ID", "user_id", "x" * 62 + "a", "x" * 62 + "b"]
        assert [store.add_index(variable) for variable in variables] == [True] * 4
        assert [index.variable for index in store.indexes()] == variables
        records = [make_record(variables={variable: 7}) for variable in variables]
        store.write(records)
        assert [list(store.query(Query(where={name: 7}))) for name in variables] == [[each] for each in records]

    def test_name_that_is_no_identifier_is_refused(self, store: IndexedStore) -> None:
        uses = (store.add_index, store.remove_index, store.index_progress)
        for use, variable in product(uses, _NO_IDENTIFIERS):
            with pytest.raises(ConfigurationError, match="got "):
                use(variable)
        assert store.indexes() == []

    def test_every_value_is_kept_and_found_by_an_index(self, store: IndexedStore) -> None:
        store.add_index("v")
        values = (*VALUES, *_HOSTILE)
        records = [make_record(variables={"w": _DEEP, "v": value, "x": "\0"}) for value in values]
        for record in records:
            store.write([record])
        store.write([make_record(variables={})])
        for query in (Query(where={"v": value}) for value in values):
            assert list(store.query(query)) == [record for record in records[::-1] if query.matches(record)]
        assert list(store.query(Query(conditions=(("v", is_set()),), limit=None))) == records[::-1]

    def test_index_is_made_of_what_is_there_already(self, store: IndexedStore) -> None:
        records = [make_record(variables={"v": value}) for value in (*VALUES, *_HOSTILE)]
        store.write(records)
        assert store.add_index("v")
        assert all(record in store.query(Query(where=record.variables)) for record in records)

    def test_answer_is_the_same_with_and_without_an_index(self, store: IndexedStore) -> None:
        rows: list[dict[str, JSONValue]] = [{"user_id": number % 50, "n": number} for number in range(1_500)]
        rows.extend({"user_id": float(number % 50)} for number in range(100))
        rows.extend(({"user_id": "7"}, {}))
        records = [make_record(variables=row) for row in rows]
        store.write(records)
        queries = [
            Query(where={"user_id": 7}, limit=None),
            Query(where={"user_id": 7}, limit=3),
            Query(where={"user_id": 7.0}, limit=None),
            Query(where={"user_id": "7", "n": 1}, limit=None),
            Query(where={"user_id": 7}, since_unix_nano=records[700].time_unix_nano, limit=None),
            Query(where={"user_id": 7}, until_unix_nano=records[700].time_unix_nano, limit=None),
            Query(conditions=(("user_id", one_of(7, 8, "7")),), limit=None),
            Query(conditions=(("user_id", ge(10)), ("user_id", lt(12.5))), limit=None),
        ]
        before = [list(store.query(query)) for query in queries]
        store.add_index("user_id")
        assert [list(store.query(query)) for query in queries] == before
        store.remove_index("user_id")
        assert [list(store.query(query)) for query in queries] == before
        assert len(before[0]) == 30

    def test_many_may_make_an_index_at_once(self, store: IndexedStore) -> None:
        store.write([make_record(variables={"user_id": number}) for number in range(500)])

        def add(_: int) -> bool:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < deadline:
                with suppress(StoreUnavailable):  # another one makes it, or the two got in the way
                    return store.add_index("user_id")
                time.sleep(0.05)
            raise TimeoutError

        with ThreadPoolExecutor(4) as threads:
            assert any(list(threads.map(add, range(4))))
        assert [(index.variable, index.valid) for index in store.indexes()] == [("user_id", True)]
        assert not store.add_index("user_id")

    def test_progress_of_what_nobody_makes_is_none(self, store: IndexedStore) -> None:
        assert store.index_progress("user_id") is None
        store.add_index("user_id")
        assert store.index_progress("user_id") is None
