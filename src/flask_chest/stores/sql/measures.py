"""Each measure as SQL: the columns that are selected for it, and what they become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import nextafter
from typing import Any, LiteralString, TypeAlias

from flask_chest.aggregates import (
    HUNDRED,
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
from flask_chest.stores.aggregates import measured, nothing
from flask_chest.stores.sql.reading import Reading
from flask_chest.stores.sql.written import digits

OneBin: TypeAlias = tuple[int, int]
"""The number of a bin, and the sum of the weights in it: what one row holds where bins are groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The SQL of a measure: its columns, and how they become what a `Cell` holds, or `OneBin` of a histogram."""

    columns: tuple[LiteralString, ...] = ()
    sums: Callable[[Sequence[Any]], object]
    rank: LiteralString = "m0"
    """What groups are ordered by if it is the first, of whose columns ``m0`` is the first."""


def piece_of(measure: Measure[object], read: Reading, *, sampled: bool, binned: bool) -> Piece:
    """Return the SQL of *measure*: by weight if it is *sampled*, of one bin if it is *binned*."""
    of = measured(measure)
    at = "" if of is None else read.numbers[of]
    weight = weight_of(measure)
    if isinstance(measure, Percentiles):
        return _percentiles(measure, at, read.dialect.percentiles, by_weight=sampled and measure.weighted)
    if isinstance(measure, Distinct):
        keys: LiteralString = f"count(DISTINCT {read.distinct[measure.of]})"
        return Piece(columns=(keys,), sums=_whole)
    if isinstance(measure, Count):
        return Piece(columns=(f"sum({weight})",), sums=_whole)
    if isinstance(measure, ErrorRate):
        return Piece(
            columns=(f"sum({weight} * e)", f"sum({weight})"),
            sums=lambda found: (int(found[0]), int(found[1])),
            rank="m0 * 1e0 / m1",
        )
    if isinstance(measure, Histogram):
        return _histogram(measure, f"x{at}", bin_of=read.bins_of(measure) if binned else None)
    return _of_number(measure, f"x{at}", weight)


def _of_number(measure: Measure[object], number: LiteralString, weight: LiteralString) -> Piece:
    total: LiteralString = f"sum({weight} * {number})"
    having = _having(number, weight)
    if isinstance(measure, Sum):
        return Piece(columns=(total,), sums=lambda found: found[0], rank="coalesce(m0, 0)")
    if isinstance(measure, Mean):
        return Piece(
            columns=(total, having),
            sums=lambda found: (found[0], int(found[1])),
            rank="m0 / nullif(m1, 0)",
        )
    extreme: LiteralString = f"{'min' if isinstance(measure, Minimum) else 'max'}({number})"
    return Piece(columns=(extreme,), sums=lambda found: _float(found[0]))


def _histogram(measure: Histogram, number: LiteralString, *, bin_of: LiteralString | None) -> Piece:
    having = _having(number, weight_of(measure))
    if bin_of is None:  # another statement finds them
        return Piece(columns=(having,), sums=lambda _: nothing(measure))

    def sums(found: Sequence[Any]) -> OneBin | None:
        return None if found[1] is None else (int(found[1]), int(found[0]))

    return Piece(columns=(having, bin_of), sums=sums)


def _having(number: LiteralString, weight: LiteralString) -> LiteralString:
    """Return the weight of the records with a *number*."""
    return f"sum(CASE WHEN {number} IS NOT NULL THEN {weight} ELSE 0 END)"


def _whole(found: Sequence[Any]) -> int:
    return int(found[0])


def _percentiles(measure: Percentiles, at: LiteralString, at_once: LiteralString, *, by_weight: bool) -> Piece:
    if at_once and not by_weight:
        return _percentiles_at_once(measure, f"x{at}", at_once)
    columns: list[LiteralString] = []
    for p in map(digits, measure.ps):
        # Without a division: which databases do not do alike.
        if by_weight:
            columns.append(f"min(CASE WHEN x{at} IS NOT NULL AND c{at} * 100 >= t{at} * {p} THEN x{at} END)")
        else:
            rank = f"r{at} * 100 >= n{at} * {p} AND (r{at} - 1) * 100 < n{at} * {p}"
            columns.append(f"max(CASE WHEN {rank} THEN x{at} END)")
    return Piece(columns=tuple(columns), sums=lambda found: tuple(map(_float, found)))


def _percentiles_at_once(measure: Percentiles, number: LiteralString, aggregate: LiteralString) -> Piece:
    fractions = ", ".join([digits(fraction(p)) for p in measure.ps])
    every = aggregate.format(number=number, fractions=fractions)

    def sums(found: Sequence[Any]) -> object:
        return nothing(measure) if found[0] is None else tuple(map(_float, found[0]))

    return Piece(columns=(every,), sums=sums, rank="m0[1]")


def fraction(p: int) -> float:
    """Return the f of which ceil(f * n), in double precision, is the nearest rank of *p* among any n numbers.

    It is the greatest that is no more than p / 100: where n * p is a multiple of 100, a greater one may take the
    next rank, and this one cannot, as a product that is no more than a whole number is not rounded beyond it.
    Elsewhere, the product is a hundredth above a whole number at least, which is lost for no n below 2**45.
    """
    nearest = p / HUNDRED
    return nearest if Fraction(nearest) <= Fraction(p, HUNDRED) else nextafter(nearest, 0.0)


def weight_of(measure: Measure[object]) -> LiteralString:
    """Return the weight of a record in *measure*."""
    return "w" if getattr(measure, "weighted", True) else "1000000"


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)
