"""Whatever happens to store and journal, the responses are those of an app without a chest."""

from __future__ import annotations

import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from benchmarks.web_servers import Server, gunicorn, serving, wait_until

import troubled_app
from troubled_app import NO_CHEST, Report

REQUESTS = [
    b"GET /text HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
    b"POST /text HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Length: 3\r\n\r\nada",
    b"HEAD /text HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
    b"OPTIONS /text HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
    b"DELETE /text HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
    b"GET /json HTTP/1.0\r\n\r\n",
    b"GET /cookie HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
    b"GET /elsewhere HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
    b"GET /stream HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
    b"GET /stream HTTP/1.0\r\n\r\n",
    b"GET /file HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
    b"GET /file HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nRange: bytes=3-20\r\n\r\n",
    b"GET /forbidden HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
    b"GET /broken HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
    b"GET /broken_stream HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
    b"GET /nowhere HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
]
RECORD_BYTES = len(troubled_app.PADDING)
ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Trouble:
    store: str
    environ: Mapping[str, str] = field(default_factory=dict)
    stored: bool = False
    """Whether all records come into the store in spite of it."""
    loses: str | None = None
    """Why records are lost, if they are."""
    says: str | None = None
    """What is logged once beside the counted reasons."""


TROUBLES = {
    "a store that hangs as it is opened": Trouble(store="HangsInOpen"),
    "a store that hangs as it is written": Trouble(store="HangsInWrite"),
    "a store that is away": Trouble(store="Unavailable"),
    "a store with a mistake": Trouble(store="Buggy"),
    "a store that refuses every record": Trouble(
        store="Refusing", says="the store refused a record, which was set aside"
    ),
    "a disk that takes half a record": Trouble(
        store="OnDisk", environ={troubled_app.FILE_BYTES: f"{RECORD_BYTES * 5 // 2}"}
    ),
    "a disk that takes nothing": Trouble(
        store="OnDisk", environ={troubled_app.FILE_BYTES: "100"}, loses="the journal did not take a record"
    ),
    "a journal that cannot be written": Trouble(
        store="MemoryStore",
        environ={"FLASK_CHEST_JOURNAL_DIR": f"{__file__}/journal"},
        stored=True,
        says="the journal cannot be kept in",
    ),
    "a journal that is full": Trouble(
        store="Unavailable", environ={"FLASK_CHEST_JOURNAL_BYTES": "65536"}, loses="the journal is full"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    trouble: Trouble
    responses: list[bytes]
    report: Report
    log: str


@pytest.fixture(scope="module")
def undisturbed() -> list[bytes]:
    """The responses of the app without a chest."""
    with troubled(Trouble(store=NO_CHEST)) as server:
        return responses_of(server)


@pytest.fixture(scope="module", params=list(TROUBLES))
def outcome(request: pytest.FixtureRequest) -> Outcome:
    trouble = TROUBLES[request.param]
    with troubled(trouble) as server:
        responses = responses_of(server)
        wait_until(lambda: is_settled(report_of(server), trouble))
        report = report_of(server)
    # Only now is all of the log here: a line passes a pipe and a thread on its way.
    return Outcome(trouble=trouble, responses=responses, report=report, log=server.log)


def test_responses_are_those_of_an_app_without_a_chest(outcome: Outcome, undisturbed: list[bytes]) -> None:
    assert outcome.responses == undisturbed
    assert b"HTTP/1.1 200 OK\r\n" in undisturbed[0]
    assert b"HTTP/1.1 500 INTERNAL SERVER ERROR\r\n" in undisturbed[13]


def test_store_is_never_touched_by_a_thread_that_serves_requests(outcome: Outcome) -> None:
    assert set(outcome.report.request_threads).isdisjoint(outcome.report.store_threads)
    assert len(outcome.report.store_threads) == (0 if nothing_is_kept(outcome.trouble) else 1)


def test_every_record_is_stored_or_waits_or_is_counted_as_lost(outcome: Outcome) -> None:
    assert outcome.report.accounted_for
    assert outcome.report.captured >= ROUNDS * len(REQUESTS)
    assert set(outcome.report.lost) == ({outcome.trouble.loses} if outcome.trouble.loses else set())
    assert (outcome.report.stored > 0) == outcome.trouble.stored


def test_each_reason_is_logged_once(outcome: Outcome) -> None:
    for reason in [*outcome.report.lost, *outcome.report.faults]:
        assert outcome.log.count(f"{reason} (") == 1, outcome.log
    if outcome.trouble.says is not None:
        assert outcome.log.count(outcome.trouble.says) == 1, outcome.log
    assert troubled_app.PADDING not in outcome.log


@contextmanager
def troubled(trouble: Trouble) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="chest-") as name, socket.socket(socket.AF_UNIX) as database:
        folder = Path(name)
        database.bind(str(folder / "database"))
        database.listen()  # whoever connects is let in by the kernel, and nobody ever answers
        environ = {
            troubled_app.TROUBLE: trouble.store,
            troubled_app.FOLDER: name,
            troubled_app.DATABASE_ADDRESS: str(folder / "database"),
            "FLASK_CHEST_JOURNAL_DIR": str(folder / "journal"),
            "PYTHONHASHSEED": "0",  # Werkzeug lists the methods of Allow in a set's order
            **trouble.environ,
        }
        command = gunicorn("troubled_app:serve()", folder / "http", "--worker-class=gthread", "--threads=4")
        with serving(command, address=folder / "http", environ=environ) as server:
            yield server


def responses_of(server: Server) -> list[bytes]:
    return [ask(server, request) for _ in range(ROUNDS) for request in REQUESTS]


def report_of(server: Server) -> Report:
    response = ask(server, b"GET /report HTTP/1.0\r\n\r\n")
    return msgspec.json.decode(response.partition(b"\r\n\r\n")[2], type=Report)


def ask(server: Server, request: bytes) -> bytes:
    """Send *request* as it is; return all that comes back, but for the time of day."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(server.address))
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    return re.sub(rb"\r\nDate: [^\r]+", b"", answer, count=1)


def is_settled(report: Report, trouble: Trouble) -> bool:
    asked = bool(report.store_threads) or nothing_is_kept(trouble)
    return asked and report.accounted_for and (report.waiting == 0) >= trouble.stored


def nothing_is_kept(trouble: Trouble) -> bool:
    return trouble.loses == "the journal did not take a record"
