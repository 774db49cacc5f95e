"""Pieces of SQL that are made of values, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import LiteralString, cast

from flask_chest.stores.sql.tables import Condition, SQLValue

_DIGITS: tuple[LiteralString, ...] = ("-", ".", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


def joined(conditions: Iterable[Condition], between: LiteralString) -> Condition:
    """Return the SQL of *conditions* with what is *between* them, and the values of all."""
    every = list(conditions)
    return between.join([sql for sql, _ in every]), tuple(value for _, values in every for value in values)


def digits(number: float) -> LiteralString:
    """Return *number*, which is whole or not near to 0, as SQL."""
    return "".join([_DIGITS["-.0123456789".index(digit)] for digit in repr(number)])


def reached(number: LiteralString, bounds: Sequence[float], *, first: int) -> Condition:
    """Return how many of *bounds* a number has reached, plus *first*, by as few comparisons as possible."""
    if not bounds:
        return digits(first), ()
    middle = len(bounds) // 2
    below, below_values = reached(number, bounds[:middle], first=first)
    above, above_values = reached(number, bounds[middle + 1 :], first=first + middle + 1)
    sql: LiteralString = f"CASE WHEN {number} < ? THEN {below} ELSE {above} END"
    return sql, (bounds[middle], *below_values, *above_values)


def text(value: object) -> SQLValue:
    """Return a key as the next statement takes it."""
    return value.decode() if isinstance(value, bytes) else cast("SQLValue", value)
