"""Aggregates as SQL: what is asked becomes a few statements in one snapshot, each grouped in another way.

A statement is a pile of SELECTs. ``raw`` reads columns and variables of the records that are meant, each once;
``found`` makes keys, numbers and spans of time of them; ``ranked`` numbers them for percentiles; the last one
adds up. Values are bound, so all text in a statement is from here.
"""
# ruff: noqa: S608 - as just said

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain
from typing import Any, LiteralString, cast

import msgspec

from flask_chest.aggregates import (
    MAX_TOP,
    AggregateQuery,
    Answer,
    Column,
    Count,
    Distinct,
    ErrorRate,
    Histogram,
    Key,
    Mean,
    Measure,
    Minimum,
    NoScalar,
    Number,
    Percentiles,
    Sum,
    Variable,
)
from flask_chest.protocols import Aggregation
from flask_chest.record import COLUMN_FILTERS, Bound, JSONValue, OneOf, Query, encode_value
from flask_chest.record import Condition as Asked
from flask_chest.stores._records import MAX_INTEGER, bindable
from flask_chest.stores.aggregates import (
    Cell,
    Keys,
    Part,
    answer,
    identity,
    is_additive,
    measured,
    merged,
    nothing,
    numbers,
    order_of,
)
from flask_chest.stores.reference import aggregate
from flask_chest.stores.sql.narrowing import MAX_VALUES, marks, narrowing
from flask_chest.stores.sql.percentiles import ALL, OTHERS, Columns, Found, Parts, PercentilesByBins, Place
from flask_chest.stores.sql.pool import SnapshotLost
from flask_chest.stores.sql.query import IS_ERROR, column_conditions, find
from flask_chest.stores.sql.tables import Condition, Session, SQLPart, SQLValue, Tables
from flask_chest.stores.sql.written import digits, reached, text

EXACT = 1 << 53
"""Size up to which a double holds every whole number."""

_decode = msgspec.json.Decoder().decode


class SQLAggregation(SQLPart, Aggregation):
    """Adds up in the database, where that can decide exactly which records are meant."""

    def aggregate(self, query: AggregateQuery, /, *, timeout: timedelta | None = None) -> Answer:
        """Return the answer, of one moment; past *timeout*, raise `QueryTimeout`."""
        meant = msgspec.structs.replace(query.query, limit=None)
        if not _is_decidable(query, meant):
            return aggregate(find(self._database, self._tables, meant, timeout=timeout), query)
        try:
            return self._answer(query, meant, timeout)
        except SnapshotLost:  # an index was made just now
            return self._answer(query, meant, timeout)

    def _answer(self, query: AggregateQuery, meant: Query, timeout: timedelta | None) -> Answer:
        with self._database.answering(timeout=timeout) as session:
            read = _Read(session, self._tables, query, meant)
            if self._tables.dialect.has_slow_windows and not is_additive(query):
                found = _by_bins(session, self._tables, query, read)
                if found is not None:
                    return found
            return _Aggregates(session, self._tables, query, read).answer()


class _SampledError(Exception):
    """Some records count for more requests than others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grouping:
    """By what a statement groups, and which records it reads."""

    keys: bool = False
    spans: bool = False
    where: Condition = ("", ())
    top: int | None = None
    """Number of groups, the first in the order of the answer; ``None`` for all, in any order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """One row of a statement."""

    raw: tuple[SQLValue, ...]
    """Its key as the database has it."""
    span: int | None
    cell: Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """All that is found."""

    whole: Part
    series: Mapping[int, Part]
    keys: Sequence[tuple[SQLValue, ...]]
    """The keys of the groups as the database has them."""
    others: bool
    """Whether there are more groups."""


