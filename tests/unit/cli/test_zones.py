"""`--tz`: the zone in which each command reads and prints times."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

from flask_chest import FlaskChest, FlaskChestSQLite, RecordsRejected
from flask_chest.cli import chest_group
from flask_chest.stores.memory import MemoryStore
from flask_chest.testing import RecordingExporter, make_record

KOLKATA = ["--tz", "Asia/Kolkata"]
HOUR_NANO = 3_600_000_000_000
TIME = re.compile(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d (UTC|[+-]\d\d:\d\d)")
"""A time, and the zone that stands behind it."""


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask("shop", root_path=str(tmp_path))
    app.cli.add_command(chest_group)
    app.testing = True
    return app


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    return app.test_cli_runner()


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.open()
    return store


@pytest.fixture
def exporter() -> RecordingExporter:
    return RecordingExporter("far")


@pytest.fixture
def chest(app: Flask, store: MemoryStore, exporter: RecordingExporter) -> Iterator[FlaskChest]:
    with closing(FlaskChest(app, store=store, tracked_vars=["x"])) as chest:
        chest.add_exporter(exporter)
        yield chest


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield " ".join([*path, name]), command


def test_each_command_that_reads_times_also_reads_their_zone() -> None:
    options = {name: {each.opts[0] for each in command.params} for name, command in commands(chest_group)}
    reads_times = {name for name, every in options.items() if every & {"--since", "--until"}}
    assert reads_times >= {"query", "aggregate", "top", "dump", "export", "replay"}
    assert [name for name in reads_times if "--tz" not in options[name]] == []


def refused(chest: FlaskChest, store: MemoryStore, exporter: RecordingExporter) -> None:
    record = make_record()
    store.write([record])
    exporter.failures = [RecordsRejected("no", {record.id: "too long"})]
    chest.run_exports()
    store.write([make_record()])


def dated_ahead(_chest: FlaskChest, store: MemoryStore, _exporter: RecordingExporter) -> None:
    store.write([make_record(time_unix_nano=time.time_ns() + 1_000 * HOUR_NANO)])


@pytest.mark.parametrize(
    ("command", "prepare"),
    [
        (["rejected", "list", "far"], refused),
        (["exporters", "list"], refused),
        (["status"], refused),
        (["doctor"], dated_ahead),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_command_prints_times_in_the_zone_that_is_said(
    chest: FlaskChest,
    store: MemoryStore,
    exporter: RecordingExporter,
    runner: FlaskCliRunner,
    command: Sequence[str],
    prepare: object,
) -> None:
    assert callable(prepare)
    prepare(chest, store, exporter)
    plain, zoned = (runner.invoke(args=["chest", *command, *zone]).output for zone in ([], KOLKATA))
    assert set(TIME.findall(plain)) == {"UTC"}, plain
    assert set(TIME.findall(zoned)) == {"+05:30"}, zoned
    assert len(TIME.findall(zoned)) == len(TIME.findall(plain))


def test_doctor_says_since_when_records_wait_in_the_zone_that_is_said(app: Flask, runner: FlaskCliRunner) -> None:
    with closing(FlaskChestSQLite(app, tracked_vars=["x"], writer="off", journal_dir="journal")) as chest:
        noon = round(datetime(2024, 2, 29, 12, tzinfo=UTC).timestamp()) * 10**9
        chest._state.here.keep(make_record(time_unix_nano=noon))
    assert "1 record waiting since 2024-02-29 12:00:00 UTC: " in runner.invoke(args=["chest", "doctor"]).output
    zoned = runner.invoke(args=["chest", "doctor", *KOLKATA]).output
    assert "1 record waiting since 2024-02-29 17:30:00 +05:30: " in zoned


@pytest.mark.parametrize("command", [["export", "far"], ["replay", "far"]], ids=lambda each: each[0])
def test_delivery_reads_times_as_questions_do(
    chest: FlaskChest,
    store: MemoryStore,
    runner: FlaskCliRunner,
    command: Sequence[str],
) -> None:
    noon = round(datetime(2024, 2, 29, 12, tzinfo=UTC).timestamp()) * 10**9
    yesterday = datetime.now(ZoneInfo("Asia/Kolkata")).date() - timedelta(days=1)
    midnight = datetime.combine(yesterday, datetime.min.time(), ZoneInfo("Asia/Kolkata"))
    records = [
        make_record(time_unix_nano=noon),
        make_record(time_unix_nano=time.time_ns() - 100 * HOUR_NANO),
        make_record(time_unix_nano=round(midnight.timestamp()) * 10**9 - 1),
        make_record(time_unix_nano=round(midnight.timestamp()) * 10**9),
        make_record(time_unix_nano=time.time_ns()),
    ]
    store.write(records)
    chest.run_exports()
    for since, count in (
        ("2024-02-29 17:30", 5),
        ("2024-02-29 17:31", 4),
        ("2024-02-29T12:00:00+00:00", 5),
        ("4d5h", 4),
        ("yesterday", 2),
    ):
        result = runner.invoke(args=["chest", *command, "--since", since, *KOLKATA])
        assert (result.exit_code, result.output.splitlines()[-1]) == (0, f"far: {count} delivered again"), since


def test_replay_of_no_time_at_all_is_refused(chest: FlaskChest, runner: FlaskCliRunner) -> None:
    result = runner.invoke(args=["chest", "replay", "far", "--since", "2h", "--until", "3h"])
    assert result.exit_code == 2
    assert "--since must be before --until" in result.output
