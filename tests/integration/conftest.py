"""One server of a kind for the whole session."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import requests
from docker.errors import DockerException

from servers import DatabaseServer, InfluxServer, database, running

LONGEST = [f"test_{name}.py" for name in ("viewer_in_browser", "mysql", "mongodb", "targets", "postgresql")]
"""Files that take minutes: begun first, they do not run on alone when all others are over."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all that lies here, so that ``-m server`` finds it, and put first what takes longest."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.server)
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def engine() -> None:
    """Skip when no container engine answers; fail where FLASK_CHEST_REQUIRE_SERVERS=1 asks for one."""
    if (complaint := _complaint_of_engine()) is not None:
        stop = pytest.fail if os.environ.get("FLASK_CHEST_REQUIRE_SERVERS") == "1" else pytest.skip
        stop(f"no container engine answers: {complaint}")


def _complaint_of_engine() -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the failed client leaves its socket to the collector
        try:
            docker.from_env().close()
        except DockerException as exc:
            complaint = str(exc)
        else:
            return None
        gc.collect()
    return complaint


@pytest.fixture(scope="session")
def influxdb(engine: None) -> Iterator[InfluxServer]:
    org, token = "my-org", "test-t0ken"
    settings = {
        "MODE": "setup",
        "ORG": org,
        "BUCKET": "unused",
        "ADMIN_TOKEN": token,
        "USERNAME": "admin",
        "PASSWORD": "passw0rd",
    }
    environment = {f"DOCKER_INFLUXDB_INIT_{name}": value for name, value in settings.items()}
    with running("INFLUXDB", port=8086, answers=_is_healthy, settings=environment) as server:
        yield InfluxServer(server, org, token)


def _is_healthy(address: str) -> bool:
    try:
        return requests.get(f"http://{address}/health", timeout=5).ok
    except requests.RequestException:
        return False


@pytest.fixture(scope="session")
def postgresql(engine: None) -> Iterator[DatabaseServer]:
    with database("postgresql") as server:
        yield server


@pytest.fixture(scope="session")
def mysql(engine: None) -> Iterator[DatabaseServer]:
    with database("mysql") as server:
        yield server


@pytest.fixture(scope="session")
def mariadb(engine: None) -> Iterator[DatabaseServer]:
    with database("mariadb") as server:
        yield server


@pytest.fixture(params=["mysql", "mariadb"])
def mysql_server(request: pytest.FixtureRequest) -> DatabaseServer:
    """Both that speak MySQL's protocol, one after the other."""
    server: DatabaseServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="session")
def mongodb(engine: None) -> Iterator[DatabaseServer]:
    with database("mongodb") as server:
        yield server


@pytest.fixture(scope="session")
def documentdb(engine: None) -> Iterator[DatabaseServer]:
    """Another engine behind MongoDB's protocol."""
    if "FLASK_CHEST_TEST_DOCUMENTDB_IMAGE" not in os.environ:
        pytest.skip("FLASK_CHEST_TEST_DOCUMENTDB_IMAGE names no image")
    with database("documentdb") as server:
        yield server