class _Aggregates:
    """One question, asked in *session*."""

    def __init__(self, session: Session, tables: Tables, query: AggregateQuery, read: _Read) -> None:
        self._session = session
        self._query = query
        self._tables = tables
        self._read = read
        self._sampled = False
        """Whether records count differently, so that percentiles go by weight."""

    def answer(self) -> Answer:
        """Ask what is needed; once more if it turns out that some records are of a sample."""
        try:
            return self._answer()
        except _SampledError:
            self._sampled = True
            return self._answer()

    def _answer(self) -> Answer:
        query, found = self._query, self.parts()
        left_out = 0 if found.whole.all is None else found.whole.all.left_out
        return answer(query, found.whole, found.series, left_out=left_out)

    def parts(self, keys: Sequence[tuple[SQLValue, ...]] | None = None) -> _Parts:
        """Return what is found of the first groups; with *keys*, of those groups beside others."""
        query = self._query
        chosen, others = _EVERYTHING, None
        if keys is not None:
            groups = self._groups(_Grouping(keys=True, where=self._read.has_key(keys)))
        else:
            groups = self._groups(_Grouping(keys=True, top=query.top + 1)) if query.by else []
        if keys is not None or len(groups) > query.top:
            del groups[query.top :]
            chosen = self._read.has_key([group.raw for group in groups])
            others = f"NOT ({chosen[0]})", chosen[1]
        series: dict[int | None, Part] = {}
        if query.bounds:
            found = self._groups(_Grouping(keys=True, spans=True, where=chosen)) if query.by else []
            series = self._parts(found, others, spans=True)
        if series and is_additive(query):
            whole = Part(
                groups=self._with_keys(groups),
                others=merged(query, [part.others for part in series.values()]),
                all=merged(query, [part.all for part in series.values()]),
            )
        else:
            whole = self._parts(groups, others, spans=False).get(None, Part())
        return _Parts(
            whole=whole,
            series={span: part for span, part in series.items() if span is not None},
            keys=[group.raw for group in groups],
            others=others is not None,
        )

    def _parts(
        self, groups: Sequence[_Group], others: Condition | None, *, spans: bool
    ) -> dict[int | None, Part]:
        """Return the parts of *groups* by their span of time, with what else belongs to each."""
        by_span: dict[int | None, list[_Group]] = {}
        for group in groups:
            by_span.setdefault(group.span, []).append(group)
        of_others = {} if others is None else self._by_span(_Grouping(spans=spans, where=others))
        of_all: Mapping[int | None, Cell | None]
        if self._query.by and is_additive(self._query):
            of_all = {
                span: merged(self._query, [of_others.get(span), *(each.cell for each in by_span.get(span, ()))])
                for span in by_span.keys() | of_others.keys()
            }
        else:
            of_all = self._by_span(_Grouping(spans=spans))
        return {
            span: Part(groups=self._with_keys(by_span.get(span, ())), others=of_others.get(span), all=cell)
            for span, cell in of_all.items()
        }

    def select(self, statement: LiteralString, values: Sequence[SQLValue] = (), /) -> list[tuple[Any, ...]]:
        """Fetch what *statement* selects of what was ``found``."""
        return self._rows(_Statement(statement, tuple(values)))

    def sample(self, number: LiteralString, share: int, /) -> list[float]:
        """Fetch one *number* in about *share* records."""
        read = self._read.sampled(share)
        sql: LiteralString = f"{read[0]} SELECT {number} FROM found WHERE {number} IS NOT NULL"
        values = read[1]
        select = self._tables.sql(sql)
        return [float(found) for (found,) in self._session.rows(select, values)]

    def _by_span(self, grouping: _Grouping) -> dict[int | None, Cell]:
        return {group.span: group.cell for group in self._groups(grouping)}

    def _with_keys(self, groups: Iterable[_Group]) -> list[tuple[Keys, Cell]]:
        return [(self._read.keys_of(group.raw), group.cell) for group in groups]

    def _groups(self, grouping: _Grouping) -> list[_Group]:
        """Return what is found by *grouping*."""
        query, read = self._query, self._read
        pieces = [_piece(measure, read, sampled=self._sampled) for measure in query.measures]
        groups = self._added_up(grouping, pieces)
        if grouping.top is not None and len(groups) == grouping.top:
            grouping = replace(grouping, where=read.has_key([group.raw for group in groups]))
        for place, measure in enumerate(query.measures):
            if isinstance(measure, Histogram) and groups:
                bins = self._bins(grouping, measure)
                for group in groups:
                    group.cell.sums[place] = bins.get((group.raw, group.span), nothing(measure))
        return groups

    def _added_up(self, grouping: _Grouping, pieces: Sequence[_Piece]) -> list[_Group]:
        read = self._read
        names = read.names(grouping)
        columns: list[LiteralString] = [column for piece in pieces for column in piece.columns]
        weights = ("min(w) AS least", "max(w) AS most") if self._goes_by_rank else ("0 AS least", "0 AS most")
        source = self._ranked(grouping, names)
        beyond: list[LiteralString] = [_BEYOND.format(number=f"y{at}") for at in read.numbers.values()]
        left_out = " + ".join([f"count(CASE WHEN {condition} THEN 1 END)" for condition in beyond]) or "0"
        named = map(_named, columns, range(len(columns)))
        select = ", ".join([*names, "count(*) AS records", *named, *weights, f"{left_out} AS left_out"])
        grouped = f" GROUP BY {', '.join(names)}" if names else " HAVING count(*) > 0"
        sql = f"SELECT {select} FROM {source.sql}{grouped}"
        values = source.values
        if grouping.top is not None:
            sql = (
                f"SELECT * FROM (SELECT {select}, {pieces[0].rank} AS place FROM {source.sql}{grouped})"
                f" AS ordered ORDER BY place IS NULL, place DESC, {read.order_of_keys()} LIMIT ?"
            )
            values = (*values, grouping.top)
        found: list[_Group] = []
        for row in self._rows(_Statement(sql, values, source.before)):
            raw, rest = row[: len(names)], row[len(names) :]
            least, most, left = rest[1 + len(columns) : 4 + len(columns)]
            if least != most:
                raise _SampledError
            held = iter(rest[1:])
            sums = [piece.sums([next(held) for _ in piece.columns]) for piece in pieces]
            span = raw[-1] if grouping.spans else None
            key = tuple(map(text, raw[:-1] if grouping.spans else raw))
            cell = Cell(int(rest[0]), sums, int(left))
            found.append(_Group(raw=key, span=None if span is None else int(span), cell=cell))
        return found

    @property
    def _goes_by_rank(self) -> bool:
        weighted = any(isinstance(each, Percentiles) and each.weighted for each in self._query.measures)
        return weighted and not self._sampled

    def _ranked(self, grouping: _Grouping, names: Sequence[LiteralString]) -> _Source:
        """Return the records of *grouping*, numbered within its groups if there are percentiles."""
        where, values = grouping.where
        condition: LiteralString = f" WHERE {where}" if where else ""
        windows = list(self._windows(names))
        if not windows:
            return _Source(f"found{condition}", values, "")
        return _Source(
            "ranked", values, f", ranked AS (SELECT found.*, {', '.join(windows)} FROM found{condition})"
        )

    def _windows(self, names: Sequence[LiteralString]) -> Iterator[LiteralString]:
        partition: LiteralString = f"PARTITION BY {', '.join(names)}" if names else ""
        asked: set[tuple[LiteralString, bool]] = {
            (self._read.numbers[each.of], each.weighted and self._sampled)
            for each in self._query.measures
            if isinstance(each, Percentiles)
        }
        for at, by_weight in sorted(asked):
            ordered: LiteralString = f"({partition} ORDER BY x{at} IS NULL, x{at}"
            if by_weight:
                yield f"sum(w) OVER {ordered} ROWS UNBOUNDED PRECEDING) AS c{at}"
                yield f"sum(CASE WHEN x{at} IS NOT NULL THEN w END) OVER ({partition}) AS t{at}"
            else:
                yield f"row_number() OVER {ordered}) AS r{at}"
                yield f"count(x{at}) OVER ({partition}) AS n{at}"

    def _bins(
        self, grouping: _Grouping, measure: Histogram
    ) -> dict[tuple[tuple[SQLValue, ...], int | None], list[int]]:
        read = self._read
        names = read.names(grouping)
        number: LiteralString = f"x{read.numbers[measure.of]}"
        bin_of, values = reached(number, measure.bounds, first=0)
        where, more = grouping.where
        condition: LiteralString = f"{number} IS NOT NULL" + (f" AND ({where})" if where else "")
        binned = f"SELECT found.*, {bin_of} AS bin FROM found WHERE {condition}"
        every = ", ".join([*names, "bin"])
        sql = f"SELECT {every}, sum({_weight(measure)}) FROM ({binned}) AS binned GROUP BY {every}"
        found: dict[tuple[tuple[SQLValue, ...], int | None], list[int]] = {}
        for *raw, place, weights in self._rows(_Statement(sql, (*values, *more))):
            span = raw.pop() if grouping.spans else None
            key = tuple(map(text, raw)), None if span is None else int(span)
            found.setdefault(key, [0] * (len(measure.bounds) + 1))[int(place)] = int(weights)
        return found

    def _rows(self, statement: _Statement) -> list[tuple[Any, ...]]:
        read = self._read
        sql = self._tables.sql(f"{read.sql}{statement.before} {statement.sql}")
        return self._session.rows(sql, (*read.values, *statement.values))


