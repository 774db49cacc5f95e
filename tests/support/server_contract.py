"""What a store on a database server must do among processes, and through troubles of its server."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_chest.errors import StoreUnavailable
from flask_chest.protocols import Claim
from flask_chest.record import JSONValue, Query, Record
from flask_chest.testing.outbox_contract import DeliveringStore
from flask_chest.testing.records import make_record
from json_values import json_values, texts
from servers import RECORDS, DatabaseServer

PATIENCE = 60.0
fork = multiprocessing.get_context("fork")
spawn = multiprocessing.get_context("spawn")


class MakeStore(Protocol):
    def __call__(self, uri: str = "", **options: Any) -> DeliveringStore: ...


def ids(records: Iterable[Record]) -> list[str]:
    return sorted(record.id for record in records)


def make_varied_records(count: int) -> list[Record]:
    """Make records with a hundred routes, and with ids of requests and traces of their own."""
    return [
        make_record(route=f"/{number % 100}", request_id=f"r{number}", trace_id=f"{number:032x}")
        for number in range(count)
    ]


def kept(store: DeliveringStore) -> list[Record]:
    return list(store.query(Query(limit=None)))


def write_through(store: DeliveringStore, records: Sequence[Record], *, batch: int = 50) -> float:
    """Write *records*, each batch again while the store is away; give the longest time it was, in seconds."""
    longest = 0.0
    for first in range(0, len(records), batch):
        began = time.monotonic()
        while True:
            try:
                store.write(records[first : first + batch])
                break
            except StoreUnavailable:
                assert time.monotonic() - began < PATIENCE
                time.sleep(0.02)
        longest = max(longest, time.monotonic() - began)
    return longest


def deliver_all(store: DeliveringStore, *, until: Callable[[], bool]) -> list[Record]:
    """Claim and acknowledge until nothing is left and *until* says that nothing more will come."""
    delivered: list[Record] = []
    while True:
        last = until()
        try:
            claim = store.claim("a", limit=100, lease=timedelta(minutes=1))
        except StoreUnavailable:  # many write, and this one had to wait for too long
            continue
        if isinstance(claim, Claim):
            delivered += claim.records
            assert store.acknowledge(claim)
        elif last:
            return delivered


@contextmanager
def children(count: int, work: Callable[[int], None]) -> Iterator[list[Any]]:
    """Run *work* in forked processes meanwhile; all must end well."""
    processes = [fork.Process(target=work, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    try:
        yield processes
        for process in processes:
            process.join(PATIENCE)
        assert [process.exitcode for process in processes] == [0] * count
    finally:
        for process in processes:
            process.kill()


@contextmanager
def silence() -> Iterator[str]:
    """Listen at an address where connections are accepted and nothing is ever said."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


