"""PostgreSQL's connections: how they are made, what a transaction of ours is, and what its errors mean."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property, partial
from typing import Any, LiteralString, TypeAlias, cast

import psycopg
from psycopg import conninfo, errors
from psycopg.rows import tuple_row
from psycopg.types.string import TextLoader

from flask_chest.errors import (
    ConfigurationError,
    RecordRefused,
    StoreError,
    StoreUnavailable,
)
from flask_chest.stores._records import Row
from flask_chest.stores._time_limit import TimeLimit
from flask_chest.stores.postgresql.variables import of_record
from flask_chest.stores.postgresql.views import POSTGRESQL_VIEW
from flask_chest.stores.sql.narrowing import Variables
from flask_chest.stores.sql.partitions import PartitionMissing
from flask_chest.stores.sql.pool import READ_ONLY, AppPool, Connector, Lender, ServerReadOnly
from flask_chest.stores.sql.schema import SQLSchema
from flask_chest.stores.sql.server import ServerAddress, ServerConnections, ServerSession
from flask_chest.stores.sql.tables import Dialect, Session, SQLValue, Tables

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"
Pool: TypeAlias = AppPool[Connection]
"""The part of ``psycopg_pool.ConnectionPool`` that is used."""


def _variables(session: Session, _: Tables) -> Variables:
    encoding = session.encoding if isinstance(session, PostgreSQLSession) else "UTF8"
    return partial(of_record, encoding=encoding)


# Of an escaped NUL, which the functions that read JSON refuse, another escape is made meanwhile that no text
# holds, once that of the backslash is one of which no other can be a part.
_VALUE: LiteralString = r"""
    CASE
        WHEN strpos(record.variables::text, '\u0000') = 0 THEN (record.variables -> ?::text)::text
        ELSE replace(replace(
            (
                replace(replace(record.variables::text, '\\', '\u005c'), '\u0000', '\ufdd0')::json -> ?::text
            )::text,
        '\ufdd0', '\u0000'), '\u005c', '\\')
    END COLLATE "C"
"""

POSTGRESQL = Dialect(
    mark="%s",
    lock=" FOR UPDATE",
    variables=_variables,
    value=lambda name: (_VALUE, (name, name)),
    number="CASE WHEN {value} >= '-' AND {value} < ':' THEN {value}::double precision END",
    written='?::text COLLATE "C"',
    seconds="duration_ns / 1e9::double precision",
    status_class="status_code / 100",
    # Nearly all records count for themselves, and a division for each is half of the time of a count.
    weight="""
        CASE
            WHEN sample_rate = 1 THEN 1000000
            ELSE floor(1000000 / CASE WHEN sample_rate < 1e-6 THEN 1e-6 ELSE sample_rate END + 0.5)::bigint
        END
    """,
    view=POSTGRESQL_VIEW,
    once=" OFFSET 0",  # a limit would keep several processes from reading the table together
    percentiles="percentile_disc(ARRAY[{fractions}]::double precision[]) WITHIN GROUP (ORDER BY {number})",
    has_grouping_sets=True,
    # It takes spans of time and bins of durations for as many groups as there are records, and would sort those,
    # on the disk if they are many. A sort that is needed all the same looks so costly then that it is compiled.
    by_hash="SET LOCAL enable_sort = off; SET LOCAL jit = off",
    # It takes reading a variable to cost nothing, and would have one process do that for all of them.
    by_rank="SET LOCAL parallel_tuple_cost = 0.01",
    reached="width_bucket({number}, ARRAY[{bounds}])",
)

CANCEL_SECONDS = 5.0
"""Seconds to tell the server that nobody waits for an answer any more."""

_ROWS_OF = "SELECT {columns} FROM {records} WHERE id = ANY(?::text[])"
_BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL jit = off; SET LOCAL plan_cache_mode = force_generic_plan"
_COPY = "COPY {records} (position, {columns}) FROM STDIN"

_TCP: Mapping[str, int] = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Options of TCP with which a network that went dead is noticed within a minute."""


