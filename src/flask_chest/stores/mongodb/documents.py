"""Records as MongoDB's documents."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias
from urllib.parse import unquote

from bson.int64 import Int64

from flask_chest.record import JSONValue, Record
from flask_chest.stores._records import SCALARS, scalars

Document: TypeAlias = dict[str, Any]

_FIELDS = [name for name in SCALARS if name not in {"id", "sample_rate"}]
_UNWANTED = re.compile(r"^\$|[%.\0]")
_EMPTY = "%"
"""Stands for an empty name; no other is encoded as a percent sign alone."""


def encode_name(name: str) -> str:
    """Percent-encode what MongoDB reads as an operator or a path: a leading ``$``, dots, and the sign itself."""
    if not name:
        return _EMPTY
    return _UNWANTED.sub(lambda found: f"%{ord(found[0]):02X}", name)


def decode_name(name: str) -> str:
    """Decode what `encode_name` made."""
    return "" if name == _EMPTY else unquote(name) if "%" in name else name


def encode_value(value: JSONValue) -> object:
    """Make a value that comes back of the same type: without a mark, MongoDB keeps small integers shorter."""
    if type(value) is int:
        return Int64(value)
    if isinstance(value, list):
        return [encode_value(item) for item in value]
    if isinstance(value, Mapping):
        return {encode_name(name): encode_value(item) for name, item in value.items()}
    return value


def decode_value(value: object) -> Any:
    """Make the value again from what `encode_value` made."""
    if isinstance(value, Int64):
        return int(value)
    if isinstance(value, list):
        return [decode_value(item) for item in value]
    if isinstance(value, dict):
        return {decode_name(name): decode_value(item) for name, item in value.items()}
    return value


def document_of(record: Record, *, written_unix_nano: int, position: int | None = None) -> Document:
    """Make the document of *record*, which has no position yet unless one is given."""
    document: Document = {name: encode_value(value) for name, value in zip(SCALARS, scalars(record), strict=True)}
    document["_id"] = document.pop("id")
    document["variables"] = encode_value(dict(record.variables))
    document["position"] = None if position is None else Int64(position)
    document["written_unix_nano"] = Int64(written_unix_nano)
    return document


def record_of(document: Mapping[str, Any]) -> Record:
    """Make the record again."""
    fields = {name: decode_value(document[name]) for name in _FIELDS}
    return Record(
        id=document["_id"],
        variables=decode_value(document["variables"]),
        sample_rate=document.get("sample_rate", 1.0),  # which an earlier release does not write
        **fields,
    )
