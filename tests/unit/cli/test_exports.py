"""`flask chest export`, `rejected` and `migrate`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

from flask_chest import ConfigurationError, FlaskChest, FlaskChestSQLite, RecordsRejected, TargetUnavailable
from flask_chest.cli import chest_group
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import RecordingExporter


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask("shop", root_path=str(tmp_path))
    app.cli.add_command(chest_group)
    app.testing = True
    app.route("/")(lambda: "hi")
    return app


@pytest.fixture
def chest(app: Flask) -> Iterator[FlaskChest]:
    with closing(FlaskChestSQLite(app, tracked_vars=["x"])) as chest:
        yield chest


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    return app.test_cli_runner()


def test_export_delivers_what_is_pending(app: Flask, chest: FlaskChest, runner: FlaskCliRunner) -> None:
    one, two = RecordingExporter("one"), RecordingExporter("two")
    chest.add_exporter(one)
    chest.add_exporter(two)
    for _ in range(3):
        app.test_client().get("/")
    result = runner.invoke(args=["chest", "export", "two"])
    assert (result.exit_code, result.output) == (0, "two: 3 delivered\n")
    assert runner.invoke(args=["chest", "export"]).output == "one: 3 delivered\ntwo: 0 delivered\n"
    assert (len(one.delivered), len(two.delivered)) == (3, 3)


def test_export_that_fails_exits_with_1_and_says_why(
    app: Flask, chest: FlaskChest, runner: FlaskCliRunner
) -> None:
    exporter = RecordingExporter("far")
    exporter.failures = [TargetUnavailable("it is away")]
    chest.add_exporter(exporter)
    app.test_client().get("/")
    result = runner.invoke(args=["chest", "export"])
    assert result.exit_code == 1
    assert result.output == "far: 0 delivered, 1 pending, it is away\n"


def test_export_knows_the_names_of_the_app(app: Flask, chest: FlaskChest, runner: FlaskCliRunner) -> None:
    assert (
        "The app has no exporter: add one with chest.add_exporter"
        in runner.invoke(args=["chest", "export"]).output
    )
    chest.add_exporter(RecordingExporter("far"))
    result = runner.invoke(args=["chest", "export", "near"])
    assert (result.exit_code, result.output) == (1, "Error: The app has no exporter 'near'; it has far\n")
    with pytest.raises(ConfigurationError, match=r"no exporter named 'near', only \['far'\]"):
        chest.run_exports("near")


def test_rejected_records_are_listed_with_their_reasons(
    app: Flask, chest: FlaskChest, runner: FlaskCliRunner
) -> None:
    app.test_client().get("/")
    (record,) = chest.query()
    exporter = RecordingExporter("far")
    exporter.failures = [RecordsRejected("no", {record.id: "it is \x1b[2Jtoo long"})]
    chest.add_exporter(exporter)
    assert "1 set aside" in runner.invoke(args=["chest", "export"]).output
    listed = runner.invoke(args=["chest", "rejected", "list", "far"])
    assert listed.output.endswith(f" {record.id} it is \ufffd[2Jtoo long\n")
    (line,) = runner.invoke(args=["chest", "rejected", "list", "far", "--json"]).output.splitlines()
    assert json.loads(line)["record_id"] == record.id
    unknown = runner.invoke(args=["chest", "rejected", "list", "near"])
    assert unknown.exit_code == 1
    assert "No chest knows an exporter 'near'; see: flask chest exporters list" in unknown.output


def test_store_that_cannot_is_told_apart(app: Flask, runner: FlaskCliRunner) -> None:
    class Simple:
        def __init__(self) -> None:
            self._inner = MemoryStore()
            self.open, self.close, self.status = self._inner.open, self._inner.close, self._inner.status
            self.write, self.query = self._inner.write, self._inner.query

    with closing(FlaskChest(app, store=Simple())) as chest:
        chest.add_exporter(RecordingExporter("far"))
        assert "Simple does not implement Outbox" in runner.invoke(args=["chest", "export"]).output
        assert "Simple keeps no dead letters" in runner.invoke(args=["chest", "rejected", "list", "far"]).output
        assert (
            "Simple does not implement Retention"
            in runner.invoke(args=["chest", "prune", "--older-than", "1d"]).output
        )


def test_migrate_makes_the_store_and_check_only_looks(
    chest: FlaskChest, runner: FlaskCliRunner, tmp_path: Path
) -> None:
    check = runner.invoke(args=["chest", "migrate", "--check"])
    assert check.exit_code == 1
    assert "it is made when the first record is written" in check.output
    assert list(tmp_path.iterdir()) == []
    made = runner.invoke(args=["chest", "migrate"])
    assert (made.exit_code, made.output) == (0, f"SQLite {tmp_path}/db.sqlite3: up to date.\n")
    assert runner.invoke(args=["chest", "migrate", "--check"]).exit_code == 0


def test_check_finds_tables_that_a_newer_version_made(
    chest: FlaskChest, runner: FlaskCliRunner, tmp_path: Path
) -> None:
    runner.invoke(args=["chest", "migrate"])
    chest.close()
    with closing(sqlite3.connect(tmp_path / "db.sqlite3")) as connection:
        connection.execute("UPDATE flask_chest_schema SET version = 99")
        connection.commit()
    found = runner.invoke(args=["chest", "migrate", "--check"])
    assert found.exit_code == 1
    assert "99" in found.output
