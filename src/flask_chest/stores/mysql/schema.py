"""The tables of a chest in MySQL and MariaDB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import LiteralString

from pymysql import err

from flask_chest.errors import StoreUnavailable
from flask_chest.protocols import PartitionBy
from flask_chest.stores.mysql.partitions import new_table
from flask_chest.stores.mysql.variables import collation, is_mariadb
from flask_chest.stores.sql.schema import Migrations, SQLSchema, column_of_records
from flask_chest.stores.sql.tables import Session, Tables

_KEYS = "PRIMARY KEY (position), UNIQUE KEY `{name}_id` (id), KEY `{name}_time` (time_unix_nano, id)"
_KEYS_OF_PARTITIONS = (
    "PRIMARY KEY (position, time_unix_nano), UNIQUE KEY `{name}_time` (time_unix_nano, id), KEY `{name}_id` (id)"
)
"""Keys of a table with partitions, where each unique one must have what they are by."""

_VIEW: LiteralString = """
CREATE OR REPLACE VIEW {variables} AS
SELECT
    id, request_id, time_unix_nano,
    TIMESTAMPADD(MICROSECOND, time_unix_nano DIV 1000, TIMESTAMP'1970-01-01 00:00:00.000000') AS time,
    duration_ns, method, route, endpoint, status_code, error,
    trace_id, span_id, trace_flags, trace_remote, instance,
    name,
    CASE kind
        WHEN 'UNSIGNED INTEGER' THEN 'integer' WHEN 'DOUBLE' THEN 'number' WHEN 'DECIMAL' THEN 'number'
        ELSE LOWER(kind)
    END AS type,
    CASE
        WHEN kind IN ('INTEGER', 'UNSIGNED INTEGER', 'DOUBLE', 'DECIMAL') THEN CAST(value AS double)
        WHEN kind = 'BOOLEAN' THEN value = 'true'
    END AS number,
    CASE WHEN kind IN ('STRING', 'ARRAY', 'OBJECT') THEN value END AS text,
    sample_rate
