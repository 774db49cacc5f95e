"""What may be wrong with the clocks of an app's machines, as sentences."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask_chest._clocks import MAX_SKEW_NANO
from flask_chest.background.retention import tell_time
from flask_chest.cli._options import zone_said
from flask_chest.cli._output import amount
from flask_chest.cli._times import format_time
from flask_chest.extension.chest import FlaskChest
from flask_chest.protocols import CountsDropped, CutOff, Leases
from flask_chest.record import Query

LARGE_SKEW_NANO = 5_000_000_000
MOST_COUNTED = 10_000
NEWS_NANO = 24 * 3600 * 1_000_000_000
"""Time for which a loss counts as something wrong; `flask chest status` shows it for ever."""


def wrong_clocks(chest: FlaskChest) -> Iterator[str]:
    """Yield which clocks are wrong, or were; raise what the store raises."""
    store = chest._state.here.store
    told = tell_time(store, note=False)
    if chest._state.settings.retains and told.doubt is not None:
        yield f"{told.doubt[0].upper()}{told.doubt[1:]}."
    elif isinstance(store, Leases):
        skew = time.time_ns() - told.unix_nano
        if abs(skew) > LARGE_SKEW_NANO:
            direction = "ahead of" if skew > 0 else "behind"
            yield (
                f"This machine's clock is {abs(skew) / 1e9:.0f} s {direction} that of the store: times of "
                "records, retention and tail go by it. Let both be set by NTP."
            )
    if isinstance(store, CountsDropped):
        yield from _dropped(store.cut_off(), told.unix_nano)
    ahead = Query(since_unix_nano=told.unix_nano + MAX_SKEW_NANO, limit=MOST_COUNTED)
    instances: set[str] = set()
    count = latest = 0
    for record in store.query(ahead):
        count, latest = count + 1, max(latest, record.time_unix_nano)
        instances.add(record.instance)
    if count:
        most = " or more" if count == MOST_COUNTED else ""
        yield (
            f"{amount(count)}{most} dated ahead of the clock, up to {format_time(latest, zone_said())}, by "
            f"{', '.join(sorted(instances))}, whose clock was wrong or is: retention leaves them until then. "
            "Let it be set by NTP."
        )


def _dropped(cut_off: CutOff | None, now_unix_nano: int) -> Iterator[str]:
    last = cut_off.last_dropped_unix_nano if cut_off is not None else None
    if cut_off is not None and last is not None and abs(now_unix_nano - last) < NEWS_NANO:
        last_time, before = (format_time(each, zone_said()) for each in (last, cut_off.before_unix_nano))
        yield (
            f"{amount(cut_off.dropped)} not stored, the last at {last_time}, as they began before {before} and "
            "retention had deleted up to then: they waited for longer than it keeps records, or a machine's "
            "clock is behind. Raise CHEST_RETENTION, or set the clock by NTP."
        )
