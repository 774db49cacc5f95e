"""Database servers in containers, for the tests of `tests/integration`."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

import psycopg
import pymysql
import pytest
import requests
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

OFFICIAL_IMAGES = MappingProxyType(
    {
        "POSTGRES": "postgres:17",
        "MYSQL": "mysql:8.4",
        "MARIADB": "mariadb:11.4",
        "MONGODB": "mongo:8.0",
        "INFLUXDB": "influxdb:2.7",
    }
)
START_SECONDS = 120
AGAIN = {"Name": "on-failure", "MaximumRetryCount": 5}
"""For a container that ends right after its start: PostgreSQL, killed, may take another process for itself."""
RECORDS = int(os.environ.get("FLASK_CHEST_TEST_RECORDS", "1000"))
"""What goes through a server in one test; the benchmarks take more."""
PASSWORD = "s3cret-w0rd"
"""Of every server's user."""


def image_of(kind: str) -> str:
    """Name the image for a *kind* of server; FLASK_CHEST_TEST_<kind>_IMAGE overrides the official one."""
    return os.environ.get(f"FLASK_CHEST_TEST_{kind}_IMAGE") or OFFICIAL_IMAGES[kind]


@dataclass(frozen=True)
class Server:
    """A server in a container, which can be stopped and started."""

    container: DockerContainer
    port: int
    answers: Callable[[str], bool]
    """Tells whether the server at a host:port is ready."""

    @property
    def address(self) -> str:
        """Return host:port; the port is another one after every start."""
        return f"{self.container.get_container_host_ip()}:{self.container.get_exposed_port(self.port)}"

    def wait(self) -> None:
        wait_until(lambda: self.answers(self.address), seconds=START_SECONDS)

    def kill(self) -> None:
        """Kill it without a word to it, and start it again."""
        self.container.get_wrapped_container().kill()
        self.container.get_wrapped_container().start()

    def restart(self) -> None:
        self.container.get_wrapped_container().restart(timeout=30)

    def hang(self, seconds: float = 2.0) -> None:
        """Let it stand still for so long, with its connections open."""
        self.container.get_wrapped_container().pause()
        try:
            time.sleep(seconds)
        finally:
            self.container.get_wrapped_container().unpause()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self.container.get_wrapped_container().stop()
        try:
            yield
        finally:
            self.container.get_wrapped_container().start()
            self.wait()


@dataclass(frozen=True)
class Place:
    """Where the other servers of a network find one."""

    network: Network
    name: str


