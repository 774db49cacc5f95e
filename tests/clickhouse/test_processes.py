"""ClickHouse asked by several processes, some of which are killed; the engine has one of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from benchmarks.delivery_chaos import deliver, everything

from clickhouse_server import Server
from flask_chest.errors import SchemaError, StoreUnavailable
from flask_chest.record import Query
from flask_chest.stores.clickhouse import ClickHouseStore
from flask_chest.testing.records import make_record

PATIENCE = 60.0


@pytest.fixture
def store(server: Server, name: str) -> Iterator[ClickHouseStore]:
    with closing(ClickHouseStore(server.uri, name=f"p_{name}")) as store:
        store.open()
        yield store


def test_deliveries_killed_at_every_step_lose_and_double_nothing(
    server: Server, name: str, tmp_path: Path
) -> None:
    source, table = f"sqlite:///{tmp_path}/source.db", f"p_{name}"
    outcome = deliver(
        source,
        {"kind": "store", "uri": server.uri},
        records=400,
        seed=1,
        risk=0.04,
        batch_size=25,
        name=table,
    )
    assert outcome.killed >= 1
    assert (outcome.pending, outcome.rejected) == (0, 0)
    arrived = everything(server.uri, name=table)
    assert len(arrived) == len(outcome.written)
    assert {record.id: record for record in arrived} == {record.id: record for record in outcome.written}


def test_server_killed_between_writes_keeps_what_it_has_taken(server: Server, store: ClickHouseStore) -> None:
    first = [make_record(variables={"v": number}) for number in range(20)]
    store.write(first)
    server.kill()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        store.write([make_record()])
    server.start()
    later = make_record()
    store.write([*first, later])
    kept = list(store.query(Query(limit=None)))
    assert sorted(record.id for record in kept) == sorted(record.id for record in [*first, later])


def _write(uri: str, name: str, number: int, start: Any) -> None:
    with closing(ClickHouseStore(uri, name=name)) as store:
        start.wait(PATIENCE)
        store.open()
        store.write([make_record(variables={"number": number})])


def test_processes_open_it_at_once(server: Server, name: str) -> None:
    spawn, table = multiprocessing.get_context("spawn"), f"p_{name}"
    start = spawn.Barrier(4)
    processes = [spawn.Process(target=_write, args=(server.uri, table, number, start)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [0] * 4
    assert sorted(str(record.variables["number"]) for record in everything(server.uri, name=table)) == list(
        "0123"
    )


def test_what_another_process_forgets_is_not_kept_here(server: Server, store: ClickHouseStore) -> None:
    """This one has read the notes before, and has to look again."""
    hers = make_record(variables={"user_id": 7})
    store.write([make_record()])
    with closing(ClickHouseStore(server.uri, name=store.place.rpartition("#")[2])) as other:
        assert other.forget(Query(where={"user_id": 7})) == 0
    store.write([hers, kept := make_record()])
    assert store.dropped == 1
    assert hers not in store.query(Query(limit=None))
    assert kept in store.query(Query(limit=None))


def test_what_another_process_pruned_is_counted_as_dropped(server: Server, store: ClickHouseStore) -> None:
    store.write([make_record()])
    with closing(ClickHouseStore(server.uri, name=store.place.rpartition("#")[2])) as other:
        other.prune(10, limit=100)
    store.write([make_record(time_unix_nano=9)])
    assert store.dropped == 1
    assert len(list(store.query(Query()))) == 1
    cut_off = store.cut_off()
    assert cut_off is not None
    assert cut_off.dropped == 1


def test_database_that_is_not_there_is_named(server: Server) -> None:
    uri = server.uri.replace("/chest?", "/nowhere?")
    with closing(ClickHouseStore(uri)) as store, pytest.raises(StoreUnavailable) as refused:
        store.open()
    assert "create the database, or correct its name in db_uri" in str(refused.value)


def test_tables_of_others_are_left_alone(server: Server, name: str) -> None:
    with closing(ClickHouseStore(server.uri, name=f"p_{name}")) as store:
        store._database.run(f"CREATE TABLE chest.p_{name} (a Int8) ENGINE = MergeTree ORDER BY a")
        with pytest.raises(SchemaError, match="that flask_chest did not make"):
            store.open()
        with pytest.raises(SchemaError, match="that flask_chest did not make"):
            store.write([make_record()])
