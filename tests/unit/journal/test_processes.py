"""Journals of real processes: killed, forked, and adopting what others left."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import cast

import pytest

from flask_chest.journal import _appender
from flask_chest.journal._slots import take
from flask_chest.journal.file import FileJournal
from flask_chest.record import Record
from flask_chest.testing.records import make_record
from journals import Reports, adopted, drain, journal_in, make_records, segment_paths

PATIENCE = 60.0
fork = multiprocessing.get_context("fork")


@contextmanager
def child(work: Callable[[Connection], None]) -> Iterator[tuple[ForkProcess, Connection]]:
    """Run *work* in a forked process that is killed at the end, if it still lives."""
    ours, theirs = fork.Pipe()
    process = fork.Process(target=work, args=(theirs,))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        ours.close()


def told(pipe: Connection) -> list[str]:
    assert pipe.poll(PATIENCE), "the child said nothing"
    return cast("list[str]", pipe.recv())


def sigkill(process: ForkProcess) -> None:
    process.kill()
    process.join()  # with a time it would wait for forked children as well
    assert process.exitcode == -signal.SIGKILL


def ids(records: list[Record]) -> list[str]:
    return [record.id for record in records]


def append_and_stay(folder: Path, count: int) -> Callable[[Connection], None]:
    def work(pipe: Connection) -> None:
        journal = journal_in(folder)
        records = make_records(count)
        for record in records:
            journal.append(record)
        pipe.send(ids(records))
        pipe.recv()

    return work


def test_segments_of_a_killed_process_are_adopted_and_those_of_a_live_one_are_not(tmp_path: Path) -> None:
    heir = journal_in(tmp_path)
    with child(append_and_stay(tmp_path, 5)) as (process, pipe):
        appended = told(pipe)
        heir.adopt()
        assert drain(heir) == []
        sigkill(process)
        heir.adopt()
        assert ids(drain(heir)) == appended
    heir.close()
    assert segment_paths(tmp_path) == []


def test_slot_and_times_of_a_killed_process_go_on(tmp_path: Path) -> None:
    with child(append_and_stay(tmp_path, 5)) as (process, pipe):
        told(pipe)
        sigkill(process)
    successor = journal_in(tmp_path)
    assert successor.instance == "web:0"
    times = [record.time_unix_nano for record in drain(successor)]
    assert successor.latest_unix_nano >= max(times)


@pytest.mark.slow
def test_everything_that_was_appended_before_a_kill_at_any_moment_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_appender, "MAX_SEGMENT_BYTES", 4_000)

    def append_for_ever(pipe: Connection) -> None:
        journal = journal_in(tmp_path)
        while True:
            record = make_record()
            journal.append(record)
            pipe.send(record.id)

    answered: list[str] = []
    for _ in range(4):
        with child(append_for_ever) as (process, pipe):
            answered += [cast("str", told(pipe)) for _ in range(random.randint(1, 80))]
            sigkill(process)
            while pipe.poll():  # what it answered until it died
                try:
                    answered.append(pipe.recv())
                except EOFError:
                    break
    given = ids(adopted(tmp_path))
    assert len(given) == len(set(given))
    assert set(answered) <= set(given)
    assert len(given) <= len(answered) + 4  # a kill may come between the append and the answer


def test_long_lived_child_of_a_killed_process_keeps_nobody_from_adopting(tmp_path: Path) -> None:
    def fork_and_stay(pipe: Connection) -> None:
        journal = journal_in(tmp_path)
        records = make_records(3)
        for record in records:
            journal.append(record)
        journal.read(1)  # so that files are open for reading too
        if os.fork() == 0:
            journal.abandon()
            pipe.send([*ids(records), str(os.getpid())])
        pipe.recv()

    with child(fork_and_stay) as (process, pipe):
        *appended, grandchild = told(pipe)
        assert adopted(tmp_path) == []
        sigkill(process)
        os.kill(int(grandchild), 0)  # it lives
        assert ids(adopted(tmp_path)) == appended
        pipe.send("end")


def test_child_that_did_not_let_go_would_keep_everybody_from_adopting(tmp_path: Path) -> None:
    def fork_and_stay(pipe: Connection) -> None:
        journal = journal_in(tmp_path)
        journal.append(make_record())
        if os.fork() == 0:
            pipe.send([str(os.getpid())])
        pipe.recv()

    with child(fork_and_stay) as (process, pipe):
        told(pipe)
        sigkill(process)
        assert adopted(tmp_path) == []  # hence `abandon`
        pipe.send("end")


def test_heir_may_fork_and_be_killed_and_what_it_adopted_is_adopted(tmp_path: Path) -> None:
    def adopt_fork_and_stay(pipe: Connection) -> None:
        journal = journal_in(tmp_path)
        journal.adopt()
        journal.read(2)
        journal.stored()
        journal.read(2)
        if os.fork() == 0:
            journal.abandon()
            pipe.send([str(os.getpid())])
        pipe.recv()

    with child(append_and_stay(tmp_path, 6)) as (owner, pipe):
        appended = told(pipe)
        sigkill(owner)
    with child(adopt_fork_and_stay) as (heir, pipe):
        told(pipe)
        sigkill(heir)
        assert ids(adopted(tmp_path)) == appended[2:]
        pipe.send("end")


@pytest.mark.parametrize("let_go", [True, False])
def test_end_of_a_forked_child_does_not_unlock_the_parents_slot(tmp_path: Path, let_go: bool) -> None:
    journal = journal_in(tmp_path)
    journal.append(make_record())
    journal.read(1)
    pid = os.fork()
    if pid == 0:
        if let_go:
            journal.abandon()
        os._exit(0)
    os.waitpid(pid, 0)
    assert take(tmp_path, 0) is None
    journal.stored()
    later = make_record()
    journal.append(later)
    assert drain(journal) == [later]


def test_slot_is_still_held_while_a_forked_child_has_let_go_and_lives(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)

    def let_go(pipe: Connection) -> None:
        journal.abandon()
        pipe.send([])
        pipe.recv()

    with child(let_go) as (_, pipe):
        told(pipe)
        assert take(tmp_path, 0) is None


def test_close_gives_the_slot_free_while_a_forked_child_has_it_open(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)

    def stay(pipe: Connection) -> None:
        pipe.send([])
        pipe.recv()

    with child(stay) as (_, pipe):
        told(pipe)
        journal.close()
        assert take(tmp_path, 0) is not None


def test_processes_that_adopt_at_once_get_each_record_once(tmp_path: Path) -> None:
    doomed: list[FileJournal] = []
    left: list[str] = []
    for _ in range(8):
        doomed.append(journal_in(tmp_path))
        records = make_records(20)
        for record in records:
            doomed[-1].append(record)
        left += ids(records)
    start = fork.Barrier(3)

    def adopt(pipe: Connection) -> None:
        for journal in doomed:
            journal.abandon()
        journal = journal_in(tmp_path)
        pipe.send([])
        start.wait(PATIENCE)
        given: list[str] = []
        for _ in range(20):
            journal.adopt()
            given += ids(drain(journal, limit=7))
        pipe.send(given)
        pipe.recv()

    with child(adopt) as (_, one), child(adopt) as (_, two):
        told(one)
        told(two)
        for journal in doomed:
            journal.abandon()
        start.wait(PATIENCE)
        given = [*told(one), *told(two)]
    assert sorted(given) == sorted(left)


def test_processes_that_share_a_folder_have_slots_of_their_own(tmp_path: Path) -> None:
    def say_instance(pipe: Connection) -> None:
        pipe.send([journal_in(tmp_path).instance])
        pipe.recv()

    with child(say_instance) as (_, one), child(say_instance) as (_, two), child(say_instance) as (_, three):
        instances = [*told(one), *told(two), *told(three)]
    assert sorted(instances) == ["web:0", "web:1", "web:2"]


def test_slot_whose_lock_is_another_users_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    tmp_path.chmod(0o777)
    for folder in [tmp_path, *tmp_path.parents][:-2]:
        folder.chmod(folder.stat().st_mode | 0o011)
    roots = journal_in(tmp_path)
    roots.append(make_record())
    roots.abandon()

    def as_nobody(pipe: Connection) -> None:
        os.seteuid(65534)
        reports = Reports()
        journal = journal_in(tmp_path, reports=reports)
        journal.adopt()
        record = make_record()
        journal.append(record)
        assert drain(journal) == [record]
        pipe.send([journal.instance, *reports])

    with child(as_nobody) as (_, pipe):
        assert told(pipe) == ["web:1", "a slot of the journal is another user's, and left alone"]
    assert len(adopted(tmp_path)) == 1


def test_threads_that_append_while_another_stores_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_appender, "MAX_SEGMENT_BYTES", 4_000)
    journal = journal_in(tmp_path)
    mine = [make_records(200) for _ in range(4)]

    def append(records: list[Record]) -> None:
        for record in records:
            journal.append(record)

    threads = [threading.Thread(target=append, args=(records,)) for records in mine]
    for thread in threads:
        thread.start()
    given: list[Record] = []
    deadline = time.monotonic() + PATIENCE
    while len(given) < 800 and time.monotonic() < deadline:
        given += journal.read(30)
        journal.stored()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(ids(given)) == sorted(record.id for records in mine for record in records)
    assert journal.waiting() == 0
    journal.close()
    assert segment_paths(tmp_path) == []
