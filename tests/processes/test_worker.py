"""A worker stores and delivers what web processes leave to it while they live, whatever becomes of it."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from benchmarks.visits import Site
from benchmarks.web_servers import PATIENCE, happens
from flask import Flask

from flask_chest import Query, SchemaError
from flask_chest.extension.chest import chests_of
from flask_chest.stores.sqlite import SQLiteStore
from worker_app import ended, make, source, target, working

VISITS = 2_000
KILLS = 20


def visits_in(path: Path, *, name: str = "flask_chest") -> list[int]:
    """Read the numbers of the visits whose records are there, from the lowest on."""
    if not path.exists():
        return []
    with closing(SQLiteStore(path, name=name)) as store, suppress(SchemaError):  # somebody makes it just now
        return sorted(int(str(record.variables["visit"])) for record in store.query(Query(limit=None)))
    return []


def arrives(site: Site, count: int, *, seconds: float = PATIENCE) -> bool:
    """Tell whether the target has so many records within that time."""
    return happens(lambda: len(visits_in(target(site.folder))) >= count, seconds=seconds)


@pytest.fixture
def app(site: Site) -> Iterator[Flask]:
    """A web process, which stores and delivers nothing itself."""
    app = make(site.folder)
    yield app
    for chest in chests_of(app):
        chest.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_worker_stores_and_delivers_what_a_living_process_leaves(
    app: Flask, site: Site, number: signal.Signals
) -> None:
    (chest,) = chests_of(app)
    client = app.test_client()
    for visit in range(10):
        client.get(f"/{visit}")
    assert chest.stats().waiting == 10
    assert not source(site.folder).exists()
    with working(site.folder) as worker:
        assert arrives(site, 10)
        for visit in range(10, 20):
            client.get(f"/{visit}")
        assert arrives(site, 20)
        assert happens(lambda: chest.stats().waiting == 0, seconds=PATIENCE)
        assert ended(worker, number) == (0, "The worker ends.\n")
    assert visits_in(source(site.folder), name="worked") == [*range(20)]


def test_worker_that_is_killed_again_and_again_loses_and_doubles_nothing(app: Flask, site: Site) -> None:
    client = app.test_client()
    chance = random.Random(20)
    visit = 0
    for kill in range(KILLS):
        for _ in range(VISITS // KILLS):
            client.get(f"/{visit}")
            visit += 1
        with working(site.folder) as worker:
            delivered = len(visits_in(target(site.folder)))
            # Some are killed at their first step, some in the middle of what there is to do.
            if kill % 2:
                arrives(site, delivered + 1, seconds=2)
            happens(lambda: chance.random() < 0.05, seconds=1)
            worker.kill()
    with working(site.folder) as worker:
        assert arrives(site, VISITS)
        assert ended(worker, signal.SIGTERM) == (0, "The worker ends.\n")
    assert visits_in(target(site.folder)) == [*range(VISITS)]
    assert visits_in(source(site.folder), name="worked") == [*range(VISITS)]


def test_two_workers_share_the_work(app: Flask, site: Site) -> None:
    client = app.test_client()
    with working(site.folder) as one, working(site.folder) as other:
        for visit in range(200):
            client.get(f"/{visit}")
        assert arrives(site, 200)
        assert ended(one, signal.SIGTERM)[0] == ended(other, signal.SIGTERM)[0] == 0
    assert visits_in(target(site.folder)) == [*range(200)]


def test_process_that_served_may_become_a_worker(app: Flask, site: Site) -> None:
    client = app.test_client()
    for visit in range(10):
        client.get(f"/{visit}")
    (chest,) = chests_of(app)
    chest.work()
    assert arrives(site, 10)
    client.get("/10")
    assert arrives(site, 11)
    assert chest.close()
    assert visits_in(source(site.folder), name="worked") == [*range(11)]
