"""MongoDB as a store, with two engines behind its protocol."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pymongo import MongoClient

from aggregation_property import AggregationProperty
from finding_property import FindingProperty, IndexedFindingProperty
from flask_chest.aggregates import AggregateQuery, Mean, Percentiles, Variable
from flask_chest.errors import StoreUnavailable
from flask_chest.protocols import Claim
from flask_chest.record import JSONValue, Query
from flask_chest.stores.mongodb import MongoDBStore
from flask_chest.stores.mongodb.query import ORDER, condition
from flask_chest.testing.contracts import (
    AggregationContract,
    ArchiveContract,
    DeletionContract,
    IndexContract,
    LeasesContract,
    OutboxContract,
    StoreContract,
)
from flask_chest.testing.records import make_record
from json_values import json_values, texts
from mongodb_commands import Commands
from sampled_property import SampledProperty
from server_contract import (
    PATIENCE,
    MakeStore,
    ServerTroubles,
    children,
    deliver_all,
    ids,
    kept,
    make_varied_records,
    silence,
    write_through,
)
from servers import DatabaseServer

_numbers = count()
MINUTE = timedelta(minutes=1)
SECOND = 1_000_000_000


@pytest.fixture(params=["mongodb", "documentdb"], scope="session")
def database(request: pytest.FixtureRequest) -> DatabaseServer:
    server: DatabaseServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def name() -> str:
    """Collections of its own for each test."""
    return f"chest_{next(_numbers)}"


@pytest.fixture
def make_store(database: DatabaseServer, name: str) -> Iterator[MakeStore]:
    stores: list[MongoDBStore] = []

    def make(uri: str = "", **options: Any) -> MongoDBStore:
        stores.append(MongoDBStore(uri or database.uri, **{"name": name, **options}))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> Any:
    store = make_store()
    store.open()
    return store


@pytest.fixture(scope="session")
def smallest_indexed(database: DatabaseServer) -> float:
    """SecantusDB's keys hold no exponent below -128, and put what is nearer to zero among the largest numbers."""
    with MongoClient[Any](database.uri) as client:
        return 1e-128 if "secantusVersion" in client.server_info() else 0.0


class TestMongoDBStore(
    StoreContract,
    OutboxContract,
    DeletionContract,
    LeasesContract,
    AggregationContract,
    AggregationProperty,
    SampledProperty,
    FindingProperty,
    ArchiveContract,
    IndexContract,
    IndexedFindingProperty,
):
    """Does what every store does."""

    @pytest.fixture(autouse=True)
    def know_the_engine(self, smallest_indexed: float) -> None:
        self.smallest_indexed = smallest_indexed


class TestTroubles(ServerTroubles):
    """Outlives its server."""


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(variables=st.dictionaries(texts, json_values, max_size=4), request_id=texts)
def test_any_variables_come_back_equal_and_are_found(
    store: MongoDBStore, variables: dict[str, JSONValue], request_id: str
) -> None:
    record = make_record(request_id=request_id, variables=variables)
    store.write([record])
    assert record in list(store.query(Query(request_id=request_id, limit=None)))
    assert record in list(store.query(Query(where=variables, limit=None)))


def test_eight_processes_open_it_at_once(make_store: MakeStore) -> None:
    start = multiprocessing.get_context("fork").Barrier(8)

    def open_and_write(number: int) -> None:
        store = make_store()
        start.wait(PATIENCE)
        store.open()
        store.write([make_record(variables={"number": number})])

    with children(8, open_and_write):
        pass
    assert sorted(str(record.variables["number"]) for record in kept(make_store())) == list("01234567")


def test_every_record_of_many_writers_is_claimed_once(store: Any, make_store: MakeStore) -> None:
    def write(number: int) -> None:
        own = make_store()
        batches = [[make_record() for _ in range(5)] for _ in range(8)]
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda batch: write_through(own, batch), batches))

    with children(4, write) as processes:
        delivered = deliver_all(store, until=lambda: not any(process.is_alive() for process in processes))
    assert len(delivered) == 4 * 8 * 5
    assert ids(delivered) == ids(kept(store))


