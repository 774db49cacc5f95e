"""What takes too long, and what nobody waits for any more, is ended in the database server too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any

import psycopg
import pymysql
import pytest
from pymongo.errors import ExecutionTimeout

from flask_chest.errors import QueryTimeout
from flask_chest.stores.mongodb import MongoDBStore
from flask_chest.stores.mongodb.client import Collections
from flask_chest.stores.mysql import MySQLStore
from flask_chest.stores.mysql.connections import Address
from flask_chest.stores.postgresql import PostgreSQLStore
from flask_chest.stores.sql.tables import Database
from flask_chest.testing.records import make_record
from servers import DatabaseServer, wait_until

_numbers = count()
SECOND = timedelta(seconds=1)
SETTINGS = {
    "postgresql": "SELECT current_setting('statement_timeout'), current_setting('transaction_isolation'),"
    " current_setting('transaction_read_only'), current_setting('lock_timeout')",
    "mysql": "SELECT @@max_execution_time, @@wait_timeout, @@transaction_isolation, @@transaction_read_only",
    "mariadb": "SELECT @@max_statement_time, @@wait_timeout, @@tx_isolation, @@tx_read_only",
}
CHILD = """
import signal, sys
from datetime import timedelta
from flask_chest.stores.{module} import {kind}
def leave(*_):
    raise SystemExit(3)
signal.signal(signal.SIGTERM, leave)
store = {kind}(sys.argv[1], name=sys.argv[2])
with store._database.answering(timeout=None) as session:
    session.rows(sys.argv[3])
