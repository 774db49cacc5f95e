"""The reference implementation of aggregates, over records: what the answer of every store is by definition."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import accumulate
from math import fsum
from typing import Any, TypeAlias, cast

from flask_chest.aggregates import (
    HUNDRED,
    MAX_NUMBER,
    AggregateQuery,
    Answer,
    Column,
    Count,
    Distinct,
    ErrorRate,
    Histogram,
    Key,
    Maximum,
    Mean,
    Measure,
    Minimum,
    NoScalar,
    Number,
    Percentiles,
    Sum,
    Variable,
)
from flask_chest.record import Record, is_number
from flask_chest.stores.aggregates import (
    NANOSECONDS,
    WHOLE,
    Cell,
    Identity,
    Keys,
    Part,
    answer,
    identity,
    measured,
    numbers,
    order_of,
    weight,
)

Weighed: TypeAlias = "Sequence[tuple[float, int]]"
"""Numbers in increasing order, each with its weight."""


def aggregate(records: Iterable[Record], query: AggregateQuery) -> Answer:
    """Answer *query* from all *records* that match: the reference for every store."""
    found = [(keys_of(record, query.by), record) for record in records]
    groups = _grouped(found) if query.by else {}
    cells = [(keys, _cell(query, members)) for keys, members in groups.values()]
    top = sorted(cells, key=lambda group: order_of(query, *group))[: query.top]
    chosen = {identity(keys) for keys, _ in top}
    bounds = query.bounds
    spans: defaultdict[int, list[tuple[Keys, Record]]] = defaultdict(list)
    for keys, record in found:
        spans[bisect_right(bounds, record.time_unix_nano) - 1].append((keys, record))
    return answer(
        query,
        _part(query, found, chosen),
        {number: _part(query, members, chosen) for number, members in spans.items()},
        left_out=sum(
            number is not None and abs(number) > MAX_NUMBER
            for _, record in found
            for number in (number_of(record, of) for of in numbers(query))
        ),
    )


def keys_of(record: Record, by: Iterable[Column | Variable]) -> Keys:
    """Return the key of *record* in groups *by* these parts."""
    return tuple(_key(record, of) for of in by)


def number_of(record: Record, of: Number) -> float | None:
    """Return the number that *record* has of *of*, whether measures count it or not."""
    if not isinstance(of, Variable):
        return record.duration_ns / NANOSECONDS
    value = record.variables.get(of.name)
    return float(value) if is_number(value) else None


def _key(record: Record, of: Column | Variable) -> Key:
    if not isinstance(of, Variable):
        return record.status_code // HUNDRED if of == "status_class" else cast("Key", getattr(record, of))
    value = record.variables.get(of.name, NoScalar.ABSENT)
    if isinstance(value, list):
        return NoScalar.LIST
    if isinstance(value, Mapping):
        return NoScalar.OBJECT
    return value + 0.0 if isinstance(value, float) else value  # -0.0 is 0.0


def _grouped(
    found: Iterable[tuple[Keys, Record]],
) -> dict[Identity, tuple[Keys, list[Record]]]:
    groups: dict[Identity, tuple[Keys, list[Record]]] = {}
    for keys, record in found:
        groups.setdefault(identity(keys), (keys, []))[1].append(record)
    return groups


def _part(query: AggregateQuery, found: Sequence[tuple[Keys, Record]], chosen: Container[object]) -> Part:
    groups = _grouped(found) if query.by else {}
    others = [record for same, (_, members) in groups.items() if same not in chosen for record in members]
    return Part(
        groups=[(keys, _cell(query, members)) for same, (keys, members) in groups.items() if same in chosen],
        others=_cell(query, others),
        all=_cell(query, [record for _, record in found]),
    )


def _cell(query: AggregateQuery, records: Sequence[Record]) -> Cell:
    return Cell(len(records), [_sums(measure, records) for measure in query.measures])


def _sums(measure: Measure[object], records: Sequence[Record]) -> object:
    weights = [weight(each.sample_rate) if getattr(measure, "weighted", True) else WHOLE for each in records]
    if isinstance(measure, Count):
        return sum(weights)
    if isinstance(measure, ErrorRate):
        return sum(each for record, each in zip(records, weights, strict=True) if record.is_error), sum(weights)
    if isinstance(measure, Distinct):
        absent = NoScalar.ABSENT if isinstance(measure.of, Variable) else None
        keys = (_key(record, measure.of) for record in records)
        return len({identity((key,)) for key in keys if key is not absent})
    return _OF_NUMBERS[type(measure)](measure, _weighed(measured(measure), records, weights))


def _weighed(of: Number | None, records: Iterable[Record], weights: Iterable[int]) -> Weighed:
    found = ((None if of is None else number_of(record, of)) for record in records)
    weighed = zip(found, weights, strict=True)
    return sorted((number, each) for number, each in weighed if number is not None and abs(number) <= MAX_NUMBER)


def _total(numbers: Weighed) -> float:
    return fsum(number * each for number, each in numbers)


def _percentiles(measure: Percentiles, numbers: Weighed) -> list[float | None]:
    """Return the first of the sorted numbers up to which a share of the weights has come together, for each."""
    until = list(accumulate(each for _, each in numbers))
    # With equal weights this is the element of rank (n * p + 99) // 100.
    ranks = [bisect_left(until, -(-until[-1] * p // HUNDRED)) if until else 0 for p in measure.ps]
    return [numbers[rank][0] if numbers else None for rank in ranks]


def _histogram(measure: Histogram, numbers: Weighed) -> list[int]:
    bins = [0] * (len(measure.bounds) + 1)
    for number, each in numbers:
        bins[bisect_right(measure.bounds, number)] += each
    return bins


_OF_NUMBERS: Mapping[type, Callable[[Any, Weighed], object]] = {
    Sum: lambda _, numbers: _total(numbers),
    Mean: lambda _, numbers: (_total(numbers), sum(each for _, each in numbers)),
    Minimum: lambda _, numbers: numbers[0][0] if numbers else None,
    Maximum: lambda _, numbers: numbers[-1][0] if numbers else None,
    Percentiles: _percentiles,
    Histogram: _histogram,
}
