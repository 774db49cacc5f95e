"""The spans of a series: begun and ended as people count time in their zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flask_chest import ConfigurationError
from flask_chest.aggregates import MAX_BUCKETS
from flask_chest.extension.spans import Every, bounds_of_spans, parse_every

BERLIN = ZoneInfo("Europe/Berlin")
KOLKATA = ZoneInfo("Asia/Kolkata")
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


def bounds(since: datetime, until: datetime, every: Every) -> list[datetime]:
    """Return the bounds as times in the zone of *since*."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return [
        (epoch + timedelta(microseconds=bound // 1_000)).astimezone(since.tzinfo)
        for bound in bounds_of_spans(since, until, every)
    ]


def lengths(since: datetime, until: datetime, every: Every) -> list[timedelta]:
    found = bounds_of_spans(since, until, every)
    return [timedelta(microseconds=(later - former) // 1_000) for former, later in pairwise(found)]


def test_days_begin_at_midnight_in_the_zone_of_since() -> None:
    found = bounds(datetime(2026, 11, 23, 14, 30, tzinfo=BERLIN), datetime(2026, 11, 25, 9, tzinfo=UTC), DAY)
    assert found == [datetime(2026, 11, day, tzinfo=BERLIN) for day in (23, 24, 25, 26)]


def test_day_may_have_23_or_25_hours() -> None:
    spring = datetime(2026, 3, 28, tzinfo=BERLIN), datetime(2026, 3, 31, tzinfo=BERLIN)
    autumn = datetime(2026, 10, 24, tzinfo=BERLIN), datetime(2026, 10, 27, tzinfo=BERLIN)
    assert lengths(*spring, DAY) == [24 * HOUR, 23 * HOUR, 24 * HOUR]
    assert lengths(*autumn, DAY) == [24 * HOUR, 25 * HOUR, 24 * HOUR]
    assert set(lengths(*autumn, HOUR)) == {HOUR}
    assert len(lengths(*autumn, HOUR)) == 73


def test_hours_that_the_clock_shows_twice_are_two() -> None:
    since = datetime(2026, 10, 25, 2, 15, tzinfo=BERLIN)
    until = datetime(2026, 10, 25, 2, 10, tzinfo=BERLIN, fold=1)
    found = bounds_of_spans(since, until, HOUR)
    assert len(found) == 3
    assert [bound.strftime("%H:%M %z") for bound in bounds(since, until, HOUR)] == [
        "02:00 +0200",
        "02:00 +0100",
        "03:00 +0100",
    ]


def test_leap_day_is_a_day() -> None:
    found = bounds(datetime(2024, 2, 28, 12, tzinfo=UTC), datetime(2024, 3, 1, 1, tzinfo=UTC), DAY)
    assert [bound.strftime("%m-%d") for bound in found] == ["02-28", "02-29", "03-01", "03-02"]


def test_weeks_begin_on_mondays() -> None:
    found = bounds(
        datetime(2026, 11, 26, 8, tzinfo=BERLIN), datetime(2026, 12, 9, tzinfo=BERLIN), timedelta(weeks=1)
    )
    assert found == [datetime(2026, 11, 23, tzinfo=BERLIN) + timedelta(weeks=week) for week in range(4)]
    assert {bound.weekday() for bound in found} == {0}


def test_spans_before_1970_are_like_others() -> None:
    found = bounds(datetime(1969, 12, 31, 22, 30, tzinfo=UTC), datetime(1970, 1, 1, 1, tzinfo=UTC), HOUR)
    assert [bound.hour for bound in found] == [22, 23, 0, 1]
    assert bounds_of_spans(
        datetime(1969, 12, 31, 22, 30, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC), HOUR
    ) == (-7_200 * 10**9, -3_600 * 10**9, 0)


@pytest.mark.parametrize(
    ("zone", "minute"), [(KOLKATA, 30), (ZoneInfo("Asia/Kathmandu"), 15), (timezone(timedelta(hours=-3.5)), 30)]
)
def test_hours_of_a_zone_with_half_hours_are_those_of_its_clocks(zone: tzinfo, minute: int) -> None:
    found = bounds(datetime(2026, 11, 23, 14, 5, tzinfo=zone), datetime(2026, 11, 23, 16, tzinfo=zone), HOUR)
    assert [(bound.hour, bound.minute) for bound in found] == [(14, 0), (15, 0), (16, 0)]
    assert {bound.astimezone(UTC).minute for bound in found} == {minute}


def test_day_that_a_zone_left_out_is_no_span() -> None:
    apia = ZoneInfo("Pacific/Apia")
    found = bounds(datetime(2011, 12, 28, tzinfo=apia), datetime(2012, 1, 1, tzinfo=apia), DAY)
    assert [bound.day for bound in found] == [28, 29, 31, 1]


def test_day_whose_midnight_the_clock_left_out_begins_when_it_begins() -> None:
    sao_paulo = ZoneInfo("America/Sao_Paulo")
    found = bounds(datetime(2018, 11, 3, tzinfo=sao_paulo), datetime(2018, 11, 5, tzinfo=sao_paulo), DAY)
    assert [(bound.day, bound.hour) for bound in found] == [(3, 0), (4, 1), (5, 0)]


@pytest.mark.parametrize(
    ("length", "every"),
    [
        (timedelta(seconds=1), timedelta(seconds=1)),
        (timedelta(seconds=150), timedelta(seconds=1)),
        (timedelta(seconds=151), timedelta(seconds=5)),
        (HOUR, timedelta(seconds=30)),
        (6 * HOUR, 5 * MINUTE),
        (DAY, 10 * MINUTE),
        (7 * DAY, 3 * HOUR),
        (30 * DAY, 6 * HOUR),
        (150 * DAY, DAY),
        (151 * DAY, 7 * DAY),
        (20 * 365 * DAY, 56 * DAY),
    ],
)
def test_auto_is_the_shortest_of_the_ladder_that_fits(length: timedelta, every: timedelta) -> None:
    since = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday
    found = bounds_of_spans(since, since + length, "auto")
    assert found == bounds_of_spans(since, since + length, every)
    assert len(found) <= MAX_BUCKETS + 1


def test_150_days_of_which_one_has_25_hours_are_not_too_many() -> None:
    since, until = datetime(2026, 8, 1, tzinfo=BERLIN), datetime(2026, 12, 29, tzinfo=BERLIN)
    assert len(bounds_of_spans(since, until, DAY)) == 151


def test_too_many_spans_are_refused_with_the_smallest_that_fits() -> None:
    since = datetime(2026, 11, 23, tzinfo=UTC)
    with pytest.raises(ConfigurationError) as caught:
        bounds_of_spans(since, since + DAY, timedelta(seconds=7))
    assert str(caught.value) == (
        "every 7s there would be a span, and 150 are the most; the shortest round ones that are not too many are "
        "of 10m"
    )
    with pytest.raises(ConfigurationError, match="are of 28d"):
        bounds_of_spans(since, since + 3_000 * DAY, timedelta(days=8))


def test_no_time_has_no_spans() -> None:
    moment = datetime(2026, 11, 23, tzinfo=UTC)
    assert bounds_of_spans(moment, moment, HOUR) == ()
    assert bounds_of_spans(moment, moment - DAY, "auto") == ()


@pytest.mark.parametrize("every", [timedelta(0), -HOUR, "1h", 3_600, None])
def test_span_that_is_none_is_refused(every: object) -> None:
    moment = datetime(2026, 11, 23, tzinfo=UTC)
    with pytest.raises(ConfigurationError, match='every must be a timedelta of more than nothing, or "auto"'):
        bounds_of_spans(moment, moment + DAY, every)  # type: ignore[arg-type]  # as a user may


@pytest.mark.parametrize(
    ("since", "until"),
    [
        (datetime(1600, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2400, 1, 1, tzinfo=UTC)),
        (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
    ],
)
def test_times_that_no_record_can_have_are_refused(since: datetime, until: datetime) -> None:
    for every in ("auto", timedelta(days=3_650)):
        with pytest.raises(ConfigurationError, match="from the year 1678 to 2262"):
            bounds_of_spans(since, until, every)


def test_length_is_read_from_text() -> None:
    assert (parse_every("auto"), parse_every("1h"), parse_every("1d12h")) == ("auto", HOUR, 36 * HOUR)
    with pytest.raises(ConfigurationError, match="'hourly' is not a span of time"):
        parse_every("hourly")


_zones = st.sampled_from(
    [
        UTC,
        BERLIN,
        KOLKATA,
        *map(ZoneInfo, ("Pacific/Apia", "America/Sao_Paulo", "Australia/Lord_Howe", "America/St_Johns")),
        ZoneInfo("Africa/Casablanca"),
        timezone(timedelta(hours=-11, minutes=-59)),
    ]
)
_steps = st.sampled_from([timedelta(seconds=1), MINUTE, HOUR, 5 * HOUR, DAY, 7 * DAY, 28 * DAY])


@pytest.mark.slow
@given(
    since=st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),
    zone=_zones,
    length=st.timedeltas(timedelta(microseconds=1), timedelta(days=20_000)) | _steps.map(lambda step: 3 * step),
    every=st.just("auto") | _steps,
)
def test_spans_are_gapless_and_hold_all_that_was_asked_for(
    since: datetime, zone: tzinfo, length: timedelta, every: Every
) -> None:
    began = since.replace(tzinfo=zone)
    ended = (began.astimezone(UTC) + length).astimezone(zone)
    if every != "auto" and length / every > MAX_BUCKETS + 1:
        with pytest.raises(ConfigurationError, match="150 are the most"):
            bounds_of_spans(began, ended, every)
        return
    assume(every == "auto" or length / every < MAX_BUCKETS - 2)
    found = bounds_of_spans(began, ended, every)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    first, last = (epoch + timedelta(microseconds=bound // 1_000) for bound in (found[0], found[-1]))
    assert first <= began.astimezone(UTC) < epoch + timedelta(microseconds=found[1] // 1_000)
    assert epoch + timedelta(microseconds=found[-2] // 1_000) < ended.astimezone(UTC) <= last
    assert all(former < later for former, later in pairwise(found))
    assert len(found) <= MAX_BUCKETS + 1
    if isinstance(every, timedelta) and every % DAY == timedelta(0):
        midnight = datetime.combine(first.astimezone(zone).date(), time(), zone)
        assert midnight.astimezone(UTC) == first
        assert every != 7 * DAY or date.weekday(first.astimezone(zone)) == 0
