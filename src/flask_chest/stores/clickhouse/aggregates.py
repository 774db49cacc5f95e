"""Aggregates as one statement of ClickHouse, which reads one moment: it keeps no snapshot for several.

It groups by the place of a group in the answer and by span of time, by each of them alone, and by neither.
"""
# ruff: noqa: S608 - all that comes from outside is a literal

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import islice
from typing import Any

import msgspec

from flask_chest.aggregates import AggregateQuery, Answer, Percentiles, Variable
from flask_chest.protocols import Aggregation
from flask_chest.stores._records import is_integer
from flask_chest.stores._time_limit import TimeLimit
from flask_chest.stores.aggregates import (
    ALL,
    ALWAYS,
    OTHERS,
    Cell,
    Keys,
    Place,
    answer_of_places,
    counted,
    numbers,
)
from flask_chest.stores.clickhouse.client import Database
from flask_chest.stores.clickhouse.columns import AS_FLOAT, AS_JSON
from flask_chest.stores.clickhouse.conditions import NO_COLUMNS, conditions_of
from flask_chest.stores.clickhouse.measures import Piece, piece_of
from flask_chest.stores.clickhouse.query import find
from flask_chest.stores.clickhouse.reading import Reading
from flask_chest.stores.clickhouse.schema import ClickHousePart
from flask_chest.stores.reference import aggregate


class ClickHouseAggregation(ClickHousePart, Aggregation):
    """Adds up in the database, where that can decide exactly which records are meant."""

    def aggregate(self, query: AggregateQuery, /, *, timeout: timedelta | None = None) -> Answer:
        """Return the answer, of one moment; past *timeout*, raise `QueryTimeout`."""
        limit = TimeLimit(timeout)
        meant = msgspec.structs.replace(query.query, limit=None)
        self._schema.check()
        variables = self._database.columns_of(AS_JSON) if _asks_for_variables(query) else NO_COLUMNS
        asked = conditions_of(meant, variables)
        if not all(each.decides for each in asked) or not all(map(is_integer, query.bounds)):
            return aggregate(find(self._database, meant, timeout=timeout), query)
        of_numbers = any(isinstance(each, Variable) for each in numbers(query))
        floats = self._database.columns_of(AS_FLOAT) if of_numbers else NO_COLUMNS
        read = Reading(self._database, query, asked, variables=variables, floats=floats)
        return _Question(self._database, query, read, limit).answer()


class _Question:
    """One question, asked in one statement."""

    def __init__(self, database: Database, query: AggregateQuery, read: Reading, limit: TimeLimit) -> None:
        self._database = database
        self._query = query
        self._read = read
        self._limit = limit
        self._weighs = any(isinstance(each, Percentiles) and each.weighted for each in query.measures)

    def answer(self) -> Answer:
        """Ask; once more if it turns out that percentiles go by weight."""
        query, read = self._query, self._read
        pieces, rows = self._ask(sampled=False)
        if self._weighs and any(least != most for _, _, _, _, least, most, *_ in rows):
            pieces, rows = self._ask(sampled=True)
        cells: dict[Place, Cell] = {}
        keys: dict[int, Keys] = {}
        left_out = 0
        for group, begin, raw, records, _, _, beyond, *found in rows:
            span = ALWAYS if begin is None else read.span_of(begin)
            cells[group, span] = Cell(records, _sums(pieces, found))
            if group > OTHERS:
                keys[group] = read.keys_of(raw)
            if (group, span) == (ALL, ALWAYS):
                left_out = int(beyond)
        return answer_of_places(query, keys, cells, left_out=left_out)

    def _ask(self, *, sampled: bool) -> tuple[Sequence[Piece], list[tuple[Any, ...]]]:
        """Ask, where *sampled* says that percentiles go by weight.

        Return what is selected for each measure, and a row for each place: group, beginning of the span, key,
        and what is found there.
        """
        query, read = self._query, self._read
        pieces = [piece_of(measure, read, sampled=sampled) for measure in query.measures]
        parts = [*(["g"] if query.by else []), *(["b"] if query.bounds else [])]
        source, common = "found", [f"found AS ({read.select})"]
        if query.by:
            common.append(f"top AS ({self._top(pieces[0])})")
            source = f"found ANY LEFT JOIN top USING ({', '.join(read.keys)})"
        group = f"if(grouping(g) = 0, toInt64(g), {ALL})" if query.by else str(ALL)
        begin = "if(grouping(b) = 0, b, NULL)" if query.bounds else "NULL"
        key = f"[{', '.join(f'any({each})' for each in read.keys)}]"
        rates = ["min(sample_rate)", "max(sample_rate)"] if self._weighs else ["1", "1"]
        columns = [group, begin, key, "count()", *rates, read.left_out]
        columns += [column for piece in pieces for column in piece.columns]
        select = f"WITH {', '.join(common)} SELECT {', '.join(columns)} FROM {source}"
        if parts:
            sets = [parts, *([each] for each in parts if len(parts) > 1), []]
            written = ", ".join(f"({', '.join(each)})" for each in sets)
            select += f" GROUP BY GROUPING SETS ({written})"
        return pieces, [row for row in self._database.rows(select, limit=self._limit) if row[3]]

    def _top(self, first: Piece) -> str:
        """Return the SELECT of the keys of the groups in the answer, each with its place."""
        keys = ", ".join(self._read.keys)
        order = ", ".join(["r DESC NULLS LAST", *self._read.order_of_keys()])
        ranked = f"SELECT {keys}, {first.rank} AS r FROM found GROUP BY {keys} ORDER BY {order}"
        limited = f"{ranked} LIMIT {self._query.top}"
        return f"SELECT {keys}, row_number() OVER (ORDER BY {order}) AS g FROM ({limited})"


def _asks_for_variables(query: AggregateQuery) -> bool:
    named = [*query.by, *numbers(query), *counted(query)]
    return query.query.asks_for_variables or any(isinstance(each, Variable) for each in named)


def _sums(pieces: Sequence[Piece], found: Sequence[Any]) -> list[object]:
    rest = iter(found)
    return [piece.sums(list(islice(rest, len(piece.columns)))) for piece in pieces]
