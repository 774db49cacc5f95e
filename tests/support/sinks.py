"""Sinks that keep, stay away, hang and refuse, and a writer that fills them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from flask_chest.background.stats import ChestStats, Tally
from flask_chest.background.writer import Writer
from flask_chest.errors import RecordRefused, StoreUnavailable
from flask_chest.journal.protocols import Journal
from flask_chest.protocols import Sink
from flask_chest.record import Record

PATIENCE = 20.0


class KeepingSink(Sink):
    """Keeps each record once, and notes what was tried, when and on which thread."""

    def __init__(self) -> None:
        self.tried: list[int] = []
        """The sizes of the batches that were given, taken or not."""
        self.times: list[float] = []
        self.threads: set[int] = set()
        self.kept: dict[str, Record] = {}

    def write(self, records: Sequence[Record], /) -> None:
        self.tried.append(len(records))
        self.times.append(time.monotonic())
        self.threads.add(threading.get_ident())
        self.judge(records)
        for record in records:
            self.kept.setdefault(record.id, record)

    def judge(self, records: Sequence[Record]) -> None:
        """Raise what speaks against *records*."""

    def close(self) -> None:
        pass

    @property
    def numbers(self) -> list[object]:
        """The variable ``number`` of each record that is kept, in the order in which they came."""
        return [record.variables["number"] for record in self.kept.values()]


class AwaySink(KeepingSink):
    """Is away until it is told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.away = True

    def judge(self, records: Sequence[Record]) -> None:
        if self.away:
            raise StoreUnavailable("gone for lunch")


class HangingSink(KeepingSink):
    """Answers nobody until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.let = threading.Event(), threading.Event()

    def judge(self, records: Sequence[Record]) -> None:
        self.entered.set()
        assert self.let.wait(PATIENCE)


class ParticularSink(KeepingSink):
    """Raises *error*, which is made of what it dislikes in a batch: the records whose number is in *numbers*."""

    def __init__(self, numbers: Iterable[int], error: Callable[[Sequence[Record]], BaseException]) -> None:
        super().__init__()
        self.disliked = set(numbers)
        self._error = error

    def judge(self, records: Sequence[Record]) -> None:
        if culprits := [record for record in records if record.variables["number"] in self.disliked]:
            raise self._error(culprits)


def naming_all(culprits: Sequence[Record]) -> RecordRefused:
    return RecordRefused("some are too wide", {record.id: "too wide" for record in culprits})


def naming_one(culprits: Sequence[Record]) -> RecordRefused:
    return naming_all(culprits[:1])


def naming_none(_: Sequence[Record]) -> RecordRefused:
    return RecordRefused("one of them is too wide")


def crashing(_: Sequence[Record]) -> ValueError:
    return ValueError("hunter2")


@dataclass(frozen=True)
class Work:
    """A writer and what it counts."""

    writer: Writer
    tally: Tally

    def take(self, records: Iterable[Record]) -> None:
        for record in records:
            self.writer.take(record)

    @property
    def stats(self) -> ChestStats:
        return self.tally.snapshot(waiting=self.writer.waiting())


@contextmanager
def working(journal: Journal, sink: Sink, tally: Tally) -> Iterator[Work]:
    """Run a writer from *journal* to *sink*; at the end it is closed, whether or not all is stored."""
    work = Work(Writer(journal, lambda: sink, tally), tally)
    try:
        yield work
    finally:
        if isinstance(sink, HangingSink):
            sink.let.set()
        work.writer.close(PATIENCE if work.writer.flush(0) else 0.2)


def until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s in vain"
        time.sleep(0.002)
