"""Times as people read them: in one zone, which is UTC unless ``--tz`` names another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo


def at(unix_nano: int, zone: tzinfo = UTC) -> datetime:
    """Return a time in nanoseconds since 1970 as a datetime, to the microsecond."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=unix_nano // 1_000)).astimezone(zone)


def format_time(unix_nano: int, zone: tzinfo) -> str:
    """Write a time for people, to the second, with its zone: how far it is from UTC, where it is another."""
    seconds, offset = _parts(unix_nano, zone)
    return f"{seconds} {offset or 'UTC'}"


def format_span(unix_nano: int, zone: tzinfo) -> str:
    """Write the beginning of a span, to the second, below the `heading` of its zone.

    Outside of UTC, how far it is from there stands behind it: there are hours that a clock shows twice.
    """
    return "".join(_parts(unix_nano, zone))


def format_moment(unix_nano: int, zone: tzinfo) -> str:
    """Write a time for people as `format_span` does, to the millisecond."""
    seconds, offset = _parts(unix_nano, zone)
    return f"{seconds}.{unix_nano // 1_000_000 % 1_000:03}{offset}"


def heading(zone: tzinfo) -> str:
    """Return what stands above times in *zone*."""
    return f"time [{zone}]"


def _parts(unix_nano: int, zone: tzinfo) -> tuple[str, str]:
    """Return a time to the second, and how far it is from UTC in a zone that is another."""
    text = at(unix_nano, zone).isoformat(" ", "seconds")
    return text[:19], "" if zone is UTC else text[19:]
