"""Records that match a `Query`, in chunks."""
# ruff: noqa: S608 - all that comes from outside is a literal

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from flask_chest.record import Query, Record
from flask_chest.stores._time_limit import TimeBudget, TimeLimit
from flask_chest.stores.clickhouse.client import Database
from flask_chest.stores.clickhouse.columns import AS_JSON
from flask_chest.stores.clickhouse.conditions import NO_COLUMNS, Asked, conditions_of
from flask_chest.stores.clickhouse.rows import COLUMNS, record_of
from flask_chest.stores.clickhouse.text import listed

CHUNK = 500
"""Records that are fetched first."""
LARGEST_CHUNK = 8_000
GROWTH = 4
"""How many times larger the next chunk is."""

_COLUMNS = ", ".join(COLUMNS)


def find(database: Database, query: Query, *, timeout: timedelta | None = None) -> Iterator[Record]:
    """Yield what matches *query*, the newest first; no statement is open while the caller looks at it.

    All statements together take *timeout* at most.
    """
    left = query.limit
    if left is not None and left <= 0:
        return
    budget = TimeBudget(timeout)
    columns = database.columns_of(AS_JSON) if query.asks_for_variables else NO_COLUMNS
    asked = conditions_of(query, columns)
    decides = all(each.decides for each in asked)
    size = CHUNK if left is None or not decides else min(left, CHUNK)
    end: int | None = None
    while True:
        with budget.working() as time_left:
            boundary, records = _chunk(database, asked, end=end, size=size, limit=TimeLimit(time_left))
        for record in records:
            if decides or query.matches(record):
                yield record
                left = None if left is None else left - 1
                if left == 0:
                    return
        if boundary is None:
            return
        end, size = boundary, min(GROWTH * size, LARGEST_CHUNK)


def _chunk(
    database: Database, asked: Sequence[Asked], *, end: int | None, size: int, limit: TimeLimit
) -> tuple[int | None, list[Record]]:
    """Fetch the newest records before *end*, at least *size*; return the time of the last, if more may follow.

    ClickHouse reads the newest rows and stops, as long as it need not tell which of them are the same record. So
    that is asked first, and what is one record is told among the rows of these times alone.
    """
    conditions = [f"time_unix_nano >= {database.cut_off}", *(each.sql for each in asked)]
    if end is not None:
        conditions.append(f"time_unix_nano < {end}")
    where = " AND ".join(conditions)
    times = database.rows(
        f"SELECT time_unix_nano FROM {database.records} WHERE {where} ORDER BY time_unix_nano DESC LIMIT {size}",
        limit=limit,
    )
    if not times:
        return None, []
    of_these = listed(sorted({int(time) for (time,) in times}))
    rows = database.rows(
        f"SELECT {_COLUMNS} FROM {database.records} FINAL WHERE {where} AND time_unix_nano IN ({of_these})"
        " ORDER BY time_unix_nano DESC, id DESC",
        limit=limit,
    )
    return None if len(times) < size else int(times[-1][0]), [record_of(row) for row in rows]
