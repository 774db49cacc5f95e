"""A `Query` as SQL: it narrows what `Query.matches` then decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import LiteralString

from msgspec.structs import replace

from flask_chest.errors import RecordRefused, SchemaError
from flask_chest.protocols import Columns
from flask_chest.record import COLUMN_FILTERS, SERVER_ERROR, Query, Record
from flask_chest.stores._records import MAX_INTEGER, MIN_INTEGER, bindable
from flask_chest.stores._time_limit import TimeBudget
from flask_chest.stores.sql.as_written import AsWritten
from flask_chest.stores.sql.narrowing import asked_of, narrowing
from flask_chest.stores.sql.pool import SnapshotLost
from flask_chest.stores.sql.tables import COLUMNS, Condition, Database, SQLValue, Tables, row_record
from flask_chest.stores.sql.written import joined

USUAL_STATUS = 200
"""Status of nearly all records: an index leaves it out where it can, as the newest of them are found by time."""
NOT_USUAL: LiteralString = "status_code <> 200"
"""Condition of that index, which a statement must repeat for the database to see that it holds the answer."""
IS_ERROR: LiteralString = "(error IS NOT NULL OR status_code >= 500)"
"""Condition of the index of the errors, for `Record.is_error`; the number is `SERVER_ERROR`."""

CHUNK = 500
"""Records that are fetched at a time: no statement stays open while the caller looks at them."""

GROWTH = 8
"""How many times larger the next chunk is, where the last was small and not enough."""

MOST_AT_ONCE = 10_000
"""Records that are fetched at a time at most where they are handed out by column."""
BYTES_AT_ONCE = 4 << 20
"""Characters of variables that are fetched at a time then, going by the records before."""

NEWEST = 5_000
"""Records that are looked through by time before all others are in whatever order is fastest."""
RARE = 40
"""How many times what was found among those must be in the others too, or by time they would take longer."""


def find(
    database: Database, tables: Tables, query: Query, *, timeout: timedelta | None = None
) -> Iterator[Record]:
    """Yield what matches *query*, with a session lent for each chunk; all of them take *timeout* at most.

    By time, each record is fetched at random, which takes twice as long as a scan and sorting what that finds;
    but it stops where the limit is reached. Which of them is faster shows among the newest records.
    """
    budget = TimeBudget(timeout)
    try:
        boundary = _boundary(database, tables, query, budget)
    except SnapshotLost:
        boundary = None
    if boundary is None:
        yield from _find(database, tables, query, budget)
        return
    found = 0
    for record in _find(database, tables, replace(query, since_unix_nano=boundary), budget):
        found += 1
        yield record
    left = None if query.limit is None else query.limit - found
    rest = replace(query, until_unix_nano=boundary, limit=left)
    yield from _find(database, tables, rest, budget, scans=found * RARE < (left or CHUNK))


def find_columns(
    database: Database, tables: Tables, query: Query, *, timeout: timedelta | None = None
) -> Iterator[Columns]:
    """Yield the columns of what matches *query*, which asks for time alone; see `find` and `ColumnReader`."""
    budget = TimeBudget(timeout)
    # No record began after the greatest time that can be bound.
    left = 0 if query.since_unix_nano is not None and query.since_unix_nano > MAX_INTEGER else query.limit
    before: Record | None = None
    size = CHUNK
    while left is None or left > 0:
        size = size if left is None else min(left, size)
        try:
            with budget.working() as time_left, database.answering(timeout=time_left) as session:
                found = session.columns(*chunk(tables, query, before=before, size=size))
        except SnapshotLost:
            continue
        if not found:
            return
        columns = dict(zip(COLUMNS, found, strict=True))
        # SQLite and MySQL keep it as an integer.
        columns["trace_remote"] = list(map(_BOOLEANS.__getitem__, columns["trace_remote"]))
        yield columns
        count = len(found[0])
        if count < size:
            return
        before = row_record([column[-1] for column in found])
        left = None if left is None else left - count
        length = sum(map(len, columns["variables"])) // count + 1
        size = min(max(BYTES_AT_ONCE // length, CHUNK), MOST_AT_ONCE)


_BOOLEANS = {None: None, 0: False, 1: True}


def _boundary(database: Database, tables: Tables, query: Query, budget: TimeBudget) -> int | None:
    """Return the time of the last of the newest records, where all must be looked at and are more than those."""
    narrows_otherwise = next(column_conditions(query), None) is not None
    if not tables.dialect.scan or not query.asks_for_variables or narrows_otherwise:
        return None
    with budget.working() as left, database.answering(timeout=left) as session:
        variables = tables.dialect.variables(session, tables)
        found = [variables(name) for name, _ in asked_of(query)]
        narrowing_ones = [variable for variable in found if variable is not None]
        if not narrowing_ones or not all(isinstance(variable, AsWritten) for variable in narrowing_ones):
            return None  # by an index, or by none of them
        select: LiteralString = (
            "SELECT time_unix_nano FROM {records} ORDER BY time_unix_nano DESC, id DESC LIMIT 1"
        )
        last = session.rows(tables.sql(select + " OFFSET ?"), (NEWEST - 1,))
    return int(last[0][0]) if last else None


def _find(
    database: Database, tables: Tables, query: Query, budget: TimeBudget, *, scans: bool = False
) -> Iterator[Record]:
    left = query.limit
    before: Record | None = None
    narrows = query.asks_for_variables
    size = CHUNK if left is None else min(left, CHUNK)
    while left is None or left > 0:
        try:
            scan = scans and narrows and before is None  # where more is left, it is not rare
            with budget.working() as time_left, database.answering(timeout=time_left) as session:
                variables = tables.dialect.variables(session, tables) if narrows else lambda _: None
                narrowed = narrowing(query, variables)
                statement = chunk(tables, query, narrowed=narrowed, before=before, size=size, scan=scan)
                rows = session.rows(*statement)
        except SnapshotLost:
            continue
        except (SchemaError, RecordRefused):
            # Another process removed the index just now; or the database's encoding lacks a character that is
            # asked for.
            if not narrows:
                raise
            narrows, size = False, CHUNK
            continue
        for row in rows:
            before = row_record(row)
            if query.matches(before):
                yield before
                left = None if left is None else left - 1
                if left == 0:
                    return
        if len(rows) < size:
            return
        size = min(GROWTH * size, CHUNK)  # of so many fewer belong to the answer than were asked for


def chunk(
    tables: Tables,
    query: Query,
    *,
    narrowed: Iterable[Condition] = (),
    before: Record | None,
    size: int,
    scan: bool = False,
) -> tuple[str, tuple[SQLValue, ...]]:
    """Return the SELECT of the next *size* candidates after *before*, in the order of the answer, and its values.

    With *scan* the database uses no index.
    """
    conditions = [*column_conditions(query), *narrowed]
    if before is not None:
        # Not (time, id) < (?, ?), for which MySQL does not use the index.
        time, after = before.time_unix_nano, "time_unix_nano <= ? AND (time_unix_nano < ? OR id < ?)"
        conditions.append((after, (time, time, before.id)))
    select: LiteralString = "SELECT {columns} FROM {records} AS record"
    if scan:
        select += tables.dialect.scan
    where, values = joined(conditions, " AND ")
    order = " ORDER BY time_unix_nano DESC, id DESC LIMIT ?"
    return tables.sql(select + " WHERE " + (where or "true") + order), (*values, size)


def column_conditions(query: Query, *, as_ranges: bool = False) -> Iterator[Condition]:
    """Yield the conditions on all but the variables, as far as the database takes their values.

    With *as_ranges* that a column equals a value is said as a range from it to itself.
    """
    for name in COLUMN_FILTERS:
        value = getattr(query, name)
        if value is not None and bindable(value):
            yield (f"{name} >= ? AND {name} <= ?", (value, value)) if as_ranges else (f"{name} = ?", (value,))
    if query.status_code not in (None, USUAL_STATUS):
        yield NOT_USUAL, ()
    if query.status_class is not None:
        bounds = (query.status_class * 100, query.status_class * 100 + 99)
        first, last = (min(max(bound, MIN_INTEGER), MAX_INTEGER) for bound in bounds)
        # The plus keeps SQLite from the index on the status, by which it would sort a whole class for each chunk.
        yield "+status_code BETWEEN ? AND ?", (first, last)
    if query.errors or query.error is not None or query.status_class == SERVER_ERROR // 100:
        yield IS_ERROR, ()
    # Times beyond 64 bits, as the year 9999 is in nanoseconds, cannot be bound.
    since, until = query.since_unix_nano, query.until_unix_nano
    if since is not None:
        yield "time_unix_nano >= ?", (min(max(since, MIN_INTEGER), MAX_INTEGER),)
    if until is not None and until <= MAX_INTEGER:
        yield "time_unix_nano < ?", (max(until, MIN_INTEGER),)
