"""Aggregates as SQL: what is asked becomes a few statements in one snapshot, each grouped in another way.

A statement is a pile of SELECTs: those of `reading`, ``ranked``, which numbers records for percentiles, and one
that adds up. Values are bound, so all text in a statement is from here.
"""
# ruff: noqa: S608 - as just said

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from itertools import accumulate
from typing import Any, LiteralString, cast

import msgspec
from msgspec.structs import replace

from flask_chest.aggregates import (
    MAX_TOP,
    AggregateQuery,
    Answer,
    Count,
    Histogram,
    Measure,
    Number,
    Percentiles,
)
from flask_chest.protocols import Aggregation
from flask_chest.record import Query
from flask_chest.stores._time_limit import TimeBudget
from flask_chest.stores.aggregates import (
    WHOLE,
    Cell,
    Identity,
    Keys,
    Part,
    answer,
    identity,
    is_additive,
    merged,
    merged_sums,
    nothing,
    order_of,
)
from flask_chest.stores.reference import aggregate
from flask_chest.stores.sql.measures import OneBin, Piece, piece_of, weight_of
from flask_chest.stores.sql.percentiles import (
    ALL,
    OTHERS,
    Bins,
    Found,
    Held,
    Parts,
    PercentilesByBins,
    Place,
    RawKey,
    bounds_for,
)
from flask_chest.stores.sql.pool import SnapshotLost
from flask_chest.stores.sql.query import find
from flask_chest.stores.sql.reading import Reading, is_decidable
from flask_chest.stores.sql.tables import Condition, Session, SQLPart, SQLValue, Tables
from flask_chest.stores.sql.written import digits, joined, text

_BEYOND: LiteralString = "abs({number}) > 1e290"
"""Condition that a number is more than `MAX_NUMBER`."""
_EVERYTHING: Condition = ("", ())

MOST_CELLS = 30_000
"""Cells that are fetched at most to be merged here, where statements would do it that read all records again."""


class SQLAggregation(SQLPart, Aggregation):
    """Adds up in the database, where that can decide exactly which records are meant."""

    def aggregate(self, query: AggregateQuery, /, *, timeout: timedelta | None = None) -> Answer:
        """Return the answer, of one moment; past *timeout*, raise `QueryTimeout`."""
        meant = msgspec.structs.replace(query.query, limit=None)
        if not is_decidable(query, meant):
            return aggregate(find(self._database, self._tables, meant, timeout=timeout), query)
        budget = TimeBudget(timeout)
        try:
            return self._answer(query, meant, budget)
        except SnapshotLost:  # an index was made just now
            return self._answer(query, meant, budget)

    def _answer(self, query: AggregateQuery, meant: Query, budget: TimeBudget) -> Answer:
        with budget.working() as left, self._database.answering(timeout=left) as session:
            dialect = self._tables.dialect
            if planned := dialect.by_hash if is_additive(query) else dialect.by_rank:
                session.change(planned)
            read = Reading(session, self._tables, query, meant)
            if dialect.keeps_found and not is_additive(query):
                read.keep(session, self._tables)
            if dialect.has_slow_windows and not is_additive(query):
                found = _by_bins(session, self._tables, query, read)
                if found is not None:
                    return found
            return _Aggregates(session, self._tables, query, read).answer()


class _SampledError(Exception):
    """Some records count for more requests than others."""


class _Grouping(msgspec.Struct, frozen=True, kw_only=True):
    """By what a statement groups, and which records it reads."""

    keys: bool = False
    spans: bool = False
    bins: bool = False
    """Whether each bin of the histograms is a group of its own."""
    every: bool = False
    """Whether all records together are a group, too."""
    where: Condition = ("", ())
    top: int | None = None
    """Number of groups, the first in the order of the answer; ``None`` for all, in any order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """One row of a statement."""

    raw: RawKey
    """Its key as the database has it."""
    span: int | None
    cell: Cell
    every: bool = False
    """Whether these are all records together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """All that is found."""

    whole: Part
    series: Mapping[int, Part]
    keys: Sequence[RawKey]
    """The keys of the groups as the database has them."""
    others: bool
    """Whether there are more groups."""


