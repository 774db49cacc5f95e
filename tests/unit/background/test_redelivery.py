"""Delivering once more: what was set aside, and what the target has had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask, g
from flask.testing import FlaskCliRunner

from flask_chest import ConfigurationError, FlaskChest, FlaskChestSQLite, RecordsRejected, TargetUnavailable
from flask_chest.background.export_run import ExportReport
from flask_chest.cli import chest_group
from flask_chest.testing import RecordingExporter

REQUESTS = 6


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask("shop", root_path=str(tmp_path))
    app.cli.add_command(chest_group)
    app.testing = True

    @app.route("/<int:number>")
    def page(number: int) -> str:
        g.number = number
        return "hi"

    return app


@pytest.fixture
def chest(app: Flask) -> Iterator[FlaskChest]:
    with closing(FlaskChestSQLite(app, tracked_vars=["number"])) as chest:
        for number in range(REQUESTS):
            app.test_client().get(f"/{number}")
        yield chest


@pytest.fixture
def exporter(chest: FlaskChest) -> RecordingExporter:
    """An exporter that has had all records but two, which its target refused."""
    exporter = RecordingExporter("far")
    refused = [record.id for record in chest.query(limit=2)]
    exporter.failures = [RecordsRejected("no", dict.fromkeys(refused, "too long"))]
    chest.add_exporter(exporter, interval=timedelta(days=1))
    (report,) = chest.run_exports()
    assert (report.delivered, report.rejected) == (REQUESTS - 2, 2)
    return exporter


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    return app.test_cli_runner()


def aside(chest: FlaskChest) -> list[str]:
    return [each.record_id for each in chest._state.here.open_store().rejections("far")]  # type: ignore[attr-defined]  # SQLite's can


def test_what_is_delivered_at_last_is_not_set_aside_any_more(
    chest: FlaskChest, exporter: RecordingExporter
) -> None:
    newest, second = aside(chest)
    assert chest.retry_rejected("far", [second]) == ExportReport(exporter="far", delivered=1)
    assert exporter.delivered[-1].id == second
    assert aside(chest) == [newest]
    assert chest.retry_rejected("far") == ExportReport(exporter="far", delivered=1)
    assert aside(chest) == []


def test_what_is_refused_again_stays_set_aside(chest: FlaskChest, exporter: RecordingExporter) -> None:
    first, second = aside(chest)
    exporter.failures = [RecordsRejected("no", {first: "still too long"})]
    assert chest.retry_rejected("far") == ExportReport(exporter="far", delivered=1, rejected=1)
    assert aside(chest) == [first]
    assert second in [record.id for record in exporter.delivered]


def test_what_is_away_is_told_and_nothing_is_forgotten(chest: FlaskChest, exporter: RecordingExporter) -> None:
    exporter.failures = [TargetUnavailable("it is away")]
    assert chest.retry_rejected("far") == ExportReport(exporter="far", error="it is away")
    assert len(aside(chest)) == 2


def test_replay_delivers_again_what_began_in_its_time(chest: FlaskChest, exporter: RecordingExporter) -> None:
    records = chest.query()
    assert chest.replay("far") == ExportReport(exporter="far", delivered=REQUESTS)
    assert {record.id for record in exporter.delivered} == {record.id for record in records}
    assert len(aside(chest)) == 2  # the outbox is as it was
    assert chest.run_exports()[0].delivered == 0


def test_replay_selects_as_the_exporter_does(chest: FlaskChest) -> None:
    odd = RecordingExporter("odd")
    chest.add_exporter(odd, filter=lambda record: record.variables["number"] in (1, 3, 5), batch_size=2)
    assert chest.replay("odd") == ExportReport(exporter="odd", delivered=3, filtered=3)
    assert sorted(str(record.variables["number"]) for record in odd.delivered) == ["1", "3", "5"]


def test_unknown_names_are_told(chest: FlaskChest, exporter: RecordingExporter) -> None:
    with pytest.raises(ConfigurationError, match=r"no exporter named 'near', only \['far'\]"):
        chest.replay("near")
    with pytest.raises(ConfigurationError, match="no record 'x' was set aside for 'far'"):
        chest.retry_rejected("far", ["x"])
    with pytest.raises(ConfigurationError, match="no record 'x' was set aside for 'far'"):
        chest.drop_rejected("far", ["x"])


def test_commands_retry_and_drop(chest: FlaskChest, exporter: RecordingExporter, runner: FlaskCliRunner) -> None:
    first, second = aside(chest)
    exporter.failures = [RecordsRejected("no", {first: "still too long"})]
    again = runner.invoke(args=["chest", "rejected", "retry", "far"])
    assert (again.exit_code, again.stdout) == (1, "far: 1 delivered again, 1 refused\n")
    assert again.stderr == "Why they are refused: flask chest rejected list far\n"
    which = runner.invoke(args=["chest", "rejected", "drop", "far"])
    assert (which.exit_code, "give the ids of records, or --all" in which.output) == (2, True)
    gone = runner.invoke(args=["chest", "rejected", "drop", "far", second])
    assert (gone.exit_code, gone.output) == (1, f"Error: no record {second!r} was set aside for 'far'\n")
    dropped = runner.invoke(args=["chest", "rejected", "drop", "far", "--all"])
    assert (dropped.exit_code, dropped.output) == (0, "1 forgotten.\n")
    assert aside(chest) == []
    assert len(chest.query()) == REQUESTS


def test_commands_deliver_again(chest: FlaskChest, exporter: RecordingExporter, runner: FlaskCliRunner) -> None:
    replayed = runner.invoke(args=["chest", "replay", "far", "--since", "1h"])
    assert (replayed.exit_code, replayed.output) == (0, f"far: {REQUESTS} delivered again\n")
    none = runner.invoke(args=["chest", "replay", "far", "--since", "2h", "--until", "1h"])
    assert none.output == "far: 0 delivered again\n"
    everything = runner.invoke(args=["chest", "export", "far", "--all"])
    assert everything.output == f"far: 0 delivered\nfar: {REQUESTS} delivered again\n"
    exporter.failures = [TargetUnavailable("it is away")]
    away = runner.invoke(args=["chest", "export", "far", "--since", "1h"])
    assert (away.exit_code, away.output) == (1, "far: 0 delivered\nfar: 0 delivered again, it is away\n")


def test_record_is_shown_by_its_own_id(chest: FlaskChest, runner: FlaskCliRunner) -> None:
    record = chest.query(limit=1)[0]
    shown = runner.invoke(args=["chest", "show", record.id])
    assert f"request {record.request_id}" in shown.output
    assert chest.query(id=record.id) == [record]
