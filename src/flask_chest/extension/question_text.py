"""A question about records as text: what the command line takes, and the viewer's addresses."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from flask_chest._clocks import nanoseconds
from flask_chest.background.retention import parse_span
from flask_chest.errors import ConfigurationError
from flask_chest.extension.conditions import Asked, written
from flask_chest.record import Condition, JSONValue, OneOf, same_value


def span(text: str) -> timedelta:
    """Read a span of time, as ``90s``, ``15m``, ``2h``, ``30d`` or ``4w``."""
    found = parse_span(text)
    if found is None:
        raise ConfigurationError(f"{text!r} is not a span of time, or too long; write 90s, 15m, 2h, 30d or 4w")
    return found


def parse_time(text: str) -> int:
    """Return a time in nanoseconds since 1970: ISO 8601, UTC if it says no zone, or how long ago, ``2h``."""
    if re.fullmatch(r"\d+[smhdw]", text):
        return time.time_ns() - nanoseconds(span(text))
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is not a time; write 2026-11-23, 2026-11-23T12:00:00+01:00, or 2h for two hours ago"
        ) from None
    return nanoseconds(read.replace(tzinfo=read.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC))


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