@dataclass(frozen=True, slots=True)
class _Statement:
    """A SELECT over what was ``found``, the values of its marks, and what stands before it."""

    sql: LiteralString
    values: tuple[SQLValue, ...] = ()
    before: LiteralString = ""


@dataclass(frozen=True, slots=True)
class _Source:
    """What stands after FROM, the values of its marks, and what stands before the statement."""

    sql: LiteralString
    values: tuple[SQLValue, ...]
    before: LiteralString


class _Read:
    """What is read of each record: the two lowest SELECTs, and the names of their columns."""

    def __init__(self, session: Session, tables: Tables, query: AggregateQuery, meant: Query) -> None:
        self._query = query
        self._dialect = tables.dialect
        self._variables: dict[str, LiteralString] = {}
        self.numbers: dict[Number, LiteralString] = {of: digits(at) for at, of in enumerate(numbers(query))}
        """What measures are of → number in the names of its columns."""
        self._keys: list[LiteralString] = [f"k{digits(at)}" for at in range(len(query.by))]
        self.distinct: dict[Column | Variable, LiteralString] = {}
        """What is counted by its keys → its column."""
        for measure in query.measures:
            if isinstance(measure, Distinct):
                self.distinct[measure.of] = f"d{digits(len(self.distinct))}"
        found, found_values = self._found_parts(meant)
        self._raw = self._raw_parts(session, tables, meant)
        self._found = found, found_values
        both = self._with(_EVERYTHING)
        self.sql: LiteralString = both[0]
        self.values = both[1]

    def sampled(self, share: int) -> Condition:
        """Return the two lowest SELECTs for one in about *share* records."""
        return self._with(("MOD(position, ?) = 0 AND ", (share,)))

    def _with(self, first: Condition) -> Condition:
        select, paths, (where, values) = self._raw
        found, found_values = self._found
        # The limit makes the columns of a SELECT within another once, and not at each use, and keeps MySQL from
        # an index on the keys, by which it would fetch all records at random.
        limit: LiteralString = " LIMIT 9223372036854775807" if self._variables or self._keys else ""
        raw: LiteralString = f"{select} WHERE {first[0]}{where}{limit}"
        return f"WITH raw AS ({raw}), found AS ({found})", (*paths, *first[1], *values, *found_values)

    def names(self, grouping: _Grouping) -> list[LiteralString]:
        """Return the columns by which *grouping* groups."""
        return [*(self._keys if grouping.keys else ()), *(["b"] if grouping.spans else ())]

    def keys_of(self, raw: Sequence[SQLValue]) -> Keys:
        """Return the key that the database has as *raw*."""
        return tuple(
            _key(value) if isinstance(of, Variable) else _column(value, of)
            for of, value in zip(self._query.by, raw, strict=True)
        )

    def has_key(self, raws: Sequence[tuple[SQLValue, ...]]) -> Condition:
        """Return the condition that a record has one of the keys that the database has as *raws*."""
        either: list[LiteralString] = []
        values: list[SQLValue] = []
        for raw in raws:
            every: list[LiteralString] = [
                f"{name} IS NULL" if each is None else f"({name} IS NOT NULL AND {name} = ?)"
                for name, each in zip(self._keys, raw, strict=True)
            ]
            either.append(" AND ".join(every))
            values.extend(each for each in raw if each is not None)
        return " OR ".join(either), tuple(values)

    def order_of_keys(self) -> LiteralString:
        """Return what sorts keys by type and value."""
        order: list[LiteralString] = []
        for of, key in zip(self._query.by, self._keys, strict=True):
            if isinstance(of, Variable):
                number = self._dialect.number.format(value=key)
                order.extend((_KIND.format(key=key), number, _WITHOUT_QUOTES.format(key=key)))
            else:
                order.extend((f"{key} IS NOT NULL", key))
        return ", ".join(order)

    def _raw_parts(
        self, session: Session, tables: Tables, meant: Query
    ) -> tuple[LiteralString, Sequence[SQLValue], Condition]:
        """Return SELECT and FROM with the values of their marks, and the condition."""
        columns: list[LiteralString] = ["time_unix_nano", "duration_ns", "status_code", "error", "sample_rate"]
        columns.extend(each for each in _COLUMNS if each in {*self._query.by, *self.distinct})
        read: list[LiteralString] = [f"{self._dialect.value} AS {name}" for name in self._variables.values()]
        paths = [
            self._dialect.path(name) for name in self._variables for _ in range(self._dialect.value.count("?"))
        ]
        conditions = list(column_conditions(meant))
        if meant.asks_for_variables:
            conditions += narrowing(meant, self._dialect.variables(session, tables))
        where = " AND ".join([sql for sql, _ in conditions]) or "true"
        values = [value for _, bound in conditions for value in bound]
        select: LiteralString = f"SELECT {', '.join([*read, *columns])} FROM {{records}} AS record"
        return select, paths, (where, tuple(values))

    def _found_parts(self, meant: Query) -> Condition:
        columns: list[LiteralString] = [
            f"{self._key_sql(of)} AS {key}" for of, key in zip(self._query.by, self._keys, strict=True)
        ]
        columns.extend(f"{self._key_sql(of)} AS {name}" for of, name in self.distinct.items())
        for of, at in self.numbers.items():
            columns.append(f"{self._number_sql(of)} AS y{at}")
        columns.extend((f"{self._dialect.weight} AS w", f"CASE WHEN {IS_ERROR} THEN 1 ELSE 0 END AS e"))
        values: tuple[SQLValue, ...] = ()
        if self._query.bounds:
            span, values = reached("time_unix_nano", self._query.bounds, first=-1)
            columns.append(f"CASE WHEN time_unix_nano >= ? AND time_unix_nano < ? THEN {span} END AS b")
            values = (self._query.bounds[0], self._query.bounds[-1], *values)
        conditions = list(self._exactly(meant))
        where = " AND ".join([sql for sql, _ in conditions]) or "true"
        more = tuple(value for _, bound in conditions for value in bound)
        made: LiteralString = f"SELECT {', '.join(columns)} FROM raw WHERE {where}"
        if self._variables:
            made += self._dialect.once
        within: list[LiteralString] = [
            f"CASE WHEN {_WITHIN.format(number=f'y{at}')} THEN y{at} END AS x{at}" for at in self.numbers.values()
        ]
        return f"SELECT {', '.join(['made.*', *within])} FROM ({made}) AS made", (*values, *more)

    def _exactly(self, meant: Query) -> Iterator[Condition]:
        """Yield the conditions on variables, which decide."""
        asked = chain(((name, OneOf((value,))) for name, value in meant.where.items()), meant.conditions)
        for name, condition in asked:
            value = self._variable(name)
            match condition:
                case OneOf(values):
                    texts = [text for each in values for text in _written(each)]
                    every = marks(texts, self._dialect.written)
                    yield (f"{value} IN ({every})", tuple(texts)) if texts else ("1 = 0", ())
                case Bound():
                    number = self._dialect.number.format(value=value)
                    yield f"{number} {_SIGNS[condition.operator]} ?", (cast("float", condition.value),)
                case _:
                    yield f"{value} IS NOT NULL", ()

    def _variable(self, name: str) -> LiteralString:
        return self._variables.setdefault(name, f"v{digits(len(self._variables))}")

    def _number_sql(self, of: Number) -> LiteralString:
        if isinstance(of, Variable):
            return self._dialect.number.format(value=self._variable(of.name))
        return self._dialect.seconds

    def _key_sql(self, of: Column | Variable) -> LiteralString:
        if isinstance(of, Variable):
            return _KEY.format(value=self._variable(of.name))
        return self._dialect.status_class if of == "status_class" else of


