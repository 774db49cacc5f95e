"""The page about the commands shows what they print."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

from documents import Page
from flask_chest import FlaskChestSQLite, RecordsRejected
from flask_chest.cli import chest_group
from flask_chest.testing import RecordingExporter, make_record

PAGE = Page(Path(__file__).parents[2] / "docs" / "operating.md")
COMMANDS = PAGE.blocks("console", "command")
BEGAN = 1_709_208_000_000_000_000


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskCliRunner]:
    """A shop with five records, of which the target refuses one; the commands run in the order of the page."""
    folder = tmp_path_factory.mktemp("shop")
    app = Flask("shop", root_path=str(folder))
    app.cli.add_command(chest_group)
    app.extensions["folder"] = str(folder)
    chest = FlaskChestSQLite(app, db_uri="chest.db", tracked_vars=["user_id", "plan"], journal_dir="memory:")
    with closing(chest):
        store = chest._state.here.open_store()
        store.write(
            [
                make_record(
                    id=f"01a2098a-0000-7000-8000-00000000000{number}",
                    request_id=f"r-{number}",
                    time_unix_nano=BEGAN + number * 61_000_000_000,
                    duration_ns=1_500_000 * number,
                    route="/checkout",
                    endpoint="checkout",
                    instance="web:0",
                    status_code=503 if number == 3 else 200,
                    error="TimeoutError" if number == 3 else None,
                    variables={"user_id": number, "plan": "pro" if number % 2 else "free"},
                )
                for number in range(1, 6)
            ]
        )
        exporter = RecordingExporter("far")
        exporter.failures = [
            RecordsRejected("no", {"01a2098a-0000-7000-8000-000000000004": "a field is too long"})
        ]
        chest.add_exporter(exporter, interval=timedelta(days=1))
        yield app.test_cli_runner()


@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: block.code.split("\n")[0])
def test_command_prints_what_the_page_shows(runner: FlaskCliRunner, block: tuple[str, str, str]) -> None:
    command, _, shown = block[2].partition("\n")
    result = runner.invoke(args=shlex.split(command.removeprefix("$ flask ")))
    assert steady(result.output.replace(runner.app.extensions["folder"], "/srv/shop")) == steady(shown)


def steady(text: str) -> str:
    """Take out what differs each time: when it was delivered, and how large the file is."""
    text = re.sub(r"\d+ KiB", "… KiB", text)
    return re.sub(r"(success |^)20[\d: -]+ UTC(?= 01a|$)", r"\1…", text, flags=re.MULTILINE)
