"""MySQL's and MariaDB's connections: how they are made, what a transaction of ours is, what errors mean."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import ceil
from typing import Any, LiteralString, TypeAlias, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql
from pymysql import err
from pymysql.constants import CR, ER
from pymysql.constants.SERVER_STATUS import SERVER_STATUS_IN_TRANS
from pymysql.cursors import Cursor

from flask_chest.errors import (
    ConfigurationError,
    MissingDriverError,
    RecordRefused,
    StoreError,
    StoreUnavailable,
)
from flask_chest.record import encode_value
from flask_chest.stores._records import Row, in_chunks
from flask_chest.stores._time_limit import TimeLimit
from flask_chest.stores.mysql.variables import names_mariadb, variables_of
from flask_chest.stores.mysql.views import MYSQL_VIEW
from flask_chest.stores.sql.pool import (
    READ_ONLY,
    AppPool,
    Connector,
    GivenPool,
    Lender,
    ServerReadOnly,
    SnapshotLost,
)
from flask_chest.stores.sql.schema import SQLSchema
from flask_chest.stores.sql.server import ServerAddress, ServerConnections, ServerSession
from flask_chest.stores.sql.tables import COLUMNS, MANY_IDS, Dialect, Session, SQLValue, Tables

Connection: TypeAlias = "pymysql.Connection[Any]"
Pool: TypeAlias = AppPool[Connection]


MYSQL = Dialect(
    quote="`",
    mark="%s",
    lock=" FOR UPDATE",
    on_conflict="ON DUPLICATE KEY UPDATE",
    keep="ON DUPLICATE KEY UPDATE {first} = {first}",
    variables=variables_of,
    # Compared as bytes. The name is written as in the variables: MariaDB does not find what its own JSON_QUOTE
    # writes with other digits.
    value=lambda name: ("CAST(JSON_EXTRACT(record.variables, ?) AS BINARY)", (f"$.{encode_value(name)}",)),
    number="CASE WHEN {value} >= '-' AND {value} < ':' THEN CAST(CAST({value} AS CHAR) AS DOUBLE) END",
    written="CAST(JSON_EXTRACT(?, '$') AS BINARY)",
    seconds="duration_ns / 1e9",
    status_class="status_code DIV 100",
    weight="FLOOR(1000000 / CASE WHEN sample_rate < 1e-6 THEN 1e-6 ELSE sample_rate END + 0.5)",
    view=MYSQL_VIEW,
    divide="DIV",
    has_slow_windows=True,
    misjudges_equal=True,
    scan=" USE INDEX ()",
)

_ROOM: LiteralString = "GREATEST(@@max_allowed_packet, @@net_buffer_length) - 2"
"""SQL for the bytes in a statement at most: a longer one ends the connection, over TLS without a word of why."""
KILL_SECONDS = 5
"""Seconds to tell the server that nobody waits for an answer any more."""
_TOO_LONG_STATEMENT = {3024, 1969}
"""MySQL's and MariaDB's code for a statement that took too long."""


DEFAULT_PORT = 3306

_TEXTS = frozenset({"unix_socket", "ssl_ca", "ssl_cert", "ssl_key", "ssl_key_password", "server_public_key"})
_SWITCHES = frozenset({"ssl_disabled", "ssl_verify_cert", "ssl_verify_identity"})
_WORDS = {"true": True, "1": True, "false": False, "0": False}
_COMPLAINT = (
    "db_uri must be like mysql://user:password@host:3306/database; got something else"
    " (in user and password / ? # and @ are written as %2F %3F %23 and %40)"
)


_CHOOSING = ("user", "init_command", "read_default_file", "read_default_group")
"""Parameters that choose the tables beside host, port and database."""


class Address(ServerAddress):
    """PyMySQL's parameters, from a URI and from what was given beside it."""

    def __init__(self, uri: str, given: Mapping[str, object]) -> None:
        self.parameters: dict[str, object] = {**_parse(uri), **given}
        if not (self.parameters.get("database") or self.parameters.get("db")):
            raise ConfigurationError(
                "db_uri names no database; it must be like mysql://user:password@host/database"
            )

    def __str__(self) -> str:
        known = self.parameters
        host = known.get("unix_socket") or f"{known.get('host', 'localhost')}:{known.get('port', DEFAULT_PORT)}"
        return f"{host}/{known.get('database') or known.get('db')}"

    def choosing(self) -> Mapping[str, object]:
        """Return the parameters beside host, port and database that choose the tables."""
        return {name: self.parameters.get(name) for name in _CHOOSING}


