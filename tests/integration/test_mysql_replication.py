"""A server whose binary log holds statements: InnoDB refuses writes there on the level READ COMMITTED."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import pymysql
import pytest

from flask_chest.errors import StoreUnavailable
from flask_chest.stores.mysql import MySQLStore
from flask_chest.stores.mysql.connections import Address
from flask_chest.testing.records import make_record
from server_contract import deliver_all, ids, kept, write_through
from servers import DatabaseServer, database


@pytest.fixture(params=["mysql", "mariadb"], scope="module")
def server(engine: None, request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    with database(request.param, "--log-bin --server-id=1 --binlog-format=STATEMENT") as server:
        yield server


def test_records_of_many_writers_are_kept_and_claimed_once_where_statements_are_replicated(
    server: DatabaseServer,
) -> None:
    batches = [[make_record() for _ in range(5)] for _ in range(40)]
    with closing(MySQLStore(server.uri, name="many")) as store:
        store.open()
        with ThreadPoolExecutor(4) as threads:
            writing = [threads.submit(write_through, store, batch) for batch in batches]
            delivered = deliver_all(store, until=lambda: all(each.done() for each in writing))
        assert ids(delivered) == ids(kept(store)) == ids(record for batch in batches for record in batch)


def test_pool_on_another_level_is_told_the_way_out_where_statements_are_replicated(
    server: DatabaseServer,
) -> None:
    parameters: dict[str, Any] = {**Address(server.uri, {}).parameters, "autocommit": True}
    level = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"

    class Pool:
        @contextmanager
        def connection(self) -> Iterator[pymysql.Connection[Any]]:
            with closing(pymysql.connect(**parameters, init_command=level)) as connection:
                yield connection

    with closing(MySQLStore(server.uri, name="pool")) as own:
        own.open()
    with pytest.raises(StoreUnavailable) as refused:
        MySQLStore(pool=Pool(), name="pool").write([make_record()])
    assert str(refused.value).endswith(
        "; let the connections of the pool use REPEATABLE READ, or set binlog_format to MIXED or ROW"
    )
