"""What an aggregate reads of each record, as SQL: the two lowest SELECTs of each of its statements.

``raw`` reads columns and variables of the records that are meant, each once, and ``found`` makes keys, numbers,
weights and spans of time of them.
"""
# ruff: noqa: S608 - values are bound, so all text in a statement is from here

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, LiteralString, cast

import msgspec

from flask_chest.aggregates import AggregateQuery, Column, Histogram, Key, NoScalar, Number, Variable
from flask_chest.record import COLUMN_FILTERS, Bound, JSONValue, OneOf, Query, encode_value
from flask_chest.record import Condition as Asked
from flask_chest.stores._records import MAX_INTEGER, bindable
from flask_chest.stores.aggregates import Keys, counted, numbers
from flask_chest.stores.sql.narrowing import MAX_VALUES, asked_of, marks, narrowing
from flask_chest.stores.sql.query import IS_ERROR, column_conditions
from flask_chest.stores.sql.tables import Condition, Session, SQLValue, Tables
from flask_chest.stores.sql.written import digits, joined, reached

EXACT = 1 << 53
"""Size up to which a double holds every whole number."""

_decode = msgspec.json.Decoder().decode

_COLUMNS: tuple[LiteralString, ...] = ("route", "method", "endpoint", "instance", "request_id", "trace_id")
"""The columns that are read where something is grouped by them; others always are."""
_KEY: LiteralString = (
    "CASE WHEN substr({value}, 1, 1) IN ('[', '{{{{') THEN substr({value}, 1, 1)"
    " WHEN {value} = '-0.0' THEN '0.0' ELSE {value} END"
)
"""Key of a variable: a scalar as JSON, or the bracket with which it begins."""
_KIND: LiteralString = (
    "CASE WHEN {key} IS NULL THEN 0 WHEN {key} = 'null' THEN 1 WHEN {key} = 'false' THEN 2"
    " WHEN {key} = 'true' THEN 3 WHEN substr({key}, 1, 1) = '\"' THEN 5 WHEN {key} = '[' THEN 6"
    " WHEN {key} = '{{{{' THEN 7 ELSE 4 END"
)
_WITHOUT_QUOTES: LiteralString = (
    "CASE WHEN substr({key}, 1, 1) = '\"' THEN substr({key}, 2, length({key}) - 2) ELSE {key} END"
)
_WITHIN: LiteralString = "abs({number}) <= 1e290"
"""Condition that a number is at most `MAX_NUMBER`."""
_SIGNS: dict[str, LiteralString] = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def is_decidable(query: AggregateQuery, meant: Query) -> bool:
    """Return whether the database can decide which records are meant, and tell their keys."""
    filters = (getattr(meant, name) for name in COLUMN_FILTERS)
    named = [*query.by, *numbers(query), *counted(query)]
    names = [each.name for each in named if isinstance(each, Variable)]
    since = meant.since_unix_nano
    asked = asked_of(meant)
    return (
        all(map(bindable, [*names, *(name for name, _ in asked)]))
        and all(value is None or bindable(value) for value in filters)
        and (since is None or since <= MAX_INTEGER)
        and all(_is_exact(condition) for _, condition in asked)
    )


def _is_exact(asked: Asked) -> bool:
    match asked:
        case Bound(_, value):
            return not isinstance(value, str) and abs(value) <= EXACT
        case OneOf(values):
            return all(map(_is_scalar, values)) and len(values) <= MAX_VALUES
        case _:
            return True


def _is_scalar(value: JSONValue) -> bool:
    return value is None or isinstance(value, float) or bindable(value)


def _written(value: JSONValue) -> list[str]:
    """Return how a scalar may be written."""
    return ["0.0", "-0.0"] if isinstance(value, float) and value == 0 else [encode_value(value)]


