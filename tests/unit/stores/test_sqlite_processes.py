"""SQLite stores under several processes: forks, kills, locks and full disks."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from flask_chest.errors import StoreAbsent, StoreUnavailable
from flask_chest.protocols import Busy, Claim
from flask_chest.record import Query, Record
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing.records import make_record

PATIENCE = 60.0
fork = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chest.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(path)) as store:
        store.open()
        yield store


def kept(path: Path) -> list[str]:
    with closing(SQLiteStore(path)) as store:
        return sorted(record.id for record in store.query(Query(limit=None)))


def ids(records: list[Record]) -> list[str]:
    return sorted(record.id for record in records)


def write_all(store: SQLiteStore, batches: list[list[Record]]) -> None:
    """Write *batches*, each again while the store says that it is locked, as its users are told to."""
    deadline = time.monotonic() + PATIENCE
    for batch in batches:
        while True:
            try:
                store.write(batch)
                break
            except StoreUnavailable:
                if time.monotonic() > deadline:
                    raise


@contextmanager
def children(count: int, work: Callable[[int], None]) -> Iterator[None]:
    """Run *work* in forked processes meanwhile; all must end well."""
    processes = [fork.Process(target=work, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    yield
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [0] * count


@contextmanager
def child(work: Callable[[Connection], None]) -> Iterator[Connection]:
    """Run *work* in a forked process that is killed at the end, if it still lives."""
    ours, theirs = fork.Pipe()
    process = fork.Process(target=work, args=(theirs,))
    process.start()
    with ours, theirs:
        yield ours
        process.kill()
        process.join(PATIENCE)


def told(pipe: Connection) -> object:
    assert pipe.poll(PATIENCE), "the child said nothing"
    return pipe.recv()


@pytest.mark.slow
def test_eight_processes_may_open_a_new_file_at_once(path: Path) -> None:
    records = [make_record() for _ in range(8)]
    start = fork.Barrier(8)

    def work(number: int) -> None:
        with closing(SQLiteStore(path)) as store:
            start.wait(PATIENCE)
            store.open()
            store.write([records[number]])

    with children(8, work):
        pass
    assert kept(path) == ids(records)


def test_store_serves_parent_and_child_after_a_fork(store: SQLiteStore, path: Path) -> None:
    records = [make_record() for _ in range(4)]
    store.write(records[:1])

    def work(pipe: Connection) -> None:
        store.write(records[1:2])
        pipe.send("written")
        told(pipe)
        store.write(records[2:3])
        pipe.send("written")
        told(pipe)

    with child(work) as pipe:
        told(pipe)
        store.close()  # were the child on our connection's log, it would now write into a deleted file
        pipe.send("go on")
        told(pipe)
        store.write(records[3:])
    assert kept(path) == ids(records)


FORKS_AS_UWSGI_DOES = """
import ctypes, os, sys
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import make_record

store = SQLiteStore(sys.argv[1])
store.open()
store.write([make_record()])
closed, write_closed = os.pipe()
written, write_written = os.pipe()
if (pid := ctypes.PyDLL(None).fork()) == 0:
    store.write([make_record()])
    os.write(write_written, b".")
    os.read(closed, 1)
    store.write([make_record()])
    os._exit(0)
