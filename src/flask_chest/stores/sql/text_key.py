"""A variable on a database server: as text, which one index serves whatever the types of its values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import LiteralString

from flask_chest.record import Bound, JSONValue, encode_variables
from flask_chest.stores._records import is_text
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

KEY_LENGTH = 255
"""Characters of a value that are compared, as an index on more may refuse a record; the 255 in the SQL."""

_NUMBER: LiteralString = "'-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'"
_TEXT: LiteralString = "'\"'"
UNREADABLE: LiteralString = "'!'"
"""What stands for variables that the database cannot read; no JSON begins so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextKey(VariableSQL):
    """SQL for one variable."""

    key: LiteralString
    """The first `KEY_LENGTH` characters of the value, of a text itself or of JSON; compared by code point."""
    json: LiteralString
    """The value as JSON text, of which the first character tells the type; NULL where there is none."""
    number: LiteralString
    """The number in double precision, of a value that is one."""
    null_is_absent: bool = False
    """Whether the key of ``null`` is NULL, as that of no value is."""
    floats_as_written: bool = False
    """Whether the key of a float is what our encoder wrote, and not what the database makes of it."""
    cut: LiteralString = "?"
    """SQL for a text that is compared, where the database counts other characters than Python does."""
    sorts: bool = True
    """Whether the database sorts texts by code point."""
    nul: str = "\0"
    """Character that stands in keys for a NUL."""
    has_unreadable: bool = False
    """Whether the database cannot read all that it keeps: key and JSON are `UNREADABLE` then."""

    def one_of(self, values: Sequence[JSONValue]) -> Condition | None:
        """Return the condition that the variable has one of *values*."""
        keys: list[SQLValue] = []
        kinds: list[LiteralString] = []
        others: list[Condition] = []
        for value in values:
            if value is None:
                kinds.append("'n'")
                if self.null_is_absent:
                    others.append((f"{self.key} IS NULL", ()))
                else:
                    keys.append("null")
            elif isinstance(value, bool):
                kinds.append("'t'" if value else "'f'")
                keys.append("true" if value else "false")
            elif isinstance(value, int | float):
                kinds.append(_NUMBER)
                self._add_number(value, keys, others)
            elif isinstance(value, str):
                kinds.append(_TEXT)
                if is_text(value):
                    keys.append(value.replace("\0", self.nul)[:KEY_LENGTH])
            else:
                kind: LiteralString = "'['" if isinstance(value, list) else "'{{'"
                kinds.append(kind)
                others.append((self._is_of(kind), ()))
        return self._any(keys, kinds, others)

    def bound(self, asked: Bound) -> Condition | None:
        """Return the condition that the variable is on one side of a number or a text."""
        above = asked.operator in {"gt", "ge"}
        compared: LiteralString = ">= " if above else "<= "
        if isinstance(asked.value, str) and not self.sorts:
            return self._is_of(_TEXT), ()
        if isinstance(asked.value, str):
            end = (lowest if above else highest)(asked.value)[:KEY_LENGTH]
            unreadable: LiteralString = f" OR {self.key} = {UNREADABLE}" if self.has_unreadable else ""
            return f"({self.key} {compared}{self.cut}{unreadable}) AND {self._is_of(_TEXT)}", (end,)
        low, high = around(asked.value)
        return self._number(compared + "?", (low if above else high,))

    def is_set(self) -> Condition | None:
        """Return the condition that the record has the variable."""
        return f"{self.json} IS NOT NULL", ()

    def _any(self, keys: list[SQLValue], kinds: list[LiteralString], others: list[Condition]) -> Condition:
        if not keys and not others:
            return NOTHING
        alternatives = list(others)
        if keys:
            unreadable: LiteralString = f", {UNREADABLE}" if self.has_unreadable else ""
            alternatives.insert(0, (f"{self.key} IN ({marks(keys, self.cut)}{unreadable})", tuple(keys)))
        elif self.has_unreadable:
            alternatives.append((f"{self.key} = {UNREADABLE}", ()))
        any_of, values = joined(alternatives, " OR ")
        if not others:
            return any_of, values  # few values of other types have the same key, and it costs to tell them
        return f"({any_of}) AND {self._is_of(', '.join(sorted(set(kinds))))}", values

    def _add_number(self, value: float, keys: list[SQLValue], others: list[Condition]) -> None:
        if isinstance(value, int):
            keys.append(str(value)[:KEY_LENGTH])
        elif not isfinite(value):
            return  # no record has it
        elif not self.floats_as_written:
            others.append(self._number("BETWEEN ? AND ?", around(value)))
        else:
            equals = (0.0, -0.0) if value == 0 else (value,)
            keys.extend(encode_variables({"": each})[len('{"":') : -1] for each in equals)

    def _number(self, compared: LiteralString, values: tuple[SQLValue, ...]) -> Condition:
        # In one CASE: what is no number must not be read as one.
        number: LiteralString = f"CASE WHEN {self._kind} IN ({_NUMBER}) THEN {self.number} {compared} END"
        if self.has_unreadable:
            return f"({number} OR {self._kind} = {UNREADABLE})", values
        return number, values

    @property
    def _kind(self) -> LiteralString:
        return f"LEFT({self.json}, 1)"

    def _is_of(self, kinds: LiteralString) -> LiteralString:
        unreadable: LiteralString = f", {UNREADABLE}" if self.has_unreadable else ""
        return f"{self._kind} IN ({kinds}{unreadable})"
