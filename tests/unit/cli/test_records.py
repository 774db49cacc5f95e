"""`flask chest query`, `tail` and `prune`: which records, in which form."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, g, request
from flask.testing import FlaskCliRunner

from flask_chest import FlaskChest, FlaskChestSQLite, Record
from flask_chest.cli import chest_group
from flask_chest.cli._output import lines
from flask_chest.decorator import flask_chest
from flask_chest.protocols import Claim
from flask_chest.record import JSONValue, same_value
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import RecordingExporter, make_record

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


def asked(runner: FlaskCliRunner, *arguments: str) -> list[dict[str, Any]]:
    result = runner.invoke(args=["chest", "query", "--format", "jsonl", *arguments])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.output.split("\n") if line]


def read_back(found: dict[str, Any]) -> Record:
    return Record(**found)


def test_json_lines_read_back_are_the_records(runner: FlaskCliRunner, store: MemoryStore) -> None:
    variables: dict[str, JSONValue] = {
        "big": 2**63 - 1,
        "float": 1.0,
        "text": "a\nb\u2028ü",
        "deep": [{"x": None}],
    }
    records = [make_record(variables=variables), make_record(error="ValueError", trace_id="0" * 31 + "1")]
    store.write(records)
    assert sorted(map(read_back, asked(runner)), key=lambda each: each.id) == sorted(
        records, key=lambda each: each.id
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--where", "user_id=7"], {1}),
        (["--where", 'user_id="7"'], {2}),
        (["--where", "plan=pro"], {1, 2}),
        (["--where", "plan=pro", "--where", "user_id=7"], {1}),
        (["--where", "n>1"], {2, 3}),
        (["--where", "n>=2", "--where", "n < 3"], {2}),
        (["--where", 'user_id in 7,"7"'], {1, 2}),
        (["--where", "user_id is set"], {1, 2}),
        (["--where", "n=2", "--where", "n<=1"], set()),
        (["--where", "n=2", "--where", "n=2"], {2}),
        (["--route", "/a"], {1}),
        (["--status", "503"], {3}),
        (["--status", "5xx"], {3}),
        (["--status", "2XX"], {1, 2}),
        (["--status", "4xx"], set()),
        (["--errors"], {2, 3}),
        (["--errors", "--status", "2xx"], {2}),
        (["--error", "ValueError"], {2}),
        (["--method", "post"], {3}),
        (["--method", "purge"], set()),
        (["--request-id", "r2"], {2}),
        (["--since", "90m"], {1, 2}),
        (["--until", "90m"], {3}),
        (["--limit", "2"], {1, 2}),
        (["--limit", "0"], set()),
        (["--limit", "1", "--all"], {1, 2, 3}),
    ],
    ids=str,
)
def test_options_narrow_the_answer(
    runner: FlaskCliRunner, store: MemoryStore, arguments: list[str], expected: set[int]
) -> None:
    now = time.time_ns()
    store.write(
        [
            make_record(variables={"n": 1, "user_id": 7, "plan": "pro"}, route="/a", time_unix_nano=now),
            make_record(
                variables={"n": 2, "user_id": "7", "plan": "pro"},
                request_id="r2",
                error="ValueError",
                time_unix_nano=now - HOUR_NANO,
            ),
            make_record(variables={"n": 3}, status_code=503, method="POST", time_unix_nano=now - 2 * HOUR_NANO),
        ]
    )
    assert {each["variables"]["n"] for each in asked(runner, *arguments)} == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--since", "soon"], "Invalid value for '--since': 'soon' is not a time; write 2026-11-23"),
        (
            ["--until", "99999999999w"],
            "Invalid value for '--until': '99999999999w' is not a span of time, or too",
        ),
        (
            ["--where", "user_id"],
            "Invalid value for '--where': 'user_id' must be a condition on a variable, as user_id=7",
        ),
        (
            ["--status", "ok"],
            "Invalid value for '--status': 'ok' is not a status; write a code, as 404, or a class",
        ),
        (["--status", "0xx"], "Invalid value for '--status': '0xx' is not a status"),
        (["--limit", "-1"], "Invalid value for '--limit'"),
    ],
)
def test_wrong_option_is_said_with_the_way_out(
    runner: FlaskCliRunner, arguments: list[str], message: str
) -> None:
    result = runner.invoke(args=["chest", "query", *arguments])
    assert result.exit_code == 2
    assert message in result.output


def test_moment_without_a_zone_is_utc(runner: FlaskCliRunner, store: MemoryStore) -> None:
    noon = round(datetime(2024, 2, 29, 12, tzinfo=UTC).timestamp()) * 10**9
    store.write([make_record(time_unix_nano=noon)])
    assert len(asked(runner, "--since", "2024-02-29T12:00:00")) == 1
    assert asked(runner, "--since", "2024-02-29T11:00:00-02:00") == []


def test_times_are_read_and_printed_in_the_zone_that_is_said(runner: FlaskCliRunner, store: MemoryStore) -> None:
    noon = round(datetime(2024, 2, 29, 12, tzinfo=UTC).timestamp()) * 10**9
    store.write([make_record(time_unix_nano=noon, request_id="r", variables={}, route="/")])
    for command, above, time_text in (
        (
            [],
            "time [UTC]              method status duration  ",
            "2024-02-29 12:00:00.000 GET    200      1.5 ms",
        ),
        (
            ["--tz", "Asia/Kolkata"],
            "time [Asia/Kolkata]           method status duration  ",
            "2024-02-29 17:30:00.000+05:30 GET    200      1.5 ms",
        ),
    ):
        first, second = runner.invoke(args=["chest", "query", *command]).stdout.splitlines()
        assert first.startswith(above)
        assert second.startswith(time_text)
    shown = runner.invoke(args=["chest", "show", "r", "--tz", "Asia/Kolkata"]).stdout
    assert shown.startswith("2024-02-29 17:30:00 +05:30 GET / 200")
    held = runner.invoke(args=["chest", "status", "--tz", "Asia/Kolkata"]).stdout
    assert "from 2024-02-29 17:30:00 +05:30 to 2024-02-29 17:30:00 +05:30" in held
    assert len(asked(runner, "--since", "2024-02-29 17:30", "--tz", "Asia/Kolkata")) == 1
    assert asked(runner, "--since", "2024-02-29 17:31", "--tz", "Asia/Kolkata") == []


def test_since_takes_days_and_several_units(runner: FlaskCliRunner, store: MemoryStore) -> None:
    now = time.time_ns()
    store.write([make_record(time_unix_nano=now), make_record(time_unix_nano=now - 49 * HOUR_NANO)])
    for since, count in (("1d12h", 1), ("2d2h", 2), ("yesterday", 1)):
        assert len(asked(runner, "--since", since)) == count
    assert len(asked(runner, "--until", "yesterday")) == 1


def rows(records: list[Record], *columns: str) -> list[dict[str, str]]:
    text = "\n".join(lines(records, "csv", columns=columns))
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("x")'])
def test_no_spreadsheet_calculates_a_text(text: str) -> None:
    (row,) = rows([make_record(route=text, variables={"note": text})], "note")
    assert (row["route"], row["note"]) == (f"'{text}", f"'{text}")


def test_csv_has_a_column_for_each_variable_that_is_asked_for() -> None:
    records = [make_record(variables={"a": -1, "b": 'x,"y"\nz', "c": [1]}), make_record(variables={"a": None})]
    first, second = rows(records, "a", "b", "c", "d")
    assert [first[name] for name in "abcd"] == ["-1", 'x,"y"\nz', "[1]", ""]
    assert [second[name] for name in "abcd"] == ["", "", "", ""]
    (whole,) = rows(records[:1])
    assert same_value(json.loads(whole["variables"]), dict(records[0].variables))


def test_table_obeys_no_control_characters(runner: FlaskCliRunner, store: MemoryStore) -> None:
    store.write([make_record(route="/a\x1b[2J", variables={"x": "\x1b]0;title\x07"})])
    result = runner.invoke(args=["chest", "query"])
    assert "\x1b" not in result.output
    assert "/a\ufffd[2J" in result.output


HOSTILE = "\x1b]0;OWNED\x07\x1b[35m\x9b2J\u202e"


@pytest.mark.parametrize(
    "command",
    [
        ["query"],
        ["query", "--format", "csv"],
        ["query", "--format", "csv", "--column", "x"],
        ["query", "--format", "jsonl"],
        ["tail"],
        ["show", "r"],
        ["top", "x"],
        ["top", "x", "--json"],
        ["top", "method"],
        ["stats", "n", "--by", "route"],
        ["stats", "n", "--by-variable", "x", "--json"],
        ["rejected", "list", "far", "--json"],
        ["rejected", "list", "far"],
        ["status"],
        ["status", "--json"],
        ["exporters", "list"],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_terminal_obeys_nothing_that_a_client_or_a_target_sent(
    runner: FlaskCliRunner, store: MemoryStore, command: list[str]
) -> None:
    record = make_record(
        request_id="r", method=HOSTILE, route=HOSTILE, error=HOSTILE, variables={"x": HOSTILE, "n": 1}
    )
    store.write([record])
    store.register("far", start_at="beginning")
    claim = store.claim("far", limit=1, lease=timedelta(minutes=1))
    assert isinstance(claim, Claim)
    store.acknowledge(claim, rejected={record.id: HOSTILE})
    result = runner.invoke(chest_group, command, color=True)
    assert result.output
    controls = {letter for letter in result.output if not letter.isprintable()} - set("\r\n")
    colours = {"\x1b"} if command == ["query"] else set()
    allowed = {"\u202e"} if "csv" in command else colours  # which is data, and moves no cursor
    assert controls <= allowed
    assert "\x1b[35m" not in result.output


def test_json_lines_mean_the_same_without_controls(runner: FlaskCliRunner, store: MemoryStore) -> None:
    store.write([make_record(variables={"x": HOSTILE + "\U000e0001"})])
    (found,) = asked(runner, "--where", "x=" + json.dumps(HOSTILE + "\U000e0001"))
    assert found["variables"]["x"] == HOSTILE + "\U000e0001"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["table", "jsonl", "csv"])
def test_output_in_a_narrow_encoding_is_whole(tmp_path: Path, form: str) -> None:
    store = SQLiteStore(tmp_path / "db")
    store.open()
    store.write([make_record(variables={"city": "Zürich 東京"}), make_record(variables={"city": "Bern"})])
    store.close()
    (tmp_path / "shop.py").write_text(APP.format(folder=tmp_path))
    command = [sys.executable, "-m", "flask", "--app", "shop", "chest", "query", "--format", form]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment, check=True)
    shown = done.stdout.decode()
    assert "Bern" in shown
    assert ("Z?rich ??" if form == "table" else "Zürich 東京") in shown


def test_tail_gives_the_last_records_oldest_first(runner: FlaskCliRunner, store: MemoryStore) -> None:
    store.write(
        [make_record(variables={"n": number}, status_code=200 + 300 * (number % 2)) for number in range(30)]
    )
    found = [
        json.loads(line)["variables"]["n"] for line in runner.invoke(args=["chest", "tail"]).output.splitlines()
    ]
    assert found == list(range(20, 30))
    result = runner.invoke(args=["chest", "tail", "--errors", "-n", "3"])
    assert [json.loads(line)["variables"]["n"] for line in result.output.splitlines()] == [25, 27, 29]


APP = """
from flask import Flask
from flask_chest import FlaskChestSQLite
app = Flask("shop", instance_path=r"{folder}")
FlaskChestSQLite(app, db_uri=r"{folder}/db", journal_dir=r"{folder}/journal", tracked_vars=["n"])
"""


@pytest.mark.slow
def test_tail_follows_the_records_of_another_process(tmp_path: Path) -> None:
    app = Flask("shop")

    @app.route("/")
    @flask_chest(tracked_vars=["n"])
    def index() -> str:
        g.n = int(request.args["n"])
        return "hi"

    (tmp_path / "shop.py").write_text(APP.format(folder=tmp_path))
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "db", journal_dir=tmp_path / "journal")
    tail = ["chest", "tail", "-f", "-n", "1", "--interval", "0.05"]
    command = [sys.executable, "-m", "flask", "--app", "shop", *tail]
    with closing(chest):
        for number in (-2, -1, 0):  # of which the last is wanted
            app.test_client().get(f"/?n={number}")
        assert chest.flush()
        with subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
        ) as following:
            assert following.stdout is not None
            deadline = threading.Timer(60, following.kill)
            deadline.start()
            try:
                for number in range(20):
                    assert json.loads(following.stdout.readline())["variables"] == {"n": number}
                    app.test_client().get(f"/?n={number + 1}")
                    assert chest.flush()
            finally:
                following.send_signal(signal.SIGINT)
            rest = following.stdout.read()
            deadline.cancel()
    assert len(rest.splitlines()) <= 1
    assert following.returncode == 0


def test_prune_deletes_what_is_old_and_keeps_what_an_exporter_must_have(tmp_path: Path) -> None:
    app = Flask("shop")
    app.cli.add_command(chest_group)
    runner = app.test_cli_runner()
    now = time.time_ns()
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "db", journal_dir="memory:", tracked_vars=["x"])
    with closing(chest):
        store = chest._state.here.open_store()
        store.write([make_record(time_unix_nano=now - number * HOUR_NANO) for number in range(2_500)])
        chest.add_exporter(RecordingExporter("late"), start_at="beginning")
        store.register("late")  # type: ignore[attr-defined]  # SQLite's can
        kept = runner.invoke(args=["chest", "prune", "--older-than", "5d"])
        assert kept.exit_code == 0
        assert kept.output == (
            "0 records deleted.\n"
            "Other records stay: an exporter has not had them yet; --unexported-too deletes them too.\n"
        )
        pruned = runner.invoke(args=["chest", "prune", "--older-than", "5d", "--unexported-too"])
        assert pruned.output == "2,380 records deleted.\n"
        assert len(chest.query(limit=None)) == 120
    wrong = runner.invoke(args=["chest", "prune", "--older-than", "5 days"])
    assert "'5 days' is not a span of time, or too long; write 90s, 15m, 2h, 30d, 4w" in wrong.output


@pytest.mark.parametrize("command", [["query"], ["tail"], ["prune", "--older-than", "1d"]])
def test_command_creates_no_database(tmp_path: Path, command: list[str]) -> None:
    app = Flask("shop", root_path=str(tmp_path))
    app.cli.add_command(chest_group)
    FlaskChestSQLite(app)
    result = app.test_cli_runner().invoke(args=["chest", *command])
    assert result.exit_code == 0, result.output
    assert list(tmp_path.iterdir()) == []


def test_query_that_asks_for_a_number_in_vain_says_how_to_ask_for_the_text(
    runner: FlaskCliRunner, store: MemoryStore
) -> None:
    store.write([make_record(variables={"user_id": "123"})])
    result = runner.invoke(args=["chest", "query", "--where", "user_id=123"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == (
        "Nothing found.\nuser_id=123 matches no string: if user_id is recorded as one, ask 'user_id=\"123\"'.\n"
    )
    assert len(asked(runner, "--where", 'user_id="123"')) == 1
    assert runner.invoke(args=["chest", "query", "--where", "user_id=abc"]).stderr == "Nothing found.\n"
    assert runner.invoke(args=["chest", "query", "--where", "user_id>100"]).stderr == (
        "Nothing found.\nuser_id>100 compares numbers: a string, as of digits, is neither more nor less.\n"
    )
    assert (
        "status_code is a field of every record"
        in runner.invoke(args=["chest", "query", "--where", "status_code=500"]).stderr
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--since", "30m", "--until", "2h"], "--since must be before --until"),
        (["--column", "plan"], "--column is for --format csv"),
        (
            ["--where", "n=1", "--where", 'n="1"'],
            '--where n=1 and n="1" cannot both hold; for either, ask \'n in 1,"1"\'',
        ),
    ],
)
def test_query_that_can_mean_nothing_is_refused(
    runner: FlaskCliRunner, arguments: list[str], message: str
) -> None:
    result = runner.invoke(args=["chest", "query", *arguments])
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize("form", ["table", "jsonl", "csv"])
def test_query_that_its_usual_limit_cuts_says_so(runner: FlaskCliRunner, store: MemoryStore, form: str) -> None:
    store.write([make_record() for _ in range(101)])
    cut = runner.invoke(args=["chest", "query", "--format", form])
    assert len(cut.stdout.splitlines()) == 100 + (form != "jsonl")
    assert cut.stderr == "Showing the newest 100. Use --limit N for more, or --all.\n"
    assert runner.invoke(args=["chest", "query", "--format", form, "--limit", "100"]).stderr == ""
    assert runner.invoke(args=["chest", "query", "--format", form, "--all"]).stderr == ""
