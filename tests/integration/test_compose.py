"""The dashboards of examples/compose, asked of a real PostgreSQL as Grafana asks, which itself is not run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import psycopg
import pytest
from flask import Flask

from flask_chest import FlaskChestPostgreSQL, Unit, Variables
from flask_chest.testing import make_record
from servers import DatabaseServer

FOLDER = Path(__file__).parents[2] / "examples" / "compose"
DASHBOARDS = sorted((FOLDER / "grafana" / "dashboards").glob("*.json"))
PANELS = {
    f"{path.stem}: {panel['title']}": target["rawSql"]
    for path in DASHBOARDS
    for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]
    for target in panel["targets"]
}
SECOND = 1_000_000_000


class Visit(Variables):
    user_id: int
    plan: Literal["free", "pro"]
    total: Annotated[float, Unit("€")]


def expanded(sql: str, *, since: int, until: int, interval: int) -> str:
    """Replace Grafana's macros in *sql*, as its documentation says; times in nanoseconds."""
    sql = sql.replace("$__interval_ms", str(interval * 1000))
    sql = re.sub(r"\$__unixEpochNanoFilter\((\w+)\)", rf"\1 >= {since} AND \1 <= {until}", sql)
    group = r"\$__timeGroupAlias\((.+?), \$__interval\)"
    sql = re.sub(group, rf'floor(extract(epoch from \1)/{interval})*{interval} AS "time"', sql)
    assert "$" not in sql
    return sql


@pytest.fixture(scope="module")
def connection(postgresql: DatabaseServer) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """The chest of the shop, with a minute of visits."""
    with closing(psycopg.connect(postgresql.uri, autocommit=True)) as admin:
        admin.execute("CREATE DATABASE compose")
        uri = postgresql.uri_with(database="compose")
        app = Flask("shop")  # a chest of which nobody holds the app is closed whenever that is collected
        chest = FlaskChestPostgreSQL(app, db_uri=uri, tracked_vars=Visit, journal_dir="memory:")
        with closing(chest):
            now = time.time_ns()
            chest._state.here.open_store().write(
                [
                    make_record(
                        time_unix_nano=now - number * SECOND,
                        status_code=503 if number % 20 == 0 else 200,
                        variables={"user_id": number % 7, "plan": "pro", "total": number / 2},
                    )
                    for number in range(60)
                ]
            )
        with closing(psycopg.connect(uri, autocommit=True)) as connection:
            yield connection
        admin.execute("DROP DATABASE compose WITH (FORCE)")


@pytest.mark.parametrize("panel", PANELS)
def test_panel_shows_something(panel: str, connection: psycopg.Connection[tuple[object, ...]]) -> None:
    now = time.time_ns()
    sql = expanded(PANELS[panel], since=now - 3600 * SECOND, until=now, interval=15)
    rows = connection.execute(sql).fetchall()
    assert rows
    assert all(value is not None for value in rows[0][:3])


def test_shares_are_those_of_the_records(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    now = time.time_ns()
    sql = expanded(PANELS["requests: Routes"], since=now - 3600 * SECOND, until=now, interval=15)
    ((route, requests, errors, _),) = connection.execute(sql).fetchall()
    assert (route, requests, errors) == ("/", 60, pytest.approx(3 / 60))


def test_shop_of_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_CHEST_URI", f"sqlite:///{tmp_path}/chest.db")
    monkeypatch.setenv("FLASK_CHEST_JOURNAL_DIR", "memory:")
    monkeypatch.syspath_prepend(FOLDER)
    shop = import_module("shop")
    with closing(shop.chest):
        assert shop.app.test_client().get("/buy/7").status_code in {200, 503}
        (record,) = shop.chest.query()
    assert record.variables["plan"] == "free"
