"""`flask chest aggregate` and `top`: what is measured, and how it is written."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

from flask_chest import FlaskChest, FlaskChestSQLite, Unit, Variables
from flask_chest.cli import chest_group
from flask_chest.record import JSONValue
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import make_record

HOUR_NANO = 3_600 * 10**9
NOON = round(datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()) * 10**9


class Order(Variables):
    total: Annotated[float, Unit("EUR")]


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.open()
    return store


@pytest.fixture
def runner(store: MemoryStore) -> Iterator[FlaskCliRunner]:
    app = Flask("shop")
    with closing(FlaskChest(app, store=store, tracked_vars=Order)):
        app.cli.add_command(chest_group)
        yield app.test_cli_runner()


def said(runner: FlaskCliRunner, *arguments: str) -> str:
    result = runner.invoke(args=["chest", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(runner: FlaskCliRunner, *arguments: str) -> str:
    result = runner.invoke(args=["chest", *arguments])
    assert result.exit_code == 2, result.output
    return result.output


def objects(runner: FlaskCliRunner, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said(runner, *arguments, "--format", "jsonl").splitlines()]


def cells(runner: FlaskCliRunner, *arguments: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(said(runner, *arguments, "--format", "csv"), newline="")))


def write_orders(store: MemoryStore) -> None:
    store.write(
        [
            *(
                make_record(
                    route="/a",
                    duration_ns=20_000_000,
                    variables={"total": total, "plan": "pro"},
                    time_unix_nano=NOON - hours * HOUR_NANO,
                )
                for hours, total in enumerate((1_000, 1.5))
            ),
            make_record(
                route=None,
                variables={"total": -2, "plan": None},
                status_code=503,
                method="POST",
                time_unix_nano=NOON - 2 * HOUR_NANO,
            ),
            make_record(route="/b", variables={"total": "many"}, time_unix_nano=NOON - 2 * HOUR_NANO + 1),
        ]
    )


def test_table_has_groups_and_all_below_units(runner: FlaskCliRunner, store: MemoryStore) -> None:
    write_orders(store)
    assert said(runner, "aggregate", "mean(total)", "p50,p95(duration)", "error_rate", "--by", "route") == (
        "of all times, zone UTC\n"
        "route  records  mean(total) [EUR]  p50(duration) [s]  p95(duration) [s]  error_rate [%]\n"
        "/a           2             500.75               0.02               0.02               0\n"
        "-            1                 -2             0.0015             0.0015             100\n"
        "/b           1                  -             0.0015             0.0015               0\n"
        "all          4            333.167             0.0015               0.02              25\n"
    )


def test_others_are_there_if_there_are_any(runner: FlaskCliRunner, store: MemoryStore) -> None:
    write_orders(store)
    arguments = ["count", "--by", "route", "--by", "plan", "--top", "1"]
    assert said(runner, "aggregate", *arguments).splitlines()[1:] == [
        "route   plan   count",
        '/a      "pro"      2',
        "others             2",
        "all                4",
    ]


def test_series_is_a_row_for_each_span_and_group(runner: FlaskCliRunner, store: MemoryStore) -> None:
    write_orders(store)
    hours = ["--since", "2026-11-23 11:30", "--until", "2026-11-23 14:00", "--tz", "Europe/Berlin"]
    assert said(runner, "aggregate", "count", "--by", "plan", "--every", "1h", *hours) == (
        "since 2026-11-23 11:30:00 +01:00 until 2026-11-23 14:00:00 +01:00, zone Europe/Berlin, spans of 1h\n"
        "plan   count\n"
        '"pro"      2\n'
        "all        2\n"
        "\n"
        "time [Europe/Berlin]       plan   count\n"
        "2026-11-23 11:00:00+01:00  all        0\n"
        '2026-11-23 12:00:00+01:00  "pro"      1\n'
        "2026-11-23 12:00:00+01:00  all        1\n"
        '2026-11-23 13:00:00+01:00  "pro"      1\n'
        "2026-11-23 13:00:00+01:00  all        1\n"
    )


def test_histogram_is_a_row_for_each_bin(runner: FlaskCliRunner, store: MemoryStore) -> None:
    write_orders(store)
    assert said(runner, "aggregate", "histogram(total,0,10)").splitlines()[1:] == [
        "total from [EUR]  below [EUR]  requests",
        "               -            0         1",
        "               0           10         1",
        "              10            -         1",
    ]


KEYS: list[JSONValue] = [1, "1", True, 1.0, None, [1], {"a": 1}, "[]", "=1+1"]


def test_no_two_keys_are_written_alike(runner: FlaskCliRunner, store: MemoryStore) -> None:
    store.write([make_record(variables={"v": key}) for key in KEYS])
    store.write([make_record(variables={})])
    rows = said(runner, "top", "v").splitlines()[2:-1]
    assert len({row.split("  ")[0] for row in rows}) == len(KEYS) + 1
    assert "(absent)" in rows[0]
    found = [json.dumps(row["key"]) for row in objects(runner, "top", "v")]
    assert len(set(found)) == len(found) - 1  # only all and absent have no key
    kept = {row[1] for row in cells(runner, "top", "v")[1:] if row[0] == "group"}
    assert kept == {"", "1", '"1"', "true", "1.0", "null", "[]", "{}", '"[]"', '"=1+1"'}


def test_json_is_an_object_a_row(runner: FlaskCliRunner, store: MemoryStore) -> None:
    write_orders(store)
    asked = ["aggregate", "p50(total)", "histogram(total,0)", "--by", "plan", "--by", '"route"', "--route", "/a"]
    values = {
        "p50(total)": 1.5,
        "histogram(total,0)": [
            {"lower": None, "upper": 0.0, "requests": 0},
            {"lower": 0.0, "upper": None, "requests": 2},
        ],
    }
    assert objects(runner, *asked) == [
        {"kind": "group", "key": {"plan": "pro"}, "records": 2, "values": values},
        {"kind": "all", "key": {}, "records": 2, "values": values},
    ]
    hours = ["--since", "2026-11-23T11", "--until", "2026-11-23T13"]
    series = objects(runner, "aggregate", "count", "--every", "1h", *hours)
    assert [(row["begin_unix_nano"], row["values"]) for row in series] == [
        (NOON - HOUR_NANO, {"count": 1}),
        (NOON, {"count": 1}),
    ]


def test_csv_is_a_line_a_row(runner: FlaskCliRunner, store: MemoryStore) -> None:
    write_orders(store)
    store.write([make_record(route="=1+1", variables={"total": 0.0})])
    assert cells(runner, "aggregate", "sum(total)", "histogram(total,0)", "--by", "route", "--top", "1") == [
        ["kind", "route", "records", "sum(total)", "histogram(total)[-inf]", "histogram(total)[0]"],
        ["group", "/a", "2", "1001.5", "0", "2"],
        ["others", "", "3", "-2.0", "1", "1"],
        ["all", "", "5", "999.5", "1", "3"],
    ]
    (row,) = (row for row in cells(runner, "top", "route") if "1+1" in row[1])
    assert row == ["group", "'=1+1", "1", "1"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--route", "/a"], 2),
        (["--status", "5xx"], 1),
        (["--where", "plan=pro"], 2),
        (["--where", "total>1", "--where", "plan is set"], 2),
        (["--method", "post"], 1),
        (["--since", "2026-11-23 10:30"], 2),
        (["--until", "2026-11-23 12:00", "--tz", "Europe/Berlin"], 3),
    ],
    ids=str,
)
def test_options_narrow_what_is_measured(
    runner: FlaskCliRunner, store: MemoryStore, arguments: list[str], expected: int
) -> None:
    write_orders(store)
    (row,) = objects(runner, "aggregate", "count", *arguments)
    assert row["values"]["count"] == expected - (arguments[-1] == "Europe/Berlin")


def test_top_is_short_for_count_by(runner: FlaskCliRunner, store: MemoryStore) -> None:
    write_orders(store)
    assert said(runner, "top", "plan") == said(runner, "aggregate", "count", "--by", "plan")
    assert said(runner, "top", "plan", "--limit", "1", "--by", "route") == said(
        runner, "aggregate", "count", "--by", "plan", "--by", "route", "--top", "1"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["median(total)"], "'median(total)' is no measure; write count, error_rate"),
        (["count", "--by", "id"], "Invalid value for '--by': id is a field by which nothing is grouped"),
        (["count", "--every", "1h"], "--every needs --since, as in --since 24h"),
        (
            ["count", "--every", "1s", "--since", "1d"],
            "150 are the most; the shortest round ones",
        ),
        (["count", "--top", "0"], "Invalid value for '--top'"),
        (
            ["count", "--tz", "Mars"],
            "'--tz': 'Mars' is not a time zone that this machine knows",
        ),
        (["count", "--plot", "--format", "csv"], "--plot is for --format table"),
        ([], "Missing argument 'MEASURE...'"),
    ],
)
def test_what_cannot_be_answered_is_said_with_the_way_out(
    runner: FlaskCliRunner, arguments: list[str], message: str
) -> None:
    assert message in refused(runner, "aggregate", *arguments)


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (
            ["cart_total", "--since", "7d"],
            "'mean(cart_total)' 'min(cart_total)' 'max(cart_total)' --since 7d",
        ),
        (
            ["duration_ns", "--by", "route"],
            "'mean(duration)' 'min(duration)' 'max(duration)' --by route",
        ),
        (["x", "--by-variable", "plan", "--json"], "'max(x)' --by plan --format=jsonl"),
    ],
)
def test_stats_says_which_command_it_is_now(
    runner: FlaskCliRunner, store: MemoryStore, arguments: list[str], instead: str
) -> None:
    result = runner.invoke(args=["chest", "stats", *arguments])
    assert result.exit_code == 1
    assert result.output.startswith("Error: stats is aggregate now; write: flask chest aggregate ")
    assert instead in result.output


def test_terminal_obeys_no_value(runner: FlaskCliRunner, store: MemoryStore) -> None:
    store.write([make_record(route="/a\x1b[2J", variables={"x": 1, "y\x1b": "\x9b2J"})])
    for form in ("table", "jsonl", "csv"):
        for name in ("route", "y\x1b"):
            output = said(runner, "aggregate", "mean(x)", "--by", name, "--format", form)
            assert "\x1b" not in output
            assert "\x9b" not in output


@pytest.mark.parametrize("command", [["top", "x"], ["aggregate", "mean(x)", "--by", "route"]])
def test_nothing_found_is_said(runner: FlaskCliRunner, store: MemoryStore, command: list[str]) -> None:
    result = runner.invoke(args=["chest", *command, "--where", "plan=7"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("Nothing found.\nplan=7 matches no string: if plan is recorded as one")


@pytest.mark.parametrize("command", [["top", "x"], ["aggregate", "count"]])
def test_store_that_is_not_there_yet_gives_nothing_and_is_not_made(tmp_path: Path, command: list[str]) -> None:
    app = Flask("shop", root_path=str(tmp_path))
    app.cli.add_command(chest_group)
    FlaskChestSQLite(app)
    result = app.test_cli_runner().invoke(args=["chest", *command])
    assert (result.exit_code, result.output) == (0, "Nothing found.\n")
    assert list(tmp_path.iterdir()) == []


def test_store_that_cannot_aggregate_says_so() -> None:
    class Simple:
        def __init__(self) -> None:
            self._inner = MemoryStore()
            self.open, self.close, self.status = self._inner.open, self._inner.close, self._inner.status
            self.write, self.query = self._inner.write, self._inner.query

    app = Flask("shop")
    app.cli.add_command(chest_group)
    with closing(FlaskChest(app, store=Simple())):
        result = app.test_cli_runner().invoke(args=["chest", "top", "x"])
    assert result.exit_code == 1
    assert "Simple does not implement Aggregation" in result.output


def test_chests_are_measured_one_after_the_other() -> None:
    app = Flask("shop")
    app.cli.add_command(chest_group)
    stores = [MemoryStore(), MemoryStore()]
    for number, store in enumerate(stores):
        store.open()
        store.write([make_record(variables={"x": number})])
    with closing(FlaskChest(app, store=stores[0])), closing(FlaskChest(app, store=stores[1])):
        runner = app.test_cli_runner()
        assert [row["key"] for row in objects(runner, "top", "x")] == [{"x": 0}, {}, {"x": 1}, {}]
        assert [row[0] for row in cells(runner, "top", "x")] == ["kind", "group", "all", "group", "all"]


def test_numbers_that_do_not_count_are_told(runner: FlaskCliRunner, store: MemoryStore) -> None:
    store.write([make_record(variables={"x": 1e300})])
    result = runner.invoke(args=["chest", "aggregate", "sum(x)"])
    assert result.stderr == "Numbers beyond ±1e290 do not count: there are 1 of them.\n"


def test_no_plot_comes_out_of_a_pipe(runner: FlaskCliRunner, store: MemoryStore) -> None:
    write_orders(store)
    result = runner.invoke(args=["chest", "aggregate", "count", "--by", "route", "--plot"])
    assert result.stdout == said(runner, "aggregate", "count", "--by", "route")
    assert result.stderr == "--plot draws on a terminal alone.\n"


SHOP = """
import sys
if sys.argv[-1] == "none":
    sys.modules["plotille"] = None
