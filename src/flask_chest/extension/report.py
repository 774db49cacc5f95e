"""How a chest is: what its store holds, where its exporters stand, what waits on disk, and what was lost.

It is what ``flask chest status`` and the viewer show. Nothing is created by looking.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import timedelta
from pathlib import Path

import msgspec

from flask_chest.errors import JournalError, StoreAbsent, describe
from flask_chest.extension.chest import FlaskChest
from flask_chest.journal import other_folders, used_bytes
from flask_chest.journal.inspection import SegmentReport, inspect, refused_records
from flask_chest.journal.losses import Losses, losses_in
from flask_chest.journal.other_accounts import why_closed
from flask_chest.protocols import (
    ExporterRegistry,
    ExporterStatus,
    Identified,
    Partitioned,
    PartitionStatus,
    StoreStatus,
)


class OtherAccount(JournalError):
    """The journal belongs to another account, and this one may not look into it."""


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """What processes that are gone have left in a folder, and no process will store by itself."""

    orphaned_in: str
    segments: int
    waiting_records: int
    oldest_unix_nano: int | None
    own_folder: bool
    """Whether it is the folder of the journal, where it was left for a store with other parameters."""


def orphans_of(chest: FlaskChest) -> list[Orphan]:
    """Look for what was left for other addresses of the store of *chest*, and for another store at this one."""
    folder, config = folder_of(chest), chest._state.here.journal_config
    own = {state.here.journal_config.folder for state in chest._states.values()}
    found = [_orphan(other, inspect(other, store=None)) for other in _open(other_folders(config), own)]
    if folder is not None:
        foreign = {segment.segment for segment in segments_of(chest) if segment.of_another_store}
        there = [segment for segment in inspect(folder, store=None) if segment.segment in foreign]
        found.insert(0, _orphan(folder, there, own=True))
    return [orphan for orphan in found if orphan is not None]


class JournalReport(msgspec.Struct, frozen=True, kw_only=True):
    """What lies on disk for the store, of all processes, and what they lost."""

    segments: int
    waiting_records: int
    waiting_bytes: int
    refused: int
    """Records that the store refused for good; they are in the folder's file ``refused``."""
    used_bytes: int
    max_bytes: int
    """Bytes that the folder may hold; what comes when it is full is lost."""
    lost: Mapping[str, int]
    """Records that nobody took, by reason, also of processes that are gone."""
    last_loss_unix_nano: int | None = None

    @property
    def losses(self) -> Losses:
        """What was lost, and when."""
        return Losses(counts=self.lost, last_unix_nano=self.last_loss_unix_nano)


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What there is to say of one chest: its store and exporters, or why they cannot be seen."""

    store: StoreStatus | None = None
    partitions: PartitionStatus | None = None
    """Partitions of the table; ``None`` where it has none."""
    exporters: list[ExporterStatus] = []
    not_run: list[str] = []
    """The app's exporters that the store does not know yet."""
    journal: JournalReport | None = None
    orphans: list[Orphan] = []
    journal_error: str | None = None
    """Reason for which the journal cannot be looked at."""
    absent: str | None = None
    error: str | None = None


def report_of(chest: FlaskChest, *, counts: bool = True, timeout: timedelta | None = None) -> Report:
    """Ask the store of *chest*, which it does not create; without *counts*, not for how much it holds.

    It is given up to ask where the exporters stand when *timeout* is over.
    """
    report = _store_report(
        chest, counts=counts, timeout=timeout
    )  # which tells the store's id, should the segments have another
    journal, orphans, journal_error = None, list[Orphan](), None
    try:
        journal, orphans = _journal_report(chest), orphans_of(chest)
    except OtherAccount as exc:
        journal_error = str(exc)
    except (OSError, JournalError) as exc:  # a damaged disk, or a link that leads nowhere
        journal_error = f"the journal cannot be looked at: {exc}"
    return msgspec.structs.replace(report, journal=journal, orphans=orphans, journal_error=journal_error)


def _store_report(chest: FlaskChest, *, counts: bool, timeout: timedelta | None) -> Report:
    try:
        store = chest._state.here.store
        found = store.status() if counts else None
        parted = store.partitions() if counts and isinstance(store, Partitioned) else None
        exporters = list(store.exporters(timeout=timeout)) if isinstance(store, ExporterRegistry) else []
        not_run = sorted(set(chest.exporter_names) - {exporter.name for exporter in exporters})
    except StoreAbsent as exc:
        return Report(absent=str(exc))
    except Exception as exc:  # noqa: BLE001 - a third-party store may raise anything, and its text may hold a secret
        return Report(error=describe(exc))
    partitions = parted if parted is not None and parted.by is not None else None
    return Report(store=found, partitions=partitions, exporters=exporters, not_run=not_run)


def _journal_report(chest: FlaskChest) -> JournalReport | None:
    """Look at the folder; ``None`` where there is nothing to tell of one."""
    folder = folder_of(chest)
    if folder is None:
        return None
    segments, refused, losses = segments_of(chest), refused_records(folder), losses_in(folder)
    if not segments and not refused and not losses.total:
        return None
    return JournalReport(
        segments=len(segments),
        waiting_records=sum(segment.waiting_records for segment in segments),
        waiting_bytes=sum(segment.waiting_bytes for segment in segments),
        refused=refused,
        used_bytes=used_bytes(folder),
        max_bytes=chest._state.settings.journal_bytes,
        lost=losses.counts,
        last_loss_unix_nano=losses.last_unix_nano,
    )


def _orphan(folder: Path, segments: list[SegmentReport], *, own: bool = False) -> Orphan | None:
    left = [segment for segment in segments if segment.owner == "gone" and segment.waiting_bytes]
    times = [segment.oldest_unix_nano for segment in left if segment.oldest_unix_nano is not None]
    if not left:
        return None
    return Orphan(
        orphaned_in=str(folder),
        segments=len(left),
        waiting_records=sum(segment.waiting_records for segment in left),
        oldest_unix_nano=min(times, default=None),
        own_folder=own,
    )


def _open(folders: list[Path], but: AbstractSet[Path | None]) -> list[Path]:
    return [folder for folder in folders if folder not in but and why_closed(folder) is None]


def segments_of(chest: FlaskChest) -> list[SegmentReport]:
    """Look at the segments of *chest*; there are none where its journal is in memory."""
    folder = folder_of(chest)
    if folder is None:
        return []
    store = chest._state.here.store
    store_id = store.store_id if isinstance(store, Identified) else None
    return inspect(folder, store=chest._state.here.journal_config.store, store_id=store_id)


def folder_of(chest: FlaskChest) -> Path | None:
    """Find the folder of the journal of *chest*; raise `OtherAccount` where it is closed to this one."""
    folder = chest._state.here.journal_config.folder
    if folder is None:
        return None
    if (why := why_closed(folder)) is not None:
        raise OtherAccount(why)
    return folder if folder.is_dir() else None
