"""``flask chest dump``: all records in files, one for each day."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from datetime import date, timedelta, tzinfo
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import cast

import click

from flask_chest.cli._columns import Counted, column_answers
from flask_chest.cli._files import PARTIAL, alone_in, put
from flask_chest.cli._group import Failure, chest_group, the_chest
from flask_chest.cli._options import check_span, chest_option, within
from flask_chest.cli._output import amount, say
from flask_chest.extension.chest import FlaskChest
from flask_chest.protocols import Columns
from flask_chest.record import Query

_DAY_NANO = 86_400 * 10**9
_DIGITS = 16
"""Digits of a digest in the name of a file."""


@chest_group.command("dump")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@within
@chest_option
def dump(*, folder: Path, since: int | None, until: int | None, zone: tzinfo, name: str | None) -> None:  # noqa: ARG001 - times are read in the zone
    """Write records into DIR: a file of Parquet for each day of UTC, which load reads back.

    Files are never changed: of a day that has one already, only the records that it lacks are written, into
    another one. So the same command adds what is new, goes on where it was interrupted, and takes nothing away
    that retention has deleted meanwhile. Needs the extra arrow.

    \b
    Example: flask --app shop chest dump /var/archive --until today
    """  # noqa: D301 - \b is click's mark for lines to keep
    check_span(since, until)
    wanted = Query(since_unix_nano=since, until_unix_nano=until, limit=None)
    chest = the_chest(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone_in(folder):
            for left in folder.glob(f".*{PARTIAL}"):  # by what was killed
                left.unlink()
            found, written = _dump(chest, wanted, folder)
    except OSError as exc:
        raise Failure(f"{folder} cannot be written: {exc.strerror or type(exc).__name__}") from exc
    say(f"{amount(found)} looked at, {amount(written)} written into {folder}.")


def _dump(chest: FlaskChest, wanted: Query, folder: Path) -> tuple[int, int]:
    """Return how many records there are, and how many of them were written."""
    counted = Counted(column_answers(chest, wanted, timeout=None))
    days = groupby(_by_day(counted), key=itemgetter(0))
    written = sum(_dump_day(chest, folder, day, map(itemgetter(1), chunks)) for day, chunks in days)
    return counted.count, written


def _by_day(chunks: Iterable[Columns]) -> Iterator[tuple[date, Columns]]:
    """Yield *chunks*, which come newest first, cut at midnight, each with its day."""
    for chunk in chunks:
        times = cast("list[int]", chunk["time_unix_nano"])
        first = 0
        while first < len(times):
            day = times[first] // _DAY_NANO
            end = bisect_right(times, -day * _DAY_NANO, lo=first, key=lambda time: -time)
            yield (
                date(1970, 1, 1) + timedelta(days=day),
                {name: values[first:end] for name, values in chunk.items()},
            )
            first = end


def _dump_day(chest: FlaskChest, folder: Path, day: date, chunks: Iterable[Columns]) -> int:
    from flask_chest.extension import arrow  # noqa: PLC0415 - an extra

    kinds = arrow.kinds_of(chest._state.derived().views)
    there = arrow.ids_in(sorted(folder.glob(f"{day}-*.parquet")))
    batches = arrow.without(arrow.batches(chunks, kinds), there)
    if (first := next(batches, None)) is None:
        return 0
    partial = folder / f".{day}{PARTIAL}"
    count = arrow.write_parquet(partial, chain([first], batches), kinds)
    with partial.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    put(partial, folder / f"{day}-{digest[:_DIGITS]}.parquet")
    return count
