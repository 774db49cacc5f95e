"""Slots: the lowest free number, held by a lock that ends with its holder and with nobody else."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from flask_chest.journal import _slots
from flask_chest.journal._slots import Slot, take, take_lowest


def held(slot: Slot | None) -> Slot:
    assert slot is not None
    return slot


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_slots_are_numbered_from_the_lowest_that_is_free(tmp_path: Path) -> None:
    slots = [take_lowest(tmp_path) for _ in range(3)]
    assert [slot.number for slot in slots] == [0, 1, 2]
    slots[1].release()
    assert take_lowest(tmp_path).number == 1


def test_slot_that_is_held_cannot_be_taken(tmp_path: Path) -> None:
    slot = held(take(tmp_path, 4))
    assert take(tmp_path, 4) is None
    slot.release()
    assert held(take(tmp_path, 4)).number == 4


def test_slot_may_be_released_again(tmp_path: Path) -> None:
    slot = take_lowest(tmp_path)
    slot.release()
    successor = take_lowest(tmp_path)
    slot.release()
    slot.close()
    assert take(tmp_path, 0) is None
    assert successor.held


def test_file_stays_when_the_slot_is_released(tmp_path: Path) -> None:
    take_lowest(tmp_path).release()
    assert [path.name for path in tmp_path.iterdir()] == ["slot-0.lock"]


def test_file_that_is_replaced_between_opening_and_locking_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slot-0.lock"
    flock = fcntl.flock
    replaced: list[int] = []

    def replacing(descriptor: int, operation: int) -> None:
        if not replaced:
            path.unlink()
            replaced.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", replacing)
    slot = take_lowest(tmp_path)
    assert os.fstat(slot._descriptor).st_ino == path.stat().st_ino
    assert take(tmp_path, 0) is None
    os.close(replaced[0])


def test_file_that_is_removed_between_opening_and_locking_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slot-0.lock"
    flock = fcntl.flock
    removals = [path]

    def removing(descriptor: int, operation: int) -> None:
        if removals:
            removals.pop().unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removing)
    held(take(tmp_path, 0))
    assert take(tmp_path, 0) is None


def test_unlucky_attempts_leave_no_descriptor_open(tmp_path: Path) -> None:
    slot = take_lowest(tmp_path)
    before = open_descriptors()
    for _ in range(5):
        assert take(tmp_path, 0) is None
    assert open_descriptors() == before
    assert slot.held


def test_folder_without_room_for_a_lock_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        take_lowest(tmp_path / "absent")


def test_file_system_that_cannot_lock_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="No locks available"):
        take_lowest(tmp_path)


def test_slot_of_another_user_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slot-0.lock").touch()
    open_ = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if Path(path).name == "slot-0.lock":
            raise PermissionError("root's, who once ran a command")
        return open_(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    assert take_lowest(tmp_path).number == 1


def test_folder_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        raise PermissionError("a read-only folder")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError):
        take_lowest(tmp_path)


def test_time_is_read_back_by_the_successor(tmp_path: Path) -> None:
    slot = take_lowest(tmp_path)
    assert slot.last_time_unix_nano() == 0
    slot.note_time(2**60)
    slot.note_time(17)
    slot.release()
    assert take_lowest(tmp_path).last_time_unix_nano() == 17


@pytest.mark.parametrize("content", [b"", b"x" * 20, b"-0000000000000000001", b"\xff\x00"])
def test_time_that_is_no_number_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "slot-0.lock").write_bytes(content)
    assert take_lowest(tmp_path).last_time_unix_nano() == 0


def test_disk_that_does_not_take_the_time_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    slot = take_lowest(tmp_path)
    monkeypatch.setattr(_slots, "write_at", refuse)
    slot.note_time(1)
    assert slot.last_time_unix_nano() == 0


def test_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        take_lowest(tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "slot-0.lock").stat().st_mode & 0o777 == 0o600
