"""Any history of a journal, and any damage to it: what is whole is stored once, and nothing is invented."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flask_chest.journal import _appender, _segments
from flask_chest.journal._frames import COMPLETE, FRAME_HEAD_BYTES, HEADER_BYTES, encode_record
from flask_chest.journal._queue import INTERRUPTED
from flask_chest.journal.file import FileJournal
from flask_chest.record import Record
from flask_chest.testing.records import make_record
from journals import adopted, frame, journal_in, kill, make_records, only_segment, segment_paths

pytestmark = pytest.mark.slow

SMALL_SEGMENT = HEADER_BYTES + 450
"""Of about three records."""


class Owner:
    """A process with a journal, as a test knows it."""

    def __init__(self, folder: Path) -> None:
        self.journal: FileJournal = journal_in(folder)
        self.streaming: dict[str, Record] = {}
        self.waiting: set[str] = set()
        """Ids that it appended and that are not stored."""
        self.stored: set[str] = set()
        self.out: list[Record] = []
        """What it read and did not say to be stored."""


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_after(steps: int) -> Iterator[None]:
    """Let the process die instead of its step number *steps* in writing down that something is stored."""
    left = [steps]

    def dying(method: str) -> None:
        original = getattr(_segments.SegmentReader, method)

        def step(self: _segments.SegmentReader, *arguments: int) -> None:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            original(self, *arguments)

        patched.setattr(_segments.SegmentReader, method, step)

    with pytest.MonkeyPatch.context() as patched:
        dying("note_stored")
        dying("drop")
        yield


class Histories(RuleBasedStateMachine):
    """Owners that append complete records: each is stored, and none is given again after that."""

    def __init__(self) -> None:
        super().__init__()
        self.patched = pytest.MonkeyPatch()
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.owners: list[Owner] = []
        self.taken: dict[str, Record] = {}
        self.stored: dict[str, Record] = {}
        self.gone: dict[str, Record] = {}
        """Records that streamed when their owner ended."""
        self.final: set[str] = set()
        """Ids of which some owner wrote down that they are stored."""

    @initialize(chunk=st.sampled_from([64, 300, 256 * 1024]))
    def begin(self, chunk: int) -> None:
        self.patched.setattr(_appender, "MAX_SEGMENT_BYTES", SMALL_SEGMENT)
        self.patched.setattr(_segments, "CHUNK_BYTES", chunk)
        self.start()

    def teardown(self) -> None:
        try:
            if self.owners:
                self.end()
        finally:
            self.patched.undo()
            self.temporary.cleanup()

    def end(self) -> None:
        for owner in list(self.owners):
            self.lose(owner)
            kill(owner.journal)
        last = self.start()
        last.journal.adopt()
        while self.store_batch(last, limit=5):
            pass
        assert {**self.interruptions(), **self.taken} == self.stored
        last.journal.close()
        assert segment_paths(self.folder) == []

    def interruptions(self) -> dict[str, Record]:
        return {id_: msgspec.structs.replace(record, error=INTERRUPTED) for id_, record in self.gone.items()}

    def start(self) -> Owner:
        owner = Owner(self.folder)
        self.owners.append(owner)
        return owner

    def lose(self, owner: Owner) -> None:
        self.owners.remove(owner)
        self.gone |= owner.streaming

    def one(self, choice: st.DataObject) -> Owner:
        return choice.draw(st.sampled_from(self.owners))

    def append(self, owner: Owner, record: Record) -> None:
        owner.journal.append(record)
        self.taken[record.id] = record
        owner.waiting.add(record.id)

    def take(self, owner: Owner, batch: list[Record]) -> None:
        """Check *batch* and put it into the store, which keeps the first of each id."""
        elsewhere = {record.id for other in self.owners if other is not owner for record in other.out}
        owned = {record_id for other in self.owners if other is not owner for record_id in other.waiting}
        expected = {**self.interruptions(), **self.taken}
        for record in batch:
            assert record == expected[record.id], "invented, or interrupted and complete"
            assert record.id not in elsewhere, "given to two owners at once"
            assert record.id not in owned, "taken from an owner that lives"
            assert record.id not in owner.stored, "given again to who stored it"
            self.check_not_again(record)
            assert self.stored.setdefault(record.id, record) == record
        owner.out = batch

    def check_not_again(self, record: Record) -> None:
        assert record.id not in self.final, "given again after it was stored"

    def store_batch(self, owner: Owner, limit: int) -> list[Record]:
        batch = list(owner.journal.read(limit))
        assert batch[: len(owner.out)] == owner.out
        self.take(owner, batch)
        owner.journal.stored()
        ids = {record.id for record in batch}
        self.final |= ids
        owner.stored |= ids
        owner.waiting -= ids
        owner.out = []
        return batch

    @precondition(lambda self: len(self.owners) < 4)
    @rule()
    def start_another(self) -> None:
        self.start()

    @precondition(lambda self: self.owners)
    @rule(choice=st.data(), count=st.integers(1, 4), text=st.text(max_size=30))
    def append_some(self, choice: st.DataObject, count: int, text: str) -> None:
        owner = self.one(choice)
        for _ in range(count):
            self.append(owner, make_record(variables={"text": text}))

    @precondition(lambda self: self.owners)
    @rule(choice=st.data(), limit=st.integers(1, 8))
    def read_and_store(self, choice: st.DataObject, limit: int) -> None:
        self.store_batch(self.one(choice), limit)

    @precondition(lambda self: self.owners)
    @rule(choice=st.data(), limit=st.integers(1, 8))
    def read_while_the_store_fails(self, choice: st.DataObject, limit: int) -> None:
        owner = self.one(choice)
        batch = list(owner.journal.read(limit))
        assert batch[: len(owner.out)] == owner.out
        # Perhaps the store has kept it, and could not say so.
        self.take(owner, batch)

    @precondition(lambda self: self.owners)
    @rule(choice=st.data())
    def adopt(self, choice: st.DataObject) -> None:
        self.one(choice).journal.adopt()

    @precondition(lambda self: self.owners)
    @rule(choice=st.data())
    def kill_one(self, choice: st.DataObject) -> None:
        owner = self.one(choice)
        self.lose(owner)
        kill(owner.journal)

    @precondition(lambda self: self.owners)
    @rule(choice=st.data())
    def close_one(self, choice: st.DataObject) -> None:
        owner = self.one(choice)
        self.lose(owner)
        owner.journal.close()

    @precondition(lambda self: self.owners)
    @rule(choice=st.data(), steps=st.integers(0, 6))
    def kill_one_while_it_writes_down_what_is_stored(self, choice: st.DataObject, steps: int) -> None:
        owner = self.one(choice)
        batch = list(owner.journal.read(4))
        self.take(owner, batch)
        with killed_after(steps), suppress(Killed):
            owner.journal.stored()
        self.lose(owner)
        kill(owner.journal)

    @invariant()
    def owners_know_how_many_of_theirs_wait(self) -> None:
        for owner in self.owners:
            assert owner.journal.waiting() == len(owner.waiting)


class StreamingHistories(Histories):
    """The same with streamed responses: what is given again is what it was."""

    def check_not_again(self, record: Record) -> None:
        """Do nothing: what follows an opened record in its segment may be read again after a kill."""

    @precondition(lambda self: self.owners)
    @rule(choice=st.data(), count=st.integers(1, 3))
    def open_some(self, choice: st.DataObject, count: int) -> None:
        owner = self.one(choice)
        for _ in range(count):
            record = make_record(variables={})
            owner.journal.append_opened(record)
            owner.streaming[record.id] = record

    @precondition(lambda self: any(owner.streaming for owner in self.owners))
    @rule(choice=st.data())
    def complete_one(self, choice: st.DataObject) -> None:
        owner = choice.draw(st.sampled_from([owner for owner in self.owners if owner.streaming]))
        opened = owner.streaming.pop(choice.draw(st.sampled_from(list(owner.streaming))))
        self.append(owner, msgspec.structs.replace(opened, duration_ns=7, variables={"rows": 1}))


def frames_of(records: list[Record]) -> list[tuple[Record, range]]:
    """Tell where in their segment the frames of *records* lie."""
    frames = []
    at = HEADER_BYTES
    for record in records:
        end = at + FRAME_HEAD_BYTES + len(encode_record(record))
        frames.append((record, range(at, end)))
        at = end
    return frames


@contextmanager
def left_by_killed(records: list[Record], *, stored: int, chunk: int) -> Iterator[Path]:
    """Give a folder with the segment of a killed owner who had *stored* some of *records*."""
    with tempfile.TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patched:
        patched.setattr(_segments, "CHUNK_BYTES", chunk)
        journal = journal_in(Path(temporary))
        for record in records:
            journal.append(record)
        if stored:
            assert list(journal.read(stored)) == records[:stored]
            journal.stored()
        kill(journal)
        yield Path(temporary)


# A client may send what looks like frames: of other segments, since no client knows the marker of this one.
looks_like_a_frame = frame(b"\x01another", COMPLETE, encode_record(make_record())).decode("latin-1")
damaged_journals = {
    "variables": st.lists(st.text(max_size=20) | st.just(looks_like_a_frame), min_size=1, max_size=5),
    "stored": st.integers(0, 4),
    "chunk": st.sampled_from([40, 200, 256 * 1024]),
    "choice": st.data(),
}


def assert_replayed(folder: Path, undamaged: list[Record], records: list[Record]) -> None:
    """Assert that all of *undamaged* come back in their order, and nothing that is not in *records*."""
    given = adopted(folder)
    remaining = iter(given)
    assert all(record in remaining for record in undamaged)
    originals = iter(records)
    assert all(record in originals for record in given)
    assert segment_paths(folder) == []


@given(**damaged_journals)
def test_truncated_segment_gives_what_was_not_cut(
    variables: list[str], stored: int, chunk: int, choice: st.DataObject
) -> None:
    records = [make_record(variables={"v": text}) for text in variables]
    with left_by_killed(records, stored=min(stored, len(records)), chunk=chunk) as folder:
        path = only_segment(folder)
        length = choice.draw(st.integers(0, path.stat().st_size))
        with path.open("r+b") as file:
            file.truncate(length)
        whole = [record for record, place in frames_of(records)[stored:] if place.stop <= length]
        assert_replayed(folder, whole, records)


@given(**damaged_journals)
def test_flipped_bits_anywhere_in_a_segment_lose_only_what_they_hit(
    variables: list[str], stored: int, chunk: int, choice: st.DataObject
) -> None:
    records = [make_record(variables={"v": text}) for text in variables]
    with left_by_killed(records, stored=min(stored, len(records)), chunk=chunk) as folder:
        path = only_segment(folder)
        data = bytearray(path.read_bytes())
        headers = st.integers(0, 8 * 80 - 1)
        for bit in choice.draw(st.sets(headers | st.integers(0, 8 * len(data) - 1), min_size=1, max_size=4)):
            data[bit // 8] ^= 1 << bit % 8
        original = path.read_bytes()
        path.write_bytes(data)
        undamaged = [
            record
            for record, place in frames_of(records)[stored:]
            if data[place.start : place.stop] == original[place.start : place.stop]
        ]
        assert_replayed(folder, undamaged, records)


@given(garbage=st.binary(min_size=1, max_size=100), **damaged_journals)
def test_garbage_among_the_frames_loses_only_the_one_that_it_splits(
    garbage: bytes, variables: list[str], stored: int, chunk: int, choice: st.DataObject
) -> None:
    records = [make_record(variables={"v": text}) for text in variables]
    with left_by_killed(records, stored=min(stored, len(records)), chunk=chunk) as folder:
        path = only_segment(folder)
        data = path.read_bytes()
        at = choice.draw(st.integers(HEADER_BYTES, len(data)))
        path.write_bytes(data[:at] + garbage + data[at:])
        whole = [record for record, place in frames_of(records)[stored:] if not place.start < at < place.stop]
        assert_replayed(folder, whole, records)


@given(garbage=st.binary(max_size=1_000))
def test_any_file_in_the_place_of_a_segment_gives_nothing_and_harms_nothing(garbage: bytes) -> None:
    with left_by_killed(make_records(2), stored=0, chunk=100) as folder:
        only_segment(folder).write_bytes(garbage)
        assert adopted(folder) == []
        assert segment_paths(folder) == []


@pytest.mark.parametrize("histories", [Histories, StreamingHistories])
def test_in_every_history_each_record_is_stored_once(histories: type[RuleBasedStateMachine]) -> None:
    run_state_machine_as_test(
        histories,
        settings=settings(
            max_examples=100,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
