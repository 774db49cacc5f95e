"""`flask chest query` into files: which records, and that a file is there whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

from flask_chest import FlaskChest, Variables
from flask_chest.cli import chest_group
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import make_record


class Visit(Variables):
    user_id: int


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(tmp_path / "chest.db")) as store:
        yield store


@pytest.fixture
def runner(store: SQLiteStore) -> Iterator[FlaskCliRunner]:
    app = Flask("shop")
    app.cli.add_command(chest_group)
    with closing(FlaskChest(app, store=store, tracked_vars=Visit, journal_dir="memory:")):
        yield app.test_cli_runner()


def fill(store: SQLiteStore, count: int) -> None:
    store.open()
    store.write([make_record(variables={"user_id": number % 3}) for number in range(count)])


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_file_has_the_records_that_are_asked_for(
    runner: FlaskCliRunner, store: SQLiteStore, tmp_path: Path, form: str
) -> None:
    fill(store, 150)
    path = tmp_path / f"records.{form}"
    read = pl.read_parquet if form == "parquet" else pl.read_ipc
    ask = ["chest", "query", "--format", form, "-o", str(path)]
    result = runner.invoke(args=ask)
    assert result.output == "Showing the newest 100. Use --limit N for more, or --all.\n"
    assert read(path).height == 100
    result = runner.invoke(args=[*ask, "--all", "--where", "user_id=1"])
    assert (result.exit_code, result.output) == (0, "")
    assert read(path)["user_id"].to_list() == [1] * 50
    assert [each.name for each in tmp_path.iterdir() if "records" in each.name] == [path.name]


def test_lines_go_into_a_file_too(runner: FlaskCliRunner, store: SQLiteStore, tmp_path: Path) -> None:
    fill(store, 3)
    path = tmp_path / "records.jsonl"
    result = runner.invoke(args=["chest", "query", "--format", "jsonl", "-o", str(path)])
    assert (result.exit_code, result.output) == (0, "")
    assert [json.loads(line)["variables"] for line in path.read_text().splitlines()] == [
        {"user_id": 2},
        {"user_id": 1},
        {"user_id": 0},
    ]


def test_store_that_is_not_there_is_not_made(runner: FlaskCliRunner, tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    result = runner.invoke(args=["chest", "query", "--format", "parquet", "-o", str(path)])
    assert (result.exit_code, result.output) == (0, "Nothing found.\n")
    assert pl.read_parquet(path).height == 0
    assert not (tmp_path / "chest.db").exists()


def test_file_stays_as_it_was_where_the_answer_fails(
    runner: FlaskCliRunner, store: SQLiteStore, tmp_path: Path
) -> None:
    fill(store, 3)
    path = tmp_path / "records.parquet"
    path.write_text("before")
    store._database.close()
    (tmp_path / "chest.db").write_text("no database " * 100)
    for ending in ("-wal", "-shm"):
        (tmp_path / f"chest.db{ending}").unlink(missing_ok=True)
    result = runner.invoke(args=["chest", "query", "--format", "parquet", "-o", str(path)])
    assert result.exit_code == 1
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir() if "records" in each.name] == [path.name]


def test_file_that_cannot_be_written_is_said(runner: FlaskCliRunner, store: SQLiteStore, tmp_path: Path) -> None:
    fill(store, 1)
    path = tmp_path / "absent" / "records.parquet"
    result = runner.invoke(args=["chest", "query", "--format", "parquet", "-o", str(path)])
    assert result.exit_code == 1
    assert f"{path} cannot be written: No such file or directory" in result.output.replace("\n", " ")


def test_format_of_files_needs_a_file(runner: FlaskCliRunner) -> None:
    result = runner.invoke(args=["chest", "query", "--format", "parquet"])
    assert result.exit_code == 2
    assert "--format parquet needs -o FILE" in result.output
