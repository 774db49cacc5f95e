"""A question about records as text: what the command line takes, and the viewer's addresses."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from datetime import time as clock_time
from typing import NamedTuple

from flask_chest._clocks import nanoseconds
from flask_chest.background.retention import parse_span
from flask_chest.errors import ConfigurationError
from flask_chest.extension.conditions import Asked, written
from flask_chest.record import Condition, JSONValue, OneOf, same_value

_PART = re.compile(r"\d+[smhdw]", re.ASCII)
_SPAN = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_DAYS_AGO = {"today": 0, "yesterday": 1}


def span(text: str) -> timedelta:
    """Read a span of time, as ``90s``, ``15m``, ``2h``, ``30d``, ``4w`` or, put together, ``1d12h``."""
    if _SPAN.fullmatch(text):
        parts = [parse_span(part) for part in _PART.findall(text)]
        with suppress(OverflowError):
            if None not in parts:
                return sum(filter(None, parts), timedelta(0))
    raise ConfigurationError(f"{text!r} is not a span of time, or too long; write 90s, 15m, 2h, 30d, 4w or 1d12h")


def span_text(length: timedelta) -> str:
    """Write a span of time as `span` reads it, but for a part of a second: ``90m`` is ``1h30m``."""
    words: list[str] = []
    for seconds, unit in _UNITS:
        count, length = divmod(length, timedelta(seconds=seconds))
        words += [f"{count}{unit}"] if count else []
    return "".join(words) or "0s"


def parse_zone(text: str) -> tzinfo:
    """Read the name of a time zone, as ``Europe/Berlin`` or ``UTC``."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415 - it reads files as it is imported

    try:
        return UTC if text.upper() == "UTC" else ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(
            f"{text!r} is not a time zone that this machine knows; write a name, as Europe/Berlin or UTC "
            "(without a database of zones, install the package tzdata)"
        ) from None


def parse_time(text: str, zone: tzinfo = UTC) -> int:
    """Return a time in nanoseconds since 1970.

    It is ISO 8601, in *zone* if it says none; ``today`` or ``yesterday``, which is the midnight there with which
    it begins; or how long ago, as ``2h`` or ``1d12h``.
    """
    if _SPAN.fullmatch(text):
        return time.time_ns() - nanoseconds(span(text))
    try:
        if (days := _DAYS_AGO.get(text)) is not None:
            read = datetime.combine(datetime.now(zone).date() - timedelta(days=days), clock_time(), zone)
        else:
            read = datetime.fromisoformat(text)
            read = read.replace(tzinfo=read.tzinfo or zone)
        return nanoseconds(read.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC))
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{text!r} is not a time; write 2026-11-23, '2026-11-23 14:00', 2026-11-23T12:00:00+01:00, "
            "yesterday, or 2h for two hours ago"
        ) from None


class Status(NamedTuple):
    """A status code, or the first digit of several."""

    code: int | None = None
    digit: int | None = None


def parse_status(text: str) -> Status:
    """Read a status code, ``404``, or a class of them, ``5xx``."""
    if re.fullmatch(r"[1-9]xx", text, re.IGNORECASE):
        return Status(digit=int(text[0]))
    if re.fullmatch(r"\d{1,5}", text, re.ASCII):
        return Status(code=int(text))
    raise ConfigurationError(f"{text!r} is not a status; write a code, as 404, or a class of them, as 5xx")


def told_apart(
    where: Iterable[tuple[str, Asked]],
) -> tuple[dict[str, JSONValue], tuple[tuple[str, Condition], ...]]:
    """Return the values that variables are asked for, and the conditions; raise `ConfigurationError`."""
    values: dict[str, JSONValue] = {}
    conditions: list[tuple[str, Condition]] = []
    for name, asked in where:
        if isinstance(asked, Condition):
            conditions.append((name, asked))
        elif same_value(values.setdefault(name, asked), asked):
            continue
        else:
            one, other = written(name, values[name]), written(name, asked)
            either = written(name, OneOf((values[name], asked)))
            raise ConfigurationError(f"{one} and {other} cannot both hold; for either, ask '{either}'")
    return values, tuple(conditions)
