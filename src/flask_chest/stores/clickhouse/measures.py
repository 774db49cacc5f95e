"""Each measure as SQL of ClickHouse: the columns that are selected for it, and what they become."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flask_chest.aggregates import (
    Count,
    Distinct,
    ErrorRate,
    Histogram,
    Mean,
    Measure,
    Minimum,
    Percentiles,
    Sum,
)
from flask_chest.stores.aggregates import WHOLE, measured
from flask_chest.stores.clickhouse.reading import Reading
from flask_chest.stores.clickhouse.text import listed

_BELOW = 1e-12
"""How much is taken from a level.

ClickHouse takes the element behind ``n * level`` others, which is the next one where that is a whole number, and
this makes it less than that; it is too little to matter where it is not, for up to 1e9 numbers.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The SQL of a measure: its columns, how they become what a `Cell` holds, and what groups are ordered by."""

    columns: tuple[str, ...]
    sums: Callable[[Sequence[Any]], object]
    rank: str


def piece_of(measure: Measure[object], read: Reading, *, sampled: bool) -> Piece:
    """Return the SQL of *measure*; with *sampled*, percentiles go by weight."""
    weight = "w" if getattr(measure, "weighted", True) else str(WHOLE)
    if isinstance(measure, Count):
        return Piece(columns=(f"sum({weight})",), sums=_whole, rank=f"sum({weight})")
    if isinstance(measure, ErrorRate):
        errors, every = f"sumIf({weight}, e)", f"sum({weight})"
        return Piece(
            columns=(errors, every),
            sums=lambda found: (int(found[0]), int(found[1])),
            rank=f"{errors} / {every}",
        )
    if isinstance(measure, Distinct):
        keys = read.distinct[measure.of]
        counted = f"uniqExactIf({keys}, {keys} != '')"
        return Piece(columns=(counted,), sums=_whole, rank=counted)
    of = measured(measure)
    number = "" if of is None else read.numbers[of]
    if isinstance(measure, Percentiles):
        return _percentiles(measure, number, by_weight=sampled and measure.weighted)
    return _of_number(measure, number, weight)


def _of_number(measure: Measure[object], number: str, weight: str) -> Piece:
    total = f"sumKahan({weight} * {number})"
    having = f"sumIf({weight}, isNotNull({number}))"
    if isinstance(measure, Sum):
        return Piece(columns=(total,), sums=lambda found: found[0], rank=f"ifNull({total}, 0)")
    if isinstance(measure, Mean):
        mean = f"{total} / nullIf({having}, 0)"
        return Piece(columns=(total, having), sums=lambda found: (found[0], int(found[1])), rank=mean)
    if isinstance(measure, Histogram):
        return _histogram(measure, number, weight, having)
    extreme = f"{'min' if isinstance(measure, Minimum) else 'max'}({number})"
    return Piece(columns=(extreme,), sums=lambda found: found[0], rank=extreme)


def _histogram(measure: Histogram, number: str, weight: str, having: str) -> Piece:
    bounds = measure.bounds
    there = f"assumeNotNull({number})"
    bound = "-inf"
    if bounds:
        bound = f"if({there} < {bounds[0]!r}, -inf, roundDown({there}, [{listed(bounds)}]))"

    def sums(found: Sequence[Any]) -> list[int]:
        bins = [0] * (len(bounds) + 1)
        for lower, each in zip(*found[0], strict=True):
            bins[bisect_right(bounds, lower)] += int(each)
        return bins

    by_bound = f"sumMapIf([{bound}], [toUInt64({weight})], isNotNull({number}))"
    return Piece(columns=(by_bound,), sums=sums, rank=having)


def _percentiles(measure: Percentiles, number: str, *, by_weight: bool) -> Piece:
    ps = measure.ps
    if by_weight:
        found = _by_weight(measure, number)
    else:
        levels = listed([p / 100 - _BELOW for p in ps])
        found = f"quantilesExactIf({levels})(assumeNotNull({number}), isNotNull({number}))"
    columns = (f"if(count({number}) = 0, [], {found})",)

    def sums(row: Sequence[Any]) -> tuple[float | None, ...]:
        return tuple(map(float, row[0])) or (None,) * len(ps)

    return Piece(columns=columns, sums=sums, rank=f"if(count({number}) = 0, NULL, ({found})[1])")


def _by_weight(measure: Percentiles, number: str) -> str:
    """Return the first numbers up to which a share of the weight has come together, exactly."""
    pairs = f"arraySort(groupArrayIf((assumeNotNull({number}), w), isNotNull({number})))"
    place = "arrayFirstIndex(each -> each >= intDiv(toUInt128(until[-1]) * p + 99, 100), until)"
    each = f"arrayMap(p -> pairs[{place}].1, [{listed(measure.ps)}])"
    # The outer function is there for its names: of arrays with one element.
    return f"arrayMap((pairs, until) -> {each}, [{pairs}], [arrayCumSum(each -> each.2, {pairs})])[1]"


def _whole(found: Sequence[Any]) -> int:
    return int(found[0])
