"""The questions by hand on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from benchmarks.by_hand import HOUR, Ask, Found, Question, Span

from flask_chest.aggregates import DURATION_BOUNDS

WEIGHT = "CAST(1000000 / max(sample_rate, 1e-6) + 0.5 AS INTEGER)"
ASKED = "FROM {name} WHERE time_unix_nano >= :since AND time_unix_nano < :until"
NEAREST = "max(CASE WHEN place = (numbers * {p} + 99) / 100 THEN number END)"
THREE = ", ".join(NEAREST.format(p=p) for p in (50, 95, 99))
P95 = NEAREST.format(p=95)
# A grouped count, joined: `count(*) OVER` beside the rank makes the windows take nearly twice as long.
PLACES = """
    sizes AS MATERIALIZED (
        SELECT key, count(number) AS numbers, sum(number * weight) / sum(weight) AS mean FROM read GROUP BY key
    ),
    whole AS MATERIALIZED (SELECT count(number) AS numbers, sum(number * weight) / sum(weight) AS mean FROM read),
    by_key AS (
        SELECT key, number, row_number() OVER (PARTITION BY key ORDER BY number) AS place
        FROM read WHERE number IS NOT NULL
    ),
    every AS (SELECT number, row_number() OVER (ORDER BY number) AS place FROM read WHERE number IS NOT NULL)
"""
BIN = " ".join(f"WHEN seconds < {bound} THEN {place}" for place, bound in enumerate(DURATION_BOUNDS))

HOURS = f"SELECT (time_unix_nano - :since) / {HOUR}, sum({WEIGHT}) {ASKED} GROUP BY 1"
PERCENTILES = f"""
    WITH read AS MATERIALIZED (SELECT route AS key, duration_ns / 1e9 AS number, 1 AS weight {ASKED}), {PLACES}
    SELECT by_key.key, {THREE} FROM by_key JOIN sizes ON sizes.key IS by_key.key GROUP BY by_key.key
    UNION ALL SELECT NULL, {THREE} FROM every, whole
"""
NUMBERS = f"""
    WITH read AS MATERIALIZED (
        SELECT json_extract(variables, '$.plan') AS key, {WEIGHT} AS weight,
            CASE WHEN json_type(variables, '$.total_time') IN ('integer', 'real')
                THEN json_extract(variables, '$.total_time') END AS number
        {ASKED}
    ), {PLACES}
    SELECT by_key.key, max(mean), {P95} FROM by_key JOIN sizes ON sizes.key IS by_key.key GROUP BY by_key.key
    UNION ALL SELECT NULL, max(mean), {P95} FROM every, whole
"""
HISTOGRAM = f"""
    SELECT CASE {BIN} ELSE {len(DURATION_BOUNDS)} END, sum(weight)
    FROM (SELECT duration_ns / 1e9 AS seconds, {WEIGHT} AS weight {ASKED}) GROUP BY 1
"""
STATEMENTS: Mapping[Question, str] = {
    "hours": HOURS,
    "day": HOURS,
    "percentiles": PERCENTILES,
    "numbers": NUMBERS,
    "histogram": HISTOGRAM,
}


def found(question: Question, rows: Sequence[tuple[Any, ...]]) -> Found:
    """Return the answer that the *rows* of a statement are."""
    if question == "histogram":
        bins = dict(rows)
        return {None: tuple(float(bins.get(place, 0)) / 1e6 for place in range(len(DURATION_BOUNDS) + 1))}
    if question in {"hours", "day"}:
        return {int(hour): (float(weights) / 1e6,) for hour, weights in rows}
    return {key: tuple(map(float, values)) for key, *values in rows}


@contextmanager
def asking(uri: str, name: str) -> Iterator[Ask]:
    """Lend what asks by hand."""
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
        run: Callable[[str, dict[str, int]], sqlite3.Cursor] = connection.execute

        def ask(question: Question, span: Span) -> Found:
            sql = STATEMENTS[question].format(name=name)
            return found(question, run(sql, {"since": span.since, "until": span.until}).fetchall())

        yield ask
