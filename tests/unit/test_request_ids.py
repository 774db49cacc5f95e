"""Ids and times that are never given twice, whatever forks and whatever the clock does."""

from __future__ import annotations

import hashlib
import itertools
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from enum import StrEnum

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from flask_chest.request_ids import (
    MAX_REQUEST_ID,
    continue_time_after,
    header_request_id,
    new_record_id,
    normalise_request_id,
    unique_time_unix_nano,
    uuid4_request_id,
    uuid7_request_id,
)

# Request ids


@pytest.mark.parametrize("text", ["", "a", "x" * MAX_REQUEST_ID, "é" * MAX_REQUEST_ID])
def test_id_that_fits_is_kept_as_it_is(text: str) -> None:
    assert normalise_request_id(text) == text


def test_longer_id_is_replaced_by_its_digest() -> None:
    text = "x" * (MAX_REQUEST_ID + 1)
    assert normalise_request_id(text) == hashlib.sha256(text.encode()).hexdigest()


def test_long_ids_that_begin_alike_stay_apart() -> None:
    assert len({normalise_request_id("x" * 300 + str(i)) for i in range(100)}) == 100


class Kind(StrEnum):
    A = "a"


class Odd:
    def __str__(self) -> str:
        return Markup("odd")


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (None, "None"), (uuid.UUID(int=1), str(uuid.UUID(int=1))), (b"a", "b'a'"), (Odd(), "odd")],
)
def test_what_is_no_text_is_made_one(value: object, text: str) -> None:
    assert normalise_request_id(value) == text
    assert type(normalise_request_id(value)) is str


@pytest.mark.parametrize("value", [Markup("a"), Kind.A])
def test_text_of_a_subclass_is_made_plain(value: str) -> None:
    assert type(normalise_request_id(value)) is str
    assert normalise_request_id(value) == "a"


@given(st.text(st.characters()))
def test_any_id_is_made_storable(text: str) -> None:
    stored = normalise_request_id(text)
    assert len(stored) <= MAX_REQUEST_ID
    assert "\0" not in stored
    stored.encode()


def test_nul_and_lone_surrogates_are_replaced() -> None:
    assert normalise_request_id("a\0b\ud800") == "a\ufffdb\ufffd"


def test_default_id_is_a_random_uuid() -> None:
    assert uuid.UUID(uuid4_request_id()).version == 4
    assert len({uuid4_request_id() for _ in range(1000)}) == 1000


def test_ids_with_the_time_in_front_are_unique_and_increasing() -> None:
    before = time.time_ns() // 1_000_000
    ids = [uuid7_request_id() for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    assert {uuid.UUID(i).version for i in ids} == {7}
    assert before <= uuid.UUID(ids[0]).int >> 80 <= uuid.UUID(ids[-1]).int >> 80 <= after
    assert len(set(ids)) == 1000
    assert ids == sorted(ids)


# A header


@pytest.mark.parametrize("sent", ["a", "x" * 128, "00-4bf9/2f35:77b3=4da6+a3@ce_9.29d0e"])
def test_acceptable_header_is_the_id(app: Flask, sent: str) -> None:
    with app.test_request_context(headers={"X-Request-ID": sent}):
        assert header_request_id()() == sent


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "a,b", "é", "<script>", "a;b", "'a'"])
def test_other_header_is_not_taken(app: Flask, sent: str) -> None:
    with app.test_request_context(headers={"X-Request-ID": sent}):
        assert header_request_id(fallback=lambda: "ours")() == "ours"


def test_missing_header_has_a_uuid_in_its_place(app: Flask) -> None:
    with app.test_request_context():
        assert uuid.UUID(header_request_id()()).version == 4


def test_header_can_be_another_one(app: Flask) -> None:
    with app.test_request_context(headers={"X-Request-ID": "a", "X-Amzn-Trace-Id": "b"}):
        assert header_request_id("X-Amzn-Trace-Id")() == "b"


def test_outside_of_a_request_the_fallback_makes_the_id() -> None:
    assert header_request_id(fallback=lambda: "ours")() == "ours"


