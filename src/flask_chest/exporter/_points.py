"""The tags and fields of a record's point: which values become which, under which names and of which types.

Nothing here needs InfluxDB's client.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import msgspec

from flask_chest.capture.tracking import METHODS
from flask_chest.exporter._refusals import Refusal
from flask_chest.record import JSONValue, Record

FieldValue: TypeAlias = bool | int | float | str

OWN_TAGS = ("method", "route", "endpoint", "status_code", "instance")
OWN_FIELDS = ("record_id", "request_id", "trace_id", "span_id", "duration_ns", "error", "sample_rate")
"""Never tags: nearly every request has a value of its own, and so would have a series of its own."""
SUFFIXES = {"float": "_number", "integer": "_int", "string": "_text", "boolean": "_bool"}
"""InfluxDB's name of a type → what is put behind a field's name that has another type there already."""

_EXACT_INTEGERS = 2**53
_MOST_CONFLICTS = 500
"""Columns that a table of InfluxDB 3 may have; each may cost a request of its own."""

# Line protocol cannot write a backslash before what a backslash escapes, such as the separator behind a name:
# with the driver's Point, a field's name that ends with one spoils the whole batch, and a tag's value gets a
# space instead. Line ends would come back as the two characters that Point writes for them. Hence percent
# signs and codes in names and tags; strings in fields have no such trouble.
_UNWRITABLE = re.compile(r"[\\\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class FieldTypeConflicts:
    """The fields that the server has with another type."""

    known: frozenset[tuple[str, str]] = frozenset()
    """Field and type as they were refused."""
    every_variable: bool = False
    """The server said that there is a conflict, and not where."""

    def concern(self, name: str, kind: str) -> bool:
        """Return whether the field needs another name."""
        return (name, kind) in self.known or (self.every_variable and name not in OWN_FIELDS)

    def after(self, refusal: Refusal, sent: Collection[tuple[str, str]]) -> FieldTypeConflicts | None:
        """Learn from the server's *refusal*; ``None`` when it is about something else, or nothing new."""
        if not refusal.is_conflict:
            return None
        new = refusal.conflicts.intersection(sent) - self.known
        if new and len(self.known) < _MOST_CONFLICTS:
            return replace(self, known=self.known | new)
        return None if self.every_variable or refusal.is_of_tags else replace(self, every_variable=True)


@dataclass(frozen=True, slots=True)
class PointParts:
    """A point but for its measurement; an empty tag is to be left out."""

    tags: Mapping[str, str]
    fields: Mapping[str, FieldValue]
    time_unix_nano: int

    @property
    def kinds(self) -> set[tuple[str, str]]:
        """The fields with InfluxDB's names of their types."""
        return {(name, _kind(value)) for name, value in self.fields.items()}


class PointSchema:
    """How the records of one exporter become points; *tags* names the variables that become tags."""

    def __init__(self, tags: Sequence[str], custom_tags: Mapping[str, str]) -> None:
        self._custom_tags = {writable(name): value for name, value in custom_tags.items()}
        self._reserved = frozenset({"time", *OWN_TAGS, *OWN_FIELDS, *self._custom_tags})
        self._tags = {name: self._variable_name(name) for name in tags}

    def parts(self, record: Record, conflicts: FieldTypeConflicts) -> PointParts:
        """Make the parts of *record*'s point, around *conflicts*; the same for the same arguments."""
        return PointParts(self._tags_of(record), self._fields_of(record, conflicts), record.time_unix_nano)

    def _tags_of(self, record: Record) -> dict[str, str]:
        named = {tag: _text(record.variables.get(name)) for name, tag in self._tags.items()}
        own = {
            # Any other is one that a client invented, and each would be a series of its own.
            "method": record.method if record.method in METHODS else "_OTHER",
            "route": record.route or "",
            "endpoint": record.endpoint or "",
            "status_code": str(record.status_code),
            "instance": record.instance,
        }
        tags = {**named, **self._custom_tags, **own}
        return {name: writable(text) for name, text in tags.items()}

    def _fields_of(self, record: Record, conflicts: FieldTypeConflicts) -> dict[str, FieldValue]:
        values = {
            self._variable_name(name): value
            for name, value in sorted(record.variables.items())
            if value is not None and name not in self._tags
        }
        fields = _own_fields(record)
        fields.update((name, _field_value(value)) for name, value in values.items())
        taken = {*values, *self._reserved, *self._tags.values()}
        for name, value in values.items():
            if type(value) is int and abs(value) > _EXACT_INTEGERS:
                fields[_free(name, "_int", taken)] = value
        return {_around(conflicts, name, _kind(value), taken): value for name, value in fields.items()}

    def _variable_name(self, name: str) -> str:
        """Put ``g_`` before a *name* that means something else here.

        A name that looks as if that had been done gets one more, so that no two names become one.
        """
        name = writable(name.replace("%", "%25"))
        core = re.sub("^(g_)+", "", name)
        means_something = not core or core.startswith("_") or core in self._reserved
        return f"g_{name}" if means_something else name


def _own_fields(record: Record) -> dict[str, FieldValue]:
    own = {
        "record_id": record.id,
        "request_id": record.request_id,
        "trace_id": record.trace_id,
        "span_id": record.span_id,
        "duration_ns": float(record.duration_ns),
        "error": record.error,
        "sample_rate": record.sample_rate,
    }
    return {name: value for name, value in own.items() if value is not None}


def writable(text: str) -> str:
    """Encode what a measurement, a tag and a field's name cannot hold."""
    return _UNWRITABLE.sub(lambda found: f"%{ord(found[0]):02X}", text)


def _around(conflicts: FieldTypeConflicts, name: str, kind: str, taken: set[str]) -> str:
    if conflicts.concern(name, kind):
        name = _free(name, SUFFIXES[kind], taken)
        while (name, kind) in conflicts.known:
            name = _free(name, SUFFIXES[kind], taken)
    return name


def _free(name: str, suffix: str, taken: set[str]) -> str:
    while (name := name + suffix) in taken:
        pass
    taken.add(name)
    return name


def _field_value(value: JSONValue) -> FieldValue:
    if isinstance(value, bool | str):
        return value
    # A variable that is 1 today is 1.5 tomorrow, and a field has one type for ever.
    return float(value) if isinstance(value, int | float) else _text(value)


def _text(value: JSONValue) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()


def _kind(value: FieldValue) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "float"
        case str():
            return "string"
