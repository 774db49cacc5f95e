"""The forgetting half of `ClickHouseStore`: retention and erasure, and that what is deleted stays deleted.

Retention notes the time before which all is deleted, every statement goes by it, and days that lie before it are
dropped as a whole. What is forgotten is noted first and deleted then. Who writes reads the notes before and
after: a record that slips in between is found by one of the two.
"""
# ruff: noqa: S608 - all that comes from outside is a literal

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from flask_chest._clocks import MAX_SKEW_NANO
from flask_chest._process import PerProcess
from flask_chest.protocols import CountsDropped, CutOff, Erasure, Retention
from flask_chest.record import Query, Record
from flask_chest.stores._deletions import (
    CUT_OFF,
    NOTE_LIFE_NANO,
    Dropped,
    Notes,
    Shape,
    cut_off_from,
    encode_shape,
    forgotten,
    new_secret,
    notes_of,
    spared,
)
from flask_chest.stores._records import MIN_INTEGER, in_chunks
from flask_chest.stores.clickhouse.client import LATEST, LITTLE, NOW, Database
from flask_chest.stores.clickhouse.conditions import conditions_of
from flask_chest.stores.clickhouse.rows import COLUMNS, record_of
from flask_chest.stores.clickhouse.schema import DAY_NANO, ClickHousePart, ClickHouseSchema
from flask_chest.stores.clickhouse.text import listed, literal

MANY_IDS = 10_000
"""Ids in one statement: a replicated table keeps it in less than a megabyte."""
_LOOKED_UP = 1_000

_NOTE = "kind, query, secret, before_unix_nano, count"
"""The columns of a note, which is read with FINAL: there are few of them."""


