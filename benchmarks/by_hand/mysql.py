"""The questions by hand on MySQL, and on MariaDB."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import pymysql
from benchmarks.by_hand import HOUR, Ask, Found, Question, Span
from benchmarks.by_hand.sqlite import found

from flask_chest.aggregates import DURATION_BOUNDS
from flask_chest.stores.mysql.connections import Address

WEIGHT = "floor(1000000 / greatest(sample_rate, 1e-6) + 0.5)"
# Without the indexes: by that on routes, each record would be fetched at random.
ASKED = "FROM `{name}` USE INDEX () WHERE time_unix_nano >= %(since)s AND time_unix_nano < %(until)s"
SECONDS = "duration_ns / 1e9"
NUMBER = """
    CASE WHEN JSON_TYPE(JSON_EXTRACT(variables, '$.total_time'))
            IN ('INTEGER', 'UNSIGNED INTEGER', 'DOUBLE', 'DECIMAL')
        THEN CAST(JSON_UNQUOTE(JSON_EXTRACT(variables, '$.total_time')) AS double) END
"""
PLACES = """
    by_key AS (
        SELECT grouped.*, row_number() OVER (PARTITION BY grouped ORDER BY number) AS place,
            count(*) OVER (PARTITION BY grouped) AS numbers
        FROM read_ones AS grouped
    ),
    every AS (
        SELECT number, weight, row_number() OVER (ORDER BY number) AS place, count(*) OVER () AS numbers
        FROM read_ones
    )
"""
NEAREST = "max(CASE WHEN place = (numbers * {p} + 99) DIV 100 THEN number END)"
P95 = NEAREST.format(p=95)
THREE = ", ".join(NEAREST.format(p=p) for p in (50, 95, 99))
MEAN = "sum(number * weight) / sum(weight)"

HOURS = f"SELECT (time_unix_nano - %(since)s) DIV {HOUR} AS hour, sum({WEIGHT}) {ASKED} GROUP BY hour"
PERCENTILES = f"""
    WITH read_ones AS (SELECT route AS grouped, {SECONDS} AS number, {WEIGHT} AS weight {ASKED}), {PLACES}
    SELECT grouped, {THREE} FROM by_key GROUP BY grouped UNION ALL SELECT NULL, {THREE} FROM every
"""
NUMBERS = f"""
    WITH read_ones AS (
        SELECT JSON_UNQUOTE(JSON_EXTRACT(variables, '$.plan')) AS grouped, {NUMBER} AS number, {WEIGHT} AS weight
        {ASKED}
    ), {PLACES}
    SELECT grouped, {MEAN}, {P95} FROM by_key GROUP BY grouped UNION ALL SELECT NULL, {MEAN}, {P95} FROM every
"""
BIN = " ".join(f"WHEN seconds < {bound}e0 THEN {place}" for place, bound in enumerate(DURATION_BOUNDS))
HISTOGRAM = f"""
    SELECT CASE {BIN} ELSE {len(DURATION_BOUNDS)} END AS bin, sum(weight)
    FROM (SELECT {SECONDS} AS seconds, {WEIGHT} AS weight {ASKED}) AS read_ones GROUP BY bin
"""
STATEMENTS: Mapping[Question, str] = {
    "hours": HOURS,
    "day": HOURS.replace(" USE INDEX ()", ""),
    "percentiles": PERCENTILES,
    "numbers": NUMBERS,
    "histogram": HISTOGRAM,
}


@contextmanager
def asking(uri: str, name: str) -> Iterator[Ask]:
    """Lend what asks by hand."""
    parameters: dict[str, Any] = dict(Address(uri, {}).parameters)
    with closing(pymysql.connect(**parameters)) as connection, connection.cursor() as cursor:

        def ask(question: Question, span: Span) -> Found:
            sql = STATEMENTS[question].format(name=name)
            cursor.execute(sql, {"since": span.since, "until": span.until})
            return found(question, cursor.fetchall())

        yield ask
