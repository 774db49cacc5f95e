"""Indexes on variables in MongoDB: they are used, and others may make, watch and remove them too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.collection import Collection

from finding_property import INDEXED_NAME, FindingProperty
from flask_chest import is_set
from flask_chest.errors import ConfigurationError
from flask_chest.protocols import VariableIndex
from flask_chest.record import JSONValue, Query
from flask_chest.stores.mongodb import MongoDBStore
from flask_chest.stores.mongodb.query import ORDER, condition
from flask_chest.testing.records import make_record
from server_contract import PATIENCE, ids
from servers import DatabaseServer

_numbers = count()
KEYS = [("variables.user_id", 1), ("time_unix_nano", -1), ("_id", -1)]
QUESTION = Query(where={"user_id": 7})


@pytest.fixture(params=["mongodb", "documentdb"], scope="session")
def database(request: pytest.FixtureRequest) -> DatabaseServer:
    server: DatabaseServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def name() -> str:
    return f"indexed_{next(_numbers)}"


@pytest.fixture
def store(database: DatabaseServer, name: str) -> Iterator[MongoDBStore]:
    with closing(MongoDBStore(database.uri, name=name)) as store:
        store.open()
        yield store


@pytest.fixture
def records(database: DatabaseServer, name: str) -> Iterator[Collection[Any]]:
    """The collection, as an administrator sees it."""
    with MongoClient[Any](database.uri) as client:
        yield client["chest"][name]


def _fill(store: MongoDBStore) -> None:
    store.write([make_record(variables={"user_id": number % 50}) for number in range(500)])


@pytest.mark.parametrize("database", ["mongodb"], indirect=True)  # the other engine does not explain
def test_question_for_a_variable_reads_its_index(
    store: MongoDBStore, records: Collection[Any], name: str
) -> None:
    _fill(store)
    store.add_index("user_id")
    found = records.find(condition(QUESTION, before=None), sort=ORDER, limit=500)
    plan = str(found.explain()["queryPlanner"]["winningPlan"])
    assert f"{name}_by_user_id" in plan, plan
    assert "COLLSCAN" not in plan, plan


@pytest.mark.parametrize("database", ["documentdb"], indirect=True)  # the other engine counts no uses
def test_question_for_a_variable_counts_as_a_use_of_its_index(
    store: MongoDBStore, records: Collection[Any], name: str
) -> None:
    _fill(store)
    store.add_index("user_id")

    def uses() -> int:
        counts = {index["name"]: index["accesses"]["ops"] for index in records.aggregate([{"$indexStats": {}}])}
        return int(counts[f"{name}_by_user_id"])

    before, deadline = uses(), time.monotonic() + PATIENCE
    while uses() <= before:  # counts are published a moment later
        assert time.monotonic() < deadline
        assert len(list(store.query(QUESTION))) == 10


# The index of the other engine leaves floats such as 1e-300 out of every range, as of numbers from 0 to 1.
@pytest.mark.parametrize("database", ["documentdb"], indirect=True)
class TestAnswersByAnIndex(FindingProperty):
    """Answers all that is asked for an indexed variable."""

    @pytest.fixture
    def store(self, store: MongoDBStore) -> MongoDBStore:
        store.add_index(INDEXED_NAME)
        return store


@pytest.mark.parametrize(
    "value",
    ["x" * 8_192, "a\0b", None, [1, "x" * 8_192], list(range(2_000)), {"a": {"b": [1]}}, [[1], [2]]],
    ids=["long", "NUL", "None", "list", "long list", "object", "nested"],
)
def test_value_of_any_kind_is_written_and_found(store: MongoDBStore, value: JSONValue) -> None:
    store.add_index("user_id")
    record = make_record(variables={"user_id": value})
    store.write([record, make_record(variables={})])
    assert list(store.query(Query(where={"user_id": value}))) == [record]
    assert list(store.query(Query(conditions=(("user_id", is_set()),)))) == [record]


def test_index_that_an_administrator_made_counts_under_its_name(
    store: MongoDBStore, records: Collection[Any]
) -> None:
    records.create_index(KEYS, name="by_hand")
    assert store.indexes() == [VariableIndex(variable="user_id", name="by_hand")]
    assert not store.add_index("user_id")
    assert store.remove_index("user_id")
    assert store.indexes() == []


def test_other_indexes_of_an_administrator_are_left_alone(store: MongoDBStore, records: Collection[Any]) -> None:
    records.create_index([("variables.user_id", 1)], name="other")
    records.create_index([("variables.cart.total", 1), *KEYS[1:]], name="deeper")
    records.create_index([("method", 1), *KEYS[1:]], name="column")
    assert store.indexes() == []
    assert store.add_index("user_id")
    assert store.remove_index("user_id")
    assert {"other", "deeper", "column"} <= records.index_information().keys()


def test_many_may_make_an_index_at_once(store: MongoDBStore, name: str) -> None:
    _fill(store)
    with ThreadPoolExecutor(4) as threads:
        assert any(threads.map(lambda _: store.add_index("user_id"), range(4)))
    assert store.indexes() == [VariableIndex(variable="user_id", name=f"{name}_by_user_id")]


def test_records_are_written_and_found_while_an_index_is_made(store: MongoDBStore) -> None:
    _fill(store)
    with ThreadPoolExecutor(1) as threads:
        making = threads.submit(store.add_index, "user_id")
        more = [make_record(variables={"user_id": 77}) for _ in range(20)]
        for record in more:
            store.write([record])
        assert making.result(PATIENCE)
    assert ids(list(store.query(Query(where={"user_id": 77})))) == ids(more)


def test_progress_of_what_nobody_makes_is_none(store: MongoDBStore) -> None:
    assert store.index_progress("user_id") is None
    store.add_index("user_id")
    assert store.index_progress("user_id") is None


@pytest.mark.parametrize("variable", ["", "a.b", "1a", "é", "x" * 64, "a\n", "$set"])
def test_name_that_cannot_be_indexed_is_refused(store: MongoDBStore, variable: str) -> None:
    for ask in (store.add_index, store.remove_index, store.index_progress):
        with pytest.raises(ConfigurationError, match="at most 63 ASCII letters, digits or _"):
            ask(variable)
    assert store.indexes() == []