def test_claimers_that_number_at_once_skip_and_double_nothing(store: Any, make_store: MakeStore) -> None:
    records = [make_record() for _ in range(300)]
    others = [make_store() for _ in range(3)]

    def deliver(exporter: int) -> list[str]:
        own = others[exporter]
        delivered: list[str] = []
        while len(delivered) < len(records):
            claim = own.claim(f"exporter {exporter}", limit=20, lease=MINUTE)
            if isinstance(claim, Claim):
                delivered += [record.id for record in claim.records]
                assert own.acknowledge(claim)
        return delivered

    with ThreadPoolExecutor(4) as threads:
        deliveries = [threads.submit(deliver, exporter) for exporter in range(3)]
        write_through(store, records, batch=10)
        for delivery in deliveries:
            assert sorted(delivery.result(PATIENCE)) == ids(records)


def test_numbering_that_was_interrupted_is_finished_by_the_next(store: Any, make_store: MakeStore) -> None:
    records = [make_record() for _ in range(10)]
    store.write(records)
    broken: Any = make_store()

    class Died(BaseException):
        """Stands for a process that is killed in the middle."""

    class Half:
        """Writes the list of what is numbered, and numbers half of it."""

        def __init__(self, collection: Any) -> None:
            self._collection = collection

        def __getattr__(self, attribute: str) -> Any:
            return getattr(self._collection, attribute)

        def bulk_write(self, steps: list[Any], **options: Any) -> None:
            self._collection.bulk_write(steps[5:], **options)
            raise Died

    collections = broken._collections
    named = vars(type(collections))["records"]

    def records_of(self: Any) -> Any:
        records = named.__get__(self, type(self))
        return Half(records) if self is collections else records

    type(collections).records = property(records_of)
    try:
        with pytest.raises(Died):
            broken.claim("a", limit=100, lease=timedelta(0))
    finally:
        type(collections).records = named
    assert ids(deliver_all(store, until=lambda: True)) == ids(records)


def test_fork_between_uses_disturbs_neither_side(store: Any) -> None:
    before, in_child, after = (make_record() for _ in range(3))
    store.write([before])

    def write(_: int) -> None:
        store.write([in_child])
        store.close()

    with children(1, write):
        store.write([after])
    assert ids(kept(store)) == ids([before, in_child, after])


def test_server_that_never_answers_is_given_up(make_store: MakeStore) -> None:
    with silence() as address:
        store = make_store(f"mongodb://{address}/chest", connect_timeout=1.0)
        with pytest.raises(StoreUnavailable):
            store.write([make_record()])


def test_record_that_is_written_while_it_is_forgotten_is_gone(store: Any, make_store: MakeStore) -> None:
    record = make_record(variables={"user_id": 7})
    slow: Any = make_store()
    insert = slow._insert
    entered, go_on = threading.Event(), threading.Event()

    def insert_late(records: Any, **options: Any) -> Any:
        entered.set()
        assert go_on.wait(PATIENCE)
        return insert(records, **options)

    slow._insert = insert_late
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(slow.write, [record])
        assert entered.wait(PATIENCE)
        assert store.forget(Query(where={"user_id": 7})) == 0
        go_on.set()
        writing.result(PATIENCE)
    assert kept(store) == []


@pytest.mark.parametrize("database", ["mongodb"], indirect=True)  # the other engine does not explain
def test_filters_read_an_index(store: Any, name: str, database: DatabaseServer) -> None:
    store.write(make_varied_records(500))
    questions = {
        "request": Query(request_id="r7"),
        "trace": Query(trace_id=f"{7:032x}"),
        "route": Query(route="/7"),
        "status": Query(status_code=200),
        "time": Query(),
    }
    with MongoClient[Any](database.uri) as client:
        for index, question in questions.items():
            found = client["chest"][name].find(condition(question, before=None), sort=ORDER, limit=50)
            plan = str(found.explain()["queryPlanner"]["winningPlan"])
            assert f"{name}_{index}" in plan, plan
            assert "COLLSCAN" not in plan, plan