class UnknownAddress(ServerAddress):
    """Address of a pool that was given without a URI."""

    def __str__(self) -> str:
        return "pool"

    def choosing(self) -> Mapping[str, object]:
        """Return nothing: no parameter is known."""
        return {}


def _parse(uri: str) -> dict[str, object]:
    if not uri:
        return {}
    # No message quotes a bad URI and no cause is kept: what is wrong may be a password with a slash in it.
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        raise ConfigurationError(_COMPLAINT) from None
    # After the host, an @ is the end of a password that has a slash or a question mark in it.
    odd = parts.fragment or port == 0 or "@" in parts.path + parts.query
    if odd or parts.scheme.partition("+")[0] not in {"mysql", "mariadb"}:
        raise ConfigurationError(_COMPLAINT)
    named = {
        "host": parts.hostname,
        "port": port,
        "user": None if parts.username is None else unquote(parts.username),
        "password": None if parts.password is None else unquote(parts.password),
        "database": unquote(parts.path.removeprefix("/")) or None,
    }
    found: dict[str, object] = {name: value for name, value in named.items() if value is not None}
    return found | dict(_option(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True))


def _option(name: str, value: str) -> tuple[str, object]:
    if name in _TEXTS:
        return name, value
    if name in _SWITCHES and value.lower() in _WORDS:
        return name, _WORDS[value.lower()]
    known = ", ".join(sorted(_TEXTS | _SWITCHES))
    raise ConfigurationError(f"db_uri has the option {name!r}, which is not one of {known} or has no such value")


class _Connection(pymysql.Connection):
    """A connection that reads no certificates where TLS is neither asked for nor required."""

    def _create_ssl_ctx(self, options: Mapping[str, object]) -> ssl.SSLContext:
        # PyMySQL trusts every server then, and loads all that the system trusts: 50 ms for each connection, with
        # the interpreter locked. A release that requires TLS has its own way.
        context: ssl.SSLContext
        if options or vars(self).get("_ssl_required", True):
            context = super()._create_ssl_ctx(options)  # type: ignore[misc]  # private, so its types leave it out
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