@contextmanager
def running(
    kind: str,
    *,
    port: int,
    answers: Callable[[str], bool],
    settings: Mapping[str, str],
    command: str | Sequence[str] = "",
    place: Place | None = None,
    lasting: bool = False,
) -> Iterator[Server]:
    """Run a server of this *kind* with *settings* as its environment, ready when the block begins.

    A *lasting* one has the same address after every start.
    """
    container = DockerContainer(image_of(kind)).with_envs(**settings).with_kwargs(restart_policy=AGAIN)
    if command:
        container = container.with_command(command if isinstance(command, str) else list(command))
    if place is not None:
        container = container.with_network(place.network).with_network_aliases(place.name)
    container = container.with_bind_ports(port, free_port()) if lasting else container.with_exposed_ports(port)
    with container:
        server = Server(container, port, answers)
        server.wait()
        yield server


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until(happened: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain")
        time.sleep(0.05)


@dataclass(frozen=True)
class DatabaseServer:
    """A database server with one database, ``chest``."""

    server: Server
    scheme: str
    user: str
    password: str
    address: str
    """Known once and for all: forked processes must not share the connection to the container engine."""

    @classmethod
    def of(cls, server: Server, *, scheme: str, user: str, password: str) -> Self:
        return cls(server, scheme, user, password, server.address)

    @property
    def uri(self) -> str:
        return self.uri_with()

    def uri_with(
        self,
        *,
        user: str | None = None,
        password: str | None = None,
        address: str | None = None,
        database: str = "chest",
    ) -> str:
        login = f"{user or self.user}:{password or self.password}"
        options = "?authSource=admin" if self.scheme == "mongodb" else ""
        return f"{self.scheme}://{login}@{address or self.address}/{database}{options}"


@dataclass(frozen=True, kw_only=True)
class _Database:
    """How a kind of database server is started and asked whether it is ready."""

    image: str
    scheme: str
    port: int
    user: str
    settings: Mapping[str, str]
    answers: Callable[[str], bool]


@contextmanager
def database(
    kind: str, command: str | Sequence[str] = "", *, place: Place | None = None
) -> Iterator[DatabaseServer]:
    """Run a database server by *command*, where others find it at its *place*.

    One of postgresql, mysql, mariadb, mongodb and documentdb.
    """
    found = _DATABASES[kind]
    with running(
        found.image,
        port=found.port,
        answers=found.answers,
        settings=found.settings,
        command=command,
        place=place,
        lasting=True,
    ) as server:
        yield DatabaseServer.of(server, scheme=found.scheme, user=found.user, password=PASSWORD)


def _answers_postgresql(address: str) -> bool:
    try:
        psycopg.connect(f"postgresql://admin:{PASSWORD}@{address}/chest", connect_timeout=3).close()
    except psycopg.Error:
        return False
    return True


def _answers_mysql(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        pymysql.connect(
            host=host, port=int(port), user="root", password=PASSWORD, database="chest", connect_timeout=3
        ).close()
    except pymysql.Error:
        return False
    return True


def _answers_mongodb(address: str) -> bool:
    with MongoClient[Any](
        f"mongodb://root:{PASSWORD}@{address}/?authSource=admin", serverSelectionTimeoutMS=2_000
    ) as client:
        try:
            client["chest"].command("ping")
        except PyMongoError:
            return False
    return True


def _of_mysql(image: str) -> _Database:
    return _Database(
        image=image,
        scheme=image.lower(),
        port=3306,
        user="root",
        settings={f"{image}_ROOT_PASSWORD": PASSWORD, f"{image}_DATABASE": "chest"},
        answers=_answers_mysql,
    )


def _of_mongodb(image: str) -> _Database:
    return _Database(
        image=image,
        scheme="mongodb",
        port=27017,
        user="root",
        settings={"MONGO_INITDB_ROOT_USERNAME": "root", "MONGO_INITDB_ROOT_PASSWORD": PASSWORD},
        answers=_answers_mongodb,
    )


_DATABASES: Mapping[str, _Database] = MappingProxyType(
    {
        "postgresql": _Database(
            image="POSTGRES",
            scheme="postgresql",
            port=5432,
            user="admin",
            settings={"POSTGRES_USER": "admin", "POSTGRES_PASSWORD": PASSWORD, "POSTGRES_DB": "chest"},
            answers=_answers_postgresql,
        ),
        "mysql": _of_mysql("MYSQL"),
        "mariadb": _of_mysql("MARIADB"),
        "mongodb": _of_mongodb("MONGODB"),
        "documentdb": _of_mongodb("DOCUMENTDB"),
    }
)


@dataclass(frozen=True)
class InfluxServer:
    """InfluxDB with one organisation and a token that may do everything."""

    server: Server
    org: str
    token: str
    _session: requests.Session = field(default_factory=requests.Session)

    @property
    def url(self) -> str:
        return f"http://{self.server.address}"

    def create_bucket(self, name: str, *, keep_seconds: int = 0) -> str:
        (org,) = self._call("GET", "/api/v2/orgs", params={"org": self.org})["orgs"]
        rules = [{"type": "expire", "everySeconds": keep_seconds}] if keep_seconds else []
        bucket = {"orgID": org["id"], "name": name, "retentionRules": rules}
        self._call("POST", "/api/v2/buckets", json=bucket)
        return name

    def points(self, bucket: str, measurement: str = "flask_chest") -> list[dict[str, object]]:
        """Read the points of *measurement*, oldest first, without the fields and tags that are absent."""
        # InfluxQL's JSON has no decimal point in a float that needs none.
        kinds = self.field_types(bucket, measurement)
        return [
            {
                name: float(value) if kinds.get(name) == "float" else value
                for name, value in zip(series["columns"], values, strict=True)
                if value is not None
            }
            for series in self._ask(bucket, f'SELECT * FROM "{measurement}"')
            for values in series["values"]
        ]

    def field_types(self, bucket: str, measurement: str = "flask_chest") -> dict[str, str]:
        series = self._ask(bucket, f'SHOW FIELD KEYS FROM "{measurement}"')
        return {name: kind for each in series for name, kind in each["values"]}

    def tag_names(self, bucket: str, measurement: str = "flask_chest") -> set[str]:
        series = self._ask(bucket, f'SHOW TAG KEYS FROM "{measurement}"')
        return {name for each in series for (name,) in each["values"]}

    def _ask(self, bucket: str, question: str) -> list[Any]:
        (result,) = self._call("GET", "/query", params={"db": bucket, "q": question, "epoch": "ns"})["results"]
        found: list[Any] = result.get("series", [])
        return found

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        headers = {"Authorization": f"Token {self.token}"}
        answer = self._session.request(method, self.url + path, headers=headers, timeout=10, **arguments)
        answer.raise_for_status()
        return answer.json()
