"""How long a store may work on an answer."""

from __future__ import annotations

import time
from datetime import timedelta
from math import ceil

from flask_chest.errors import QueryTimeout


class TimeLimit:
    """The time that all work on an answer may take, from now on; ``None`` is no limit."""

    def __init__(self, timeout: timedelta | None) -> None:
        self._timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout.total_seconds()

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self._end is not None and time.monotonic() >= self._end

    def seconds(self) -> float | None:
        """Return the time that is left, or ``None`` without a limit; raise `QueryTimeout` if none is."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.exceeded()
        return left

    def milliseconds(self) -> int:
        """Return the time that is left as servers take it, 0 without a limit; raise `QueryTimeout` if none is.

        It is rounded up: when a server ends a statement for it, the limit is over here as well.
        """
        left = self.seconds()
        return 0 if left is None else ceil(left * 1000) + 1

    def exceeded(self) -> QueryTimeout:
        """Return the error of an answer that took longer."""
        assert self._timeout is not None  # noqa: S101 - nothing is longer than no limit
        return QueryTimeout(self._timeout)
