"""Backends as a user would write them: mypy and pyright accept this file, and nobody runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import assert_type

from flask import Flask

from flask_chest import (
    Exporter,
    ExportReport,
    FlaskChest,
    FlaskChestSQLite,
    Query,
    Record,
    Sink,
    Store,
)
from flask_chest.exporter import FlaskChestExporterInfluxDB
from flask_chest.protocols import StoreStatus


class ListStore:
    """Inherits nothing, and calls its parameters what it likes."""

    def __init__(self) -> None:
        self.kept: list[Record] = []

    def open(self) -> None: ...

    def write(self, batch: Sequence[Record], /) -> None:
        self.kept.extend(batch)

    def query(self, question: Query, /, *, timeout: timedelta | None = None) -> Iterator[Record]:
        return iter([record for record in self.kept if question.matches(record)])

    def status(self) -> StoreStatus:
        return StoreStatus(description="a list", records=len(self.kept))

    def close(self) -> None: ...


class SizedStore(ListStore):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class ExplicitStore(Store):
    """Inherits from the Protocol, so that a forgotten method cannot go unseen."""

    def open(self) -> None: ...

    def write(self, records: Sequence[Record], /) -> None: ...

    def query(self, query: Query, /, *, timeout: timedelta | None = None) -> Iterable[Record]:
        return []

    def status(self) -> StoreStatus:
        return StoreStatus(description="nothing", records=0)

    def close(self) -> None: ...


class PrintingExporter:
    name = "printer"

    def export(self, records: Sequence[Record], /) -> None:
        print(len(records))

    def close(self) -> None: ...


@dataclass(frozen=True)
class NamedExporter:
    name: str

    def export(self, records: Sequence[Record], /) -> None: ...

    def close(self) -> None: ...


class ExplicitExporter(Exporter):
    @property
    def name(self) -> str:
        return "explicit"

    def export(self, records: Sequence[Record], /) -> None: ...

    def close(self) -> None: ...


def make_store() -> ListStore:
    return ListStore()


stores: list[Store] = [ListStore(), ExplicitStore()]
sinks: list[Sink] = [ListStore(), ExplicitStore()]
exporters: list[Exporter] = [PrintingExporter(), NamedExporter("named"), ExplicitExporter()]

app = Flask(__name__)
chest = FlaskChest(app, store=ListStore())
FlaskChest(app, store=ListStore)
FlaskChest(store=lambda: SizedStore(10))
FlaskChest(store=make_store, tracked_vars=["user_id"], config_prefix="AUDIT", strict=True)
FlaskChestSQLite(app, "visits", "db.sqlite3", busy_timeout=1.5, scheduler="off", tracked_vars={"GET": ["plan"]})

chest.add_exporter(PrintingExporter(), interval=timedelta(seconds=30))
chest.add_exporter(ExplicitExporter, name="made in each process", start_at="now")
chest.add_exporter(partial(NamedExporter, "late"), name="late", batch_size=10)
FlaskChestExporterInfluxDB(chest, token=None, interval_minutes=0.5, tags=["plan"], custom_tags={"env": "test"})

ids = {"user_id": 1, "team_id": 2}
assert_type(chest.query(where={"plan": None, "cart": {"items": [1, 2]}}, limit=None), list[Record])
assert_type(chest.iter(where=ids, since=datetime.now(UTC)), Iterator[Record])
assert_type(chest.run_exports(), list[ExportReport])
