"""Records as a block of ClickHouse's format Native: a column after the other, each with its name and its type.

The server takes such a block as it is, where it would have to parse rows; and the driver's own way to make one
imports pandas where that is installed, which takes seconds and fails while a process ends. What is LowCardinality
in the table is sent plain: the server converts it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from struct import pack
from typing import Any

import msgspec

from flask_chest.record import JSONValue, Record
from flask_chest.stores._records import SCALARS, storable_columns, storable_rows
from flask_chest.stores.clickhouse.rows import COLUMN_TYPES

NATIVE = "Native"

_LOW_CARDINALITY = re.compile(r"LowCardinality\((\w+(?:\(\w+\))?)\)")
_BYTE = 128
"""Lengths below it take one byte."""

_encode_lines = msgspec.json.Encoder().encode_lines


def block_of(records: Sequence[Record]) -> bytes:
    """Make the block of *records*; raise `RecordRefused` where some would not come back equal."""
    columns, variables = storable_columns(records)
    try:
        written = [each.write(values) for each, values in zip(_SCALARS, columns, strict=True)]
        written.append(_variables(variables))
    except UnicodeEncodeError:
        storable_rows(records)  # says which
        raise
    return b"".join((_length(len(written)), _length(len(records)), *written))


def _length(number: int) -> bytes:
    """Write a length, or the number of something: seven bits in each byte."""
    written = bytearray()
    while number >= _BYTE:
        written.append(number & (_BYTE - 1) | _BYTE)
        number >>= 7
    written.append(number)
    return bytes(written)


class _Lengths(dict[int, bytes]):
    """Each length as it is written."""

    def __missing__(self, number: int) -> bytes:
        return _length(number)


_LENGTHS = _Lengths((number, _length(number)) for number in range(1024))


class _Known(dict[str, bytes]):
    """Each text as it is written: for columns in which few come again and again."""

    def __missing__(self, text: str) -> bytes:
        self[text] = written = _texts((text,))
        return written


def _written(texts: Iterable[bytes]) -> list[bytes]:
    return [_LENGTHS[len(text)] + text for text in texts]


def _texts(values: Iterable[str]) -> bytes:
    return b"".join(_written(map(str.encode, values)))


def _few_texts(values: Iterable[str]) -> bytes:
    return b"".join(map(_Known().__getitem__, values))


def _integers(values: Sequence[int]) -> bytes:
    return pack(f"<{len(values)}q", *values)


def _floats(values: Sequence[float]) -> bytes:
    return pack(f"<{len(values)}d", *values)


@dataclass(frozen=True, slots=True)
class _Column:
    """How a column is written."""

    head: bytes
    """Its name and its type."""
    values: Callable[[Sequence[Any]], bytes]
    in_place_of_null: str | int | None
    """What stands where there is NULL; ``None`` in a column that has none."""

    def write(self, values: Sequence[Any]) -> bytes:
        """Write the column with *values*."""
        if self.in_place_of_null is None:
            return self.head + self.values(values)
        instead = self.in_place_of_null
        if values.count(None) == len(values):  # as in most batches
            return self.head + b"\x01" * len(values) + self.values([instead]) * len(values)
        nulls = bytes([value is None for value in values])
        return self.head + nulls + self.values([instead if value is None else value for value in values])


def _head(name: str) -> bytes:
    sent = _LOW_CARDINALITY.sub(r"\1", COLUMN_TYPES[name])
    return _texts((name, sent))


_BY_TYPE: Mapping[str, tuple[Callable[[Sequence[Any]], bytes], str | int]] = {
    "Bool": (bytes, 0),
    "Float64": (_floats, 0),
    "Int64": (_integers, 0),
    "String": (_texts, ""),
}


def _column(name: str) -> _Column:
    kind = COLUMN_TYPES[name]
    *around, innermost = re.findall(r"\w+", kind)
    write, instead = _BY_TYPE[innermost]
    if "LowCardinality" in around:
        write = _few_texts
    return _Column(_head(name), write, instead if "Nullable" in around else None)


_SCALARS = tuple(map(_column, SCALARS))
_VARIABLES = _head("variables")


def _variables(variables: Sequence[Mapping[str, JSONValue]]) -> bytes:
    """Write the map from each name to the value as JSON, for each record."""
    ends = pack(f"<{len(variables)}Q", *accumulate(map(len, variables)))
    names = _few_texts(chain.from_iterable(variables))
    # JSON holds no end of a line, so each value is one line.
    lines = _encode_lines([value for each in variables for value in each.values()]).split(b"\n")
    return b"".join((_VARIABLES, ends, names, *_written(lines[:-1])))