"""
GREENLET = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from flask_chest.stores.{module} import {kind}
store = {kind}(sys.argv[1], name=sys.argv[2])
asking = store._database.answering(timeout=None)
try:
    with gevent.Timeout(1), asking as session:
        session.rows(sys.argv[3])
except gevent.Timeout:
    print("given up", flush=True)
with store._database.answering(timeout=None) as session:
    print(session.rows("SELECT 1"), flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Watch:
    """A store on a server, and a look at what the server does."""

    server: DatabaseServer
    store: Any
    ask: Callable[[str], list[tuple[Any, ...]]]
    """Asks the server in a connection of its own."""
    mark: str
    """Stands in the statements of one test."""

    @property
    def database(self) -> Database:
        database: Database = self.store._database
        return database

    @property
    def endless(self) -> str:
        """A statement that takes minutes, and that a server ends with an error and not with an answer."""
        if self.server.scheme == "postgresql":
            return f"SELECT pg_sleep(600) /* {self.mark} */"
        tables = ", ".join(f"information_schema.columns AS {name}" for name in "abc")
        return f"SELECT count(*) FROM {tables} /* {self.mark} */"

    def runs(self) -> bool:
        if self.server.scheme == "postgresql":
            asked = "SELECT query FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
        else:
            asked = "SELECT info FROM information_schema.processlist WHERE id <> connection_id()"
        return any(self.mark in str(statement) for (statement,) in self.ask(asked))

    def run(self, script: str, **arguments: Any) -> subprocess.Popen[str]:
        """Run *script*, which asks the endless question, in a process of its own."""
        kind = kind_of(self.server)
        module = kind.__module__.rpartition(".")[2]
        text = script.format(module=module, kind=kind.__name__)
        command = [sys.executable, "-c", text, self.server.uri, self.store._tables.name, self.endless]
        return subprocess.Popen(command, text=True, **arguments)


def kind_of(server: DatabaseServer) -> Any:
    return PostgreSQLStore if server.scheme == "postgresql" else MySQLStore


def _connect(server: DatabaseServer) -> Any:
    if server.scheme == "postgresql":
        return psycopg.connect(server.uri, autocommit=True)
    parameters: dict[str, Any] = {**Address(server.uri, {}).parameters, "autocommit": True}
    return pymysql.connect(**parameters)


@pytest.fixture(params=["postgresql", "mysql", "mariadb"], scope="module")
def server(request: pytest.FixtureRequest) -> DatabaseServer:
    server: DatabaseServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def watch(server: DatabaseServer) -> Iterator[Watch]:
    name = f"limits_{next(_numbers)}"
    store = kind_of(server)(server.uri, name=name)
    with closing(store), closing(_connect(server)) as admin:
        store.open()

        def ask(sql: str) -> list[tuple[Any, ...]]:
            with closing(admin.cursor()) as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())

        yield Watch(server, store, ask, f"mark of {name}")


def test_limit_leaves_no_work_behind(watch: Watch) -> None:
    with watch.database.answering(timeout=SECOND) as session:
        assert session.rows("SELECT 1") == [(1,)]
        with pytest.raises(QueryTimeout, match="longer than 1 s"):
            session.rows(watch.endless)
        # MariaDB answers a moment before it says that it works on nothing.
        wait_until(lambda: not watch.runs(), seconds=10)
        with pytest.raises(QueryTimeout):  # none of the time is left
            session.rows("SELECT 1")


def test_limit_is_of_all_statements_together(watch: Watch) -> None:
    half = "pg_sleep(0.6)" if watch.server.scheme == "postgresql" else "sleep(0.6)"
    with watch.database.answering(timeout=SECOND) as session:
        session.rows(f"SELECT {half}")
        with pytest.raises(QueryTimeout):
            session.rows(watch.endless)


def test_connection_serves_the_next_one_after_a_limit(watch: Watch) -> None:
    own = "SELECT pg_backend_pid()" if watch.server.scheme == "postgresql" else "SELECT connection_id()"
    with watch.database.answering(timeout=SECOND) as session:
        before = session.rows(own)
        with pytest.raises(QueryTimeout):
            session.rows(watch.endless)
    with watch.database.answering(timeout=None) as session:
        assert session.rows(own) == before
    watch.store.write([make_record()])


def test_answer_without_a_limit_outlasts_the_time_of_a_statement(server: DatabaseServer) -> None:
    name = f"limits_{next(_numbers)}"
    with closing(kind_of(server)(server.uri, name=name, statement_timeout=0.5, lock_timeout=0.5)) as store:
        store.open()
        second = "pg_sleep(2)" if server.scheme == "postgresql" else "sleep(2)"
        with store._database.answering(timeout=None) as session:
            assert len(session.rows(f"SELECT {second}, 1")) == 1
        with store._database.answering(timeout=SECOND * 10) as session:
            ((slept, _),) = session.rows(f"SELECT {second}, 1")
            assert slept in {"", 0}  # 1 would say that it was ended before


def test_answer_sees_one_state_and_changes_nothing(watch: Watch) -> None:
    asked = watch.store._tables.sql("SELECT count(*) FROM {records}")
    with watch.database.answering(timeout=SECOND * 30) as session:
        watch.store.write([make_record()])
        first = session.rows(asked)
        watch.store.write([make_record()])
        assert session.rows(asked) == first
        with pytest.raises((psycopg.Error, pymysql.Error)):
            session.change(watch.store._tables.sql("DELETE FROM {records}"))
    with watch.database.answering(timeout=SECOND * 30) as session:
        assert session.rows(asked) == [(2,)]


class OneConnection:
    """A pool of the app's own with one connection."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self.lent = connect()

    @contextmanager
    def connection(self) -> Iterator[Any]:
        if getattr(self.lent, "closed", False) or not getattr(self.lent, "open", True):
            self.lent = self._connect()
        yield self.lent

    def close(self) -> None:
        if getattr(self.lent, "open", True):  # PyMySQL closes nothing twice
            self.lent.close()


@pytest.fixture
def pool(server: DatabaseServer) -> Iterator[OneConnection]:
    with closing(OneConnection(lambda: _connect(server))) as pool:
        yield pool


