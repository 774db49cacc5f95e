"""What a probe learns: whether records are lost, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask

from flask_chest import FlaskChest, FlaskChestSQLite, Health, Record, StoreUnavailable
from flask_chest.health import health_blueprint
from flask_chest.settings import MIN_JOURNAL_BYTES
from flask_chest.stores.sqlite import SQLiteStore


class AwayStore(SQLiteStore):
    """Is away until it is told to be back."""

    away = True

    def open(self) -> None:
        if self.away:
            raise StoreUnavailable("it is away")
        super().open()

    def write(self, records: Sequence[Record], /) -> None:
        if self.away:
            raise StoreUnavailable("it is away")
        super().write(records)


@pytest.fixture
def store(tmp_path: Path) -> AwayStore:
    return AwayStore(tmp_path / "db")


@pytest.fixture
def chest(app: Flask, store: AwayStore, tmp_path: Path) -> Iterator[FlaskChest]:
    app.add_url_rule("/", "index", lambda: "hi")
    with closing(
        FlaskChest(
            app, store=store, journal_dir=tmp_path / "j", journal_bytes=MIN_JOURNAL_BYTES, tracked_vars=["x"]
        )
    ) as chest:
        yield chest


def probe(app: Flask) -> tuple[int, str]:
    response = app.test_client().get("/health/chest")
    return response.status_code, response.text


def test_healthy_chest_is_ok_and_the_probe_is_not_recorded(app: Flask, tmp_path: Path) -> None:
    with closing(
        FlaskChestSQLite(app, db_uri=tmp_path / "db", tracked_vars=["x"], journal_dir="memory:")
    ) as chest:
        app.register_blueprint(health_blueprint(chest))
        assert probe(app) == (200, "ok\n")
        assert chest.health() == Health(ok=True, store_answers=True, waiting=0, lost=0)
        assert chest.query() == []


def test_store_that_is_away_is_told_and_costs_no_process_its_service(
    app: Flask, chest: FlaskChest, store: AwayStore
) -> None:
    app.register_blueprint(health_blueprint(chest))
    app.test_client().get("/")
    health = chest.health()
    assert (health.ok, health.store_answers, health.waiting, health.lost) == (True, False, 1, 0)
    assert probe(app) == (200, "ok\n")
    store.away = False


@pytest.mark.filterwarnings("ignore")
def test_process_that_loses_records_is_not_ok(app: Flask, chest: FlaskChest, store: AwayStore) -> None:
    app.register_blueprint(health_blueprint(chest))
    client = app.test_client()
    while chest.health().ok:
        client.get("/")
    status, text = probe(app)
    assert (status, text) == (503, "not ok\n")
    assert chest.health().lost >= 1
    store.away = False
