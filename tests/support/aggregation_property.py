"""Aggregates of any records, compared with those of the reference."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from math import nextafter
from typing import cast
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from flask_chest.aggregates import (
    AggregateQuery,
    Answer,
    Column,
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
    Row,
    Sum,
    Variable,
)
from flask_chest.extension.spans import bounds_of_spans
from flask_chest.record import Bound, Condition, IsSet, JSONValue, OneOf, Query, Record, is_number
from flask_chest.stores.aggregates import identity
from flask_chest.stores.reference import aggregate
from flask_chest.testing import make_record
from flask_chest.testing.contracts import AggregatingStore
from json_values import integers, json_values, texts

_few: st.SearchStrategy[JSONValue] = st.sampled_from(
    [
        0,
        0.0,
        -0.0,
        False,
        1,
        1.0,
        True,
        "1",
        "",
        "a",
        "A",
        None,
        [1],
        [],
        {"a": 1},
        {},
        2**53,
        -(2**63),
        1e16,
        0.1,
    ]
)
# What is subnormal is zero to some databases, and nobody measures it.
_floats = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
_small = st.integers(-5, 5) | st.sampled_from([0.5, 1.25, 2.5])
_values: st.SearchStrategy[JSONValue] = _few | _few | _small | json_values | integers | _floats | texts
_negative: st.SearchStrategy[JSONValue] = st.integers(-(2**63), -1) | st.floats(
    max_value=-1e-300, allow_infinity=False, allow_subnormal=False
)
_greatest = nextafter(1e290, math.inf)
"""The least number that is too great to count."""
_huge: st.SearchStrategy[JSONValue] = st.sampled_from(
    [2**63 - 1, 2**53 + 1, 1e289, 1e290, _greatest, 1.7e308, -(2**63), -1e290, -_greatest, -1.7e308]
)
_ranges: st.SearchStrategy[st.SearchStrategy[JSONValue]] = st.one_of(
    st.just(_values),
    st.just(_values),
    _values.map(st.just),
    st.lists(_values, min_size=2, max_size=3).map(st.sampled_from),
    st.just(_negative),
    st.just(_huge),
)
"""What the values of an example are: any, all equal, few different ones, negative or huge."""
_columns: st.SearchStrategy[Column] = st.sampled_from(["route", "method", "status_code", "status_class", "error"])
_rates = st.sampled_from([1.0] * 6 + [0.1, 0.5, 1 / 3, 0.6, 1e-6, 1e-9])
_moments = count(1)
_names = ("v", "w")
_variables = st.sampled_from([Variable(name) for name in _names])
_durations: st.SearchStrategy[Number] = st.just("duration")
_of = _durations | _variables
_keys = _columns | _variables

_measures: st.SearchStrategy[Measure[object]] = st.one_of(
    st.builds(Count, weighted=st.booleans()),
    st.builds(ErrorRate, weighted=st.booleans()),
    st.builds(Sum, of=_of, weighted=st.booleans()),
    st.builds(Mean, of=_of, weighted=st.booleans()),
    st.builds(Minimum, _of),
    st.builds(Maximum, _of),
    st.builds(
        lambda of, ps, weighted: Percentiles(of, *ps, weighted=weighted),
        _of,
        st.lists(st.integers(1, 100), min_size=1, max_size=3, unique=True),
        st.booleans(),
    ),
    st.builds(Distinct, _keys),
)
_bounds = (-1e300, -1.0, 0.0, 0.002, 0.5, 1.0, 2.0, 2.0**53, 1e300)


def _histograms(numbers: Iterable[float]) -> st.SearchStrategy[Measure[object]]:
    """Draw histograms with bounds at *numbers* and beside them, besides others."""
    beside = {nextafter(number, end) for number in numbers for end in (-math.inf, math.inf)}
    every = sorted({*_bounds, *numbers, *filter(_is_bound, beside)})
    return st.builds(
        lambda of, bounds, weighted: Histogram(of, *sorted(bounds), weighted=weighted),
        _of,
        st.sets(st.sampled_from(every), min_size=1),
        st.booleans(),
    )


def _is_bound(number: float) -> bool:
    return math.isfinite(number) and (number == 0 or abs(number) >= sys.float_info.min)


_conditions: st.SearchStrategy[Condition] = st.one_of(
    st.builds(Bound, st.sampled_from(["gt", "ge", "lt", "le"]), st.sampled_from([0, 1, 0.5, "a", "1"])),
    st.builds(OneOf, st.lists(_few, max_size=3).map(tuple)),
    st.just(IsSet()),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Times:
    """When records are, and by which spans of time is asked."""

    query: Query
    bounds: Sequence[int]
    moments: st.SearchStrategy[int]


_HOUR_NANO = 3_600_000_000_000
_BERLIN = ZoneInfo("Europe/Berlin")
_beginnings = st.sampled_from(
    [
        datetime(1904, 2, 28, 1, 2, 3, tzinfo=ZoneInfo("Europe/Amsterdam")),
        datetime(1968, 2, 28, tzinfo=UTC),
        datetime(2000, 2, 28, 0, 30, tzinfo=UTC),
        datetime(2024, 2, 28, 22, tzinfo=ZoneInfo("Asia/Kolkata")),
        datetime(2024, 3, 30, tzinfo=_BERLIN),  # a day before one of 23 hours
        datetime(2024, 10, 26, 23, 30, tzinfo=_BERLIN),  # and of 25
        datetime(2024, 10, 6, tzinfo=ZoneInfo("Australia/Lord_Howe")),  # of 23.5
    ]
)
_lengths = st.sampled_from([timedelta(days=1, hours=13), timedelta(days=2), timedelta(days=3, seconds=1)])
_steps = st.sampled_from([timedelta(days=1), timedelta(days=1), timedelta(days=2), timedelta(hours=6)])


@st.composite
def _near_1970(draw: st.DrawFn) -> _Times:
    began = (next(_moments) - 50) * 1_000
    unequal = st.sets(st.integers(-1, 32), min_size=2, max_size=6)
    equal = st.builds(range, st.integers(-1, 10), st.integers(20, 32), st.integers(1, 9))
    bounds = draw(st.none() | unequal | equal)
    return _Times(
        query=Query(since_unix_nano=began, until_unix_nano=began + 1_000),
        bounds=() if bounds is None else [began + bound for bound in sorted(bounds)],
        moments=st.integers(0, 30).map(began.__add__),
    )


@st.composite
def _by_the_calendar(draw: st.DrawFn) -> _Times:
    """Draw days of some zone, with records near their bounds.

    Other examples have records of the same days, but none near 1970, so these are told apart by their request.
    """
    since = draw(_beginnings)
    until = since + draw(_lengths)
    bounds = bounds_of_spans(since, until, draw(_steps))
    begin, end = (round(moment.timestamp()) * 1_000_000_000 for moment in (since, until))
    near = st.sampled_from([-_HOUR_NANO, -1, -1, 0, 0, 1, _HOUR_NANO // 2, _HOUR_NANO])
    return _Times(
        query=Query(since_unix_nano=begin, until_unix_nano=end, request_id=f"calendar-{next(_moments)}"),
        bounds=bounds,
        moments=st.builds(int.__add__, st.sampled_from([begin, *bounds, end]), near),
    )


@st.composite
def _asked(draw: st.DrawFn) -> tuple[list[Record], AggregateQuery]:
    """Draw records that no other example asks about, and a question about them."""
    times = draw(st.one_of(_near_1970(), _by_the_calendar()))
    values = draw(_ranges)
    fewest = draw(st.sampled_from([6, 3, 0]))  # left alone, every other list would be empty
    rows = draw(
        st.lists(
            st.tuples(
                st.dictionaries(st.sampled_from(_names), values, max_size=2),
                st.sampled_from([None, "/a", "/b", "/A"]),
                times.moments,
                st.sampled_from([200, 200, 404, 500, 503]),
                st.sampled_from([0, 1, 1_000_000, 2_000_000, 1_999_999, 10**12]),
                _rates,
            ),
            min_size=fewest,
            max_size=14,
        )
    )
    records = [
        make_record(
            time_unix_nano=moment,
            request_id=times.query.request_id,
            route=route,
            status_code=status,
            error="KeyError" if status == 503 else None,
            duration_ns=duration,
            variables=variables,
            sample_rate=rate,
        )
        for variables, route, moment, status, duration, rate in rows
    ]
    numbers = {float(each) for record in records for each in record.variables.values() if is_number(each)}
    query = times.query
    if draw(st.integers(0, 3)) == 0:
        query = replace(query, conditions=(("w", draw(_conditions)),))
    if draw(st.integers(0, 5)) == 0:
        query = replace(query, where={"w": draw(_few)})
    return records, AggregateQuery(
        measures=tuple(draw(st.lists(_measures | _histograms(numbers), min_size=1, max_size=4))),
        by=tuple(draw(st.lists(_keys, max_size=2))),
        bounds=tuple(times.bounds),
        query=query,
        top=draw(st.sampled_from([1, 2, 3, 20])),
    )


class AggregationProperty:
    """Needs the fixture *store*, which is open; what else it holds does not matter."""

    @pytest.mark.slow
    @settings(
        max_examples=60,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.differing_executors,
        ],
    )
    @given(asked=_asked())
    def test_answer_about_any_records_is_that_of_the_reference(
        self, store: AggregatingStore, asked: tuple[list[Record], AggregateQuery]
    ) -> None:
        records, query = asked
        store.write(records)
        expected = aggregate([record for record in records if query.query.matches(record)], query)
        assert_same(store.aggregate(query), expected, records)


def assert_same(found: Answer, expected: Answer, records: Sequence[Record]) -> None:
    """Compare counts and percentiles exactly, sums within 1e-9 of what their numbers are without sign."""
    assert found.left_out == expected.left_out, found.query
    first = found.query.measures[0]
    sizes = {measure: sum(abs(each) for each in _numbers(measure, records)) for measure in found.query.measures}
    if isinstance(first, Sum | Mean):
        # Sums that are nearly equal may change places, and which are the first of many then differs.
        if len(expected.groups) == found.query.top:
            return
        found, expected = _by_key(found), _by_key(expected)
    _assert_rows(found, expected, sizes)
    assert len(found.series) == len(expected.series)
    for bucket, wanted in zip(found.series, expected.series, strict=True):
        assert (bucket.begin_unix_nano, bucket.end_unix_nano) == (wanted.begin_unix_nano, wanted.end_unix_nano)


def _assert_rows(found: Answer, expected: Answer, sizes: Mapping[Measure[object], float]) -> None:
    for rows, wanted in ((found, expected), *zip(found.series, expected.series, strict=True)):
        for row, other in zip(
            (*rows.groups, rows.others, rows.all), (*wanted.groups, wanted.others, wanted.all), strict=True
        ):
            assert identity(row.key) == identity(other.key), found.query
            assert [type(key) for key in row.key] == [type(key) for key in other.key]
            assert row.records == other.records, found.query
            for measure, value in row.values.items():
                _assert_value(measure, value, other.values[measure], sizes[measure], found.query)


def _assert_value(
    measure: Measure[object], value: object, wanted: object, size: float, query: AggregateQuery
) -> None:
    if isinstance(measure, Sum | Mean) and wanted is not None:
        assert type(value) is float, query
        assert math.isclose(value, cast("float", wanted), rel_tol=1e-9, abs_tol=1e-9 * size + 1e-300), (
            measure,
            query,
        )
    elif isinstance(measure, ErrorRate) and wanted is not None:
        assert math.isclose(cast("float", value), cast("float", wanted), rel_tol=1e-12), query
    else:
        assert value == wanted, (measure, query)
        assert type(value) is type(wanted), (measure, query)


def _numbers(measure: Measure[object], records: Sequence[Record]) -> list[float]:
    if not isinstance(measure, Sum | Mean):
        return []
    numbers: list[float] = []
    for record in records:
        value = record.duration_ns / 1e9 if measure.of == "duration" else record.variables.get(measure.of.name)
        if isinstance(value, int | float) and abs(value) <= 1e290:
            numbers.append(float(value) / (max(record.sample_rate, 1e-6) if measure.weighted else 1.0))
    return numbers


def _by_key(answer: Answer) -> Answer:
    order = sorted(range(len(answer.groups)), key=lambda number: identity(answer.groups[number].key))

    def arranged(rows: Sequence[Row]) -> tuple[Row, ...]:
        return tuple(rows[number] for number in order)

    return replace(
        answer,
        groups=arranged(answer.groups),
        series=tuple(replace(bucket, groups=arranged(bucket.groups)) for bucket in answer.series),
    )