def _by_bins(session: Session, tables: Tables, query: AggregateQuery, read: _Read) -> Answer | None:
    """Answer *query* with percentiles that are not ranked in the database; ``None`` where it must."""
    ranked = [measure for measure in query.measures if isinstance(measure, Percentiles)]
    if not ranked:
        return None
    rest = replace(query, measures=tuple(each for each in query.measures if each not in ranked) or (Count(),))
    aggregates = _Aggregates(session, tables, rest, read)
    found = aggregates.parts()
    if found.others and query.measures[0] is ranked[0]:
        first = _first_keys(session, tables, query, read)
        if first is None:
            return None
        found = aggregates.parts(first)
    if found.whole.all is None:
        return answer(query, Part(), {}, left_out=0)
    parts = Parts(
        groups=found.keys, others=found.others, spans=len(query.bounds), records=found.whole.all.records
    )
    values = _places(aggregates, parts, ranked, read)
    if values is None:
        return None
    raws = {identity(read.keys_of(raw)): raw for raw in found.keys}

    def cell(of: Cell | None, place: Place) -> Cell | None:
        if of is None:
            return None
        sums = dict(zip(rest.measures, of.sums, strict=True))
        for measure, places in values.items():
            sums[measure] = places.get(place, nothing(measure))
        return Cell(of.records, [sums[measure] for measure in query.measures], of.left_out)

    def part(of: Part, span: int | None) -> Part:
        groups = [(keys, cell(each, (raws[identity(keys)], span))) for keys, each in of.groups]
        return Part(
            groups=[(keys, each) for keys, each in groups if each is not None],
            others=cell(of.others, (OTHERS, span)),
            all=cell(of.all, (ALL, span)),
        )

    series = {span: part(each, span) for span, each in found.series.items()}
    return answer(query, part(found.whole, None), series, left_out=found.whole.all.left_out)


