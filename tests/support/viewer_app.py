"""What the tests of the viewer put into a chest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

from flask_chest import FlaskChest, Indexed, Record, Unit, Variables

MINUTE = 60_000_000_000
NOON = 1_709_208_000_000_000_000
"""2024-02-29 12:00:00 UTC."""

Keep: TypeAlias = Callable[..., Record]
"""Stores a record with these fields, a minute later than the one before, and returns it."""


class Visit(Variables):
    user_id: Annotated[int, Indexed()]
    plan: Literal["free", "pro"] = "free"
    total: Annotated[float, Unit("s")] | None = None


def keeper(chest: FlaskChest) -> Keep:
    """Return what stores records into *chest*."""
    count = 0

    def keep(**fields: object) -> Record:
        nonlocal count
        count += 1
        usual = {
            "id": f"id-{count}",
            "request_id": f"r-{count}",
            "time_unix_nano": NOON + count * MINUTE,
            "duration_ns": 1_500_000,
            "method": "GET",
            "route": "/buy/<item>",
            "endpoint": "buy",
            "status_code": 200,
            "instance": "web-1:4711",
        }
        record = Record(**{**usual, **fields})  # type: ignore[arg-type]  # each test gives what fits
        chest._state.here.open_store().write([record])
        return record

    return keep
