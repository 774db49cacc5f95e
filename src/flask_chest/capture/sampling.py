"""Which requests are kept where not all are."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from flask_chest.errors import ConfigurationError
from flask_chest.record import Record

Rate: TypeAlias = float | Callable[[], float]
"""0 to 1, or what says so for the current request; ``True`` is 1."""

_TRACE_RANGE = 1 << 64
_ID_RANGE = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
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
        return rate

    def keeps(self, record: Record, rate: float) -> bool:
        """Return whether *record* is kept at *rate*."""
        if self.keep_errors and record.is_error:
            return True
        if self.keep_slower_than_ns is not None and record.duration_ns >= self.keep_slower_than_ns:
            return True
        if record.trace_id is not None:
            return int(record.trace_id[16:], 16) < round(rate * _TRACE_RANGE)
        return zlib.crc32(record.request_id.encode(errors="replace")) < round(rate * _ID_RANGE)
