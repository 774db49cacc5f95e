"""Percentiles without sorting in the database, for those that take long to number millions of records.

A few bounds, from a sample of the numbers, part them into bins. One statement weighs the bins of each group,
which tells in which of them each percentile is, and how far into it: that of the other measures, where it can.
Another fetches the numbers in these few bins alone, each different one once. A number that many records have is
a bin of its own.
"""
# ruff: noqa: S608 - values are bound, so all text in a statement is from here

from __future__ import annotations

import sys
from abc import abstractmethod
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from math import gcd, inf, nextafter
from typing import Any, LiteralString, Protocol, TypeAlias

from flask_chest.aggregates import HUNDRED, Percentiles
from flask_chest.stores.sql.reading import Reading
from flask_chest.stores.sql.tables import Condition, SQLValue
from flask_chest.stores.sql.written import digits, joined, reached, text

FEWEST_BINS, MOST_BINS = 64, 256
"""Of more, fewer numbers are fetched; but each is weighed in each group and span of time."""
MOST_WEIGHED = 200_000
"""Bins of all groups and spans that are weighed at most, where they are not the fewest."""
SAMPLE = 4_000
"""Numbers by which the bounds are chosen, about."""
FEW = 20_000
"""Records of which all numbers are fetched at once."""
MOST = 500_000
"""Numbers that are fetched at most, about: all records of a bin count, but those of a single number once."""

RawKey: TypeAlias = "tuple[SQLValue, ...]"
Place: TypeAlias = "tuple[RawKey | str, int | None]"
"""The key of a group, or `OTHERS` or `ALL`, and the number of a span of time; ``None`` for all time."""
OTHERS, ALL = "others", "all"
Found: TypeAlias = "Mapping[Place, tuple[float | None, ...]]"


class Records(Protocol):
    """What the records of a question are asked."""

    @abstractmethod
    def select(self, statement: LiteralString, values: Sequence[SQLValue] = (), /) -> list[tuple[Any, ...]]:
        """Fetch what *statement* selects of what was ``found``."""

    @abstractmethod
    def sample(self, columns: Sequence[LiteralString], share: int, /) -> list[tuple[Any, ...]]:
        """Fetch *columns* of one in about *share* records, if the first of them is not ``NULL``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Which groups and spans of time are asked about."""

    groups: Sequence[RawKey] = ()
    others: bool = False
    """Whether there are more groups."""
    spans: int = 0
    """Number of spans of time; 0 where only all time is asked about."""
    records: int
    """Number of all records."""

    @property
    def cells(self) -> int:
        """Return how many groups and spans there are at most."""
        return (len(self.groups) + 1) * (self.spans + 1)


