"""Tasks that one process at a time has, in an SQL database."""

from __future__ import annotations

from datetime import timedelta

from flask_chest._clocks import nanoseconds
from flask_chest.protocols import Leases
from flask_chest.stores._lease_times import is_held
from flask_chest.stores.sql.tables import Database, Tables


class SQLLeases(Leases):
    """One row a task; who changes it has locked it first."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._database = database
        self._tables = tables

    def hold(self, task: str, /, *, owner: str, lease: timedelta) -> bool:
        """Give *task* to *owner* for the time of *lease*, unless another has it."""
        with self._database.writing() as session:
            now = session.now_unix_nano()
            make = self._tables.insert_new(
                "INSERT INTO {leases} (task, owner, until_unix_nano) VALUES (?, ?, ?)", key="task"
            )
            session.change(make, (task, owner, now))
            ((holder, until),) = session.rows(
                self._tables.sql("SELECT owner, until_unix_nano FROM {leases} WHERE task = ?{lock}"), (task,)
            )
            if holder != owner and is_held(until, now, lease=lease):
                return False
            session.change(
                self._tables.sql("UPDATE {leases} SET owner = ?, until_unix_nano = ? WHERE task = ?"),
                (owner, now + nanoseconds(lease), task),
            )
            return True

    def let_go(self, task: str, /, *, owner: str) -> None:
        """Let others have *task* at once, if *owner* has it."""
        with self._database.writing() as session:
            session.change(
                self._tables.sql("UPDATE {leases} SET until_unix_nano = 0 WHERE task = ? AND owner = ?"),
                (task, owner),
            )

    def now_unix_nano(self) -> int:
        """Read the database's clock."""
        with self._database.reading() as session:
            return session.now_unix_nano()
