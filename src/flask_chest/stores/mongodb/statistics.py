"""The counting half of `MongoDBStore`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flask_chest.protocols import GroupBy, Statistics, Summary, ValueCount, Variable
from flask_chest.record import COLUMN_FILTERS, Query
from flask_chest.stores._records import bindable
from flask_chest.stores.mongodb.client import MongoDBPart
from flask_chest.stores.mongodb.documents import Document, decode_value, encode_name
from flask_chest.stores.mongodb.query import condition, find
from flask_chest.stores.statistics import (
    FRACTION,
    LARGE,
    Groups,
    Part,
    check_group,
    count,
    part_of,
    seen,
    sum_up,
    whole,
)

# Of a list, $type looks into its items too.
_CONTAINER: Document = {"$type": ["array", "object"]}
"""Types that MongoDB compares as wholes, [1] and [1.0] as equal: these are grouped here, record by record."""
_SCALAR: Document = {"$exists": True, "$not": _CONTAINER}
_NUMBER: Document = {"$type": ["int", "long", "double"], "$not": _CONTAINER}

_GROUP: Document = {
    # The kind, as 1 is 1.0 to it.
    "_id": {"kind": "$kind", "value": "$value"},
    "records": {"$sum": 1},
    "seen": {"$min": {"time": "$time_unix_nano", "id": "$_id"}},
}
_IS_LARGE: Document = {"$gte": [{"$abs": "$number"}, LARGE]}
_SUMS: Document = {
    "small": {"$sum": {"$cond": [_IS_LARGE, 0.0, "$number"]}},
    "large": {"$sum": {"$cond": [_IS_LARGE, {"$multiply": ["$number", FRACTION]}, 0.0]}},
    "minimum": {"$min": "$number"},
    "maximum": {"$max": "$number"},
}


class MongoDBStatistics(MongoDBPart, Statistics):
    """Groups by value and type in aggregation pipelines."""

    def top(self, variable: str, query: Query, /, *, limit: int) -> Sequence[ValueCount]:
        """Return the most frequent values of *variable* in the records that match, at most *limit*."""
        query = whole(query)
        if not _askable(query, variable):
            return count(find(self._collections, query), variable, limit=limit)
        if limit <= 0:
            return []
        path = _path(variable)
        asked = condition(query, before=None)
        read: Document = {"time_unix_nano": 1, "value": f"${path}", "kind": {"$type": f"${path}"}}
        largest: list[Document] = [
            {"$match": {**asked, path: _SCALAR}},
            {"$project": read},
            {"$group": _GROUP},
            {"$sort": {"records": -1, "seen.time": 1, "seen.id": 1}},
            {"$limit": limit},
        ]
        groups = Groups()
        for found in self._aggregate(largest):
            part = Part(records=int(found["records"]), seen=_seen(found))
            groups.add(decode_value(found["_id"]["value"]), part)
        for record in self._aggregate([{"$match": {**asked, path: _CONTAINER}}, {"$project": read}]):
            part = Part(records=1, seen=seen(int(record["time_unix_nano"]), record["_id"]))
            groups.add(decode_value(record["value"]), part)
        return groups.counts(limit)

    def summarise(self, variable: str, query: Query, /, *, by: GroupBy | None = None) -> Sequence[Summary]:
        """Sum up the numbers in *variable* of the records that match; the group with the most records first."""
        query = whole(query)
        check_group(by)
        names = (variable, by.name) if isinstance(by, Variable) else (variable,)
        if not _askable(query, *names):
            return sum_up(find(self._collections, query), variable, by=by)
        asked = {**condition(query, before=None), _path(variable): _NUMBER}
        path = _path(by.name) if isinstance(by, Variable) else None
        value: object = f"${path}" if path is not None else {"$literal": None} if by is None else "$route"
        read: Document = {
            "time_unix_nano": 1,
            "value": value,
            "kind": {"$type": value},
            "number": {"$toDouble": f"${_path(variable)}"},
        }
        grouped = asked if path is None else {"$and": [asked, {path: _SCALAR}]}
        groups = Groups()
        for found in self._aggregate([{"$match": grouped}, {"$project": read}, {"$group": {**_GROUP, **_SUMS}}]):
            sums = {name: float(found[name]) for name in _SUMS}
            part = Part(records=int(found["records"]), seen=_seen(found), **sums)
            groups.add(decode_value(found["_id"].get("value")), part)
        if path is not None:
            others = {"$and": [asked, {path: _CONTAINER}]}
            for record in self._aggregate([{"$match": others}, {"$project": read}]):
                when = seen(int(record["time_unix_nano"]), record["_id"])
                groups.add(decode_value(record["value"]), part_of(record["number"], seen=when))
        return groups.summaries()

    def _aggregate(self, pipeline: list[Document]) -> Iterator[Document]:
        with self._collections.checked() as collections:
            yield from collections.records.aggregate(pipeline, allowDiskUse=True)


def _askable(query: Query, *names: str) -> bool:
    """Return whether MongoDB takes all that is asked; what it does not take is decided record by record."""
    filters = (getattr(query, name) for name in COLUMN_FILTERS)
    return (
        not query.asks_for_variables
        and all(bindable(_path(name)) for name in names)
        and all(value is None or bindable(value) for value in filters)
    )


def _path(variable: str) -> str:
    return f"variables.{encode_name(variable)}"


def _seen(group: Document) -> str:
    return seen(int(group["seen"]["time"]), group["seen"]["id"])
