"""From every store into every kind of target: each record arrives, equal, and once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from benchmarks.delivery_chaos import deliver, everything
from flask import Flask

from flask_chest import ExportReport, FlaskChest, Query, Record, Store
from flask_chest.exporter import (
    FlaskChestExporterHTTP,
    FlaskChestExporterInfluxDB,
    FlaskChestExporterMongoDB,
    FlaskChestExporterMySQL,
    FlaskChestExporterPostgreSQL,
)
from flask_chest.exporter.store import StoreExporter
from flask_chest.stores import store_from_uri
from flask_chest.testing import ExporterContract, make_record
from http_receiver import Receiver, Request
from servers import RECORDS, DatabaseServer, InfluxServer

Ask: TypeAlias = Callable[[str], Any]
STORES = ["postgresql", "mysql", "mariadb", "mongodb", "documentdb"]
TARGETS = [*STORES, "influxdb", "http"]
_numbers = count()


@dataclass(frozen=True)
class Target:
    """Where records are delivered to."""

    add: Callable[[FlaskChest], object]
    """Adds an exporter to a chest."""
    arrived: Callable[[], Mapping[str, object]]
    """Gives what is there, by record id."""
    seen: Callable[[Record], object] = lambda record: record
    """Makes of a record what is to be there."""


@pytest.fixture
def ask(request: pytest.FixtureRequest) -> Ask:
    return request.getfixturevalue


@contextmanager
def chest_on(make: Callable[[], Store]) -> Iterator[FlaskChest]:
    app = Flask("shop")  # the chest does not keep it
    with closing(FlaskChest(app, store=make, scheduler="off", journal_dir="memory:")) as chest:
        yield chest


def source_of(kind: str, ask: Ask, tmp_path: Path) -> Callable[[], Store]:
    if kind in {"memory", "sqlite"}:
        uri = "memory:" if kind == "memory" else f"sqlite:///{tmp_path}/source.db"
        return store_from_uri(uri, root=tmp_path)
    server: DatabaseServer = ask(kind)
    return store_from_uri(server.uri, root=tmp_path, name=f"source_{next(_numbers)}")


def target_of(kind: str, ask: Ask) -> Target:
    if kind == "influxdb":
        return influxdb_target(ask("influxdb"))
    if kind == "http":
        return http_target(ask("receiver"))
    server: DatabaseServer = ask(kind)
    name = f"target_{next(_numbers)}"

    def add(chest: FlaskChest) -> object:
        if kind == "postgresql":
            return FlaskChestExporterPostgreSQL(chest, server.uri, table=name)
        if kind in {"mysql", "mariadb"}:
            return FlaskChestExporterMySQL(chest, server.uri, table=name)
        return FlaskChestExporterMongoDB(chest, server.uri, collection=name)

    def arrived() -> Mapping[str, object]:
        with closing(store_from_uri(server.uri, root=Path("/"), name=name)()) as store:
            return {record.id: record for record in store.query(Query(limit=None))}

    return Target(add, arrived)


def influxdb_target(server: InfluxServer) -> Target:
    bucket = server.create_bucket(f"targets-{next(_numbers)}")

    def arrived() -> Mapping[str, object]:
        return {
            str(point["record_id"]): (point["time"], point["number_int"], point["text"], json.loads(deep))
            for point in server.points(bucket)
            if isinstance(deep := point["deep"], str)
        }

    return Target(
        lambda chest: FlaskChestExporterInfluxDB(
            chest, url=server.url, token=server.token, org=server.org, bucket=bucket
        ),
        arrived,
        lambda record: (record.time_unix_nano, *record.variables.values()),
    )


@pytest.fixture
def receiver() -> Iterator[Receiver[Request]]:
    with Receiver(Request) as receiver:
        yield receiver


def http_target(receiver: Receiver[Request]) -> Target:
    return Target(
        lambda chest: FlaskChestExporterHTTP(chest, receiver.url, headers={"X-Key": "s3cret-w0rd"}),
        lambda: {each["id"]: Record(**each) for request in receiver.requests for each in request.json["records"]},
    )


def run(chest: FlaskChest) -> ExportReport:
    (report,) = chest.run_exports()
    return report


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *((source, target) for source in ("sqlite", "postgresql") for target in TARGETS),
        *((source, "postgresql") for source in ("memory", "mysql", "mariadb", "mongodb", "documentdb")),
    ],
)
def test_every_record_arrives_equal_and_once(source: str, target: str, ask: Ask, tmp_path: Path) -> None:
    to = target_of(target, ask)
    records = [
        make_record(
            time_unix_nano=1_795_439_270_123_456_789 + number,
            variables={
                "number": 2**62 + 2 * number + 1,
                "text": f"ü{number}",
                "deep": {"x": [number, None, 1.5]},
            },
        )
        for number in range(RECORDS)
    ]
    make = source_of(source, ask, tmp_path)
    with chest_on(make) as chest:
        to.add(chest)
        store = chest._state.here.store
        store.open()
        for first in range(0, RECORDS, 500):
            store.write(records[first : first + 500])
        report = run(chest)
        assert (report.delivered, report.rejected, report.error) == (RECORDS, 0, None)
        assert to.arrived() == {record.id: to.seen(record) for record in records}
        assert run(chest).delivered == 0


@pytest.mark.parametrize(
    ("target", "refused"),
    [
        ("postgresql", {"request_id": "with a \0 in it"}),
        ("mysql", {"route": "x" * 701}),
        ("mariadb", {"route": "x" * 701}),
    ],
)
def test_record_that_the_target_refuses_is_set_aside_and_the_others_arrive(
    target: str, refused: dict[str, Any], ask: Ask, tmp_path: Path
) -> None:
    to = target_of(target, ask)
    records = [make_record() for _ in range(1_000)]
    culprit = make_record(**refused)
    records[617] = culprit
    with chest_on(source_of("sqlite", ask, tmp_path)) as chest:
        to.add(chest)
        store: Any = chest._state.here.store
        store.open()
        store.write(records)
        report = run(chest)
        assert (report.delivered, report.rejected, report.error) == (999, 1, None)
        assert to.arrived().keys() == {record.id for record in records if record is not culprit}
        (rejection,) = store.rejections(target.replace("mariadb", "mysql"))
        assert rejection.record_id == culprit.id
        assert rejection.reason


class TestStoresAsTargets(ExporterContract):
    """Do what every exporter does."""

    @pytest.fixture(params=STORES)
    def target(self, request: pytest.FixtureRequest, ask: Ask, tmp_path: Path) -> Iterator[Store]:
        server: DatabaseServer = ask(request.param)
        make = store_from_uri(server.uri, root=tmp_path, name=f"target_{next(_numbers)}")
        with closing(make()) as store:
            yield store

    @pytest.fixture
    def exporter(self, target: Store) -> StoreExporter:
        return StoreExporter(target, name="warehouse")

    @pytest.fixture
    def delivered(self, target: Store) -> Callable[[], Sequence[str]]:
        def ids() -> Sequence[str]:
            target.open()
            return [record.id for record in target.query(Query(limit=None))]

        return ids


@pytest.mark.parametrize("trouble", ["restart", "kill", "hang"])
@pytest.mark.parametrize(("source", "target"), [("sqlite", "postgresql"), ("postgresql", "mysql")])
def test_deadly_processes_and_a_target_in_trouble_lose_and_double_nothing(
    source: str, target: str, trouble: str, ask: Ask, tmp_path: Path
) -> None:
    server: DatabaseServer = ask(target)
    name = f"chaos_{next(_numbers)}"
    from_uri = f"sqlite:///{tmp_path}/source.db" if source == "sqlite" else ask(source).uri
    outcome = deliver(
        from_uri,
        {"kind": "store", "uri": server.uri},
        records=RECORDS,
        seed=1,
        risk=0.04,
        batch_size=RECORDS // 40,
        name=name,
        meanwhile=getattr(server.server, trouble),
    )
    assert outcome.killed >= 3
    assert (outcome.pending, outcome.rejected) == (0, 0)
    arrived = everything(server.uri, name=name)
    assert len(arrived) == len(outcome.written)
    assert {record.id: record for record in arrived} == {record.id: record for record in outcome.written}
