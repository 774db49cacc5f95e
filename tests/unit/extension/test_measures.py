"""Measures and groups as text."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chest import ConfigurationError
from flask_chest.aggregates import (
    COLUMN_NAMES,
    Count,
    Distinct,
    ErrorRate,
    Histogram,
    Maximum,
    Mean,
    Measure,
    Minimum,
    Percentiles,
    Sum,
    Variable,
)
from flask_chest.extension.measures import (
    every_text,
    parse_every,
    parse_key,
    parse_measure,
    parse_measures,
    parse_number,
    written_key,
    written_number,
)

TOTAL = Variable("total")


@pytest.mark.parametrize(
    ("text", "measure"),
    [
        ("count", Count()),
        ("error_rate", ErrorRate()),
        ("unweighted(count)", Count(weighted=False)),
        ("sum(total)", Sum(TOTAL)),
        (" mean( total ) ", Mean(TOTAL)),
        ("unweighted(mean(total))", Mean(TOTAL, weighted=False)),
        ("min(total)", Minimum(TOTAL)),
        ("max(duration)", Maximum("duration")),
        ("p95(duration)", Percentiles("duration", 95)),
        ("p99", Percentiles("duration", 99)),
        ("unweighted(p50(total))", Percentiles(TOTAL, 50, weighted=False)),
        ('p50("duration")', Percentiles(Variable("duration"), 50)),
        ("distinct(route)", Distinct("route")),
        ("distinct(user_id)", Distinct(Variable("user_id"))),
        ("histogram(duration)", Histogram("duration")),
    ],
)
def test_measure_means_what_it_says(text: str, measure: Measure[object]) -> None:
    assert parse_measure(text) == measure


@pytest.mark.parametrize("text", ["", "p0", "p101", "median", "count(total)", "mean()", "distinct", "p95(a)(b)"])
def test_what_is_no_measure_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_measure(text)


@pytest.mark.parametrize(
    "text", ["unweighted(max)", "unweighted(distinct(user_id))", "unweighted(unweighted(count))"]
)
def test_what_knows_no_weights_cannot_be_unweighted(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no measure"):
        parse_measure(text)


def test_percentiles_of_one_number_are_one_measure() -> None:
    assert parse_measures(["p50", "count", "p95", "p50", "count", "p95(total)"]) == (
        Percentiles("duration", 50, 95),
        Count(),
        Percentiles(TOTAL, 95),
    )


@given(st.text(min_size=1))
def test_every_variable_can_be_named(name: str) -> None:
    assert parse_key(written_key(Variable(name))) == Variable(name)
    assert parse_number(written_number(Variable(name))) == Variable(name)


def test_columns_are_written_as_they_are_called() -> None:
    assert [parse_key(written_key(column)) for column in COLUMN_NAMES] == list(COLUMN_NAMES)
    assert parse_number(written_number("duration")) == "duration"


@pytest.mark.parametrize("text", ["30s", "5m", "1h", "1d", "90m"])
def test_length_of_spans_is_written_as_it_is_read(text: str) -> None:
    every = parse_every(text)
    assert isinstance(every, timedelta)
    assert every_text(every) == text


def test_length_of_spans_may_be_left_to_the_chest() -> None:
    assert parse_every("auto") == "auto"
