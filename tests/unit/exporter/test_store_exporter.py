"""A store as the target of an exporter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from flask_chest import Query, Record, RecordRefused, RecordsRejected, StoreUnavailable, TargetUnavailable
from flask_chest.background.export_run import ExportRun
from flask_chest.exporter.store import StoreExporter
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import ExporterContract, make_record


class TestStoreExporter(ExporterContract):
    @pytest.fixture
    def target(self, tmp_path: Path) -> Iterator[SQLiteStore]:
        with closing(SQLiteStore(tmp_path / "target.db")) as target:
            yield target

    @pytest.fixture
    def exporter(self, target: SQLiteStore) -> StoreExporter:
        return StoreExporter(target, name="warehouse")

    @pytest.fixture
    def delivered(self, target: SQLiteStore) -> Callable[[], list[str]]:
        def ids() -> list[str]:
            target.open()
            return [record.id for record in target.query(Query(limit=None))]

        return ids


def test_records_arrive_equal_in_another_store(tmp_path: Path) -> None:
    source = MemoryStore()
    source.open()
    records = [make_record(variables={"n": number, "x": [1, 1.0, True, None, "ü"]}) for number in range(50)]
    source.write(records)
    with closing(SQLiteStore(tmp_path / "target.db")) as target:
        assert ExportRun(source, StoreExporter(target, name="warehouse")).report().delivered == 50
        assert list(target.query(Query(limit=None))) == list(source.query(Query(limit=None)))


def test_target_is_made_and_opened_with_the_first_delivery(tmp_path: Path) -> None:
    path = tmp_path / "target.db"
    exporter = StoreExporter(lambda: SQLiteStore(path), name="warehouse")
    assert not path.exists()
    exporter.export([make_record()])
    exporter.close()
    exporter.export([make_record()])
    exporter.close()
    with closing(SQLiteStore(path)) as target:
        assert target.status().records == 2


class _Sink:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def write(self, records: Sequence[Record], /) -> None:
        raise self.error

    def close(self) -> None:
        """Hold nothing."""


def test_what_a_store_raises_is_what_a_target_raises() -> None:
    record = make_record()
    with pytest.raises(TargetUnavailable, match="gone for lunch"):
        StoreExporter(_Sink(StoreUnavailable("gone for lunch")), name="a").export([record])
    with pytest.raises(RecordsRejected, match="too wide") as rejected:
        StoreExporter(_Sink(RecordRefused("too wide", {record.id: "why"})), name="a").export([record])
    assert rejected.value.reasons == {record.id: "why"}


def test_repr_names_the_exporter_and_nothing_of_its_target() -> None:
    assert repr(StoreExporter(MemoryStore(), name="warehouse")) == "<StoreExporter 'warehouse'>"
