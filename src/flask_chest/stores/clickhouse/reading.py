"""What an aggregate reads of each record, as SQL: keys, numbers, weight and span of time.

A key is a text, so that one comparison serves all types: of a variable the JSON of a scalar, or the bracket with
which it begins, of a column a quotation mark and the value; it is empty where there is none.
"""
# ruff: noqa: S608 - all that comes from outside is a literal

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from flask_chest.aggregates import AggregateQuery, Column, Key, NoScalar, Number, Variable
from flask_chest.stores.aggregates import LEAST_RATE, WHOLE, Keys, counted, numbers
from flask_chest.stores.clickhouse.client import Database
from flask_chest.stores.clickhouse.conditions import IS_ERROR, Asked, variable
from flask_chest.stores.clickhouse.text import quoted

_STATUS_CLASS = "(intDiv(status_code, 100) - (status_code < 0 AND status_code % 100 != 0))"
_WEIGHT = f"toUInt64(floor({WHOLE} / greatest(sample_rate, {LEAST_RATE!r}) + 0.5))"
_NUMBERS: frozenset[Column] = frozenset({"status_code", "status_class"})

_decode = msgspec.json.Decoder().decode


class Reading:
    """What is read for one question: a SELECT, and the names of its columns."""

    def __init__(
        self,
        database: Database,
        query: AggregateQuery,
        asked: Sequence[Asked],
        *,
        variables: Mapping[str, str],
        floats: Mapping[str, str],
    ) -> None:
        """Read what *query* needs, where *variables* and *floats* have columns: as JSON, and their numbers."""
        self._query = query
        self._variables = variables
        self._floats = floats
        self.numbers: dict[Number, str] = {of: f"x{at}" for at, of in enumerate(numbers(query))}
        """What measures are of → its column."""
        self.keys = [f"k{at}" for at in range(len(query.by))]
        """The columns of the key of a group."""
        self.distinct: dict[Column | Variable, str] = {of: f"d{at}" for at, of in enumerate(counted(query))}
        """What is counted by its keys → its column."""
        columns = [f"{self._key_sql(of)} AS {name}" for of, name in zip(query.by, self.keys, strict=True)]
        columns += [f"{self._key_sql(of)} AS {name}" for of, name in self.distinct.items()]
        for of, name in self.numbers.items():
            columns += [
                f"{self._number_sql(of)} AS y{name}",
                f"if(abs(y{name}) <= 1e290, y{name}, NULL) AS {name}",
            ]
        columns += [f"{_WEIGHT} AS w", f"{IS_ERROR} AS e", "sample_rate"]
        if query.bounds:
            columns.append(f"{self._span()} AS b")
        where = " AND ".join([f"time_unix_nano >= {database.cut_off}", *(each.sql for each in asked)])
        self.select = f"SELECT {', '.join(columns)} FROM {database.records} FINAL WHERE {where}"
        beyond = [f"countIf(abs(y{name}) > 1e290)" for name in self.numbers.values()]
        self.left_out = " + ".join(beyond) or "0"
        """How many numbers are beyond `MAX_NUMBER`."""

    def order_of_keys(self) -> list[str]:
        """Return what sorts keys by type and value."""
        order: list[str] = []
        for of, key in zip(self._query.by, self.keys, strict=True):
            if isinstance(of, Variable):
                kind = (
                    f"multiIf({key} = '', 0, {key} = 'null', 1, {key} = 'false', 2, {key} = 'true', 3,"
                    f" startsWith({key}, '\"'), 5, {key} = '[', 6, {key} = '{{', 7, 4)"
                )
                text = f"if(startsWith({key}, '\"'), JSONExtractString({key}), {key})"
                order += [kind, f"toFloat64OrZero({key})", text]
            elif of in _NUMBERS:
                order.append(f"toInt64OrZero(substring({key}, 2))")
            else:
                order.append(str(key))
        return order

    def keys_of(self, raw: Sequence[str]) -> Keys:
        """Return the key that the database has as *raw*."""
        return tuple(
            _key(text) if isinstance(of, Variable) else _column(text, of)
            for of, text in zip(self._query.by, raw, strict=True)
        )

    def span_of(self, begin: int) -> int:
        """Return the number of the span that begins then, the first one 1; for what is in none, one more."""
        return self._query.bounds.index(begin) + 1

    def _span(self) -> str:
        """Return the beginning of the span of a record, or the end of all of them."""
        first, *_, last = bounds = self._query.bounds
        within = f"time_unix_nano >= {first} AND time_unix_nano < {last}"
        begin = f"roundDown(time_unix_nano, [{', '.join(f'toInt64({bound})' for bound in bounds[:-1])}])"
        return f"if({within}, {begin}, toInt64({last}))"

    def _number_sql(self, of: Number) -> str:
        if isinstance(of, Variable):
            if of.name in self._floats:
                return quoted(self._floats[of.name])
            return f"toFloat64OrNull({variable(of.name, self._variables)})"
        return "toNullable(duration_ns / 1e9)"

    def _key_sql(self, of: Column | Variable) -> str:
        if isinstance(of, Variable):
            value = variable(of.name, self._variables)
            first = f"substring({value}, 1, 1)"
            return f"multiIf({first} IN ('[', '{{'), {first}, {value} = '-0.0', '0.0', {value})"
        if of == "status_class":
            return f"concat('\"', toString({_STATUS_CLASS}))"
        # Of a column whose values are few this is worked out once for each of them.
        return f"""ifNull(concat('"', {f"toString({of})" if of in _NUMBERS else of}), '')"""


def _column(text: str, of: Column) -> Key:
    if not text:
        return None
    return int(text[1:]) if of in _NUMBERS else text[1:]


def _key(text: str) -> Key:
    """Return the key that is written as *text*."""
    if text in _NO_SCALARS:
        return _NO_SCALARS[text]
    return cast("Key", cast("Any", _decode(text)))


_NO_SCALARS = {"": NoScalar.ABSENT, "[": NoScalar.LIST, "{": NoScalar.OBJECT}