class ServerStoreContract:
    """Needs the fixtures *make_store*, which gives stores over one set of tables, *store* and *database*."""

    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(variables=st.dictionaries(texts, json_values, max_size=4), request_id=texts)
    def test_any_variables_come_back_equal_and_are_found(
        self, store: DeliveringStore, variables: dict[str, JSONValue], request_id: str
    ) -> None:
        record = make_record(request_id=request_id.replace("\0", ""), variables=variables)
        store.write([record])
        assert record in list(store.query(Query(request_id=record.request_id, limit=None)))
        assert record in list(store.query(Query(where=variables, limit=None)))

    @pytest.mark.parametrize(
        "text",
        [
            "'; DROP TABLE flask_chest; --",
            '"',
            "`",
            "%s",
            "%(a)s",
            "{records}",
            "?",
            "\\",
            "\\'",
            "$1",
            "ü\U0001f600",
        ],
    )
    def test_text_that_means_something_in_sql_is_text(self, store: DeliveringStore, text: str) -> None:
        record = make_record(request_id=text, route=text, variables={text: text})
        store.write([record])
        assert list(store.query(Query(request_id=text))) == [record]
        assert list(store.query(Query(route=text, where={text: text}))) == [record]
        store.register(text)
        assert [status.name for status in store.exporters()] == [text]
        claim = store.claim(text, limit=1, lease=timedelta(minutes=1))
        assert isinstance(claim, Claim)
        assert store.acknowledge(claim, rejected={record.id: text})
        assert [rejection.reason for rejection in store.rejections(text)] == [text]
        assert store.drop(text)

    def test_eight_processes_open_it_at_once(self, make_store: MakeStore) -> None:
        start = fork.Barrier(8)

        def open_and_write(number: int) -> None:
            store = make_store()
            start.wait(PATIENCE)
            store.open()
            store.write([make_record(variables={"number": number})])

        with children(8, open_and_write):
            pass
        store = make_store()
        assert sorted(str(record.variables["number"]) for record in kept(store)) == list("01234567")

    def test_every_record_of_many_writers_is_claimed_once(
        self, store: DeliveringStore, make_store: MakeStore
    ) -> None:
        def write(number: int) -> None:
            own = make_store()
            batches = [
                [make_record(variables={"writer": f"{number}-{thread}-{batch}"}) for _ in range(5)]
                for thread in range(8)
                for batch in range(3)
            ]
            with ThreadPoolExecutor(8) as threads:
                list(threads.map(lambda batch: write_through(own, batch), batches))

        with children(4, write) as processes:
            delivered = deliver_all(store, until=lambda: not any(process.is_alive() for process in processes))
        assert len(delivered) == 4 * 8 * 3 * 5
        assert ids(delivered) == ids(kept(store))

    def test_record_that_is_committed_late_is_not_skipped(
        self, store: DeliveringStore, make_store: MakeStore
    ) -> None:
        early, late = make_record(), make_record()
        slow: Any = make_store()
        entered, leave = threading.Event(), threading.Event()
        recording = slow._database.recording

        @contextmanager
        def recording_slowly() -> Iterator[Any]:
            with recording() as session:
                yield session
                entered.set()  # the record is inserted, and not committed
                assert leave.wait(PATIENCE)

        slow._database.recording = recording_slowly
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(slow.write, [late])
            assert entered.wait(PATIENCE)
            second = threads.submit(write_through, store, [early])
            seen = store.claim("a", limit=10, lease=timedelta(minutes=1))
            assert seen is None
            leave.set()
            first.result(PATIENCE)
            second.result(PATIENCE)
        assert ids(deliver_all(store, until=lambda: True)) == ids([early, late])

    def test_process_that_is_stopped_while_it_writes_holds_up_others_for_seconds_only(
        self, store: DeliveringStore, make_store: MakeStore
    ) -> None:
        stopped = make_record(variables={"stopped": True})

        def stop(_: int) -> None:
            own: Any = make_store(lock_timeout=1.0)
            recording = own._database.recording

            @contextmanager
            def recording_and_stopping() -> Iterator[Any]:
                with recording() as session:
                    yield session
                    os.kill(os.getpid(), signal.SIGSTOP)

            own._database.recording = recording_and_stopping
            with pytest.raises(StoreUnavailable):
                own.write([stopped])

        with children(1, stop) as (process,):
            await_stop(process.pid)
            hurried = make_store(lock_timeout=1.0)
            assert write_through(hurried, [make_record()]) < 10
            os.kill(process.pid, signal.SIGCONT)
        assert [dict(record.variables) for record in kept(store)] != []
        assert stopped.id not in ids(kept(store))

    def test_fork_between_uses_disturbs_neither_side(self, store: DeliveringStore) -> None:
        before, in_child, after = (make_record() for _ in range(3))
        store.write([before])

        def write(_: int) -> None:
            store.write([in_child])
            store.close()

        with children(1, write):
            store.write([after])
        assert ids(kept(store)) == ids([before, in_child, after])

    def test_closed_store_may_be_used_again(self, store: DeliveringStore) -> None:
        store.close()
        store.close()
        record = make_record()
        store.write([record])
        assert kept(store) == [record]

    def test_connections_are_bounded_and_waited_for(self, make_store: MakeStore) -> None:
        store = make_store(pool_size=2)
        store.open()
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _: store.write([make_record()]), range(40)))
        assert len(kept(store)) == 40

    def test_server_that_never_answers_is_given_up(self, make_store: MakeStore, database: DatabaseServer) -> None:
        with silence() as address:
            store = make_store(database.uri_with(address=address), connect_timeout=2.0)
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                store.write([make_record()])
            assert time.monotonic() - began < PATIENCE / 4

    def test_pruning_and_writing_at_once_leave_nothing_behind(
        self, store: DeliveringStore, make_store: MakeStore
    ) -> None:
        old = [make_record(time_unix_nano=number) for number in range(1, 401)]
        other: Any = make_store()
        with ThreadPoolExecutor(2) as threads:
            writing = threads.submit(write_through, store, old, batch=20)
            while other.prune(1_000, limit=50, keep_unexported=False) == 50 or not writing.done():
                pass
            writing.result(PATIENCE)
            other.prune(1_000, limit=1_000, keep_unexported=False)
        assert kept(store) == []


class ServerTroubles:
    """What happens when the server itself goes away; needs the same fixtures."""

    @pytest.mark.parametrize("trouble", ["kill", "restart"])
    def test_load_through_a_server_that_goes_and_comes_loses_and_doubles_nothing(
        self, store: DeliveringStore, database: DatabaseServer, trouble: str
    ) -> None:
        records = [make_record(variables={"number": number}) for number in range(RECORDS)]
        with ThreadPoolExecutor(1) as threads:
            store.write(records[: RECORDS // 10])
            writing = threads.submit(write_through, store, records, batch=RECORDS // 100)
            getattr(database.server, trouble)()
            writing.result(PATIENCE * 2)
        database.server.wait()
        assert ids(kept(store)) == ids(records)
        assert ids(deliver_all(store, until=lambda: True)) == ids(records)

    def test_idle_connections_that_the_server_closed_are_replaced_without_an_error(
        self, store: DeliveringStore, database: DatabaseServer
    ) -> None:
        store.write([make_record()])
        database.server.restart()
        database.server.wait()
        store.write([make_record()])
        assert len(kept(store)) == 2


def await_stop(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while (state := _state(pid)) != "T":
        assert time.monotonic() < deadline, f"the process is in state {state}"
        time.sleep(0.01)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
