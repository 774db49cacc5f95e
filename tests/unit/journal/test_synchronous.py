"""A synchronous journal: what it took is on the disk, not only in the kernel's memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from flask_chest.errors import JournalError
from flask_chest.journal import _files, _segments
from flask_chest.journal._frames import FRAME_HEAD_BYTES, HEADER_BYTES, encode_record
from journals import adopted, drain, journal_in, kill, make_records, segment_paths


class Synchronised:
    """Notes which files were synchronised, and how long they were; the next calls may fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: list[tuple[int, int]] = []
        self.folders = 0
        self.failures = 0
        self._fsync = os.fsync
        for module in (_files, _segments):
            monkeypatch.setattr(module, "synchronise", self._file)
        monkeypatch.setattr(os, "fsync", self._folder)

    def _file(self, descriptor: int) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EIO, "Input/output error")
        status = os.fstat(descriptor)
        self.files.append((status.st_ino, status.st_size))
        self._fsync(descriptor)

    def _folder(self, descriptor: int) -> None:
        self.folders += 1
        self._fsync(descriptor)


@pytest.fixture
def synchronised(monkeypatch: pytest.MonkeyPatch) -> Synchronised:
    return Synchronised(monkeypatch)


def test_each_record_is_synchronised_before_it_counts_as_taken(
    tmp_path: Path, synchronised: Synchronised
) -> None:
    journal = journal_in(tmp_path, synchronous=True)
    records = make_records(3)
    length = HEADER_BYTES
    for number, record in enumerate(records, start=1):
        journal.append(record)
        length += FRAME_HEAD_BYTES + len(encode_record(record))
        (path,) = segment_paths(tmp_path)
        assert len(synchronised.files) == number + 1  # and the header
        assert synchronised.files[-1] == (path.stat().st_ino, length)
    journal.append_opened(records[0])
    assert len(synchronised.files) == 5


def test_new_segment_has_its_header_and_its_name_synchronised(tmp_path: Path, synchronised: Synchronised) -> None:
    journal = journal_in(tmp_path, synchronous=True)
    (record,) = make_records(1)
    journal.append(record)
    (path,) = segment_paths(tmp_path)
    assert synchronised.files[0] == (path.stat().st_ino, HEADER_BYTES)
    assert synchronised.folders == 1


def test_usual_journal_synchronises_nothing(tmp_path: Path, synchronised: Synchronised) -> None:
    journal = journal_in(tmp_path)
    for record in make_records(3):
        journal.append(record)
    assert len(drain(journal)) == 3
    assert (synchronised.files, synchronised.folders) == ([], 0)


def test_record_that_was_not_synchronised_is_taken_by_a_new_segment_and_counted_once(
    tmp_path: Path, synchronised: Synchronised
) -> None:
    journal = journal_in(tmp_path, synchronous=True)
    records = make_records(3)
    journal.append(records[0])
    synchronised.failures = 1
    assert journal.append(records[1]) == 2
    assert journal.append(records[2]) == 3
    assert len(segment_paths(tmp_path)) == 2
    assert drain(journal) == records
    assert journal.waiting() == 0


def test_record_that_cannot_be_synchronised_is_not_taken(tmp_path: Path, synchronised: Synchronised) -> None:
    journal = journal_in(tmp_path, synchronous=True)
    records = make_records(2)
    journal.append(records[0])
    synchronised.failures = 2
    with pytest.raises(JournalError, match="Input/output error"):
        journal.append(records[1])
    assert journal.waiting() == 1
    kill(journal)
    assert adopted(tmp_path) == records[:1]
