"""The journal on disk: what is appended comes back, whatever the disk does meanwhile, within its bound."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from flask_chest.errors import JournalClosed, JournalError, JournalFull
from flask_chest.extension.settings import MIN_JOURNAL_BYTES
from flask_chest.journal import JournalConfig, _appender, _segments
from flask_chest.journal._appender import FULL_SECONDS, LOOK_BYTES
from flask_chest.journal._frames import HEADER_BYTES, MAGIC, MAX_PAYLOAD_BYTES
from flask_chest.journal.file import FileJournal
from flask_chest.record import Record
from flask_chest.testing.records import make_record
from journals import Reports, adopted, drain, journal_in, kill, make_records, only_segment, segment_paths


class Disk:
    """Stands between segments and the disk: the next writes go as *plan* says, the frames' as *frames*."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plan: list[Callable[[int, bytes, int], int]] = []
        self.frames: list[Callable[[int, bytes, int], int]] = []
        self._write = os.pwrite
        monkeypatch.setattr(os, "write", lambda descriptor, data: self(descriptor, data, 0))
        monkeypatch.setattr(_segments, "write_at", self)

    def __call__(self, descriptor: int, data: bytes, offset: int) -> int:
        planned = self.plan if self.plan or data.startswith(MAGIC) else self.frames
        return (planned.pop(0) if planned else self._write)(descriptor, data, offset)

    def half(self, descriptor: int, data: bytes, offset: int) -> int:
        return self._write(descriptor, data[: len(data) // 2], offset)

    def nothing(self, descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def whole_then_signal(self, descriptor: int, data: bytes, offset: int) -> int:
        self._write(descriptor, data, offset)
        raise KeyboardInterrupt


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_appender, "MAX_SEGMENT_BYTES", 1_500)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def append_all(journal: FileJournal, records: list[Record]) -> list[Record]:
    """Append until the journal is full; give what it took."""
    taken = []
    for record in records:
        try:
            journal.append(record)
        except JournalFull:
            break
        taken.append(record)
    return taken


def test_records_come_back_in_their_order(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    records = make_records(5)
    assert [journal.append(record) for record in records] == [1, 2, 3, 4, 5]
    assert drain(journal, limit=2) == records
    assert journal.waiting() == 0


def test_read_gives_the_same_until_it_is_stored(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    records = make_records(3)
    for record in records[:2]:
        journal.append(record)
    assert list(journal.read(2)) == records[:2]
    journal.append(records[2])
    assert list(journal.read(2)) == records[:2]
    assert journal.waiting() == 3
    journal.stored()
    assert list(journal.read(2)) == records[2:]


def test_segment_that_is_read_in_several_batches_is_kept_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_appender, "MAX_SEGMENT_BYTES", 2_000)
    journal = journal_in(tmp_path)
    records = make_records(40)
    for record in records:
        journal.append(record)
    assert len(segment_paths(tmp_path)) > 2
    assert drain(journal, limit=1) == records
    journal.close()
    assert segment_paths(tmp_path) == []


def test_segment_is_dropped_once_it_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_appender, "MAX_SEGMENT_BYTES", 2_000)
    journal = journal_in(tmp_path)
    for record in make_records(40):
        journal.append(record)
    first, *others = segment_paths(tmp_path)
    assert 0 < len(journal.read(40)) < 40 / len(others)
    assert first.exists()
    journal.stored()
    assert segment_paths(tmp_path) == others
    drain(journal)
    assert segment_paths(tmp_path) == others[-1:]


def test_clean_close_leaves_only_the_slots_file(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.append(make_record())
    drain(journal)
    journal.close()
    assert [path.name for path in tmp_path.iterdir()] == ["slot-0.lock"]


def test_close_leaves_what_waits_to_the_next_owner_and_may_be_called_again(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    records = make_records(2)
    for record in records:
        journal.append(record)
    assert list(journal.read(10)) == records
    journal.close()
    journal.close()
    with pytest.raises(JournalClosed, match="is closed"):
        journal.append(make_record())
    with pytest.raises(JournalClosed, match="is closed"):
        journal.append_opened(make_record())
    assert drain(journal_in(tmp_path)) == records


def test_closed_journal_says_so_also_when_it_is_full(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, max_bytes=8_000)
    append_all(journal, make_records(100))
    journal.close()
    with pytest.raises(JournalClosed):  # or the record would be lost, and not handed to a new journal
        journal.append(make_record())


def test_folder_and_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        journal = journal_in(tmp_path / "journal")
        journal.append(make_record())
        journal.set_aside(make_record(), "too large")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "journal").iterdir()}
    assert len(modes) == 3
    assert set(modes.values()) == {0o600}
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o700


def test_record_larger_than_a_segment_has_one_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_appender, "MAX_SEGMENT_BYTES", 1_000)
    journal = journal_in(tmp_path)
    records = [make_record(), make_record(variables={"v": "x" * 600_000}), make_record()]
    for record in records:
        journal.append(record)
    assert len(segment_paths(tmp_path)) == 3
    assert drain(journal) == records


def test_record_that_no_reader_would_take_is_refused(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    with pytest.raises(JournalError, match=f"at most {MAX_PAYLOAD_BYTES} fit"):
        journal.append(make_record(variables={"v": "x" * MAX_PAYLOAD_BYTES}))
    assert journal.waiting() == 0


def test_long_names_fit_into_the_header(tmp_path: Path) -> None:
    config = JournalConfig(
        folder=tmp_path, chest="\u20ac" * 300, store="s" * 32, host="\0" * 300, max_bytes=10**6
    )
    journal = FileJournal(config, report=Reports())
    journal.append(make_record(id="here"))
    assert [record.id for record in drain(journal)] == ["here"]


# A disk that fails


def test_short_write_seals_the_segment_and_a_new_one_takes_the_record(tmp_path: Path, disk: Disk) -> None:
    journal = journal_in(tmp_path)
    records = make_records(3)
    journal.append(records[0])
    whole = only_segment(tmp_path).stat().st_size
    disk.plan = [disk.half]
    assert journal.append(records[1]) == 2
    journal.append(records[2])
    first, second = segment_paths(tmp_path)
    assert first.stat().st_size == whole
    assert second.stat().st_size == HEADER_BYTES + (whole - HEADER_BYTES) * 2
    reports = Reports()
    kill(journal)
    assert adopted(tmp_path, reports=reports) == records
    assert not reports


def test_half_a_frame_that_cannot_be_cut_off_is_skipped(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, length: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    journal = journal_in(tmp_path)
    records = make_records(3)
    monkeypatch.setattr(os, "ftruncate", refuse)
    journal.append(records[0])
    disk.plan = [disk.half]
    journal.append(records[1])
    journal.append(records[2])
    assert list(journal.read(10)) == records[:1]
    assert list(journal.read(10)) == records
    kill(journal)
    reports = Reports()
    assert adopted(tmp_path, reports=reports) == records
    assert reports == {"bytes of the journal were damaged, and skipped": 1}


def test_disk_that_takes_nothing_is_an_error_until_it_takes_something_again(tmp_path: Path, disk: Disk) -> None:
    journal = journal_in(tmp_path)
    records = make_records(3)
    journal.append(records[0])
    disk.plan = [disk.nothing] * 3
    for _ in range(2):
        with pytest.raises(JournalError, match=r"takes nothing: No space left on device$") as full:
            journal.append(records[1])
        assert type(full.value) is JournalError
        assert isinstance(full.value.__cause__, OSError)
        assert journal.waiting() == 1
    journal.append(records[2])
    assert drain(journal) == [records[0], records[2]]
    assert journal.waiting() == 0


def test_disk_that_stays_full_is_not_filled_with_empty_segments(tmp_path: Path, disk: Disk) -> None:
    journal = journal_in(tmp_path)
    journal.append(make_record(id="first"))
    disk.frames = [disk.half] * 40
    for _ in range(20):
        with pytest.raises(JournalError):
            journal.append(make_record())
    assert len(segment_paths(tmp_path)) == 2
    journal.append(make_record(id="last"))
    assert [record.id for record in drain(journal)] == ["first", "last"]
    assert journal.waiting() == 0


def test_exception_of_a_signal_handler_in_the_middle_of_an_append_loses_no_other_record(
    tmp_path: Path, disk: Disk
) -> None:
    journal = journal_in(tmp_path)
    records = make_records(4)
    journal.append(records[0])
    disk.plan = [disk.whole_then_signal]
    with pytest.raises(KeyboardInterrupt):
        journal.append(records[1])
    for record in records[2:]:
        journal.append(record)
    assert drain(journal) == [records[0], *records[2:]]
    assert journal.waiting() == 0


@pytest.mark.slow
def test_file_that_may_not_grow_takes_what_fits_and_loses_nothing(tmp_path: Path) -> None:
    code = f"""
import resource, sys
sys.path.insert(0, {os.fspath(Path(__file__).parents[2] / "support")!r})
from pathlib import Path
from journals import journal_in, make_records
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
journal = journal_in(Path({os.fspath(tmp_path)!r}))
for record in make_records(20):
    journal.append(record)
    print(record.id, flush=True)
import os
os.kill(os.getpid(), 9)
"""
    ended = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    told = ended.stdout.split()
    assert len(told) == 20
    assert len(segment_paths(tmp_path)) > 1
    assert [record.id for record in adopted(tmp_path)] == told


def test_folder_that_was_removed_is_made_again_and_the_slot_taken_again(
    tmp_path: Path, small_segments: None
) -> None:
    journal = journal_in(tmp_path / "journal")
    records = make_records(30)
    for record in records[:10]:
        journal.append(record)
    newest = len(segment_paths(tmp_path / "journal"))
    shutil.rmtree(tmp_path / "journal")
    for record in records[10:]:
        journal.append(record)
    assert newest > 1
    assert journal_in(tmp_path / "journal").instance != journal.instance
    drained = drain(journal)
    assert drained[-20:] == records[10:]
    kill(journal)
    assert adopted(tmp_path / "journal") == []


def test_folder_that_cannot_be_made_again_is_a_journal_error(tmp_path: Path) -> None:
    journal = journal_in(tmp_path / "journal")
    shutil.rmtree(tmp_path / "journal")
    (tmp_path / "journal").write_text("a file")
    with pytest.raises(JournalError, match="Not a directory"):
        journal.append(make_record())


# Its bound


def test_full_journal_refuses_and_has_room_again_once_something_is_stored(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, max_bytes=MIN_JOURNAL_BYTES)
    taken = append_all(journal, make_records(1_000))
    headers = len(segment_paths(tmp_path)) * HEADER_BYTES
    assert MIN_JOURNAL_BYTES - 1_000 < folder_bytes(tmp_path) <= MIN_JOURNAL_BYTES + headers
    with pytest.raises(JournalFull, match=r"holds its 65536 bytes.*raise journal_bytes"):
        journal.append(make_record())
    batch = journal.read(1_000)
    assert len(taken) / 10 < len(batch) < len(taken) / 6  # it has room again long before all are stored
    journal.stored()
    more = append_all(journal, make_records(1_000))
    assert len(more) >= len(batch) * 0.9
    assert batch + drain(journal) == taken + more


def test_each_segment_that_is_full_is_told(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, max_bytes=MIN_JOURNAL_BYTES)
    told: list[int] = []
    journal.call_when_filling(lambda: told.append(len(segment_paths(tmp_path))))
    append_all(journal, make_records(1_000))
    assert told == list(range(1, len(segment_paths(tmp_path)) + 1))


def test_full_folder_is_not_looked_at_again_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    looks = 0
    scandir = os.scandir

    def counting(folder: Path) -> object:
        nonlocal looks
        looks += 1
        return scandir(folder)

    journal = journal_in(tmp_path, max_bytes=MIN_JOURNAL_BYTES)
    append_all(journal, make_records(1_000))
    monkeypatch.setattr(os, "scandir", counting)
    for _ in range(10):
        with pytest.raises(JournalFull):
            journal.append(make_record())
    assert looks == 0
    for path in segment_paths(tmp_path)[:4]:
        path.unlink()  # by hand
    clock[0] += FULL_SECONDS
    journal.append(make_record())
    assert looks == 1


def test_journals_that_share_a_folder_share_its_bound(tmp_path: Path) -> None:
    bound = 4 * LOOK_BYTES
    journals = [journal_in(tmp_path, max_bytes=bound) for _ in range(3)]
    large = [make_record(variables={"v": "x" * 8_000}) for _ in range(400)]
    for record in large:
        for journal in journals:
            append_all(journal, [record])
    assert bound - LOOK_BYTES < folder_bytes(tmp_path) <= bound + 3 * LOOK_BYTES


def test_what_was_set_aside_counts_and_is_bounded(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, max_bytes=16_000)
    record = make_record(variables={"v": "x" * 7_000})
    journal.set_aside(record, "the column is too short")
    journal.set_aside(record, "again")
    with pytest.raises(JournalFull, match="make room, or raise journal_bytes"):
        journal.set_aside(record, "once more")
    lines = [msgspec.json.decode(line) for line in (tmp_path / "refused").read_bytes().splitlines()]
    assert [line["reason"] for line in lines] == ["the column is too short", "again"]
    assert lines[0]["record"] == msgspec.structs.asdict(record)


def test_disk_that_takes_half_a_line_leaves_no_half_of_it(tmp_path: Path, disk: Disk) -> None:
    journal = journal_in(tmp_path)
    journal.set_aside(make_record(), "one")
    disk.plan = [disk.half]
    with pytest.raises(JournalError, match="refused takes nothing"):
        journal.set_aside(make_record(), "two")
    journal.set_aside(make_record(), "three")
    lines = (tmp_path / "refused").read_bytes().splitlines()
    assert [msgspec.json.decode(line)["reason"] for line in lines] == ["one", "three"]
