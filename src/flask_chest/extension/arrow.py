"""Records as Arrow: in batches of columns that files of Parquet hold, and read back from them exactly.

There is a column for each field of a record, under its name, and one for each declared variable. A declared
variable whose value is of its type is in its column alone. All others are in ``variables``, as JSON, and so is a
value that its column cannot hold exactly: who reads records back takes ``variables`` first, then the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import TypeAlias, cast

import msgspec

from flask_chest.declared import Declaration, Kind
from flask_chest.errors import ConfigurationError, MissingDriverError
from flask_chest.protocols import ColumnReader, Columns, Reader
from flask_chest.record import (
    FIELDS,
    JSONValue,
    Query,
    Record,
    check_variables,
    decode_variables,
    encode_variables,
)

try:
    import pyarrow as pa
    from pyarrow import compute, ipc, parquet
except ImportError as exc:
    raise MissingDriverError("pyarrow", extra="arrow") from exc

BATCH = 50_000
"""Records in a batch."""
BATCH_BYTES = 64 << 20
"""Bytes from which on a batch has fewer."""
_PIECE = 1_000
"""Records that are made into columns at a time: Python's objects take several times the room of Arrow's."""

_TIMES = {"time_unix_nano": pa.timestamp("ns", tz="UTC"), "duration_ns": pa.duration("ns")}
_REPEATED = frozenset({"method", "route", "instance"})
"""Texts of which there are few: they are kept once a batch."""
_UNLIKE = frozenset({"id", "request_id", "time_unix_nano", "duration_ns", "trace_id", "span_id", "variables"})
"""Columns whose values differ: a file of Parquet tries no dictionary of them, which would take time and room."""
_OPTIONAL = frozenset({"route", "endpoint", "error", "trace_id", "span_id", "trace_flags", "trace_remote"})
_OTHERS = {
    "status_code": pa.int64(),
    "trace_flags": pa.int64(),
    "trace_remote": pa.bool_(),
    "sample_rate": pa.float64(),
}
_OF_KIND: Mapping[Kind, pa.DataType] = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "text": pa.string(),
    "json": pa.string(),
}
_EXACTLY: Mapping[Kind, type] = {"bool": bool, "int": int, "float": float, "text": str}
"""Kinds of columns that hold the values of a type exactly."""

Kinds: TypeAlias = Mapping[str, Kind]
"""Names of the variables that have columns of their own, and what those are for."""

_encoder = msgspec.json.Encoder(order="sorted")
"""Writes equal values alike, in whatever order a store has kept their names."""


def columns_of(store: Reader, query: Query, *, timeout: timedelta | None) -> Iterable[Columns]:
    """Return the columns of what *store* answers, some records at a time."""
    if isinstance(store, ColumnReader) and query.asks_for_time_alone:
        return store.columns(query, timeout=timeout)
    return _columns_of(store.query(query, timeout=timeout))


def _columns_of(records: Iterable[Record]) -> Iterator[Columns]:
    waiting = iter(records)
    while some := list(islice(waiting, _PIECE)):
        held = {name: list(map(attrgetter(name), some)) for name in FIELDS}
        held["variables"] = [encode_variables(each.variables) for each in some]
        yield held


def kinds_of(declarations: Iterable[Declaration]) -> Kinds:
    """Return the variables that have columns of their own.

    Those of two classes that differ in kind, or in case alone, have none: many tools take their names for one.
    """
    kinds: dict[str, Kind] = {}
    taken = {name.lower(): name for name in FIELDS}
    clashing: set[str] = set()
    for field in (field for each in declarations for field in each.fields):
        twin = taken.setdefault(field.name.lower(), field.name)
        if twin != field.name or kinds.setdefault(field.name, field.kind) != field.kind:
            clashing |= {twin, field.name}
    return {name: kind for name, kind in kinds.items() if name not in clashing}


def schema_of(kinds: Kinds) -> pa.Schema:
    """Return the columns: those of all records, declared variables, and all other variables as JSON."""
    fields = [pa.field(name, _type(name), nullable=name in _OPTIONAL) for name in FIELDS if name != "variables"]
    fields += [pa.field(name, _OF_KIND[kind]) for name, kind in kinds.items()]
    return pa.schema([*fields, pa.field("variables", pa.string(), nullable=False)])


def _type(name: str) -> pa.DataType:
    if name in _REPEATED:
        return pa.dictionary(pa.int32(), pa.string())
    return _TIMES.get(name) or _OTHERS.get(name) or pa.string()


def reader(chunks: Iterable[Columns], kinds: Kinds) -> pa.RecordBatchReader:
    """Return what streams *chunks* of records in batches."""
    return pa.RecordBatchReader.from_batches(schema_of(kinds), batches(chunks, kinds))


def batches(chunks: Iterable[Columns], kinds: Kinds) -> Iterator[pa.RecordBatch]:
    """Yield *chunks* of records in batches of `BATCH`, or of fewer where records are large."""
    schema = schema_of(kinds)
    pieces: list[pa.RecordBatch] = []
    room, size = BATCH, 0
    for piece in (_piece(columns, kinds) for columns in chunks):
        rest = piece
        while rest.num_rows >= room or size + rest.nbytes >= BATCH_BYTES:
            yield _joined([*pieces, rest.slice(0, room)], schema)
            rest = rest.slice(room)
            pieces, room, size = [], BATCH, 0
        if rest.num_rows:
            pieces.append(rest)
            room -= rest.num_rows
            size += rest.nbytes
    if pieces:
        yield _joined(pieces, schema)


def write_parquet(path: Path, found: Iterable[pa.RecordBatch], kinds: Kinds) -> int:
    """Write *found* into a file of Parquet, a group of rows for each batch; return the number of records."""
    schema = schema_of(kinds)
    count = 0
    alike = [name for name in schema.names if name not in _UNLIKE]
    with parquet.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=alike, write_page_checksum=True
    ) as writer:
        for batch in found:
            writer.write_table(pa.Table.from_batches([batch]))
            count += batch.num_rows
    return count


def write_arrow(path: Path, found: Iterable[pa.RecordBatch], kinds: Kinds) -> None:
    """Write the batches *found* into a file of Arrow, compressed by zstd.

    Its texts are plain: such a file has one dictionary for all of a column, which is not known before its end.
    """
    schema = pa.schema(
        [
            pa.field(each.name, pa.string() if each.name in _REPEATED else each.type, nullable=each.nullable)
            for each in schema_of(kinds)
        ]
    )
    with ipc.new_file(path, schema, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
        for batch in found:
            arrays = [column.cast(field.type) for column, field in zip(batch.columns, schema, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


def ids_in(paths: Iterable[Path]) -> pa.Array:
    """Return the ids of the records in files of Parquet that `write_parquet` made."""
    found = [pa.array((), pa.string())]
    for path in paths:
        with _opened(path) as file:
            found += [batch.column("id").cast(pa.string()) for batch in file.iter_batches(columns=["id"])]
    return pa.concat_arrays(found)


def without(found: Iterable[pa.RecordBatch], ids: pa.Array) -> Iterator[pa.RecordBatch]:
    """Yield the batches *found* without the records that have one of *ids*."""
    for batch in found:
        known = compute.is_in(batch.column("id"), value_set=ids)
        left = batch.filter(compute.invert(known)) if len(ids) else batch
        if left.num_rows:
            yield left


def records_in(path: Path, *, size: int) -> Iterator[list[Record]]:
    """Yield the records in a file of Parquet, *size* at a time; raise `ConfigurationError` if it is damaged."""
    with _opened(path) as file:
        for batch in file.iter_batches(size):
            yield records_of(batch)


@contextmanager
def _opened(path: Path) -> Iterator[parquet.ParquetFile]:
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except ConfigurationError as exc:
        raise ConfigurationError(f"{path}: {exc}") from exc
    except (pa.ArrowException, OSError) as exc:
        raise ConfigurationError(f"{path} is damaged, or no whole file of Parquet: make it again") from exc


def _piece(columns: Columns, kinds: Kinds) -> pa.RecordBatch:
    declared, others = _told_apart(cast("Sequence[str]", columns["variables"]), kinds)
    arrays = {name: _array(name, columns[name]) for name in FIELDS if name != "variables"}
    arrays |= {name: pa.array(declared[name], _OF_KIND[kind]) for name, kind in kinds.items()}
    arrays["variables"] = pa.array(others, pa.string())
    return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


def _array(name: str, values: Sequence[object]) -> pa.Array:
    if name in _TIMES:
        return pa.array(values, pa.int64()).cast(_TIMES[name])
    return pa.array(values, _OTHERS.get(name) or pa.string())


def _joined(pieces: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    arrays = [pa.concat_arrays([piece.column(at) for piece in pieces]) for at in range(len(schema))]
    return pa.RecordBatch.from_arrays(
        [
            array.dictionary_encode() if name in _REPEATED else array
            for name, array in zip(schema.names, arrays, strict=True)
        ],
        schema=schema,
    )


def _told_apart(texts: Sequence[str], kinds: Kinds) -> tuple[dict[str, list[JSONValue]], Sequence[str | bytes]]:
    """Return the values of the declared variables, and all others as JSON: of nothing declared, as it came."""
    if not kinds:
        check_variables(texts)
        return {}, texts
    declared: dict[str, list[JSONValue]] = {name: [] for name in kinds}
    all_held = [decode_variables(text) for text in texts]
    for name, kind in kinds.items():
        exactly, values = _EXACTLY.get(kind), declared[name]
        for held in all_held:
            value = held.get(name)
            if type(value) is exactly:
                del held[name]
            elif value is not None:
                value = _as_kind(value, kind)
            values.append(value)
    return declared, _encoder.encode_lines(all_held).splitlines()


def _as_kind(value: JSONValue, kind: Kind) -> JSONValue:
    """Return what a column of *kind* shows of a value that it cannot hold exactly, or ``None``."""
    if kind == "json":
        return _encoder.encode(value).decode()
    return float(value) if kind == "float" and type(value) is int else None


def records_of(batch: pa.RecordBatch) -> list[Record]:
    """Return the records that *batch* was made of, also after other tools have written it anew.

    Raise `ConfigurationError` if it lacks a column without which there is no record, or has variables of none.
    """
    names = batch.schema.names
    if lacking := [name for name in _REQUIRED if name not in names]:
        raise ConfigurationError(f"it holds no records of a chest: it has no column {', '.join(lacking)}")
    columns = {name: _values(batch.column(at)) for at, name in enumerate(names)}
    variables = _variables(columns)
    fields = [name for name in FIELDS if name in columns and name != "variables"]
    rows = zip(*(columns[name] for name in fields), strict=True)
    make = cast("Callable[..., Record]", Record)
    return [
        make(**dict(zip(fields, row, strict=True)), variables=held)
        for row, held in zip(rows, variables, strict=True)
    ]


def _values(column: pa.Array) -> Sequence[object]:
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("ns", tz=kind.tz)).cast(pa.int64())
    elif pa.types.is_duration(kind):
        column = column.cast(pa.duration("ns")).cast(pa.int64())
    return column.to_pylist()


def _variables(columns: Mapping[str, Sequence[object]]) -> list[dict[str, JSONValue]]:
    texts = cast("Sequence[str | None]", columns.get("variables") or [None] * len(columns["id"]))
    try:
        variables = [decode_variables(text or "{}") for text in texts]
    except ValueError as exc:
        raise ConfigurationError(f"it has variables that no record can have: {exc}") from exc
    for name in columns.keys() - set(FIELDS):
        for held, value in zip(variables, columns[name], strict=True):
            if value is not None:
                held.setdefault(name, cast("JSONValue", value))
    return variables


_REQUIRED = tuple(
    field.name for field in msgspec.structs.fields(Record) if field.required and field.name not in _OPTIONAL
)
