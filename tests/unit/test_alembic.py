"""Alembic beside a chest in the app's own database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask import Flask
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, text
from sqlalchemy.engine import Connection

from documents import Block, Page
from flask_chest import FlaskChestSQLite
from flask_chest.alembic import include_name
from flask_chest.cli import chest_group
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing.records import make_record

PAGE = Page(Path(__file__).parents[2] / "docs/alembic.md")
MODELS = """
from sqlalchemy import Column, Integer, MetaData, Table, create_engine
metadata = MetaData()
Table("item", metadata, Column("id", Integer, primary_key=True))
engine = create_engine("sqlite:///app.db")
"""
TEMPLATE = """
\"\"\"${message}\"\"\"
from alembic import op
import sqlalchemy as sa

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

def upgrade():
    ${upgrades if upgrades else "pass"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An app's database with two chests, and a table that no metadata has."""
    for name in ("flask_chest", "audit"):
        with closing(SQLiteStore(tmp_path / "app.db", name=name)) as store:
            store.open()
            store.write([make_record()])
    engine = create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE cache_pages (id integer PRIMARY KEY)"))
    engine.dispose()
    return tmp_path


@pytest.fixture
def connection(folder: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{folder / 'app.db'}")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def proposed(connection: Connection, hook: object) -> set[str]:
    """Give what autogenerate would do to which table."""
    metadata = MetaData()
    Table("item", metadata, Column("id", Integer, primary_key=True))
    context = MigrationContext.configure(connection, opts={"include_name": hook})
    return {
        f"{action} {getattr(thing, 'name', thing)}" for action, thing, *_ in compare_metadata(context, metadata)
    }


def test_tables_and_indexes_of_a_chest_are_not_compared(connection: Connection) -> None:
    left = proposed(connection, include_name)
    assert {each for each in left if "flask_chest" in each} == set()
    assert "add_table item" in left
    assert "remove_table cache_pages" in left


def test_names_of_all_chests_may_be_given(connection: Connection) -> None:
    hook = include_name(chests=["flask_chest", "audit"])
    assert proposed(connection, hook) == {"add_table item", "remove_table cache_pages"}


def test_own_filter_of_the_app_is_kept(connection: Connection) -> None:
    def own(name: str | None, type_: str, parent_names: object) -> bool:
        asked.append(name)
        return name != "cache_pages"

    asked: list[str | None] = []
    assert proposed(connection, include_name(own, chests=["flask_chest", "audit"])) == {"add_table item"}
    assert "flask_chest" not in asked


@pytest.mark.slow
@pytest.mark.parametrize("env", PAGE.blocks("python", "env.py"), ids=["default", "own filter"])
def test_page_about_alembic(env: Block, folder: Path) -> None:
    """Autogenerate and upgrade as a user does, with the page's ``env.py``."""
    migrations = folder / "migrations"
    (migrations / "versions").mkdir(parents=True)
    (migrations / "env.py").write_text(env.code)
    (migrations / "script.py.mako").write_text(TEMPLATE)
    (folder / "models.py").write_text(MODELS)
    (folder / "alembic.ini").write_text("[alembic]\nscript_location = migrations\n")
    for arguments in (["revision", "--autogenerate", "-m", "first"], ["upgrade", "head"]):
        command = [sys.executable, "-m", "alembic", *arguments]
        subprocess.run(
            command, cwd=folder, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(folder)}
        )
    (revision,) = (migrations / "versions").glob("*.py")
    assert "create_table('item'" in revision.read_text()
    assert "flask_chest" not in revision.read_text()
    with closing(SQLiteStore(folder / "app.db")) as store:
        assert store.status().records == 1


def remarks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "flask_chest.alembic", raising=False)
    app = Flask("shop")
    chest = FlaskChestSQLite(app, db_uri=str(folder / "app.db"), tracked_vars=["plan"])
    result = app.test_cli_runner().invoke(chest_group, ["doctor"])
    chest.close()
    return result.output


def test_doctor_remarks_that_alembic_is_beside(
    folder: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert remarks(folder, monkeypatch) == "Nothing is wrong.\n"
    connection.execute(text("CREATE TABLE alembic_version (version_num text)"))
    connection.commit()
    assert (
        "and would drop the tables of the chest, which are in no metadata: give include_name of "
        "flask_chest.alembic to context.configure in env.py (see docs/alembic.md)."
    ) in remarks(folder, monkeypatch)
    (folder / "migrations").mkdir()
    (folder / "migrations/env.py").write_text("from flask_chest.alembic import include_name\n")
    assert remarks(folder, monkeypatch) == "Nothing is wrong.\n"


def test_partitions_are_excluded_and_what_is_named_alike_is_not() -> None:
    for name in ("flask_chest_d20261129", "flask_chest_w20261123", "flask_chest_early", "flask_chest_late"):
        assert not include_name(name, "table", {})
    for name in ("flask_chest_data", "flask_chest_x20261129", "shop_d20261129"):
        assert include_name(name, "table", {})
