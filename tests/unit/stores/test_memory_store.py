import logging
import multiprocessing

import pytest

from aggregation_property import AggregationProperty
from finding_property import FindingProperty
from flask_chest.errors import SchemaError
from flask_chest.record import JSONValue, Query
from flask_chest.stores._deletions import Dropped
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing.contracts import (
    AggregationContract,
    DeletionContract,
    LeasesContract,
    OutboxContract,
    StoreContract,
)
from flask_chest.testing.records import make_record
from sampled_property import SampledProperty


class TestMemoryStore(
    StoreContract,
    OutboxContract,
    DeletionContract,
    LeasesContract,
    AggregationContract,
    AggregationProperty,
    SampledProperty,
    FindingProperty,
):
    @pytest.fixture
    def store(self) -> MemoryStore:
        store = MemoryStore()
        store.open()
        return store


def test_store_that_was_never_opened_says_so() -> None:
    with pytest.raises(SchemaError, match="this one has not opened the store"):
        MemoryStore().write([make_record()])


def test_closed_store_still_has_its_records() -> None:
    store = MemoryStore()
    store.open()
    record = make_record()
    store.write([record])
    store.close()
    assert list(store.query(Query())) == [record]


def test_variables_that_are_changed_later_stay_as_they_were_written() -> None:
    store = MemoryStore()
    store.open()
    cart: list[JSONValue] = [1]
    store.write([make_record(variables={"cart": cart})])
    cart.append(2)
    assert next(iter(store.query(Query()))).variables == {"cart": [1]}


def test_conflict_is_logged_with_the_id_alone(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    store.open()
    first, second = (make_record(id="the-id", variables={"plan": plan}) for plan in ("hidden-1", "hidden-2"))
    store.write([first])
    store.write([second])
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING]
    assert "the-id" in caplog.text
    assert "hidden" not in caplog.text


def test_forked_child_goes_on_with_a_copy_though_the_lock_was_held() -> None:
    store = MemoryStore()
    store.open()
    store.write([make_record()])

    def write_in_child() -> None:
        store.write([make_record()])
        assert store.status().records == 2

    child = multiprocessing.get_context("fork").Process(target=write_in_child, daemon=True)
    with store._lock.get():
        child.start()
    child.join(10)
    assert child.exitcode == 0
    assert store.status().records == 1


def test_forked_child_counts_what_it_drops_though_the_lock_was_held() -> None:
    dropped = Dropped()
    dropped.add(1)

    def add_in_child() -> None:
        dropped.add(2)
        assert dropped.count == 3

    child = multiprocessing.get_context("fork").Process(target=add_in_child, daemon=True)
    with dropped._lock.get():
        child.start()
    child.join(10)
    assert child.exitcode == 0


def test_repr_counts_and_shows_no_value() -> None:
    store = MemoryStore()
    store.open()
    store.write([make_record(variables={"plan": "hidden"})])
    assert repr(store) == "<MemoryStore records=1>"