class ClickHouseDeletion(ClickHousePart, Retention, Erasure, CountsDropped):
    """Notes what is deleted, in a table of which rows of one key are added up."""

    def __init__(self, database: Database, schema: ClickHouseSchema) -> None:
        super().__init__(database, schema)
        self._dropped = Dropped()
        self._known: PerProcess[Notes | None] = PerProcess(lambda: None)
        """The notes as this process has read them last: who writes reads them again afterwards."""

    @property
    def dropped(self) -> int:
        """Records that this process wrote and that were left out, as they were deleted before they came."""
        return self._dropped.count

    def cut_off(self) -> CutOff | None:
        """Return up to when retention has deleted; ``None`` if it never has."""
        self._schema.check()
        ((before, dropped, last),) = self._database.rows(
            f"SELECT maxOrNull(before_unix_nano), sum(dropped), max(dropped_unix_nano)"
            f" FROM {self._database.deletions} WHERE kind = {literal(CUT_OFF)}"
        )
        if before is None or before == MIN_INTEGER:
            return None
        return CutOff(
            before_unix_nano=int(before),
            dropped=int(dropped),
            last_dropped_unix_nano=None if last == MIN_INTEGER else int(last),
        )

    def prune(self, before_unix_nano: int, /, *, limit: int, keep_unexported: bool = True) -> int:  # noqa: ARG002 - nothing is exported from here
        """Delete the oldest records that began before that time, at most *limit*; return their number.

        More only where several began in the nanosecond in which the last of them did.
        """
        self._schema.check()
        database = self._database
        latest = database.now_unix_nano() + MAX_SKEW_NANO
        before = min(before_unix_nano, latest)
        found = database.rows(
            f"SELECT DISTINCT time_unix_nano, id FROM {database.records}"
            f" WHERE time_unix_nano >= {database.cut_off} AND time_unix_nano < {before}"
            f" ORDER BY time_unix_nano LIMIT {limit} WITH TIES"
        )
        cut_off = before if len(found) < limit else int(found[-1][0]) + 1
        noted = self._notes().cut_off_unix_nano
        if noted is not None and noted > latest:  # by a clock that was ahead
            self._mutate(database.deletions, f"kind = {literal(CUT_OFF)} AND before_unix_nano > {latest}")
            noted = None
        if noted is None or noted < cut_off:
            self._add_note(kind=CUT_OFF, before_unix_nano=cut_off)
        self._drop_days(cut_off)
        # What was forgotten before that is cut off now.
        self._mutate(database.forgotten, f"before_unix_nano < {cut_off}")
        self._mutate(database.deletions, f"before_unix_nano < {cut_off} AND kind != {literal(CUT_OFF)}")
        return len(found)

    def boundary(self, newest: int, /) -> int | None:
        """Return the time before which all but *newest* records began; ``None`` if there are no more."""
        self._schema.check()
        found = self._database.rows(
            f"SELECT DISTINCT time_unix_nano, id FROM {self._database.records}"
            f" WHERE time_unix_nano >= {self._database.cut_off} AND time_unix_nano <= {LATEST}"
            f" ORDER BY time_unix_nano DESC, id DESC LIMIT 1 OFFSET {newest}"
        )
        return int(found[0][0]) + 1 if found else None

    def forget(self, query: Query, /) -> int:
        """Delete every record that matches, from the disk too; return their number.

        After an error some may be left: they are not taken again, and are deleted by the next call.
        """
        self._schema.check()
        everything = msgspec.structs.replace(query, limit=None)
        self._note(everything)
        return self._delete(self._versions_of(everything))

    def _versions_of(self, query: Query) -> list[tuple[int, str]]:
        """Return time and id of all that matches, of what nobody sees any more too."""
        database, asked = self._database, conditions_of(query)
        where = " AND ".join(each.sql for each in asked) or "1"
        if all(each.decides for each in asked):
            found = database.rows(f"SELECT DISTINCT time_unix_nano, id FROM {database.records} WHERE {where}")
            return [(int(moment), record_id) for moment, record_id in found]
        rows = database.rows(f"SELECT {', '.join(COLUMNS)} FROM {database.records} WHERE {where}")
        records = filter(query.matches, map(record_of, rows))
        return sorted({(record.time_unix_nano, record.id) for record in records})

    def _note(self, query: Query) -> None:
        """Note that what matches *query* is forgotten, and delete the notes that are too old to matter."""
        database = self._database
        now, newest = database.rows(f"SELECT {NOW}, (SELECT maxOrNull(time_unix_nano) FROM {database.records})")[
            0
        ]
        newest = now if newest is None else newest
        before = max(now, newest) + MAX_SKEW_NANO
        # By the records too: a clock that is ahead ends no note.
        self._mutate(database.forgotten, f"noted_unix_nano < {min(now, newest) - NOTE_LIFE_NANO}")
        shape = Shape.of(query)
        # Two may make a kind at once, each with a secret of its own: then there are two of them.
        kinds = [kind for kind in self._notes().kinds if kind.shape == shape]
        secret = kinds[0].secret if kinds else new_secret()
        digest = shape.of_query(query, secret)
        database.run(f"INSERT INTO {database.forgotten} VALUES ({literal(digest)}, {before}, {now})")
        # Only now: who has read the count after writing records finds the digest.
        self._add_note(
            kind=shape.key,
            secret=secret,
            query=encode_shape(shape).decode(),
            before_unix_nano=before,
            count=1,
        )

    def _add_note(
        self,
        *,
        kind: str,
        secret: str = "",
        query: str = "",
        before_unix_nano: int = MIN_INTEGER,
        dropped: int = 0,
        dropped_unix_nano: int = MIN_INTEGER,
        count: int = 0,
    ) -> None:
        values = (kind, secret, query, before_unix_nano, dropped, dropped_unix_nano, count)
        self._database.run(f"INSERT INTO {self._database.deletions} VALUES ({listed(values)})")
        self._known.set(None)

    def _notes(self) -> Notes:
        found = self._database.rows(f"SELECT {_NOTE} FROM {self._database.deletions} FINAL", settings=LITTLE)
        # A note without a time counts what was left out, and no more.
        notes = notes_of(note for note in sorted(found) if note[3] != MIN_INTEGER)
        self._known.set(notes)
        return notes

    def _look_up(self, digests: Sequence[str]) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for chunk in in_chunks(digests, _LOOKED_UP):
            rows = self._database.rows(
                f"SELECT digest, max(before_unix_nano) FROM {self._database.forgotten}"
                f" WHERE digest IN ({listed(chunk)}) GROUP BY digest"
            )
            found |= {digest: int(before) for digest, before in rows}
        return found

    def _spared(self, records: Sequence[Record], notes: Notes) -> Sequence[Record]:
        """Leave out of *records* what was deleted, by *notes*."""
        left = spared(
            records,
            notes,
            latest_cut_off=lambda: self._database.now_unix_nano() + MAX_SKEW_NANO,
            look_up=self._look_up,
        )
        if late := cut_off_from(records, left, notes):
            known = self._known.get()
            self._add_note(kind=CUT_OFF, dropped=late, dropped_unix_nano=self._database.now_unix_nano())
            self._known.set(known)
        return left

    def _delete_late(self, records: Sequence[Record], notes: Notes) -> None:
        """Delete those of *records* that *notes* name; what is older than the cut-off nobody sees."""
        gone = forgotten(records, notes.kinds, look_up=self._look_up)
        self._delete([(record.time_unix_nano, record.id) for record in records if record.id in gone])

    def _delete(self, found: Sequence[tuple[int, str]]) -> int:
        """Delete the records with these times and ids, and return how many anybody saw."""
        database, seen = self._database, 0
        for chunk in in_chunks(found, MANY_IDS):
            keys = ", ".join(f"({moment}, {literal(record_id)})" for moment, record_id in chunk)
            these = f"(time_unix_nano, id) IN ({keys})"
            ((there, visible),) = database.rows(
                f"SELECT count(), countIf(time_unix_nano >= {database.cut_off})"
                f" FROM (SELECT DISTINCT time_unix_nano, id FROM {database.records} WHERE {these})"
            )
            if there:
                self._mutate(database.records, these)
            seen += int(visible)
        return seen

    def _drop_days(self, cut_off: int) -> None:
        """Drop the partitions in which all began before *cut_off*."""
        database = self._database
        rows = database.rows(
            f"SELECT DISTINCT partition FROM system.parts WHERE active AND {database.of_records}"
        )
        for day in sorted(int(partition) for (partition,) in rows):
            # Division is towards zero, so a day before 1970 ends with its first moment.
            end = (day + 1) * DAY_NANO if day >= 0 else day * DAY_NANO + 1
            if end <= cut_off:
                database.run(f"{self._alter} DROP PARTITION {day}")

    def _mutate(self, table: str, where: str) -> None:
        """Delete from *table* what meets *where*, and wait until it is gone."""
        database = self._database
        if not database.rows(f"SELECT 1 FROM {table} WHERE {where} LIMIT 1"):
            return
        database.run(f"ALTER TABLE {table}{database.on_cluster} DELETE WHERE {where}")
        database.await_mutations(table)
