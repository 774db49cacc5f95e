"""Partitions by time: the spans they are for, which there are, and when others are made."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar

from flask_chest._clocks import nanoseconds
from flask_chest._process import PerProcess
from flask_chest.errors import StoreError, StoreUnavailable
from flask_chest.protocols import PartitionBy, PartitionStatus
from flask_chest.stores._records import MAX_INTEGER
from flask_chest.stores.sql.schema import SQLSchema
from flask_chest.stores.sql.tables import Database, Session

logger = logging.getLogger("flask_chest.stores")

_DAY = nanoseconds(timedelta(days=1))
_LENGTHS: dict[PartitionBy, int] = {"day": _DAY, "week": 7 * _DAY}
_BEGINS: dict[PartitionBy, int] = {"day": 0, "week": -3 * _DAY}
"""Where the spans are counted from: weeks begin on Monday, and 1970 did on a Thursday."""
_LETTERS: dict[PartitionBy, str] = {"day": "d", "week": "w"}

AHEAD_NANO = 7 * _DAY
"""Nanoseconds from now up to which there are to be partitions."""
PAST_NANO = 400 * _DAY
"""Nanoseconds before a table was made from which on there may be a partition for each span."""
LATE = 4_102_444_800_000_000_000
"""The year 2100: whatever is dated later is in one partition."""
BEYOND = MAX_INTEGER + 1

_SHOWN = 3
"""Partitions that a message names."""

LOOK_SECONDS = 600.0
"""Seconds after which a process looks at the partitions again, without a need."""
RETRY_SECONDS = 60.0
"""Seconds after which a process tries again to make one that it could not."""

Kind: TypeAlias = Literal["span", "early", "late", "gap"]
"""What a partition is for: a day or a week, all before those, all after, or what nobody has parted yet."""


class PartitionMissing(StoreUnavailable):
    """There is no partition for a record: it was dropped, or never made."""


class Span(NamedTuple):
    """A stretch of time, without its end."""

    lower: int
    upper: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A partition that is there."""

    name: str
    lower: int
    upper: int
    kind: Kind


def span_at(time_unix_nano: int, by: PartitionBy) -> Span:
    """Return the day, or the week, in which the time lies."""
    length, begin = _LENGTHS[by], _BEGINS[by]
    lower = (time_unix_nano - begin) // length * length + begin
    return Span(lower, lower + length)


def span_name(lower: int, by: PartitionBy) -> str:
    """Return the end of the name of the partition for the day, or the week, that begins then."""
    return f"{_LETTERS[by]}{_day(lower):%Y%m%d}"


def gap_name(lower: int) -> str:
    """Return the end of the name of a partition for what nobody has parted yet."""
    return f"g{_day(lower):%Y%m%d}"


def kind_of(name: str) -> Kind | None:
    """Return what the partition is for whose name ends so; ``None`` if it has no name of ours."""
    if name == "early":
        return "early"
    if name == "late":
        return "late"
    if len(name) == len("d20261129") and name[1:].isdecimal():
        if name[0] in _LETTERS.values():
            return "span"
        if name[0] == "g":
            return "gap"
    return None