os.read(written, 1)
store.close()
os.write(write_closed, b".")
assert os.waitpid(pid, 0)[1] == 0
store.write([make_record()])
store.close()
"""


@pytest.mark.slow
def test_store_serves_a_child_that_was_forked_without_pythons_hooks(path: Path) -> None:
    # Of a process with one thread, as uWSGI's: another might wait for ever for a thread that the child has not.
    subprocess.run([sys.executable, "-c", FORKS_AS_UWSGI_DOES, path], check=True, timeout=PATIENCE)
    assert len(kept(path)) == 4


@pytest.mark.slow
def test_fork_in_the_midst_of_writing_threads_loses_nothing(store: SQLiteStore, path: Path) -> None:
    by_threads = [[make_record() for _ in range(60)] for _ in range(4)]
    by_children = [make_record() for _ in range(6)]
    threads = [
        threading.Thread(target=write_all, args=(store, [[record] for record in mine])) for mine in by_threads
    ]
    for thread in threads:
        thread.start()
    with children(6, lambda number: store.write([by_children[number]])):
        for thread in threads:
            thread.join(PATIENCE)
    assert kept(path) == ids([*by_children, *(record for mine in by_threads for record in mine)])


def test_lock_held_by_another_process_is_reported_in_time_and_nothing_is_lost(path: Path) -> None:
    def hold(pipe: Connection) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            pipe.send("locked")
            told(pipe)
            connection.execute("ROLLBACK")
        pipe.send("unlocked")

    records = [make_record() for _ in range(3)]
    with closing(SQLiteStore(path, busy_timeout=0.2)) as store:
        store.open()
        with child(hold) as pipe:
            told(pipe)
            begin = time.monotonic()
            with pytest.raises(StoreUnavailable) as locked:
                store.write(records)
            assert 0.1 < time.monotonic() - begin < 5
            assert str(locked.value) == (f"SQLite {path}: database is locked; try again, or raise busy_timeout")
            assert list(store.query(Query())) == []
            pipe.send("go on")
            told(pipe)
            store.write(records)
    assert kept(path) == ids(records)


def test_new_file_that_another_process_holds_is_reported_in_time(path: Path) -> None:
    def hold(pipe: Connection) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            pipe.send("locked")
            told(pipe)

    with child(hold) as pipe:
        told(pipe)
        with pytest.raises(StoreUnavailable, match="database is locked"):
            SQLiteStore(path, busy_timeout=0.1).open()


def test_switch_to_the_write_ahead_log_waits_no_longer_than_it_may(path: Path) -> None:
    with closing(SQLiteStore(path)) as store:
        store.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM flask_chest").fetchall()
        with pytest.raises(StoreUnavailable, match="database is locked; try again, or raise busy_timeout"):
            SQLiteStore(path, busy_timeout=0.1).open()


def test_process_killed_in_a_transaction_leaves_nothing_half(store: SQLiteStore, path: Path) -> None:
    kept_before, later = make_record(), make_record()
    store.write([kept_before])

    def work(pipe: Connection) -> None:
        with store._database.writing() as session:
            session.change("INSERT INTO flask_chest_exporters VALUES ('a', 0, 0, 0, '', 0, 0, 0, NULL)")
            session.change("DELETE FROM flask_chest")
            pipe.send("in the transaction")
            signal.pause()

    with child(work) as pipe:
        told(pipe)
    store.write([later])
    assert kept(path) == ids([kept_before, later])
    assert list(store.exporters()) == []


def test_full_disk_is_reported_and_the_batch_can_be_written_later(path: Path) -> None:
    records = [make_record(variables={"text": "x" * 8000}) for _ in range(100)]

    def work(pipe: Connection) -> None:
        with closing(SQLiteStore(path)) as store:
            store.open()
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
            try:
                store.write(records)
            except StoreUnavailable as exc:
                pipe.send(str(exc))
            else:
                pipe.send("no error")
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            pipe.send(store.status().records)
            store.write(records)
        pipe.send("written")

    with child(work) as pipe:
        message = told(pipe)
        assert isinstance(message, str)
        assert message.startswith(f"SQLite {path}: ")
        assert "disk" in message
        assert told(pipe) == 0
        assert told(pipe) == "written"
    assert kept(path) == ids(records)


@pytest.mark.slow
def test_each_record_of_many_processes_and_threads_is_claimed_once(store: SQLiteStore, path: Path) -> None:
    batches = [[[make_record() for _ in range(5)] for _ in range(10)] for _ in range(8)]

    def write(number: int) -> None:
        threads = [
            threading.Thread(target=write_all, args=(store, mine))
            for mine in batches[2 * number : 2 * number + 2]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)

    def claim(pipe: Connection) -> None:
        claimed: list[str] = []
        deadline = time.monotonic() + PATIENCE
        while len(claimed) < 400 and time.monotonic() < deadline:
            claim = store.claim("a", limit=7, lease=timedelta(minutes=1))
            if isinstance(claim, Claim) and store.acknowledge(claim):
                claimed += [record.id for record in claim.records]
            else:
                pipe.poll(0.01)  # SQLite's lock is not fair: who asks for it all the time keeps it from others
        pipe.send(claimed)

    with child(claim) as pipe:
        with children(4, write):
            claimed = told(pipe)
        assert isinstance(claimed, list)
        assert sorted(claimed) == ids([record for mine in batches for batch in mine for record in batch])
        assert store.claim("a", limit=1, lease=timedelta(0)) is None


def test_batch_of_a_killed_exporter_is_taken_over_as_it_was(store: SQLiteStore) -> None:
    records = [make_record() for _ in range(5)]
    store.write(records)

    def work(pipe: Connection) -> None:
        claim = store.claim("a", limit=3, lease=timedelta(seconds=0.3))
        pipe.send(isinstance(claim, Claim))
        signal.pause()

    with child(work) as pipe:
        assert told(pipe) is True
    deadline = time.monotonic() + PATIENCE
    while isinstance(claim := store.claim("a", limit=10, lease=timedelta(minutes=1)), Busy):
        assert time.monotonic() < deadline
    assert isinstance(claim, Claim)
    assert list(claim.records) == records[:3]


# The file is removed, moved away or replaced while it is open


def remove(path: Path) -> None:
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


def remove_alone(path: Path) -> None:
    path.unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def replace_by_empty(path: Path) -> None:
    path.with_name("empty.db").touch()
    path.with_name("empty.db").replace(path)


@pytest.mark.parametrize("mishap", [remove, remove_alone, move, replace_by_empty])
def test_file_is_made_anew_when_it_is_gone(
    store: SQLiteStore, path: Path, mishap: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    before, after = make_record(), make_record()
    store.write([before])
    store_id = store.store_id
    mishap(path)
    with caplog.at_level("WARNING", "flask_chest.stores"):
        store.write([after])
    assert f"SQLite {path} was removed while it was in use: it is made again" in caplog.messages
    assert kept(path) == ids([after]) == ids(list(store.query(Query())))
    assert store.store_id == store_id
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_file_that_was_moved_away_has_all_that_was_kept_in_it(store: SQLiteStore, path: Path) -> None:
    records = [make_record() for _ in range(3)]
    store.write(records)
    move(path)  # without the log, in which they lie
    store.write([make_record()])
    assert kept(path.with_name("moved.db")) == ids(records)


def test_records_go_into_the_file_that_replaces_another(
    store: SQLiteStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept_there, after = make_record(), make_record()
    backup = path.with_name("backup.db")
    with closing(SQLiteStore(backup)) as other:
        other.open()
        other.write([kept_there])
    other_id = other.store_id
    store.write([make_record()])
    backup.replace(path)
    with caplog.at_level("WARNING", "flask_chest.stores"):
        assert ids(list(store.query(Query()))) == ids([kept_there])
        store.write([after])
    assert caplog.messages == [f"SQLite {path} was replaced while it was open: records go into the new file"]
    assert kept(path) == ids([kept_there, after])
    assert store.store_id == other_id


def test_reader_finds_that_the_file_is_gone(store: SQLiteStore, path: Path) -> None:
    store.write([make_record()])
    assert len(list(store.query(Query()))) == 1
    remove(path)
    with pytest.raises(StoreAbsent, match="does not exist yet"):
        store.status()
    assert not path.exists()


def test_folder_is_made_anew_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "chest.db"
    with closing(SQLiteStore(path)) as store:
        store.open()
        store.write([make_record()])
        path.parent.rename(tmp_path / "away")
        record = make_record()
        store.write([record])
        assert kept(path) == ids([record])


def test_processes_that_have_a_removed_file_open_agree_on_the_one_that_is_made_anew(path: Path) -> None:
    with closing(SQLiteStore(path)) as store:
        store.open()

    def write(pipe: Connection) -> None:
        with closing(SQLiteStore(path)) as store:
            store.write([make_record()])
            pipe.send("opened")
            told(pipe)
            for number in range(20):
                write_all(store, [[make_record(id=f"{os.getpid()}-{number}")]])
            pipe.send("written")

    with child(write) as first, child(write) as second:
        pipes = [first, second]
        for pipe in pipes:
            told(pipe)
        remove_alone(path)
        with closing(SQLiteStore(path)) as newcomer:
            newcomer.open()  # beside the logs of the file that the others have open
            newcomer.write([make_record(id="newcomer")])
            for pipe in pipes:
                pipe.send("go on")
            for pipe in pipes:
                told(pipe)
            assert len(kept(path)) == 1 + 2 * 20
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# A fork waits for nobody who waits


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold SQLite's lock, as another program might, for as long as the block lasts."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def seconds_of_forks() -> float:
    begin = time.monotonic()
    for _ in range(20):
        with children(1, lambda _: None):
            pass
    return time.monotonic() - begin


@pytest.mark.slow
@pytest.mark.parametrize("new", [False, True])
def test_fork_waits_for_no_thread_that_waits_for_a_lock(path: Path, new: bool) -> None:
    record = make_record()
    with closing(SQLiteStore(path, busy_timeout=120)) as store:
        if not new:
            store.open()

        def work() -> None:
            store.open()
            store.write([record])

        with locked(path):
            thread = threading.Thread(target=work)
            alone = seconds_of_forks()
            thread.start()
            beside = seconds_of_forks()  # whatever the thread does just then
            assert thread.is_alive()
        thread.join()
        assert beside < 2 * alone + 1
        assert kept(path) == ids([record])
