"""How the limits of retention are written."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flask_chest.background.retention import RetentionPolicy, parse_span
from flask_chest.errors import ConfigurationError


@pytest.mark.parametrize(
    ("value", "limits"),
    [
        (timedelta(days=30), RetentionPolicy(age=timedelta(days=30))),
        ("90s", RetentionPolicy(age=timedelta(seconds=90))),
        ("15m", RetentionPolicy(age=timedelta(minutes=15))),
        ("2h", RetentionPolicy(age=timedelta(hours=2))),
        ("4w", RetentionPolicy(age=timedelta(weeks=4))),
        ("500 rows", RetentionPolicy(rows=500)),
        ("1_000_000 rows", RetentionPolicy(rows=1_000_000)),
        ("2 GB", RetentionPolicy(size=2 * 10**9)),
        ("512MiB", RetentionPolicy(size=512 * 2**20)),
        ("30d, 1000 rows,10 kb", RetentionPolicy(age=timedelta(days=30), rows=1000, size=10_000)),
    ],
)
def test_limits_are_read(value: object, limits: RetentionPolicy) -> None:
    assert RetentionPolicy.parse(value, "retention") == limits


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
        ("0 rows", "must have limits above zero"),
        ("0s", "must have limits above zero"),
        ("0 GB", "must have limits above zero"),
        (timedelta(0), "must have limits above zero"),
        (30, "retention must be a text, as .* got 30"),
    ],
)
def test_what_is_no_limit_is_told_with_the_way_out(value: object, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        RetentionPolicy.parse(value, "retention")


def test_spans_of_time_are_read() -> None:
    assert parse_span("90s") == timedelta(seconds=90)
    assert parse_span("tomorrow") is None
