"""Measures and groups as text."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chest import ConfigurationError
from flask_chest.aggregates import (
    COLUMN_NAMES,
    RESERVED,
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
    Sum,
    Variable,
    written_name,
)
from flask_chest.extension.measures import parse_key, parse_measure, parse_measures, parse_number

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
        ("mean", Mean("duration")),
        ("p95(duration)", Percentiles("duration", 95)),
        ("p99", Percentiles("duration", 99)),
        ("p50,p95, p99(total)", Percentiles(TOTAL, 50, 95, 99)),
        ("unweighted(p50,p95(total))", Percentiles(TOTAL, 50, 95, weighted=False)),
        ('p50("duration")', Percentiles(Variable("duration"), 50)),
        ("distinct(route)", Distinct("route")),
        ('distinct("route")', Distinct(Variable("route"))),
        ("distinct(user_id)", Distinct(Variable("user_id"))),
        ("histogram", Histogram("duration")),
        ("histogram(price)", Histogram(Variable("price"))),
        ("histogram(price,10, 20,5e1)", Histogram(Variable("price"), 10, 20, 50)),
        ('histogram("a,b",-1.5)', Histogram(Variable("a,b"), -1.5)),
        ('mean("a)b")', Mean(Variable("a)b"))),
        ('mean("\\u00e4")', Mean(Variable("ä"))),
        ("mean(cart total)", Mean(Variable("cart total"))),
    ],
)
def test_measure_means_what_it_says(text: str, measure: Measure[object]) -> None:
    assert parse_measure(text) == measure


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no measure; write count, error_rate, p95(duration), mean(total)"),
        ("median", "'median' is no measure; write count"),
        ("mean()", "'mean()' is no measure"),
        (
            "p95(a)(b)",
            "'a)(b' is no name; one that is empty, or holds parentheses or quotation marks, is",
        ),
        ("p0", "'p0': percentiles are different ones from p1 to p100, as in p50,p95,p99(duration)"),
        ("p101(total)", "from p1 to p100"),
        ("p50,p50(total)", "'p50,p50(total)': percentiles are different ones"),
        ("count(total)", "'count(total)': count is of all requests that are asked for; write count"),
        ("distinct", "'distinct': say of what, as in distinct(user_id)"),
        ("distinct(duration)", "duration is a field by which nothing is grouped; those that can be are route, "),
        ("mean(route)", "route is a field that is not measured, but duration (in seconds) and variables are"),
        ("sum(duration_ns)", 'a variable of that name is written "duration_ns"'),
        ("sum(a,b)", "'a,b' must be one name; one that holds a comma is written \"a,b\""),
        ('sum("a)', "'\"a' holds a quotation mark: the name must be a string of JSON"),
        ('sum("a"b)', "'\"a\"b' is no name"),
        ("histogram(price,20,10)", "Histogram takes increasing finite numbers as bounds"),
        ("histogram(price,nan)", "Histogram takes increasing finite numbers as bounds"),
        (
            "histogram(price,ten)",
            "the bounds of a histogram are increasing numbers, as in",
        ),
        ("histogram(price,)", "'price,' is no name"),
        ("unweighted(max)", "'unweighted(max)' is no measure, as max is never weighted; write max"),
        ("unweighted(distinct(user_id))", "as distinct is never weighted; write distinct(user_id)"),
        ("unweighted(unweighted(count))", "is no measure"),
    ],
)
def test_what_is_no_measure_is_refused_with_the_way_out(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_measure(text)
    assert message in str(caught.value)


def test_percentiles_of_one_number_are_one_measure() -> None:
    assert parse_measures(["p50", "count", "p95", "p50", "count", "p95(total)"]) == (
        Percentiles("duration", 50, 95),
        Count(),
        Percentiles(TOTAL, 95),
    )


_names = st.text(min_size=0) | st.sampled_from([*sorted(RESERVED), "a)b", "a,b", '"', " a", "unweighted(count)"])
_variables = st.builds(Variable, _names)
_columns: st.SearchStrategy[Column] = st.sampled_from(COLUMN_NAMES)
_durations: st.SearchStrategy[Number] = st.just("duration")
_of = _durations | _variables
_measures: st.SearchStrategy[Measure[object]] = st.one_of(
    st.builds(Count, weighted=st.booleans()),
    st.builds(ErrorRate, weighted=st.booleans()),
    st.builds(Sum, of=_of, weighted=st.booleans()),
    st.builds(Mean, of=_of, weighted=st.booleans()),
    st.builds(Minimum, _of),
    st.builds(Maximum, _of),
    st.builds(Distinct, _columns | _variables),
    st.builds(
        lambda of, ps, weighted: Percentiles(of, *ps, weighted=weighted),
        _of,
        st.lists(st.integers(1, 100), min_size=1, max_size=4, unique=True),
        st.booleans(),
    ),
    st.builds(
        lambda of, bounds, weighted: Histogram(of, *sorted(bounds), weighted=weighted),
        _of,
        st.sets(st.floats(allow_nan=False, allow_infinity=False), max_size=4),
        st.booleans(),
    ),
)


@given(measure=_measures)
def test_label_of_a_measure_is_read_as_the_measure(measure: Measure[object]) -> None:
    assert parse_measure(measure.label) == measure


@given(_names)
def test_every_variable_can_be_named(name: str) -> None:
    assert parse_key(written_name(Variable(name))) == Variable(name)
    assert parse_number(written_name(Variable(name))) == Variable(name)


def test_columns_are_written_as_they_are_called() -> None:
    assert [parse_key(written_name(column)) for column in COLUMN_NAMES] == list(COLUMN_NAMES)
    assert parse_number(written_name("duration")) == "duration"


@given(st.text())
def test_no_text_makes_another_error(text: str) -> None:
    for parse in (parse_measure, parse_key, parse_number):
        with suppress(ConfigurationError):
            parse(text)