@dataclass(frozen=True, slots=True)
class Held:
    """What some numbers come to."""

    weight: int
    records: int

    def __add__(self, other: Held) -> Held:
        return Held(self.weight + other.weight, self.records + other.records)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """Bins of numbers, and what each holds in each place."""

    bounds: Sequence[float]
    held: Mapping[Place, Mapping[int, Held]]


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Some equal numbers, or those of a bin."""

    place: Place
    value: float
    held: Held


@dataclass(frozen=True, slots=True)
class _Rank:
    """Where a percentile is: in a bin, behind so much of its weight."""

    bin: int
    behind: int


class PercentilesByBins:
    """Finds percentiles of the column *number* of *records*, of different measures."""

    def __init__(self, records: Records, read: Reading, parts: Parts, number: LiteralString) -> None:
        self._records = records
        self._read = read
        self._parts = parts
        self._number: LiteralString = number

    def find(self, measures: Sequence[Percentiles], bins: Bins | None = None) -> Sequence[Found] | None:
        """Return what each of *measures* finds; ``None`` where too many numbers would have to be fetched.

        *bins* are those that are weighed already.
        """
        if bins is None and self._parts.records <= FEW:
            numbers = self._by_bin([], {}, ("", ()))
            ranks = _ranks(measures, {place: {0: _together(each)} for (place, _), each in numbers.items()})
        else:
            bins = bins or self._bins()
            ranks = _ranks(measures, bins.held)
            wanted: defaultdict[Place, set[int]] = defaultdict(set)
            for place, ranked in chain.from_iterable(found.items() for found in ranks):
                wanted[place].update(rank.bin for rank in ranked)
            condition, size = self._wanted(bins, wanted)
            if size > MOST:
                return None
            numbers = self._by_bin(bins.bounds, wanted, condition)
        return [
            {
                place: tuple(_value(numbers[place, rank.bin], rank.behind, measure) for rank in ranked)
                for place, ranked in found.items()
            }
            for measure, found in zip(measures, ranks, strict=True)
        ]

    def _by_bin(
        self, bounds: Sequence[float], wanted: Mapping[Place, set[int]], condition: Condition
    ) -> Mapping[tuple[Place, int], Sequence[_Numbers]]:
        """Fetch the numbers of *condition*, and sort them within the bins that are *wanted* of each place."""
        found: defaultdict[tuple[Place, int], list[_Numbers]] = defaultdict(list)
        for numbers in self._weighed(self._number, (), where=condition):
            number = bisect_right(bounds, numbers.value)
            for place in self._places(numbers.place):
                if not bounds or number in wanted.get(place, ()):
                    found[place, number].append(numbers)
        for each in found.values():
            each.sort(key=lambda numbers: numbers.value)
        return found

    def _bins(self) -> Bins:
        """Weigh bins with about as many records each."""
        sample = self._records.sample([self._number], share_of(self._parts.records))
        most = max(MOST_WEIGHED // self._parts.cells, FEWEST_BINS)
        bounds = _bounds([float(number) for (number,) in sample], bins=min(most, MOST_BINS))
        bin_of, values = reached(self._number, bounds, first=0)
        held: defaultdict[Place, dict[int, Held]] = defaultdict(dict)
        for numbers in self._weighed(bin_of, values):
            for place in self._places(numbers.place):
                number, before = int(numbers.value), held[place]
                before[number] = before.get(number, Held(0, 0)) + numbers.held
        return Bins(bounds=bounds, held=held)

    def _places(self, finest: Place) -> Iterator[Place]:
        """Yield all that the records of a group in a span of time belong to."""
        group, span = finest
        for each in {group, ALL}:
            yield each, None
            if span is not None:
                yield each, span

    def _weighed(
        self, number: LiteralString, values: tuple[SQLValue, ...], *, where: Condition = ("", ())
    ) -> Iterator[_Numbers]:
        """Yield the records by *number*, in the finest groups."""
        parts = self._parts
        keys = self._read.names(keys=bool(parts.groups))
        columns: list[LiteralString] = list(keys)
        chosen: Condition = ("", ())
        if parts.groups and parts.others:
            chosen = self._read.has_key(parts.groups)
            columns = [f"CASE WHEN chosen THEN {key} END" for key in keys]
            columns.append("chosen")
        if parts.spans:
            columns.append("b")
        names: list[LiteralString] = [f"p{digits(at)}" for at in range(len(columns))]
        placed: list[LiteralString] = [f"{column} AS {name}" for column, name in zip(columns, names, strict=True)]
        source: LiteralString = "found"
        if chosen[0]:
            source = f"(SELECT found.*, CASE WHEN {chosen[0]} THEN 1 ELSE 0 END AS chosen FROM found) AS parted"
        condition: LiteralString = f"{self._number} IS NOT NULL" + (f" AND ({where[0]})" if where[0] else "")
        select: LiteralString = ", ".join([*placed, f"{number} AS number", "w"])
        grouped: LiteralString = ", ".join([*names, "number"])
        sql: LiteralString = (
            f"SELECT {grouped}, sum(w), count(*) FROM"
            f" (SELECT {select} FROM {source} WHERE {condition}) AS placed GROUP BY {grouped}"
        )
        for *raw, value, weight, records in self._records.select(sql, (*values, *chosen[1], *where[1])):
            span = raw.pop() if parts.spans else None
            is_chosen = bool(raw.pop()) if chosen[0] else True
            group: RawKey | str = ALL
            if parts.groups:
                group = tuple(map(text, raw)) if is_chosen else OTHERS
            place = group, None if span is None else int(span)
            yield _Numbers(place, float(value), Held(int(weight), int(records)))

    def _wanted(self, bins: Bins, wanted: Mapping[Place, set[int]]) -> tuple[Condition, int]:
        """Return the condition of the numbers in the bins that are *wanted*, and how many records have them."""
        bounds = bins.bounds
        by_group: defaultdict[RawKey | str, set[int]] = defaultdict(set)
        for (group, _), of_place in wanted.items():
            by_group[group] |= of_place
        either = [_within(self._number, by_group[ALL], bounds)]
        for group, of_group in by_group.items():
            if isinstance(group, tuple):
                within, values = _within(self._number, of_group, bounds)
                key, key_values = self._read.has_key([group])
                either.append((f"({key}) AND ({within})", (*key_values, *values)))
        if OTHERS in by_group:
            within, values = _within(self._number, by_group[OTHERS], bounds)
            either.append((f"chosen = 0 AND ({within})", values))
        single = {place for place, (begin, end) in enumerate(pairwise(bounds), 1) if end == _next(begin)}
        apart = bool(self._parts.groups)
        size = sum(
            1 if number in single else each.records
            for (group, span), held in bins.held.items()
            if span is None and apart == (group != ALL)
            for number, each in held.items()
            if number in by_group[group] or number in by_group[ALL]
        )
        return joined(either, " OR "), size


def bounds_for(
    records: Records, number: LiteralString, keys: Sequence[LiteralString], *, size: int, cells: int
) -> list[float] | None:
    """Return bounds of bins that the statement of other measures may weigh, which groups by *keys*.

    Return ``None`` where it should not: of *size* records the numbers may be few, which are soon fetched, and the
    bins of many groups are more than so many *cells*.
    """
    if size <= FEW:
        return None
    share = share_of(size)
    sample = records.sample([number, *keys], share)
    groups = len({tuple(key) for _, *key in sample})
    bins = cells // (2 * max(groups, 1))  # of some groups there is none in the sample
    if len(sample) * share <= FEW or bins < FEWEST_BINS:
        return None
    return _bounds([float(number) for number, *_ in sample], bins=min(bins, MOST_BINS))


def share_of(records: int) -> int:
    """Return in how many of so many *records* one is in the sample.

    A cluster numbers records in steps, with gaps between them: in steps of two, no even share might meet any.
    """
    share = max(1, records // SAMPLE)
    while gcd(share, 2 * 3 * 5 * 7) > 1:
        share += 1
    return share


def _bounds(sample: Sequence[float], *, bins: int) -> list[float]:
    """Return the bounds between so many bins, with about as many numbers of the *sample* in each."""
    ordered = sorted(sample)
    bounds = [ordered[len(ordered) * place // bins] for place in range(1, bins)] if ordered else [0.0]
    often = {bound for bound, following in pairwise(bounds) if bound == following}
    return sorted({*bounds, *map(_next, often)})


def _ranks(
    measures: Sequence[Percentiles], held: Mapping[Place, Mapping[int, Held]]
) -> list[dict[Place, list[_Rank]]]:
    return [{place: _ranks_of(measure, bins) for place, bins in held.items()} for measure in measures]


def _ranks_of(measure: Percentiles, bins: Mapping[int, Held]) -> list[_Rank]:
    weights = {number: _weight(measure, held) for number, held in bins.items()}
    total = sum(weights.values())
    ranks: list[_Rank] = []
    for p in measure.ps:
        behind = -(-total * p // HUNDRED)
        for number in sorted(weights):
            if behind <= weights[number]:
                ranks.append(_Rank(number, behind))
                break
            behind -= weights[number]
    return ranks


def _together(numbers: Iterable[_Numbers]) -> Held:
    return sum((each.held for each in numbers), start=Held(0, 0))


def _value(numbers: Sequence[_Numbers], behind: int, measure: Percentiles) -> float | None:
    """Return the first of the sorted *numbers* up to which so much weight has come together."""
    for each in numbers:
        behind -= _weight(measure, each.held)
        if behind <= 0:
            return each.value
    return None


def _weight(measure: Percentiles, held: Held) -> int:
    return held.weight if measure.weighted else held.records


def _next(number: float) -> float:
    """Return the next greater number; that of 0 is not subnormal, which some databases take for 0."""
    return sys.float_info.min if number == 0 else nextafter(number, inf)


def _within(number: LiteralString, bins: Iterable[int], bounds: Sequence[float]) -> Condition:
    """Return the condition that a number is in one of *bins*, of which neighbours are one range."""
    ordered = sorted(bins)
    if not ordered:
        return "1 = 0", ()
    first = [ordered[0], *(after for before, after in pairwise(ordered) if after != before + 1)]
    last = [*(before for before, after in pairwise(ordered) if after != before + 1), ordered[-1]]
    ranges: list[LiteralString] = []
    values: list[SQLValue] = []
    for begin, end in zip(first, last, strict=True):
        both: list[LiteralString] = []
        if begin > 0:
            both.append(f"{number} >= ?")
            values.append(bounds[begin - 1])
        if end < len(bounds):
            both.append(f"{number} < ?")
            values.append(bounds[end])
        ranges.append(" AND ".join(both) or "1 = 1")
    return " OR ".join(ranges), tuple(values)
