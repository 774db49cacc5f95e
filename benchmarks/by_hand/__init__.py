"""The questions of `benchmarks.aggregating` as one writes them by hand: a module for each engine.

``asking(uri, name)`` is a context manager that lends a function, which answers a question on the table or
collection *name*. They know, as we must, that a record may count for several requests, and that a variable may
be no number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Question: TypeAlias = Literal["hours", "percentiles", "numbers", "histogram", "day"]
Found: TypeAlias = "Mapping[object, tuple[float, ...]]"
"""Key of a group → its values; that of all records is ``None``, and that of an hour its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The time that a question is about, in nanoseconds since 1970."""

    since: int
    until: int


Ask: TypeAlias = Callable[[Question, Span], Found]

HOUR = 3_600_000_000_000
PLAN = "plan"
NUMBER = "total_time"
