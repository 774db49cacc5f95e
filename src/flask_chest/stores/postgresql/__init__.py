"""Records in PostgreSQL, of release 13 or later."""

from __future__ import annotations

from typing import LiteralString

from flask_chest.errors import MissingDriverError
from flask_chest.protocols import PartitionBy
from flask_chest.stores.options import (
    CONNECT_TIMEOUT,
    DEFAULT_NAME,
    LOCK_TIMEOUT,
    POOL_SIZE,
    STATEMENT_TIMEOUT,
    check_options,
    check_partition,
)
from flask_chest.stores.postgresql.schema import PostgreSQLSchema
from flask_chest.stores.sql.pool import GivenPool, Lender, ServerPool
from flask_chest.stores.sql.server import ServerStore
from flask_chest.stores.sql.tables import Tables

try:
    from flask_chest.stores.postgresql.connections import (
        POSTGRESQL,
        Address,
        Connection,
        Pool,
        PoolAddress,
        PostgreSQLConnections,
        PostgreSQLConnector,
    )
    from flask_chest.stores.postgresql.indexes import PostgreSQLIndexes
    from flask_chest.stores.postgresql.partitions import PostgreSQLPartitions
except ImportError as exc:
    raise MissingDriverError("psycopg", extra="postgresql") from exc


class PostgreSQLStore(ServerStore):
    """Keeps records in the PostgreSQL database at *uri*, in tables whose names begin with *name*.

    *parameters* are libpq's, as in ``host="db", password="…", sslmode="verify-full"``; they go before what *uri*
    says. With ``create=False`` nothing is made or migrated: the tables must be there. With *partition* a new
    table has a partition for each ``"day"`` or ``"week"``, which retention drops as a whole.

    *connect_timeout*, *statement_timeout* and *lock_timeout* are seconds: to connect, for one statement, and to
    wait for a lock of another process. At most *pool_size* connections are open in a process. A *pool* that the
    app made, as psycopg_pool's, is used in their place and never closed; for a pool of another kind *uri* says
    where it connects to. A wrong option raises `ConfigurationError`; nothing connects before the store is used.
    """

    _kind = "postgresql"

    _size: LiteralString = (
        "SELECT coalesce(sum(pg_total_relation_size(relid)), pg_total_relation_size('{records}'::regclass))"
        " FROM pg_partition_tree('{records}'::regclass)"
    )

    def __init__(
        self,
        uri: str = "",
        *,
        name: str = DEFAULT_NAME,
        create: bool = True,
        partition: PartitionBy | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        statement_timeout: float = STATEMENT_TIMEOUT,
        lock_timeout: float = LOCK_TIMEOUT,
        pool_size: int = POOL_SIZE,
        pool: Pool | None = None,
        **parameters: str | int | None,
    ) -> None:
        check_partition(partition)
        check_options(
            pool_size=pool_size,
            connect_timeout=connect_timeout,
            statement_timeout=statement_timeout,
            lock_timeout=lock_timeout,
        )
        where = Address(uri, parameters)
        place = f"PostgreSQL {where}" if pool is None else "PostgreSQL of the pool that was given"
        lender: Lender[Connection]
        if pool is not None:
            lender = GivenPool(pool, outlives=PostgreSQLConnector.outlives)
        else:
            connector = PostgreSQLConnector(where, timeout=connect_timeout)
            lender = ServerPool(connector, size=pool_size, patience=connect_timeout, place=place)
        schema = PostgreSQLSchema(Tables(name, POSTGRESQL), place=place, creates=create, partition=partition)
        database = PostgreSQLConnections(
            lender, schema, statement_timeout=statement_timeout, lock_timeout=lock_timeout
        )
        super().__init__(
            database,
            schema,
            PostgreSQLIndexes(database, schema),
            PostgreSQLPartitions(database, schema, wanted=partition),
            where=where if pool is None else PoolAddress(pool, uri, parameters),
        )
