"""Aggregates as pipelines of MongoDB.

One pipeline adds up all that can be added up, for each group and span of time; percentiles and distinct values
have one more each, which sorts what it reads or tells it apart. In a replica set all of them read one snapshot.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias

from msgspec.structs import replace
from pymongo.client_session import ClientSession

from flask_chest.aggregates import (
    HUNDRED,
    AggregateQuery,
    Answer,
    Count,
    Distinct,
    ErrorRate,
    Histogram,
    Maximum,
    Mean,
    Measure,
    Minimum,
    Number,
    Percentiles,
    Sum,
    Variable,
)
from flask_chest.protocols import Aggregation
from flask_chest.stores.aggregates import WHOLE, Cell, Keys, Part, answer, measured, nothing, numbers
from flask_chest.stores.mongodb.client import Collections, MongoDBPart
from flask_chest.stores.mongodb.deciding import deciding_condition, path_of
from flask_chest.stores.mongodb.documents import Document
from flask_chest.stores.mongodb.expressions import (
    IS_ERROR,
    UNWEIGHTED,
    WEIGHT,
    Expression,
    is_left_out,
    is_there,
    key_from,
    key_of,
    number_of,
    place_in_order,
    span_of,
    step_of,
)
from flask_chest.stores.mongodb.query import find
from flask_chest.stores.reference import aggregate

Place: TypeAlias = tuple[int, int]
"""A group and a span of time."""
_ALL, _OTHERS = -1, 0
"""In the place of a group: everything, and what is in none of the groups of the answer; the first one is 1."""
_ALWAYS = 0
"""In the place of a span: any time; the first one is 1."""

_WHOLE_PARTITION = {"documents": ["unbounded", "unbounded"]}
_UP_TO_HERE = {"documents": ["unbounded", "current"]}


class MongoDBAggregation(MongoDBPart, Aggregation):
    """Computes in the database, except where it cannot decide which records are meant."""

    def aggregate(self, query: AggregateQuery, /, *, timeout: timedelta | None = None) -> Answer:
        """Return the answer, of one moment in a replica set; past *timeout*, raise `QueryTimeout`."""
        meant = replace(query.query, limit=None)
        wanted = deciding_condition(meant)
        if wanted is None or not all(path_of(name) for name in _variables(query)):
            return aggregate(find(self._collections, meant, timeout=timeout), query)
        with self._collections.answering(timeout=timeout) as collections, _snapshot(collections) as session:
            return _Question(collections, session, query, wanted).answer()


@contextmanager
def _snapshot(collections: Collections) -> Iterator[ClientSession | None]:
    """Let everything be read as of one moment, where that can be: a single server keeps no snapshots."""
    client = collections.database.client
    hello = client["admin"].command("hello")
    keeps_snapshots = "setName" in hello or hello.get("msg") == "isdbgrid"
    with client.start_session(snapshot=True) if keeps_snapshots else nullcontext() as session:
        yield session


def _variables(query: AggregateQuery) -> Iterator[str]:
    distinct = [measure.of for measure in query.measures if isinstance(measure, Distinct)]
    yield from (of.name for of in (*query.by, *numbers(query), *distinct) if isinstance(of, Variable))


@dataclass(slots=True)
class _Sums:
    """What was added up of some records."""

    records: int = 0
    of: dict[str, float | None] = field(default_factory=dict)
    bins: dict[str, defaultdict[int, float]] = field(default_factory=dict)


class _Question:
    """One question, asked in several pipelines."""

    def __init__(
        self, collections: Collections, session: ClientSession | None, query: AggregateQuery, wanted: Document
    ) -> None:
        self._collections = collections
        self._session = session
        self._query = query
        self._wanted = wanted
        self._keys: list[Document] = []
        """The keys of the groups in the answer, as the database has them."""
        self._sampled = False
        """Whether records count differently, so that percentiles go by weight."""
        self._left_out = 0
        self._numbers: Mapping[Number, str] = {of: f"n{at}" for at, of in enumerate(numbers(query))}
        self._accumulators = {
            f"s{at}_{each}": accumulator
            for at, measure in enumerate(query.measures)
            for each, accumulator in enumerate(_accumulators(measure, self._number(measure)))
        }
        if any(isinstance(measure, Percentiles) and measure.weighted for measure in query.measures):
            self._accumulators |= {"least": {"$min": "$w"}, "most": {"$max": "$w"}}
        beyond = [is_left_out(of) for of in self._numbers if isinstance(of, Variable)]
        if beyond:
            self._accumulators["left_out"] = {"$sum": "$left_out"}
        self._beyond: Document = {"$add": [{"$cond": [each, 1, 0]} for each in beyond]}
        self._bins: Document = {
            f"h{at}": _bin(self._number(each), each)
            for at, each in enumerate(query.measures)
            if isinstance(each, Histogram)
        }

    def answer(self) -> Answer:
        """Ask what is needed."""
        query = self._query
        sums = self._added()
        if (_OTHERS, _ALWAYS) in sums and isinstance(query.measures[0], Percentiles | Distinct):
            self._keys = self._first_groups(query.measures[0])
            sums = self._added(self._keys)
        found = self._found()
        cells = {
            place: Cell(
                each.records,
                [_held(of, at, each, found.get(at, {}).get(place)) for at, of in enumerate(query.measures)],
            )
            for place, each in sums.items()
        }
        keys = [tuple(key_from(of, raw.get(f"k{at}")) for at, of in enumerate(query.by)) for raw in self._keys]
        return answer(
            query,
            _part(keys, cells, _ALWAYS),
            {number: _part(keys, cells, number + 1) for number in range(len(query.bounds) - 1)},
            left_out=self._left_out,
        )

    def _number(self, measure: Measure[object]) -> str:
        of = measured(measure)
        return "" if of is None else f"${self._numbers[of]}"

    def _added(self, keys: Sequence[Document] | None = None) -> Mapping[Place, _Sums]:
        """Add up; the groups of the answer are those with *keys*, or else the first by what was added up."""
        query = self._query
        read: Document = {name: number_of(of) for of, name in self._numbers.items()}
        if any(getattr(measure, "weighted", False) for measure in query.measures):
            read["w"] = WEIGHT
        if any(isinstance(measure, ErrorRate) for measure in query.measures):
            read["is_error"] = IS_ERROR
        if "left_out" in self._accumulators:
            read["left_out"] = self._beyond
        parts: Document = {"span": "$span"} if query.bounds else {}
        parts |= self._bins
        add = {"records": {"$sum": 1}, **self._accumulators}
        pipeline = self._read(read, keys=True, spans=True)
        if not query.by:
            pipeline.append({"$group": {"_id": parts or None, **add}})
        elif parts:
            pipeline += [
                {"$group": {"_id": {"keys": "$keys", "part": parts}, **add}},
                {
                    "$group": {
                        "_id": "$_id.keys",
                        **_added_again(add),
                        "parts": {"$push": {"part": "$_id.part", **{name: f"${name}" for name in add}}},
                    }
                },
                *self._placed(keys),
                {"$unwind": "$parts"},
                {
                    "$group": {
                        "_id": {"group": "$group", **{name: f"$parts.part.{name}" for name in parts}},
                        "keys": {"$first": "$_id"},
                        **_added_again(add, "parts."),
                    }
                },
            ]
        else:
            pipeline += [
                {"$group": {"_id": "$keys", **add}},
                *self._placed(keys),
                {"$group": {"_id": {"group": "$group"}, "keys": {"$first": "$_id"}, **_added_again(add)}},
            ]
        return self._folded(pipeline, fixed=keys is not None)

    def _placed(self, keys: Sequence[Document] | None) -> Iterator[Document]:
        """Give each group its place in the answer."""
        if keys is not None:
            yield {"$set": {"group": _place("$_id", keys)}}
            return
        measure = self._query.measures[0]
        order = place_in_order(_value(measure), self._query.by, "$_id")
        yield {"$set": {"order": order}}
        yield {"$setWindowFields": {"sortBy": {"order": 1}, "output": {"place": {"$documentNumber": {}}}}}
        is_chosen = {"$lte": ["$place", self._query.top]}
        yield {"$set": {"group": {"$cond": [is_chosen, "$place", _OTHERS]}}}

    def _folded(self, pipeline: list[Document], *, fixed: bool) -> Mapping[Place, _Sums]:
        """Add up what *pipeline* gives for each part to what is of several."""
        sums: defaultdict[Place, _Sums] = defaultdict(_Sums)
        keys: dict[int, Document] = {}
        for row in self._run(pipeline):
            part: Mapping[str, int] = row["_id"] or {}
            group, span = part.get("group", _ALL), part.get("span", _ALWAYS)
            if group > _OTHERS:
                keys[group] = row["keys"]
            for place in {(group, span), (group, _ALWAYS), (_ALL, span), (_ALL, _ALWAYS)}:
                self._add(sums[place], row, part)
        if not fixed:
            self._keys = [keys[place] for place in sorted(keys)]
        if (_ALL, _ALWAYS) in sums:
            every = sums[_ALL, _ALWAYS].of
            self._sampled = every.get("least") != every.get("most")
            self._left_out = int(every.get("left_out") or 0)
        return sums

    def _add(self, sums: _Sums, row: Mapping[str, float | None], part: Mapping[str, int]) -> None:
        sums.records += int(row["records"] or 0)
        for name, accumulator in self._accumulators.items():
            number, before = row[name], sums.of.get(name)
            if number is not None:
                (how,) = accumulator
                sums.of[name] = number if before is None else _FOLD[how](before, number)
        for name in self._bins:
            bins = sums.bins.setdefault(name, defaultdict(int))
            bins[part[name]] += row[f"s{name[1:]}_0"] or 0

    def _found(self) -> Mapping[int, Mapping[Place, object]]:
        """Find what cannot be added up, for each measure, by its number."""
        query = self._query
        asked: defaultdict[tuple[Number, bool], set[int]] = defaultdict(set)
        for measure in query.measures:
            if isinstance(measure, Percentiles):
                asked[measure.of, measure.weighted and self._sampled].update(measure.ps)
        percentiles = {
            each: self._percentiles(each[0], sorted(ps), weighted=each[1]) for each, ps in asked.items()
        }
        found: dict[int, Mapping[Place, object]] = {}
        for at, measure in enumerate(query.measures):
            if isinstance(measure, Percentiles):
                of_all = percentiles[measure.of, measure.weighted and self._sampled]
                found[at] = {place: [values[p] for p in measure.ps] for place, values in of_all.items()}
            elif isinstance(measure, Distinct):
                found[at] = self._distinct(measure)
        return found

    def _percentiles(
        self, of: Number, ps: Sequence[int], *, weighted: bool
    ) -> Mapping[Place, Mapping[int, object]]:
        pipeline = [
            *self._read({"n": number_of(of), **({"w": WEIGHT} if weighted else {})}, keys=True, spans=True),
            {"$match": {"n": {"$ne": None}}},
            *self._in_places({"n": "$n", **({"w": "$w"} if weighted else {})}, ""),
            _ranked("$place", weighted=weighted),
            {"$group": {"_id": "$place", **{f"p{p}": _percentile(p) for p in ps}}},
        ]
        return {self._place_of(row["_id"]): {p: row[f"p{p}"] for p in ps} for row in self._run(pipeline)}

    def _distinct(self, measure: Distinct) -> Mapping[Place, int]:
        pipeline = [
            *self._read({"d": key_of(measure.of)}, keys=True, spans=True),
            {"$match": {"$expr": is_there(measure.of, "$d")}},
            {"$group": {"_id": {"keys": "$keys", "span": "$span", "d": "$d"}}},
            *self._in_places({"d": "$_id.d"}, "_id."),
            {"$group": {"_id": {"place": "$place", "d": "$d"}}},
            {"$group": {"_id": "$_id.place", "count": {"$sum": 1}}},
        ]
        return {self._place_of(row["_id"]): int(row["count"]) for row in self._run(pipeline)}

    def _first_groups(self, measure: Percentiles | Distinct) -> list[Document]:
        """Return the keys of the groups of the answer, which *measure* orders."""
        if isinstance(measure, Percentiles):
            weighted = measure.weighted and self._sampled
            read = {"n": number_of(measure.of), **({"w": WEIGHT} if weighted else {})}
            pipeline = [
                *self._read(read, keys=True),
                # Apart from them, as null comes before all numbers.
                _ranked({"keys": "$keys", "is_number": {"$ne": ["$n", None]}}, weighted=weighted),
                {"$group": {"_id": "$keys", "value": _percentile(measure.ps[0])}},
            ]
        else:
            pipeline = [
                *self._read({"d": key_of(measure.of)}, keys=True),
                {"$group": {"_id": {"keys": "$keys", "d": "$d"}}},
                {
                    "$group": {
                        "_id": "$_id.keys",
                        "value": {"$sum": {"$cond": [is_there(measure.of, "$_id.d"), 1, 0]}},
                    }
                },
            ]
        pipeline += [
            {"$set": {"order": place_in_order("$value", self._query.by, "$_id")}},
            {"$sort": {"order": 1}},
            {"$limit": self._query.top},
        ]
        return [row["_id"] for row in self._run(pipeline)]

    def _read(self, read: Document, *, keys: bool = False, spans: bool = False) -> list[Document]:
        """Begin a pipeline: only what is asked for goes on."""
        query = self._query
        if keys and query.by:
            read = {**read, "keys": {f"k{at}": key_of(of) for at, of in enumerate(query.by)}}
        if spans and query.bounds:
            read = {**read, "span": span_of(query.bounds)}
        return [{"$match": self._wanted}, {"$project": {"_id": 0, **read}}]

    def _in_places(self, read: Document, prefix: str) -> Iterator[Document]:
        """Let each document come once for each of its places: in its group and in all, in its span and always."""
        query = self._query
        spans = max(len(query.bounds), 1)
        groups: list[Expression] = [{"$literal": (len(self._keys) + 1) * spans}]
        if query.by:
            groups.append("$$group")
        places: Document | list[Expression] = groups
        if query.bounds:
            span = f"${prefix}span"
            both = [*groups, *({"$add": [group, span]} for group in groups)]
            places = {"$cond": [{"$gt": [span, 0]}, both, groups]}
        if query.by:
            group = {"$multiply": [_place(f"${prefix}keys", self._keys), spans]}
            places = {"$let": {"vars": {"group": group}, "in": places}}
        yield {"$project": {"_id": 0, **read, "place": places}}
        yield {"$unwind": "$place"}

    def _place_of(self, number: int) -> Place:
        group, span = divmod(int(number), max(len(self._query.bounds), 1))
        return (_ALL if group > len(self._keys) else group), span

    def _run(self, pipeline: list[Document]) -> Iterator[Document]:
        yield from self._collections.records.aggregate(pipeline, session=self._session, allowDiskUse=True)


_FOLD: Mapping[str, Callable[[float, float], float]] = {"$sum": operator.add, "$min": min, "$max": max}


def _accumulators(measure: Measure[object], number: str) -> Sequence[Document]:
    """Return how a `$group` adds up for *measure*, which is of the field *number*."""
    weight: Expression = "$w" if getattr(measure, "weighted", False) else UNWEIGHTED
    of_numbers = {"$sum": {"$multiply": [number, weight]}}
    weights_of_numbers = {"$sum": {"$cond": [{"$gt": [number, None]}, weight, 0]}}
    found: Mapping[type, Sequence[Document]] = {
        Count: [{"$sum": weight}],
        ErrorRate: [{"$sum": {"$cond": ["$is_error", weight, 0]}}, {"$sum": weight}],
        Sum: [of_numbers],
        Mean: [of_numbers, weights_of_numbers],
        Minimum: [{"$min": number}],
        Maximum: [{"$max": number}],
        Histogram: [weights_of_numbers],
    }
    return found.get(type(measure), [])


def _bin(number: str, measure: Histogram) -> Document:
    return {"$cond": [{"$gt": [number, None]}, step_of(number, measure.bounds), -1]}


def _value(measure: Measure[object]) -> Expression:
    """Return by what groups are ordered if *measure* comes first: by their records, if it was not added up."""
    match measure:
        case Sum():
            return {"$divide": ["$s0_0", WHOLE]}
        case ErrorRate() | Mean():
            return {"$cond": [{"$gt": ["$s0_1", 0]}, {"$divide": ["$s0_0", "$s0_1"]}, None]}
        case Percentiles() | Distinct():
            return "$records"
        case _:
            return "$s0_0"


def _added_again(add: Mapping[str, Document], prefix: str = "") -> Document:
    return {name: {how: f"${prefix}{name}"} for name, accumulator in add.items() for how in accumulator}


def _place(keys: str, of: Sequence[Document]) -> Document:
    return {"$add": [{"$indexOfArray": [{"$literal": list(of)}, keys]}, 1]}


def _ranked(partition: Expression, *, weighted: bool) -> Document:
    """Return the stage that tells of each number how much there is up to it, and in all."""
    add: Document = {"$sum": "$w"} if weighted else {"$count": {}}
    # The number of a document, as for a sum some engines add up all before it each time.
    until: Document = {**add, "window": _UP_TO_HERE} if weighted else {"$documentNumber": {}}
    return {
        "$setWindowFields": {
            "partitionBy": partition,
            "sortBy": {"n": 1},
            "output": {"until": until, "total": {**add, "window": _WHOLE_PARTITION}},
        }
    }


def _percentile(p: int) -> Document:
    """Return the accumulator of the first number up to which there is *p* per cent; with weights by these."""
    is_there = {"$gte": [{"$multiply": ["$until", HUNDRED]}, {"$multiply": ["$total", p]}]}
    return {"$min": {"$cond": [is_there, "$n", None]}}


def _held(measure: Measure[object], at: int, sums: _Sums, found: object) -> object:
    """Return what a `Cell` holds of *measure*."""
    first, second = (sums.of.get(f"s{at}_{each}") for each in (0, 1))
    match measure:
        case Count() | Sum() | Minimum() | Maximum():
            return first
        case ErrorRate() | Mean():
            return first, second
        case Histogram():
            bins = sums.bins[f"h{at}"]
            return [int(bins[number]) for number in range(len(measure.bounds) + 1)]
        case _:
            return nothing(measure) if found is None else found


def _part(keys: Sequence[Keys], cells: Mapping[Place, Cell], span: int) -> Part:
    places = ((each, (number, span)) for number, each in enumerate(keys, 1))
    return Part(
        groups=[(each, cells[place]) for each, place in places if place in cells],
        others=cells.get((_OTHERS, span)),
        all=cells.get((_ALL, span)),
    )