def _places(
    aggregates: _Aggregates, parts: Parts, ranked: Sequence[Percentiles], read: _Read
) -> Mapping[Measure[object], Found] | None:
    """Return what each measure finds; ``None`` where the database must rank."""
    values: dict[Measure[object], Found] = {}
    asked: dict[Number, None] = dict.fromkeys(each.of for each in ranked)
    for of in asked:
        measures = [each for each in ranked if each.of == of]
        columns = Columns(number=f"x{read.numbers[of]}", keys=read.names(_Grouping(keys=True)))
        places = PercentilesByBins(aggregates, parts, columns, read.has_key).find(measures)
        if places is None:
            return None
        values.update(zip(measures, places, strict=True))
    return values


def _first_keys(
    session: Session, tables: Tables, query: AggregateQuery, read: _Read
) -> Sequence[tuple[SQLValue, ...]] | None:
    """Return the keys of the first groups by percentiles; ``None`` if there are too many groups to tell."""
    first = cast("Percentiles", query.measures[0])
    every = _Aggregates(session, tables, replace(query, measures=(Count(),), bounds=(), top=MAX_TOP), read)
    found = every.parts()
    if found.others or found.whole.all is None:
        return None
    parts = Parts(groups=found.keys, records=found.whole.all.records)
    places = _places(every, parts, [first], read)
    if places is None:
        return None
    ranks = places[first]

    def order(raw: tuple[SQLValue, ...]) -> tuple[bool, float, object]:
        return order_of(query, read.keys_of(raw), Cell(0, [ranks.get((raw, None), nothing(first))]))

    return sorted(found.keys, key=order)[: query.top]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """The SQL of a measure: its columns, how they become what a `Cell` holds, and what groups are ordered by."""

    columns: tuple[LiteralString, ...] = ()
    sums: Callable[[Sequence[Any]], object]
    rank: LiteralString


