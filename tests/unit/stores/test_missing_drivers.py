"""What is told where the package of a database is not installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

import pytest

pytestmark = pytest.mark.slow

BLOCK = """
import sys


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Blocker())
"""

TRY = """
from flask import Flask
from flask_chest import FlaskChest, FlaskChestClickHouse, FlaskChestMongoDB, FlaskChestMySQL, FlaskChestPostgreSQL
from flask_chest.errors import ConfigurationError, MissingDriverError

app = Flask("shop")
app.config["CHEST_URI"] = "{scheme}://u:hunter2@h/db"
makers = [
    lambda: {chest}(db_uri=app.config["CHEST_URI"]),
    lambda: {chest}(app, db_uri=app.config["CHEST_URI"]),
    lambda: FlaskChest(app),
]
for make in makers:
    try:
        make()
    except MissingDriverError as exc:
        assert isinstance(exc, ConfigurationError)
        assert isinstance(exc, ImportError)
        assert isinstance(exc.__cause__, ImportError)
        assert "hunter2" not in repr(exc) + repr(exc.__cause__)
        print(exc)
"""

POSTGRESQL = ("psycopg", "psycopg_pool")
MYSQL = ("pymysql",)
MONGODB = ("pymongo", "bson", "gridfs")
CLICKHOUSE = ("clickhouse_connect",)


def run(code: str, *, without: Iterable[str]) -> list[str]:
    """Run *code* in a Python that cannot import some packages; give the lines it printed."""
    command = [sys.executable, "-W", "error", "-c", BLOCK.format(blocked=set(without)) + code]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


@pytest.mark.parametrize(
    ("scheme", "chest", "packages", "extra"),
    [
        ("postgresql", "FlaskChestPostgreSQL", POSTGRESQL, "postgresql"),
        ("mysql", "FlaskChestMySQL", MYSQL, "mysql"),
        ("mariadb", "FlaskChestMySQL", MYSQL, "mysql"),
        ("mongodb", "FlaskChestMongoDB", MONGODB, "mongodb"),
        ("mongodb+srv", "FlaskChestMongoDB", MONGODB, "mongodb"),
        ("clickhouse", "FlaskChestClickHouse", CLICKHOUSE, "clickhouse"),
        ("clickhouses", "FlaskChestClickHouse", CLICKHOUSE, "clickhouse"),
    ],
)
def test_chest_without_its_driver_names_the_extra_each_time(
    scheme: str, chest: str, packages: tuple[str, ...], extra: str
) -> None:
    package = packages[0].replace("_", "-")
    told = f"{package} is not installed; install it, or flask_chest with its extra [{extra}]"
    assert run(TRY.format(scheme=scheme, chest=chest), without=packages) == [told] * 3


@pytest.mark.parametrize("packages", [POSTGRESQL, MYSQL, MONGODB, CLICKHOUSE])
def test_chest_needs_no_driver_but_its_own(packages: tuple[str, ...]) -> None:
    others = {
        POSTGRESQL: 'FlaskChestPostgreSQL(db_uri="postgresql://u:p@h/db")',
        MYSQL: 'FlaskChestMySQL(db_uri="mysql://u:p@h/db")',
        MONGODB: 'FlaskChestMongoDB(db_uri="mongodb://u:p@h/db")',
        CLICKHOUSE: 'FlaskChestClickHouse(db_uri="clickhouse://u:p@h/db")',
    }
    making = [f"print(type({make}).__name__)" for driver, make in others.items() if driver != packages]
    code = "\n".join(["from flask_chest import *", *making])
    assert len(run(code, without=packages)) == 3


def test_chest_in_a_file_or_in_memory_needs_no_driver() -> None:
    code = """
from flask import Flask
from flask_chest import FlaskChest, FlaskChestSQLite
from flask_chest.stores.memory import MemoryStore

print(type(FlaskChestSQLite(Flask("shop"), db_uri="db.sqlite3", journal_dir="memory:")).__name__)
app = Flask("shop")  # held, since a chest does not keep its app
print(FlaskChest(app, store=MemoryStore, journal_dir="memory:").query())
"""
    assert run(code, without=POSTGRESQL + MYSQL + MONGODB + CLICKHOUSE) == ["FlaskChestSQLite", "[]"]
