"""The tables of a chest in ClickHouse.

A table says in its comment which program made it, and the database gives it an id of its own: so everything is
known once there is a table, and nobody has to be the first to note it.
"""

from __future__ import annotations

import re

from flask_chest._process import PerProcess
from flask_chest.errors import ConfigurationError, SchemaError, StoreAbsent
from flask_chest.stores.clickhouse.client import Database
from flask_chest.stores.clickhouse.rows import COLUMN_TYPES
from flask_chest.stores.clickhouse.text import literal

DAY_NANO = 86_400_000_000_000
PARTITION = f"intDiv(time_unix_nano, {DAY_NANO})"
"""Day of a record, counted from 1970."""
_ENGINE = re.compile(
    r"(?P<prefix>Replicated)(?:Replacing)?MergeTree\(\s*(?P<arguments>'[^'\\]+'\s*,\s*'[^'\\]+')\s*\)"
    r"|(?P<plain>|Replicated|Shared)(?:Replacing)?MergeTree"
)
_DIFFERS = ("{table}", "{uuid}")
"""Macros of which one is in the path of each replicated table: there are three tables."""

VERSION = 1
_COMMENT = f"flask_chest {VERSION}"
_OURS = re.compile(r"flask_chest (\d+)")
_CODECS = {
    "time_unix_nano": "CODEC(Delta(8), ZSTD(1))",
    "duration_ns": "CODEC(ZSTD(1))",
    "sample_rate": "CODEC(ZSTD(1))",
    **dict.fromkeys(("id", "request_id", "trace_id", "span_id", "variables"), "CODEC(ZSTD(1))"),
}
_FOUND_BY = ("id", "request_id", "trace_id")
"""Columns of which a few bits say in which blocks of records a value may be."""

# Of two versions the one that came first is to stay: the engine keeps the greatest, so it counts down.
_RECORDS = """
CREATE TABLE IF NOT EXISTS {table}{on_cluster} (
    {columns},
    version UInt64 DEFAULT 18446744073709551615 - toUInt64(toUnixTimestamp64Nano(now64(9))) CODEC(ZSTD(1)),
    {indexes}
)
ENGINE = {prefix}ReplacingMergeTree({arguments}version)
PARTITION BY {partition}
ORDER BY (time_unix_nano, id)
SETTINGS {settings}
COMMENT {comment}
"""
_DELETIONS = """
CREATE TABLE IF NOT EXISTS {table}{on_cluster} (
    kind String,
    secret String,
    query SimpleAggregateFunction(max, String),
    before_unix_nano SimpleAggregateFunction(max, Int64),
    dropped SimpleAggregateFunction(sum, UInt64),
    dropped_unix_nano SimpleAggregateFunction(max, Int64),
    count SimpleAggregateFunction(sum, UInt64)
)
ENGINE = {prefix}AggregatingMergeTree{in_brackets}
ORDER BY (kind, secret)
SETTINGS {settings}
COMMENT {comment}
"""
_FORGOTTEN = """
CREATE TABLE IF NOT EXISTS {table}{on_cluster} (
    digest String,
    before_unix_nano SimpleAggregateFunction(max, Int64),
    noted_unix_nano SimpleAggregateFunction(max, Int64)
)
ENGINE = {prefix}AggregatingMergeTree{in_brackets}
ORDER BY digest
SETTINGS {settings}
COMMENT {comment}
"""
# What was written is on the disk when the server says so.
_DURABLE = "fsync_after_insert = 1, fsync_part_directory = 1"
_REMEMBERING = "non_replicated_deduplication_window = 1000"


