"""Records in MySQL 8 and later, and in MariaDB 10.11 and later."""

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
from flask_chest.stores.sql.pool import GivenPool, Lender, ServerPool
from flask_chest.stores.sql.server import ServerStore
from flask_chest.stores.sql.tables import Tables

try:
    from flask_chest.stores.mysql.connections import (
        MYSQL,
        Address,
        Connection,
        MySQLConnections,
        MySQLConnector,
        Pool,
        UnknownAddress,
    )
    from flask_chest.stores.mysql.indexes import MySQLIndexes
    from flask_chest.stores.mysql.partitions import MySQLPartitions
    from flask_chest.stores.mysql.schema import MySQLSchema
except ImportError as exc:
    raise MissingDriverError("pymysql", extra="mysql") from exc


class MySQLStore(ServerStore):
    """Keeps records in the MySQL or MariaDB database at *uri*, in tables whose names begin with *name*.

    *parameters* are PyMySQL's, as in ``host="db", password="…", ssl_ca="ca.pem"``; they go before what *uri*
    says. With ``create=False`` nothing is made or migrated: the tables must be there. With *partition* a new
    table has a partition for each ``"day"`` or ``"week"``, which retention drops as a whole.

    *connect_timeout*, *statement_timeout* and *lock_timeout* are seconds: to connect, for one statement, and to
    wait for a lock of another process. At most *pool_size* connections are open in a process. A *pool* that the
    app made, with connections in autocommit mode, is used in their place and never closed; where there are
    several pools, *uri* says where each connects to. A wrong option raises `ConfigurationError`; nothing connects
    before the store is used.
    """

    _kind = "mysql"
    _size: LiteralString = (
        "SELECT data_length + index_length FROM information_schema.tables"
        " WHERE table_schema = database() AND table_name = '{name}'"
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
        **parameters: object,
    ) -> None:
        check_partition(partition)
        check_options(
            pool_size=pool_size,
            connect_timeout=connect_timeout,
            statement_timeout=statement_timeout,
            lock_timeout=lock_timeout,
        )
        # With a pool it is only said where that connects to: journals of two databases must not be one.
        where = UnknownAddress() if pool is not None and not uri else Address(uri, parameters)
        place = f"MySQL {where}"
        lender: Lender[Connection]
        if pool is not None:
            lender = GivenPool(pool, outlives=MySQLConnector.outlives)
        else:
            connector = MySQLConnector(
                Address(uri, parameters),
                timeout=connect_timeout,
                statement_timeout=statement_timeout,
                lock_timeout=lock_timeout,
            )
            lender = ServerPool(connector, size=pool_size, patience=connect_timeout, place=place)
        schema = MySQLSchema(
            Tables(name, MYSQL), place=place, creates=create, patience=lock_timeout, partition=partition
        )
        database = MySQLConnections(lender, schema, lock_timeout=lock_timeout)
        super().__init__(
            database,
            schema,
            MySQLIndexes(database, schema),
            MySQLPartitions(database, schema, wanted=partition),
            where=where,
        )
