"""What may be wrong with the partitions of a chest's table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

from flask_chest._clocks import nanoseconds
from flask_chest.cli._options import zone_said
from flask_chest.cli._times import format_time
from flask_chest.cli.migrate import SOON_NANO
from flask_chest.extension.chest import FlaskChest
from flask_chest.protocols import Partitioned, PartitionStatus
from flask_chest.record import Query

_DAY_NANO = nanoseconds(timedelta(days=1))


def no_partition_ahead(chest: FlaskChest) -> Iterator[str]:
    """Yield that nobody makes partitions, though somebody writes."""
    found, now = _partitions(chest), time.time_ns()
    if found is None or found.until_unix_nano is None or not found.ends_before(now + SOON_NANO):
        return
    lively = Query(since_unix_nano=now - _DAY_NANO, until_unix_nano=now + _DAY_NANO, limit=1)
    with suppress(Exception):  # what a store raises is said elsewhere
        if any(chest._state.here.store.query(lively)):
            yield (
                f"Partitions end at {format_time(found.until_unix_nano, zone_said())}, though writers make them "
                "a week ahead: their log says why not. Run flask chest migrate by an app whose role may make "
                "them, each day if no writer may; flask chest migrate --sql prints the statements."
            )


def other_partitions(chest: FlaskChest) -> Iterator[str]:
    """Yield that the table is not as the setting says."""
    found = _partitions(chest)
    if found is None or found.by == found.wanted:
        return
    there = "has no partitions" if found.by is None else f"has a partition for each {found.by}"
    asked = "is not set" if found.wanted is None else f"is {found.wanted!r}"
    yield (
        f"partition {asked}, but the table of {chest._state.here.store!r} {there}, and goes on so: the setting "
        "is for a new table alone. docs/partitions.md says how records get into one."
    )


def _partitions(chest: FlaskChest) -> PartitionStatus | None:
    store = chest._state.here.store
    with suppress(Exception):  # what a store raises is said elsewhere
        if isinstance(store, Partitioned):
            return store.partitions()
    return None
