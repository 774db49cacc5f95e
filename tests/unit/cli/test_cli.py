"""`flask chest`: what it prints, what it exits with, and that it creates nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask, g
from flask.cli import FlaskGroup
from flask.testing import FlaskCliRunner

from flask_chest import FlaskChestSQLite
from flask_chest.cli import chest_group
from flask_chest.decorator import flask_chest
from flask_chest.testing import RecordingExporter

UNTOUCHED = {"FLASK_RUN_FROM_CLI": None}
"""What Flask sets for good where a command is run: an app's own ``run`` does nothing after that."""


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    return Flask("shop", root_path=str(tmp_path))


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    app.cli.add_command(chest_group)
    return app.test_cli_runner()


def add_view(app: Flask) -> None:
    @app.route("/")
    @flask_chest
    def index() -> str:
        g.user_id = 1
        return "hi"


def test_status_shows_the_store_and_its_exporters(app: Flask, runner: FlaskCliRunner) -> None:
    chest = FlaskChestSQLite(app)
    chest.add_exporter(RecordingExporter())
    add_view(app)
    app.test_client().get("/")
    chest.run_exports()
    app.test_client().get("/")
    assert chest.flush()
    result = runner.invoke(args=["chest", "status"])
    assert result.exit_code == 0
    assert f"SQLite {app.root_path}/db.sqlite3: 2 records" in result.output
    assert "exporter recording: 1 pending since 20" in result.output

    (found,) = json.loads(runner.invoke(args=["chest", "status", "--json"]).output)["chests"]
    assert (found["store"]["records"], found["exporters"][0]["backlog"]) == (2, 1)
    chest.close()


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_command_creates_no_database_and_finds_nothing_wrong_with_that(
    app: Flask, runner: FlaskCliRunner, tmp_path: Path, command: str
) -> None:
    FlaskChestSQLite(app)
    add_view(app)
    result = runner.invoke(args=["chest", command])
    assert result.exit_code == 0
    assert "it is made when the first record is written" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_app_without_a_chest_is_told_how_to_get_one(runner: FlaskCliRunner, command: str) -> None:
    result = runner.invoke(args=["chest", command])
    assert result.exit_code == 1
    assert "The app 'shop' has no chest: make one, as in FlaskChestSQLite(app)" in result.output


@pytest.mark.parametrize("as_json", [True, False])
def test_status_of_a_store_that_does_not_answer_fails(
    app: Flask, runner: FlaskCliRunner, tmp_path: Path, as_json: bool
) -> None:
    (tmp_path / "db.sqlite3").write_text("this is no database, however long one looks at it\n" * 100)
    FlaskChestSQLite(app)
    result = runner.invoke(args=["chest", "status", *(["--json"] if as_json else [])])
    assert result.exit_code == 1
    assert "file is not a database" in (
        json.loads(result.output)["chests"][0]["error"] if as_json else result.output
    )


@pytest.mark.slow
def test_installed_package_adds_the_group_and_settings_are_no_options(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from flask import Flask\nfrom flask_chest import FlaskChest\n"
        "app = Flask('shop')\nFlaskChest(app, tracked_vars=['a'])\n"
    )
    environ = os.environ | {"FLASK_CHEST_STATUS_AS_JSON": "1", "FLASK_CHEST_URI": "sqlite:///none.db"}
    command = [sys.executable, "-m", "flask", "--app", "shop", "chest", "status"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environ, check=False)
    assert result.stderr == ""
    assert result.stdout.startswith("no records yet: ")
    assert "none.db" in result.stdout


