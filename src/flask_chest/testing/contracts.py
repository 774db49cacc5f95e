"""What every store and every exporter must do, as tests that any implementation can inherit.

::

    class TestMyStore(StoreContract, OutboxContract):
        @pytest.fixture
        def store(self) -> Iterator[MyStore]:
            with closing(MyStore(...)) as store:
                store.open()
                yield store

Each test gets a store or target of its own, which is empty. Call
``pytest.register_assert_rewrite("flask_chest.testing")`` in ``conftest.py`` for telling failures.
"""
# ruff: noqa: D102 - a test's name states the fact

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from flask_chest.protocols import Exporter, hand_over
from flask_chest.testing.aggregation_contract import AggregatingStore, AggregationContract
from flask_chest.testing.archive_contract import ArchiveContract, ArchivingStore
from flask_chest.testing.deletion_contract import (
    DeletingStore,
    DeletionContract,
    DeletionWithoutOutboxContract,
    ForgettingStore,
    LeasesContract,
)
from flask_chest.testing.index_contract import IndexContract, IndexedStore
from flask_chest.testing.outbox_contract import DeliveringStore, OutboxContract
from flask_chest.testing.records import make_record
from flask_chest.testing.store_contract import NAMES, VALUES, SinkContract, StoreContract

__all__ = [
    "NAMES",
    "VALUES",
    "AggregatingStore",
    "AggregationContract",
    "ArchiveContract",
    "ArchivingStore",
    "DeletingStore",
    "DeletionContract",
    "DeletionWithoutOutboxContract",
    "DeliveringStore",
    "ExporterContract",
    "ForgettingStore",
    "IndexContract",
    "IndexedStore",
    "LeasesContract",
    "OutboxContract",
    "SinkContract",
    "StoreContract",
]


class ExporterContract:
    """What an exporter must do.

    Needs two fixtures: *exporter*, and *delivered*, a function that reads the ids of the records that arrived
    back from the target, each as often as it is there.
    """

    idempotent: ClassVar[bool] = True
    """Whether the target can tell that a record comes again."""

    def test_delivery_returns_nothing_and_arrives(
        self, exporter: Exporter, delivered: Callable[[], Sequence[str]]
    ) -> None:
        records = [make_record() for _ in range(3)]
        hand_over(exporter.export, records)
        assert sorted(delivered()) == sorted(record.id for record in records)

    def test_records_with_any_value_are_delivered(
        self, exporter: Exporter, delivered: Callable[[], Sequence[str]]
    ) -> None:
        records = [make_record(variables={"v": value}) for value in VALUES]
        exporter.export(records)
        assert sorted(delivered()) == sorted(record.id for record in records)

    def test_repeated_delivery_is_there_once(
        self, exporter: Exporter, delivered: Callable[[], Sequence[str]]
    ) -> None:
        records = [make_record() for _ in range(3)]
        exporter.export(records)
        exporter.export(records)
        arrived = delivered() if self.idempotent else set(delivered())
        assert sorted(arrived) == sorted(record.id for record in records)

    def test_empty_batch_delivers_nothing(
        self, exporter: Exporter, delivered: Callable[[], Sequence[str]]
    ) -> None:
        hand_over(exporter.export, [])
        assert list(delivered()) == []

    def test_exporter_may_be_closed_twice(self, exporter: Exporter) -> None:
        exporter.export([make_record()])
        exporter.close()
        exporter.close()

    def test_name_is_not_empty_and_stays(self, exporter: Exporter) -> None:
        name = exporter.name
        assert isinstance(name, str)
        assert name
        exporter.export([make_record()])
        assert exporter.name == name
