"""The journal in memory, and when it is taken instead of one on disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_chest import journal as journals_module
from flask_chest.errors import JournalClosed, JournalError, JournalFull
from flask_chest.journal import digest, journal_folder, open_journal
from flask_chest.journal._frames import encode_record
from flask_chest.journal.file import FileJournal
from flask_chest.journal.memory import MAX_BYTES, MemoryJournal
from flask_chest.journal.protocols import Journal
from flask_chest.testing.records import make_record
from journals import journal_config, make_records


def ignore(reason: str) -> None:
    pass


def opened(folder: Path | None, *, max_bytes: int = 10**8, local: bool | None = None) -> Journal:
    return open_journal(journal_config(folder, max_bytes=max_bytes, local=local), report=ignore)


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mounts"
    monkeypatch.setattr(journals_module, "_MOUNTS", path)
    return path


# In memory


def test_records_come_back_in_their_order() -> None:
    journal = MemoryJournal(instance="web:1")
    records = make_records(3)
    assert [journal.append(record) for record in records] == [1, 2, 3]
    assert list(journal.read(2)) == records[:2]
    journal.stored()
    assert journal.waiting() == 1
    assert list(journal.read(2)) == records[2:]
    journal.stored()
    assert list(journal.read(2)) == []
    assert journal.waiting() == 0


def test_read_gives_the_same_until_it_is_stored() -> None:
    journal = MemoryJournal(instance="web:1")
    records = make_records(3)
    for record in records[:2]:
        journal.append(record)
    assert list(journal.read(2)) == records[:2]
    journal.append(records[2])
    assert list(journal.read(2)) == records[:2]
    journal.stored()
    assert list(journal.read(2)) == records[2:]


def test_stored_without_a_read_removes_nothing() -> None:
    journal = MemoryJournal(instance="web:1")
    journal.append(make_record())
    journal.read(1)
    journal.stored()
    journal.append(make_record())
    journal.stored()
    assert journal.waiting() == 1


def test_bytes_are_bounded_and_given_free_by_stored() -> None:
    record = make_record()
    size = len(encode_record(record))
    journal = MemoryJournal(instance="web:1", max_bytes=3 * size)
    for _ in range(3):
        journal.append(record)
    with pytest.raises(JournalFull) as full:
        journal.append(record)
    assert str(full.value) == (
        f"the journal in memory holds its {3 * size} bytes, since the store takes too little; "
        "see why, or give it a folder by journal_dir"
    )
    assert journal.waiting() == 3
    journal.read(1)
    journal.stored()
    journal.append(record)
    with pytest.raises(JournalFull):
        journal.append(record)


def test_read_takes_an_eighth_of_the_bound_or_one_record() -> None:
    record = make_record()
    size = len(encode_record(record))
    journal = MemoryJournal(instance="web:1", max_bytes=32 * size)
    assert journal.read(10) == []
    for _ in range(32):
        journal.append(record)
    assert len(journal.read(2)) == 2
    assert len(journal.read(10)) == 4
    tight = MemoryJournal(instance="web:1", max_bytes=2 * size)
    tight.append(record)
    assert len(tight.read(10)) == 1


def test_each_eighth_of_the_bound_is_told() -> None:
    record = make_record()
    journal = MemoryJournal(instance="web:1", max_bytes=32 * len(encode_record(record)))
    told: list[int] = []
    journal.call_when_filling(lambda: told.append(journal.waiting() + 1))
    for _ in range(32):
        journal.append(record)
    assert told == [4, 8, 12, 16, 20, 24, 28, 32]


def test_closed_journal_takes_nothing_and_gives_what_it_has() -> None:
    journal = MemoryJournal(instance="web:1")
    record = make_record()
    journal.append(record)
    journal.close()
    journal.close()
    with pytest.raises(JournalClosed):
        journal.append(make_record())
    assert list(journal.read(9)) == [record]


def test_forked_child_forgets_what_its_parent_stores() -> None:
    journal = MemoryJournal(instance="web:1")
    journal.append(make_record())
    journal.read(1)
    journal.abandon()
    assert journal.waiting() == 0
    assert list(journal.read(9)) == []
    with pytest.raises(JournalClosed):
        journal.append(make_record())


def test_nothing_can_be_set_aside_in_memory() -> None:
    with pytest.raises(JournalError, match="too long"):
        MemoryJournal(instance="web:1").set_aside(make_record(), "too long")


def test_nothing_is_known_of_former_processes_and_streams_are_not_noted() -> None:
    journal = MemoryJournal(instance="web:1")
    journal.append_opened(make_record())
    journal.adopt()
    assert list(journal.read(9)) == []
    assert (journal.instance, journal.latest_unix_nano, journal.waiting()) == ("web:1", 0, 0)


# Which one


def test_no_folder_means_memory_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    journal = opened(None)
    assert isinstance(journal, MemoryJournal)
    assert journal.instance.startswith("web:")
    assert caplog.records == []


def test_memory_takes_less_than_a_disk_may(tmp_path: Path) -> None:
    large = opened(None, max_bytes=10**12)
    small = opened(None, max_bytes=10)
    assert isinstance(large, MemoryJournal)
    assert large._max_bytes == MAX_BYTES
    with pytest.raises(JournalFull, match="holds its 10 bytes"):
        small.append(make_record())


def test_folder_is_made_and_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = opened(tmp_path / "a" / "b")
    assert isinstance(journal, FileJournal)
    assert (journal.instance, caplog.records) == ("web:0", [])


def test_folder_that_cannot_be_made_is_said_with_the_way_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "journal"
    assert isinstance(opened(folder), MemoryJournal)
    (said,) = caplog.records
    assert (said.name, said.levelno) == ("flask_chest.journal", logging.WARNING)
    assert said.getMessage() == (
        f"the journal cannot be kept in {folder} (Not a directory): records wait for the store in memory, "
        "and are lost if the process is killed; set CHEST_JOURNAL_DIR to a folder on a local disk"
    )


def test_failure_after_the_slot_was_taken_gives_it_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Path, pattern: str) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "glob", refuse)
        assert isinstance(opened(tmp_path), MemoryJournal)
    assert "(Permission denied)" in caplog.text
    assert opened(tmp_path).instance == "web:0"


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.glusterfs", "ceph", "fuse.ceph", "lustre", "vboxsf"])
def test_network_file_system_is_refused(
    mounts: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path} {kind} rw 0 0\n")
    assert isinstance(opened(tmp_path / "journal"), MemoryJournal)
    assert f"(it is on {kind}, a network file system)" in caplog.text
    assert not (tmp_path / "journal").exists()


@pytest.mark.parametrize("kind", ["fuse", "fuse.sshfs", "fuse.gcsfuse", "fuse.rclone", "fuse.to-be-invented"])
def test_file_system_behind_fuse_that_is_not_known_is_refused(
    mounts: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nx {tmp_path} {kind} rw 0 0\n")
    assert isinstance(opened(tmp_path / "journal"), MemoryJournal)
    assert (
        f"(it is on {kind}, which may be a network file system; if it is not, set CHEST_JOURNAL_LOCAL to true)"
        in caplog.text
    )


@pytest.mark.parametrize("kind", ["fuseblk", "fuse.fuse-overlayfs", "fuse.ntfs-3g", "overlay", "xfs", "fusectl"])
def test_file_system_that_is_known_to_be_local_is_used(mounts: Path, tmp_path: Path, kind: str) -> None:
    mounts.write_text(f"x {tmp_path} {kind} rw 0 0\n")
    assert isinstance(opened(tmp_path / "journal"), FileJournal)


def test_who_knows_the_disk_overrides_what_the_kernel_calls_it(
    mounts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mounts.write_text(f"x {tmp_path}/fast fuse.rclone rw 0 0\ny {tmp_path}/slow ext4 rw 0 0\n")
    assert isinstance(opened(tmp_path / "fast" / "journal", local=True), FileJournal)
    assert isinstance(opened(tmp_path / "slow" / "journal", local=False), MemoryJournal)
    assert "(it is not on a local disk, as CHEST_JOURNAL_LOCAL says)" in caplog.text


def test_folder_beside_a_network_file_system_is_used(mounts: Path, tmp_path: Path) -> None:
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path}/journ nfs rw 0 0\n")
    assert isinstance(opened(tmp_path / "journal"), FileJournal)


def test_longest_mount_point_counts(mounts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "local" / "journal"
    mounts.write_text(
        f"/dev/sda {tmp_path}/local ext4 rw 0 0\nserver:/x {tmp_path} nfs rw 0 0\n/dev/sdb / ext4 rw\n"
    )
    assert isinstance(opened(folder), FileJournal)
    mounts.write_text(f"server:/x {tmp_path}/local nfs rw 0 0\n/dev/sda {tmp_path} ext4 rw 0 0\n")
    assert isinstance(opened(folder), MemoryJournal)


def test_folder_that_is_the_mount_point_is_on_it(mounts: Path, tmp_path: Path) -> None:
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path} nfs rw 0 0\n")
    assert isinstance(opened(tmp_path), MemoryJournal)


@pytest.mark.parametrize(("kinds", "journal"), [(("nfs", "ext4"), FileJournal), (("ext4", "nfs"), MemoryJournal)])
def test_later_mount_hides_the_former_at_the_same_place(
    mounts: Path, tmp_path: Path, kinds: tuple[str, str], journal: type[Journal]
) -> None:
    mounts.write_text("".join(f"x {tmp_path} {kind} rw 0 0\n" for kind in kinds))
    assert isinstance(opened(tmp_path / "journal"), journal)


def test_blanks_and_backslashes_in_a_mount_point_are_unescaped(mounts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my\tnet\\040 share"
    escaped = str(folder).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {escaped} nfs rw 0 0\n")
    assert isinstance(opened(folder / "journal"), MemoryJournal)


def test_mount_point_that_is_no_utf8_harms_nothing(mounts: Path, tmp_path: Path) -> None:
    mounts.write_bytes(b"server:/x /mnt/\xff\xfe nfs rw 0 0\n\n")
    assert isinstance(opened(tmp_path / "journal"), FileJournal)


def test_kernel_that_tells_no_mounts_is_trusted(mounts: Path, tmp_path: Path) -> None:
    assert isinstance(opened(tmp_path / "journal"), FileJournal)


def test_link_to_a_network_file_system_is_followed(mounts: Path, tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "net")
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path}/net nfs rw 0 0\n")
    assert isinstance(opened(tmp_path / "link" / "journal"), MemoryJournal)


def test_folder_is_named_by_chest_and_store_and_never_by_an_address(tmp_path: Path) -> None:
    one = journal_folder(tmp_path, chest="flask_chest", address="postgresql:db/shop")
    other = journal_folder(tmp_path, chest="flask_chest", address="postgresql:db/test")
    assert one.parent == other.parent == tmp_path
    assert one != other
    assert one.name == f"flask_chest-{digest('postgresql:db/shop')[:12]}"
    assert "postgresql" not in one.name


def test_address_with_bytes_that_are_no_text_has_a_digest() -> None:
    assert len(digest("sqlite:/srv/\udcff")) == 32
