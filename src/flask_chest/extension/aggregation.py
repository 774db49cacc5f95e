"""`FlaskChest.aggregate`: what a person asks, as the question that a store is asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from math import floor, isclose, log10
from typing import TypeVar

from flask_chest.aggregates import (
    DURATION_BOUNDS,
    AggregateQuery,
    Answer,
    Histogram,
    Maximum,
    Measure,
    Minimum,
    Row,
    Rows,
    Variable,
)
from flask_chest.protocols import Aggregation

BINS = 20
"""Bins of a histogram, about, whose bounds nobody gave."""
R = TypeVar("R", bound=Rows)

_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)
_LEAST_WIDTH = 1e-290


def ask(store: Aggregation, query: AggregateQuery, *, timeout: timedelta | None) -> Answer:
    """Return the answer of *store* within *timeout*; bounds that a histogram lacks are chosen first."""
    began = time.monotonic()
    open_ended = [each for each in query.measures if isinstance(each, Histogram) and not each.bounds]
    chosen = _with_bounds(store, query, open_ended, timeout) if open_ended else {}
    if timeout is not None:
        timeout = max(timeout - timedelta(seconds=time.monotonic() - began), timedelta(milliseconds=1))
    asked = replace(query, measures=tuple(chosen.get(each, each) for each in query.measures))
    answer = store.aggregate(asked, timeout=timeout)
    meant = {measure: each for each, measure in chosen.items()}
    if meant:
        answer = replace(_renamed(answer, meant), series=tuple(_renamed(each, meant) for each in answer.series))
    return replace(answer, query=query, elapsed=timedelta(seconds=time.monotonic() - began))


def _with_bounds(
    store: Aggregation, query: AggregateQuery, histograms: Sequence[Histogram], timeout: timedelta | None
) -> dict[Measure[object], Measure[object]]:
    variables = {each.of for each in histograms if isinstance(each.of, Variable)}
    ends: dict[object, tuple[float, ...]] = {"duration": DURATION_BOUNDS}
    if variables:
        measures = [(of, Minimum(of), Maximum(of)) for of in variables]
        extremes = AggregateQuery(
            measures=tuple(each for _, *pair in measures for each in pair), query=query.query
        )
        found = store.aggregate(extremes, timeout=timeout).all
        for of, minimum, maximum in measures:
            ends[of] = round_bounds(found[minimum], found[maximum])
    return {each: Histogram(each.of, *ends[each.of], weighted=each.weighted) for each in histograms}


def round_bounds(least: float | None, greatest: float | None) -> tuple[float, ...]:
    """Return about `BINS` round numbers from *least* to *greatest*, as bounds of bins."""
    if least is None or greatest is None:
        return ()
    width = (greatest - least) / BINS
    if width <= max(abs(least) * 1e-9, _LEAST_WIDTH):
        return (least,)
    size = 10.0 ** floor(log10(width))
    step = next(each * size for each in _ROUND if each * size >= width or isclose(each * size, width))
    first = floor(least / step)
    return tuple(float(f"{(first + number) * step:.12g}") for number in range(floor(greatest / step) - first + 2))


def _renamed(rows: R, meant: Mapping[Measure[object], Measure[object]]) -> R:
    """Return *rows* with the measures that were *meant* in the place of those that were asked for."""
    return replace(
        rows,
        groups=tuple(_row(each, meant) for each in rows.groups),
        others=_row(rows.others, meant),
        all=_row(rows.all, meant),
    )


def _row(row: Row, meant: Mapping[Measure[object], Measure[object]]) -> Row:
    return replace(row, values={meant.get(measure, measure): value for measure, value in row.values.items()})
