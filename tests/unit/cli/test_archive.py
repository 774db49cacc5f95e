"""`flask chest dump` and `load`: from one store into files, and from files into another one."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Protocol

import duckdb
import msgspec
import pytest
from flask import Flask

from flask_chest import FlaskChest, Variables
from flask_chest.cli import chest_group
from flask_chest.cli._files import alone_in
from flask_chest.errors import StoreError
from flask_chest.extension.record_text import json_line, record_of
from flask_chest.protocols import Store
from flask_chest.record import JSONValue, Query, Record
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import RecordingExporter, make_record
from flask_chest.testing.contracts import NAMES, VALUES

DAY_NANO = 86_400 * 10**9
FIRST = 20_000 * DAY_NANO
EVERYTHING = Query(limit=None)


class Visit(Variables):
    user_id: int
    total: float


class Run(Protocol):
    def __call__(self, store: Store, *arguments: str | Path, code: int = 0) -> str: ...


@pytest.fixture
def run() -> Iterator[Run]:
    with ExitStack() as stack:
        apps: list[Flask] = []

        def run_on(store: Store, *arguments: str | Path, code: int = 0) -> str:
            app = Flask("shop")
            apps.append(app)
            app.cli.add_command(chest_group)
            chest = FlaskChest(app, store=store, tracked_vars=Visit, journal_dir="memory:")
            chest.add_exporter(RecordingExporter(name="target"))
            stack.enter_context(closing(chest))
            result = app.test_cli_runner().invoke(args=["chest", *map(str, arguments)])
            assert result.exit_code == code, result.output
            return result.output

        yield run_on


def records_of_days(days: int, each: int = 5) -> list[Record]:
    """Make records with any value, whose days begin and end to the nanosecond."""
    named: dict[str, JSONValue] = dict.fromkeys(NAMES)
    values: list[JSONValue] = [*VALUES, named]
    return [
        make_record(
            time_unix_nano=FIRST + day * DAY_NANO + (number if number < each - 1 else DAY_NANO - 1),
            variables={"user_id": number, "total": -0.0, "v": values[(day * each + number) % len(values)]},
            error="ValueError" if number == 2 else None,
            trace_id="0" * 31 + "1" if number % 2 else None,
            trace_remote=bool(number % 2) if number else None,
            sample_rate=0.1 if number == 3 else 1.0,
        )
        for day in range(days)
        for number in range(each)
    ]


def filled(records: Sequence[Record], store: Store | None = None) -> Store:
    store = store or MemoryStore()
    store.open()
    store.write(records)
    return store


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def in_order(records: Sequence[Record]) -> list[Record]:
    return sorted(records, key=lambda each: (each.time_unix_nano, each.id), reverse=True)


@pytest.mark.slow
def test_dump_has_a_file_for_each_day_named_by_its_content(run: Run, tmp_path: Path) -> None:
    said = run(filled(records_of_days(3)), "dump", tmp_path / "new" / "dump")
    assert said == f"15 records looked at, 15 records written into {tmp_path}/new/dump.\n"
    files = sorted((tmp_path / "new" / "dump").iterdir())
    assert [path.name[:10] for path in files] == ["2024-10-04", "2024-10-05", "2024-10-06"]
    for path in files:
        assert path.name[11:27] == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        found = duckdb.read_parquet(str(path)).order("time_unix_nano").project("user_id")
        assert found.fetchall() == [(number,) for number in range(5)]


@pytest.mark.slow
def test_dump_again_changes_nothing_and_adds_what_is_new(run: Run, tmp_path: Path) -> None:
    records = records_of_days(3)
    store = filled(records[:13])
    run(store, "dump", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / ".2024-10-04.partial").write_text("what a killed process left")
    assert "13 records looked at, 0 records written" in run(store, "dump", tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    store.write(records)
    assert "15 records looked at, 2 records written" in run(store, "dump", tmp_path)
    assert [name[:10] for name in names(tmp_path)] == ["2024-10-04", "2024-10-05", "2024-10-06", "2024-10-06"]
    found = duckdb.read_parquet(f"{tmp_path}/*.parquet").aggregate("count(DISTINCT id), count(*)")
    assert found.fetchall() == [(15, 15)]


def test_dump_takes_a_span_of_time(run: Run, tmp_path: Path) -> None:
    run(filled(records_of_days(3)), "dump", tmp_path, "--since", "2024-10-05", "--until", "2024-10-06")
    assert [name[:10] for name in names(tmp_path)] == ["2024-10-05"]


def test_dump_of_no_store_writes_nothing(run: Run, tmp_path: Path) -> None:
    with closing(SQLiteStore(tmp_path / "chest.db")) as store:
        assert "0 records looked at" in run(store, "dump", tmp_path / "dump")
    assert names(tmp_path) == ["dump"]


def test_two_dumps_at_once_do_not_meet(run: Run, tmp_path: Path) -> None:
    with alone_in(tmp_path):
        said = run(filled(records_of_days(1)), "dump", tmp_path, code=1)
    assert f"another process writes into {tmp_path}" in said


def test_damaged_file_is_named(run: Run, tmp_path: Path) -> None:
    store = filled(records_of_days(1))
    run(store, "dump", tmp_path)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = b""
    path.write_bytes(content)
    for command in (("dump", tmp_path), ("load", path)):
        assert f"{path} is damaged, or no whole file of Parquet" in run(store, *command, code=1)


def test_changed_byte_is_noticed(run: Run, tmp_path: Path) -> None:
    run(filled(records_of_days(1, each=50)), "dump", tmp_path)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    assert "is damaged" in run(filled([]), "load", path, code=1)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_what_was_written_is_loaded_exactly_equal(run: Run, tmp_path: Path, form: str) -> None:
    records = records_of_days(40)
    first, second = filled(records), MemoryStore()
    path = tmp_path / f"records.{form}"
    run(first, "query", "--all", "--format", form, "-o", path)
    assert run(second, "load", path) == "200 records read; each is kept once.\n"
    assert list(second.query(EVERYTHING)) == in_order(records)
    assert {repr(record.variables["total"]) for record in second.query(EVERYTHING)} == {"-0.0"}
    assert run(second, "load", path, path) == "400 records read; each is kept once.\n"
    assert list(second.query(EVERYTHING)) == in_order(records)


def test_dump_of_what_was_loaded_has_the_same_files(run: Run, tmp_path: Path) -> None:
    run(filled(records_of_days(4)), "dump", tmp_path / "first")
    with closing(SQLiteStore(tmp_path / "chest.db")) as store:
        run(store, "load", tmp_path / "first")
        run(store, "dump", tmp_path / "second")
    assert names(tmp_path / "first") == names(tmp_path / "second")


@pytest.mark.parametrize(("options", "pending"), [([], 0), (["--deliver"], 10)])
def test_exporters_deliver_what_was_loaded_only_if_told(
    run: Run, tmp_path: Path, options: list[str], pending: int
) -> None:
    run(filled(records_of_days(2)), "dump", tmp_path)
    store = MemoryStore()
    run(store, "load", tmp_path, *options)
    new = make_record()
    store.write([new])
    store.register("target")
    assert [each.backlog for each in store.exporters()] == [pending + 1]


def test_what_was_deleted_here_is_said_and_stays_deleted(run: Run, tmp_path: Path) -> None:
    records = records_of_days(2)
    run(filled(records), "dump", tmp_path)
    store = MemoryStore()
    filled(records, store)
    store.prune(FIRST + DAY_NANO, limit=100)
    said = run(store, "load", tmp_path)
    assert said.endswith("5 records left out, deleted from this store before by retention or forget.\n")
    assert len(list(store.query(EVERYTHING))) == 5


def test_what_is_there_with_other_content_is_said(run: Run, tmp_path: Path) -> None:
    records = records_of_days(1)
    run(filled(records), "dump", tmp_path)
    store = filled([msgspec.structs.replace(records[0], status_code=404)])
    assert "1 record left out, kept in this store with other content." in run(store, "load", tmp_path)


def test_record_that_no_store_takes_is_named_and_the_others_are_kept(run: Run, tmp_path: Path) -> None:
    records = records_of_days(1)
    path = tmp_path / "records.jsonl"
    lines = [json_line(record) for record in records]
    lines[1] = lines[1].replace('"user_id":1', f'"user_id":{2**63}')
    path.write_text("\n".join([*lines, "", ""]))
    store = MemoryStore()
    said = run(store, "load", path, code=1)
    assert f"{records[1].id}: variable 'user_id' holds an integer beyond 64 bits" in said
    assert list(store.query(EVERYTHING)) == in_order([records[0], *records[2:]])


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2 is no JSON object"),
        ("[1]", "line 2 is no JSON object"),
        ('{"a": "secret"}', "line 2 has 'a', which no record of this release has"),
        ('{"id": "secret"}', "line 2 is no record, as it lacks request_id, time_unix_nano"),
        ('{"variables": 1}', "line 2 has variables that are no JSON object"),
    ],
)
def test_line_that_is_no_record_is_named_without_its_content(
    run: Run, tmp_path: Path, line: str, complaint: str
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(f"{json_line(make_record())}\n{line}\n")
    said = run(MemoryStore(), "load", path, code=1)
    assert f"{path}, {complaint}" in said
    assert "secret" not in said


def test_folder_without_such_files_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other.txt").touch()
    said = run(MemoryStore(), "load", tmp_path, code=1)
    assert "holds no file whose name ends in .parquet or .jsonl" in said


def test_line_of_an_earlier_release_is_a_whole_record() -> None:
    record = make_record()
    fields = msgspec.json.decode(json_line(record))
    del fields["sample_rate"]
    assert record_of(msgspec.json.encode(fields)) == record
    assert record_of(msgspec.json.encode({**fields, "sample_rate": 1})) == record


APP = """
from flask import Flask
from flask_chest import FlaskChestSQLite

