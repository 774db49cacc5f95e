"""When a lease ends, by clocks that may have been ahead."""

from __future__ import annotations

from datetime import timedelta

from flask_chest._clocks import MAX_SKEW_NANO, nanoseconds


def is_held(until_unix_nano: int, now_unix_nano: int, *, lease: timedelta) -> bool:
    """Tell whether a lease lasts, of which one that begins now would have the length *lease*.

    One that ends much later was given by a clock that was ahead, perhaps by years: its holder may be gone, and
    if not, it finds that it has lost it.
    """
    return now_unix_nano < until_unix_nano <= now_unix_nano + nanoseconds(lease) + MAX_SKEW_NANO
