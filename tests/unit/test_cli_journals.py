"""`flask chest journal`: what waits on disk, whether it is whole, and storing it now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, g
from flask.testing import FlaskCliRunner

from flask_chest import FlaskChest, FlaskChestSQLite
from flask_chest.cli import chest_group
from flask_chest.stores.memory import MemoryStore
from journals import version_2_header

REQUESTS = 5


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask("shop", root_path=str(tmp_path))
    app.cli.add_command(chest_group)

    @app.route("/<int:number>")
    def page(number: int) -> str:
        g.number = number
        return "hi"

    return app


@pytest.fixture
def chest(app: Flask) -> Iterator[FlaskChest]:
    """A process that has left its records to others, and lives."""
    chest = FlaskChestSQLite(
        app, db_uri="chest.db", journal_dir="journal", writer="off", instance="web", tracked_vars=["number"]
    )
    for number in range(REQUESTS):
        app.test_client().get(f"/{number}")
    yield chest
    chest.close()


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    return app.test_cli_runner()


def segment_in(folder: Path) -> Path:
    (segment,) = folder.glob("journal/*/*.journal")
    return segment


def test_list_tells_what_waits_and_who_is_to_store_it(
    chest: FlaskChest, runner: FlaskCliRunner, tmp_path: Path
) -> None:
    name = segment_in(tmp_path).name
    listed = runner.invoke(args=["chest", "journal", "list"])
    assert listed.output == (
        f"{name} web:0: {REQUESTS} records waiting, 1 KiB, left by its process to others, and there are none\n"
    )
    (line,) = runner.invoke(args=["chest", "journal", "list", "--json"]).output.splitlines()
    found = json.loads(line)
    assert (found["waiting_records"], found["owner"], found["instance"]) == (REQUESTS, "leaves", "web:0")
    chest.close()
    assert "its process is gone" in runner.invoke(args=["chest", "journal", "list"]).output


def test_list_tells_of_processes_that_store_their_own(app: Flask, runner: FlaskCliRunner) -> None:
    chest = FlaskChestSQLite(app, db_uri="chest.db", journal_dir="journal", tracked_vars=["number"])
    app.test_client().get("/1")
    chest.flush()
    assert (
        "0 records waiting, 0 KiB, stored by its process"
        in runner.invoke(args=["chest", "journal", "list"]).output
    )
    chest.close()


@pytest.mark.usefixtures("chest")
def test_replay_stores_what_waits_and_a_second_one_finds_nothing(runner: FlaskCliRunner, app: Flask) -> None:
    assert runner.invoke(args=["chest", "journal", "replay"]).output == f"{REQUESTS} records stored.\n"
    assert runner.invoke(args=["chest", "journal", "replay"]).output == "0 records stored.\n"
    app.test_client().get("/6")
    assert runner.invoke(args=["chest", "journal", "replay"]).output == "1 record stored.\n"
    tail = runner.invoke(args=["chest", "tail"]).output.splitlines()
    assert [json.loads(line)["variables"]["number"] for line in tail] == [0, 1, 2, 3, 4, 6]


@pytest.mark.usefixtures("chest")
def test_verify_reads_all_that_waits(runner: FlaskCliRunner, tmp_path: Path) -> None:
    whole = runner.invoke(args=["chest", "journal", "verify"])
    assert (whole.exit_code, whole.output) == (0, f"{REQUESTS} records waiting in 1 segment.\n")
    segment = segment_in(tmp_path)
    data = bytearray(segment.read_bytes())
    data[600] ^= 1
    segment.write_bytes(data)
    damaged = runner.invoke(args=["chest", "journal", "verify"])
    assert damaged.exit_code == 1
    assert damaged.output.startswith(f"{segment.name} has ")
    assert damaged.output.endswith(
        f" damaged bytes, which will be skipped.\n{REQUESTS - 1} records waiting in 1 segment.\n"
    )


@pytest.mark.usefixtures("chest")
def test_verify_tells_of_segments_of_another_release(runner: FlaskCliRunner, tmp_path: Path) -> None:
    segment = segment_in(tmp_path)

    segment.write_bytes(version_2_header() + segment.read_bytes()[512:])
    told = runner.invoke(args=["chest", "journal", "verify"])
    assert told.exit_code == 1
    assert f"{segment.name} is of the unknown version 2, and left alone.\n" in told.output


@pytest.mark.usefixtures("chest")
def test_status_tells_what_waits(runner: FlaskCliRunner, tmp_path: Path) -> None:
    assert f"journal: {REQUESTS} records waiting in 1 segment, " in runner.invoke(args=["chest", "status"]).output
    (rejected,) = [path.parent / "rejected" for path in [segment_in(tmp_path)]]
    rejected.write_text("{}\n{}\n")
    assert "; 2 refused by the store for good" in runner.invoke(args=["chest", "status"]).output
    (report,) = json.loads(runner.invoke(args=["chest", "status", "--json"]).output)["chests"]
    assert report["journal"]["waiting_records"] == REQUESTS
    assert report["journal"]["refused"] == 2


@pytest.mark.parametrize("command", ["list", "verify", "replay"])
def test_journal_in_memory_has_no_segments(app: Flask, runner: FlaskCliRunner, command: str) -> None:
    FlaskChest(app, store=MemoryStore)
    result = runner.invoke(args=["chest", "journal", command])
    said = {"list": "", "verify": "0 records waiting in 0 segments.\n", "replay": "0 records stored.\n"}
    assert (result.exit_code, result.output) == (0, said[command])
