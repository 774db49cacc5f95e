"""How long a store may work on an answer, and what would make that shorter."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from math import ceil

from flask_chest.errors import QueryTimeout, StoreError
from flask_chest.protocols import VariableIndexes
from flask_chest.record import Query
from flask_chest.stores._indexes import is_indexable


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


class TimeBudget:
    """The time that the pieces of work on an answer may take together; ``None`` is no limit."""

    def __init__(self, timeout: timedelta | None) -> None:
        self._timeout = timeout
        self._left = timeout

    @contextmanager
    def working(self) -> Iterator[timedelta | None]:
        """Let a piece of work take what is left."""
        began = time.monotonic()
        try:
            yield self._left
        except QueryTimeout as exc:
            # It says what was left for this piece.
            raise exc if self._timeout is None else QueryTimeout(self._timeout) from exc.__cause__
        finally:
            if self._left is not None:
                self._left -= timedelta(seconds=time.monotonic() - began)


@contextmanager
def naming_indexes(query: Query, indexes: VariableIndexes) -> Iterator[None]:
    """Let a `QueryTimeout` name the variables by which *query* could be answered faster, had they an index."""
    try:
        yield
    except QueryTimeout as exc:
        missing = _missing(query, indexes)
        if not missing:
            raise
        raise QueryTimeout(exc.timeout, unindexed=missing) from exc.__cause__


def _missing(query: Query, indexes: VariableIndexes) -> list[str]:
    asked = dict.fromkeys([*query.where, *(name for name, _ in query.conditions)])
    try:
        there = {index.variable for index in indexes.indexes() if index.valid}
    except StoreError:
        return []
    # One is enough: a database reads by it, and looks at the others in what it finds.
    return [] if there & asked.keys() else [name for name in asked if is_indexable(name)]
