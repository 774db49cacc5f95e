"""A variable in SQLite: by its own type, as SQLite's JSON functions give it."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from math import isfinite
from typing import LiteralString

from flask_chest.record import Bound, JSONValue
from flask_chest.stores._indexes import is_indexable
from flask_chest.stores._records import bindable, is_integer, is_text
from flask_chest.stores.sql.narrowing import (
    NOTHING,
    VariableSQL,
    around,
    highest,
    lowest,
    marks,
)
from flask_chest.stores.sql.tables import Condition, SQLValue
from flask_chest.stores.sql.written import joined

_HAS_ARROW = sqlite3.sqlite_version_info >= (3, 38)


_MOST_DIGITS = 17
"""Digits with which any float can be written."""


def _reads_all_digits() -> bool:
    """Return whether this SQLite reads floats of the most digits, which takes more precision than they have."""
    texts = [repr(math.sqrt(place) / 1_000) for place in range(1, 500)]
    texts = [text for text in texts if len(text.lstrip("0.")) == _MOST_DIGITS]
    with closing(sqlite3.connect(":memory:")) as connection:
        return all(
            connection.execute("SELECT CAST(? AS REAL)", (text,)).fetchone()[0] == float(text) for text in texts
        )


_LONG: LiteralString = "CAST({value} AS REAL)" if _reads_all_digits() else "flask_chest_number({value})"

# SQLite rounds twice, which changes 1 in 10,000 floats of up to 16 digits. Whole numbers up to 2^53 and powers
# of ten up to 10^22 are exact, so that their quotient is rounded once. A text of 17 digits is too near to its
# float for the first rounding to matter.
NUMBER: LiteralString = f"""
    CASE
        WHEN {{value}} >= '0' AND {{value}} < '0.9' AND length({{value}}) <= 18
            THEN CAST(substr({{value}} || '0000000000000000', 3, 16) AS INTEGER) / 1e16
        WHEN {{value}} < '-' OR {{value}} >= ':' THEN NULL
        WHEN instr({{value}}, 'e') > 0 OR length({{value}}) > 22 THEN flask_chest_number({{value}})
        WHEN instr({{value}}, '.') = 0 AND length({{value}}) < 19 THEN CAST(CAST({{value}} AS INTEGER) AS REAL)
        WHEN instr({{value}}, '.') = 0 THEN flask_chest_number({{value}})
        WHEN abs(CAST(replace({{value}}, '.', '') AS INTEGER)) <= 9007199254740992
            THEN CAST(replace({{value}}, '.', '') AS INTEGER)
                / CAST('1e' || (length({{value}}) - instr({{value}}, '.')) AS REAL)
        WHEN abs(CAST(replace({{value}}, '.', '') AS INTEGER)) < 10000000000000000
            THEN flask_chest_number({{value}})
        ELSE {_LONG}
    END
"""
"""The number in a JSON text, to its last digit."""

_TYPES: dict[type, LiteralString] = {
    type(None): "'null'",
    int: "'integer'",
    float: "'real'",
    str: "'text'",
    list: "'array'",
    dict: "'object'",
}
# In UTF-16 texts do not sort by code points. A blob comes after all of them.
_FROM: LiteralString = "CASE (SELECT encoding FROM pragma_encoding) WHEN 'UTF-8' THEN ? ELSE '' END"
_UP_TO: LiteralString = "CASE (SELECT encoding FROM pragma_encoding) WHEN 'UTF-8' THEN ? ELSE x'' END"


def of_record(name: str) -> VariableSQL | None:
    """Return the variable *name* of a ``record``."""
    if is_indexable(name):
        return SQLiteVariable(value=value(name, "record."), type=f"json_type(record.variables, {path(name)})")
    if bindable(name):
        # A path cannot address every name, so each variable is looked at.
        return SQLiteVariable(
            value="atom",
            type="type",
            begin="EXISTS (SELECT 1 FROM json_each(record.variables) WHERE key = ? AND ",
            end=")",
            values=(name,),
        )
    return None


def json_text(name: str) -> Condition:
    """Return the variable *name* of a ``record`` as it is written."""
    if _HAS_ARROW and is_indexable(name):
        return f"record.variables -> {path(name)}", ()
    return "flask_chest_value(record.variables, ?)", (name,)


def value(name: LiteralString, prefix: LiteralString = "") -> LiteralString:
    """Return the expression for a variable's value that an index may be on: with a path that is a literal."""
    return f"json_extract({prefix}variables, {path(name)})"


def path(name: LiteralString) -> LiteralString:
    """Return the path to the variable *name*."""
    return f"""'$."{name}"'"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SQLiteVariable(VariableSQL):
    """SQL for one variable; ``true`` is 1 in it, ``null`` is NULL, and a text may end at a NUL."""

    value: LiteralString
    type: LiteralString
    begin: LiteralString = ""
    end: LiteralString = ""
    values: tuple[SQLValue, ...] = ()

    def one_of(self, values: Sequence[JSONValue]) -> Condition | None:
        """Return the condition that the variable has one of *values*."""
        same: list[SQLValue] = []
        types: list[LiteralString] = []
        others: list[Condition] = []
        for each in values:
            if isinstance(each, bool):
                types.append("'true'" if each else "'false'")
                same.append(int(each))
                continue
            kind = _TYPES.get(type(each))
            if kind is None:
                return None
            types.append(kind)
            if isinstance(each, str):
                # The whole text too: a later release may not end it at the NUL.
                same.extend({each, each.partition("\0")[0]} if is_text(each) else ())
            elif isinstance(each, float):
                others.extend([(f"{self.value} BETWEEN ? AND ?", around(each))] if isfinite(each) else [])
            elif isinstance(each, int):
                same.extend([each] if is_integer(each) else [])
            else:
                null: LiteralString = f"{self.value} IS NULL AND " if each is None else ""
                others.append((f"{null}{self.type} = {kind}", ()))
        if same:
            others.insert(0, (f"{self.value} IN ({marks(same)})", tuple(same)))
        if not others:
            return NOTHING
        any_of, all_values = joined(others, " OR ")
        return self._within(f"({any_of}) AND {self.type} IN ({', '.join(sorted(set(types)))})", all_values)

    def bound(self, asked: Bound) -> Condition | None:
        """Return the condition that the variable is on one side of a number or a text."""
        above = asked.operator in {"gt", "ge"}
        # All numbers come before all texts, and those before all blobs. A range with both ends makes SQLite
        # prefer the index to a walk through the records by time.
        if isinstance(asked.value, str):
            end: SQLValue = (lowest if above else highest)(asked.value)
            low, high = (_FROM, "x''") if above else ("''", _UP_TO)
            kinds: LiteralString = "'text'"
        else:
            end = around(asked.value)[0 if above else 1]
            low, high = ("?", "''") if above else ("-9e999", "?")
            kinds = "'integer', 'real'"
        within: LiteralString = f"{self.value} >= {low} AND {self.value} <= {high}"
        return self._within(f"{within} AND {self.type} IN ({kinds})", (end,))

    def is_set(self) -> Condition | None:
        """Return the condition that the record has the variable."""
        return self._within(f"{self.type} IS NOT NULL", ())

    def _within(self, sql: LiteralString, values: tuple[SQLValue, ...]) -> Condition:
        return f"{self.begin}{sql}{self.end}", (*self.values, *values)
