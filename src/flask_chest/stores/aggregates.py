"""What the stores share to aggregate: weights, the making of an answer, and the reference that defines it.

A store adds up what its database is good at and hands over `Cell` after cell; what a cell holds for each kind of
measure is said at `Cell.sums`. How sums become the values of an answer is written here once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import floor
from typing import Any, TypeAlias, cast

from flask_chest.aggregates import (
    AggregateQuery,
    Answer,
    Bin,
    Bucket,
    Column,
    Count,
    Distinct,
    ErrorRate,
    Histogram,
    Key,
    Maximum,
    Mean,
    Measure,
    Minimum,
    NoScalar,
    Number,
    Percentiles,
    Row,
    Sum,
    Variable,
)

WHOLE = 1_000_000
"""Weight of a record that was not sampled; weights are whole numbers, which every database adds exactly."""
LEAST_RATE = 1e-6
"""Least sample rate that a weight can express; a lower one counts as this."""
NANOSECONDS = 1e9

Keys: TypeAlias = tuple[Key, ...]
"""The key of a group: one for each part of ``by``."""
Identity: TypeAlias = tuple[tuple[int, float, str], ...]
"""What tells keys apart: to Python 1, 1.0 and ``True`` are equal."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a store found of some records."""

    records: int
    """Number of the records."""
    sums: list[object]
    """What it found for each measure:

    * `Count`: the sum of weights; `ErrorRate`: that of the errors, and that of all;
    * `Sum`: the sum of numbers times weight; `Mean`: that, and the sum of the weights of records with a number;
    * `Minimum`, `Maximum`: a number or ``None``; `Percentiles`: a number or ``None`` for each;
    * `Distinct`: the number of keys;
    * `Histogram`: the sum of weights in each bin.

    A weight is a `weight`, or `WHOLE` where the measure is not weighted.
    """
    left_out: int = 0
    """Numbers that are beyond `MAX_NUMBER`."""


Place: TypeAlias = tuple[int, int]
"""A group of an answer, and a span of its time."""
ALL, OTHERS = -1, 0
"""In the place of a group: everything, and what is in none of the groups of the answer; the first one is 1."""
ALWAYS = 0
"""In the place of a span: any time; the first one is 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The cells of a whole answer, or of one span of its time; those that are missing have no records."""

    groups: Iterable[tuple[Keys, Cell]] = ()
    """Groups with their keys, in any order."""
    others: Cell | None = None
    all: Cell | None = None


def weight(sample_rate: float) -> int:
    """Return for how many millionths of a request a record counts."""
    return floor(WHOLE / max(sample_rate, LEAST_RATE) + 0.5)


def answer(query: AggregateQuery, whole: Part, series: Mapping[int, Part], *, left_out: int) -> Answer:
    """Make the answer to *query*: of *whole*, whose groups decide the order, and of each bucket of *series*."""
    groups = sorted(whole.groups, key=lambda group: order_of(query, *group))
    order = [keys for keys, _ in groups]
    return Answer(
        query=query,
        groups=_groups(query, whole, order),
        others=_row(query, (), whole.others),
        all=_row(query, (), whole.all),
        series=tuple(
            _bucket(query, series.get(number, Part()), order, begin, end)
            for number, (begin, end) in enumerate(pairwise(query.bounds))
        ),
        left_out=left_out,
    )


def answer_of_places(
    query: AggregateQuery, keys: Mapping[int, Keys], cells: Mapping[Place, Cell], *, left_out: int
) -> Answer:
    """Make the answer to *query* of the cell in each place, where *keys* are those of the groups."""

    def part(span: int) -> Part:
        return Part(
            groups=[(each, cells[group, span]) for group, each in keys.items() if (group, span) in cells],
            others=cells.get((OTHERS, span)),
            all=cells.get((ALL, span)),
        )

    series = {number: part(number + 1) for number in range(len(query.bounds) - 1)}
    return answer(query, part(ALWAYS), series, left_out=left_out)


def identity(keys: Keys) -> Identity:
    """Return what is equal for equal keys of equal types alone, and sorts by them, texts by code points."""
    return tuple(map(_identity, keys))


def _identity(key: Key) -> tuple[int, float, str]:
    if isinstance(key, NoScalar):
        return (0 if key is NoScalar.ABSENT else 6 if key is NoScalar.LIST else 7), 0.0, ""
    if key is None:
        return 1, 0.0, ""
    if isinstance(key, bool):
        return (3 if key else 2), 0.0, ""
    if isinstance(key, str):
        return 5, 0.0, key
    return 4, float(key), repr(key + 0)  # without the sign of -0.0


def measured(measure: Measure[object]) -> Number | None:
    """Return what *measure* is of, if it is of a number."""
    return measure.of if isinstance(measure, Sum | Mean | Minimum | Maximum | Percentiles | Histogram) else None


def numbers(query: AggregateQuery) -> list[Number]:
    """Return what the measures of *query* are of, each once."""
    return list(dict.fromkeys(of for each in query.measures if (of := measured(each)) is not None))


def counted(query: AggregateQuery) -> list[Column | Variable]:
    """Return what the measures of *query* count the distinct values of, each once."""
    return [each.of for each in query.measures if isinstance(each, Distinct)]