class TestExporters:
    def chest_with(self, app: Flask, *names: str) -> FlaskChestSQLite:
        chest = FlaskChestSQLite(app)
        for name in names:
            chest.add_exporter(RecordingExporter(name))
        add_view(app)
        app.test_client().get("/")
        chest.run_exports()
        return chest

    def test_list_shows_also_those_that_are_gone(
        self, app: Flask, runner: FlaskCliRunner, tmp_path: Path
    ) -> None:
        self.chest_with(Flask("former", root_path=str(tmp_path)), "former").close()
        chest = self.chest_with(app, "present")
        result = runner.invoke(args=["chest", "exporters", "list"])
        former, present = result.output.splitlines()
        assert former.startswith("exporter former: 1 pending since 20")
        assert former.endswith("(the app no longer has it)")
        assert present.startswith("exporter present: 0 pending")
        assert "any more" not in present
        listed = json.loads(runner.invoke(args=["chest", "exporters", "list", "--json"]).output)
        assert [exporter["name"] for exporter in listed["exporters"]] == ["former", "present"]
        chest.close()

    def test_one_that_is_gone_can_be_removed(self, app: Flask, runner: FlaskCliRunner, tmp_path: Path) -> None:
        self.chest_with(Flask("former", root_path=str(tmp_path)), "former").close()
        chest = self.chest_with(app)
        result = runner.invoke(args=["chest", "exporters", "remove", "former"])
        assert (result.exit_code, result.output) == (0, "The exporter 'former' is forgotten.\n")
        listed = runner.invoke(args=["chest", "exporters", "list"])
        assert (listed.exit_code, listed.stdout) == (0, "")
        assert listed.stderr == "The chest has no exporter: add one with chest.add_exporter.\n"
        again = runner.invoke(args=["chest", "exporters", "remove", "former"])
        assert again.exit_code == 1
        assert "No store knows an exporter 'former'; see: flask chest exporters list" in again.output
        chest.close()

    def test_one_that_the_app_has_is_removed_only_by_force(self, app: Flask, runner: FlaskCliRunner) -> None:
        chest = self.chest_with(app, "present")
        result = runner.invoke(args=["chest", "exporters", "remove", "present"])
        assert result.exit_code == 1
        assert "still has the exporter 'present', which would deliver everything again" in result.output
        assert runner.invoke(args=["chest", "exporters", "remove", "present", "--force"]).exit_code == 0
        chest.close()

    def test_commands_create_no_database(self, app: Flask, runner: FlaskCliRunner, tmp_path: Path) -> None:
        FlaskChestSQLite(app)
        assert runner.invoke(args=["chest", "exporters", "list"]).exit_code == 0
        assert runner.invoke(args=["chest", "exporters", "remove", "a"]).exit_code == 1
        assert not (tmp_path / "db.sqlite3").exists()


def test_show_finds_records_by_request_and_by_trace_and_links_them(app: Flask, runner: FlaskCliRunner) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    chest = FlaskChestSQLite(app, trace_url="https://traces.example/{trace_id}")
    add_view(app)
    app.test_client().get("/", headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"})
    (record,) = chest.query()
    by_trace, by_request = (
        runner.invoke(args=["chest", "show", asked]).output for asked in (trace_id, record.request_id)
    )
    assert by_trace == by_request
    first, *others = by_trace.splitlines()
    assert " GET / 200, " in first
    assert others == [
        f"  request {record.request_id}",
        f"  trace https://traces.example/{trace_id}",
        '  {"user_id":1}',
    ]
    chest.close()


def test_show_says_when_there_is_none_and_creates_nothing(
    app: Flask, runner: FlaskCliRunner, tmp_path: Path
) -> None:
    FlaskChestSQLite(app)
    result = runner.invoke(args=["chest", "show", "nobody"])
    assert result.exit_code == 1
    assert "No record, request or trace has the id 'nobody'" in result.output
    assert list(tmp_path.iterdir()) == []


def test_status_names_an_exporter_that_has_not_run_yet(app: Flask, runner: FlaskCliRunner) -> None:
    with closing(FlaskChestSQLite(app)) as chest:
        chest.add_exporter(RecordingExporter("far"))
        chest._state.here.open_store()
        assert runner.invoke(args=["chest", "status"]).output.endswith("  exporter far: has not run yet\n")
        (found,) = json.loads(runner.invoke(args=["chest", "status", "--json"]).output)["chests"]
        assert found["not_run"] == ["far"]
        chest.run_exports()
        assert "has not run yet" not in runner.invoke(args=["chest", "status"]).output


WRONG = {
    "a wrong value": (
        "FlaskChestSQLite(app, journal_bytes='many')",
        "journal_bytes must be a number of bytes, at least 65536, got 'many'",
    ),
    "an unknown option": (
        "FlaskChestSQLite(app, jurnal_dir='x')",
        "unexpected keyword argument 'jurnal_dir'; did you mean 'journal_dir'?",
    ),
    "a missing driver": (
        "raise MissingDriverError('pymysql', extra='mysql')",
        "pymysql is not installed; install it, or flask_chest with its extra [mysql]",
    ),
}


@pytest.mark.parametrize(("line", "sentence"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("command", [["doctor"], ["status"], ["journal", "list"]])
def test_commands_say_what_is_wrong_with_the_setting_for_which_there_is_no_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], line: str, sentence: str
) -> None:
    (tmp_path / "wrong_app.py").write_text(
        "from flask import Flask\nfrom flask_chest import FlaskChestSQLite, MissingDriverError\n"
        f"app = Flask('wrong')\n{line}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    told = CliRunner(env=UNTOUCHED).invoke(FlaskGroup(), ["--app", "wrong_app.py", "chest", *command])
    monkeypatch.delitem(sys.modules, "wrong_app", raising=False)
    assert (told.exit_code, told.output) == (1, f"Error: {sentence}\n")


def test_commands_leave_the_apps_own_errors_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrong_app.py").write_text("raise LookupError('mine')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    told = CliRunner(env=UNTOUCHED).invoke(FlaskGroup(), ["--app", "wrong_app.py", "chest", "doctor"])
    assert isinstance(told.exception, LookupError)