from flask import Flask
from flask_chest import FlaskChest
from flask_chest.cli import chest_group
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import make_record

app = Flask("shop")
store = MemoryStore()
store.open()
store.write([
    make_record(route=route, variables={"price": price}, time_unix_nano=1_700_000_000_000_000_000 + price * 10**9)
    for route, price in (("/a", 10), ("/a", 400), ("/b", 900))
])
FlaskChest(app, store=store)
with app.app_context():
    chest_group(sys.argv[1:-1])
"""


def on_terminal(folder: Path, *arguments: str, plotille: bool = True) -> str:
    """Run the command where its standard output is a terminal, and return what is shown."""
    pty = pytest.importorskip("pty")
    (folder / "shop.py").write_text(SHOP)
    ours, theirs = pty.openpty()
    command = [sys.executable, "shop.py", *arguments, "some" if plotille else "none"]
    environ = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        with subprocess.Popen(command, cwd=folder, stdout=theirs, env=environ) as running:
            os.close(theirs)
            shown = b""
            with suppress(OSError):  # which is how Linux ends it
                while more := terminal.read(4096):
                    shown += more
        assert running.returncode == 0
    return shown.decode().replace("\r\n", "\n")


SERIES = ["--every", "5m", "--since", "2023-11-14 22:10", "--until", "2023-11-14 22:30"]


@pytest.mark.slow
def test_groups_and_histograms_are_bars_on_a_terminal(tmp_path: Path) -> None:
    shown = on_terminal(tmp_path, "aggregate", "count", "histogram(price,500)", "--by", "route", "--plot")
    assert "\ncount\n/a  2  ███" in shown
    first, second = (line for line in shown.splitlines() if "█" in line and line.startswith("/"))
    assert first.count("█") // 2 == second.count("█")
    assert "histogram(price,500)\n- to 500  2  ███" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.slow
def test_series_are_lines_on_a_terminal(tmp_path: Path) -> None:
    shown = on_terminal(tmp_path, "aggregate", "count", "--by", "route", "--plot", *SERIES)
    assert "\ncount, UTC\n" in shown
    assert any(0x2800 < ord(letter) < 0x2900 for letter in shown)
    assert "/b" in shown[shown.index("Legend") :]


@pytest.mark.slow
def test_series_without_the_extra_are_tables_and_a_hint(tmp_path: Path) -> None:
    shown = on_terminal(tmp_path, "aggregate", "count", "mean(price)", "--plot", *SERIES, plotille=False)
    assert shown.count("Lines need the extra plot: pip install 'flask-request-chest[plot]'.") == 1
    assert "2023-11-14 22:20:00" in shown


def test_beginning_before_the_calendar_is_refused(runner: FlaskCliRunner) -> None:
    told = refused(runner, "aggregate", "count", "--since", "999999d", "--every", "1d")
    assert "since and until must be times of the calendar" in told
