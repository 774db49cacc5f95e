"""Aggregates as people ask for them: made into the question that a store is asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, timedelta, tzinfo
from math import floor, isclose, log10
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from flask_chest.aggregates import (
    DURATION_BOUNDS,
    AggregateQuery,
    Answer,
    Column,
    Histogram,
    Maximum,
    Measure,
    Minimum,
    Row,
    Rows,
    Variable,
)
from flask_chest.errors import CapabilityMissing, ConfigurationError
from flask_chest.extension.spans import EPOCH, Every, bounds_of_spans
from flask_chest.protocols import Aggregation, Store
from flask_chest.record import DEFAULT_TOP, Query

BINS = 20
"""Bins of a histogram, about, whose bounds nobody gave."""
R = TypeVar("R", bound=Rows)

_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)
_LEAST_WIDTH = 1e-290


def aggregate_query(
    measures: Sequence[Measure[object]],
    *,
    query: Query,
    by: Sequence[Column | Variable] = (),
    every: Every | None = None,
    zone: tzinfo | None = UTC,
    top: int = DEFAULT_TOP,
) -> AggregateQuery:
    """Return what a store is asked; with *every*, in spans as people in *zone* count time.

    Without an end they end now. Raises `ConfigurationError` for what no store can answer.
    """
    bounds: tuple[int, ...] = ()
    if every is not None:
        if query.since_unix_nano is None:
            raise ConfigurationError("every needs since, as in since=datetime.now(UTC) - timedelta(days=1)")
        since, until = query.since_unix_nano, query.until_unix_nano
        until = time.time_ns() if until is None else until
        query = msgspec.structs.replace(query, until_unix_nano=until)
        try:
            begin, end = (EPOCH + timedelta(microseconds=each) for each in (since // 1_000, -(-until // 1_000)))
        except OverflowError:
            raise ConfigurationError("since and until must be times of the calendar") from None
        bounds = bounds_of_spans(begin.astimezone(zone), end, every)
    return AggregateQuery(measures=tuple(measures), by=tuple(by), bounds=bounds, query=query, top=top)


def ask(store: Store, query: AggregateQuery, *, timeout: timedelta | None) -> Answer:
    """Return the answer of *store* within *timeout*; bounds that a histogram lacks are chosen first.

    Raises `CapabilityMissing` if the store cannot aggregate.
    """
    if not isinstance(store, Aggregation):
        raise CapabilityMissing(store, "Aggregation")
    began = time.monotonic()
    open_ended = [each for each in query.measures if isinstance(each, Histogram) and not each.bounds]
    chosen = _with_bounds(store, query, open_ended, timeout) if open_ended else {}
    if timeout is not None:
        timeout = max(timeout - timedelta(seconds=time.monotonic() - began), timedelta(milliseconds=1))
    asked = replace(query, measures=tuple(chosen.get(each, each) for each in query.measures))
    answer = store.aggregate(asked, timeout=timeout)
    if chosen:
        series = tuple(_as_asked(each, query, chosen) for each in answer.series)
        answer = replace(_as_asked(answer, query, chosen), series=series)
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


def _as_asked(rows: R, query: AggregateQuery, chosen: Mapping[Measure[object], Measure[object]]) -> R:
    """Return *rows* with the measures of *query*, in the place of those that were *chosen* for them."""

    def row(found: Row) -> Row:
        return replace(found, values={each: found.values[chosen.get(each, each)] for each in query.measures})

    return replace(rows, groups=tuple(map(row, rows.groups)), others=row(rows.others), all=row(rows.all))
