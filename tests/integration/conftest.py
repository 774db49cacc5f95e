"""One server of a kind for the whole session."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from typing import Any

import docker
import psycopg
import pymysql
import pytest
import requests
from docker.errors import DockerException
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from servers import DatabaseServer, InfluxServer, running

PASSWORD = "s3cret-w0rd"


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
    settings = {"POSTGRES_USER": "admin", "POSTGRES_PASSWORD": PASSWORD, "POSTGRES_DB": "chest"}
    with running("POSTGRES", port=5432, answers=_answers_postgresql, settings=settings, lasting=True) as server:
        yield DatabaseServer.of(server, scheme="postgresql", user="admin", password=PASSWORD)


def _answers_postgresql(address: str) -> bool:
    try:
        psycopg.connect(f"postgresql://admin:{PASSWORD}@{address}/chest", connect_timeout=3).close()
    except psycopg.Error:
        return False
    return True


@pytest.fixture(scope="session")
def mysql(engine: None) -> Iterator[DatabaseServer]:
    settings = {"MYSQL_ROOT_PASSWORD": PASSWORD, "MYSQL_DATABASE": "chest"}
    with running("MYSQL", port=3306, answers=_answers_mysql, settings=settings, lasting=True) as server:
        yield DatabaseServer.of(server, scheme="mysql", user="root", password=PASSWORD)


@pytest.fixture(scope="session")
def mariadb(engine: None) -> Iterator[DatabaseServer]:
    settings = {"MARIADB_ROOT_PASSWORD": PASSWORD, "MARIADB_DATABASE": "chest"}
    with running("MARIADB", port=3306, answers=_answers_mysql, settings=settings, lasting=True) as server:
        yield DatabaseServer.of(server, scheme="mariadb", user="root", password=PASSWORD)


def _answers_mysql(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        pymysql.connect(
            host=host, port=int(port), user="root", password=PASSWORD, database="chest", connect_timeout=3
        ).close()
    except pymysql.Error:
        return False
    return True


@pytest.fixture(scope="session")
def mongodb(engine: None) -> Iterator[DatabaseServer]:
    settings = {"MONGO_INITDB_ROOT_USERNAME": "root", "MONGO_INITDB_ROOT_PASSWORD": PASSWORD}
    with running("MONGODB", port=27017, answers=_answers_mongodb, settings=settings, lasting=True) as server:
        yield DatabaseServer.of(server, scheme="mongodb", user="root", password=PASSWORD)


@pytest.fixture(scope="session")
def documentdb(engine: None) -> Iterator[DatabaseServer]:
    """Another engine behind MongoDB's protocol."""
    if "FLASK_CHEST_TEST_DOCUMENTDB_IMAGE" not in os.environ:
        pytest.skip("FLASK_CHEST_TEST_DOCUMENTDB_IMAGE names no image")
    settings = {"MONGO_INITDB_ROOT_USERNAME": "root", "MONGO_INITDB_ROOT_PASSWORD": PASSWORD}
    with running("DOCUMENTDB", port=27017, answers=_answers_mongodb, settings=settings, lasting=True) as server:
        yield DatabaseServer.of(server, scheme="mongodb", user="root", password=PASSWORD)


def _answers_mongodb(address: str) -> bool:
    with MongoClient[Any](
        f"mongodb://root:{PASSWORD}@{address}/?authSource=admin", serverSelectionTimeoutMS=2_000
    ) as client:
        try:
            client["chest"].command("ping")
        except PyMongoError:
            return False
    return True
