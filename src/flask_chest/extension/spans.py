"""The spans of time into which an answer is divided: begun and ended as people count time in their zone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import chain, count
from typing import Literal, TypeAlias

from flask_chest._clocks import nanoseconds
from flask_chest.aggregates import MAX_BUCKETS
from flask_chest.errors import ConfigurationError
from flask_chest.extension.question_text import span, span_text

Every: TypeAlias = timedelta | Literal["auto"]
"""How long a span is; ``"auto"`` is the shortest round one of which there are not too many."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MAX_UNIX_NANO = (1 << 63) - 1

_ROUND = (
    *(timedelta(seconds=seconds) for seconds in (1, 5, 10, 30, 60, 300, 600, 1800)),
    *(timedelta(hours=hours) for hours in (1, 3, 6, 12)),
    *(timedelta(days=days) for days in (1, 7, 28)),
)


def parse_every(text: str) -> Every:
    """Read how long a span is: ``auto``, or a span of time, as ``5m``, ``1h`` or ``1d``."""
    return "auto" if text == "auto" else span(text)


def bounds_of_spans(since: datetime, until: datetime, every: Every) -> tuple[int, ...]:
    """Return the bounds of the spans from *since* to *until*, in nanoseconds since 1970.

    Spans of whole days begin at midnight in the zone of *since*, so a day may have 23 or 25 hours, and those of
    whole weeks on Mondays. Shorter ones are counted from the midnight before *since*. The first one holds
    *since*, and the last one ends at *until* or later. Raises `ConfigurationError` for more than `MAX_BUCKETS`.
    """
    given: object = every
    if given != "auto" and not (isinstance(given, timedelta) and given > timedelta(0)):
        raise ConfigurationError(f'every must be a timedelta of more than nothing, or "auto", got {every!r}')
    end = until.astimezone(UTC)  # datetimes of one zone are compared by the clock on the wall
    if end <= since.astimezone(UTC):
        return ()
    try:
        if every == "auto":
            return next(found for step in _ladder() if (found := _bounds(since, end, step)) is not None)
        found = _bounds(since, end, every)
        if found is None:
            fits = next(step for step in _ladder() if step > every and _bounds(since, end, step) is not None)
            raise ConfigurationError(
                f"every {span_text(every)} there would be a span, and {MAX_BUCKETS} are the most; "
                f"the shortest round ones that are not too many are of {span_text(fits)}"
            )
    except OverflowError:
        raise ConfigurationError("every divides times from the year 1678 to 2262; set since and until") from None
    return found


def _ladder() -> Iterator[timedelta]:
    """Yield round spans, the shortest first; 28 days are followed by twice as long, and so on."""
    return chain(_ROUND, (_ROUND[-1] * 2**power for power in count(1)))


def _bounds(since: datetime, end: datetime, step: timedelta) -> tuple[int, ...] | None:
    """Return the bounds of spans of *step*, or ``None`` for too many."""
    found: list[int] = []
    for moment in _by_days(since, step.days) if step % DAY == timedelta(0) else _by_clock(since, step):
        bound = _unix_nano(moment)
        if not found or bound > found[-1]:  # a zone may have left out a day
            found.append(bound)
        if moment >= end:
            return tuple(found)
        if len(found) > MAX_BUCKETS:
            return None
    raise OverflowError  # the calendar ends


def _by_days(since: datetime, days: int) -> Iterator[datetime]:
    first = since.date().toordinal() - (since.date().toordinal() - 1) % days
    for ordinal in range(max(first, 1), date.max.toordinal(), days):
        yield _midnight(date.fromordinal(ordinal), since.tzinfo)


def _by_clock(since: datetime, step: timedelta) -> Iterator[datetime]:
    midnight = _midnight(since.date(), since.tzinfo).astimezone(UTC)
    begin = midnight + (since - midnight) // step * step
    for number in count():
        yield begin + number * step


def _midnight(day: date, zone: tzinfo | None) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _unix_nano(moment: datetime) -> int:
    found = nanoseconds(moment - EPOCH)
    if abs(found) > MAX_UNIX_NANO:
        raise OverflowError
    return found