class _Aggregates:
    """One question, asked in *session*."""

    def __init__(self, session: Session, tables: Tables, query: AggregateQuery, read: Reading) -> None:
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

    def parts(self, keys: Sequence[RawKey] | None = None) -> _Parts:
        """Return what is found of the first groups; with *keys*, of those groups beside others."""
        if is_additive(self._query) and len(self._finest) <= MOST_CELLS:
            return self._merged_parts(keys)
        return self._selected_parts(keys)

    @cached_property
    def _finest(self) -> list[_Group]:
        """What one statement finds, of which all parts can be merged; or the first of it, if it is too much."""
        query = self._query
        keys, spans, bins = bool(query.by), bool(query.bounds), bool(self._histograms)
        return self._groups(_Grouping(keys=keys, spans=spans, bins=bins, top=max(MOST_CELLS, query.top) + 1))

    def _merged_parts(self, keys: Sequence[RawKey] | None) -> _Parts:
        query, read = self._query, self._read
        bins: dict[tuple[RawKey, int | None], list[Cell]] = {}
        for group in self._finest:
            bins.setdefault((group.raw, group.span), []).append(group.cell)
        by_key: dict[RawKey, list[Cell | None]] = {}
        by_span: dict[int | None, dict[RawKey, list[Cell | None]]] = {}
        for (raw, span), found in bins.items():
            cell = _of_bins(query, found) if self._histograms else merged(query, found)
            by_key.setdefault(raw, []).append(cell)
            by_span.setdefault(span, {})[raw] = [cell]
        if keys is None:
            cells = {raw: cell for raw, found in by_key.items() if (cell := merged(query, found)) is not None}
            order = sorted(cells, key=lambda raw: order_of(query, read.keys_of(raw), cells[raw]))
            keys = order[: query.top] if query.by else ()

        def part(found: Mapping[RawKey, Sequence[Cell | None]]) -> Part:
            cells = {raw: merged(query, found[raw]) for raw in keys if raw in found}
            others = merged(query, [cell for raw, each in found.items() if raw not in cells for cell in each])
            return Part(
                groups=[(read.keys_of(raw), cell) for raw, cell in cells.items() if cell is not None],
                others=others if query.by else None,
                all=merged(query, [*cells.values(), others]),
            )

        return _Parts(
            whole=part(by_key),
            series={span: part(found) for span, found in by_span.items() if span is not None},
            keys=keys,
            others=bool(query.by) and len(by_key) > len(keys),
        )

    def _selected_parts(self, keys: Sequence[RawKey] | None) -> _Parts:
        query = self._query
        chosen, others = _EVERYTHING, None
        if keys is not None:
            groups = self._groups(_Grouping(keys=True, where=self._read.has_key(keys)))
        elif is_additive(query) and query.by and not (query.bounds or self._histograms):
            groups = self._finest[: query.top + 1]
        else:
            groups = self._groups(_Grouping(keys=True, every=True, top=query.top + 1)) if query.by else []
        every = [group for group in groups if group.every]
        groups = [group for group in groups if not group.every]
        if keys is not None or len(groups) > query.top:
            del groups[query.top :]
            chosen = self._read.has_key([group.raw for group in groups])
            others = f"NOT ({chosen[0]})", chosen[1]
        series: dict[int | None, Part] = {}
        if query.bounds:
            grouping = _Grouping(keys=True, spans=True, every=others is None, where=chosen)
            found = self._groups(grouping) if query.by else []
            series = self._parts(found, others, spans=True)
        if series and is_additive(query):
            whole = Part(
                groups=self._with_keys(groups),
                others=merged(query, [part.others for part in series.values()]),
                all=merged(query, [part.all for part in series.values()]),
            )
        else:
            whole = self._parts([*groups, *every], others, spans=False).get(None, Part())
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
        of_all: Mapping[int | None, Cell | None] = {group.span: group.cell for group in groups if group.every}
        by_span: dict[int | None, list[_Group]] = {}
        for group in groups:
            if not group.every:
                by_span.setdefault(group.span, []).append(group)
        of_others = {} if others is None else self._by_span(_Grouping(spans=spans, where=others))
        if not of_all and self._query.by and is_additive(self._query):
            of_all = {
                span: merged(self._query, [of_others.get(span), *(each.cell for each in by_span.get(span, ()))])
                for span in by_span.keys() | of_others.keys()
            }
        elif not of_all:
            of_all = self._by_span(_Grouping(spans=spans))
        return {
            span: Part(groups=self._with_keys(by_span.get(span, ())), others=of_others.get(span), all=cell)
            for span, cell in of_all.items()
        }

    def select(self, statement: LiteralString, values: Sequence[SQLValue] = (), /) -> list[tuple[Any, ...]]:
        """Fetch what *statement* selects of what was ``found``."""
        sql = self._tables.sql(f"{self._read.sql} {statement}")
        return self._session.rows(sql, (*self._read.values, *values))

    def sample(self, columns: Sequence[LiteralString], share: int, /) -> list[tuple[Any, ...]]:
        """Fetch *columns* of one in about *share* records, if the first of them is not ``NULL``."""
        sql, values = self._read.sampled(columns, share)
        return self._session.rows(self._tables.sql(sql), values)

    def histogram_of(self, ranked: Sequence[Percentiles]) -> Histogram | None:
        """Return a histogram that tells, beside the other measures, in which bins percentiles are.

        Return ``None`` where one statement should not find both.
        """
        asked: set[tuple[Number, bool]] = {(each.of, each.weighted) for each in ranked}
        if len(asked) > 1 or self._histograms or not is_additive(self._query):
            return None
        ((number, weighted),) = asked
        (size,) = self._session.rows(self._tables.sql(self._read.size))[0]
        keys = self._read.names(keys=True, spans=bool(self._query.bounds))
        column: LiteralString = f"x{self._read.numbers[number]}"
        bounds = bounds_for(self, column, keys, size=size or 0, cells=MOST_CELLS)
        return None if bounds is None else Histogram(number, *bounds, weighted=weighted)

    def places(
        self, parts: Parts, ranked: Sequence[Percentiles], bins: Bins | None = None
    ) -> Mapping[Measure[object], Found] | None:
        """Return what each of *ranked* finds; ``None`` where the database must rank."""
        values: dict[Measure[object], Found] = {}
        asked: dict[Number, None] = dict.fromkeys(each.of for each in ranked)
        for of in asked:
            measures = [each for each in ranked if each.of == of]
            by_bins = PercentilesByBins(self, self._read, parts, f"x{self._read.numbers[of]}")
            found = by_bins.find(measures, bins)
            if found is None:
                return None
            values.update(zip(measures, found, strict=True))
        return values

    def _by_span(self, grouping: _Grouping) -> dict[int | None, Cell]:
        return {group.span: group.cell for group in self._groups(grouping)}

    def _with_keys(self, groups: Iterable[_Group]) -> list[tuple[Keys, Cell]]:
        return [(self._read.keys_of(group.raw), group.cell) for group in groups]

    def _groups(self, grouping: _Grouping) -> list[_Group]:
        """Return what is found by *grouping*."""
        query, read = self._query, self._read
        pieces = [
            piece_of(measure, read, sampled=self._sampled, binned=grouping.bins) for measure in query.measures
        ]
        groups = self._added_up(grouping, pieces)
        if grouping.bins or not self._histograms:
            return groups
        if grouping.top is not None and len(groups) == grouping.top:
            grouping = replace(grouping, where=read.has_key([group.raw for group in groups]))
        for place, measure in enumerate(query.measures):
            if isinstance(measure, Histogram) and groups:
                bins = self._weighed_bins(grouping, measure)
                for group in groups:
                    group.cell.sums[place] = bins.get((group.raw, group.span), nothing(measure))
        return groups

    def _added_up(self, grouping: _Grouping, pieces: Sequence[Piece]) -> list[_Group]:
        read = self._read
        names = read.names(keys=grouping.keys, spans=grouping.spans)
        groups: list[LiteralString] = [
            *names,
            *(read.bins_of(each) for each in self._histograms if grouping.bins),
        ]
        every = grouping.every and self._takes_sets
        columns: list[LiteralString] = [column for piece in pieces for column in piece.columns]
        weights = ("min(w) AS least", "max(w) AS most") if self._goes_by_rank else ("0 AS least", "0 AS most")
        source, values = self._source(grouping, names)
        beyond: list[LiteralString] = [_BEYOND.format(number=number) for number in read.unbounded]
        left_out = " + ".join([f"count(CASE WHEN {condition} THEN 1 END)" for condition in beyond]) or "0"
        named: list[LiteralString] = [f"{column} AS m{digits(at)}" for at, column in enumerate(columns)]
        select: LiteralString = ", ".join(
            [*names, "count(*) AS records", *named, *weights, f"{left_out} AS left_out"]
        )
        select += f", GROUPING({names[0]}) AS every" if every else ", 0 AS every"
        grouped: LiteralString = f" GROUP BY {', '.join(groups)}" if groups else " HAVING count(*) > 0"
        if every:
            spans = ", ".join(read.names(keys=False, spans=grouping.spans))
            grouped = f" GROUP BY GROUPING SETS (({', '.join(names)}), ({spans})) HAVING count(*) > 0"
        sql: LiteralString = f"SELECT {select} FROM {source}{grouped}"
        if grouping.top is not None:
            place = pieces[0].rank
            order: list[LiteralString] = ["every DESC", f"{place} IS NULL", f"{place} DESC"]
            order += read.order_of_keys() if grouping.keys else []
            sql = f"SELECT * FROM ({sql}) AS ordered ORDER BY {', '.join(order)} LIMIT ?"
            values = (*values, grouping.top + every)
        ends = list(accumulate([len(piece.columns) for piece in pieces], initial=1))
        places = list(zip(pieces, map(slice, ends, ends[1:]), strict=True))
        found: list[_Group] = []
        for row in self.select(sql, values):
            raw, rest = row[: len(names)], row[len(names) :]
            least, most, left, is_every = rest[1 + len(columns) : 5 + len(columns)]
            if least != most:
                raise _SampledError
            sums = [piece.sums(rest[at]) for piece, at in places]
            span = raw[-1] if grouping.spans else None
            key = tuple(map(text, raw[:-1] if grouping.spans else raw))
            cell = Cell(int(rest[0]), sums, int(left))
            number = None if span is None else int(span)
            found.append(_Group(raw=key, span=number, cell=cell, every=bool(is_every)))
        return found

    @property
    def _histograms(self) -> list[Histogram]:
        return [measure for measure in self._query.measures if isinstance(measure, Histogram)]

    @property
    def _goes_by_rank(self) -> bool:
        weighted = any(isinstance(each, Percentiles) and each.weighted for each in self._query.measures)
        return weighted and not self._sampled

    @property
    def _takes_sets(self) -> bool:
        """Whether a statement finds all records together beside their groups, of which they cannot be merged."""
        apart = is_additive(self._query) or self._histograms or any(self._windows(()))
        return self._tables.dialect.has_grouping_sets and not apart

    def _source(self, grouping: _Grouping, names: Sequence[LiteralString]) -> Condition:
        """Return the records of *grouping*, with their bins, or numbered within its groups for percentiles."""
        where, values = grouping.where
        condition: LiteralString = f" WHERE {where}" if where else ""
        more: list[Condition] = [(window, ()) for window in self._windows(names)]
        for measure in self._histograms if grouping.bins else ():
            bin_of, bounds = self._read.reached(f"x{self._read.numbers[measure.of]}", measure.bounds, first=0)
            more.append((f"{bin_of} AS {self._read.bins_of(measure)}", bounds))
        if not more:
            return f"found{condition}", values
        columns, bound = joined(more, ", ")
        return f"(SELECT found.*, {columns} FROM found{condition}) AS placed", (*bound, *values)

    def _windows(self, names: Sequence[LiteralString]) -> Iterator[LiteralString]:
        partition: LiteralString = f"PARTITION BY {', '.join(names)}" if names else ""
        asked: set[tuple[LiteralString, bool]] = {
            (self._read.numbers[each.of], each.weighted and self._sampled)
            for each in self._query.measures
            if isinstance(each, Percentiles)
        }
        at_once = bool(self._tables.dialect.percentiles)
        for at, by_weight in sorted(each for each in asked if each[1] or not at_once):
            ordered: LiteralString = f"({partition} ORDER BY x{at} IS NULL, x{at}"
            if by_weight:
                yield f"sum(w) OVER {ordered} ROWS UNBOUNDED PRECEDING) AS c{at}"
                yield f"sum(CASE WHEN x{at} IS NOT NULL THEN w END) OVER ({partition}) AS t{at}"
            else:
                yield f"row_number() OVER {ordered}) AS r{at}"
                yield f"count(x{at}) OVER ({partition}) AS n{at}"

    def _weighed_bins(
        self, grouping: _Grouping, measure: Histogram
    ) -> dict[tuple[RawKey, int | None], list[int]]:
        read = self._read
        names = read.names(keys=grouping.keys, spans=grouping.spans)
        number: LiteralString = f"x{read.numbers[measure.of]}"
        bin_of, values = read.reached(number, measure.bounds, first=0)
        where, more = grouping.where
        condition: LiteralString = f"{number} IS NOT NULL" + (f" AND ({where})" if where else "")
        binned = f"SELECT found.*, {bin_of} AS bin FROM found WHERE {condition}"
        every = ", ".join([*names, "bin"])
        sql = f"SELECT {every}, sum({weight_of(measure)}) FROM ({binned}) AS binned GROUP BY {every}"
        found: dict[tuple[RawKey, int | None], list[int]] = {}
        for *raw, place, weights in self.select(sql, (*values, *more)):
            span = raw.pop() if grouping.spans else None
            key = tuple(map(text, raw)), None if span is None else int(span)
            found.setdefault(key, [0] * (len(measure.bounds) + 1))[int(place)] = int(weights)
        return found