def _piece(measure: Measure[object], read: _Read, *, sampled: bool) -> _Piece:
    of = measured(measure)
    at = "" if of is None else read.numbers[of]
    weight = _weight(measure)
    if isinstance(measure, Percentiles):
        return _percentiles(measure, at, by_weight=sampled and measure.weighted)
    if isinstance(measure, Distinct):
        keys: LiteralString = f"count(DISTINCT {read.distinct[measure.of]})"
        return _Piece(columns=(keys,), sums=_whole, rank=keys)
    if isinstance(measure, Count):
        return _Piece(columns=(f"sum({weight})",), sums=_whole, rank=f"sum({weight})")
    if isinstance(measure, ErrorRate):
        errors: LiteralString = f"sum({weight} * e)"
        return _Piece(
            columns=(errors, f"sum({weight})"),
            sums=lambda found: (int(found[0]), int(found[1])),
            rank=f"{errors} * 1e0 / sum({weight})",
        )
    return _of_number(measure, f"x{at}", weight)


def _of_number(measure: Measure[object], number: LiteralString, weight: LiteralString) -> _Piece:
    total: LiteralString = f"sum({weight} * {number})"
    having: LiteralString = f"sum(CASE WHEN {number} IS NOT NULL THEN {weight} ELSE 0 END)"
    if isinstance(measure, Sum):
        return _Piece(columns=(total,), sums=lambda found: found[0], rank=f"coalesce({total}, 0)")
    if isinstance(measure, Mean):
        mean: LiteralString = f"{total} / nullif({having}, 0)"
        return _Piece(columns=(total, having), sums=lambda found: (found[0], int(found[1])), rank=mean)
    if isinstance(measure, Histogram):
        return _Piece(sums=lambda _: nothing(measure), rank=having)
    extreme: LiteralString = f"{'min' if isinstance(measure, Minimum) else 'max'}({number})"
    return _Piece(columns=(extreme,), sums=lambda found: _float(found[0]), rank=extreme)


