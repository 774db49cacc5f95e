"""Partitions in PostgreSQL: a table for each span, attached and detached while others read and write."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import LiteralString

from psycopg import errors

from flask_chest.stores._records import MIN_INTEGER
from flask_chest.stores.postgresql.connections import PostgreSQLConnections
from flask_chest.stores.sql.partitions import (
    BEYOND,
    LATE,
    Kind,
    Layout,
    Partition,
    Partitions,
    Span,
    early_upper,
    kind_of,
    span_name,
)
from flask_chest.stores.sql.tables import Session

_BOUNDS = re.compile(r"FROM \((?:MINVALUE|'(?P<lower>-?\d+)')\) TO \((?:MAXVALUE|'(?P<upper>-?\d+)')\)")
_DROPPED = "flask_chest: dropped by retention"
"""Comment on a partition that is detached to be dropped, by which it is known if nobody came so far."""
_CONCURRENTLY = 140_000
"""Release from which a partition is detached without a lock that others wait for."""
_DETACH_SECONDS = 30.0
"""Seconds to wait for those who still read what is detached."""
_DROP_SECONDS = 1.0
"""Seconds for which others wait, too, where a partition is dropped at once."""


class PostgreSQLPartitions(Partitions[PostgreSQLConnections]):
    """Tables that are made like the parent, and attached: ``PARTITION OF`` would wait for whoever reads.

    There is none for all that has no other: it would be read from end to end for each one that is attached.
    """

    def drop(self, partition: Partition) -> bool:
        """Drop *partition*; return False if others have used it for too long."""
        with self._database.reading() as session:
            release, pending, left = session.release, self._pending(session), self._left(session)
        if release < _CONCURRENTLY:
            return self._drop_at_once(partition)
        parent = self._tables.sql("ALTER TABLE {records} DETACH PARTITION")
        with self._database.outside(statement_seconds=_DETACH_SECONDS) as session:
            try:
                for name in pending:  # by somebody who waited for too long
                    session.change(f'{parent} "{name}" FINALIZE')
                session.change(f"COMMENT ON TABLE \"{partition.name}\" IS '{_DROPPED}'")
                session.change(f'{parent} "{partition.name}" CONCURRENTLY')
            except errors.QueryCanceled:
                return False
            for name in {*pending, *left, partition.name}:
                session.change(f'DROP TABLE IF EXISTS "{name}"')
        return True

    def _drop_at_once(self, partition: Partition) -> bool:
        with self._database.outside(statement_seconds=_DROP_SECONDS) as session:
            try:
                session.change(f'DROP TABLE IF EXISTS "{partition.name}"')
            except errors.QueryCanceled:
                return False
        return True

    @contextmanager
    def _making(self) -> Iterator[Session]:
        with self._database.writing() as session, self._schema.alone(session):
            yield session

    def _layout(self, session: Session) -> Layout | None:
        # Before release 14 none is ever pending, and there is no such column.
        select: LiteralString = """
            SELECT child.relname, pg_get_expr(child.relpartbound, child.oid)
            FROM pg_class AS parent
            LEFT JOIN pg_inherits ON inhparent = parent.oid
                AND coalesce(to_jsonb(pg_inherits) ->> 'inhdetachpending', 'false') = 'false'
            LEFT JOIN pg_class AS child ON child.oid = inhrelid
            WHERE parent.oid = '{records}'::regclass AND parent.relkind = 'p'
        """
        rows = session.rows(self._tables.sql(select))
        if not rows:
            return None
        found = (self._partition(name, bounds) for name, bounds in rows if name is not None)
        return Layout([each for each in found if each is not None], wanted=self._wanted)

    def _partition(self, name: str, bounds: str) -> Partition | None:
        found = _BOUNDS.search(bounds)
        if found is None:
            return None
        return Partition(
            name=name,
            lower=int(found["lower"] or MIN_INTEGER),
            upper=int(found["upper"] or BEYOND),
            # One that somebody made by hand is as good.
            kind=self._kind(name) or "span",
        )

    def _kind(self, name: str) -> Kind | None:
        begin = f"{self._tables.name}_"
        return kind_of(name.removeprefix(begin)) if name.startswith(begin) else None

    def _pending(self, session: Session) -> list[str]:
        select: LiteralString = """
            SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
            WHERE inhparent = '{records}'::regclass AND to_jsonb(pg_inherits) ->> 'inhdetachpending' = 'true'
        """
        return [str(name) for (name,) in session.rows(self._tables.sql(select))]

    def _left(self, session: Session) -> list[str]:
        """Return the tables that were detached, and that nobody came to drop."""
        select: LiteralString = """
            SELECT relname FROM pg_class
            WHERE relkind = 'r' AND NOT relispartition AND pg_table_is_visible(oid)
                AND obj_description(oid, 'pg_class') = ?
        """
        rows = session.rows(self._tables.sql(select), (_DROPPED,))
        return [str(name) for (name,) in rows if self._kind(str(name)) is not None]

    def _statements(self, layout: Layout, missing: Sequence[Span], now_unix_nano: int) -> Iterator[str]:
        there = {each.kind for each in layout.partitions}
        spans = [*(Span(each.lower, each.upper) for each in layout.partitions), *missing]
        lowest = min((lower for lower, _ in spans), default=LATE)
        highest = max((upper for _, upper in spans), default=MIN_INTEGER)
        if "early" not in there:
            upper = min(early_upper(now_unix_nano, layout.by), lowest)
            yield from self._new("early", "MINVALUE", f"'{upper}'")
        if "late" not in there:
            yield from self._new("late", f"'{max(LATE, highest)}'", "MAXVALUE")
        for lower, upper in missing:
            yield from self._new(span_name(lower, layout.by), f"'{lower}'", f"'{upper}'")

    def _new(self, end: str, lower: str, upper: str) -> Iterator[str]:
        parent, name = self._tables.sql("{records}"), f'"{self._tables.name}_{end}"'
        yield f"CREATE TABLE {name} (LIKE {parent} INCLUDING ALL)"
        yield f"ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ({lower}) TO ({upper})"
