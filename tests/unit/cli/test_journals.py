"""`flask chest journal`: what waits on disk, whether it is whole, and storing it now."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, g
from flask.testing import FlaskCliRunner

from flask_chest import FlaskChest, FlaskChestSQLite
from flask_chest.cli import chest_group
from flask_chest.journal.file import FileJournal
from flask_chest.record import Query
from flask_chest.stores.memory import MemoryStore
from journals import journal_in, kill, make_records, version_2_header

REQUESTS = 5


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask("shop", root_path=str(tmp_path))
    app.cli.add_command(chest_group)

    @app.route("/<int:number>")
    def page(number: int) -> str:
        g.number = number
        return "hi"

    return app


@pytest.fixture
def chest(app: Flask) -> Iterator[FlaskChest]:
    """A process that has left its records to others, and lives."""
    chest = FlaskChestSQLite(
        app, db_uri="chest.db", journal_dir="journal", writer="off", instance="web", tracked_vars=["number"]
    )
    for number in range(REQUESTS):
        app.test_client().get(f"/{number}")
    yield chest
    chest.close()


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    return app.test_cli_runner()


def segment_in(folder: Path) -> Path:
    (segment,) = folder.glob("journal/*/*.journal")
    return segment


def test_list_tells_what_waits_and_who_is_to_store_it(
    chest: FlaskChest, runner: FlaskCliRunner, tmp_path: Path
) -> None:
    name = segment_in(tmp_path).name
    listed = runner.invoke(args=["chest", "journal", "list"])
    assert listed.output == (
        f"{name} web:0: {REQUESTS} records waiting, 1 KiB, left by its process to others, and there are none\n"
    )
    (line,) = runner.invoke(args=["chest", "journal", "list", "--json"]).output.splitlines()
    found = json.loads(line)
    assert (found["waiting_records"], found["owner"], found["instance"]) == (REQUESTS, "leaves", "web:0")
    chest.close()
    assert "its process is gone" in runner.invoke(args=["chest", "journal", "list"]).output


def test_list_tells_of_processes_that_store_their_own(app: Flask, runner: FlaskCliRunner) -> None:
    chest = FlaskChestSQLite(app, db_uri="chest.db", journal_dir="journal", tracked_vars=["number"])
    app.test_client().get("/1")
    chest.flush()
    assert (
        "0 records waiting, 0 KiB, stored by its process"
        in runner.invoke(args=["chest", "journal", "list"]).output
    )
    chest.close()


@pytest.mark.usefixtures("chest")
def test_replay_stores_what_waits_and_a_second_one_finds_nothing(runner: FlaskCliRunner, app: Flask) -> None:
    assert runner.invoke(args=["chest", "journal", "replay"]).output == f"{REQUESTS} records stored.\n"
    assert runner.invoke(args=["chest", "journal", "replay"]).output == "0 records stored.\n"
    app.test_client().get("/6")
    assert runner.invoke(args=["chest", "journal", "replay"]).output == "1 record stored.\n"
    tail = runner.invoke(args=["chest", "tail"]).output.splitlines()
    assert [json.loads(line)["variables"]["number"] for line in tail] == [0, 1, 2, 3, 4, 6]


@pytest.mark.usefixtures("chest")
def test_verify_reads_all_that_waits(runner: FlaskCliRunner, tmp_path: Path) -> None:
    whole = runner.invoke(args=["chest", "journal", "verify"])
    assert (whole.exit_code, whole.output) == (0, f"{REQUESTS} records waiting in 1 segment.\n")
    segment = segment_in(tmp_path)
    data = bytearray(segment.read_bytes())
    data[600] ^= 1
    segment.write_bytes(data)
    damaged = runner.invoke(args=["chest", "journal", "verify"])
    assert damaged.exit_code == 1
    assert damaged.output.startswith(f"{segment.name} has ")
    assert damaged.output.endswith(
        f" damaged bytes, which will be skipped.\n{REQUESTS - 1} records waiting in 1 segment.\n"
    )


@pytest.mark.usefixtures("chest")
def test_verify_tells_of_segments_of_another_release(runner: FlaskCliRunner, tmp_path: Path) -> None:
    segment = segment_in(tmp_path)

    segment.write_bytes(version_2_header() + segment.read_bytes()[512:])
    told = runner.invoke(args=["chest", "journal", "verify"])
    assert told.exit_code == 1
    assert f"{segment.name} is of the unknown version 2, and left alone.\n" in told.output


@pytest.mark.usefixtures("chest")
def test_status_tells_what_waits(runner: FlaskCliRunner, tmp_path: Path) -> None:
    assert f"journal: {REQUESTS} records waiting in 1 segment, " in runner.invoke(args=["chest", "status"]).output
    (rejected,) = [path.parent / "refused" for path in [segment_in(tmp_path)]]
    rejected.write_text("{}\n{}\n")
    assert "; 2 refused by the store for good" in runner.invoke(args=["chest", "status"]).output
    (report,) = json.loads(runner.invoke(args=["chest", "status", "--json"]).output)["chests"]
    assert report["journal"]["waiting_records"] == REQUESTS
    assert report["journal"]["refused"] == 2


@pytest.mark.parametrize("command", ["list", "verify", "replay"])
def test_journal_in_memory_has_no_segments(app: Flask, runner: FlaskCliRunner, command: str) -> None:
    FlaskChest(app, store=MemoryStore)
    result = runner.invoke(args=["chest", "journal", command])
    said = {"list": "", "verify": "0 records waiting in 0 segments.\n", "replay": "0 records stored.\n"}
    assert (result.exit_code, result.output) == (0, said[command])


# Records that were left for another store, or for another address of this one


def leave(
    folder: Path, *, store: str | None = "theirs", count: int = REQUESTS, store_id: str | None = None
) -> FileJournal:
    """Append *count* records to a journal in *folder*, and live on."""
    journal = journal_in(folder, store=store, store_id=store_id or None)
    for record in make_records(count):
        journal.append(record)
    return journal


@pytest.fixture
def moved(chest: FlaskChest, tmp_path: Path) -> Iterator[tuple[FlaskCliRunner, Path]]:
    """The same app, after the address of its database has changed while records waited."""
    folder = segment_in(tmp_path).parent
    chest.close()
    app = Flask("shop", root_path=str(tmp_path))
    app.cli.add_command(chest_group)
    moved = FlaskChestSQLite(app, db_uri="new.db", journal_dir="journal", tracked_vars=["number"])
    yield app.test_cli_runner(), folder
    moved.close()


def test_records_are_shown_that_wait_for_another_address(moved: tuple[FlaskCliRunner, Path]) -> None:
    runner, folder = moved
    sentence = (
        f"{REQUESTS} records waiting in {folder}, the folder of another address of the store, of another "
        "CHEST_JOURNAL_DIR or of another app: if they belong here, run flask chest journal replay --from "
        f"{folder}"
    )
    doctor = runner.invoke(args=["chest", "doctor"])
    assert (doctor.exit_code, doctor.output) == (1, f"- {sentence}.\n")
    assert runner.invoke(args=["chest", "journal", "list"]).output == f"{sentence}\n"
    assert f"\n  {sentence}\n" in runner.invoke(args=["chest", "status"]).output
    (report,) = json.loads(runner.invoke(args=["chest", "status", "--json"]).output)["chests"]
    (orphan,) = report["orphans"]
    assert (orphan["orphaned_in"], orphan["waiting_records"]) == (str(folder), REQUESTS)
    listed = json.loads(runner.invoke(args=["chest", "journal", "list", "--json"]).output)
    assert listed == orphan


def test_records_for_another_address_are_stored_when_somebody_says_so(moved: tuple[FlaskCliRunner, Path]) -> None:
    runner, folder = moved
    assert runner.invoke(args=["chest", "journal", "replay"]).output == "0 records stored.\n"
    replay = ["chest", "journal", "replay", "--from", str(folder)]
    assert runner.invoke(args=replay).output == f"{REQUESTS} records stored.\n"
    tail = runner.invoke(args=["chest", "tail"]).output.splitlines()
    assert [json.loads(line)["variables"]["number"] for line in tail] == list(range(REQUESTS))
    assert runner.invoke(args=["chest", "doctor"]).output == "Nothing is wrong.\n"
    assert runner.invoke(args=replay).output == (
        f"Error: {folder} holds no segment of a journal; flask chest journal list names those that do\n"
    )


def test_records_are_shown_that_wait_where_journals_lie_by_default(tmp_path: Path) -> None:
    app = Flask("shop", root_path=str(tmp_path), instance_path=str(tmp_path / "instance"))
    app.cli.add_command(chest_group)
    chest = FlaskChestSQLite(app, db_uri="chest.db", journal_dir="journal", tracked_vars=[])
    folder = tmp_path / "instance" / "flask_chest" / "chest-0123456789ab"
    kill(leave(folder))
    assert f"--from {folder}" in app.test_cli_runner().invoke(args=["chest", "doctor"]).output
    chest.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_nothing_is_stored_from_a_folder_that_everybody_may_forge(moved: tuple[FlaskCliRunner, Path]) -> None:
    runner, folder = moved
    folder.parent.chmod(0o777)
    replayed = runner.invoke(args=["chest", "journal", "replay", "--from", str(folder)])
    assert replayed.output == (
        f"Error: {folder} is not to be trusted: everybody may write {folder.parent}, and could forge what is "
        "kept there\n"
    )
    assert replayed.exit_code == 1


def test_folders_of_other_chests_and_of_living_processes_are_none_of_ours(
    moved: tuple[FlaskCliRunner, Path], tmp_path: Path
) -> None:
    runner, folder = moved
    assert runner.invoke(args=["chest", "journal", "replay", "--from", str(folder)]).exit_code == 0
    living = leave(tmp_path / "journal" / "chest-0123456789ab")
    kill(leave(tmp_path / "journal" / "other-0123456789ab"))
    kill(leave(tmp_path / "journal" / "chest-else"))
    assert runner.invoke(args=["chest", "doctor"]).output == "Nothing is wrong.\n"
    assert runner.invoke(args=["chest", "journal", "list"]).output == ""
    kill(living)


@pytest.mark.parametrize("owner", ["gone", "lives"])
def test_records_for_other_parameters_are_shown_once_their_process_is_gone(
    chest: FlaskChest, runner: FlaskCliRunner, tmp_path: Path, owner: str
) -> None:
    folder = segment_in(tmp_path).parent
    theirs = leave(folder, count=3)
    if owner == "gone":
        kill(theirs)
    assert runner.invoke(args=["chest", "journal", "replay"]).output == f"{REQUESTS} records stored.\n"
    doctor = runner.invoke(args=["chest", "doctor"]).output
    if owner == "lives":
        assert doctor == "Nothing is wrong.\n"
        kill(theirs)
        return
    assert doctor == (
        f"- 3 records waiting in {folder}, for other parameters of the store's address, as its role, or for the "
        f"store that was there before: if they belong here, run flask chest journal replay --from {folder}.\n"
    )
    replay = ["chest", "journal", "replay", "--from", str(folder)]
    assert runner.invoke(args=replay).output == "3 records stored.\n"
    assert runner.invoke(args=["chest", "doctor"]).output == "Nothing is wrong.\n"


def test_records_of_the_store_that_was_at_the_address_before_are_not_mixed_into_its_successor(
    chest: FlaskChest, runner: FlaskCliRunner, tmp_path: Path
) -> None:
    folder = segment_in(tmp_path).parent
    journal = leave(folder, store=chest._state.here.journal_config.store, count=3, store_id="0a" * 16)
    journal.read(1)
    journal.stored()
    kill(journal)
    assert runner.invoke(args=["chest", "journal", "replay"]).output == f"{REQUESTS} records stored.\n"
    assert f"2 records waiting in {folder}, for other " in runner.invoke(args=["chest", "doctor"]).output


def test_replay_from_a_folder_asks_whose_it_is_where_there_are_several_chests(
    app: Flask, runner: FlaskCliRunner, tmp_path: Path
) -> None:
    chests = [
        FlaskChestSQLite(app, db_uri=f"{prefix}.db", journal_dir="journal", tracked_vars=[], config_prefix=prefix)
        for prefix in ("ONE", "TWO")
    ]
    kill(leave(tmp_path / "elsewhere"))
    kill(leave(tmp_path / "two-0123456789ab", count=2))
    replay = ["chest", "journal", "replay", "--from"]
    assert runner.invoke(args=[*replay, str(tmp_path / "elsewhere")]).output == (
        f"Error: {tmp_path / 'elsewhere'} has the name of none of the app's chests, "
        "so it is not known whose it is\n"
    )
    assert runner.invoke(args=[*replay, str(tmp_path / "two-0123456789ab")]).output == "2 records stored.\n"
    with app.app_context():
        assert [len(list(chest._state.here.open_store().query(Query()))) for chest in chests] == [0, 2]
    for chest in chests:
        chest.close()
