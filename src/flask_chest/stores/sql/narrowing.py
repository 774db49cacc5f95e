"""What a query asks of variables, as SQL: it narrows what `Query.matches` then decides."""

from __future__ import annotations

import re
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import LiteralString, Protocol, TypeAlias, TypeGuard

from flask_chest.record import Bound, IsSet, JSONValue, OneOf, Query
from flask_chest.record import Condition as Asked
from flask_chest.stores.sql.tables import Condition, SQLValue

MAX_VALUES = 500
"""Values that a statement binds for variables at most; older releases of SQLite take 999 in all."""

NOTHING: Condition = ("1 = 0", ())
"""Condition that no record meets."""

_NAME = re.compile("[A-Za-z0-9_-]+")
_BEYOND_TEXT = re.compile("[\0\x01\ud800-\udfff]")
"""What a database does not take as text, or keeps as another character."""


class VariableSQL(Protocol):
    """One variable of a ``record`` in SQL.

    Each condition is met by every record that has what is asked for, and by as few others as the database can
    tell; ``None`` means by all.
    """

    @abstractmethod
    def one_of(self, values: Sequence[JSONValue]) -> Condition | None:
        """Return the condition that the variable has one of *values*."""

    @abstractmethod
    def bound(self, asked: Bound) -> Condition | None:
        """Return the condition that the variable is on one side of a number or a text."""

    @abstractmethod
    def is_set(self) -> Condition | None:
        """Return the condition that the record has the variable."""


Variables: TypeAlias = "Callable[[str], VariableSQL | None]"
"""Function that returns a variable of a ``record`` by its name; ``None`` where nothing narrows by it."""


def asked_of(query: Query) -> list[tuple[str, Asked]]:
    """Return the names of variables and what *query* asks of each; a single value is one of one."""
    return [*((name, OneOf((value,))) for name, value in query.where.items()), *query.conditions]


def narrowing(query: Query, variables: Variables) -> Iterator[Condition]:
    """Yield conditions that all records meet which have the variables that *query* asks for."""
    room = MAX_VALUES
    for name, condition in asked_of(query):
        variable = variables(name)
        found = None if variable is None else _condition(variable, condition)
        if found is not None and len(found[1]) <= room:
            room -= len(found[1])
            yield found


def _condition(variable: VariableSQL, asked: Asked) -> Condition | None:
    match asked:
        case OneOf():
            return variable.one_of(asked.values) if asked.values else NOTHING
        case Bound():
            return variable.bound(asked)
        case IsSet():
            return variable.is_set()


def is_name(name: str) -> TypeGuard[LiteralString]:
    """Return whether *name* may stand between quotes in a statement."""
    return _NAME.fullmatch(name) is not None


def around(value: float) -> tuple[float, float]:
    """Return bounds between which a database reads what was *value*; not every release does to the last digit."""
    most = sys.float_info.max
    number = float(max(-most, min(value, most)))  # a whole number may have hundreds of digits
    width = abs(number) * 1e-12 + 1e-300
    return max(number - width, -most), min(number + width, most)


def lowest(text: str) -> str:
    """Return a text that every database takes, and before which nothing comes that does not precede *text*."""
    found = _BEYOND_TEXT.search(text)
    return text if found is None else text[: found.start()]


def highest(text: str) -> str:
    """Return a text that every database takes, and after which nothing comes that does not follow *text*.

    So it is, too, among texts in which another character up to U+0001 has taken the place of each NUL.
    """
    found = _BEYOND_TEXT.search(text)
    if found is None:
        return text
    return text[: found.start()] + ("\x02" if found.group() <= "\x01" else "\U0010ffff")


def marks(values: Sequence[SQLValue], mark: LiteralString = "?") -> LiteralString:
    """Return *mark* as many times as there are *values*."""
    return ", ".join([mark for _ in values])
