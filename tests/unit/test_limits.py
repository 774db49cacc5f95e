"""How the limits of retention are written."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flask_chest.background.limits import Limits, parse_span
from flask_chest.errors import ConfigurationError


@pytest.mark.parametrize(
    ("value", "limits"),
    [
        (timedelta(days=30), Limits(age=timedelta(days=30))),
        ("90s", Limits(age=timedelta(seconds=90))),
        ("15m", Limits(age=timedelta(minutes=15))),
        ("2h", Limits(age=timedelta(hours=2))),
        ("4w", Limits(age=timedelta(weeks=4))),
        ("500 rows", Limits(rows=500)),
        ("1_000_000 rows", Limits(rows=1_000_000)),
        ("2 GB", Limits(size=2 * 10**9)),
        ("512MiB", Limits(size=512 * 2**20)),
        ("30d, 1000 rows,10 kb", Limits(age=timedelta(days=30), rows=1000, size=10_000)),
    ],
)
def test_limits_are_read(value: object, limits: Limits) -> None:
    assert Limits.parse(value, "retention") == limits


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("30", "retention must be limits, as .* got '30'"),
        ("", "retention must be limits"),
        ("a year", "retention must be limits"),
        ("30d,", "retention must be limits"),
        ("-1d", "retention must be limits"),
        (f"{10**12}w", "retention must be limits"),
        ("1d, 2d", "two limits of one kind"),
        ("0 rows", "must leave something"),
        ("0s", "must leave something"),
        ("0 GB", "must leave something"),
        (timedelta(0), "must leave something"),
        (30, "retention must be a text, as .* got 30"),
    ],
)
def test_what_is_no_limit_is_told_with_the_way_out(value: object, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Limits.parse(value, "retention")


def test_spans_of_time_are_read() -> None:
    assert parse_span("90s") == timedelta(seconds=90)
    assert parse_span("tomorrow") is None