_CHOOSING: Mapping[str, str] = {
    "service": "PGSERVICE",
    "servicefile": "PGSERVICEFILE",
    "hostaddr": "PGHOSTADDR",
    "user": "PGUSER",
    "options": "PGOPTIONS",
}
"""Parameters that choose the tables beside host, port and database, with libpq's variables for them."""


class Address(ServerAddress):
    """Where the server is, as the user said it: a URI, parameters of libpq, or both."""

    def __init__(self, uri: str, parameters: Mapping[str, str | int | None]) -> None:
        try:
            self._given = conninfo.conninfo_to_dict(uri, **parameters)
        except psycopg.Error:
            # Neither quoted nor kept as the cause: it may hold the password.
            raise ConfigurationError(
                "db_uri must be like postgresql://user:password@host:5432/database; got something else"
            ) from None

    def __str__(self) -> str:
        known = {**self._given}
        host = known.get("host") or known.get("hostaddr") or os.environ.get("PGHOST") or "localhost"
        port = known.get("port") or os.environ.get("PGPORT") or 5432
        user = known.get("user") or os.environ.get("PGUSER") or ""
        return f"{host}:{port}/{known.get('dbname') or os.environ.get('PGDATABASE') or user}"

    def choosing(self) -> Mapping[str, object]:
        """Return the parameters beside host, port and database that choose the schema of the tables."""
        return {name: self._given.get(name) or os.environ.get(env) for name, env in _CHOOSING.items()}

    @property
    def said(self) -> bool:
        """Whether any parameter was given."""
        return bool(self._given)

    def connect(self, timeout: float) -> Connection:
        """Make a connection that keeps nothing of ours, as a pooler between asks for."""
        defaults: dict[str, object] = {
            **_TCP,
            "connect_timeout": max(2, round(timeout)),  # libpq takes no less
            "application_name": "flask_chest",
            "client_encoding": "utf8",
        }
        parameters = {**defaults, **self._given}
        return psycopg.connect(**cast("dict[str, Any]", parameters), autocommit=True, prepare_threshold=None)


class PoolAddress(ServerAddress):
    """Where a pool connects to, which psycopg_pool's tell: journals of two databases must not be one."""

    def __init__(self, pool: Pool, uri: str, parameters: Mapping[str, str | int | None]) -> None:
        self._pool = pool
        self._otherwise = Address(uri, parameters)

    def __str__(self) -> str:
        return str(self._address)

    def choosing(self) -> Mapping[str, object]:
        """Return what else chooses the schema, and what was given beside a pool whose function may set it."""
        if self._address is self._otherwise or not self._otherwise.said:
            return self._address.choosing()
        said = {"place": str(self._otherwise), **self._otherwise.choosing()}
        return {**self._address.choosing(), **{f"beside: {name}": value for name, value in said.items()}}

    @cached_property
    def _address(self) -> Address:
        try:
            given, arguments = (_value_of(getattr(self._pool, name, None)) for name in ("conninfo", "kwargs"))
            said = conninfo.conninfo_to_dict(given if isinstance(given, str) else "")
            if isinstance(arguments, Mapping):
                said |= {name: value for name, value in arguments.items() if name in _TOLD_BY_POOLS}
            return Address("", said) if said else self._otherwise
        except Exception:  # noqa: BLE001 - the app's own function may raise anything
            return self._otherwise


_TOLD_BY_POOLS = {"host", "port", "dbname", *_CHOOSING}


def _value_of(argument: object) -> object:
    """Return the value of a pool's *argument*; psycopg_pool takes functions too, and asks them each time."""
    return argument() if callable(argument) else argument


