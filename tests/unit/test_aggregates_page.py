"""The questions of the page about aggregates, compared with the answers of DuckDB to the same records."""

from __future__ import annotations

import ast
import json
import random
import shlex
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

import flask_chest
from documents import Page
from flask_chest import Answer, Count, ErrorRate, FlaskChestSQLite, Histogram, Percentiles, Record, Variable
from flask_chest.cli import chest_group
from flask_chest.extension.record_text import json_line
from flask_chest.record import JSONValue
from flask_chest.testing import make_record

pytestmark = pytest.mark.slow
PAGE = Page(Path(__file__).parents[2] / "docs" / "aggregates.md")
RECORDS = 60_000
BEGAN = round(datetime(2026, 11, 23, tzinfo=UTC).timestamp()) * 10**9
DAY_NANO = 86_400 * 10**9


def made_records() -> Iterator[Record]:
    chance = random.Random(21)
    for number in range(RECORDS):
        variables: dict[str, JSONValue] = {
            "user_id": min(int(chance.expovariate(0.02)), 500),
            "plan": chance.choice(["free", "free", "pro"]),
            "price": chance.choice([1, 10, 19.5, 20, 35, 50, 99.99, 100, 250]),
        }
        if number % 7:
            variables["total"] = round(chance.lognormvariate(3, 1), 2)
        yield make_record(
            time_unix_nano=BEGAN + number * (DAY_NANO // RECORDS),
            route=chance.choice(["/", "/buy/<item>", "/cart"]),
            status_code=chance.choice([200] * 19 + [503]),
            duration_ns=(1 + number % 997) * 100_000,
            variables=variables,
        )


class Shop:
    """A chest with the records, and DuckDB with their JSON lines."""

    def __init__(self, app: Flask, chest: FlaskChestSQLite, lines: Path) -> None:
        self.chest = chest
        self.runner: FlaskCliRunner = app.test_cli_runner()
        self._lines = lines

    def by_command(self, question: str) -> list[dict[str, Any]]:
        (block,) = PAGE.blocks("console", f"command {question}")
        words = shlex.split(block.code.removeprefix("$ flask "))
        result = self.runner.invoke(args=[*words, "--format", "jsonl"])
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    def by_call(self, question: str) -> Any:
        (block,) = PAGE.blocks("python", f"call {question}")
        names = {name: getattr(flask_chest, name) for name in flask_chest.__all__}
        code = compile(ast.parse(block.code.strip(), mode="eval"), question, "eval")
        return eval(code, {**names, **vars(__import__("datetime")), "chest": self.chest})

    def by_duckdb(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect() as connection:
            return connection.execute(f"WITH r AS (FROM read_json('{self._lines}')) {sql}").fetchall()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    app = Flask("shop", root_path=str(folder))
    app.cli.add_command(chest_group)
    chest = FlaskChestSQLite(app, db_uri="chest.db", journal_dir="memory:")
    records = list(made_records())
    with closing(chest):
        store = chest._state.here.open_store()
        for begin in range(0, RECORDS, 5_000):
            store.write(records[begin : begin + 5_000])
        (folder / "records.jsonl").write_text("".join(f"{json_line(record)}\n" for record in records))
        yield Shop(app, chest, folder / "records.jsonl")


def groups(answer: Answer, value: Callable[[Any], Any]) -> list[tuple[Any, ...]]:
    return [(*row.key, value(row)) for row in answer.groups]


def test_percentiles_by_route_and_hour_are_duckdbs(shop: Shop) -> None:
    found = shop.by_duckdb(
        "SELECT time_unix_nano // 3600000000000 AS hour, route, quantile_disc(variables.total, 0.95) FROM r "
        "WHERE variables.total IS NOT NULL GROUP BY ALL ORDER BY ALL"
    )
    measure = Percentiles(Variable("total"), 95)
    called = [
        (bucket.begin_unix_nano // (3_600 * 10**9), *row.key, row[measure][95])
        for bucket in shop.by_call("percentile").series
        for row in bucket.groups
    ]
    told = [
        (row["begin_unix_nano"] // (3_600 * 10**9), row["key"]["route"], row["values"]["p95(total)"])
        for row in shop.by_command("percentile")
        if row["kind"] == "group"
    ]
    assert len(found) == 24 * 3
    assert sorted(called) == sorted(told) == found


def test_slow_routes_by_plan_are_duckdbs(shop: Shop) -> None:
    found = shop.by_duckdb(
        "SELECT route, variables.plan, quantile_disc(duration_ns, 0.95) / 1e9 AS p95 FROM r GROUP BY ALL"
    )
    measure = Percentiles("duration", 95)
    told = [row for row in shop.by_command("plans") if row["kind"] == "group"]
    assert len(found) == 3 * 2
    assert set(groups(shop.by_call("plans"), lambda row: row[measure][95])) == set(found)
    assert {(*row["key"].values(), row["values"]["p95(duration)"]) for row in told} == set(found)


def test_top_users_are_duckdbs(shop: Shop) -> None:
    found = shop.by_duckdb(
        "SELECT variables.user_id, count(*) AS n FROM r GROUP BY ALL ORDER BY n DESC, variables.user_id LIMIT 10"
    )
    told = [row for row in shop.by_command("top") if row["kind"] == "group"]
    assert groups(shop.by_call("top"), lambda row: row[Count()]) == found
    assert [(row["key"]["user_id"], row["values"]["count"]) for row in told] == found


def test_share_of_errors_by_plan_is_duckdbs(shop: Shop) -> None:
    found = shop.by_duckdb(
        "SELECT variables.plan, count(*) FILTER (status_code >= 500 OR error IS NOT NULL) / count(*) AS share "
        "FROM r GROUP BY ALL ORDER BY share DESC"
    )
    told = [row for row in shop.by_command("errors") if row["kind"] == "group"]
    assert groups(shop.by_call("errors"), lambda row: row[ErrorRate()]) == found
    assert [(row["key"]["plan"], row["values"]["error_rate"]) for row in told] == found


def test_what_one_user_did_is_what_duckdb_finds(shop: Shop) -> None:
    found = shop.by_duckdb("SELECT id::TEXT FROM r WHERE variables.user_id = 77 ORDER BY time_unix_nano DESC")
    assert len(found) > 100
    assert [(record.id,) for record in shop.by_call("user")] == found
    assert [(record["id"],) for record in shop.by_command("user")] == found


def test_histogram_of_prices_is_duckdbs(shop: Shop) -> None:
    found = shop.by_duckdb(
        "SELECT (price >= 10)::INT + (price >= 20)::INT + (price >= 50)::INT + (price >= 100)::INT AS bin, "
        "count(*) FROM (SELECT variables.price AS price FROM r) "
        "GROUP BY ALL ORDER BY bin"
    )
    histogram = Histogram(Variable("price"), 10, 20, 50, 100)
    (told,) = shop.by_command("prices")
    bins = shop.by_call("prices").all[histogram]
    assert list(enumerate(each.requests for each in bins)) == found
    assert [each["requests"] for each in told["values"][histogram.label]] == [count for _, count in found]