def _by_bins(session: Session, tables: Tables, query: AggregateQuery, read: Reading) -> Answer | None:
    """Answer *query* with percentiles that are not ranked in the database; ``None`` where it must."""
    ranked = [measure for measure in query.measures if isinstance(measure, Percentiles)]
    if not ranked:
        return None
    rest = replace(query, measures=tuple(each for each in query.measures if each not in ranked) or (Count(),))
    aggregates = _Aggregates(session, tables, rest, read)
    binned = aggregates.histogram_of(ranked)
    if binned is not None:
        rest = replace(rest, measures=(*rest.measures, binned))
        aggregates = _Aggregates(session, tables, rest, read)
    found = aggregates.parts()
    if found.others and query.measures[0] is ranked[0]:
        first = _first_keys(session, tables, query, read)
        if first is None:
            return None
        found = aggregates.parts(first)
    if found.whole.all is None:
        return answer(query, Part(), {}, left_out=0)
    raws = {identity(read.keys_of(raw)): raw for raw in found.keys}
    parts = Parts(
        groups=found.keys, others=found.others, spans=len(query.bounds), records=found.whole.all.records
    )
    bins = None if binned is None else _bins_of(binned, found, raws)
    values = aggregates.places(parts, ranked, bins)
    if values is None:
        return None
    both = _Joined(query=query, measures=rest.measures, values=values, raws=raws)
    series = {span: both.part(each, span) for span, each in found.series.items()}
    return answer(query, both.part(found.whole, None), series, left_out=found.whole.all.left_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Joined:
    """What is found by bins beside the cells of other *measures*."""

    query: AggregateQuery
    measures: Sequence[Measure[object]]
    values: Mapping[Measure[object], Found]
    raws: Mapping[Identity, RawKey]

    def part(self, of: Part, span: int | None) -> Part:
        """Return a part of the answer."""
        groups = [(keys, self._cell(each, (self.raws[identity(keys)], span))) for keys, each in of.groups]
        return Part(
            groups=[(keys, each) for keys, each in groups if each is not None],
            others=self._cell(of.others, (OTHERS, span)),
            all=self._cell(of.all, (ALL, span)),
        )

    def _cell(self, of: Cell | None, place: Place) -> Cell | None:
        if of is None:
            return None
        sums = dict(zip(self.measures, of.sums, strict=True))
        for measure, places in self.values.items():
            sums[measure] = places.get(place, nothing(measure))
        return Cell(of.records, [sums[measure] for measure in self.query.measures], of.left_out)


def _bins_of(binned: Histogram, found: _Parts, raws: Mapping[Identity, RawKey]) -> Bins:
    """Return what the histogram that is the last measure holds in each place."""
    held: dict[Place, Mapping[int, Held]] = {}
    for span, part in [(None, found.whole), *found.series.items()]:
        cells: list[tuple[RawKey | str, Cell | None]] = [(OTHERS, part.others), (ALL, part.all)]
        cells += ((raws[identity(keys)], cell) for keys, cell in part.groups)
        for group, cell in cells:
            weights = enumerate(cast("list[int]", cell.sums[-1]) if cell is not None else ())
            if of_place := {number: Held(weight, weight // WHOLE) for number, weight in weights if weight}:
                held[group, span] = of_place
    return Bins(bounds=binned.bounds, held=held)


def _first_keys(
    session: Session, tables: Tables, query: AggregateQuery, read: Reading
) -> Sequence[RawKey] | None:
    """Return the keys of the first groups by percentiles; ``None`` if there are too many groups to tell."""
    first = cast("Percentiles", query.measures[0])
    every = _Aggregates(session, tables, replace(query, measures=(Count(),), bounds=(), top=MAX_TOP), read)
    found = every.parts()
    if found.others or found.whole.all is None:
        return None
    parts = Parts(groups=found.keys, records=found.whole.all.records)
    places = every.places(parts, [first])
    if places is None:
        return None
    ranks = places[first]

    def order(raw: RawKey) -> tuple[bool, float, object]:
        return order_of(query, read.keys_of(raw), Cell(0, [ranks.get((raw, None), nothing(first))]))

    return sorted(found.keys, key=order)[: query.top]


def _of_bins(query: AggregateQuery, found: Sequence[Cell]) -> Cell:
    """Return the cell of one group, of whose histograms each of *found* holds `OneBin`."""
    sums: list[object] = []
    for at, measure in enumerate(query.measures):
        each = [cell.sums[at] for cell in found]
        if isinstance(measure, Histogram):
            # In one list: to make one of each row takes longer than all else that is done with it.
            bins = [0] * (len(measure.bounds) + 1)
            for one in cast("list[OneBin | None]", each):
                if one is not None:
                    bins[one[0]] += one[1]
            sums.append(bins)
        else:
            sums.append(merged_sums(measure, each))
    return Cell(sum(cell.records for cell in found), sums, sum(cell.left_out for cell in found))
