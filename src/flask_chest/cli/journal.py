"""``flask chest journal``: what waits on disk for the store."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from flask_chest.cli._group import Failure, asking_store, chest_group, the_chests
from flask_chest.cli._options import json_option
from flask_chest.cli._output import amount, say, say_json
from flask_chest.extension.chest import FlaskChest
from flask_chest.extension.report import Orphan, orphans_of, segments_of
from flask_chest.journal import obstacle
from flask_chest.journal.inspection import SegmentReport, inspect
from flask_chest.journal.other_accounts import why_not_to_write

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
@json_option
def list_segments(*, as_json: bool) -> None:
    """List the segments of the journals, and what waits in each.

    \b
    Example: flask --app shop chest journal list
    """  # noqa: D301 - \b is click's mark for lines to keep
    for chest in the_chests():
        for segment in segments_of(chest):
            say_json(segment) if as_json else say(_segment_line(segment))
        for orphan in orphans_of(chest):
            say_json(orphan) if as_json else say(orphan_line(orphan))


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
@click.option(
    "--from",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Store what was left in this folder, whichever store it was meant for.",
)
def replay(*, folder: Path | None) -> None:
    """Store now what waits in the journals of processes that are gone, or that leave storing to others.

    Every process with a writer, and the worker, does that by itself; this is for a machine on which none runs.
    With --from it is for records that were left for a store at another address, as before the database moved:
    see journal list.

    \b
    Example: flask --app shop chest journal replay
    """  # noqa: D301
    for chest in the_chests() if folder is None else [_chest_of(folder)]:
        check_account(chest)
        with asking_store():
            stored = chest._state.here.recover(folder) if folder or segments_of(chest) else 0
            say(f"{amount(stored)} stored.")


def orphan_line(orphan: Orphan) -> str:
    """Return a sentence that says where *orphan* is, and how it is stored."""
    why = (
        "for other parameters of the store's address, as its role, or for the store that was there before"
        if orphan.own_folder
        else "the folder of another address of the store, of another CHEST_JOURNAL_DIR or of another app"
    )
    return (
        f"{amount(orphan.waiting_records)} waiting in {orphan.orphaned_in}, {why}: if they belong here, run "
        f"flask chest journal replay --from {shlex.quote(orphan.orphaned_in)}"
    )


def _chest_of(folder: Path) -> FlaskChest:
    """Find the chest whose journal *folder* is; exit where there is none."""
    if (why := why_not_to_write(folder)) is not None:
        raise Failure(why)
    if (why := obstacle(folder, local=True)) is not None:
        raise Failure(f"{folder} is not to be trusted: {why}")
    if not inspect(folder, store=None):
        raise Failure(f"{folder} holds no segment of a journal; flask chest journal list names those that do")
    chests = the_chests()
    named = [chest for chest in chests if folder.absolute().name.rpartition("-")[0] == chest.name]
    if not named and len(chests) > 1:
        raise Failure(f"{folder} has the name of none of the app's chests, so it is not known whose it is")
    return (named or chests)[0]


def check_account(chest: FlaskChest) -> None:
    """Exit where this account should write nothing into the journal of *chest*."""
    folder = chest._state.here.journal_config.folder
    if folder is not None and (why := why_not_to_write(folder)) is not None:
        raise Failure(why)


def _segment_line(segment: SegmentReport) -> str:
    waits = f"{amount(segment.waiting_records)} waiting, {segment.waiting_bytes / 1024:,.0f} KiB"
    said = f"{segment.foreign}, left alone" if segment.foreign else f"{waits}, {_OWNERS[segment.owner]}"
    return f"{segment.segment} {segment.instance or '-'}: {said}"


def complaints(segment: SegmentReport) -> Iterator[str]:
    """Yield what is wrong with *segment*."""
    if segment.foreign and not segment.of_another_store:
        yield f"{segment.segment} is {segment.foreign}, and left alone."
    if segment.damaged_bytes:
        yield f"{segment.segment} has {segment.damaged_bytes:,} damaged bytes, which will be skipped."
    if segment.unreadable_records:
        yield f"{segment.segment} has {amount(segment.unreadable_records)} that this release cannot read."