app = Flask("shop")
FlaskChestSQLite(app, db_uri="chest.db")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with a name")
def test_load_that_is_killed_goes_on_and_keeps_nothing_twice(tmp_path: Path) -> None:
    records = [make_record(variables={"number": number}) for number in range(1_500)]
    lines = "".join(f"{json_line(record)}\n" for record in records)
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "records.jsonl").write_text(lines)
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-m", "flask", "--app", "shop", "chest", "load"]
    killed = subprocess.Popen([*command, "pipe"], cwd=tmp_path)
    with closing(SQLiteStore(tmp_path / "chest.db")) as store:
        with (tmp_path / "pipe").open("w") as pipe:
            pipe.write(lines)
            pipe.flush()
            wait_until(lambda: (tmp_path / "chest.db").exists() and kept(store) == 1_000)
            killed.send_signal(signal.SIGKILL)
            assert killed.wait() == -signal.SIGKILL
        assert kept(store) == 1_000
        subprocess.run([*command, "records.jsonl"], cwd=tmp_path, check=True)
        assert list(store.query(EVERYTHING)) == in_order(records)
        assert {each.backlog for each in store.exporters()} <= {0}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the system has no SIGKILL")
def test_dump_that_is_killed_goes_on_and_writes_nothing_twice(run: Run, tmp_path: Path) -> None:
    records = records_of_days(60, each=20)
    folder = tmp_path / "dump"
    (tmp_path / "shop.py").write_text(APP)
    with closing(SQLiteStore(tmp_path / "chest.db")) as store:
        filled(records, store)
        killed = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "shop", "chest", "dump", "dump"], cwd=tmp_path
        )
        wait_until(lambda: folder.exists() and len(list(folder.glob("*.parquet"))) >= 2)
        killed.send_signal(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
        whole = {path: path.read_bytes() for path in folder.glob("*.parquet")}
        for path, content in whole.items():
            assert path.stem[11:] == hashlib.sha256(content).hexdigest()[:16]
        assert 2 <= len(whole) < 60
        (folder / ".2024-10-04.partial").write_bytes(next(iter(whole.values()))[:100])  # wherever it was killed
        said = run(store, "dump", folder)
        assert f"1,200 records looked at, {1_200 - 20 * len(whole):,} records written" in said
        assert {path: path.read_bytes() for path in whole} == whole
        assert len(names(folder)) == 60
        assert all(name.endswith(".parquet") for name in names(folder))
        found = duckdb.read_parquet(f"{folder}/*.parquet", union_by_name=True).aggregate(
            "count(DISTINCT id), count(*)"
        )
        assert found.fetchall() == [(1_200, 1_200)]


def kept(store: SQLiteStore) -> int:
    try:
        return store.status().records
    except StoreError:  # it is being made
        return -1


def wait_until(happens: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.01)