class PostgreSQLConnector(Connector[Connection]):
    """Makes connections to one address."""

    def __init__(self, address: Address, *, timeout: float) -> None:
        self._address = address
        self._timeout = timeout

    def connect(self) -> Connection:
        """Make a connection."""
        return self._address.connect(self._timeout)

    def descriptor(self, connection: Connection, /) -> int:
        """Return the descriptor of its socket; below 0 when it is closed."""
        return -1 if connection.closed else connection.fileno()

    def settle(self, connection: Connection, /) -> bool:
        """Return whether it is open and in no transaction: ours end where they began."""
        return not connection.closed and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE

    @staticmethod
    def outlives(error: BaseException, /) -> bool:
        """Return whether the server only had a lock, a value or a missing table to complain of."""
        return isinstance(error, _MISSING | _LOCKED) or _is_of_a_value(error)

    def close(self, connection: Connection, /) -> None:
        """Close it."""
        connection.close()


_MISSING = errors.UndefinedTable | errors.UndefinedColumn
_LOCKED = errors.LockNotAvailable | errors.DeadlockDetected | errors.SerializationFailure


def _is_of_a_value(error: BaseException) -> bool:
    if isinstance(error, psycopg.OperationalError):
        # What is beyond the server's limits, as a text that no index takes; psycopg counts it as its trouble.
        return (error.sqlstate or "").startswith("54")
    return isinstance(error, psycopg.DataError | psycopg.IntegrityError)


class PostgreSQLSession(ServerSession):
    """A lent connection in its transaction."""

    def __init__(self, connection: Connection) -> None:
        self.position = 0
        self._connection = connection
        self._cursor = connection.cursor(row_factory=tuple_row)  # an app's pool may lend others
        # Of this cursor alone: the connection may be the app's. The text is decoded as on every other store.
        self._cursor.adapters.register_loader("json", TextLoader)

    @property
    def encoding(self) -> str:
        """The encoding of the database."""
        return self._connection.info.parameter_status("server_encoding") or ""

    @property
    def release(self) -> int:
        """The release of the server, 150003 for 15.3."""
        return self._connection.info.server_version

    def rows(self, sql: str, values: Sequence[SQLValue] = (), /) -> list[tuple[Any, ...]]:
        """Fetch all that a SELECT finds."""
        return self._cursor.execute(sql.encode(), values or None).fetchall()

    def change(self, sql: str, values: Sequence[SQLValue] = (), /) -> int:
        """Run another statement; return how many rows it changed."""
        return self._cursor.execute(sql.encode(), values or None).rowcount

    def change_many(self, sql: str, rows: Sequence[Sequence[SQLValue]], /) -> None:
        """Run a statement for each of *rows*."""
        self._cursor.executemany(sql.encode(), rows)

    def insert(self, tables: Tables, rows: Sequence[Row], /) -> bool:
        """Copy *rows* into the table; return False, with none inserted, if an id is there."""
        try:
            # A savepoint: after an error within it, the transaction goes on.
            with self._connection.transaction(), self._cursor.copy(tables.sql(_COPY).encode()) as copy:
                for row in rows:
                    copy.write_row(row)
        except errors.UniqueViolation:
            return False
        except errors.CheckViolation as exc:  # there is no other check
            raise PartitionMissing("there is no partition for one of the records") from exc
        except psycopg.DataError as exc:
            raise _refusal(rows, exc) from exc
        return True

    def rows_of(self, tables: Tables, ids: Sequence[str], /) -> list[tuple[Any, ...]]:
        """Fetch the rows of the records that have one of *ids*."""
        # As one value, which is not looked at, and by the index alone: to plan for a thousand ids in each of many
        # partitions takes longer than to look for them, and the server would read small ones from end to end.
        self.change(_BY_INDEX)
        select = tables.sql(_ROWS_OF)
        return self._cursor.execute(select.encode(), ([each for each in ids if "\0" not in each],)).fetchall()

    def now_unix_nano(self) -> int:
        """Return the time by the server's clock."""
        ((now,),) = self.rows("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000")
        return int(now)


