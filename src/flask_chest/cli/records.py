"""``flask chest show``, ``query`` and ``tail``: the records themselves."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta, tzinfo
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from flask_chest.cli._columns import FILE_FORMATS, FileFormat, write_columns
from flask_chest.cli._files import written_whole
from flask_chest.cli._group import Failure, asking_store, chest_group, the_chests
from flask_chest.cli._options import asking, hints, limited, question, within, zone_option
from flask_chest.cli._output import (
    FORMATS,
    Format,
    header,
    lines,
    say,
    say_data,
    say_styled,
    text_line,
)
from flask_chest.cli._times import format_time
from flask_chest.errors import StoreAbsent
from flask_chest.extension.chest import FlaskChest
from flask_chest.extension.record_text import json_line
from flask_chest.record import Query, Record, encode_variables

TAIL_WINDOW_NANO = 10_000_000_000
"""Age of a request up to which `tail` still shows its record when that is stored."""


@chest_group.command("show")
@click.argument("id_", metavar="ID")
@zone_option
@limited
def show(*, id_: str, zone: tzinfo, timeout: timedelta | None) -> None:
    """Show the record, or those of the request or trace, ID, with a link to the trace if trace_url is set.

    \b
    Example: flask --app shop chest show 0af7651916cd43dd8448eb211c80319c

    Exits with 1 if nothing has that id.
    """  # noqa: D301 - \b is click's mark for lines to keep
    found = 0
    for chest in the_chests():
        asked = (Query(id=id_), Query(request_id=id_), Query(trace_id=id_))
        for record in next(filter(None, (list(answers(chest, each, timeout=timeout)) for each in asked)), ()):
            found += 1
            say(*_record_lines(record, chest.trace_link(record), zone))
    if not found:
        raise Failure(f"No record, request or trace has the id {id_!r}")


@chest_group.command("query")
@asking
@within
@click.option(
    "--limit", type=click.IntRange(min=0), default=100, show_default=True, help="Show at most this many."
)
@click.option("--all", "everything", is_flag=True, help="Show all records, whatever --limit says.")
@click.option(
    "--format",
    "form",
    type=click.Choice((*FORMATS, *FILE_FORMATS)),
    default="table",
    show_default=True,
    help="Output format; parquet and arrow need -o and the extra arrow.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write into this file, which is replaced when all is written.",
)
@click.option("--column", "columns", multiple=True, help="Variable that gets its own column in CSV. Repeatable.")
@limited
def query(
    *,
    limit: int,
    everything: bool,
    form: Format | FileFormat,
    output: Path | None,
    columns: tuple[str, ...],
    zone: tzinfo,
    timeout: timedelta | None,
    **asked: Any,
) -> None:
    """Print records, newest first; any number of them takes no more memory.

    \b
    Example: flask --app shop chest query --where user_id=7 --since 2h
    Example: flask --app shop chest query --all --format csv --column user_id > records.csv
    Example: flask --app shop chest query --all --since 7d --format parquet -o records.parquet

    Times are nanoseconds since 1970 in jsonl and csv. In CSV a text that a spreadsheet would take for a formula
    begins with an apostrophe.
    """  # noqa: D301
    if columns and form != "csv":
        raise click.UsageError("--column is for --format csv")
    wanted = question(**asked, limit=None if everything else limit)
    chests = the_chests()
    counted = _Counted(record for chest in chests for record in answers(chest, wanted, timeout=timeout))
    match form:
        case "parquet" | "arrow":
            if output is None:
                raise click.UsageError(f"--format {form} needs -o FILE")
            counted.count = write_columns(chests, wanted, output, form, timeout=timeout)
        case _ if output is not None:
            _write(lines(_with_progress(counted, elsewhere=True), form, columns=columns, zone=zone), output)
        case _:
            for line in lines(_with_progress(counted), form, columns=columns, zone=zone):
                say_styled(line) if form == "table" else say_data(line)
    count = counted.count
    if not count and (form == "table" or output is not None):
        say("Nothing found.", *hints(wanted), err=True)
    if count == limit and not _is_given("limit") and not everything:
        say(f"Showing the newest {limit}. Use --limit N for more, or --all.", err=True)


@chest_group.command("tail")
@asking
@click.option(
    "-n", "--lines", "count", type=click.IntRange(min=0), default=10, show_default=True, help="Number of records."
)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new records until interrupted.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.05),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@zone_option
@limited
def tail(
    *, count: int, follow: bool, interval: float, zone: tzinfo, timeout: timedelta | None, **asked: Any
) -> None:
    """Print the last records, oldest first: in colours on a terminal, else as JSON lines.

    \b
    Example: flask --app shop chest tail --follow --errors --where plan=pro
    """  # noqa: D301
    say_record = _for_people(zone) if sys.stdout.isatty() else _say_json
    since = time.time_ns() - TAIL_WINDOW_NANO
    chests = the_chests()
    recent = question(**asked, since=since)
    seen = {
        each.id: each.time_unix_nano
        for chest in chests
        if follow
        for each in answers(chest, recent, timeout=timeout)
    }
    for record in _latest(chests, question(**asked), count=count, timeout=timeout):
        seen[record.id] = record.time_unix_nano
        say_record(record)
    with suppress(KeyboardInterrupt):  # which is how to end it
        while follow:
            wanted = question(**asked, since=since)
            found = [each for chest in chests for each in answers(chest, wanted, timeout=timeout)]
            for record in sorted(found, key=lambda each: each.time_unix_nano):
                if record.id not in seen:
                    seen[record.id] = record.time_unix_nano
                    say_record(record)
            since = time.time_ns() - TAIL_WINDOW_NANO
            seen = {id_: began for id_, began in seen.items() if began >= since}
            time.sleep(interval)


def _say_json(record: Record) -> None:
    say_data(json_line(record))


def _for_people(zone: tzinfo) -> Callable[[Record], None]:
    """Return what prints a record, the first one below a line that says what is what."""
    above = [header]

    def say_record(record: Record) -> None:
        if above:
            say_styled(above.pop()(record, zone))
        say_styled(text_line(record, zone))

    return say_record


def answers(chest: FlaskChest, wanted: Query, *, timeout: timedelta | None) -> Iterator[Record]:
    """Yield what the store of *chest* answers: nothing where there is none yet; exit where it cannot."""
    with suppress(StoreAbsent), asking_store():
        yield from chest._state.here.store.query(wanted, timeout=timeout)


def _latest(
    chests: Iterable[FlaskChest], wanted: Query, *, count: int, timeout: timedelta | None
) -> list[Record]:
    newest = msgspec.structs.replace(wanted, limit=count)
    found = [record for chest in chests for record in answers(chest, newest, timeout=timeout)]
    return sorted(found, key=lambda each: each.time_unix_nano)[-count:] if count else []


@dataclass(slots=True)
class _Counted:
    records: Iterable[Record]
    count: int = 0

    def __iter__(self) -> Iterator[Record]:
        for record in self.records:
            self.count += 1
            yield record


def _is_given(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is not ParameterSource.DEFAULT


def _with_progress(records: Iterable[Record], *, elsewhere: bool = False) -> Iterable[Record]:
    """Show how many went by where somebody watches and the records themselves go *elsewhere*."""
    elsewhere = elsewhere or not sys.stdout.isatty()
    return _watched(records) if elsewhere and sys.stderr.isatty() else records


def _write(found: Iterable[str], output: Path) -> None:
    with written_whole(output) as partial, partial.open("wb") as file:
        for line in found:
            file.write(click.unstyle(line).encode() + b"\n")


def _watched(records: Iterable[Record]) -> Iterator[Record]:
    with click.progressbar(records, label="records", show_pos=True, file=sys.stderr) as bar:
        yield from bar


def _record_lines(record: Record, link: str | None, zone: tzinfo) -> Iterator[str]:
    error = f", {record.error}" if record.error is not None else ""
    yield (
        f"{format_time(record.time_unix_nano, zone)} {record.method} {record.route or '-'} "
        f"{record.status_code}{error}, {record.duration_ns / 1e6:.1f} ms"
    )
    yield f"  request {record.request_id}"
    if record.trace_id is not None:
        yield f"  trace {link or record.trace_id}"
    yield f"  {encode_variables(record.variables)}"