@pytest.mark.parametrize("ends", ["in time", "by the limit"])
def test_nothing_stays_set_on_a_connection_of_the_app(watch: Watch, pool: OneConnection, ends: str) -> None:
    first = pool.lent

    def settings() -> Any:
        with closing(pool.lent.cursor()) as cursor:
            cursor.execute(SETTINGS[watch.server.scheme])
            return cursor.fetchall()

    before = settings()
    own = kind_of(watch.server)(pool=pool, name=watch.store._tables.name)
    with closing(own) as store, store._database.answering(timeout=SECOND) as session:
        session.rows("SELECT 1")
        if ends == "by the limit":
            with pytest.raises(QueryTimeout):
                session.rows(watch.endless)
    assert settings() == before
    assert pool.lent is first


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_leaves_no_work_behind(watch: Watch, number: signal.Signals) -> None:
    with watch.run(CHILD, stderr=subprocess.PIPE) as process:
        try:
            wait_until(watch.runs, seconds=60)
            os.kill(process.pid, number)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == (3 if number == signal.SIGTERM else -signal.SIGINT), errors
    wait_until(lambda: not watch.runs(), seconds=10)


def test_time_out_of_gevent_leaves_no_work_behind(watch: Watch) -> None:
    with watch.run(GREENLET, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "given up\n"
            assert process.stdout.readline() == "[(1,)]\n"
            wait_until(lambda: not watch.runs(), seconds=10)  # while the process lives
            process.communicate("", timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0


def test_interrupted_statement_of_the_app_s_only_connection_is_ended(watch: Watch, pool: OneConnection) -> None:
    class Interruption(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with closing(kind_of(watch.server)(pool=pool, name=watch.store._tables.name)) as store:
            signal.setitimer(signal.ITIMER_REAL, 1)
            with pytest.raises(Interruption), store._database.answering(timeout=None) as session:
                session.rows(watch.endless)
            wait_until(lambda: not watch.runs(), seconds=10)
            with store._database.answering(timeout=None) as session:
                assert session.rows("SELECT 1") == [(1,)]
    finally:
        signal.signal(signal.SIGALRM, before)


def _crossed(numbers: int) -> list[dict[str, Any]]:
    """Return a pipeline that counts the pairs of so many *numbers*."""
    crossed: list[dict[str, Any]] = [{"$limit": 1}]
    for name in "ab":
        crossed += [{"$project": {name: {"$range": [0, numbers]}}}, {"$unwind": f"${name}"}]
    return [*crossed, {"$group": {"_id": None, "pairs": {"$sum": 1}}}]


def _active(collections: Collections) -> set[str]:
    """Return what the server works on, by collection."""
    admin = collections.database.client["admin"]
    current = admin.aggregate([{"$currentOp": {"allUsers": True}}])
    return {operation.get("ns", "") for operation in current if operation["active"]}


@pytest.fixture(params=["mongodb", "documentdb"])
def mongodb_collections(request: pytest.FixtureRequest) -> Iterator[Collections]:
    server: DatabaseServer = request.getfixturevalue(request.param)
    with closing(MongoDBStore(server.uri, name=f"limits_{next(_numbers)}")) as store:
        store.open()
        store.write([make_record()])
        collections = store._collections
        if not _active(collections):
            pytest.skip("this server does not tell what it works on, not even that it answers this")
        try:
            collections.records.aggregate(_crossed(300), maxTimeMS=1)
        except ExecutionTimeout:
            yield collections
        else:
            pytest.skip("this server takes no notice of maxTimeMS")


def test_limit_leaves_no_work_behind_in_mongodb(mongodb_collections: Collections) -> None:
    asked = mongodb_collections.records

    def runs() -> bool:
        return asked.full_name in _active(mongodb_collections)

    with ThreadPoolExecutor(1) as threads:
        seen = threads.submit(wait_until, runs, seconds=30)
        limited = mongodb_collections.answering(timeout=SECOND * 3)
        with pytest.raises(QueryTimeout, match="longer than 3 s"), limited:
            asked.aggregate(_crossed(100_000))
        seen.result()
    assert not runs()