FROM (
    SELECT
        record.*,
        variable.name,
        JSON_TYPE(JSON_EXTRACT(record.variables, CONCAT('$.', JSON_QUOTE(variable.name)))) AS kind,
        JSON_UNQUOTE(JSON_EXTRACT(record.variables, CONCAT('$.', JSON_QUOTE(variable.name)))) AS value
    FROM {records} AS record
    JOIN JSON_TABLE(JSON_KEYS(record.variables), '$[*]' COLUMNS (name longtext PATH '$')) AS variable
) AS variable
"""

# Statements that change tables are no part of a transaction here: each must do no harm when it comes again.
_FIRST: tuple[LiteralString, ...] = (
    # In one statement with its row. The position of the last record: who writes records locks this row first, so
    # that positions are given in the order of the commits, and nobody who reads up to one misses a record.
    """
    CREATE TABLE IF NOT EXISTS {schema} (
        program varchar(32) NOT NULL PRIMARY KEY, version int NOT NULL, position bigint NOT NULL,
        store_id varchar(32)
    ) ENGINE = InnoDB SELECT 'flask_chest' AS program, 0 AS version, 0 AS position, NULL AS store_id
    """,
    """
    CREATE TABLE IF NOT EXISTS {records} (
        position bigint NOT NULL,
        id varchar(64) NOT NULL,
        request_id varchar(512) NOT NULL,
        time_unix_nano bigint NOT NULL,
        duration_ns bigint NOT NULL,
        method varchar(64) NOT NULL,
        route varchar(700),
        endpoint varchar(700),
        status_code bigint NOT NULL,
        error varchar(512),
        trace_id varchar(64),
        span_id varchar(64),
        trace_flags bigint,
        trace_remote boolean,
        instance varchar(512) NOT NULL,
        variables longtext NOT NULL,
        sample_rate double NOT NULL DEFAULT 1.0,
        <keys>,
        KEY `{name}_request` (request_id),
        KEY `{name}_trace` (trace_id),
        KEY `{name}_route` (route, time_unix_nano, id),
        KEY `{name}_status` (status_code, time_unix_nano, id)
    ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC <collation> <partitions>
    """,
    _VIEW,
    """
    CREATE TABLE IF NOT EXISTS {exporters} (
        name varchar(255) NOT NULL PRIMARY KEY,
        position bigint NOT NULL,
        boundary bigint,
        epoch bigint NOT NULL,
        holder varchar(512),
        lease_until_unix_nano bigint,
        last_seen_unix_nano bigint NOT NULL,
        last_success_unix_nano bigint,
        last_error longtext
    ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC <collation>
    """,
    """
    CREATE TABLE IF NOT EXISTS {rejected} (
        number bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
        exporter varchar(255) NOT NULL,
        record_id varchar(64) NOT NULL,
        reason longtext NOT NULL,
        time_unix_nano bigint NOT NULL,
        UNIQUE KEY `{name}_once` (exporter, record_id)
    ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC <collation>
    """,
    """
    CREATE TABLE IF NOT EXISTS {deletions} (
        kind varchar(64) NOT NULL PRIMARY KEY,
        query longtext,
        secret varchar(64),
        before_unix_nano bigint NOT NULL,
        dropped bigint NOT NULL DEFAULT 0,
        dropped_unix_nano bigint
    ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC <collation>
    """,
    """
    CREATE TABLE IF NOT EXISTS {forgotten} (
        digest varchar(64) NOT NULL PRIMARY KEY, before_unix_nano bigint NOT NULL, noted_unix_nano bigint NOT NULL
    ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC <collation>
    """,
)

_SECOND: tuple[LiteralString, ...] = (
    """
    CREATE TABLE IF NOT EXISTS {leases} (
        task varchar(255) NOT NULL PRIMARY KEY, owner varchar(255) NOT NULL, until_unix_nano bigint NOT NULL
    ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC <collation>
    """,
)


class MySQLSchema(SQLSchema):
    """What one chest's part of a database must look like."""

    _migrations: Migrations = (_FIRST, _SECOND)
    _additions = column_of_records("sample_rate", "double NOT NULL DEFAULT 1.0", view=(_VIEW,))
    _columns = (
        "SELECT lower(column_name) FROM information_schema.columns"
        " WHERE table_schema = database() AND lower(table_name) = lower(?)"
    )

    def __init__(
        self, tables: Tables, *, place: str, creates: bool, patience: float, partition: PartitionBy | None = None
    ) -> None:
        """Wait *patience* seconds for another process that makes the tables, with a *partition* for each span."""
        super().__init__(tables, place=place, creates=creates)
        self._patience = patience
        self._partition: PartitionBy | None = partition

    @contextmanager
    def alone(self, session: Session) -> Iterator[None]:
        """Keep other processes from making tables meanwhile."""
        lock = f"flask_chest {self.tables.name}"[:64]
        ((got,),) = session.rows("SELECT GET_LOCK(%s, %s)", (lock, round(self._patience)))
        if got != 1:
            raise StoreUnavailable(f"{self.place}: another process makes the tables; try again")
        try:
            yield
        finally:
            session.rows("SELECT RELEASE_LOCK(%s)", (lock,))

    def _adapted(self, statement: str, session: Session) -> str:
        collated = f"CHARACTER SET utf8mb4 COLLATE {collation(mariadb=is_mariadb(session))}"
        statement = statement.replace("<collation>", collated)
        if "<keys>" not in statement:
            return statement
        keys: LiteralString = _KEYS
        partitions = ""
        if self._partition is not None:
            keys = _KEYS_OF_PARTITIONS
            partitions = new_table(session.now_unix_nano(), self._partition)
        return statement.replace("<keys>", self.tables.sql(keys)).replace("<partitions>", partitions)

    def _taken(self, session: Session, names: Sequence[str]) -> set[str]:
        select = self.tables.sql(
            "SELECT lower(table_name) FROM information_schema.tables"
            " WHERE table_schema = database() AND lower(table_name) IN ({many})",
            many=len(names),
        )
        taken = {str(name) for (name,) in session.rows(select, [name.lower() for name in names])}
        if not taken:
            # What the user may not read is in no list: only who asks for it is told.
            with suppress(err.ProgrammingError):  # there is no such table
                session.rows(self.tables.sql("SELECT * FROM {schema} LIMIT 0"))
        return taken