def _whole(found: Sequence[Any]) -> int:
    return int(found[0])


def _percentiles(measure: Percentiles, at: LiteralString, *, by_weight: bool) -> _Piece:
    columns: list[LiteralString] = []
    for p in map(digits, measure.ps):
        # Without a division: which databases do not do alike.
        if by_weight:
            columns.append(f"min(CASE WHEN x{at} IS NOT NULL AND c{at} * 100 >= t{at} * {p} THEN x{at} END)")
        else:
            rank = f"r{at} * 100 >= n{at} * {p} AND (r{at} - 1) * 100 < n{at} * {p}"
            columns.append(f"max(CASE WHEN {rank} THEN x{at} END)")
    return _Piece(columns=tuple(columns), sums=lambda found: tuple(map(_float, found)), rank=columns[0])


_COLUMNS: tuple[LiteralString, ...] = ("route", "method", "endpoint", "instance", "request_id", "trace_id")
"""The columns that are read where something is grouped by them; others always are."""
_KEY: LiteralString = (
    "CASE WHEN substr({value}, 1, 1) IN ('[', '{{{{') THEN substr({value}, 1, 1)"
    " WHEN {value} = '-0.0' THEN '0.0' ELSE {value} END"
)
"""Key of a variable: a scalar as JSON, or the bracket with which it begins."""
_KIND: LiteralString = (
    "CASE WHEN {key} IS NULL THEN 0 WHEN {key} = 'null' THEN 1 WHEN {key} = 'false' THEN 2"
    " WHEN {key} = 'true' THEN 3 WHEN substr({key}, 1, 1) = '\"' THEN 5 WHEN {key} = '[' THEN 6"
    " WHEN {key} = '{{{{' THEN 7 ELSE 4 END"
)
_WITHOUT_QUOTES: LiteralString = (
    "CASE WHEN substr({key}, 1, 1) = '\"' THEN substr({key}, 2, length({key}) - 2) ELSE {key} END"
)
_WITHIN: LiteralString = "abs({number}) <= 1e290"
_BEYOND: LiteralString = "abs({number}) > 1e290"
"""Conditions that a number is at most, and more than `MAX_NUMBER`."""
_SIGNS: dict[str, LiteralString] = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_EVERYTHING: Condition = ("", ())