def _day(time_unix_nano: int) -> date:
    return datetime.fromtimestamp(time_unix_nano // 1_000_000_000, UTC).date()


class Layout:
    """The partitions of a table."""

    def __init__(self, partitions: Iterable[Partition], *, wanted: PartitionBy | None) -> None:
        self.partitions = sorted(partitions, key=lambda each: each.lower)
        """In the order of time; no two overlap."""
        self._lowers = [each.lower for each in self.partitions]
        self._wanted: PartitionBy | None = wanted

    @cached_property
    def by(self) -> PartitionBy:
        """What there is a partition for; before the first, what there is to be one for."""
        for each in reversed(self.partitions):
            if each.kind == "span":
                end = each.name.rpartition("_")[2]
                return "week" if end.startswith(_LETTERS["week"]) else "day"
        return self._wanted or "day"

    def at(self, time_unix_nano: int) -> Partition | None:
        """Return the partition for that time."""
        place = bisect_right(self._lowers, time_unix_nano) - 1
        found = self.partitions[place] if place >= 0 else None
        return found if found is not None and time_unix_nano < found.upper else None

    def takes(self, time_unix_nano: int) -> bool:
        """Return whether a record of that time can be written."""
        return self.at(time_unix_nano) is not None

    def has(self, time_unix_nano: int) -> bool:
        """Return whether there is a partition for that time, which is no gap."""
        found = self.at(time_unix_nano)
        return found is not None and found.kind != "gap"

    def missing(self, times: Iterable[int]) -> list[Span]:
        """Return the spans of *times* for which there is no partition, in order; none overlaps one that is."""
        return sorted({self._free(moment) for moment in times if not self.has(moment)})

    def _free(self, time_unix_nano: int) -> Span:
        lower, upper = span_at(time_unix_nano, self.by)
        for each in self.partitions:
            if each.kind != "gap" and each.upper <= time_unix_nano:
                lower = max(lower, each.upper)
            elif each.kind != "gap" and each.lower > time_unix_nano:
                upper = min(upper, each.lower)
        return Span(lower, upper)

    def ahead(self, now_unix_nano: int) -> Iterator[int]:
        """Yield a time of each span that is to have a partition: yesterday's, today's, and those ahead."""
        length = _LENGTHS[self.by]
        moment = span_at(now_unix_nano, self.by).lower - length
        while moment < now_unix_nano + AHEAD_NANO:
            yield moment
            moment += length

    def until(self, now_unix_nano: int) -> int:
        """Return up to when, from now on, there is a partition for each span."""
        moment = now_unix_nano
        while (found := self.at(moment)) is not None and found.kind == "span":
            moment = found.upper
        return moment

    def reach(self, before_unix_nano: int) -> int:
        """Return the time up to which retention deletes that is to delete what began before.

        What nobody has parted, and the outliers of time, it deletes record by record.
        """
        found = self.at(before_unix_nano)
        if found is None or found.kind != "span":
            return before_unix_nano
        # Where the one before was dropped, MySQL's next one reaches further back.
        return max(found.lower, span_at(before_unix_nano, self.by).lower)

    def droppable(self, reach_unix_nano: int) -> list[Partition]:
        """Return the partitions that hold nothing from that time on; the one for early outliers stays."""
        return [each for each in self.partitions if each.upper <= reach_unix_nano and each.kind != "early"]


class _Known:
    """What one process knows of the partitions."""

    def __init__(self) -> None:
        self.layout: Layout | None = None
        self.look_at = 0.0
        """Time by the monotonic clock at which to look again."""
        self.failed = False
        """Whether something was missing at the last look, and could not be made."""
        self.said: set[str] = set()


D_co = TypeVar("D_co", bound=Database, covariant=True)


class Partitions(ABC, Generic[D_co]):
    """Makes partitions ahead of the records, and drops them; nothing is done on a table that has none.

    The table decides whether there are any: *wanted* is for a new one alone.
    """

    def __init__(self, database: D_co, schema: SQLSchema, *, wanted: PartitionBy | None) -> None:
        self._database = database
        self._schema = schema
        self._tables = schema.tables
        self._wanted: PartitionBy | None = wanted
        self._known = PerProcess(_Known)

    def prepare(self, times: Sequence[int]) -> bool:
        """Make the partitions that records of *times* need; return whether the table has partitions at all.

        Now and then, those ahead are made. What cannot be made is logged, and raises only if there is no other
        partition for one of *times*.
        """
        known = self._known.get()
        layout = known.layout
        due = time.monotonic() >= known.look_at
        if not due and layout is not None:
            due = not all(map(layout.takes if known.failed else layout.has, times))
        if due:
            layout = self._look(known, times)
        return layout is not None

    def look_again(self) -> None:
        """Look at the partitions before the next write."""
        self._known.get().look_at = 0.0

    def make_ahead(self) -> None:
        """Make what is missing, from yesterday's on; what cannot be made is logged."""
        self._look(self._known.get(), ())

    def layout(self) -> Layout | None:
        """Look up the partitions; ``None`` if the table has none."""
        with self._database.reading() as session:
            return self._layout(session)

    def status(self) -> PartitionStatus:
        """Return how the table is partitioned, and how far."""
        with self._database.reading() as session:
            layout, now = self._layout(session), session.now_unix_nano()
        if layout is None:
            return PartitionStatus(wanted=self._wanted)
        return PartitionStatus(
            by=layout.by, wanted=self._wanted, count=len(layout.partitions), until_unix_nano=layout.until(now)
        )

    def sql(self) -> list[str]:
        """Return the statements that make what is missing, for whoever reviews them or may run them."""
        with self._database.reading() as session:
            layout, now = self._layout(session), session.now_unix_nano()
        if layout is None:
            return []
        return list(self._statements(layout, layout.missing(layout.ahead(now)), now))

    @abstractmethod
    def drop(self, partition: Partition) -> bool:
        """Drop *partition*; return False if others have used it for too long."""

    @abstractmethod
    def _layout(self, session: Session) -> Layout | None:
        """Look up the partitions; ``None`` if the table has none."""

    @abstractmethod
    def _making(self) -> AbstractContextManager[Session]:
        """Lend a session in which partitions are made, while no other process makes any."""

    def _check(self, session: Session, layout: Layout, missing: Sequence[Span]) -> None:
        """Raise `StoreUnavailable` if to make what is *missing* would hold up writers for long."""

    @abstractmethod
    def _statements(self, layout: Layout, missing: Sequence[Span], now_unix_nano: int) -> Iterator[str]:
        """Yield the statements that make the partitions for *missing*, and what else *layout* lacks."""

    def _look(self, known: _Known, times: Sequence[int]) -> Layout | None:
        with self._database.reading() as session:
            layout, now = self._layout(session), session.now_unix_nano()
        known.failed = False
        if layout is None and self._wanted is not None:
            self._say(known, f"partition is {self._wanted!r}, but {self._table} has none, and stays so")
        elif layout is not None and self._lacks(layout, times, now):
            try:
                layout = self._make(times) if self._schema.creates else layout
            except StoreError as exc:
                known.failed = True
                self._say(known, f"partitions of {self._table} cannot be made: {exc}")
        if layout is not None and not all(map(layout.takes, times)):
            absent = layout.missing(times)
            known.layout = None
            raise PartitionMissing(
                f"{self._table} has no partition for records of {_days(absent)}, and this process cannot make "
                "it: run flask chest migrate by an app whose role may, or as that role "
                f"{'; '.join(self._statements(layout, absent, now))}"
            )
        known.layout = layout
        known.failed = known.failed or (layout is not None and not self._schema.creates)
        known.look_at = time.monotonic() + (RETRY_SECONDS if known.failed else LOOK_SECONDS)
        return layout

    def _make(self, times: Sequence[int]) -> Layout | None:
        with self._making() as session:
            layout, now = self._layout(session), session.now_unix_nano()
            if layout is None:
                return None
            missing = layout.missing([*times, *layout.ahead(now)])
            self._check(session, layout, missing)
            for statement in self._statements(layout, missing, now):
                session.change(statement)
            return self._layout(session)

    def _lacks(self, layout: Layout, times: Sequence[int], now_unix_nano: int) -> bool:
        missing = layout.missing([*times, *layout.ahead(now_unix_nano)])
        return next(self._statements(layout, missing, now_unix_nano), None) is not None

    @property
    def _table(self) -> str:
        return f"the table {self._tables.name} in {self._schema.place}"

    def _say(self, known: _Known, text: str) -> None:
        if text not in known.said:
            known.said.add(text)
            logger.warning(text)


def early_upper(now_unix_nano: int, by: PartitionBy) -> int:
    """Return up to when a new table has one partition for all."""
    return span_at(now_unix_nano - PAST_NANO, by).lower


def _days(spans: Sequence[Span]) -> str:
    shown = ", ".join(str(_day(each.lower)) for each in spans[:_SHOWN])
    return f"{shown} and later" if len(spans) > _SHOWN else shown