class ClickHouseSchema:
    """Makes the tables, and looks whether they are this release's."""

    def __init__(self, database: Database, *, engine: str, creates: bool) -> None:
        self._database = database
        self._prefix, self._arguments = _parsed(engine)
        self._by_whom = "when the first record is written" if creates else "by a store that may, with create=True"
        self._checked = PerProcess(lambda: False)
        """Whether this process has looked at the tables."""
        self.store_id: str | None = None
        """The id that the database gave the table of the records; ``None`` where it gives none."""

    def make(self) -> None:
        """Make the tables where they are missing; in many processes at once, too."""
        if self._version() is None:
            for statement in self.statements():
                self._database.run(statement)
            self._version()

    def check(self) -> None:
        """Raise `SchemaError` unless the tables are there, in this release's version."""
        if not self._checked.get():
            if self._version() is None:
                raise StoreAbsent(
                    f"the tables of {self._database.name!r} in {self._database.place} do not exist yet; "
                    f"they are made {self._by_whom}"
                )
            self._checked.set(True)

    def statements(self) -> list[str]:
        """Return the statements that make the tables, that of the records last: it is there when all are."""
        database = self._database
        columns = [f"{name} {kind} {_CODECS.get(name, '')}".rstrip() for name, kind in COLUMN_TYPES.items()]
        indexes = [f"INDEX {name} {name} TYPE bloom_filter(0.01) GRANULARITY 1" for name in _FOUND_BY]
        given = {
            "on_cluster": database.on_cluster,
            "prefix": self._prefix,
            "arguments": f"{self._arguments}, " if self._arguments else "",
            "in_brackets": f"({self._arguments})" if self._arguments else "",
            "comment": literal(_COMMENT),
        }
        return [
            _DELETIONS.format(table=database.deletions, settings=_DURABLE, **given),
            _FORGOTTEN.format(table=database.forgotten, settings=_DURABLE, **given),
            _RECORDS.format(
                table=database.records,
                columns=",\n    ".join(columns),
                indexes=",\n    ".join(indexes),
                partition=PARTITION,
                settings=f"{_DURABLE}, {_REMEMBERING}",
                **given,
            ),
        ]

    def _version(self) -> int | None:
        database = self._database
        names = [database.name, f"{database.name}_deletions", f"{database.name}_forgotten"]
        tables = database.tables(*names)
        for name, found in sorted(tables.items()):
            ours = _OURS.fullmatch(found.comment)
            if ours is None:
                raise SchemaError(
                    f"{database.place} has a table {name!r} that flask_chest did not make; "
                    "choose another name= for the chest, or another database"
                )
            if int(ours[1]) > VERSION:
                raise SchemaError(
                    f"the tables of {database.name!r} in {database.place} are of version {ours[1]}, which this "
                    f"release does not know (its own is {VERSION}); upgrade flask_chest"
                )
        records = tables.get(database.name)
        if records is None or len(tables) < len(names):
            return None
        self.store_id = records.uuid.hex if records.uuid.int else None
        return VERSION


def _parsed(engine: str) -> tuple[str, str]:
    """Return what *engine* has before the name of its kind, and its arguments; refuse what keeps no version."""
    found = _ENGINE.fullmatch(engine)
    if found is None:
        raise ConfigurationError(
            "engine must be MergeTree, ReplicatedMergeTree or SharedMergeTree, of which the tables take the kind "
            "Replacing, so that a record that comes twice is kept once; the second may have ('path', 'replica'), "
            f"got {engine!r}"
        )
    arguments = found["arguments"] or ""
    if arguments and not any(macro in arguments for macro in _DIFFERS):
        raise ConfigurationError(
            f"engine must have {' or '.join(_DIFFERS)} in its path, as a chest has three tables, got {engine!r}"
        )
    return found["prefix"] or found["plain"] or "", arguments


class ClickHousePart:
    """A part of a ClickHouse store: what all parts work on."""

    def __init__(self, database: Database, schema: ClickHouseSchema) -> None:
        self._database = database
        self._schema = schema

    @property
    def _alter(self) -> str:
        """How a statement begins that changes the table of the records."""
        return f"ALTER TABLE {self._database.records}{self._database.on_cluster}"
