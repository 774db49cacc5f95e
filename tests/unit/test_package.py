"""What the package is from outside: light to import, and no more than it says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import flask_chest
import flask_chest.testing


def test_import_loads_no_driver_no_scheduler_no_telemetry() -> None:
    heavy = {
        "apscheduler",
        "clickhouse_connect",
        "influxdb_client",
        "opentelemetry",
        "psycopg",
        "pymongo",
        "pymysql",
        "sqlite3",
    }
    code = "import sys, flask_chest; print(*{name.partition('.')[0] for name in sys.modules})"
    # What measures coverage in processes loads sqlite3 itself.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    loaded = set(result.stdout.split())
    assert "flask_chest" in loaded
    assert loaded & heavy == set()


@pytest.mark.parametrize("module", [flask_chest, flask_chest.testing])
def test_every_public_name_is_there(module: object) -> None:
    names: list[str] = getattr(module, "__all__")  # noqa: B009 - a module is an object without attributes to mypy
    assert names == sorted(names)
    assert [name for name in names if not hasattr(module, name)] == []


def test_what_asks_of_many_records_is_imported_when_it_is_named() -> None:
    code = """
import sys, flask_chest
assert "flask_chest.aggregates" not in sys.modules
assert "Count" in dir(flask_chest)
from flask_chest import Count
assert sys.modules["flask_chest.aggregates"].Count is Count
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_absent_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'flask_chest' has no attribute 'Counts'"):
        flask_chest.Counts  # type: ignore[attr-defined]  # noqa: B018 - the error is the point


def test_absent_name_of_the_testing_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Contract'"):
        flask_chest.testing.Contract  # noqa: B018 - the error is the point


@pytest.mark.slow
def test_missing_driver_names_its_extra() -> None:
    code = """
import sys
sys.modules["influxdb_client"] = None
from flask_chest import FlaskChest
from flask_chest.exporter import FlaskChestExporterInfluxDB
FlaskChestExporterInfluxDB(FlaskChest())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert (
        "influxdb-client is not installed; install it, or flask_chest with its extra [influxdb]" in result.stderr
    )
