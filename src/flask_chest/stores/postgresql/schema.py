"""The tables of a chest in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import LiteralString

from flask_chest.protocols import PartitionBy
from flask_chest.stores.sql.schema import PARTIAL_INDEXES, Migrations, SQLSchema, column_of_records
from flask_chest.stores.sql.tables import Session, Tables

# The functions that read JSON refuse an escaped NUL, which would end the whole SELECT. `capture` leaves none.
_VIEW: LiteralString = r"""
CREATE OR REPLACE VIEW {variables} AS
SELECT
    record.id, request_id, time_unix_nano,
    timestamptz 'epoch' + (time_unix_nano / 1000) * interval '1 microsecond' AS time,
    duration_ns, method, route, endpoint, status_code, error,
    trace_id, span_id, trace_flags, trace_remote, instance,
    variable.key AS name,
    CASE
        WHEN json_typeof(variable.value) = 'number' AND variable.value::text !~ '[.eE]' THEN 'integer'
        ELSE json_typeof(variable.value)
    END AS type,
    CASE json_typeof(variable.value)
        WHEN 'number' THEN variable.value::text::numeric
        WHEN 'boolean' THEN (variable.value::text = 'true')::integer::numeric
    END AS number,
    CASE
        WHEN json_typeof(variable.value) IN ('array', 'object') THEN variable.value::text
        WHEN json_typeof(variable.value) = 'string' THEN variable.value #>> '{{}}'
    END AS text,
    sample_rate
FROM {records} AS record CROSS JOIN LATERAL json_each(
    CASE
        WHEN strpos(record.variables::text, '\u0000') = 0 THEN record.variables
        ELSE replace(record.variables::text, '\u0000', '\ufffd')::json
    END
) AS variable
"""

_FIRST: tuple[LiteralString, ...] = (
    # The position of the last record. Who writes records locks this row first, so that positions are given in
    # the order of the commits, and nobody who reads up to one misses a record that becomes visible later.
    """
    CREATE TABLE {schema} (
        program text NOT NULL, version integer NOT NULL, position bigint NOT NULL, store_id text
    )
    """,
    "INSERT INTO {schema} (program, version, position) VALUES ('flask_chest', 0, 0)",
    """
    CREATE TABLE {records} (
        position bigint NOT NULL,
        id text COLLATE "C" NOT NULL,
        request_id text COLLATE "C" NOT NULL,
        time_unix_nano bigint NOT NULL,
        duration_ns bigint NOT NULL,
        method text COLLATE "C" NOT NULL,
        route text COLLATE "C",
        endpoint text COLLATE "C",
        status_code bigint NOT NULL,
        error text COLLATE "C",
        trace_id text COLLATE "C",
        span_id text COLLATE "C",
        trace_flags bigint,
        trace_remote boolean,
        instance text COLLATE "C" NOT NULL,
        variables json NOT NULL,
        sample_rate double precision NOT NULL DEFAULT 1.0,
        <keys>
    ) <partitions>
    """,
    "CREATE INDEX <index>",
    *PARTIAL_INDEXES,
    _VIEW,
    """
    CREATE TABLE {exporters} (
        name text COLLATE "C" PRIMARY KEY,
        position bigint NOT NULL,
        boundary bigint,
        epoch bigint NOT NULL,
        holder text,
        lease_until_unix_nano bigint,
        last_seen_unix_nano bigint NOT NULL,
        last_success_unix_nano bigint,
        last_error text
    )
    """,
    """
    CREATE TABLE {rejected} (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        exporter text COLLATE "C" NOT NULL,
        record_id text COLLATE "C" NOT NULL,
        reason text NOT NULL,
        time_unix_nano bigint NOT NULL,
        UNIQUE (exporter, record_id)
    )
    """,
    """
    CREATE TABLE {deletions} (
        kind text COLLATE "C" PRIMARY KEY,
        query text,
        secret text,
        before_unix_nano bigint NOT NULL,
        dropped bigint NOT NULL DEFAULT 0,
        dropped_unix_nano bigint
    )
    """,
    """
    CREATE TABLE {forgotten} (
        digest text COLLATE "C" PRIMARY KEY, before_unix_nano bigint NOT NULL, noted_unix_nano bigint NOT NULL
    )
    """,
)

_KEYS: dict[str, LiteralString] = {
    "<keys>": "PRIMARY KEY (position), UNIQUE (id)",
    "<partitions>": "",
    "<index>": '"{name}_time" ON {records} (time_unix_nano, id)',
}
_KEYS_OF_PARTITIONS: dict[str, LiteralString] = {
    "<keys>": 'PRIMARY KEY (position, time_unix_nano), CONSTRAINT "{name}_time" UNIQUE (time_unix_nano, id)',
    "<partitions>": "PARTITION BY RANGE (time_unix_nano)",
    "<index>": '"{name}_id" ON {records} (id)',
}
"""Keys of a table with partitions, where each unique one must have what they are by."""

_SECOND: tuple[LiteralString, ...] = (
    """
    CREATE TABLE {leases} (
        task text COLLATE "C" PRIMARY KEY, owner text COLLATE "C" NOT NULL, until_unix_nano bigint NOT NULL
    )
    """,
)

_LOCK = 0x666C63686573
"""The key of the advisory lock under which tables are made: the first letters of "flchest"."""


class PostgreSQLSchema(SQLSchema):
    """What one chest's part of a database must look like; it lies in the first schema of the search path."""

    _migrations: Migrations = (_FIRST, _SECOND)
    _additions = column_of_records("sample_rate", "double precision NOT NULL DEFAULT 1.0", view=(_VIEW,))
    _columns = (
        "SELECT attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
        " WHERE pg_table_is_visible(attrelid) AND relname = ? AND attnum > 0 AND NOT attisdropped"
    )

    def __init__(
        self, tables: Tables, *, place: str, creates: bool = True, partition: PartitionBy | None = None
    ) -> None:
        """Make new tables with a *partition* for each span."""
        super().__init__(tables, place=place, creates=creates)
        self._keys = _KEYS if partition is None else _KEYS_OF_PARTITIONS

    def _adapted(self, statement: str, session: Session) -> str:  # noqa: ARG002 - for those that differ by it
        for words, keys in self._keys.items():
            statement = statement.replace(words, self.tables.sql(keys))
        return statement

    @contextmanager
    def alone(self, session: Session) -> Iterator[None]:
        """Keep other processes from making tables meanwhile."""
        session.rows(self.tables.sql("SELECT pg_advisory_xact_lock(?)"), (_LOCK,))
        yield

    def _taken(self, session: Session, names: Sequence[str]) -> set[str]:
        select = self.tables.sql(
            "SELECT relname FROM pg_class WHERE pg_table_is_visible(oid) AND relname IN ({many})", many=len(names)
        )
        return {name.lower() for (name,) in session.rows(select, names)}