class PostgreSQLAnswer(PostgreSQLSession):
    """A session whose statements take no longer together than a limit allows."""

    def __init__(self, connection: Connection, limit: TimeLimit) -> None:
        super().__init__(connection)
        self._limit = limit

    def rows(self, sql: str, values: Sequence[SQLValue] = (), /) -> list[tuple[Any, ...]]:
        """Fetch all that a SELECT finds."""
        self.change(f"SET LOCAL statement_timeout = {self._limit.milliseconds()}")
        try:
            return super().rows(sql, values)
        except errors.QueryCanceled as exc:
            if self._limit.is_over:
                raise self._limit.exceeded() from exc
            raise  # somebody else's doing


class PostgreSQLConnections(ServerConnections[Connection, PostgreSQLSession]):
    """Lends sessions in transactions that set all they need by SET LOCAL, which a pooler between allows."""

    def __init__(
        self,
        pool: Lender[Connection],
        schema: SQLSchema,
        *,
        statement_timeout: float,
        lock_timeout: float,
    ) -> None:
        super().__init__(pool, schema)
        # 0 is no limit.
        statement_ms, self._lock_ms = (
            max(1, round(seconds * 1000)) for seconds in (statement_timeout, lock_timeout)
        )
        # Who is stopped between statements holds up nobody for longer than they wait for a lock.
        always = f"""
            SET LOCAL lock_timeout = {self._lock_ms};
            SET LOCAL idle_in_transaction_session_timeout = {self._lock_ms};
            SET LOCAL TimeZone = 'UTC'
        """
        # Who waited for a lock must see what was committed meanwhile; a role may have another level by default.
        self._settings = f"""
            SET LOCAL transaction_isolation = 'read committed';
            SET LOCAL statement_timeout = {statement_ms};
            SET LOCAL synchronous_commit = on;
            {always}
        """
        self._snapshot_settings = f"""
            SET LOCAL transaction_isolation = 'repeatable read';
            SET LOCAL transaction_read_only = on;
            {always}
        """

    def writing(self) -> AbstractContextManager[PostgreSQLSession]:
        """Lend a session in a transaction, as all are: committed at the end, rolled back after any exception."""
        return self.reading()

    @contextmanager
    def recording(self) -> Iterator[PostgreSQLSession]:
        """Lend a session that holds the lock on the position of the last record."""
        try:
            with self.writing() as session:
                ((session.position,),) = session.rows(self._tables.sql("SELECT position FROM {schema}{lock}"))
                yield session
        except StoreUnavailable as exc:
            if isinstance(exc.__cause__, errors.LockNotAvailable):
                self._end_stopped_copies()
            raise

    @contextmanager
    def unchecked(self) -> Iterator[PostgreSQLSession]:
        """Lend a session in a transaction, whatever tables there are."""
        with self._transaction(self._settings) as connection:
            yield PostgreSQLSession(connection)

    @contextmanager
    def snapshot(self, limit: TimeLimit) -> Iterator[PostgreSQLSession]:
        """Lend a session in a transaction that only reads, and whose statements take no longer than *limit*."""
        with self._transaction(self._snapshot_settings) as connection, _cancelled(connection):
            yield PostgreSQLAnswer(connection, limit)

    @contextmanager
    def _transaction(self, settings: str) -> Iterator[Connection]:
        try:
            with self._pool.connection() as connection, connection.transaction():
                connection.execute(settings.encode())
                yield connection
        except psycopg.Error as exc:
            raise self._store_error(exc) from exc

    @contextmanager
    def outside(self, *, statement_seconds: float = 0) -> Iterator[PostgreSQLSession]:
        """Lend a session outside of a transaction; by default a statement takes as long as it takes."""
        with self.reading():
            pass  # looks at the tables
        try:
            with (
                self._pool.connection() as connection,
                _autocommitted(connection),
                _limited(connection, statement_seconds),
            ):
                yield PostgreSQLSession(connection)
        except psycopg.Error as exc:
            raise self._store_error(exc) from exc

    def _end_stopped_copies(self) -> None:
        """End the writers that hold the lock in a COPY whose rest does not come: no limit of the server does."""
        with suppress(StoreError), self.unchecked() as session:  # the caller has an error of its own to tell
            session.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND usename = current_user"
                " AND state = 'active' AND wait_event = 'ClientRead' AND starts_with(%s, query)"
                " AND query_start < clock_timestamp() - %s * interval '1 millisecond'",
                (self._tables.sql(_COPY), self._lock_ms),
            )

    def _store_error(self, exc: psycopg.Error) -> StoreError:
        state = exc.sqlstate or ""
        if isinstance(exc, _MISSING):
            return self._tables_changed(_said(exc))
        if _is_of_a_value(exc):
            # Without its words, which may quote a value.
            return RecordRefused(f"{self._place} refused the records ({type(exc).__name__}, SQLSTATE {state})")
        kind = ServerReadOnly if isinstance(exc, errors.ReadOnlySqlTransaction) else StoreUnavailable
        return kind(f"{self._place}: {_said(exc)}; {_advice(state, str(exc))}")


