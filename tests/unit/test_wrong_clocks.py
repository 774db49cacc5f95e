"""What is deleted, refused and told when a clock is ahead, or was."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from flask import Flask, g

from flask_chest import FlaskChest, FlaskChestSQLite
from flask_chest._clocks import ClockNote, decode_note
from flask_chest.background.retention import INTERVAL, tell_time
from flask_chest.cli import chest_group
from flask_chest.protocols import Leases
from flask_chest.record import Query
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import make_record

HOUR_NANO = 3600 * 10**9
DAY_NANO = 24 * HOUR_NANO
YEAR_NANO = 365 * DAY_NANO


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask("shop", root_path=str(tmp_path), instance_path=str(tmp_path / "instance"))
    app.cli.add_command(chest_group)
    return app


@pytest.fixture
def chest(app: Flask, tmp_path: Path) -> Iterator[FlaskChest]:
    chest = FlaskChestSQLite(app, db_uri=tmp_path / "chest.db", tracked_vars=["user"], retention="30d, 100 rows")

    @app.route("/<user>")
    def index(user: str) -> str:
        g.user = user
        return user

    app.test_client().get("/ada")
    assert chest.flush()
    yield chest
    chest.close()


def set_clock(monkeypatch: pytest.MonkeyPatch, by_nano: int) -> None:
    """Set the clock of this machine."""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + by_nano)


def let_pass(monkeypatch: pytest.MonkeyPatch, span: timedelta) -> None:
    """Let time pass by both clocks of this machine."""
    nano = span // timedelta(microseconds=1) * 1_000
    set_clock(monkeypatch, nano)
    uptime = ClockNote.taken(0).uptime_nano
    monkeypatch.setattr("flask_chest._clocks._uptime_nano", lambda: uptime + nano)


# Retention


def test_nothing_is_deleted_by_a_clock_that_the_store_does_not_share(
    chest: FlaskChest, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = SimpleNamespace(
        time_ns=lambda: time.time_ns() + YEAR_NANO, monotonic=time.monotonic, sleep=time.sleep
    )
    monkeypatch.setattr("flask_chest.background.retention.time", ahead)
    report = chest.run_retention()
    assert report.deleted == 0
    assert report.doubt is not None
    assert "31,536,000 s ahead of that of the store, so retention deletes nothing" in report.doubt
    monkeypatch.undo()
    assert chest.run_retention().doubt is None
    assert len(chest.query()) == 1


def test_nothing_is_deleted_after_the_clock_has_jumped_and_it_is_said(
    app: Flask, chest: FlaskChest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, logger="flask_chest"):
        set_clock(patched, YEAR_NANO)
        for _ in range(2):
            assert chest.run_retention().deleted == 0
        assert "this machine's clock has jumped, or the machine was off for more than a day" in caplog.text
        assert chest.stats().faults == {"retention waits for a clock that is right": 2}
    # The clock is right again: nothing that is recorded now is refused.
    chest.run_retention()
    app.test_client().get("/bob")
    assert chest.flush()
    assert {record.variables["user"] for record in chest.query()} == {"ada", "bob"}
    stats = chest.stats()
    assert (stats.stored, stats.dropped) == (2, 0)


def test_a_clock_that_stays_as_it_was_set_is_believed_after_an_interval(
    chest: FlaskChest, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch, YEAR_NANO)
    assert chest.run_retention().deleted == 0
    let_pass(monkeypatch, INTERVAL / 2)
    assert chest.run_retention().deleted == 0
    let_pass(monkeypatch, INTERVAL)
    assert chest.run_retention().deleted == 1


def test_time_that_passes_is_no_jump(chest: FlaskChest, monkeypatch: pytest.MonkeyPatch) -> None:
    chest.run_retention()
    let_pass(monkeypatch, timedelta(days=31))
    assert chest.run_retention().deleted == 1


@pytest.mark.parametrize("kind", ["sqlite", "memory"])
def test_jump_before_the_first_run_is_seen_too(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SQLiteStore(tmp_path / "chest.db") if kind == "sqlite" else MemoryStore()
    store.open()
    with monkeypatch.context() as patched:
        set_clock(patched, YEAR_NANO)
        if kind == "memory":
            patched.setattr(store, "_now", time.time_ns)
        assert "has jumped" in str(tell_time(store).doubt)
    store.close()


@pytest.mark.parametrize(
    ("off", "doubted"), [(timedelta(hours=8), False), (timedelta(days=3), True), (timedelta(hours=-1), True)]
)
def test_clock_of_a_machine_that_was_started_anew(
    monkeypatch: pytest.MonkeyPatch, off: timedelta, doubted: bool
) -> None:
    former = ClockNote.taken(1_000 * DAY_NANO)
    monkeypatch.setattr("flask_chest._clocks._boot", lambda: "another")
    monkeypatch.setattr("flask_chest._clocks._uptime_nano", lambda: 60 * 10**9)
    now = former.unix_nano + off // timedelta(microseconds=1) * 1_000
    note = ClockNote.taken(now, former, doubt=INTERVAL)
    assert note.doubted is doubted
    monkeypatch.setattr("flask_chest._clocks._uptime_nano", lambda: 60 * 10**9 + HOUR_NANO)
    assert not ClockNote.taken(now + HOUR_NANO, note, doubt=INTERVAL).doubted


def test_store_that_moved_to_another_machine_is_no_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    former = ClockNote.taken(1_000 * DAY_NANO)
    monkeypatch.setattr("flask_chest._clocks._boot", lambda: "another")
    monkeypatch.setattr("flask_chest._clocks._uptime_nano", lambda: 100 * DAY_NANO)
    assert not ClockNote.taken(former.unix_nano + HOUR_NANO, former, doubt=INTERVAL).doubted
    assert ClockNote.taken(former.unix_nano + 30 * DAY_NANO, former, doubt=INTERVAL).doubted


def test_jump_is_seen_where_the_system_tells_neither_uptime_nor_boot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("flask_chest._clocks._UPTIME", tmp_path / "none")
    monkeypatch.setattr("flask_chest._clocks._BOOT_ID", tmp_path / "none")
    former = ClockNote.taken(1_000 * DAY_NANO)
    assert not ClockNote.taken(former.unix_nano + 10**9, former, doubt=INTERVAL).doubted
    assert ClockNote.taken(former.unix_nano + HOUR_NANO, former, doubt=INTERVAL).doubted


@pytest.mark.parametrize("text", [None, "", "{", "7", '{"boot": 1}'])
def test_note_that_cannot_be_read_is_none(text: str | None) -> None:
    assert decode_note(text) is None


def test_records_dated_ahead_are_spared_and_counted_and_take_the_place_of_no_others(
    chest: FlaskChest, caplog: pytest.LogCaptureFixture
) -> None:
    store = chest._state.here.open_store()
    now = time.time_ns()
    store.write([make_record(time_unix_nano=now + YEAR_NANO + number) for number in range(200)])
    with caplog.at_level(logging.WARNING, logger="flask_chest"):
        report = chest.run_retention()
    assert (report.deleted, report.spared, chest.stats().spared) == (0, 200, 200)
    assert "records are dated ahead of the clock" in caplog.text


def test_cut_off_of_a_clock_that_was_ahead_refuses_nothing_and_is_corrected(
    app: Flask, chest: FlaskChest, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "chest.db") as connection:
        connection.execute(
            "INSERT INTO flask_chest_deletions (kind, before_unix_nano) VALUES ('cut-off', ?)",
            (time.time_ns() + YEAR_NANO,),
        )
    app.test_client().get("/bob")
    assert chest.flush()
    assert len(chest.query()) == 2
    chest.run_retention()
    ((cut_off,),) = connection.execute("SELECT before_unix_nano FROM flask_chest_deletions")
    connection.close()
    assert cut_off < time.time_ns()


def test_record_that_a_cut_off_drops_is_never_counted_as_stored(
    app: Flask, chest: FlaskChest, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    chest.run_retention()
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, logger="flask_chest"):
        set_clock(patched, -YEAR_NANO)
        app.test_client().get("/late")
        patched.undo()
        assert chest.flush()
    stats = chest.stats()
    assert (stats.stored, stats.dropped) == (1, 1)
    assert "records were not stored, as they had been deleted before they came" in caplog.text
    output = app.test_cli_runner().invoke(args=["chest", "doctor"]).output
    assert "1 record not stored, the last at " in output
    assert "or a machine's clock is behind. Raise CHEST_RETENTION, or set the clock by NTP." in output


@pytest.mark.parametrize("ahead", [90, -90])
def test_server_whose_clock_differs_deletes_nothing(ahead: int) -> None:
    store = MemoryStore(clock=lambda: time.time_ns() + ahead * 10**9)
    store.open()
    assert isinstance(store, Leases)
    which = "behind" if ahead > 0 else "ahead of"
    assert f"this machine's clock is 90 s {which} that of the store" in str(tell_time(store).doubt)


# What is told


def test_prune_by_a_clock_that_has_jumped_deletes_nothing(
    app: Flask, chest: FlaskChest, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch, YEAR_NANO)
    for command in (["prune", "--older-than", "30d"], ["prune"]):
        result = app.test_cli_runner().invoke(args=["chest", *command])
        assert result.exit_code == 1
        assert "nothing was deleted: this machine's clock has jumped" in result.output
    monkeypatch.undo()
    assert len(chest.query()) == 1


def test_doctor_names_a_jump_and_the_records_that_are_dated_ahead(
    app: Flask, chest: FlaskChest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = chest._state.here.open_store()
    store.write([make_record(time_unix_nano=time.time_ns() + 2 * YEAR_NANO, instance="web-2:0")])
    set_clock(monkeypatch, YEAR_NANO)
    output = app.test_cli_runner().invoke(args=["chest", "doctor"]).output
    assert "This machine's clock has jumped, or the machine was off for more than a day" in output
    assert "1 record dated ahead of the clock, up to " in output
    assert "by web-2:0, whose clock was wrong or is" in output


# Leases


def test_exporter_of_a_process_that_was_killed_under_a_clock_ahead_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SQLiteStore(tmp_path / "chest.db")
    store.open()
    store.write([make_record()])
    with monkeypatch.context() as patched:
        set_clock(patched, HOUR_NANO)
        taken = store.claim("influxdb", limit=10, lease=timedelta(minutes=5))
        assert store.hold("retention", owner="gone", lease=timedelta(minutes=1))
    claim = store.claim("influxdb", limit=10, lease=timedelta(minutes=5))
    assert claim is not None
    assert type(claim) is type(taken)
    assert store.hold("retention", owner="here", lease=timedelta(minutes=1))
    store.close()


# With a clock that is set for whole processes

_FAKETIME = shutil.which("faketime")
_SHOP = """
import sys
from pathlib import Path
from flask import Flask
from flask_chest import FlaskChestSQLite

