"""How much a chest keeps: an age, a number of records, bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from flask_chest.errors import ConfigurationError

_SPANS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SIZES = {
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SPAN = re.compile(r"(?P<count>\d+)(?P<unit>[smhdw])")
_ROWS = re.compile(r"(?P<count>\d[\d_]*) ?rows")
_BYTES = re.compile(r"(?P<count>\d+) ?(?P<unit>[KMGT]i?B)", re.IGNORECASE)
_EXAMPLE = 'as "30d", "1_000_000 rows", "2 GB", or several: "30d, 2 GB"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is beyond any of these is too much; ``None`` is no limit."""

    age: timedelta | None = None
    rows: int | None = None
    size: int | None = None
    """Bytes of the records as JSON lines; tables and indexes take more."""

    @classmethod
    def parse(cls, value: object, setting: str) -> Self:
        """Read ``"30d, 1_000_000 rows, 2 GB"``, or a timedelta; raise `ConfigurationError`."""
        if isinstance(value, timedelta):
            return cls._checked(value, setting, age=value)
        if not isinstance(value, str):
            raise ConfigurationError(f"{setting} must be a text, {_EXAMPLE}, got {value!r}")
        found: dict[str, object] = {}
        for part in value.split(","):
            name, limit = _limit(part.strip(), setting)
            if name in found:
                raise ConfigurationError(f"{setting} has two limits of one kind: {value!r}")
            found[name] = limit
        return cls._checked(value, setting, **found)

    @classmethod
    def _checked(cls, value: object, setting: str, **found: object) -> Self:
        limits = cls(**found)  # type: ignore[arg-type]  # of the types that `_limit` gives
        if (limits.age is not None and limits.age <= timedelta(0)) or limits.rows == 0 or limits.size == 0:
            raise ConfigurationError(f"{setting} must leave something, got {value!r}")
        return limits


def parse_span(text: str) -> timedelta | None:
    """Read a span of time, as ``90s``, ``15m``, ``2h``, ``30d`` or ``4w``; ``None`` for anything else."""
    found = _SPAN.fullmatch(text)
    if found is None:
        return None
    try:
        return timedelta(**{_SPANS[found["unit"]]: int(found["count"])})
    except OverflowError:
        return None


def _limit(text: str, setting: str) -> tuple[str, object]:
    if (age := parse_span(text)) is not None:
        return "age", age
    if (rows := _ROWS.fullmatch(text)) is not None:
        return "rows", int(rows["count"])
    if (size := _BYTES.fullmatch(text)) is not None:
        return "size", int(size["count"]) * _SIZES[size["unit"].upper()]
    raise ConfigurationError(f"{setting} must be limits, {_EXAMPLE}, got {text!r}")
