"""What the commands print: for people, as JSON, as CSV."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import click
import msgspec

from flask_chest.errors import REPLACEMENT, printable
from flask_chest.record import FIELDS, JSONValue, Record, encode_variables

Format: TypeAlias = Literal["table", "jsonl", "csv"]
FORMATS: tuple[Format, ...] = ("table", "jsonl", "csv")

_CLIENT_ERROR = 400
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Characters that a spreadsheet takes for the beginning of a formula."""
_CIRCUMSTANCES = tuple(name for name in FIELDS if name != "variables")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""C0 without tab and line ends, DEL and C1, in which a terminal's sequences begin."""


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


def say_json(value: object) -> None:
    """Print *value* as JSON in one line, for programs."""
    say_data(escaped_json(msgspec.json.encode(value).decode()))


def lines(records: Iterable[Record], form: Format, *, columns: Sequence[str] = ()) -> Iterator[str]:
    """Write *records* one by one; in CSV each of the *columns* is a variable of that name."""
    if form == "csv":
        return _csv_lines(records, columns)
    line: Callable[[Record], str] = json_line if form == "jsonl" else text_line
    return map(line, records)


def json_line(record: Record) -> str:
    """Write *record* as a JSON object in one line."""
    fields = msgspec.structs.asdict(record) | {"variables": dict(record.variables)}
    return escaped_json(msgspec.json.encode(fields).decode())


def text_line(record: Record) -> str:
    """Write *record* for people, in colours that click leaves out where the output is no terminal."""
    time = datetime.fromtimestamp(record.time_unix_nano / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
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


def _csv_lines(records: Iterable[Record], columns: Sequence[str]) -> Iterator[str]:
    yield _csv_line([*_CIRCUMSTANCES, *(columns or ["variables"])])
    for record in records:
        kept: list[JSONValue] = [getattr(record, name) for name in _CIRCUMSTANCES]
        if columns:
            kept += [record.variables.get(name) for name in columns]
        else:
            kept.append(encode_variables(record.variables))
        yield _csv_line(kept)


def _csv_line(values: Sequence[JSONValue]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(map(_cell, values))  # what ends a line is quoted within one
    return line.getvalue()[:-2]


def _cell(value: JSONValue) -> str | float | None:
    """Make a cell that no spreadsheet calculates: a text that looks like a formula begins with an apostrophe."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    text = without_controls(value if isinstance(value, str) else msgspec.json.encode(value).decode())
    return f"'{text}" if text.startswith(_FORMULA) else text


def without_controls(text: str) -> str:
    """Return *text* with its tabs and line ends, and a mark in place of every other control character."""
    return _CONTROLS.sub(REPLACEMENT, text)


def escaped_json(text: str) -> str:
    """Return the JSON *text* with escapes in place of whatever a terminal would obey: it means the same."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    units = letter.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
