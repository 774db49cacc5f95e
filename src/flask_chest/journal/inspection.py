"""Looking at a journal's folder without taking part in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from flask_chest.journal import REFUSED
from flask_chest.journal._files import ForeignFileError, open_file, read_file
from flask_chest.journal._frames import (
    COMPLETE,
    HEADER_BYTES,
    OTHER_ADDRESS,
    OTHER_ID,
    Frame,
    Skipped,
    decode_record,
    read_header,
    read_passed,
    read_stored,
    scan,
)
from flask_chest.journal._segments import SegmentName, segments_in
from flask_chest.journal._slots import is_followed, is_held, left_from
from flask_chest.record import Record

Owner = Literal["stores", "followed", "leaves", "gone"]
"""Fate of a segment's records: its owner stores them, or another process while the owner lives, or nobody
does as long as it lives; or it has ended, and they are anybody's."""


class SegmentReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment holds."""

    segment: str
    owner: Owner
    instance: str | None
    """Name of the owner, by the header; ``None`` where that is damaged, or of another release."""
    size_bytes: int
    waiting_bytes: int
    waiting_records: int
    oldest_unix_nano: int | None = None
    """Time at which the first of the waiting records' requests ended, in nanoseconds since 1970."""
    damaged_bytes: int = 0
    """Bytes among those that wait that are damaged, and will be skipped."""
    unreadable_records: int = 0
    """Number of whole frames that hold no record of this release."""
    foreign: str | None = None
    """Reason why it is left alone: it is another store's, another release's or another account's."""

    @property
    def of_another_store(self) -> bool:
        """Whether it is left alone as another store's."""
        return self.foreign in {OTHER_ADDRESS, OTHER_ID}


def inspect(folder: Path, *, store: str | None, store_id: str | None = None) -> list[SegmentReport]:
    """Return a report of each segment in *folder*, read from where it is stored on.

    *store* is the digest of the store's address, ``None`` for any store; *store_id* is its id if that is known.
    """
    reports = (_report_on(folder, name, store, store_id) for name in segments_in(folder))
    return [report for report in reports if report is not None]


def refused_records(folder: Path) -> int:
    """Return how many records in *folder* the store refused for good."""
    try:
        with open(open_file(folder / REFUSED, os.O_RDONLY), "rb") as file:  # noqa: PTH123 - it is open
            return sum(1 for _ in file)
    except (FileNotFoundError, ForeignFileError):
        return 0


def _report_on(folder: Path, name: SegmentName, store: str | None, store_id: str | None) -> SegmentReport | None:
    try:
        return _examine(folder, name, store, store_id)
    except PermissionError as exc:  # root's, perhaps, who once ran a command
        return SegmentReport(
            segment=str(name),
            owner="stores",
            instance=None,
            size_bytes=0,
            waiting_bytes=0,
            waiting_records=0,
            foreign="no plain file" if isinstance(exc, ForeignFileError) else "closed to this account",
        )


def _examine(folder: Path, name: SegmentName, store: str | None, store_id: str | None) -> SegmentReport | None:
    # The owner first: one that ends meanwhile may leave a whole last frame, and no half one.
    owner = _owner(folder, name)
    try:
        data = read_file(folder / str(name))
    except FileNotFoundError:  # it was stored meanwhile
        return None
    header = read_header(data[:HEADER_BYTES])
    identity = header.identity if header is not None else None
    foreign = header.why_foreign(store, store_id) if header is not None else None
    stored = read_stored(data[:HEADER_BYTES], size=len(data))
    passed = read_passed(data[:HEADER_BYTES], size=len(data))
    frames = () if foreign else scan(data[stored:], name.marker, complete=owner == "gone", base=stored)
    times: list[int] = []
    damaged = unreadable = 0
    for found in frames:
        if isinstance(found, Skipped):
            damaged += found.count
        elif (record := _record_in(found)) is None:
            unreadable += 1
        elif found.kind == COMPLETE and found.begin >= passed:
            times.append(record.time_unix_nano + record.duration_ns)
    return SegmentReport(
        segment=str(name),
        owner=owner,
        instance=identity.instance if identity is not None else None,
        size_bytes=len(data),
        waiting_bytes=len(data) - stored,
        waiting_records=len(times),
        oldest_unix_nano=min(times, default=None),
        damaged_bytes=damaged,
        unreadable_records=unreadable,
        foreign=foreign,
    )


def _owner(folder: Path, name: SegmentName) -> Owner:
    if not is_held(folder, name.slot):
        return "gone"
    first = left_from(folder, name.slot)
    if first is None:
        return "stores"
    if name.serial < first:
        return "gone"
    return "followed" if is_followed(folder, name.slot) else "leaves"


def _record_in(frame: Frame) -> Record | None:
    try:
        return decode_record(frame.payload)
    except (ValueError, TypeError):
        return None