@pytest.mark.parametrize(
    "question",
    [Query(where={"user_id": 7}), Query(errors=True), Query(method="DELETE")],
    ids=["variable", "errors", "method"],
)
def test_rare_record_that_no_index_knows_is_found_in_one_reading_of_the_old_ones(
    database: DatabaseServer, name: str, question: Query
) -> None:
    now = time.time_ns()
    first, *others = [make_record(time_unix_nano=now - age * SECOND) for age in range(200, 0, -1)]
    rare = replace(first, method="DELETE", error="ValueError", variables={"user_id": 7})
    commands = Commands()
    with closing(MongoDBStore(database.uri, name=name, options={"event_listeners": [commands]})) as store:
        store.open()
        store.write([rare, *others])
        commands.sent.clear()
        assert list(store.query(question)) == [rare]
        finds = [command for command in commands.sent if command.get("find") == name]
        # For the oldest, a second, and eight; then too much is left to fetch each record by an index.
        assert len(finds) <= 4
        assert "time_unix_nano" not in finds[-1]["filter"]
        store.write([later := replace(rare, id="later", time_unix_nano=now + 3600 * SECOND)])
        assert list(store.query(question)) == [later, rare]


def test_batch_to_deliver_is_read_in_one_answer(database: DatabaseServer, name: str) -> None:
    commands = Commands()
    with closing(MongoDBStore(database.uri, name=name, options={"event_listeners": [commands]})) as store:
        store.open()
        store.register("a")
        store.write([make_record() for _ in range(250)])  # a server's first answer has 101 of its own accord
        claim = store.claim("a", limit=1_000, lease=MINUTE)
    assert isinstance(claim, Claim)
    assert len(claim.records) == 250
    assert [command for command in commands.sent if "getMore" in command and command["collection"] == name] == []


def test_mean_and_percentile_of_a_variable_are_found_in_two_readings(database: DatabaseServer, name: str) -> None:
    mean, percentile = Mean(of=Variable("price")), Percentiles(Variable("price"), 95)
    commands = Commands()
    with closing(MongoDBStore(database.uri, name=name, options={"event_listeners": [commands]})) as store:
        store.open()
        store.write([make_record(variables={"plan": "free", "price": price}) for price in range(1, 101)])
        commands.sent.clear()
        row = store.aggregate(AggregateQuery(measures=(mean, percentile), by=(Variable("plan"),))).groups[0]
    assert (row[mean], row[percentile]) == (50.5, {95: 95.0})
    assert sum(command.get("aggregate") == name for command in commands.sent) == 2


def test_records_expire_only_once_every_exporter_has_had_them(
    make_store: MakeStore, name: str, database: DatabaseServer
) -> None:
    store = make_store(expire_after=timedelta(hours=1))
    store.open()
    store.register("slow")
    store.write([make_record() for _ in range(3)])
    with MongoClient[Any](database.uri) as client:
        expiring = partial(client["chest"][name].count_documents, {"expire_at": {"$ne": None}})
        fast = store.claim("fast", limit=10, lease=MINUTE)
        assert isinstance(fast, Claim)
        assert store.acknowledge(fast)
        assert expiring() == 0
        slow = store.claim("slow", limit=2, lease=MINUTE)
        assert isinstance(slow, Claim)
        assert store.acknowledge(slow)
        assert expiring() == 2


def test_client_of_the_app_is_used_and_left_open(database: DatabaseServer, name: str) -> None:
    with MongoClient[Any](database.uri) as client:
        with closing(MongoDBStore(database.uri, name=name, client=client)) as store:
            store.open()
            store.write([make_record()])
        assert client["chest"][name].count_documents({}) == 1