@contextmanager
def _cancelled(connection: Connection) -> Iterator[None]:
    """End the statement, in the server too, in whose midst an exception ends the block."""
    try:
        yield
    except BaseException:
        # psycopg does so itself for Ctrl-C, and not for what gevent throws into a greenlet.
        if connection.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=CANCEL_SECONDS)
            connection.close()  # its answer was not read
        raise


@contextmanager
def _autocommitted(connection: Connection) -> Iterator[None]:
    """Begin no transaction in the block; a connection of the app's own pool may do so by itself."""
    if connection.autocommit:
        yield
        return
    connection.autocommit = True
    try:
        yield
    finally:
        if not connection.closed:
            connection.autocommit = False


@contextmanager
def _limited(connection: Connection, statement_seconds: float) -> Iterator[None]:
    """Set this limit alone in the block; SET LOCAL is for transactions, and a pooler may keep a setting."""
    session = PostgreSQLSession(connection)
    wanted = {"statement_timeout": f"{round(statement_seconds * 1000)}", "lock_timeout": "0"}
    before = {name: session.rows("SELECT current_setting(%s)", (name,))[0][0] for name in wanted}
    limits = {name: value for name, value in before.items() if value != wanted[name]}
    try:
        for name in limits:
            session.rows("SELECT set_config(%s, %s, false)", (name, wanted[name]))
        yield
    finally:
        try:
            for name, value in limits.items():
                session.rows("SELECT set_config(%s, %s, false)", (name, value))
        except psycopg.Error:
            connection.close()  # so that nobody gets it without its limits


def _refusal(rows: Sequence[Row], error: psycopg.DataError) -> RecordRefused:
    reasons = {
        str(row[1]): "one of its texts holds a NUL, which PostgreSQL does not keep"
        for row in rows
        if any(isinstance(value, str) and "\0" in value for value in row)
    }
    return RecordRefused(f"PostgreSQL refused the records ({type(error).__name__})", reasons)


def _advice(state: str, text: str) -> str:
    # Of a connection that failed libpq gives the words alone.
    found = (advice for prefix, advice in _BY_STATE.items() if state.startswith(prefix))
    if not state:
        found = (advice for words, advice in _BY_WORDS.items() if words in text)
    return next(found, "try again" if state else "see whether it runs, and whether its address is right")


_PASSWORD = "correct the user or the password"  # noqa: S105 - advice
_NAME = "create it, or correct the name"
_BY_STATE = {
    "25006": READ_ONLY,
    "28": _PASSWORD,
    "3D000": _NAME,
    "42501": "grant what docs/postgresql.md lists",
    "3F000": "create a schema, or correct search_path",
    "55P03": "try again, or raise lock_timeout",
    "57014": "try again, or raise statement_timeout",
    "53": "give the server more room or connections, then try again",
}
_BY_WORDS = {
    "password authentication failed": _PASSWORD,
    "no password supplied": _PASSWORD,
    "does not exist": _NAME,
}


def _said(exc: psycopg.Error) -> str:
    """Return the server's own words, which quote names and no values in these cases, in one line."""
    text = exc.diag.message_primary or str(exc)
    return " ".join(text.split()) or type(exc).__name__
