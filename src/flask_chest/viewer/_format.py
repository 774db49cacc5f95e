"""How values are written for people: durations, amounts, sizes, times, and text that nothing obeys."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import pairwise

import msgspec

from flask_chest.errors import printable
from flask_chest.extension.record_text import escaped_json
from flask_chest.record import JSONValue

_SECOND = 1_000_000_000
_UNITS = ((1, "ns"), (1_000, "µs"), (1_000_000, "ms"), (_SECOND, "s"))
_LONG_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def duration(nanoseconds: float) -> str:
    """Write a duration in the unit that fits, with three digits: ``812 µs``, ``1.20 ms``, ``2 min 5 s``."""
    if nanoseconds >= 60 * _SECOND:
        return span(nanoseconds)
    unit_size, unit = next((each for each in reversed(_UNITS) if nanoseconds >= 0.9995 * each[0]), _UNITS[0])
    return f"{nanoseconds:.0f} ns" if unit == "ns" else f"{_three_digits(nanoseconds / unit_size)} {unit}"


def span(nanoseconds: float) -> str:
    """Write a long time by its two largest units: ``2 min 5 s``, ``3 d 4 h``."""
    seconds = round(nanoseconds / _SECOND)
    for (large, unit), (small, next_unit) in pairwise(_LONG_UNITS):
        if seconds >= large:
            rest = seconds % large // small
            return f"{seconds // large:,} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{seconds} s"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"  # noqa: PLR2004


def number(value: float) -> str:
    """Write a number with separators; a float with at most four digits that say something."""
    if isinstance(value, int):
        return f"{value:,}"
    if value == int(value) and abs(value) < 1e15:  # noqa: PLR2004
        return f"{value:,.0f}"
    return f"{value:,.4g}" if abs(value) < 1_000 else f"{value:,.1f}"  # noqa: PLR2004


def percent(share: float) -> str:
    """Write a share of 1 as a percentage; a little is never written as nothing."""
    value = share * 100
    if 0 < value < 0.005:  # noqa: PLR2004
        return "<0.01 %" if value > 1e-9 else "0 %"  # noqa: PLR2004
    digits = 0 if value == 0 or value >= 99.95 else 2 if value < 9.995 else 1  # noqa: PLR2004
    return f"{value:.{digits}f} %"


def trimmed(text: str) -> str:
    """Return a number with its unit without the zeros that end it: ``3 s`` for ``3.00 s``."""
    return re.sub(r"(\.\d*?)0+(?= |$)", lambda found: found[1].rstrip("."), text)


def size(count: int) -> str:
    """Write a number of bytes."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1_000:  # noqa: PLR2004
            return f"{value:.0f} {unit}" if unit == "B" else f"{_three_digits(value)} {unit}"
        value /= 1_024
    return f"{_three_digits(value)} TiB"


def moment(unix_nano: int) -> datetime | None:
    """Return a time as a datetime in UTC, or ``None`` for one that no calendar has."""
    try:
        return datetime.fromtimestamp(unix_nano / _SECOND, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def time_text(unix_nano: int) -> str:
    """Write a time to the millisecond, with its zone."""
    found = moment(unix_nano)
    if found is None:
        return f"{unix_nano} ns"
    return f"{found:%Y-%m-%d %H:%M:%S}.{unix_nano // 1_000_000 % 1_000:03} UTC"


def minute_text(unix_nano: int) -> str:
    """Write a time to the second, with its zone."""
    found = moment(unix_nano)
    return f"{unix_nano} ns" if found is None else f"{found:%Y-%m-%d %H:%M:%S} UTC"


def iso(unix_nano: int) -> str:
    """Write a time for programs; the fraction has milliseconds."""
    found = moment(unix_nano)
    return "" if found is None else f"{found:%Y-%m-%dT%H:%M:%S}.{unix_nano // 1_000_000 % 1_000:03}Z"


def relative(unix_nano: int, now_unix_nano: int) -> str:
    """Write how long ago a time is, or how far ahead where a clock is."""
    ago = now_unix_nano - unix_nano
    if abs(ago) < _SECOND:
        return "now"
    seconds = round(abs(ago) / _SECOND)
    large, unit = next(each for each in _LONG_UNITS if seconds >= each[0])
    return f"{seconds // large:,} {unit} ago" if ago > 0 else f"in {seconds // large:,} {unit}"


def json_text(value: JSONValue) -> str:
    """Write a value as JSON in one line, with escapes for what does not print."""
    return escaped_json(msgspec.json.encode(value).decode())


def json_block(value: JSONValue) -> str:
    """Write a value as JSON with a line for each member."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    return "\n".join(escaped_json(line) for line in text.split("\n"))


def value_text(value: JSONValue) -> str:
    """Write a value in one line; a text without its quotation marks, if it could be nothing else."""
    if not isinstance(value, str) or not value or value != value.strip() or value[0] in '["{':
        return json_text(value)
    return json_text(value) if value in _WORDS or value[0] in _NUMERIC else printable(value)


_WORDS = frozenset({"true", "false", "null"})
_NUMERIC = frozenset("0123456789-")


def shortened(text: str, length: int = 80) -> str:
    """Return the beginning of a *text* that is longer than *length*, and a mark."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
