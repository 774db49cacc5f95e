"""A planned switch from a database server to its replica, under load, and back: is all kept once, and soon?

The primary is made read-only and stays up, the replica catches up and is promoted, and then the address that the
app knows leads there: a TCP relay, which leaves open connections with the server that they lead to. One store has
connections of its own, another one the app's pool.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from queue import LifoQueue
from typing import Any, Protocol, Self

import psycopg
import pymysql
from benchmarks.engines import DatabaseServer, Place, Relay, database, require_engine
from flask import Flask, g
from psycopg_pool import ConnectionPool
from testcontainers.core.network import Network

from flask_chest import FlaskChest
from flask_chest.decorator import flask_chest
from flask_chest.protocols import Store
from flask_chest.record import Query
from flask_chest.stores.mysql import MySQLStore
from flask_chest.stores.mysql.connections import Address
from flask_chest.stores.postgresql import PostgreSQLStore

SHORT_SECONDS = 5.0
"""A store that was away for so long takes all again within `AFTER_SHORT_SECONDS`, else `AFTER_LONG_SECONDS`."""
AFTER_SHORT_SECONDS = 10.0
AFTER_LONG_SECONDS = 35.0
PATIENCE = 60.0
CONNECTIONS = 4


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="planned_switch")
    parser.add_argument("--engine", choices=sorted(PAIRS), action="append", help="both if none")
    parser.add_argument("--rate", type=float, default=200.0, metavar="N", help="requests a second to each app")
    parser.add_argument("--away", type=float, nargs="+", default=[3.0, 12.0], metavar="SECONDS")
    parser.add_argument("--small", action="store_true", help="away for 3 s only, with 25 requests a second")
    options = parser.parse_args(argv)
    if options.small:
        options.rate, options.away = 25.0, [3.0]
    figures: dict[str, float] = {}
    for engine in options.engine or PAIRS:
        require_engine(engine)
        with PAIRS[engine]() as pair:
            figures |= switch_there_and_back(engine, pair, options.away, rate=options.rate)
    return figures


class Pair(Protocol):
    """A server, and one that replicates it."""

    primary: DatabaseServer

    def retire(self) -> None:
        """Let the primary take no more writes, and wait until the replica has all of them."""

    def promote(self) -> None:
        """Make the replica the primary; the former one stays up."""

    def follow(self) -> None:
        """Let the former primary, or one in its place, replicate the new one."""

    def store(self, uri: str, name: str) -> Store: ...

    def pool(self, uri: str) -> AbstractContextManager[Any]:
        """Open a pool as an app has it."""

    def pooled(self, pool: Any, uri: str, name: str) -> Store: ...


def switch_there_and_back(engine: str, pair: Pair, pauses: Sequence[float], *, rate: float) -> dict[str, float]:
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        relay = stack.enter_context(Relay.to(pair.primary.address))
        uri = pair.primary.uri_with(address=relay.address)
        pool = stack.enter_context(pair.pool(uri))
        makers = {"own": lambda: pair.store(uri, "own"), "pooled": lambda: pair.pooled(pool, uri, "pooled")}
        apps = [stack.enter_context(App.serving(name, make, rate=rate)) for name, make in makers.items()]
        for away in pauses:
            for way in ("there", "back"):
                wait_until(lambda: all(app.stored(pair) for app in apps))
                began = time.monotonic()
                pair.retire()
                time.sleep(max(0.0, began + away - time.monotonic()))
                pair.promote()
                relay.target = pair.primary.address
                switched = time.monotonic()
                gone = switched - began
                took = {app.name: seconds for app, seconds in zip(apps, all_stored(apps, pair), strict=True)}
                print(f"{engine} {way}: away for {gone:.1f} s, then all stored after", told(took), flush=True)
                bound = AFTER_SHORT_SECONDS if gone <= SHORT_SECONDS else AFTER_LONG_SECONDS
                if max(took.values()) > bound:
                    raise SystemExit(f"{engine}: not all was stored within {bound:g} s of the switch")
                figures |= {f"{engine}_{way}_{away:g}_{name}_s": seconds for name, seconds in took.items()}
                pair.follow()
        for app in apps:
            app.end(pair)
            figures[f"{engine}_{app.name}_records"] = app.answered
    return figures


class App:
    """An app under load, whose requests are numbered."""

    def __init__(self, name: str, make_store: Callable[[], Store], *, folder: str, rate: float) -> None:
        self.name = name
        self.answered = 0
        app = Flask(name)
        app.config["CHEST_JOURNAL_DIR"] = folder
        self._chest = FlaskChest(app, store=make_store)

        @app.route("/<int:number>")
        @flask_chest(tracked_vars=["number"])
        def view(number: int) -> str:
            g.number = number
            return "done"

        self._client = app.test_client()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._ask, args=(1 / rate,))

    @classmethod
    @contextmanager
    def serving(cls, name: str, make_store: Callable[[], Store], *, rate: float) -> Iterator[Self]:
        with tempfile.TemporaryDirectory() as folder:
            app = cls(name, make_store, folder=folder, rate=rate)
            app._thread.start()
            try:
                yield app
            finally:
                app._stop()
                app._chest.close()

    def stored(self, pair: Pair, *, count: int = 1) -> bool:
        """Tell whether the primary has so many records."""
        with closing(pair.store(pair.primary.uri, self.name)) as store:
            try:
                return store.status().records >= count
            except Exception:  # noqa: BLE001 - the first record makes the tables
                return False

    def end(self, pair: Pair) -> None:
        """Stop asking; exit unless each request is recorded once."""
        self._stop()
        if not self._chest.flush(PATIENCE):
            raise SystemExit(f"{self.name}: records wait for {PATIENCE:g} s after the end")
        with closing(pair.store(pair.primary.uri, self.name)) as store:
            numbers = sorted(int(str(record.variables["number"])) for record in store.query(Query(limit=None)))
        if numbers != list(range(self.answered)):
            kept = f"{len(numbers)} records of {len(set(numbers))} requests"
            raise SystemExit(f"{self.name}: {self.answered} requests were answered, and there are {kept}")
        print(f"{self.name}: {self.answered} requests, each recorded once", flush=True)

    def _ask(self, pause: float) -> None:
        while not self._stopping.wait(pause):
            assert self._client.get(f"/{self.answered}").text == "done"
            self.answered += 1

    def _stop(self) -> None:
        self._stopping.set()
        self._thread.join()


def all_stored(apps: Sequence[App], pair: Pair) -> list[float]:
    """Wait until what was answered by now is stored; give the seconds for each app."""
    began = time.monotonic()
    answered = {app: app.answered for app in apps}
    took: dict[App, float] = {}
    while len(took) < len(apps) and time.monotonic() - began < PATIENCE:
        for app in apps:
            if app not in took and app.stored(pair, count=answered[app]):
                took[app] = time.monotonic() - began
        time.sleep(0.05)
    return [took.get(app, PATIENCE) for app in apps]


def told(took: Mapping[str, float]) -> str:
    return ", ".join(f"{seconds:.2f} s ({name})" for name, seconds in took.items())


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {PATIENCE:g} s in vain")
        time.sleep(0.05)


class PostgreSQLPair(Pair):
    """A primary and a streaming replica, made of its base backup; a former primary makes room for a new one."""

    def __init__(self, stack: ExitStack) -> None:
        self._network = stack.enter_context(Network())
        self._stack = stack
        self._running = stack.enter_context(ExitStack())
        self.primary = self._running.enter_context(database("postgresql", place=Place(self._network, "server0")))
        self._number = 0
        self._let_replicate()
        self._replica = self._begin_replica()

    def _let_replicate(self) -> None:
        line = "host replication all all scram-sha-256"
        self.primary.server.container.exec(["bash", "-c", f'echo "{line}" >> "$PGDATA/pg_hba.conf"'])
        self._ask(self.primary, "SELECT pg_reload_conf()")

    def _begin_replica(self) -> DatabaseServer:
        source = f"server{self._number}"
        self._number += 1
        copy = (
            f'PGPASSWORD={self.primary.password} pg_basebackup -h {source} -U {self.primary.user} -D "$PGDATA" -R'
        )
        script = f'rm -rf "$PGDATA"/* && {copy} -c fast && exec docker-entrypoint.sh postgres'
        self._next = ExitStack()
        self._stack.push(self._next)
        place = Place(self._network, f"server{self._number}")
        return self._next.enter_context(database("postgresql", ["bash", "-c", script], place=place))

    def retire(self) -> None:
        self._ask(self.primary, "ALTER SYSTEM SET default_transaction_read_only = on")
        self._ask(self.primary, "SELECT pg_reload_conf()")
        time.sleep(0.2)  # who began a transaction before it heard of that
        wait_until(
            lambda: not self._ask(self.primary, "SELECT 1 FROM pg_stat_activity WHERE backend_xid IS NOT NULL")
        )
        ((written,),) = self._ask(self.primary, "SELECT pg_current_wal_lsn()::text")
        wait_until(
            lambda: self._ask(self._replica, f"SELECT pg_last_wal_replay_lsn() >= '{written}'") == [(True,)]
        )

    def promote(self) -> None:
        self._ask(self._replica, "SELECT pg_promote()")
        self._former, self._running = self._running, self._next
        self.primary = self._replica

    def follow(self) -> None:
        self._former.close()
        self._replica = self._begin_replica()

    def store(self, uri: str, name: str) -> Store:
        return PostgreSQLStore(uri, name=name)

    def pool(self, uri: str) -> AbstractContextManager[Any]:
        return ConnectionPool(uri, min_size=CONNECTIONS, open=False)

    def pooled(self, pool: Any, uri: str, name: str) -> Store:  # noqa: ARG002 - which the pool tells
        return PostgreSQLStore(pool=pool, name=name)

    def _ask(self, server: DatabaseServer, sql: str) -> list[tuple[Any, ...]]:
        with closing(psycopg.connect(server.uri, autocommit=True)) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []


class MySQLPair(Pair):
    """Two servers that know each other's transactions by their global ids."""

    def __init__(self, stack: ExitStack) -> None:
        network = stack.enter_context(Network())
        servers = []
        for number in (1, 2):
            command = f"--server-id={number} --log-bin --gtid-mode=ON --enforce-gtid-consistency=ON"
            place = Place(network, f"server{number}")
            servers.append(stack.enter_context(database("mysql", command, place=place)))
        self.primary, self._replica = servers
        self._names = {server.address: f"server{number}" for number, server in enumerate(servers, 1)}
        for server in servers:
            try:
                self._ask(server, "RESET BINARY LOGS AND GTIDS")  # both made their database themselves
            except pymysql.ProgrammingError:  # of release 8.3 and earlier
                self._ask(server, "RESET MASTER")
        self.follow()

    def retire(self) -> None:
        self._ask(self.primary, "SET GLOBAL super_read_only = ON")
        ((written,),) = self._ask(self.primary, "SELECT @@GLOBAL.gtid_executed")
        written = written.replace("\n", "")
        assert self._ask(self._replica, f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{written}', {PATIENCE:.0f})") == (
            (0,),
        )

    def promote(self) -> None:
        for statement in ("STOP REPLICA", "RESET REPLICA ALL", "SET GLOBAL read_only = OFF"):
            self._ask(self._replica, statement)
        self.primary, self._replica = self._replica, self.primary

    def follow(self) -> None:
        source = self._names[self.primary.address]
        self._ask(
            self._replica,
            f"CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{source}', SOURCE_USER = 'root',"
            f" SOURCE_PASSWORD = '{self.primary.password}', SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1",
        )
        self._ask(self._replica, "START REPLICA")
        self._ask(self._replica, "SET GLOBAL super_read_only = ON")

    def store(self, uri: str, name: str) -> Store:
        return MySQLStore(uri, name=name)

    def pool(self, uri: str) -> AbstractContextManager[Any]:
        return closing(MySQLPool(uri))

    def pooled(self, pool: Any, uri: str, name: str) -> Store:
        return MySQLStore(uri, pool=pool, name=name)

    def _ask(self, server: DatabaseServer, sql: str) -> Any:
        with closing(connect(server.uri)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()


class MySQLPool:
    """As an app may have it: what comes back closed is replaced when it is lent."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._idle: LifoQueue[pymysql.Connection[Any]] = LifoQueue()
        for _ in range(CONNECTIONS):
            self._idle.put(connect(uri))

    @contextmanager
    def connection(self) -> Iterator[pymysql.Connection[Any]]:
        connection = self._idle.get()
        try:
            if not connection.open:
                connection = connect(self._uri)
            yield connection
        finally:
            self._idle.put(connection)

    def close(self) -> None:
        while not self._idle.empty():
            connection = self._idle.get()
            if connection.open:
                connection.close()


def connect(uri: str) -> pymysql.Connection[Any]:
    parameters: dict[str, Any] = {**Address(uri, {}).parameters, "autocommit": True}
    return pymysql.connect(**parameters)


@contextmanager
def postgresql_pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        yield PostgreSQLPair(stack)


@contextmanager
def mysql_pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        yield MySQLPair(stack)


PAIRS: Mapping[str, Callable[[], AbstractContextManager[Pair]]] = {
    "postgresql": postgresql_pair,
    "mysql": mysql_pair,
}
