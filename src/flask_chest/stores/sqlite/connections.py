"""The connections of one process to one SQLite file, and what may happen to them: forks and errors."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from weakref import WeakSet

import msgspec

from flask_chest._process import native_rlock
from flask_chest.errors import SchemaError, StoreAbsent, StoreError, StoreUnavailable
from flask_chest.stores._time_limit import TimeLimit
from flask_chest.stores.sql.schema import SQLSchema
from flask_chest.stores.sql.tables import Database, Dialect, Session, SQLValue, by_column
from flask_chest.stores.sqlite.files import OpenFiles, make_file
from flask_chest.stores.sqlite.interruption import run_interruptibly
from flask_chest.stores.sqlite.variables import NUMBER, json_text, of_record
from flask_chest.stores.sqlite.views import SQLITE_VIEW

FORK_PATIENCE = 1.0
"""Seconds that a fork waits for threads that read or write just then, never for one that waits for a lock."""
LOG_PAGES = 8_000
"""Pages in the write-ahead log, 32 MB, from which on they go into the file: SQLite's 1,000 are less than a batch.

Ids are random, so that a batch changes a page for nearly each record. What several batches change goes into the
file once.
"""
LOCK_SECONDS = 0.02
"""Seconds that SQLite itself waits for a lock; longer waits happen here, without a connection."""

_ROWS = 100
"""Rows held at a time while columns are made of them: after 700 new objects, Python looks for garbage."""

logger = logging.getLogger("flask_chest.stores")


_pieces = msgspec.json.Decoder(dict[str, msgspec.Raw])


def add_functions(connection: sqlite3.Connection) -> None:
    """Let statements on *connection* read a variable exactly.

    SQLite's own take not every name, and not every release reads a float to its last digit.
    """
    connection.create_function("flask_chest_value", 2, _value, deterministic=True)
    connection.create_function("flask_chest_number", 1, _number, deterministic=True)


def _value(variables: str, name: str) -> str | None:
    found = _pieces.decode(variables).get(name)
    return None if found is None else bytes(found).decode()


def _number(value: str | None) -> float | None:
    return float(value) if value is not None and value[0] in "-0123456789" else None


SQLITE = Dialect(
    mark="?",
    lock="",  # one transaction writes at a time
    variables=lambda *_: of_record,
    value=json_text,
    number=NUMBER,
    written="?",
    seconds="duration_ns / 1e9",
    status_class="status_code / 100",
    weight="CAST(1000000 / CASE WHEN sample_rate < 1e-6 THEN 1e-6 ELSE sample_rate END + 0.5 AS INTEGER)",
    view=SQLITE_VIEW,
    keeps_found=True,
    has_slow_windows=True,
)


class SQLiteSession(Session):
    """A lent connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def rows(self, sql: str, values: Sequence[SQLValue] = (), /) -> list[tuple[Any, ...]]:
        """Fetch all that a SELECT finds."""
        return self.connection.execute(sql, values).fetchall()

    def columns(self, sql: str, values: Sequence[SQLValue] = (), /) -> list[list[Any]]:
        """Fetch all that a SELECT finds by column; none where it finds nothing."""
        cursor = self.connection.execute(sql, values)
        return by_column(iter(lambda: cursor.fetchmany(_ROWS), []))

    def change(self, sql: str, values: Sequence[SQLValue] = (), /) -> int:
        """Run another statement; return how many rows it changed."""
        return self.connection.execute(sql, values).rowcount

    def change_many(self, sql: str, rows: Sequence[Sequence[SQLValue]], /) -> None:
        """Run a statement for each of *rows*."""
        self.connection.executemany(sql, rows)

    def now_unix_nano(self) -> int:
        """Return the time by the host's clock: processes that share the file share the host."""
        return time.time_ns()


