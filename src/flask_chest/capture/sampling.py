"""Which requests are kept where not all are."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from flask_chest.errors import ConfigurationError
from flask_chest.record import Record

Rate: TypeAlias = float | Callable[[], float]
"""0 to 1, or what says so for the current request; ``True`` is 1."""

_TRACE_RANGE = 1 << 64
_ID_RANGE = 1 << 32


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Keeps a share of the requests, and all that are worth it.

    The same share of traces as OpenTelemetry's ``TraceIdRatioBased``: the lower 64 bits of the trace id decide,
    so that all services which keep one rate keep the same traces. Without a trace the request id decides.
    """

    rate: Rate
    keep_errors: bool
    keep_slower_than_ns: int | None

    def current_rate(self) -> float:
        """Return the rate for the current request; raise what the app's own function raises."""
        rate = self.rate() if callable(self.rate) else self.rate
        if not isinstance(rate, int | float) or not 0 <= rate <= 1:  # type: ignore[redundant-expr]  # may be unchecked
            raise ConfigurationError(f"sample must return a number from 0 to 1, got {rate!r}")
        return float(rate)  # an int, a bool or a subclass of float would not be stored

    def sampled(self, record: Record, rate: float) -> Record | None:
        """Return *record* with the probability with which such a one is kept at *rate*; ``None`` if it is not.

        That is *rate*, but 1 for those that are all kept.
        """
        if self.keep_errors and record.is_error:
            return record
        if self.keep_slower_than_ns is not None and record.duration_ns >= self.keep_slower_than_ns:
            return record
        if record.trace_id is not None:
            kept = int(record.trace_id[16:], 16) < round(rate * _TRACE_RANGE)
        else:
            kept = zlib.crc32(record.request_id.encode(errors="replace")) < round(rate * _ID_RANGE)
        return replace(record, sample_rate=rate) if kept else None
