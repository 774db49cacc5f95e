"""What the commands say of partitions."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

from flask_chest import ConfigurationError, FlaskChest, FlaskChestPostgreSQL, FlaskChestSQLite
from flask_chest.cli import chest_group
from flask_chest.protocols import Partitioned, PartitionStatus
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sql.server import ServerStore
from flask_chest.testing import make_record

DAY = 86_400_000_000_000
TODAY = time.time_ns() // DAY * DAY


class PartedStore(MemoryStore, Partitioned):
    """Has partitions up to so many days from now."""

    def __init__(self, days: int, *, by: str | None = "day", wanted: str | None = "day") -> None:
        super().__init__()
        self.open()
        self.status_of_partitions = PartitionStatus(
            by=by,  # type: ignore[arg-type]  # one of its words
            wanted=wanted,  # type: ignore[arg-type]  # the same
            count=9,
            until_unix_nano=TODAY + days * DAY if by else None,
        )

    def partitions(self) -> PartitionStatus:
        return self.status_of_partitions

    def partitions_sql(self) -> str:
        return "" if self.partitions().ends_before(TODAY + 7 * DAY) is False else "CREATE TABLE a;\n"

    def reach(self, before_unix_nano: int, /) -> int:
        return before_unix_nano // DAY * DAY


def said(store: PartedStore, folder: Path, *arguments: str) -> tuple[int, str]:
    app = Flask("shop", root_path=str(folder))
    app.cli.add_command(chest_group)
    FlaskChest(app, store=store, tracked_vars=["user_id"])
    runner: FlaskCliRunner = app.test_cli_runner()
    result = runner.invoke(args=["chest", *arguments])
    return result.exit_code, result.output


def test_doctor_says_that_nobody_makes_partitions_though_somebody_writes(tmp_path: Path) -> None:
    store = PartedStore(1)
    assert "Partitions end" not in said(store, tmp_path, "doctor")[1]
    store.write([make_record()])
    code, output = said(store, tmp_path, "doctor")
    assert code == 1
    assert "Partitions end at " in output
    assert "Run flask chest migrate by an app whose role may make them" in output
    ahead = PartedStore(7)
    ahead.write([make_record()])
    assert "artition" not in said(ahead, tmp_path, "doctor")[1]


@pytest.mark.parametrize(
    ("by", "wanted", "told"),
    [
        (None, "day", "partition is 'day', but the table of "),
        ("day", None, "partition is not set, but the table of "),
        ("day", "week", "partition is 'week', but the table of "),
    ],
)
def test_doctor_says_that_the_table_is_not_as_it_is_set(
    by: str | None, wanted: str | None, told: str, tmp_path: Path
) -> None:
    code, output = said(PartedStore(7, by=by, wanted=wanted), tmp_path, "doctor")
    assert code == 0
    assert told in output
    assert "and goes on so" in output


def test_status_tells_how_many_partitions_there_are(tmp_path: Path) -> None:
    assert "  in 9 partitions, one for each day, up to " in said(PartedStore(7), tmp_path, "status")[1]
    assert "partition" not in said(PartedStore(7, by=None, wanted=None), tmp_path, "status")[1]


def test_migrate_says_what_is_missing(tmp_path: Path) -> None:
    code, output = said(PartedStore(1), tmp_path, "migrate")
    assert (code, "no partition for the day after tomorrow" in output) == (1, True)
    assert said(PartedStore(1), tmp_path, "migrate", "--sql") == (0, "CREATE TABLE a;\n")
    assert said(PartedStore(8), tmp_path, "migrate", "--sql") == (0, "")


def test_prune_does_not_complain_of_what_is_in_the_day_of_its_limit(tmp_path: Path) -> None:
    store = PartedStore(7)
    store.write([make_record(time_unix_nano=TODAY - DAY + 1)])
    code, output = said(store, tmp_path, "prune", "--older-than", "30d")
    assert (code, "Other records stay" in output) == (0, False)


def test_setting_reaches_the_store_of_a_server_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASK_CHEST_PARTITION", "week")
    app = Flask("shop", root_path=str(tmp_path))
    chest = FlaskChestPostgreSQL(app, db_uri="postgresql://u@localhost/db")
    store = chest._states[app].here.store
    assert isinstance(store, ServerStore)
    assert store._partitions._wanted == "week"
    for other in (FlaskChestSQLite(), FlaskChest(store=MemoryStore)):
        with pytest.raises(ConfigurationError, match="partition is 'week', which is for PostgreSQL"):
            other.init_app(Flask("other", root_path=str(tmp_path)))
