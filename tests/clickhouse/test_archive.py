"""Records that move through files between a chest in SQLite and one in ClickHouse, and as Arrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeAlias

import pyarrow
import pyarrow.parquet
import pytest
from flask import Flask

from flask_chest import FlaskChest, Variables
from flask_chest.cli import chest_group
from flask_chest.protocols import Store
from flask_chest.record import JSONValue, Query, Record
from flask_chest.stores.clickhouse import ClickHouseStore
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import make_record
from flask_chest.testing.contracts import NAMES, VALUES

DAY_NANO = 86_400 * 10**9
FIRST = 20_000 * DAY_NANO
NAMED: dict[str, JSONValue] = dict.fromkeys(NAMES)
ODD: list[JSONValue] = [*VALUES, NAMED]
RECORDS = [
    make_record(
        time_unix_nano=FIRST + number * (DAY_NANO // 20),
        variables={"user_id": number, "total": number / 4, "v": value},
        error="ValueError" if number % 7 == 0 else None,
        trace_remote=None if number % 3 == 0 else bool(number % 2),
        trace_flags=number if number % 2 else None,
        sample_rate=0.1 if number % 5 == 0 else 1.0,
    )
    for number, value in enumerate(ODD)
]

Chests: TypeAlias = Callable[[Store], FlaskChest]


class Visit(Variables):
    user_id: int
    total: float


@pytest.fixture
def chest_of() -> Iterator[Chests]:
    with ExitStack() as stack:
        apps: list[Flask] = []

        def make(store: Store) -> FlaskChest:
            apps.append(app := Flask("shop"))
            app.cli.add_command(chest_group)
            return stack.enter_context(
                closing(FlaskChest(app, store=store, tracked_vars=Visit, journal_dir="memory:"))
            )

        yield make


def run(chest: FlaskChest, *arguments: str | Path) -> str:
    app = chest._state._app()
    assert app is not None
    result = app.test_cli_runner().invoke(args=["chest", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def everything(store: Store) -> list[Record]:
    return list(store.query(Query(limit=None)))


def test_records_come_from_sqlite_by_files_and_leave_as_they_came(
    store: ClickHouseStore, chest_of: Chests, tmp_path: Path
) -> None:
    with closing(SQLiteStore(tmp_path / "chest.db")) as source:
        source.open()
        source.write(RECORDS)
        dumped = run(chest_of(source), "dump", tmp_path / "first")
    assert f"{len(RECORDS)} records looked at" in dumped
    chest = chest_of(store)
    assert "each is kept once." in run(chest, "load", tmp_path / "first")
    assert everything(store) == RECORDS[::-1]
    run(chest, "load", tmp_path / "first")
    assert everything(store) == RECORDS[::-1]
    assert store.status().conflicts == 0
    run(chest, "dump", tmp_path / "second")
    first, second = (
        {path.name: pyarrow.parquet.read_table(path) for path in (tmp_path / each).glob("*.parquet")}
        for each in ("first", "second")
    )
    assert len(first) > 1
    assert first == second


def test_file_of_days_that_was_loaded_in_part_is_completed(
    store: ClickHouseStore, chest_of: Chests, tmp_path: Path
) -> None:
    store.write(RECORDS[::3])
    with closing(SQLiteStore(tmp_path / "chest.db")) as source:
        source.open()
        source.write(RECORDS)
        run(chest_of(source), "dump", tmp_path / "files")
    run(chest_of(store), "load", tmp_path / "files")
    assert everything(store) == RECORDS[::-1]


def test_arrow_has_a_typed_column_for_each_declared_variable(store: ClickHouseStore, chest_of: Chests) -> None:
    store.write(RECORDS)
    table = chest_of(store).to_arrow().read_all()
    assert table.schema.field("user_id").type == pyarrow.int64()
    assert table.schema.field("total").type == pyarrow.float64()
    assert table.column("id").to_pylist() == [record.id for record in reversed(RECORDS)]
    assert table.column("user_id").to_pylist() == list(reversed(range(len(RECORDS))))
    assert table.column("total").to_pylist() == [number / 4 for number in reversed(range(len(RECORDS)))]