class Reading:
    """What is read of each record: the two lowest SELECTs, and the names of their columns."""

    def __init__(self, session: Session, tables: Tables, query: AggregateQuery, meant: Query) -> None:
        self._query = query
        self.dialect = tables.dialect
        self._variables: dict[str, LiteralString] = {}
        self.numbers: dict[Number, LiteralString] = {of: digits(at) for at, of in enumerate(numbers(query))}
        """What measures are of → number in the names of its columns."""
        self.unbounded: list[LiteralString] = [
            f"y{at}" for of, at in self.numbers.items() if isinstance(of, Variable)
        ]
        """The columns of numbers that may be beyond what counts: no duration is."""
        self._keys: list[LiteralString] = [f"k{digits(at)}" for at in range(len(query.by))]
        self.distinct: dict[Column | Variable, LiteralString] = {
            of: f"d{digits(at)}" for at, of in enumerate(counted(query))
        }
        """What is counted by its keys → its column."""
        self._bins: dict[Histogram, LiteralString] = {}
        self._found = self._found_parts(meant)  # which names the variables that are read
        self._raw = self._raw_parts(session, tables, meant)
        self.sql: LiteralString
        self.sql, self.values = self._with(("", ()))
        self._is_kept = False

    def keep(self, session: Session, tables: Tables) -> None:
        """Keep what is ``found`` for the statements to come, in a table that goes when the transaction ends."""
        # A temporary table hides any other of its name.
        session.rows(tables.sql(f"CREATE TEMPORARY TABLE found AS {self.sql} SELECT * FROM found"), self.values)
        self.sql, self.values, self._is_kept = "", (), True

    def sampled(self, columns: Sequence[LiteralString], share: int) -> Condition:
        """Return the SELECT of *columns* of one in about *share* records, if the first is not ``NULL``."""
        select: LiteralString = f"SELECT {', '.join(columns)} FROM found WHERE {columns[0]} IS NOT NULL"
        if self._is_kept:
            return f"{select} AND rowid % ? = 0", (share,)
        both, values = self._with(("MOD(position, ?) = 0 AND ", (share,)))
        return f"{both} {select}", values

    @property
    def size(self) -> LiteralString:
        """The SELECT of the number of records that can be meant, or of somewhat more."""
        if self._is_kept:
            return "SELECT max(rowid) FROM found"
        return "SELECT max(position) - min(position) + 1 FROM {records}"

    def bins_of(self, measure: Histogram) -> LiteralString:
        """Return the column of the bins of *measure*, where these are groups."""
        return self._bins.setdefault(measure, f"h{digits(len(self._bins))}")

    def _with(self, first: Condition) -> Condition:
        select, names, (where, values) = self._raw
        found, found_values = self._found
        raw: LiteralString = f"{select} WHERE {first[0]}{where}{self.dialect.once if self._variables else ''}"
        return f"WITH raw AS ({raw}), found AS ({found})", (*names, *first[1], *values, *found_values)

    def names(self, *, keys: bool, spans: bool = False) -> list[LiteralString]:
        """Return the columns that hold the parts of a key, and the number of a span."""
        return [*(self._keys if keys else ()), *(["b"] if spans else ())]

    def reached(self, number: LiteralString, bounds: Sequence[float], *, first: int) -> Condition:
        """Return how many of *bounds* a *number*, a whole one if they are, has reached, plus *first*."""
        whole = all(isinstance(bound, int) for bound in bounds)
        if not bounds or not self.dialect.reached or (whole and not all(map(bindable, bounds))):
            return reached(number, bounds, first=first)
        every = marks(bounds, "CAST(? AS bigint)" if whole else "CAST(? AS double precision)")
        sql = self.dialect.reached.format(number=number, bounds=every)
        return f"{digits(first)} + {sql}", tuple(bounds)

    def keys_of(self, raw: Sequence[SQLValue]) -> Keys:
        """Return the key that the database has as *raw*."""
        return tuple(
            _key(value) if isinstance(of, Variable) else _column(value, of)
            for of, value in zip(self._query.by, raw, strict=True)
        )

    def has_key(self, raws: Sequence[tuple[SQLValue, ...]]) -> Condition:
        """Return the condition that a record has one of the keys that the database has as *raws*."""
        either: list[LiteralString] = []
        values: list[SQLValue] = []
        for raw in raws:
            every: list[LiteralString] = [
                f"{name} IS NULL" if each is None else f"({name} IS NOT NULL AND {name} = ?)"
                for name, each in zip(self._keys, raw, strict=True)
            ]
            either.append(" AND ".join(every))
            values.extend(each for each in raw if each is not None)
        return " OR ".join(either), tuple(values)

    def order_of_keys(self) -> list[LiteralString]:
        """Return the columns that sort keys by type and value."""
        order: list[LiteralString] = []
        for of, key in zip(self._query.by, self._keys, strict=True):
            if isinstance(of, Variable):
                number = self.dialect.number.format(value=key)
                order.extend((_KIND.format(key=key), number, _WITHOUT_QUOTES.format(key=key)))
            else:
                order.extend((f"{key} IS NOT NULL", key))
        return order

    def _raw_parts(
        self, session: Session, tables: Tables, meant: Query
    ) -> tuple[LiteralString, Sequence[SQLValue], Condition]:
        """Return SELECT and FROM with the values of their marks, and the condition."""
        columns: list[LiteralString] = ["time_unix_nano", "duration_ns", "status_code", "error", "sample_rate"]
        columns.extend(each for each in _COLUMNS if each in {*self._query.by, *self.distinct})
        read: list[LiteralString] = []
        names: list[SQLValue] = []
        for name, column in self._variables.items():
            sql, bound = self.dialect.value(name)
            read.append(f"{sql} AS {column}")
            names.extend(bound)
        as_ranges = self.dialect.misjudges_equal
        conditions = list(column_conditions(meant, as_ranges=as_ranges))
        if meant.asks_for_variables:
            asked = _as_ranges(meant) if as_ranges else meant
            conditions += narrowing(asked, self.dialect.variables(session, tables))
        where, values = joined(conditions, " AND ")
        select: LiteralString = f"SELECT {', '.join([*read, *columns])} FROM {{records}} AS record"
        return select, names, (where or "true", values)

    def _found_parts(self, meant: Query) -> Condition:
        columns: list[LiteralString] = [
            f"{self._key_sql(of)} AS {key}" for of, key in zip(self._query.by, self._keys, strict=True)
        ]
        columns.extend(f"{self._key_sql(of)} AS {name}" for of, name in self.distinct.items())
        for of, at in self.numbers.items():
            columns.append(f"{self._number_sql(of)} AS {'y' if isinstance(of, Variable) else 'x'}{at}")
        columns.extend((f"{self.dialect.weight} AS w", f"CASE WHEN {IS_ERROR} THEN 1 ELSE 0 END AS e"))
        values: tuple[SQLValue, ...] = ()
        if bounds := self._query.bounds:
            span, values = self._span(bounds)
            if not _are_in_spans(meant, bounds):
                span = f"CASE WHEN time_unix_nano >= ? AND time_unix_nano < ? THEN {span} END"
                values = (bounds[0], bounds[-1], *values)
            columns.append(f"{span} AS b")
        where, more = joined(self._exactly(meant), " AND ")
        made: LiteralString = f"SELECT {', '.join(columns)} FROM raw WHERE {where or 'true'}"
        if self._variables:
            made += self.dialect.once
        within: list[LiteralString] = [
            f"CASE WHEN {_WITHIN.format(number=number)} THEN {number} END AS x{number[1:]}"
            for number in self.unbounded
        ]
        return f"SELECT {', '.join(['made.*', *within])} FROM ({made}) AS made", (*values, *more)

    def _span(self, bounds: Sequence[int]) -> Condition:
        """Return the number of the span in which a record is that is in one."""
        lengths = {end - begin for begin, end in pairwise(bounds)}
        if len(lengths) > 1 or bounds[-1] - bounds[0] > MAX_INTEGER:
            return self.reached("time_unix_nano", bounds, first=-1)
        return f"(time_unix_nano - ?) {self.dialect.divide} ?", (bounds[0], *lengths)

    def _exactly(self, meant: Query) -> Iterator[Condition]:
        """Yield the conditions on variables, which decide."""
        for name, condition in asked_of(meant):
            value = self._variable(name)
            match condition:
                case OneOf(values):
                    texts = [text for each in values for text in _written(each)]
                    every = marks(texts, self.dialect.written)
                    yield (f"{value} IN ({every})", tuple(texts)) if texts else ("1 = 0", ())
                case Bound():
                    number = self.dialect.number.format(value=value)
                    yield f"{number} {_SIGNS[condition.operator]} ?", (cast("float", condition.value),)
                case _:
                    yield f"{value} IS NOT NULL", ()

    def _variable(self, name: str) -> LiteralString:
        return self._variables.setdefault(name, f"v{digits(len(self._variables))}")

    def _number_sql(self, of: Number) -> LiteralString:
        if isinstance(of, Variable):
            return self.dialect.number.format(value=self._variable(of.name))
        return self.dialect.seconds

    def _key_sql(self, of: Column | Variable) -> LiteralString:
        if isinstance(of, Variable):
            return _KEY.format(value=self._variable(of.name))
        if of == "status_class":
            return self.dialect.status_class
        # An expression: by an index on the column itself, MySQL and SQLite would fetch all records at random.
        return f"coalesce({of}, NULL)"


def _as_ranges(meant: Query) -> Query:
    """Return a query that asks for a single value twice: of two, equal or not, a database makes a range."""
    conditions = tuple((name, _twice(asked)) for name, asked in asked_of(meant))
    return msgspec.structs.replace(meant, where={}, conditions=conditions)


def _twice(asked: Asked) -> Asked:
    match asked:
        case OneOf((value,)) if not isinstance(value, float):  # for which no index serves
            return OneOf((value, value))
        case _:
            return asked


def _column(value: SQLValue, of: Column) -> Key:
    return int(value) if value is not None and of in {"status_code", "status_class"} else value


def _key(text: Any) -> Key:
    """Return the key that is written as *text*."""
    if text is None:
        return NoScalar.ABSENT
    if text == "[":
        return NoScalar.LIST
    if text == "{":
        return NoScalar.OBJECT
    return cast("Key", _decode(text))


def _are_in_spans(meant: Query, bounds: Sequence[int]) -> bool:
    """Return whether all records that are *meant* are in one of the spans between *bounds*."""
    since, until = meant.since_unix_nano, meant.until_unix_nano
    return since is not None and until is not None and bounds[0] <= since and until <= bounds[-1]