# Record ids


def test_record_ids_are_of_version_7_unique_and_increasing() -> None:
    ids = [new_record_id() for _ in range(5000)]
    assert all(
        re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", i) for i in ids
    )
    assert len(set(ids)) == 5000
    assert ids == sorted(ids)


FORKING = """
import ctypes, os, sys
from flask_chest.request_ids import process, unique_time_unix_nano
from flask_chest.request_ids import new_record_id, uuid4_request_id, uuid7_request_id
MAKERS = (new_record_id, uuid4_request_id, uuid7_request_id)
unique_time_unix_nano(), [make() for make in MAKERS]
process.lock.acquire()  # as another thread would hold it at the fork
children = []
for _ in range(3):
    pid = FORK()
    if pid == 0:
        unique_time_unix_nano()
        os.write(1, "".join(f"{make()}\\n" for make in MAKERS * 20).encode())
        os._exit(0)
    children.append(pid)
process.lock.release()
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
os.write(1, "".join(f"{make()}\\n" for make in MAKERS * 20).encode())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "fork", ["os.fork", "ctypes.PyDLL(None).fork"], ids=["with Python's hooks", "without them, as uWSGI"]
)
def test_ids_are_unique_after_a_fork(fork: str) -> None:
    code = FORKING.replace("FORK", fork)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    ids = done.stdout.split()
    assert len(ids) == 4 * 60
    assert len(set(ids)) == len(ids)
    # The random part: the time at the front of a UUIDv7 would hide a repeated one.
    assert len({i[19:] for i in ids}) == len(ids)


# Times


def clock(monkeypatch: pytest.MonkeyPatch, tell: Callable[[], int]) -> None:
    monkeypatch.setattr(time, "time_ns", tell)


def test_time_is_that_of_the_clock() -> None:
    before = time.time_ns()
    assert before <= unique_time_unix_nano() <= time.time_ns() + 1_000_000


def test_times_increase_when_the_clock_is_set_back_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    first = unique_time_unix_nano()
    back = itertools.count(first - 900_000_000, -1_000)
    clock(monkeypatch, lambda: next(back))
    assert [unique_time_unix_nano() for _ in range(3)] == [first + 1, first + 2, first + 3]


def test_times_begin_anew_when_the_clock_is_set_back_by_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    hour_ago = unique_time_unix_nano() - 3_600_000_000_000
    with monkeypatch.context() as patched:
        clock(patched, lambda: hour_ago)
        assert [unique_time_unix_nano() for _ in range(3)] == [hour_ago, hour_ago + 1, hour_ago + 2]


def test_one_request_under_a_clock_ahead_dates_no_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        ahead = time.time_ns() + 365 * 86_400 * 10**9
        clock(patched, lambda: ahead)
        assert unique_time_unix_nano() == ahead
    assert unique_time_unix_nano() < time.time_ns() + 1_000_000


def test_time_of_a_former_process_far_ahead_is_not_continued() -> None:
    continue_time_after(time.time_ns() + 365 * 86_400 * 10**9)
    assert unique_time_unix_nano() < time.time_ns() + 1_000_000


def test_times_increase_when_the_clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    stands = unique_time_unix_nano()
    clock(monkeypatch, lambda: stands)
    assert [unique_time_unix_nano() for _ in range(3)] == [stands + 1, stands + 2, stands + 3]


def test_reserved_times_are_given_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    stands = unique_time_unix_nano()
    clock(monkeypatch, lambda: stands)
    first = unique_time_unix_nano(5)
    assert unique_time_unix_nano() == first + 5


@pytest.fixture
def hurried_threads() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hurried_threads")
def test_times_are_unique_over_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    stands = unique_time_unix_nano()
    clock(monkeypatch, lambda: stands)
    found: list[list[int]] = []
    ready = threading.Barrier(8)

    def ask() -> None:
        ready.wait(timeout=10)
        found.append([unique_time_unix_nano() for _ in range(5000)])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(itertools.chain.from_iterable(found)) == list(range(stands + 1, stands + 40_001))
    assert all(times == sorted(times) for times in found)
