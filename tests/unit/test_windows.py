"""What works where the operating system lacks what only Unix has, as on Windows."""

from __future__ import annotations

import subprocess
import sys

import pytest

LACKING = """
import os
import sys

for name in ("fcntl", "pwd", "grp", "resource"):
    sys.modules[name] = None
for name in (
    "fork", "register_at_fork", "geteuid", "getuid", "getegid", "getgroups", "pread", "pwrite", "fdatasync",
    "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_DIRECTORY",
):
    if hasattr(os, name):
        delattr(os, name)
"""

SERVE = """
import tempfile
from flask import Flask, g
from flask_chest import FlaskChestSQLite
from flask_chest.cli import chest_group

folder = tempfile.mkdtemp()
app = Flask("shop", root_path=folder, instance_path=folder)
chest = FlaskChestSQLite(app, db_uri="chest.db", tracked_vars=["plan"]{options})

@app.route("/")
def index():
    g.plan = "pro"
    return "hi"

assert app.test_client().get("/").data == b"hi"
print(chest.flush(5), [record.variables for record in chest.query()])
print(app.test_cli_runner().invoke(chest_group, ["doctor"]).output)
print(app.test_cli_runner().invoke(chest_group, ["journal", "list"]).exit_code)
chest.close()
"""


def run(code: str) -> tuple[str, str]:
    """Run *code* in a Python that lacks what Windows has not; return what it printed and logged."""
    command = [sys.executable, "-c", LACKING + code]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("module", ["flask_chest", "flask_chest.cli", "flask_chest.testing", "flask_chest.otel"])
def test_package_is_imported_without_what_only_unix_has(module: str) -> None:
    if module == "flask_chest.otel":
        pytest.importorskip("opentelemetry.trace", reason="flask_chest.otel needs it")
    assert run(f"import {module}") == ("", "")


@pytest.mark.slow
def test_records_wait_in_memory_and_are_stored_without_what_only_unix_has() -> None:
    printed, logged = run(SERVE.format(options=', journal_dir="memory:"'))
    assert printed.startswith("True [{'plan': 'pro'}]\nNothing is wrong.")
    assert printed.endswith("\n0\n")
    assert logged == ""


@pytest.mark.slow
def test_journal_on_disk_gives_way_to_memory_where_files_cannot_be_locked() -> None:
    printed, logged = run(SERVE.format(options=', journal_dir="journal"'))
    assert printed.startswith("True [{'plan': 'pro'}]\n- No journal can be kept in")
    assert "(this system has no flock): records wait for the store in memory" in logged
