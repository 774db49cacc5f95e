"""How durations, amounts, times and values are written, and what their charts look like."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chest.errors import printable
from flask_chest.record import JSONValue
from flask_chest.viewer import _format
from flask_chest.viewer._charts import Chart, Column, Series, round_up, step_for
from flask_chest.viewer._shown import amount


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"),
        (812, "812 ns"),
        (1_234, "1.23 µs"),
        (999_400, "999 µs"),
        (999_600, "1.00 ms"),
        (12_345_678, "12.3 ms"),
        (340_000_000, "340 ms"),
        (1_420_000_000, "1.42 s"),
        (125_000_000_000, "2 min 5 s"),
        (7_200_000_000_000, "2 h"),
        (273_600_000_000_000, "3 d 4 h"),
    ],
)
def test_duration_has_the_unit_that_fits(nanoseconds: int, text: str) -> None:
    assert _format.duration(nanoseconds) == text


@given(st.floats(min_value=0, max_value=1e17))
def test_every_duration_is_written_short(nanoseconds: float) -> None:
    assert len(_format.duration(nanoseconds)) < 16


def test_time_has_its_zone_and_says_how_long_ago() -> None:
    noon = 1_709_208_000_123_456_789
    assert _format.time_text(noon) == "2024-02-29 12:00:00.123 UTC"
    assert _format.iso(noon) == "2024-02-29T12:00:00.123Z"
    assert _format.relative(noon, noon + 200_000_000_000) == "3 min ago"
    assert _format.relative(noon, noon - 86_400_000_000_000) == "in 1 d"
    assert _format.relative(noon, noon + 1_000) == "now"


def test_time_that_no_calendar_has_is_written_as_a_number() -> None:
    assert _format.time_text(1 << 62) == "2116-02-20 23:53:38.427 UTC"
    assert _format.time_text(1 << 72) == f"{1 << 72} ns"


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (1e-6, "<0.01 %"), (0.0026, "0.26 %"), (0.123, "12.3 %"), (1, "100 %")]
)
def test_little_is_not_written_as_nothing(share: float, text: str) -> None:
    assert _format.percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("pro", "pro"),
        ("7", '"7"'),
        ("true", '"true"'),
        ("", '""'),
        (" x", '" x"'),
        ('"', '"\\""'),
        (7, "7"),
        (True, "true"),
        (None, "null"),
        ({"a": [1]}, '{"a":[1]}'),
        ("\u202egpj.exe", "\N{REPLACEMENT CHARACTER}gpj.exe"),
    ],
)
def test_text_has_quotation_marks_where_it_could_be_something_else(value: JSONValue, text: str) -> None:
    assert _format.value_text(value) == text


@given(st.text())
def test_nothing_that_is_written_is_obeyed(text: str) -> None:
    for write in (printable, _format.value_text, _format.json_text):
        if not any("\ud800" <= letter <= "\udfff" for letter in text):
            assert write(text).isprintable()


def chart(*values: float | None, stacked: bool = False) -> Chart:
    columns = [Column(str(number)) for number in range(len(values))]
    return Chart("t", columns, [Series("a", values)], amount, stacked=stacked)


def test_line_has_a_gap_where_there_is_no_value() -> None:
    shown = chart(1, 2, None, 4, None)
    assert shown.path(shown.series[0]) == "M0.5 75L1.5 50M3.2 0h0.6"


def test_bars_are_stacked_from_below_and_little_is_seen() -> None:
    columns = [Column("now", "/there")]
    shown = Chart("t", columns, [Series("bad", [0.001], "bad"), Series("fine", [8.0])], amount, stacked=True)
    assert shown.top == 10
    assert shown.rects()[0] == [("bad", 99.2, 0.8), ("s0", 19.2, 80.0)]
    assert shown.said(0) == "now: bad 0.001, fine 8"


def test_chart_of_nothing_is_empty() -> None:
    assert chart(None, 0, None).is_empty
    assert chart().is_empty
    assert not chart(0, 1).is_empty


@given(st.floats(min_value=1e-12, max_value=1e300))
def test_scale_ends_at_a_round_number_that_is_near(value: float) -> None:
    top = round_up(value)
    assert value * (1 - 1e-6) <= top <= value * 2.1
    assert not math.isinf(top)


@given(st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=4_000)))
def test_chart_has_columns_that_are_seen_well(length: timedelta) -> None:
    assert length / step_for(length) <= 80.001


def test_axis_of_a_day_tells_hours_and_that_of_a_month_days() -> None:
    hour = 3_600_000_000_000
    noon = 1_709_208_000_000_000_000
    for step, labels in [
        (hour, ["12:00 UTC", "18:00", "00:00", "06:00", "12:00"]),
        (24 * hour, ["Feb 29 UTC", "Mar 06", "Mar 12", "Mar 18", "Mar 24"]),
    ]:
        columns = [Column("", None, noon + number * step) for number in range(25)]
        assert Chart("t", columns, [Series("a", [1.0] * 25)], amount).ticks == labels
