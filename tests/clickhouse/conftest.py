"""The engine of ClickHouse in this process, by the same client that a server is asked by."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from clickhouse_server import Server
from flask_chest.stores.clickhouse import ClickHouseStore

_numbers = count()


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One engine a process, in a folder of its own, with a database that gives its tables ids."""
    client = clickhouse_connect.get_client(interface="chdb", path=str(tmp_path_factory.mktemp("clickhouse")))
    client.command("CREATE DATABASE chest ENGINE = Atomic")
    client.database = "chest"
    yield client
    client.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("engine"))
    yield server
    server.kill()


@pytest.fixture
def name() -> str:
    """Tables of its own for each test."""
    return f"chest_{next(_numbers)}"


@pytest.fixture
def store(client: Client, name: str) -> Any:
    store = ClickHouseStore("clickhouse://localhost/chest", name=name, client=client)
    store.open()
    return store