root = Path(sys.argv[1])
app = Flask("shop", root_path=str(root), instance_path=str(root / "instance"))
chest = FlaskChestSQLite(app, db_uri=root / "chest.db", tracked_vars=[], retention="30d")
app.test_client().get("/")
assert chest.flush(20)
if sys.argv[2] == "retain":
    print(chest.run_retention())
print(len(chest.query()), chest.stats().stored, chest.stats().dropped)
chest.close()
"""


def shop(folder: Path, *words: str, clock: str | None = None) -> list[str]:
    command = [sys.executable, "-c", _SHOP, str(folder), *words]
    if clock is not None:
        assert _FAKETIME is not None
        command = [_FAKETIME, "-f", clock, *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.skipif(_FAKETIME is None, reason="faketime is not installed")
def test_process_under_a_clock_ahead_deletes_nothing_and_dates_nothing_that_follows(tmp_path: Path) -> None:
    assert shop(tmp_path, "store") == ["1 1 0"]
    report, counts = shop(tmp_path, "retain", clock="+400d")
    assert "deleted=0" in report
    assert counts == "2 1 0"
    assert shop(tmp_path, "store") == ["3 1 0"]
    store = SQLiteStore(tmp_path / "chest.db")
    soon = time.time_ns() + 60 * 10**9
    assert len(list(store.query(Query(until_unix_nano=soon)))) == 2
    store.close()