def order_of(query: AggregateQuery, keys: Keys, cell: Cell) -> tuple[bool, float, object]:
    """Return what sorts groups by the first measure, the greatest first, and then by their keys."""
    rank = rank_of(query.measures[0], cell.sums[0])
    return rank is None, -(rank or 0.0), identity(keys)


def rank_of(measure: Measure[object], sums: object) -> float | None:
    """Return by what groups are ordered, of what a `Cell` holds of *measure*."""
    value = value_of(measure, sums)
    if isinstance(measure, Count):
        return cast("float", sums)  # before it is rounded
    if isinstance(measure, Percentiles):
        return next(value for _, value in measure.columns(value))
    if isinstance(measure, Histogram):
        return sum(cast("Sequence[int]", sums))
    return cast("float | None", value)


def nothing(measure: Measure[object]) -> object:
    """Return what a `Cell` without records holds of *measure*."""
    match measure:
        case Count() | Distinct():
            return 0
        case ErrorRate():
            return 0, 0
        case Mean():
            return None, 0
        case Percentiles():
            return (None,) * len(measure.ps)
        case Histogram():
            return (0,) * (len(measure.bounds) + 1)
        case _:
            return None


def is_additive(query: AggregateQuery) -> bool:
    """Return whether the cells of groups can be `merged`: not those of percentiles and of different keys."""
    return not any(isinstance(measure, Percentiles | Distinct) for measure in query.measures)


def merged(query: AggregateQuery, cells: Iterable[Cell | None]) -> Cell | None:
    """Return the cell of all records of *cells*, which have no record in common."""
    there = [cell for cell in cells if cell is not None]
    if len(there) <= 1:
        return there[0] if there else None
    return Cell(
        sum(cell.records for cell in there),
        [merged_sums(measure, [cell.sums[at] for cell in there]) for at, measure in enumerate(query.measures)],
        sum(cell.left_out for cell in there),
    )


def merged_sums(measure: Measure[object], sums: Sequence[Any]) -> object:
    """Return what a cell of all records holds of *measure*, if cells without a record in common hold *sums*."""
    if isinstance(measure, Histogram):
        return list(map(sum, zip(*sums, strict=True)))  # of many cells with many bins: no step of Python for each
    if isinstance(measure, ErrorRate | Mean):
        return [sum(each or 0 for each in parts) for parts in zip(*sums, strict=True)]
    found = [each for each in sums if each is not None]
    if isinstance(measure, Minimum | Maximum):
        return (min if isinstance(measure, Minimum) else max)(found, default=None)
    return sum(found)


def value_of(measure: Measure[object], sums: object) -> object:
    """Return the value of *measure* for what a `Cell` holds of it."""
    finish = _FINISH.get(type(measure))
    return sums if finish is None else finish(measure, sums)


def _count(_: Count, weights: int) -> int:
    return (int(weights) + WHOLE // 2) // WHOLE


def _error_rate(_: ErrorRate, weights: tuple[int, int]) -> float | None:
    errors, every = weights
    return int(errors) / int(every) if every else None


def _sum(_: Sum, total: float | None) -> float:
    return float(total or 0.0) / WHOLE


def _mean(_: Mean, sums: tuple[float | None, int]) -> float | None:
    total, weights = sums
    return float(total or 0.0) / int(weights) if weights else None


def _percentiles(measure: Percentiles, found: Sequence[float | None]) -> dict[int, float | None]:
    return dict(zip(measure.ps, found, strict=True))


def _histogram(measure: Histogram, weights: Sequence[int]) -> tuple[Bin, ...]:
    bins = list(_empty_bins(measure.bounds))
    for at, found in enumerate(weights):
        if found:  # as it is in few of many bins
            lower, upper, _ = bins[at]
            bins[at] = Bin(lower, upper, (int(found) + WHOLE // 2) // WHOLE)
    return tuple(bins)


@lru_cache(maxsize=16)
def _empty_bins(bounds: tuple[float, ...]) -> tuple[Bin, ...]:
    return tuple(Bin(lower, upper, 0) for lower, upper in pairwise((None, *bounds, None)))


_FINISH: Mapping[type, Callable[[Any, Any], object]] = {
    Count: _count,
    ErrorRate: _error_rate,
    Sum: _sum,
    Mean: _mean,
    Percentiles: _percentiles,
    Histogram: _histogram,
}


def _groups(query: AggregateQuery, part: Part, order: Sequence[Keys]) -> tuple[Row, ...]:
    cells = {identity(keys): cell for keys, cell in part.groups}
    return tuple(_row(query, keys, cells.get(identity(keys))) for keys in order)


def _row(query: AggregateQuery, keys: Keys, cell: Cell | None) -> Row:
    sums = map(nothing, query.measures) if cell is None else cell.sums
    values = {each: value_of(each, held) for each, held in zip(query.measures, sums, strict=True)}
    return Row(keys, 0 if cell is None else cell.records, values)


def _bucket(query: AggregateQuery, part: Part, order: Sequence[Keys], begin: int, end: int) -> Bucket:
    return Bucket(
        groups=_groups(query, part, order),
        others=_row(query, (), part.others),
        all=_row(query, (), part.all),
        begin_unix_nano=begin,
        end_unix_nano=end,
    )
