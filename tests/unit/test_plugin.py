"""The pytest plugin, in a run of pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from documents import Page

PAGE = Page(Path(__file__).parents[2] / "docs" / "testing.md")
pytestmark = pytest.mark.slow


def outcome(folder: Path, *options: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, check=False, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make the tests of the page."""
    for block in PAGE.blocks("python", "plugin: "):
        (tmp_path / block.mark.removeprefix("plugin: ")).write_text(block.code)
    return tmp_path


def test_fixture_does_what_the_page_shows(folder: Path) -> None:
    assert "2 passed" in outcome(folder)


def test_earlier_records_and_other_chests_are_left_out(folder: Path) -> None:
    (folder / "test_shop.py").write_text(
        """
import pytest
from flask_chest import ConfigurationError, FlaskChest
from flask_chest.stores.memory import MemoryStore

@pytest.fixture
def other(app):
    yield FlaskChest(app, store=MemoryStore, tracked_vars=[], config_prefix="OTHER", exclude=["/buy/<item>"])

@pytest.fixture
def bought(app, other):
    app.test_client().get("/buy/before")

def test_several(app, bought, chest_records, other):
    app.test_client().get("/buy/hat")
    assert chest_records(other) == []
    with pytest.raises(ConfigurationError, match="several chests"):
        chest_records()

def test_alone(app, chest_records):
    assert chest_records() == []
"""
    )
    assert "2 passed" in outcome(folder)


def test_app_without_a_chest_is_told(folder: Path) -> None:
    (folder / "conftest.py").write_text(
        """
import flask, pytest
pytest_plugins = ["flask_chest.testing.plugin"]

@pytest.fixture
def app():
    return flask.Flask("shop")
"""
    )
    assert "the app of the fixture `app` has no chest" in outcome(folder)


def test_nothing_is_imported_unless_it_is_named(folder: Path) -> None:
    (folder / "conftest.py").write_text("")
    (folder / "test_shop.py").write_text(
        "import sys\n\ndef test_modules():\n    assert not {'flask', 'flask_chest'} & set(sys.modules)\n"
    )
    assert "1 passed" in outcome(folder)
