"""A variable in the text that the encoder wrote, where a database takes long to read JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from flask_chest.record import Bound, JSONValue, encode_value, encode_variables
from flask_chest.stores.sql.narrowing import NOTHING, VariableSQL
from flask_chest.stores.sql.tables import Condition

MOST = 20
"""Values that are looked for one by one; of more only the name is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AsWritten(VariableSQL):
    """Looks for name and value in the text of a record's variables, and only then asks *read*, which reads JSON.

    Every text was written by `encode_variables`, so a record that is meant has those characters; so may others.
    """

    name: str
    contains: LiteralString
    """Condition that the text contains what is bound."""
    read: VariableSQL

    def one_of(self, values: Sequence[JSONValue]) -> Condition | None:
        """Return the condition that the variable has one of *values*."""
        return self._with(self.read.one_of(values), values)

    def bound(self, asked: Bound) -> Condition | None:
        """Return the condition that the variable is on one side of a number or a text."""
        return self._with(self.read.bound(asked))

    def is_set(self) -> Condition | None:
        """Return the condition that the record has the variable."""
        return self._with(self.read.is_set())

    def _with(self, read: Condition | None, values: Sequence[JSONValue] = ()) -> Condition:
        written = tuple(dict.fromkeys(text for value in values for text in self._written(value)))
        if values and not written:
            return NOTHING
        if not values or len(written) > MOST:
            written = (f"{encode_value(self.name)}:",)
        found = " OR ".join([self.contains for _ in written])
        return (f"({found})", written) if read is None else (f"({found}) AND ({read[0]})", (*written, *read[1]))

    def _written(self, value: JSONValue) -> Sequence[str]:
        if isinstance(value, list | dict):  # of an object, the keys may come in another order
            return (f"{encode_value(self.name)}:",)
        alike = (0.0, -0.0) if isinstance(value, float) and value == 0 else (value,)
        try:
            return [encode_variables({self.name: each})[1:-1] for each in alike]
        except ValueError:  # a lone surrogate, or a number beyond 64 bits: no record has it
            return ()
