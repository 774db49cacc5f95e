"""What a chest counts is seen by OpenTelemetry's metrics, once for a provider however many chests there are."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

from flask_chest import FlaskChest, Record, RecordRefused
from flask_chest.otel import instrument_metrics
from flask_chest.protocols import Store
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import RecordingExporter

Points = dict[str, dict[frozenset[tuple[str, object]], float]]


class RefusingStore(SQLiteStore):
    """Takes nothing of one route."""

    def write(self, records: Sequence[Record], /) -> None:
        bad = {record.id: "no" for record in records if record.route == "/bad"}
        if bad:
            raise RecordRefused("no", bad)
        super().write(records)


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader: InMemoryMetricReader) -> Iterator[MeterProvider]:
    provider = MeterProvider([reader])
    yield provider
    provider.shutdown()


def make(
    name: str = "shop",
    *,
    store: Callable[[], Store] = MemoryStore,
    config_prefix: str = "CHEST",
    journal_dir: str | Path = "memory:",
) -> tuple[Flask, FlaskChest]:
    app = Flask(name)
    app.testing = True
    app.route("/")(lambda: "ok")
    app.add_url_rule("/bad", "bad", lambda: "bad")
    chest = FlaskChest(app, store=store, tracked_vars=["x"], config_prefix=config_prefix, journal_dir=journal_dir)
    return app, chest


def points(reader: InMemoryMetricReader) -> Points:
    data = reader.get_metrics_data()
    found: Points = {}
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                assert metric.name not in found, "a second instrument of that name"
                found[metric.name] = {
                    frozenset((point.attributes or {}).items()): point.value
                    for point in metric.data.data_points
                    if isinstance(point, NumberDataPoint)
                }
    return found


def series(app: str = "shop", store: str = "chest", **more: str) -> frozenset[tuple[str, object]]:
    named = {"flask_chest.app.name": app, "flask_chest.store.name": store}
    return frozenset((named | {name.replace("_", "."): value for name, value in more.items()}).items())


def test_records_are_counted_by_what_became_of_them(
    reader: InMemoryMetricReader, provider: MeterProvider, tmp_path: Path
) -> None:
    app, chest = make(store=lambda: RefusingStore(tmp_path / "db"), journal_dir=tmp_path)
    instrument_metrics(chest, provider)
    with closing(chest):
        client = app.test_client()
        for path in ("/", "/", "/bad"):
            client.get(path)
        assert chest.flush()
        found = points(reader)
        assert found["flask_chest.record.processed"] == {series(): 2, series(error_type="refused"): 1}
        assert found["flask_chest.queue.size"] == {series(): 0}


def test_deliveries_are_counted_for_each_exporter(reader: InMemoryMetricReader, provider: MeterProvider) -> None:
    app, chest = make()
    chest.add_exporter(RecordingExporter(), name="far")
    instrument_metrics(chest, provider)
    with closing(chest):
        app.test_client().get("/")
        chest.run_exports()
        exported = points(reader)["flask_chest.target.exported"]
        assert exported == {series() | {("flask_chest.exporter.name", "far")}: 1}


def test_provider_has_one_set_of_instruments_for_all_chests(
    reader: InMemoryMetricReader, provider: MeterProvider, caplog: pytest.LogCaptureFixture
) -> None:
    made = [make(), make("other"), make("other"), make(config_prefix="SECOND")]
    for app, chest in made:
        instrument_metrics(chest, provider)
        instrument_metrics(chest, provider)
        app.test_client().get("/")
        assert chest.flush()
    found = points(reader)["flask_chest.record.processed"]
    assert found == {series(): 1, series("other"): 2, series(store="second"): 1}
    for _, chest in made:
        chest.close()
    assert caplog.messages == []


@pytest.mark.slow
def test_chest_that_is_gone_is_observed_no_more(reader: InMemoryMetricReader, provider: MeterProvider) -> None:
    app, chest = make()
    instrument_metrics(chest, provider)
    app.test_client().get("/")
    chest.close()
    assert points(reader)
    del app, chest

    gc.collect()  # an app is a cycle
    assert points(reader) == {}
