"""What the commands print: for people, as JSON, as CSV."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, tzinfo
from typing import Literal, TypeAlias

import click
import msgspec

from flask_chest.cli._times import format_moment, heading
from flask_chest.errors import printable
from flask_chest.extension.record_text import csv_lines, escaped_json, json_line
from flask_chest.record import Record, encode_variables

Format: TypeAlias = Literal["table", "jsonl", "csv"]
FORMATS: tuple[Format, ...] = ("table", "jsonl", "csv")

_CLIENT_ERROR = 400


def say(*lines: str, err: bool = False) -> None:
    """Print *lines* for people: what a terminal would obey, and what the stream's encoding lacks, is replaced."""
    for line in lines:
        say_styled(printable(line), err=err)


def say_styled(line: str, *, err: bool = False) -> None:
    """Print a *line* with click's colours, whose foreign parts went through `printable` one by one."""
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    click.echo(line.encode(encoding, "replace").decode(encoding), err=err)


def say_data(line: str) -> None:
    """Print a *line* for programs, in UTF-8 whatever the locale says."""
    click.echo(line.encode())


def say_progress(text: str) -> None:
    """Show *text* in place of what was shown last, where somebody watches."""
    if sys.stderr.isatty():
        click.echo(f"\r{printable(text)} … ", err=True, nl=False)


def say_json(value: object) -> None:
    """Print *value* as JSON in one line, for programs."""
    say_data(escaped_json(msgspec.json.encode(value).decode()))


def lines(
    records: Iterable[Record], form: Format, *, columns: Sequence[str] = (), zone: tzinfo = UTC
) -> Iterator[str]:
    """Write *records* one by one; in CSV each of the *columns* is a variable of that name."""
    if form == "table":
        return text_lines(records, zone)
    return csv_lines(records, columns) if form == "csv" else map(json_line, records)


def text_lines(records: Iterable[Record], zone: tzinfo) -> Iterator[str]:
    """Write *records* for people, with times in *zone* below a line that says so, if there are any."""
    for number, record in enumerate(records):
        if number == 0:
            yield header(record, zone)
        yield text_line(record, zone)


def header(record: Record, zone: tzinfo) -> str:
    """Return what stands above *record* and others."""
    width = len(format_moment(record.time_unix_nano, zone))
    return f"{heading(zone):{width}} method status duration  route  request id  variables"


def text_line(record: Record, zone: tzinfo) -> str:
    """Write *record* for people, in colours that click leaves out where the output is no terminal."""
    time = format_moment(record.time_unix_nano, zone)
    colour = "red" if record.is_error else "yellow" if record.status_code >= _CLIENT_ERROR else "green"
    error = f" {click.style(printable(record.error), fg='red')}" if record.error is not None else ""
    status = click.style(str(record.status_code), fg=colour)
    return (
        f"{click.style(time, dim=True)} {printable(record.method):6} {status} "
        f"{record.duration_ns / 1e6:8.1f} ms  {printable(record.route or '-')}{error}  "
        f"{click.style(printable(record.request_id), dim=True)}  {printable(encode_variables(record.variables))}"
    )


def amount(count: int, noun: str = "record") -> str:
    """Write how many there are of something."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
