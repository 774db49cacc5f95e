"""The counting half of an SQL store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import LiteralString

import msgspec

from flask_chest.protocols import GroupBy, Statistics, Summary, ValueCount, Variable
from flask_chest.record import COLUMN_FILTERS, JSONValue, Query
from flask_chest.stores._records import MAX_INTEGER, bindable
from flask_chest.stores.sql.query import column_conditions, find
from flask_chest.stores.sql.tables import SQLPart, SQLValue
from flask_chest.stores.statistics import Groups, Part, check_group, count, sum_up, whole

_decode = msgspec.json.Decoder().decode

# The limit makes the columns of a SELECT within another once, and not at each use.
_COUNTED: LiteralString = """
    WITH counted AS (
        SELECT value, count(*) AS records, min(seen) AS seen
        FROM (
            SELECT {value} AS value, {seen} AS seen FROM {{records}} AS record WHERE {where}
            LIMIT 9223372036854775807
        ) AS found
        GROUP BY value
    )
"""

# Equal lists and objects may be written differently, and so may zero: these are added up here, however many.
_TOP: LiteralString = """
    SELECT value, records, seen FROM (
        SELECT value, records, seen FROM counted
        WHERE substr(value, 1, 1) NOT IN ('[', '{{') AND value NOT IN ('0.0', '-0.0')
        ORDER BY records DESC, seen LIMIT ?
    ) AS plain
    UNION ALL
    SELECT value, records, seen FROM counted
    WHERE substr(value, 1, 1) IN ('[', '{{') OR value IN ('0.0', '-0.0')
"""

# The numbers in it are LARGE and FRACTION.
_SUMS: LiteralString = """
    SELECT
        category, count(*), min(seen),
        sum(CASE WHEN abs(number) < 1e200 THEN number ELSE 0e0 END),
        sum(CASE WHEN abs(number) < 1e200 THEN 0e0 ELSE number * 4.909093465297727e-91 END),
        min(number), max(number)
    FROM (
        SELECT {number} AS number, category, seen
        FROM (
            SELECT {value} AS value, {category} AS category, {seen} AS seen
            FROM {{records}} AS record WHERE {where} LIMIT 9223372036854775807
        ) AS found
        LIMIT 9223372036854775807
    ) AS numbers
    WHERE number IS NOT NULL{if_grouped}
    GROUP BY category
"""


class SQLStatistics(SQLPart, Statistics):
    """Reads the one variable that is asked for, in each record that the columns leave."""

    def top(self, variable: str, query: Query, /, *, limit: int) -> Sequence[ValueCount]:
        """Return the most frequent values of *variable* in the records that match, at most *limit*."""
        query = whole(query)
        if not _askable(query, variable):
            return count(find(self._database, self._tables, query), variable, limit=limit)
        value, seen = self._tables.dialect.value, self._tables.dialect.seen
        where, asked = _where(query)
        counted = _COUNTED.format(value=value, seen=seen, where=where)
        sql = self._tables.sql(counted + _TOP)
        values = (*self._paths(variable), *asked, min(max(0, limit), MAX_INTEGER))
        groups = Groups()
        with self._database.reading() as session:
            for text, records, first in session.rows(sql, values):
                groups.add(_decode(text), Part(records=int(records), seen=first))
        return groups.counts(limit)

    def summarise(self, variable: str, query: Query, /, *, by: GroupBy | None = None) -> Sequence[Summary]:
        """Sum up the numbers in *variable* of the records that match; the group with the most records first."""
        query = whole(query)
        check_group(by)
        names = (variable, by.name) if isinstance(by, Variable) else (variable,)
        if not _askable(query, *names):
            return sum_up(find(self._database, self._tables, query), variable, by=by)
        dialect = self._tables.dialect
        where, asked = _where(query)
        sums = _SUMS.format(
            value=dialect.value,
            number=dialect.number.format(value="value"),
            seen=dialect.seen,
            category=dialect.value if isinstance(by, Variable) else "NULL" if by is None else "route",
            if_grouped=" AND category IS NOT NULL" if isinstance(by, Variable) else "",
            where=where,
        )
        sql = self._tables.sql(sums)
        values = (*self._paths(*names), *asked)
        groups = Groups()
        with self._database.reading() as session:
            for group, records, first, small, large, minimum, maximum in session.rows(sql, values):
                key: JSONValue = _decode(group) if isinstance(by, Variable) else group
                part = Part(
                    records=int(records), seen=first, small=small, large=large, minimum=minimum, maximum=maximum
                )
                groups.add(key, part)
        return groups.summaries()

    def _paths(self, *names: str) -> Iterator[str]:
        """Yield what is bound for the variables *names*, at each place where one is read."""
        dialect = self._tables.dialect
        for name in names:
            yield from repeat(dialect.path(name), dialect.value.count("?"))


def _askable(query: Query, *names: str) -> bool:
    """Return whether the database can decide all that is asked; variables are compared record by record."""
    filters = (getattr(query, name) for name in COLUMN_FILTERS)
    since = query.since_unix_nano
    return (
        not query.asks_for_variables
        and all(map(bindable, names))
        and all(value is None or bindable(value) for value in filters)
        and (since is None or since <= MAX_INTEGER)
    )


def _where(query: Query) -> tuple[LiteralString, tuple[SQLValue, ...]]:
    conditions = list(column_conditions(query))
    where = " AND ".join(sql for sql, _ in conditions) or "true"
    return where, tuple(value for _, values in conditions for value in values)
