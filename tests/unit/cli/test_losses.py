"""What `flask chest status` and `doctor` tell of losses, and of a journal that is another account's."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

from flask_chest import FlaskChest, FlaskChestSQLite
from flask_chest.cli import chest_group
from flask_chest.extension.settings import MIN_JOURNAL_BYTES
from flask_chest.health import health_blueprint
from flask_chest.journal._slots import take_lowest
from flask_chest.journal.losses import DAMAGED, JOURNAL_FULL
from flask_chest.testing import make_record

NOBODY = 65534
DAY_NS = 24 * 3600 * 10**9


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask("shop", root_path=str(tmp_path))
    app.cli.add_command(chest_group)
    return app


@pytest.fixture
def chest(app: Flask) -> Iterator[FlaskChest]:
    with closing(
        FlaskChestSQLite(
            app,
            db_uri="chest.db",
            journal_dir="journal",
            journal_bytes=MIN_JOURNAL_BYTES,
            writer="off",
            tracked_vars=["x"],
        )
    ) as chest:
        yield chest


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    return app.test_cli_runner()


def folder_of(chest: FlaskChest) -> Path:
    folder = chest._state.here.journal_config.folder
    assert folder is not None
    return folder


def fill(chest: FlaskChest) -> int:
    """Record until the journal is full; give how many records are lost."""
    for _ in range(20):
        chest._state.here.keep(make_record(variables={"x": "x" * 8_000}))
    lost = chest.stats().lost[JOURNAL_FULL]
    chest.close()
    return lost


def test_status_shows_the_bound_and_the_losses_of_a_process_that_is_gone(
    chest: FlaskChest, runner: FlaskCliRunner
) -> None:
    lost = fill(chest)
    result = runner.invoke(args=["chest", "status"])
    assert f" of {MIN_JOURNAL_BYTES // 1024} KiB are used\n" in result.output
    assert f"  lost: {lost}, the last at 20" in result.output
    assert f" UTC ({lost}: the journal is full)\n" in result.output
    (report,) = json.loads(runner.invoke(args=["chest", "status", "--json"]).output)["chests"]
    assert report["journal"]["lost"] == {JOURNAL_FULL: lost}
    assert report["journal"]["max_bytes"] == MIN_JOURNAL_BYTES
    assert time.time_ns() - report["journal"]["last_loss_unix_nano"] < DAY_NS


def test_doctor_finds_a_full_journal_and_what_was_lost(chest: FlaskChest, runner: FlaskCliRunner) -> None:
    lost = fill(chest)
    result = runner.invoke(args=["chest", "doctor"])
    assert result.exit_code == 1
    assert f" of its {MIN_JOURNAL_BYTES // 1024} KiB, and new records are lost when it is full" in result.output
    assert f"- Records were lost: {lost}, the last at 20" in result.output


def test_losses_are_told_when_the_journal_is_empty_and_for_a_day_as_something_wrong(
    chest: FlaskChest, runner: FlaskCliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    chest._state.here.keep(make_record())
    folder = folder_of(chest)
    chest.close()
    assert runner.invoke(args=["chest", "journal", "replay"]).output == "1 record stored.\n"
    slot = take_lowest(folder)
    assert slot.note_losses({DAMAGED: 1, JOURNAL_FULL: 2})
    slot.release()
    told = "(2: the journal is full; 1: bytes of the journal were damaged, and skipped)"
    assert told in runner.invoke(args=["chest", "status"]).output
    assert told in runner.invoke(args=["chest", "doctor"]).output
    later = time.time_ns() + DAY_NS
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert told in runner.invoke(args=["chest", "status"]).output
    assert "Records were lost" not in runner.invoke(args=["chest", "doctor"]).output


@pytest.mark.parametrize(("url", "remarked"), [("/ready", True), ("/livez", True), (None, False)])
def test_doctor_remarks_that_requests_may_be_routed_by_losses(
    app: Flask, chest: FlaskChest, runner: FlaskCliRunner, url: str | None, *, remarked: bool
) -> None:
    app.register_blueprint(health_blueprint(chest) if url is None else health_blueprint(chest, url=url))
    result = runner.invoke(args=["chest", "doctor"])
    assert result.exit_code == 0
    assert (
        f"{url} answers 503 in every process while records are lost. Alert on it" in result.output
    ) == remarked


@pytest.fixture
def another_account(chest: FlaskChest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run what follows as somebody to whom the journal is closed."""
    chest._state.here.keep(make_record())
    chest.close()
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
        yield
        os.seteuid(0)
    else:
        folder = folder_of(chest)
        folder.chmod(0)
        monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
        yield
        folder.chmod(0o700)


@pytest.mark.usefixtures("another_account")
@pytest.mark.parametrize(
    "command", [["status"], ["doctor"], ["journal", "list"], ["journal", "verify"], ["journal", "replay"]]
)
def test_command_of_another_account_says_as_whom_to_run_it(runner: FlaskCliRunner, command: list[str]) -> None:
    result = runner.invoke(args=["chest", *command])
    assert result.exit_code == 1
    assert "You are " in result.output
    assert ", which alone may look into it: run this as that account, as in sudo -u " in result.output
    assert "Traceback" not in result.output
    assert "The store" not in result.output
    assert isinstance(result.exception, SystemExit)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_file_of_another_account_hides_no_others(
    chest: FlaskChest, runner: FlaskCliRunner, tmp_path: Path
) -> None:
    for _ in range(20):
        chest._state.here.keep(make_record(variables={"x": "x" * 1_500}))
    chest.close()
    first, *others = sorted(folder_of(chest).glob("*.journal"))
    assert others
    for path in (tmp_path / "chest.db", tmp_path, *tmp_path.rglob("*")):
        if path.exists() and path != first:
            os.chown(path, NOBODY, -1)
    for path in tmp_path.parents:
        if path.name.startswith(("pytest-", "popen-")):
            path.chmod(0o755)
    os.seteuid(NOBODY)
    try:
        listed = runner.invoke(args=["chest", "journal", "list"])
        verified = runner.invoke(args=["chest", "journal", "verify"])
    finally:
        os.seteuid(0)
    assert f"{first.name} -: closed to this account, left alone\n" in listed.output
    assert len(listed.output.splitlines()) == 1 + len(others)
    assert (verified.exit_code, verified.output.splitlines()[0]) == (
        1,
        f"{first.name} is closed to this account, and left alone.",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be kept from writing so")
@pytest.mark.parametrize("command", [["journal", "replay"], ["worker"]])
def test_root_writes_nothing_into_the_journal_of_another_account(
    chest: FlaskChest, runner: FlaskCliRunner, command: list[str]
) -> None:
    chest._state.here.keep(make_record())
    chest.close()
    os.chown(folder_of(chest), NOBODY, -1)
    result = runner.invoke(args=["chest", *command])
    assert result.exit_code == 1
    assert "which could not read what root writes into it: run this as that account" in result.output
    assert "1 record waiting" in runner.invoke(args=["chest", "journal", "list"]).output
