"""What may be wrong with the journal of a chest, and with who looks at it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from flask_chest.cli._options import zone_said
from flask_chest.cli._output import amount
from flask_chest.cli._times import format_time
from flask_chest.cli.doctor._clocks import NEWS_NANO
from flask_chest.cli.journal import complaints, orphan_line
from flask_chest.cli.status import losses_line
from flask_chest.extension.chest import FlaskChest
from flask_chest.extension.report import folder_of, orphans_of, segments_of
from flask_chest.journal import obstacle, used_bytes
from flask_chest.journal.inspection import SegmentReport
from flask_chest.journal.losses import losses_in
from flask_chest.journal.other_accounts import why_closed

FULL = 0.9
"""Share of CHEST_JOURNAL_BYTES from which a journal counts as full."""
OVERDUE_NANO = 60 * 1_000_000_000
"""Time in a journal after which the store takes nothing, or nobody asks it to."""
_WHY_WAITING = {
    ("stores", "followed"): "the store does not take them, or too slowly. The app's log says why.",
    ("gone",): "their process is gone, and no other runs. Start the app, or run flask chest journal replay.",
}


def other_account(chest: FlaskChest) -> str | None:
    """Return why this account may not look into the journal of *chest*, or ``None``."""
    folder = chest._state.here.journal_config.folder
    return None if folder is None else why_closed(folder)


def run_by_another_account(chest: FlaskChest) -> Iterator[str]:
    """Yield as whom to run, where this account sees nothing of the app."""
    if (why := other_account(chest)) is not None:
        yield why


def journal_amiss(chest: FlaskChest) -> Iterator[str]:
    folder = chest._state.here.journal_config.folder
    if folder is None:
        if chest._state.settings.writer == "off":
            yield (
                "CHEST_WRITER is off, and the journal is in memory, where no other process finds it: nothing "
                "is stored. Set CHEST_JOURNAL_DIR to a folder, or CHEST_WRITER to thread."
            )
        return
    if other_account(chest) is not None:
        return
    if (why := obstacle(folder, local=chest._state.settings.journal_local)) is not None:
        yield (
            f"No journal can be kept in {folder} ({why}), so records wait in memory, and are lost with their "
            "process: set CHEST_JOURNAL_DIR to a folder on a local disk that the app may write."
        )
        return
    segments = segments_of(chest)
    for segment in segments:
        yield from complaints(segment)
    yield from (f"{orphan_line(orphan)}." for orphan in orphans_of(chest))
    yield from _waiting_long(segments)
    yield from _lossy(chest)
    left = sum(segment.waiting_records for segment in segments if segment.owner == "leaves")
    if left:
        yield (
            f"{amount(left)} waiting in the journals of processes that leave it to others to store them, "
            "but no worker runs: start flask chest worker."
        )


def _lossy(chest: FlaskChest) -> Iterator[str]:
    if (folder := folder_of(chest)) is None:
        return
    used, bound = used_bytes(folder), chest._state.settings.journal_bytes
    if used > FULL * bound:
        yield (
            f"The journal holds {used / 1024:,.0f} of its {bound / 1024:,.0f} KiB, and new records are lost when "
            "it is full: the store takes too little. The app's log says why; else raise CHEST_JOURNAL_BYTES."
        )
    losses = losses_in(folder)
    if losses.recent(within_ns=NEWS_NANO):
        yield f"Records were {losses_line(losses, zone_said())}. The app's log says more."


def _waiting_long(segments: Sequence[SegmentReport]) -> Iterator[str]:
    for owners, why in _WHY_WAITING.items():
        late = [
            segment
            for segment in segments
            if segment.owner in owners
            and segment.oldest_unix_nano is not None
            and time.time_ns() - segment.oldest_unix_nano > OVERDUE_NANO
        ]
        if late:
            since = min(segment.oldest_unix_nano or 0 for segment in late)
            count = sum(each.waiting_records for each in late)
            yield f"{amount(count)} waiting since {format_time(since, zone_said())}: {why}"
