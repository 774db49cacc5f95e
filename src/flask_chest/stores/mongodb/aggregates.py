"""Aggregates as pipelines of MongoDB.

One pipeline adds up all that can be added up, for each group and span of time; percentiles and distinct values
have one more each, which sorts what it reads or tells it apart. In a replica set all of them read one snapshot.

What is computed for each document costs most. So documents are first grouped as they are, those of each sample
rate apart, and weights and keys are made of the few groups that are left.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta

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
from flask_chest.stores.aggregates import (
    ALL,
    ALWAYS,
    OTHERS,
    WHOLE,
    Cell,
    Place,
    answer_of_places,
    counted,
    nothing,
    numbers,
)
from flask_chest.stores.mongodb.client import Collections, MongoDBPart
from flask_chest.stores.mongodb.deciding import deciding_condition, path_of
from flask_chest.stores.mongodb.documents import Document
from flask_chest.stores.mongodb.expressions import (
    IS_ERROR,
    RATE,
    UNWEIGHTED,
    Expression,
    bin_of,
    double_of,
    is_left_out,
    is_number,
    is_there,
    key_from,
    key_of,
    number_of,
    numbers_alone,
    place_in_order,
    raw_key_of,
    span_of,
    weight_of,
)
from flask_chest.stores.mongodb.query import find
from flask_chest.stores.reference import aggregate

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
    named = (*query.by, *numbers(query), *counted(query))
    yield from (of.name for of in named if isinstance(of, Variable))


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
        self._numbers: Mapping[Number, int] = {of: at for at, of in enumerate(numbers(query))}
        self._adders: Document = {}
        """How numbers of documents are added up, before they are weighed."""
        self._accumulators: Document = {}
        """How what was added up becomes what `_Sums` hold, and how these are added up again."""
        for at, measure in enumerate(query.measures):
            for each, accumulator in enumerate(self._accumulators_of(measure, f"$_id.part.h{at}")):
                self._accumulators[f"s{at}_{each}"] = accumulator
        if any(isinstance(measure, Percentiles) and measure.weighted for measure in query.measures):
            self._accumulators |= {"least": {"$min": "$w"}, "most": {"$max": "$w"}}
        if beyond := [is_left_out(of) for of in self._numbers if isinstance(of, Variable)]:
            self._adders["left_out"] = {"$sum": {"$add": [{"$cond": [each, 1, 0]} for each in beyond]}}
            self._accumulators["left_out"] = {"$sum": "$left_out"}
        self._bins: Document = {
            f"h{at}": bin_of(each.of, each.bounds)
            for at, each in enumerate(query.measures)
            if isinstance(each, Histogram)
        }

    def answer(self) -> Answer:
        """Ask what is needed."""
        query = self._query
        sums = self._added()
        if (OTHERS, ALWAYS) in sums and isinstance(query.measures[0], Percentiles | Distinct):
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
        keys = {
            group: tuple(key_from(of, raw.get(f"k{at}")) for at, of in enumerate(query.by))
            for group, raw in enumerate(self._keys, 1)
        }
        return answer_of_places(query, keys, cells, left_out=self._left_out)

    def _accumulators_of(self, measure: Measure[object], bin_: str) -> Iterator[Document]:
        """Yield how what was added up for *measure* is weighed; *bin_* is where its bin is."""
        weight: Expression = "$w" if getattr(measure, "weighted", False) else UNWEIGHTED
        if isinstance(measure, ErrorRate):
            self._adders["errors"] = {"$sum": {"$cond": [IS_ERROR, 1, 0]}}
            yield {"$sum": {"$multiply": ["$errors", weight]}}
        if isinstance(measure, Count | ErrorRate):
            yield {"$sum": {"$multiply": ["$records", weight]}}
        if isinstance(measure, Histogram):
            yield {"$sum": {"$multiply": [{"$cond": [{"$gte": [bin_, 0]}, "$records", 0]}, weight]}}
        if isinstance(measure, Sum | Mean):
            yield {"$sum": {"$multiply": [self._added_number(measure.of, "$sum"), weight]}}
        if isinstance(measure, Mean):
            yield {"$sum": {"$multiply": [self._count_of(measure.of), weight]}}
        if isinstance(measure, Minimum | Maximum):
            how = "$min" if isinstance(measure, Minimum) else "$max"
            yield {how: self._added_number(measure.of, how)}

    def _added_number(self, of: Number, how: str) -> str:
        name = f"{how[1:]}{self._numbers[of]}"
        self._adders[name] = {how: number_of(of)}
        return f"${name}"

    def _count_of(self, of: Number) -> str:
        """Return where the number of the records is that have a number of *of*."""
        if not isinstance(of, Variable):
            return "$records"
        name = f"count{self._numbers[of]}"
        self._adders[name] = {"$sum": {"$cond": [is_number(of), 1, 0]}}
        return f"${name}"

    def _added(self, keys: Sequence[Document] | None = None) -> Mapping[Place, _Sums]:
        """Add up; the groups of the answer are those with *keys*, or else the first by what was added up."""
        query = self._query
        parts: Document = {"span": span_of(query)} if query.bounds else {}
        parts |= self._bins
        told: Document = {"part": parts} if parts else {}
        if query.by:
            told["keys"] = self._raw_keys()
        weighed = {"records": {"$sum": "$records"}, **self._accumulators}
        same: Document = {}
        if parts:
            same["part"] = "$_id.part"
        if query.by:
            same["keys"] = self._keys_of("$_id.keys")
        pipeline: list[Document] = [
            {"$match": self._wanted},
            {"$group": {"_id": {**told, "rate": RATE}, "records": {"$sum": 1}, **self._adders}},
            {"$set": {"w": weight_of("$_id.rate")}},
            {"$group": {"_id": same or None, **weighed}},
        ]
        if query.by and parts:
            pipeline += [
                {
                    "$group": {
                        "_id": "$_id.keys",
                        **_added_again(weighed),
                        "parts": {"$push": {"part": "$_id.part", **{name: f"${name}" for name in weighed}}},
                    }
                },
                *self._placed(keys),
                {"$unwind": "$parts"},
                {
                    "$group": {
                        "_id": {"group": "$group", "part": "$parts.part"},
                        "keys": {"$first": "$_id"},
                        **_added_again(weighed, "parts."),
                    }
                },
            ]
        elif query.by:
            pipeline += [
                {"$group": {"_id": "$_id.keys", **_added_again(weighed)}},
                *self._placed(keys),
                {"$group": {"_id": {"group": "$group"}, "keys": {"$first": "$_id"}, **_added_again(weighed)}},
            ]
        return self._folded(pipeline, fixed=keys is not None)

    def _raw_keys(self) -> Document:
        return {f"k{at}": raw_key_of(of) for at, of in enumerate(self._query.by)}

    def _keys_of(self, raw: str | None = None) -> Document:
        """Return the key of a group: of a document, or of the *raw* keys at a path."""
        return {
            f"k{at}": key_of(of, None if raw is None else f"{raw}.k{at}") for at, of in enumerate(self._query.by)
        }

    def _placed(self, keys: Sequence[Document] | None) -> Iterator[Document]:
        """Yield the stages that set the place of each group in the answer."""
        if keys is not None:
            yield {"$set": {"group": _place("$_id", keys)}}
            return
        measure = self._query.measures[0]
        order = place_in_order(_value(measure), self._query.by, "$_id")
        yield {"$set": {"order": order}}
        yield {"$setWindowFields": {"sortBy": {"order": 1}, "output": {"place": {"$documentNumber": {}}}}}
        is_chosen = {"$lte": ["$place", self._query.top]}
        yield {"$set": {"group": {"$cond": [is_chosen, "$place", OTHERS]}}}

    def _folded(self, pipeline: list[Document], *, fixed: bool) -> Mapping[Place, _Sums]:
        """Add up what *pipeline* gives for each part to what is of several."""
        sums: defaultdict[Place, _Sums] = defaultdict(_Sums)
        keys: dict[int, Document] = {}
        for row in self._run(pipeline):
            place: Document = row["_id"] or {}
            part: Mapping[str, int] = place.get("part", {})
            group, span = place.get("group", ALL), int(part.get("span", ALWAYS))
            if not 0 < span < len(self._query.bounds):
                span = ALWAYS
            if group > OTHERS:
                keys[group] = row["keys"]
            for each in {(group, span), (group, ALWAYS), (ALL, span), (ALL, ALWAYS)}:
                self._add(sums[each], row, part)
        if not fixed:
            self._keys = [keys[place] for place in sorted(keys)]
        if (ALL, ALWAYS) in sums:
            every = sums[ALL, ALWAYS].of
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
            {"$match": {"$and": [self._wanted, numbers_alone(of)]}},
            *self._in_places(_read(double_of(of), weighted=weighted), self._keys_of()),
            *_ranked("$place", ps, weighted=weighted),
            {"$group": {"_id": "$place", **{f"p{p}": _percentile(p) for p in ps}}},
        ]
        return {self._place_of(row["_id"]): {p: row[f"p{p}"] for p in ps} for row in self._run(pipeline)}

    def _distinct(self, measure: Distinct) -> Mapping[Place, int]:
        told: Document = {"d": raw_key_of(measure.of), "keys": self._raw_keys()}
        if self._query.bounds:
            told["span"] = span_of(self._query)
        pipeline = [
            {"$match": self._wanted},
            {"$group": {"_id": told}},
            *self._in_places({"d": key_of(measure.of, "$_id.d")}, self._keys_of("$_id.keys"), "$_id.span"),
            {"$match": {"$expr": is_there(measure.of, "$d")}},
            {"$group": {"_id": {"place": "$place", "d": "$d"}}},
            {"$group": {"_id": "$_id.place", "count": {"$sum": 1}}},
        ]
        return {self._place_of(row["_id"]): int(row["count"]) for row in self._run(pipeline)}

    def _first_groups(self, measure: Percentiles | Distinct) -> list[Document]:
        """Return the keys of the groups of the answer, which *measure* orders."""
        if isinstance(measure, Percentiles):
            weighted = measure.weighted and self._sampled
            read = {"_id": 0, "keys": self._keys_of(), **_read(number_of(measure.of), weighted=weighted)}
            pipeline: list[Document] = [
                {"$match": self._wanted},
                {"$project": read},
                # Apart from them, as null comes before all numbers.
                *_ranked(
                    {"keys": "$keys", "is_number": {"$ne": ["$n", None]}}, measure.ps[:1], weighted=weighted
                ),
                {"$group": {"_id": "$keys", "value": _percentile(measure.ps[0])}},
            ]
        else:
            distinct = {"keys": self._keys_of("$_id.keys"), "d": key_of(measure.of, "$_id.d")}
            pipeline = [
                {"$match": self._wanted},
                {"$group": {"_id": {"keys": self._raw_keys(), "d": raw_key_of(measure.of)}}},
                {"$group": {"_id": distinct}},
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

    def _in_places(self, read: Document, keys: Document, span: Expression = None) -> Iterator[Document]:
        """Yield the stages by which *read* comes once for each of its places: group and all, span and any time.

        *keys* are those of its group; *span* is where that of its time was put already.
        """
        query = self._query
        spans = max(len(query.bounds), 1)
        places: list[Expression] = [{"$literal": (len(self._keys) + 1) * spans}]
        if query.by:
            places.append({"$multiply": [_place(keys, self._keys), spans]})
        if not query.bounds:
            yield {"$project": {"_id": 0, **read, "place": places}}
        else:
            yield {"$project": {"_id": 0, **read, "group": places, "span": span or span_of(query)}}
            is_in_one = {"$and": [{"$gte": ["$span", 1]}, {"$lt": ["$span", spans]}]}
            in_span = [{"$add": [{"$arrayElemAt": ["$group", at]}, "$span"]} for at in range(len(places))]
            both = {"$concatArrays": ["$group", in_span]}
            kept = dict.fromkeys(read, 1)
            yield {"$project": {**kept, "place": {"$cond": [is_in_one, both, "$group"]}}}
        yield {"$unwind": "$place"}

    def _place_of(self, number: int) -> Place:
        group, span = divmod(int(number), max(len(self._query.bounds), 1))
        return (ALL if group > len(self._keys) else group), span

    def _run(self, pipeline: list[Document]) -> Iterator[Document]:
        yield from self._collections.records.aggregate(pipeline, session=self._session, allowDiskUse=True)


_FOLD: Mapping[str, Callable[[float, float], float]] = {"$sum": operator.add, "$min": min, "$max": max}


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


def _place(keys: Expression, of: Sequence[Document]) -> Document:
    return {"$add": [{"$indexOfArray": [{"$literal": list(of)}, keys]}, 1]}


def _read(number: Expression, *, weighted: bool) -> Document:
    """Return what is read to rank by *number*."""
    return {"n": number, "w": weight_of(RATE)} if weighted else {"n": number}


def _ranked(partition: Expression, ps: Iterable[int], *, weighted: bool) -> Iterator[Document]:
    """Yield the stages that leave the numbers at *ps*, each with how much there is up to it, and in all."""
    add: Document = {"$sum": "$w"} if weighted else {"$count": {}}
    # The number of a document, as for a sum some engines add up all before it each time.
    until: Document = {**add, "window": _UP_TO_HERE} if weighted else {"$documentNumber": {}}
    yield {
        "$setWindowFields": {
            "partitionBy": partition,
            "sortBy": {"n": 1},
            "output": {"until": until, "total": {**add, "window": _WHOLE_PARTITION}},
        }
    }
    # To group all of them would make each of them anew, once for each percentile.
    before: Document = {"$subtract": ["$until", "$w" if weighted else 1]}
    at = [{"$and": [_reaches("$until", p), {"$not": [_reaches(before, p)]}]} for p in ps]
    yield {"$match": {"$expr": {"$or": at}}}


def _reaches(until: Expression, p: int) -> Document:
    return {"$gte": [{"$multiply": [until, HUNDRED]}, {"$multiply": ["$total", p]}]}


def _percentile(p: int) -> Document:
    """Return the accumulator of the first number up to which there is *p* per cent; with weights by these."""
    return {"$min": {"$cond": [_reaches("$until", p), "$n", None]}}


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