class SQLiteAnswer(SQLiteSession):
    """A session whose statements take no longer together than a limit allows."""

    def __init__(self, connection: sqlite3.Connection, limit: TimeLimit) -> None:
        super().__init__(connection)
        self._limit = limit

    def rows(self, sql: str, values: Sequence[SQLValue] = (), /) -> list[tuple[Any, ...]]:
        """Fetch all that a SELECT finds."""
        rows = super().rows
        return run_interruptibly(self.connection, lambda: rows(sql, values), self._limit)

    def columns(self, sql: str, values: Sequence[SQLValue] = (), /) -> list[list[Any]]:
        """Fetch all that a SELECT finds by column; none where it finds nothing."""
        columns = super().columns
        return run_interruptibly(self.connection, lambda: columns(sql, values), self._limit)


class SQLiteConnections(Database):
    """A pool: idle connections are taken again last in first out; there is one for each concurrent user.

    A fork finds no open connection: SQLite's bookkeeping of file locks is per process and would be inherited,
    but the locks are not. The child would write into a log that its parent deletes when it closes.
    """

    def __init__(self, path: Path, *, schema: SQLSchema, busy_timeout: float) -> None:
        self.path = path
        self.busy_timeout = busy_timeout
        self._schema = schema
        self._idle: list[sqlite3.Connection] = []
        self._in_use: dict[sqlite3.Connection, bool] = {}
        """Whether the connection is to be kept when it comes back."""
        self._users = 0
        """Number of connections in use or being made."""
        self._writing = threading.Lock()
        self._files: OpenFiles | None = None
        """The files that are open; ``None`` while none is."""
        _pools.add(self)

    @contextmanager
    def connection(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        """Lend a connection in autocommit mode; only with *create* may the file be absent or not ours."""
        try:
            connection = self._take(create=create)
            try:
                yield connection
            finally:
                self._give_back(connection)
        except sqlite3.Error as exc:
            raise self._store_error(exc, create=create) from exc

    @contextmanager
    def reading(self) -> Iterator[SQLiteSession]:
        """Lend a session for single statements."""
        with self.connection() as connection:
            yield SQLiteSession(connection)

    @contextmanager
    def answering(self, *, timeout: timedelta | None) -> Iterator[SQLiteSession]:
        """Lend a session for the statements of one answer, on one snapshot; see `Database.answering`."""
        limit = TimeLimit(timeout)
        with self.connection() as connection:
            connection.execute("BEGIN")  # ends when the connection comes back
            yield SQLiteAnswer(connection, limit)

    @contextmanager
    def writing(self) -> Iterator[SQLiteSession]:
        """Lend a session in a transaction: committed at the end, rolled back after any exception."""
        with self._write_turn():
            patience = _Patience(self.busy_timeout)
            while True:
                with self.connection() as connection:
                    if patience.begins(connection):
                        yield SQLiteSession(connection)
                        connection.execute("COMMIT")
                        return
                patience.pause()

    def make(self) -> None:
        """Make the file and its tables where they are missing, or migrate them; again while it is locked."""
        make_file(self.path)
        patience = _Patience(self.busy_timeout)
        while True:
            with self.connection(create=True) as connection:
                try:
                    self._schema.make(SQLiteSession(connection))
                except sqlite3.OperationalError as exc:
                    if patience.ends(exc):
                        raise
                else:
                    return
            patience.pause()

    def empty_log(self) -> None:
        """Move what the write-ahead log holds into the file and empty it, unless others read for long."""
        patience = _Patience(self.busy_timeout)
        while True:
            with self.connection() as connection:
                busy, *_ = connection.execute(_EMPTY_LOG).fetchone()
            if not busy or patience.over:
                return
            patience.pause()

    def recording(self) -> AbstractContextManager[SQLiteSession]:
        """Lend what `writing` lends: SQLite has one writer at a time."""
        return self.writing()

    def close(self) -> None:
        """Close the idle connections now and the others when they come back; later users get new ones."""
        _own_process()
        with _process.turn:
            self._in_use = dict.fromkeys(self._in_use, False)
            self.close_idle()

    def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    def busy(self) -> bool:
        """Return whether a connection is in use or being made."""
        return self._users > 0

    def inherit(self) -> None:
        """Begin in a forked child without the parent's connections."""
        _abandoned.extend(self._in_use)
        self._in_use = {}
        self._users = 0
        self._writing = threading.Lock()
        # There are some only after a fork that called no hooks, as uWSGI's. Left open they do that harm.
        self.close_idle()

    @contextmanager
    def _write_turn(self) -> Iterator[None]:
        # SQLite waits for its write lock by sleeping and trying again: of many threads one may starve.
        _own_process()
        writing = self._writing
        if not writing.acquire(timeout=self.busy_timeout):
            raise StoreUnavailable(f"SQLite {self.path}: other threads write; {_ADVICE[sqlite3.SQLITE_BUSY]}")
        try:
            yield
        finally:
            writing.release()

    def _take(self, *, create: bool) -> sqlite3.Connection:
        _own_process()
        patience = _Patience(self.busy_timeout)
        while True:
            with _process.turn:
                _process.turn.wait_for(lambda: _process.forking == 0)
                self._look_at_file()
                self._users += 1
                idle = self._idle.pop() if self._idle and not create else None
            try:
                connection = idle or self._connect(create=create)
            except BaseException as exc:
                self._leave()
                if patience.ends(exc):
                    raise
            else:
                with _process.turn:
                    self._in_use[connection] = not create  # which was not checked
                return connection
            patience.pause()

    def _look_at_file(self) -> None:
        """Leave a file that somebody removed, moved or replaced: nobody would find what goes there."""
        files = self._files
        if files is None or files.in_place:
            return
        self._files = None
        if not self._idle and not self._in_use:
            return
        if not _absent(self.path):
            logger.warning("SQLite %s was replaced while it was open: records go into the new file", self.path)
        for connection in self._idle[:1]:
            with suppress(sqlite3.Error):  # what was moved keeps all that it had
                connection.execute(_EMPTY_LOG)
        files.remove_logs()
        self._in_use = dict.fromkeys(self._in_use, False)
        self.close_idle()

    def _connect(self, *, create: bool) -> sqlite3.Connection:
        before = OpenFiles.at(self.path)
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode={'rwc' if create else 'rw'}",
            uri=True,
            timeout=min(LOCK_SECONDS, self.busy_timeout),
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            add_functions(connection)
            connection.execute("PRAGMA secure_delete = ON")  # what is forgotten is not left in free pages
            connection.execute("PRAGMA synchronous = FULL")  # in WAL mode less does not survive a power cut
            connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
            if not create:
                self._schema.check(SQLiteSession(connection))
                self._note_files(before)
        except BaseException:
            connection.close()
            raise
        return connection

    def _note_files(self, before: OpenFiles) -> None:
        files = OpenFiles.at(self.path)
        if files.file != before.file:
            raise StoreUnavailable(f"SQLite {self.path} was replaced just now; try again")
        self._files = files

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if connection not in self._in_use:
            return  # the parent's: this thread forked while it had it
        clean = _rolled_back(connection)
        with _process.turn:
            if self._in_use.pop(connection) and clean:
                self._idle.append(connection)
            else:
                connection.close()
        self._leave()

    def _leave(self) -> None:
        with _process.turn:
            self._users -= 1
            _process.turn.notify_all()

    def _store_error(self, exc: sqlite3.Error, *, create: bool) -> StoreError:
        code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        text = str(exc)
        if code == sqlite3.SQLITE_CANTOPEN and _absent(self.path):
            why = _why_not_made(self.path)
            if create or why is not None:
                return StoreUnavailable(f"SQLite {self.path} cannot be made{why or f'; {_PERMISSIONS}'}")
            return StoreAbsent(
                f"SQLite {self.path} does not exist yet; it is made when the first record is written"
            )
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return SchemaError(f"SQLite {self.path}: {text}; choose another file, or restore it from a backup")
        if text in {"user-defined function raised exception", "malformed JSON"}:
            return SchemaError(
                f"SQLite {self.path}: the variables of a record are not a JSON object; correct or delete its row"
            )
        if text.startswith("no such "):
            return SchemaError(f"SQLite {self.path}: {text}; another program changed the tables of this chest")
        return StoreUnavailable(f"SQLite {self.path}: {text}; {_ADVICE.get(code, 'try again')}")


def _why_not_made(path: Path) -> str | None:
    there = next(place for place in path.parents if not _absent(place))
    if not there.is_dir():
        return f", since {there} is not a folder; choose another path"
    if path.is_symlink() and not path.resolve().parent.is_dir():
        return ", since it is a link into a folder that does not exist; make that, or choose another path"
    return None if os.access(there, os.W_OK | os.X_OK) else f"; {_PERMISSIONS}"


def _absent(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # a folder on the way may not be entered
        return False
    return False


class _Patience:
    """How long something is tried again that finds the file locked.

    Not SQLite's own wait: with a connection in its hands, that would hold up a fork.
    """

    LONGEST_PAUSE = 0.02

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._pause = 0.001

    @property
    def over(self) -> bool:
        """Whether it was tried for long enough."""
        return time.monotonic() >= self._deadline

    def ends(self, error: BaseException) -> bool:
        """Return whether *error* is to be raised: it is no lock, or it was tried for long enough."""
        code = error.sqlite_errorcode if isinstance(error, sqlite3.OperationalError) else 0
        return code & 0xFF != sqlite3.SQLITE_BUSY or self.over

    def begins(self, connection: sqlite3.Connection) -> bool:
        """Take SQLite's one write lock, so that no later statement fails for want of it; False: try again."""
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as exc:
            if self.ends(exc):
                raise
            return False
        return True

    def pause(self) -> None:
        """Wait a little."""
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, self.LONGEST_PAUSE)


def _rolled_back(connection: sqlite3.Connection) -> bool:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        return False
    return True


_EMPTY_LOG = "PRAGMA wal_checkpoint(TRUNCATE)"
_PERMISSIONS = "check the permissions of the file and of its folder"
_ADVICE = {
    sqlite3.SQLITE_BUSY: "try again, or raise busy_timeout",
    sqlite3.SQLITE_LOCKED: "try again, or raise busy_timeout",
    sqlite3.SQLITE_FULL: "make room on the disk, then try again",
    sqlite3.SQLITE_IOERR: "check the disk, then try again",
    sqlite3.SQLITE_READONLY: _PERMISSIONS,
    sqlite3.SQLITE_CANTOPEN: _PERMISSIONS,
    sqlite3.SQLITE_PERM: _PERMISSIONS,
}


class _Process:
    """What must differ between a process and its forked child."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        # Not gevent's: among the writers of several chests one waited for ever for its turn.
        self.turn = threading.Condition(native_rlock())
        self.forking = 0
        self.pid = os.getpid()


_process = _Process()
_pools: WeakSet[SQLiteConnections] = WeakSet()
_abandoned: list[sqlite3.Connection] = []
"""Connections in use in the parent when it forked: never touched, and kept so that they are not finalised."""


def _own_process() -> None:
    # uWSGI forks without Python's hooks. The lock may be held by a thread that does not exist here.
    if _process.pid != os.getpid():
        _process.begin()
        for pool in list(_pools):
            pool.inherit()


def _before_fork() -> None:
    _own_process()
    _process.turn.acquire()
    _process.forking += 1
    pools = list(_pools)
    _process.turn.wait_for(lambda: not any(pool.busy() for pool in pools), FORK_PATIENCE)
    for pool in pools:
        pool.close_idle()


def _after_fork_in_parent() -> None:
    _process.forking -= 1
    _process.turn.notify_all()
    _process.turn.release()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_own_process)
