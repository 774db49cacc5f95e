"""Records as ClickHouse's rows: a column for each field, and a map from each variable to its value as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from flask_chest.errors import SchemaError
from flask_chest.record import JSONValue, Record
from flask_chest.stores._records import SCALARS

COLUMN_TYPES: dict[str, str] = {
    "id": "String",
    "request_id": "String",
    "time_unix_nano": "Int64",
    "duration_ns": "Int64",
    "method": "LowCardinality(String)",
    "route": "LowCardinality(Nullable(String))",
    "endpoint": "LowCardinality(Nullable(String))",
    "status_code": "Int64",
    "error": "LowCardinality(Nullable(String))",
    "trace_id": "Nullable(String)",
    "span_id": "Nullable(String)",
    "trace_flags": "Nullable(Int64)",
    "trace_remote": "Nullable(Bool)",
    "instance": "LowCardinality(String)",
    "sample_rate": "Float64",
    "variables": "Map(LowCardinality(String), String)",
}
"""The columns that a record is written to, each with its type, in the order of `SCALARS`."""
COLUMNS: tuple[str, ...] = (*SCALARS, "variables")

_decode = msgspec.json.Decoder().decode


def record_of(row: Sequence[Any]) -> Record:
    """Make the record again from its row."""
    *fields, variables = row
    values: dict[str, Any] = dict(zip(SCALARS, fields, strict=True))
    return Record(variables=_variables(values["id"], variables), **values)


def _variables(record_id: str, texts: dict[str, str]) -> dict[str, JSONValue]:
    try:
        return {name: _decode(text) for name, text in texts.items()}
    except msgspec.DecodeError as exc:
        raise SchemaError(f"the variables of record {record_id} are not JSON; correct or delete its row") from exc
