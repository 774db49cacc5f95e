"""Partitions in MySQL and MariaDB: each ends where the next begins, so a new one is parted from another."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pymysql import err
from pymysql.constants import ER

from flask_chest.errors import StoreUnavailable
from flask_chest.protocols import PartitionBy
from flask_chest.stores._records import MIN_INTEGER
from flask_chest.stores.mysql.connections import MySQLConnections
from flask_chest.stores.sql.partitions import (
    BEYOND,
    LATE,
    Layout,
    Partition,
    Partitions,
    Span,
    early_upper,
    gap_name,
    kind_of,
    span_name,
)
from flask_chest.stores.sql.tables import Session

_MOST_MOVED = 50_000
"""Records in a partition that is parted while others wait, at most."""
_LOCK_SECONDS = 1
"""Seconds to wait for who uses the table; whoever comes meanwhile waits as well, and there is no shorter time."""
_DROP_TRIES = 3
_GONE = 1507
"""Code for a partition that is not there."""


class MySQLPartitions(Partitions[MySQLConnections]):
    """Parts gaps, of which the last reaches up to the year 2100: so there is a partition for every record."""

    def drop(self, partition: Partition) -> bool:
        """Drop *partition*; return False if others have used it for too long."""
        statement = f"{self._tables.sql('ALTER TABLE {records}')} DROP PARTITION `{partition.name}`"
        for _ in range(_DROP_TRIES):
            try:
                with self._database.altering(patience=_LOCK_SECONDS) as session:
                    try:
                        session.change(statement)
                    except err.OperationalError as exc:
                        if exc.args[0] != _GONE:
                            raise
            except StoreUnavailable as exc:
                if not isinstance(exc.__cause__, err.MySQLError) or exc.__cause__.args[0] != ER.LOCK_WAIT_TIMEOUT:
                    raise
                time.sleep(_LOCK_SECONDS)  # for those who waited
            else:
                return True
        return False

    @contextmanager
    def _making(self) -> Iterator[Session]:
        with self._database.altering(patience=_LOCK_SECONDS) as session, self._schema.alone(session):
            yield session

    def _layout(self, session: Session) -> Layout | None:
        select = """
            SELECT partition_name, partition_description FROM information_schema.partitions
            WHERE table_schema = database() AND table_name = '{name}' AND partition_name IS NOT NULL
            ORDER BY partition_ordinal_position
        """
        found: list[Partition] = []
        lower = MIN_INTEGER
        for name, end in session.rows(self._tables.sql(select)):
            upper = BEYOND if str(end).upper() == "MAXVALUE" else int(end)
            # One that somebody made by hand is as good.
            found.append(Partition(name=str(name), lower=lower, upper=upper, kind=kind_of(str(name)) or "span"))
            lower = upper
        return Layout(found, wanted=self._wanted) if found else None

    def _check(self, session: Session, layout: Layout, missing: Sequence[Span]) -> None:
        select = """
            SELECT count(*) FROM (
                SELECT 1 FROM {records} WHERE time_unix_nano >= ? AND time_unix_nano < ? LIMIT ?
            ) AS found
        """
        for gap in self._gaps(layout, missing):
            ((count,),) = session.rows(self._tables.sql(select), (gap.lower, gap.upper, _MOST_MOVED + 1))
            if count > _MOST_MOVED:
                raise StoreUnavailable(
                    f"the partition {gap.name} holds more than {_MOST_MOVED:,} records, which would be moved "
                    "while others wait; run what flask chest migrate --sql prints when they may"
                )

    def _statements(self, layout: Layout, missing: Sequence[Span], now_unix_nano: int) -> Iterator[str]:  # noqa: ARG002 - for databases that make others too
        for gap in self._gaps(layout, missing):
            parts: list[str] = []
            end = gap.lower
            for lower, upper in (each for each in missing if layout.at(each.lower) == gap):
                if end < lower:
                    parts.append(_part(gap_name(end), lower))
                parts.append(_part(span_name(lower, layout.by), upper))
                end = upper
            if end < gap.upper:
                parts.append(_part(gap_name(end), gap.upper))
            records = self._tables.sql("{records}")
            yield f"ALTER TABLE {records} REORGANIZE PARTITION `{gap.name}` INTO ({', '.join(parts)})"

    @staticmethod
    def _gaps(layout: Layout, missing: Sequence[Span]) -> list[Partition]:
        found = (layout.at(each.lower) for each in missing)
        return list(dict.fromkeys(each for each in found if each is not None))


def new_table(now_unix_nano: int, by: PartitionBy) -> str:
    """Return the end of the statement that makes a table with partitions."""
    upper = early_upper(now_unix_nano, by)
    parts = [
        _part("early", upper),
        _part(gap_name(upper), LATE),
        "PARTITION late VALUES LESS THAN MAXVALUE",
    ]
    return f"PARTITION BY RANGE (time_unix_nano) ({', '.join(parts)})"


def _part(name: str, upper: int) -> str:
    return f"PARTITION `{name}` VALUES LESS THAN ({upper})"
