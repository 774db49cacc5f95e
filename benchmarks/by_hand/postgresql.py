"""The questions by hand on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg
from benchmarks.by_hand import HOUR, Ask, Found, Question, Span
from benchmarks.by_hand.sqlite import found

from flask_chest.aggregates import DURATION_BOUNDS

WEIGHT = "floor(1000000 / greatest(sample_rate, 1e-6) + 0.5)::bigint"
ASKED = "FROM {name} WHERE time_unix_nano >= %(since)s AND time_unix_nano < %(until)s"
SECONDS = "duration_ns / 1e9::double precision"
HOURS = f"SELECT (time_unix_nano - %(since)s) / {HOUR}, sum({WEIGHT}) {ASKED} GROUP BY 1"
PERCENTILES = f"""
    SELECT key, found[1], found[2], found[3] FROM (
        SELECT key, percentile_disc(array[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY number) AS found
        FROM (SELECT route AS key, {SECONDS} AS number {ASKED}) AS read GROUP BY GROUPING SETS ((key), ())
    ) AS by_key
"""
# The variables are json, which is parsed at each use: once here, into a row of both.
NUMBERS = f"""
    SELECT key, sum(number * weight) / sum(weight), percentile_disc(0.95) WITHIN GROUP (ORDER BY number)
    FROM (
        SELECT plan AS key, weight,
            CASE WHEN json_typeof(total_time) = 'number' THEN (total_time::text)::double precision END AS number
        FROM (SELECT variables, {WEIGHT} AS weight {ASKED}) AS asked,
            LATERAL json_to_record(variables) AS named(plan text, total_time json)
    ) AS read
    GROUP BY GROUPING SETS ((key), ())
"""
HISTOGRAM = f"""
    SELECT width_bucket({SECONDS}, array{list(DURATION_BOUNDS)}::double precision[]), sum({WEIGHT})
    {ASKED} GROUP BY 1
"""
STATEMENTS: Mapping[Question, str] = {
    "hours": HOURS,
    "day": HOURS,
    "percentiles": PERCENTILES,
    "numbers": NUMBERS,
    "histogram": HISTOGRAM,
}


@contextmanager
def asking(uri: str, name: str) -> Iterator[Ask]:
    """Lend what asks by hand."""
    with psycopg.connect(uri, autocommit=True) as connection:

        def ask(question: Question, span: Span) -> Found:
            sql = STATEMENTS[question].format(name=name)
            bound = {"since": span.since, "until": span.until}
            return found(question, connection.execute(sql.encode(), bound).fetchall())

        yield ask
