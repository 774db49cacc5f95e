"""Answers to aggregates as tables, JSON and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta, tzinfo
from itertools import pairwise
from typing import Literal, TypeAlias

import msgspec

from flask_chest.aggregates import (
    HUNDRED,
    AggregateQuery,
    Answer,
    Bucket,
    Column,
    Count,
    ErrorRate,
    Histogram,
    Key,
    Maximum,
    Mean,
    Measure,
    Minimum,
    NoScalar,
    Percentiles,
    Row,
    Rows,
    Sum,
    Variable,
    written_name,
)
from flask_chest.cli._times import format_span, format_time, heading
from flask_chest.errors import printable
from flask_chest.extension.question_text import span_text
from flask_chest.extension.record_text import csv_line
from flask_chest.record import JSONValue

Kind: TypeAlias = Literal["group", "others", "all"]
Units: TypeAlias = Mapping[str, str]

_WORDS = ("others", "all", "-")
"""What stands in the place of a key, and is written as JSON where it is one."""
_MANY = 1e15
_SMALL = 1_000


def rows_of(rows: Rows) -> Iterator[tuple[Kind, Row]]:
    """Yield the groups, then the others, then all."""
    for row in rows.groups:
        yield "group", row
    if rows.others.records:
        yield "others", rows.others
    yield "all", rows.all


def tables(answer: Answer, *, units: Units, zone: tzinfo) -> Iterator[str]:
    """Write *answer* for people: its range of time, a table of all of it, one of its spans, and histograms."""
    query = answer.query
    yield _range(query, zone)
    numbers = [each for each in query.measures if not isinstance(each, Histogram)]
    heads = [f"{head}{unit_of(each, units)}" for each in numbers for head, _ in numbers_of(answer.all, each)]
    keys = [written_name(each) for each in query.by]
    counted = any(isinstance(each, Count) for each in numbers)
    names = [*keys, *([] if counted else ["records"]), *heads]
    if numbers:
        yield from _table(names, [_cells(kind, row, query, numbers) for kind, row in rows_of(answer)], len(keys))
    if numbers and answer.series:
        spans = [
            [format_span(bucket.begin_unix_nano, zone), *_cells(kind, row, query, numbers)]
            for bucket in answer.series
            for kind, row in rows_of(bucket)
            if kind == "all" or row.records
        ]
        yield ""
        yield from _table([heading(zone), *names], spans, len(keys) + 1)
    for histogram in query.measures:
        if isinstance(histogram, Histogram):
            yield from [""] if numbers else []
            yield from _histogram(answer, histogram, keys, units)


def _histogram(answer: Answer, histogram: Histogram, keys: Sequence[str], units: Units) -> Iterator[str]:
    shown = [
        [*key_texts(kind, row, answer.query), number_text(lower), number_text(upper), f"{requests:,}"]
        for kind, row in rows_of(answer)
        for lower, upper, requests in row[histogram]
    ]
    unit = unit_of(histogram, units)
    of = written_name(histogram.of)
    yield from _table([*keys, f"{of} from{unit}", f"below{unit}", "requests"], shown, len(keys))


def unit_of(measure: Measure[object], units: Units) -> str:
    """Return the unit of the numbers of *measure* with a space and brackets, as ``' [s]'``; nothing for none."""
    if isinstance(measure, ErrorRate):
        return " [%]"
    if not isinstance(measure, Sum | Mean | Minimum | Maximum | Percentiles | Histogram):
        return ""
    unit = units.get(measure.of.name) if isinstance(measure.of, Variable) else "s"
    return "" if unit is None else f" [{unit}]"


def numbers_of(row: Row, measure: Measure[object]) -> Iterator[tuple[str, float | None]]:
    """Yield what *row* has of *measure* as people read it: the heads of its columns, and a rate in per cent."""
    for head, value in measure.columns(row.values[measure]):
        yield head, value * HUNDRED if isinstance(measure, ErrorRate) and value is not None else value


def _cells(kind: Kind, row: Row, query: AggregateQuery, measures: Sequence[Measure[object]]) -> list[str]:
    """Write the key of *row* and its numbers; those of its records, where they are not counted anyway."""
    records = [] if any(isinstance(each, Count) for each in measures) else [f"{row.records:,}"]
    numbers = (number_text(value) for each in measures for _, value in numbers_of(row, each))
    return [*key_texts(kind, row, query), *records, *numbers]


def number_text(value: float | None) -> str:
    """Write a number for people, and ``-`` for none."""
    if value is None:
        return "-"
    if value == int(value) and abs(value) < _MANY:
        return f"{int(value):,}"
    return f"{value:,.3f}" if _SMALL <= abs(value) < _MANY else f"{value:.6g}"


def key_texts(kind: Kind, row: Row, query: AggregateQuery) -> list[str]:
    """Write the key of *row* for people, a text for each part: columns as they are, variables as JSON."""
    if kind == "group":
        return [_key_text(of, key) for of, key in zip(query.by, row.key, strict=True)]
    return [kind, *[""] * (len(query.by) - 1)] if query.by else []


def _key_text(of: Column | Variable, key: Key) -> str:
    if isinstance(key, NoScalar):
        return {NoScalar.ABSENT: "(absent)", NoScalar.LIST: "[…]", NoScalar.OBJECT: "{…}"}[key]
    if not isinstance(of, Variable):
        if key is None:
            return "-"
        if isinstance(key, str) and key not in _WORDS:
            return key
    return msgspec.json.encode(key).decode()


def _range(query: AggregateQuery, zone: tzinfo) -> str:
    since, until = query.query.since_unix_nano, query.query.until_unix_nano
    parts = [f"since {format_time(since, zone)}"] if since is not None else []
    parts += [f"until {format_time(until, zone)}"] if until is not None else []
    words = [" ".join(parts) or "of all times", f"zone {zone}"]
    if query.bounds:
        lengths = sorted(later - former for former, later in pairwise(query.bounds))
        words.append(f"spans of {span_text(timedelta(microseconds=lengths[len(lengths) // 2] // 1_000))}")
    return ", ".join(words)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], texts: int) -> Iterator[str]:
    """Write *rows* below *heads*: the first *texts* columns to the left, the numbers to the right."""
    shown = [[printable(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = [
            cell.ljust(width) if place < texts else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def json_rows(answer: Answer) -> Iterator[dict[str, object]]:
    """Make an object of each row, or of each in each span of a series.

    A key lacks what its records lack; lists and objects are empty ones, as no key is a list.
    """
    query = answer.query
    for kind, row, bucket in _rows(answer):
        key = {
            written_name(of): _json_key(part)
            for of, part in zip(query.by, row.key, strict=False)
            if part is not NoScalar.ABSENT
        }
        values: dict[str, object] = {}
        for each in query.measures:
            if isinstance(each, Histogram):
                values[each.label] = [found._asdict() for found in row[each]]
            else:
                values.update(each.columns(row.values[each]))
        yield {**_span_of(bucket), "kind": kind, "key": key, "records": row.records, "values": values}


def csv_rows(answer: Answer) -> Iterator[str]:
    """Write a line of names, then one for each row, or for each in each span of a series.

    Keys of variables are JSON, and empty where the records lack the variable; lists and objects are empty ones.
    """
    query = answer.query
    names = [head for each in query.measures for head, _ in each.columns(answer.all.values[each])]
    times = ["begin_unix_nano", "end_unix_nano"] if query.bounds else []
    yield csv_line([*times, "kind", *map(written_name, query.by), "records", *names])
    for kind, row, bucket in _rows(answer):
        keys: list[JSONValue] = [None] * len(query.by)
        if kind == "group":
            keys = [_csv_key(of, key) for of, key in zip(query.by, row.key, strict=True)]
        numbers = [value for each in query.measures for _, value in each.columns(row.values[each])]
        yield csv_line([*_span_of(bucket).values(), kind, *keys, row.records, *numbers])


def _rows(answer: Answer) -> Iterator[tuple[Kind, Row, Bucket | None]]:
    if answer.query.bounds:
        return ((kind, row, bucket) for bucket in answer.series for kind, row in rows_of(bucket))
    return ((kind, row, None) for kind, row in rows_of(answer))


def _span_of(bucket: Bucket | None) -> dict[str, int]:
    if bucket is None:
        return {}
    return {"begin_unix_nano": bucket.begin_unix_nano, "end_unix_nano": bucket.end_unix_nano}


def _json_key(key: Key) -> JSONValue:
    if isinstance(key, NoScalar):
        return [] if key is NoScalar.LIST else {}
    return key


def _csv_key(of: Column | Variable, key: Key) -> JSONValue:
    if key is NoScalar.ABSENT or not isinstance(of, Variable):
        return None if isinstance(key, NoScalar) else key
    value = _json_key(key)
    return value if isinstance(value, int | float) else msgspec.json.encode(value).decode()
