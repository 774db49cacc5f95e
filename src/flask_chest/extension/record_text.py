"""Records as lines of text, JSON and CSV: what the commands print and the viewer hands out.

Nothing in them is obeyed, neither by a terminal nor by a spreadsheet.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import cast

import msgspec

from flask_chest.errors import REPLACEMENT, ConfigurationError
from flask_chest.record import FIELDS, JSONValue, Record, encode_variables, is_number

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""Characters that a spreadsheet takes for the beginning of a formula."""
_CIRCUMSTANCES = tuple(name for name in FIELDS if name != "variables")
_decode = msgspec.json.Decoder(dict[str, object]).decode
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""C0 without tab and line ends, DEL and C1, in which a terminal's sequences begin."""


def fields_of(record: Record) -> Mapping[str, object]:
    """Return the fields of *record* by name, as JSON shows them."""
    return msgspec.structs.asdict(record) | {"variables": dict(record.variables)}


def json_line(record: Record) -> str:
    """Write *record* as a JSON object in one line."""
    return escaped_json(msgspec.json.encode(fields_of(record)).decode())


def record_of(line: bytes) -> Record:
    """Read the record that `json_line` wrote; raise `ConfigurationError` without a value if there is none."""
    try:
        fields = _decode(line)
    except ValueError:
        raise ConfigurationError("is no JSON object") from None
    if unknown := fields.keys() - set(FIELDS):
        raise ConfigurationError(
            f"has {', '.join(sorted(map(ascii, unknown)))}, which no record of this release has"
        )
    if type(fields.get("sample_rate")) is int:
        fields["sample_rate"] = float(cast("int", fields["sample_rate"]))  # as other programs write 1.0
    if not isinstance(fields.get("variables", {}), dict):
        raise ConfigurationError("has variables that are no JSON object")
    try:
        return cast("Callable[..., Record]", Record)(**fields)
    except TypeError:
        lacking = [field.name for field in msgspec.structs.fields(Record) if field.required]
        raise ConfigurationError(
            f"is no record, as it lacks {', '.join(name for name in lacking if name not in fields)}"
        ) from None


def csv_lines(records: Iterable[Record], columns: Sequence[str] = ()) -> Iterator[str]:
    """Write a line of names, then one for each record; each of the *columns* is a variable of that name."""
    yield csv_line([*_CIRCUMSTANCES, *(columns or ["variables"])])
    for record in records:
        kept: list[JSONValue] = [getattr(record, name) for name in _CIRCUMSTANCES]
        if columns:
            kept += [record.variables.get(name) for name in columns]
        else:
            kept.append(encode_variables(record.variables))
        yield csv_line(kept)


def csv_line(values: Sequence[JSONValue]) -> str:
    """Write a line of CSV, without its end."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(map(_cell, values))  # what ends a line is quoted within one
    return line.getvalue()[:-2]


def _cell(value: JSONValue) -> str | float | None:
    """Make a cell that no spreadsheet calculates: a text that looks like a formula begins with an apostrophe."""
    if value is None or is_number(value):
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