class MySQLConnector(Connector[Connection]):
    """Makes connections to one address."""

    def __init__(
        self, address: Address, *, timeout: float, statement_timeout: float, lock_timeout: float
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._statement_timeout = statement_timeout
        self._lock_timeout = lock_timeout
        try:
            self._make(connect=False)  # does no work, but tells wrong parameters where they are set
        except (TypeError, ValueError, NotImplementedError, OSError) as exc:
            raise ConfigurationError(f"PyMySQL does not take the parameters for MySQL {address}: {exc}") from exc

    def connect(self) -> Connection:
        """Make a connection, with settings that do not depend on the server's defaults."""
        try:
            connection = self._make(connect=True)
        except RuntimeError as exc:  # PyMySQL's way to ask for it, for the password exchange of MySQL 8
            raise MissingDriverError("cryptography", extra="mysql") from exc
        except (OSError, ValueError) as exc:  # a certificate that went away, a host that cannot be one
            raise StoreUnavailable(f"MySQL {self._address}: {exc}; {_RUNNING}") from exc
        # Against a network that went dead: else the server's own limits end a statement before. PyMySQL has no
        # public way to change it.
        patience = self._statement_timeout + self._lock_timeout
        vars(connection).update(_read_timeout=patience, _write_timeout=patience)
        try:
            with connection.cursor() as cursor:
                for statement in self._settings(connection):
                    cursor.execute(statement)
        except BaseException:
            self.close(connection)
            raise
        return connection

    def descriptor(self, connection: Connection, /) -> int:
        """Return the descriptor of its socket; below 0 when it is closed."""
        socket = getattr(connection, "_sock", None)  # PyMySQL has no public way to it
        return -1 if socket is None else int(socket.fileno())

    def settle(self, connection: Connection, /) -> bool:
        """Return whether it is open and in no transaction: ours end where they began."""
        status: int = vars(connection).get("server_status", SERVER_STATUS_IN_TRANS)  # which its types leave out
        return bool(connection.open) and not status & SERVER_STATUS_IN_TRANS

    @staticmethod
    def outlives(error: BaseException, /) -> bool:
        """Return whether the server only had a lock, a value or a missing table to complain of."""
        return isinstance(error, err.DataError | err.IntegrityError) or _code(error) in _MISSING | _LOCKED

    def close(self, connection: Connection, /) -> None:
        """Close it."""
        with suppress(err.Error, OSError):
            connection.close()

    def _make(self, *, connect: bool) -> Connection:
        parameters: dict[str, object] = {
            "connect_timeout": max(1, ceil(self._timeout)),
            "read_timeout": max(1, ceil(self._timeout)),  # of the server's greeting
            **self._address.parameters,
            "charset": "utf8mb4",
            "cursorclass": Cursor,
            "autocommit": True,
            "defer_connect": not connect,
        }
        if isinstance(password := parameters.get("password"), str):
            # As the servers read it; PyMySQL makes Latin-1 of it. Environments escape what is no UTF-8.
            parameters["password"] = password.encode(errors="surrogateescape")
        return _Connection(**cast("dict[str, Any]", parameters))

    def _settings(self, connection: Connection) -> Iterator[str]:
        lock_seconds = max(1, ceil(self._lock_timeout))
        milliseconds = max(1, round(self._statement_timeout * 1000))  # 0 is no limit
        level = "REPEATABLE READ" if _replicates_statements(connection) else "READ COMMITTED"
        yield f"SET SESSION TRANSACTION ISOLATION LEVEL {level}"
        # By default a server may cut answers, and refuse updates of all rows, to save people from their mistakes.
        yield (
            f"SET SESSION sql_select_limit = {(1 << 64) - 1}, sql_safe_updates = 0, "
            "sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', "
            f"time_zone = '+00:00', innodb_lock_wait_timeout = {lock_seconds}, lock_wait_timeout = {lock_seconds}"
        )
        if _is_mariadb(connection):
            yield f"SET SESSION max_statement_time = {milliseconds / 1000}"
        else:
            yield f"SET SESSION max_execution_time = {milliseconds}"


def _replicates_statements(connection: Connection) -> bool:
    """Return whether the server writes statements, not rows, into its binary log.

    InnoDB refuses writes on the level READ COMMITTED there. On REPEATABLE READ, too, a transaction of ours sees
    what was committed before it had its lock: it reads nothing before.
    """
    with connection.cursor(Cursor) as cursor:
        cursor.execute("SHOW SESSION VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format')")
        found = dict(cursor.fetchall())
    return found.get("log_bin") == "ON" and found.get("binlog_format") == "STATEMENT"


def _is_mariadb(connection: Connection) -> bool:
    return names_mariadb(str(getattr(connection, "server_version", "")))  # which its types leave out


_MISSING = {ER.NO_SUCH_TABLE, ER.BAD_FIELD_ERROR}
_LOCKED = {ER.LOCK_WAIT_TIMEOUT, ER.LOCK_DEADLOCK, ER.CHECKREAD}
_OPTION = 1290
"""Error code of a statement that an option of the server forbids, as ``read_only`` does."""
_READ_ONLY = {_OPTION, 1792, 1836, 1874}
_STATEMENTS_ONLY = 1665


def _code(error: BaseException) -> int:
    code: object = error.args[0] if isinstance(error, err.Error) and error.args else 0
    return code if isinstance(code, int) else 0


@contextmanager
def _reading(connection: Connection, seconds: float | None) -> Iterator[None]:
    """Let the block wait *seconds* for the server's answer; ``None`` is for as long as that takes."""
    known = vars(connection)
    before = {name: known[name] for name in ("_read_timeout",) if name in known}
    known.update(dict.fromkeys(before, seconds))
    try:
        yield
    finally:
        known.update(before)


_AROUND_TEXTS = 1_000
"""More than the statement, the numbers, quotes and commas around a row's texts take."""


class MySQLSession(ServerSession):
    """A lent connection in its transaction."""

    def __init__(self, connection: Connection) -> None:
        self.position = 0
        self.mariadb = _is_mariadb(connection)
        """Whether the server is MariaDB rather than MySQL, as it said at the beginning."""
        self.room = 0
        """Bytes that a statement may have; 0 until the server was asked."""
        self._cursor = connection.cursor(Cursor)  # those of the app's own pool may give dictionaries

    def rows(self, sql: str, values: Sequence[SQLValue] = (), /) -> list[tuple[Any, ...]]:
        """Fetch all that a SELECT finds."""
        self._cursor.execute(sql, values or None)
        return list(self._cursor.fetchall())

    def change(self, sql: str, values: Sequence[SQLValue] = (), /) -> int:
        """Run another statement; return how many rows it changed."""
        return int(self._cursor.execute(sql, values or None))

    def change_many(self, sql: str, rows: Sequence[Sequence[SQLValue]], /) -> None:
        """Run a statement for each of *rows*, or INSERTs of many of them."""
        if not self.room:
            ((self.room,),) = self.rows(f"SELECT {_ROOM}")
        # A default of its class, by which PyMySQL cuts.
        vars(self._cursor).update(max_stmt_length=min(Cursor.max_stmt_length, self.room))
        self._cursor.executemany(sql, rows)

    def insert(self, tables: Tables, rows: Sequence[Row], /) -> bool:
        """Insert *rows*, many with a statement; return False, with none inserted, if an id is there."""
        statement = tables.sql(
            "INSERT INTO {records} (position, {columns}) VALUES ({many})", many=len(COLUMNS) + 1
        )
        if reasons := self._too_long(statement, rows):
            raise RecordRefused(
                f"{len(reasons)} of {len(rows)} records are longer than the server's max_allowed_packet", reasons
            )
        self.change("SAVEPOINT before_insert")
        try:
            self.change_many(statement, rows)
        except err.IntegrityError as exc:
            if exc.args[0] != ER.DUP_ENTRY:
                raise
            self.change("ROLLBACK TO SAVEPOINT before_insert")
            return False
        return True

    def rows_of(self, tables: Tables, ids: Sequence[str], /) -> list[tuple[Any, ...]]:
        """Fetch the rows of the records that have one of *ids*."""
        found: list[tuple[Any, ...]] = []
        for chunk in in_chunks(ids, MANY_IDS):
            select = tables.sql("SELECT {columns} FROM {records} WHERE id IN ({many})", many=len(chunk))
            found += self.rows(select, chunk)
        return found

    def _too_long(self, statement: str, rows: Sequence[Row]) -> dict[str, str]:
        """Return the ids of the rows that are too long for any statement, with the reasons."""
        reasons: dict[str, str] = {}
        for row in rows:
            # Of a text a character takes four bytes at most, as it is or escaped.
            characters = sum(len(value) for value in row if isinstance(value, str))
            if self.room and 4 * characters + _AROUND_TEXTS > self.room:
                size = len(self._cursor.mogrify(statement, row).encode())
                if size > self.room:
                    reasons[str(row[1])] = (
                        f"as a statement it has {size} bytes, and the server's max_allowed_packet lets pass "
                        f"{self.room}"
                    )
        return reasons

    def now_unix_nano(self) -> int:
        """Return the time by the server's clock."""
        ((now,),) = self.rows("SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED) * 1000")
        return int(now)


class MySQLAnswer(MySQLSession):
    """A session whose statements take no longer together than a limit allows."""

    def __init__(self, connection: Connection, limit: TimeLimit, *, patience: float) -> None:
        super().__init__(connection)
        self._connection = connection
        self._limit = limit
        self._patience = patience

    def rows(self, sql: str, values: Sequence[SQLValue] = (), /) -> list[tuple[Any, ...]]:
        """Fetch all that a SELECT finds."""
        milliseconds = self._limit.milliseconds()
        try:
            # The server ends the statement; this is for a network that went dead.
            with _reading(self._connection, self._patience + milliseconds / 1000 if milliseconds else None):
                if self.mariadb:
                    sql = f"SET STATEMENT max_statement_time = {milliseconds / 1000} FOR {sql}"
                else:
                    # Not as a hint: that must stand behind the SELECT, which need not be the first word.
                    self.change(f"SET SESSION max_execution_time = {milliseconds}")
                return super().rows(sql, values)
        except err.Error as exc:
            if _code(exc) in _TOO_LONG_STATEMENT and self._limit.is_over:
                raise self._limit.exceeded() from exc
            raise
        except BaseException:
            _kill_statement(self._connection)
            raise


def _kill_statement(connection: Connection) -> None:
    """End the statement that *connection* runs; the server would not notice before it sends an answer.

    That takes another connection, and is done on the same object, which has all that one needs: a pool that the
    app gave may have none left.
    """
    # SQLAlchemy's pools lend theirs in a wrapper, whose close means something else.
    connection = getattr(connection, "driver_connection", connection)
    (thread,) = getattr(connection, "server_thread_id", (0,))  # which its types leave out
    with suppress(Exception):  # who interrupted the statement has an exception of their own
        with suppress(err.Error):  # PyMySQL has closed it, unless the statement was just being sent
            connection.close()
        vars(connection).update(connect_timeout=KILL_SECONDS, _read_timeout=KILL_SECONDS)
        connection.connect()
        try:
            with connection.cursor(Cursor) as cursor:
                cursor.execute("KILL QUERY %s", (thread,))
        finally:
            connection.close()


class MySQLConnections(ServerConnections[Connection, MySQLSession]):
    """Lends sessions whose transactions end by themselves when their process is stopped in one."""

    def __init__(self, pool: Lender[Connection], schema: SQLSchema, *, lock_timeout: float) -> None:
        super().__init__(pool, schema)
        self._patience = max(1, ceil(lock_timeout))
        self._trusted = not isinstance(pool, GivenPool)
        """Whether what is lent is known to be in autocommit mode."""

    @contextmanager
    def writing(self) -> Iterator[MySQLSession]:
        """Lend a session in a transaction: committed at the end, rolled back after any exception."""
        with self.reading() as session, self._transaction(session):
            yield session

    @contextmanager
    def recording(self) -> Iterator[MySQLSession]:
        """Lend a session that holds the lock on the position of the last record."""
        with self.writing() as session:
            ((session.position, session.room),) = session.rows(
                self._tables.sql("SELECT position, <room> FROM {schema}{lock}").replace("<room>", _ROOM)
            )
            yield session

    @contextmanager
    def unchecked(self) -> Iterator[MySQLSession]:
        """Lend a session in autocommit mode, whatever tables there are."""
        with self._lent() as connection:
            session = MySQLSession(connection)
            self._look_at_mode(session)
            yield session

    @contextmanager
    def snapshot(self, limit: TimeLimit) -> Iterator[MySQLSession]:
        """Lend a session in a transaction that only reads, and whose statements take no longer than *limit*."""
        with self._lent() as connection:
            session = MySQLAnswer(connection, limit, patience=self._patience)
            self._look_at_mode(session)
            session.change("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")  # of the next one alone
            begin = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
            with self._transaction(session, begin, *() if session.mariadb else ("max_execution_time",)):
                yield session

    @contextmanager
    def altering(self, *, patience: int | None = None) -> Iterator[MySQLSession]:
        """Lend a session for changes to a table, however long they take; for a lock they wait *patience* seconds.

        Without it, they wait for as long as others do.
        """
        with self.reading():
            pass  # looks at the tables
        with self._lent() as connection, _reading(connection, None):
            session = MySQLSession(connection)
            changed = {"lock_wait_timeout": patience or self._patience}
            if session.mariadb:  # it ends all statements that take too long, MySQL those that read
                changed["max_statement_time"] = 0
            limits = (f"@flask_chest_{name} = @@{name}, SESSION {name} = {n}" for name, n in changed.items())
            session.change(f"SET {', '.join(limits)}")
            try:
                yield session
            finally:
                before = (f"SESSION {name} = @flask_chest_{name}" for name in changed)
                session.change(f"SET {', '.join(before)}")

    @contextmanager
    def _lent(self) -> Iterator[Connection]:
        """Lend a connection; what PyMySQL raises comes out as one of our errors."""
        try:
            with self._pool.connection() as connection:
                yield connection
        except err.Error as exc:
            raise self._store_error(exc) from exc

    def _look_at_mode(self, session: Session) -> None:
        if not self._trusted:
            if session.rows("SELECT @@autocommit") != [(1,)]:
                raise ConfigurationError(
                    "pool lends connections that are not in autocommit mode; make them with autocommit=True"
                )
            self._trusted = True

    @contextmanager
    def _transaction(
        self, session: MySQLSession, begin: LiteralString = "BEGIN", *changed: LiteralString
    ) -> Iterator[None]:
        """Begin a transaction, and set the variables that are *changed* in it as before when it ends."""
        kept = ("wait_timeout", *changed)
        before = ", ".join(f"@flask_chest_{name} = @@{name}" for name in kept)
        as_before = "SET " + ", ".join(f"SESSION {name} = @flask_chest_{name}" for name in kept)
        # Who is stopped in a transaction holds up nobody for longer than they wait for a lock: MySQL has no limit
        # for that but the one for idle connections.
        session.change(f"SET {before}, SESSION wait_timeout = {self._patience}")
        session.change(begin)
        try:
            yield
        except BaseException:
            with suppress(err.Error, OSError):
                session.change("ROLLBACK")
                session.change(as_before)
            raise
        session.change("COMMIT")
        session.change(as_before)

    def _store_error(self, exc: err.Error) -> StoreError:
        code = _code(exc)
        said = " ".join(str(exc.args[1] if len(exc.args) > 1 else exc).split()) or type(exc).__name__
        if code in _MISSING:
            return self._tables_changed(said)
        if isinstance(exc, err.DataError | err.IntegrityError) or code == ER.NET_PACKET_TOO_LARGE:
            # Without its words, which may quote a value.
            return RecordRefused(f"{self._place} refused the records ({type(exc).__name__}, error {code})")
        if code == ER.TABLE_DEF_CHANGED:
            return SnapshotLost(f"{self._place}: {said}; try again")
        kind = ServerReadOnly if code in _READ_ONLY else StoreUnavailable
        return kind(f"{self._place}: {said}; {_ADVICE.get(code, 'try again')}")


_GRANT = "grant what docs/mysql.md lists"
_RUNNING = "see whether it runs, and whether its address is right"
_ADVICE: Mapping[int, str] = {
    ER.ACCESS_DENIED_ERROR: "correct the user or the password",
    ER.BAD_DB_ERROR: "create it, or correct the name",
    ER.DBACCESS_DENIED_ERROR: _GRANT,
    ER.TABLEACCESS_DENIED_ERROR: _GRANT,
    ER.COLUMNACCESS_DENIED_ERROR: _GRANT,
    ER.SPECIFIC_ACCESS_DENIED_ERROR: _GRANT,
    ER.CON_COUNT_ERROR: "give the server more connections, then try again",
    ER.LOCK_WAIT_TIMEOUT: "try again, or raise lock_timeout",
    CR.CR_CONN_HOST_ERROR: _RUNNING,
    CR.CR_CONNECTION_ERROR: _RUNNING,
    CR.CR_SERVER_LOST: _RUNNING,
    CR.CR_SERVER_GONE_ERROR: _RUNNING,
    _STATEMENTS_ONLY: "let the connections of the pool use REPEATABLE READ, or set binlog_format to MIXED or ROW",
    **dict.fromkeys(_READ_ONLY, READ_ONLY),
    **dict.fromkeys(_TOO_LONG_STATEMENT, "try again, or raise statement_timeout"),
}
