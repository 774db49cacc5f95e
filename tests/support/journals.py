"""Journals on disk for tests: opened, killed, drained, and the records to put into them."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

from hypothesis import strategies as st

from flask_chest.journal import JournalConfig
from flask_chest.journal._frames import HEADER_BYTES
from flask_chest.journal._segments import SegmentName, segments_in
from flask_chest.journal.file import FileJournal
from flask_chest.record import JSONValue, Record
from flask_chest.testing.records import make_record

PLENTY = 64 * 1024 * 1024


def frame(marker: bytes, kind: int, payload: bytes) -> bytes:
    """Make a frame, as the form of a journal's files is described."""
    body = struct.pack("<IB", len(payload), kind) + payload
    return marker + struct.pack("<I", crc32(marker + body)) + body


integers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values: st.SearchStrategy[JSONValue] = st.recursive(
    st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
records = st.builds(
    Record,
    id=texts,
    request_id=texts,
    time_unix_nano=integers,
    duration_ns=integers,
    method=texts,
    route=st.none() | texts,
    endpoint=st.none() | texts,
    status_code=integers,
    instance=texts,
    error=st.none() | texts,
    trace_id=st.none() | texts,
    span_id=st.none() | texts,
    trace_flags=st.none() | integers,
    trace_remote=st.none() | st.booleans(),
    variables=st.dictionaries(texts, json_values, max_size=4),
    sample_rate=st.floats(0, 1, exclude_min=True),
)


def make_records(count: int) -> list[Record]:
    return [make_record(variables={"number": number}) for number in range(count)]


class Reports(Counter[str]):
    """What a journal said, and how often."""

    def __call__(self, reason: str) -> None:
        self[reason] += 1


def journal_in(
    folder: Path,
    *,
    store: str | None = "store",
    store_id: str | Callable[[], str | None] | None = None,
    max_bytes: int = PLENTY,
    synchronous: bool = False,
    reports: Reports | None = None,
) -> FileJournal:
    return FileJournal(
        journal_config(folder, store=store, max_bytes=max_bytes, synchronous=synchronous),
        report=Reports() if reports is None else reports,
        identify=store_id if callable(store_id) else lambda: store_id,
    )


def journal_config(
    folder: Path | None,
    *,
    store: str | None = "store",
    max_bytes: int = PLENTY,
    synchronous: bool = False,
    local: bool | None = None,
) -> JournalConfig:
    return JournalConfig(
        folder=folder,
        chest="chest",
        store=store,
        host="web",
        max_bytes=max_bytes,
        synchronous=synchronous,
        local=local,
    )


def kill(journal: FileJournal) -> None:
    """Do what the kernel does to a killed process: close its descriptors, as they are."""
    journal.abandon()


def drain(journal: FileJournal, *, limit: int = 1000) -> list[Record]:
    """Store all that *journal* gives, and give it."""
    drained: list[Record] = []
    while batch := journal.read(limit):
        drained += batch
        journal.stored()
    journal.stored()
    return drained


def adopted(folder: Path, *, reports: Reports | None = None) -> list[Record]:
    """Store all that owners who are gone have left in *folder*."""
    journal = journal_in(folder, reports=reports)
    journal.adopt()
    drained = drain(journal)
    journal.close()
    return drained


def version_2_header() -> bytes:
    """Make the header of a segment as a later release might: of another shape behind its first fields."""
    described = b'{"anything":"else"}'
    crc = crc32(described, crc32((2).to_bytes(4, "little")))
    numbers = b"".join(number.to_bytes(4, "little") for number in (2, len(described), crc))
    return ((b"flchest\n" + numbers).ljust(64, b"\0") + described).ljust(HEADER_BYTES, b"\0")


def only_segment(folder: Path) -> Path:
    """Find the one segment in *folder*."""
    (name,) = segments_in(folder)
    return folder / str(name)


def segment_paths(folder: Path) -> list[Path]:
    return [folder / str(name) for name in segments_in(folder)]


def name_of(path: Path) -> SegmentName:
    name = SegmentName.parse(path.name)
    assert name is not None
    return name
