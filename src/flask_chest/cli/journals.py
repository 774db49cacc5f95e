"""``flask chest journal``: what waits on disk for the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from flask_chest.cli._accounts import why_closed, why_not_to_write
from flask_chest.cli._formats import amount, say, say_json
from flask_chest.cli._group import Failure, chest_group, give_up, the_chests
from flask_chest.extension import FlaskChest
from flask_chest.journal.inspection import SegmentReport, inspect, rejected_records

_OWNERS = {
    "stores": "stored by its process",
    "followed": "stored by another process",
    "leaves": "left by its process to others, and there are none",
    "gone": "its process is gone",
}


@chest_group.group("journal")
def journal() -> None:
    """Look at what waits on disk for the store, or store it now."""


@journal.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, for programs.")
def list_segments(*, as_json: bool) -> None:
    """List the segments of the journals, and what waits in each.

    \b
    Example: flask --app shop chest journal list
    """  # noqa: D301 - \b is click's mark for lines to keep
    for chest in the_chests():
        for segment in segments_of(chest):
            say_json(segment) if as_json else say(_segment_line(segment))


@journal.command("verify")
def verify() -> None:
    """Read all that waits in the journals, and say what is damaged.

    What is damaged is skipped when the rest is stored. Exits with 1 when there is any.

    \b
    Example: flask --app shop chest journal verify
    """  # noqa: D301
    segments = [segment for chest in the_chests() for segment in segments_of(chest)]
    wrong = [line for segment in segments for line in complaints(segment)]
    records = sum(segment.waiting_records for segment in segments)
    say(*wrong, f"{amount(records)} waiting in {amount(len(segments), 'segment')}.")
    if wrong:
        raise SystemExit(1)


@journal.command("replay")
def replay() -> None:
    """Store now what processes have left that are gone, or that leave it to others.

    Every process with a writer, and the worker, does that by itself; this is for a machine on which none runs.

    \b
    Example: flask --app shop chest journal replay
    """  # noqa: D301
    for chest in the_chests():
        check_account(chest)
        try:
            stored = chest.binding().store_left() if segments_of(chest) else 0
        except Exception as exc:  # noqa: BLE001 - an own store may raise anything
            give_up(exc)
        say(f"{amount(stored)} stored.")


def segments_of(chest: FlaskChest) -> list[SegmentReport]:
    """Look at the segments of *chest*; there are none where its journal is in memory."""
    folder = folder_of(chest)
    return [] if folder is None else inspect(folder, store=chest.binding().journals.store_digest)


def refused_by_store(chest: FlaskChest) -> int:
    """Count the records that the store of *chest* refused for good."""
    folder = folder_of(chest)
    return 0 if folder is None else rejected_records(folder)


def check_account(chest: FlaskChest) -> None:
    """Exit where this account should write nothing into the journal of *chest*."""
    folder = chest.binding().journals.folder
    if folder is not None and (why := why_not_to_write(folder)) is not None:
        raise Failure(why)


def folder_of(chest: FlaskChest) -> Path | None:
    """Find the folder of the journal of *chest*; exit where it is another account's, and closed to this one."""
    folder = chest.binding().journals.folder
    if folder is None:
        return None
    if (why := why_closed(folder)) is not None:
        raise Failure(why)
    return folder if folder.is_dir() else None


def _segment_line(segment: SegmentReport) -> str:
    waits = f"{amount(segment.waiting_records)} waiting, {segment.waiting_bytes / 1024:,.0f} KiB"
    said = f"{segment.foreign}, left alone" if segment.foreign else f"{waits}, {_OWNERS[segment.owner]}"
    return f"{segment.segment} {segment.instance or '-'}: {said}"


def complaints(segment: SegmentReport) -> Iterator[str]:
    """Say what is wrong with *segment*."""
    if segment.foreign:
        yield f"{segment.segment} is {segment.foreign}, and left alone."
    if segment.damaged_bytes:
        yield f"{segment.segment} has {segment.damaged_bytes:,} damaged bytes, which will be skipped."
    if segment.unreadable_records:
        yield f"{segment.segment} has {amount(segment.unreadable_records)} that this release cannot read."