def _is_decidable(query: AggregateQuery, meant: Query) -> bool:
    """Return whether the database can decide which records are meant, and tell their keys."""
    filters = (getattr(meant, name) for name in COLUMN_FILTERS)
    named = [*query.by, *numbers(query), *(each.of for each in query.measures if isinstance(each, Distinct))]
    names = [each.name for each in named if isinstance(each, Variable)]
    since = meant.since_unix_nano
    return (
        all(map(bindable, [*names, *meant.where, *(name for name, _ in meant.conditions)]))
        and all(value is None or bindable(value) for value in filters)
        and (since is None or since <= MAX_INTEGER)
        and all(map(_is_scalar, meant.where.values()))
        and all(_is_exact(condition) for _, condition in meant.conditions)
    )


def _is_exact(asked: Asked) -> bool:
    match asked:
        case Bound(_, value):
            return not isinstance(value, str) and abs(value) <= EXACT
        case OneOf(values):
            return all(map(_is_scalar, values)) and len(values) <= MAX_VALUES
        case _:
            return True


def _is_scalar(value: JSONValue) -> bool:
    return value is None or isinstance(value, float) or bindable(value)


def _written(value: JSONValue) -> list[str]:
    """Return how a scalar may be written."""
    return ["0.0", "-0.0"] if isinstance(value, float) and value == 0 else [encode_value(value)]


def _weight(measure: Measure[object]) -> LiteralString:
    return "w" if getattr(measure, "weighted", True) else "1000000"


def _named(column: LiteralString, at: int) -> LiteralString:
    return f"{column} AS m{digits(at)}"


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _column(value: SQLValue, of: Column) -> Key:
    return int(value) if value is not None and of in {"status_code", "status_class"} else value


def _key(text: Any) -> Key:
    """Return the key that is written as *text*."""
    if text is None:
        return NoScalar.ABSENT
    if text == "[":
        return NoScalar.LIST
    if text == "{":
        return NoScalar.OBJECT
    return cast("Key", _decode(text))
