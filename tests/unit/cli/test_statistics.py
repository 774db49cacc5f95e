"""`flask chest top` and `stats`: what is counted, and how it is written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

from flask_chest import FlaskChest, FlaskChestSQLite
from flask_chest.cli import chest_group
from flask_chest.record import JSONValue
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import make_record

HOUR_NANO = 3_600 * 10**9


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.open()
    return store


@pytest.fixture
def runner(store: MemoryStore) -> Iterator[FlaskCliRunner]:
    app = Flask("shop")
    with closing(FlaskChest(app, store=store)):
        app.cli.add_command(chest_group)
        yield app.test_cli_runner()


def said(runner: FlaskCliRunner, *arguments: str) -> str:
    result = runner.invoke(args=["chest", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def objects(runner: FlaskCliRunner, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said(runner, *arguments, "--json").splitlines()]


def write_orders(store: MemoryStore) -> None:
    now = time.time_ns()
    store.write(
        [
            make_record(route="/a", variables={"total": 1_000, "plan": "pro"}, time_unix_nano=now),
            make_record(route="/a", variables={"total": 1.5, "plan": "pro"}, time_unix_nano=now - HOUR_NANO),
            make_record(
                route=None,
                variables={"total": -2, "plan": None, "route": "x"},
                request_id="r",
                status_code=503,
                method="POST",
                time_unix_nano=now - 2 * HOUR_NANO,
            ),
            make_record(route="/b", variables={"total": "many"}),
        ]
    )


def test_top_writes_values_with_their_types_in_columns(runner: FlaskCliRunner, store: MemoryStore) -> None:
    values: list[JSONValue] = [1, "1", True, 1.0, None, [1], *[7] * 10]
    store.write([make_record(variables={"user_id": value}) for value in values])
    assert said(runner, "top", "user_id") == (
        "records  user_id\n"
        "     10  7\n"
        "      1  1\n"
        '      1  "1"\n'
        "      1  true\n"
        "      1  1.0\n"
        "      1  null\n"
        "      1  [1]\n"
    )
    assert objects(runner, "top", "user_id", "--limit", "2") == [
        {"value": 7, "records": 10},
        {"value": 1, "records": 1},
    ]


def test_stats_writes_numbers_in_columns(runner: FlaskCliRunner, store: MemoryStore) -> None:
    write_orders(store)
    assert said(runner, "stats", "total") == (
        "records         mean  minimum  maximum\n"
        "      3  333.1666667       -2     1000\n"
    )  # fmt: skip
    assert said(runner, "stats", "total", "--by", "route") == (
        "records    mean  minimum  maximum  route\n"
        "      2  500.75      1.5     1000  /a\n"
        "      1      -2       -2       -2  -\n"
    )
    assert said(runner, "stats", "total", "--by-variable", "plan") == (
        "records    mean  minimum  maximum  plan\n"
        '      2  500.75      1.5     1000  "pro"\n'
        "      1      -2       -2       -2  null\n"
    )


def test_stats_for_programs_is_an_object_a_group(runner: FlaskCliRunner, store: MemoryStore) -> None:
    write_orders(store)
    assert objects(runner, "stats", "total", "--by", "route") == [
        {"group": "/a", "records": 2, "mean": 500.75, "minimum": 1.5, "maximum": 1000.0},
        {"group": None, "records": 1, "mean": -2.0, "minimum": -2.0, "maximum": -2.0},
    ]
    assert objects(runner, "stats", "total", "--by-variable", "route") == [
        {"group": "x", "records": 1, "mean": -2.0, "minimum": -2.0, "maximum": -2.0}
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--route", "/a"], {1_000, 1.5}),
        (["--status", "503"], {-2}),
        (["--status", "2xx", "--since", "30m"], {1_000, "many"}),
        (["--errors"], {-2}),
        (["--where", "plan=pro"], {1_000, 1.5}),
        (["--where", "total>1", "--where", "plan is set"], {1_000, 1.5}),
        (["--where", "plan in null,free"], {-2}),
        (["--method", "post"], {-2}),
        (["--request-id", "r"], {-2}),
        (["--since", "30m"], {1_000, "many"}),
        (["--until", "90m"], {-2}),
        (["--since", "90m", "--until", "30m"], {1.5}),
    ],
    ids=str,
)
def test_options_narrow_what_is_counted(
    runner: FlaskCliRunner, store: MemoryStore, arguments: list[str], expected: set[object]
) -> None:
    write_orders(store)
    assert {each["value"] for each in objects(runner, "top", "total", *arguments)} == expected
    (summary,) = objects(runner, "stats", "total", *arguments)
    assert summary["records"] == len(expected - {"many"})


def test_two_groupings_at_once_are_refused(runner: FlaskCliRunner) -> None:
    result = runner.invoke(args=["chest", "stats", "total", "--by", "route", "--by-variable", "plan"])
    assert result.exit_code == 2
    assert "give one of them" in result.output


def test_terminal_obeys_no_value(runner: FlaskCliRunner, store: MemoryStore) -> None:
    store.write([make_record(route="/a\x1b[2J", variables={"x": 1, "y\x1b": "\x9b2J"})])
    for arguments in (
        ["top", "y\x1b"],
        ["stats", "x", "--by", "route"],
        ["stats", "x", "--by-variable", "y\x1b"],
    ):
        output = said(runner, *arguments)
        assert "\ufffd" in output
        assert "\x1b" not in output
        assert "\x9b" not in output


@pytest.mark.parametrize("command", [["top", "x"], ["stats", "x", "--by", "route"]])
def test_variable_that_nobody_has_gives_nothing(
    runner: FlaskCliRunner, store: MemoryStore, command: list[str]
) -> None:
    write_orders(store)
    assert said(runner, *command).startswith("No record was found with ")
    assert said(runner, *command, "--json") == ""
    assert "if plan is recorded as one, ask 'plan=\"7\"'" in said(runner, *command, "--where", "plan=7")


@pytest.mark.parametrize("command", [["top", "x"], ["stats", "x"]])
def test_store_that_is_not_there_yet_gives_nothing_and_is_not_made(tmp_path: Path, command: list[str]) -> None:
    app = Flask("shop", root_path=str(tmp_path))
    app.cli.add_command(chest_group)
    FlaskChestSQLite(app)
    assert said(app.test_cli_runner(), *command).startswith("No record was found with ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["top", "x"], ["stats", "x"]])
def test_store_that_cannot_count_says_so(command: list[str]) -> None:
    class Simple:
        def __init__(self) -> None:
            self._inner = MemoryStore()
            self.open, self.close, self.status = self._inner.open, self._inner.close, self._inner.status
            self.write, self.query = self._inner.write, self._inner.query

    app = Flask("shop")
    app.cli.add_command(chest_group)
    with closing(FlaskChest(app, store=Simple())):
        result = app.test_cli_runner().invoke(args=["chest", *command])
    assert result.exit_code == 1
    assert "Simple does not implement Statistics" in result.output


def test_chests_are_counted_one_after_the_other() -> None:
    app = Flask("shop")
    app.cli.add_command(chest_group)
    stores = [MemoryStore(), MemoryStore()]
    for number, store in enumerate(stores):
        store.open()
        store.write([make_record(variables={"x": number})])
    with closing(FlaskChest(app, store=stores[0])), closing(FlaskChest(app, store=stores[1])):
        assert [each["value"] for each in objects(app.test_cli_runner(), "top", "x")] == [0, 1]


def test_fields_of_records_are_counted_and_summed_up_like_variables(
    runner: FlaskCliRunner, store: MemoryStore
) -> None:
    write_orders(store)
    assert said(runner, "top", "status_code") == "records  status_code\n      3  200\n      1  503\n"
    assert said(runner, "top", "route", "--where", "total>=1000") == 'records  route\n      1  "/a"\n'
    assert said(runner, "top", "route", "--since", "90m") == 'records  route\n      2  "/a"\n      1  "/b"\n'
    assert said(runner, "stats", "duration_ns", "--by", "route", "--route", "/a") == (
        "records     mean  minimum  maximum  route\n      2  1500000  1500000  1500000  /a\n"
    )
    (by_plan, _) = objects(runner, "stats", "status_code", "--by-variable", "plan")
    assert by_plan == {"group": "pro", "records": 2, "mean": 200.0, "minimum": 200.0, "maximum": 200.0}
