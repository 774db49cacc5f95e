"""What a page works with: its parameters, the chest that it asks, and the addresses that it links to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol, TypeAlias, TypeVar

import msgspec
from werkzeug.datastructures import MultiDict
from werkzeug.routing import MapAdapter

from flask_chest.aggregates import Answer, Column, Measure, Variable
from flask_chest.errors import ConfigurationError, QueryTimeout, StoreAbsent
from flask_chest.extension import aggregation
from flask_chest.extension.chest import FlaskChest
from flask_chest.extension.spans import Every
from flask_chest.extension.state import ChestState
from flask_chest.record import DEFAULT_TOP, Query, Record

LIMIT_SECONDS = 2.0
"""Seconds that the questions of a page may take together."""
LEAST_SECONDS = 0.05
"""Seconds for which no question is begun."""
MAX_BREAKDOWNS = 3
MAX_LENGTH = 8_192
"""Characters of a parameter's value."""

T = TypeVar("T")
Parameters: TypeAlias = Mapping[str, str | Sequence[str] | None]
"""Parameters of an address; those that are ``None`` or empty are left out."""


class Refusal(Exception):
    """The page is not shown; the message says why, and what to do."""

    def __init__(self, status: int, title: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.title = title
        self.retry_after = retry_after


class Shown(Protocol):
    """What a page shows, as HTML by its template and as JSON."""

    @property
    def template(self) -> str:
        """File name of the template."""
        ...

    def as_json(self) -> object:
        """Return what is encoded as the page's JSON."""
        ...


class Parameter:
    """The parameters of an address, each looked at once by its name."""

    def __init__(self, given: MultiDict[str, str]) -> None:
        self._given = {name: [value for value in given.getlist(name) if value] for name in given}
        for name, values in self._given.items():
            if any(len(value) > MAX_LENGTH for value in values):
                raise ConfigurationError(f"{name} is longer than {MAX_LENGTH:,} characters")

    def one(self, name: str, default: str | None = None) -> str | None:
        """Take the value of *name*; an empty one, as of a form, is none."""
        values = self._given.pop(name, [])
        if len(values) > 1:
            raise ConfigurationError(f"{name} is given {len(values)} times, and can be given once")
        return values[0] if values else default

    def several(self, name: str) -> list[str]:
        """Take the values of *name*, which may be given several times."""
        return self._given.pop(name, [])

    def flag(self, name: str) -> bool:
        """Take *name*, which is ``1`` or absent."""
        if (value := self.one(name)) not in (None, "1"):
            raise ConfigurationError(f"{name} must be 1 or left out, got {value!r}")
        return value is not None

    def rest(self) -> dict[str, list[str]]:
        """Take all that nobody has taken."""
        rest, self._given = self._given, {}
        return {name: values for name, values in rest.items() if values}

    def check_taken(self) -> None:
        """Raise `ConfigurationError` if something was given that no part of the page has taken."""
        if unknown := sorted(self._given):
            raise ConfigurationError(f"the page has no parameter {unknown[0]!r}")


@dataclass(frozen=True, slots=True)
class Links:
    """Makes addresses within the viewer, wherever it is mounted."""

    adapter: MapAdapter
    blueprint: str
    outer: Mapping[str, str] = field(default_factory=dict)
    """Values of variables in the blueprint's prefix."""

    def to(self, endpoint: str, /, parameters: Parameters | None = None, **path: str) -> str:
        """Return the address of the page *endpoint*."""
        given = {name: value for name, value in (parameters or {}).items() if value}
        return self.adapter.build(f"{self.blueprint}.{endpoint}", {**self.outer, **given, **path})


@dataclass(frozen=True, slots=True)
class Ask:
    """What one page may ask."""

    chest: FlaskChest
    given: Parameter
    path: Mapping[str, str]
    links: Links
    now_unix_nano: int = field(default_factory=time.time_ns)
    _began: float = field(default_factory=time.monotonic)

    @property
    def state(self) -> ChestState:
        """What the chest is on its app."""
        return self.chest._state

    def time_left(self) -> timedelta:
        """Return the time that is left for questions of the page; raise `QueryTimeout` if it is too little."""
        left = LIMIT_SECONDS - (time.monotonic() - self._began)
        if left < LEAST_SECONDS:
            raise QueryTimeout(timedelta(seconds=LIMIT_SECONDS))
        return timedelta(seconds=left)

    @property
    def indexed(self) -> tuple[str, ...]:
        """Variables that are declared to have an index."""
        return self.state.derived().indexed

    @property
    def breakdowns(self) -> tuple[str, ...]:
        """Variables by whose values it is told apart who is concerned: those with an index, and of few values."""
        fields = [field for each in self.state.derived().views for field in each.fields]
        few = [field.name for field in fields if field.kind in {"bool", "text"} and not field.indexed]
        return tuple(dict.fromkeys([*self.indexed, *few]))[:MAX_BREAKDOWNS]

    @property
    def numbers(self) -> tuple[str, ...]:
        """Declared variables that are numbers, of which something can be measured."""
        fields = [field for each in self.state.derived().views for field in each.fields]
        return tuple(dict.fromkeys(field.name for field in fields if field.kind in {"int", "float"}))

    @property
    def units(self) -> dict[str, str]:
        """Unit of each declared variable that has one."""
        return self.state.derived().units

    @property
    def milliseconds(self) -> float:
        """How long the page has been in the making."""
        return (time.monotonic() - self._began) * 1_000

    def records(self, query: Query) -> Iterator[Record]:
        """Yield what the store finds now: records that this process has just made may not be among them."""
        with suppress(StoreAbsent):  # nothing is kept yet
            yield from self.state.here.store.query(query, timeout=self.time_left())

    def aggregate(
        self,
        *measures: Measure[object],
        query: Query,
        by: Sequence[Column | Variable] = (),
        every: Every | None = None,
        top: int = DEFAULT_TOP,
        share: float = 1.0,
    ) -> Answer:
        """Return what *measures* give for the records that match *query*, which says since when where *every* is.

        Raise `QueryTimeout` after a *share* of the time that is left to the page.
        """
        asked = aggregation.aggregate_query(measures, query=query, by=by, every=every, top=top)
        return aggregation.ask(self.state.here.store, asked, timeout=self.time_left() * share)

    def within_limit(self, question: Callable[[], T]) -> T | None:
        """Return the answer to a *question*, or ``None`` if it would take longer than the page may."""
        try:
            return question()
        except QueryTimeout:
            return None

    def page_of_records(
        self, query: Query, *, before: tuple[int, str] | None, size: int
    ) -> tuple[list[Record], bool]:
        """Return the *size* newest records that come *before* a time and id, and whether there are more."""
        if before is None:
            found = list(self.records(msgspec.structs.replace(query, limit=size + 1)))
            return found[:size], len(found) > size
        time_unix_nano, record_id = before
        until = time_unix_nano + 1
        if query.until_unix_nano is not None:
            until = min(until, query.until_unix_nano)
        wanted = size + 1
        while True:  # records of one time may come before it and are asked for again; mostly it is the one
            asked = msgspec.structs.replace(query, until_unix_nano=until, limit=wanted + 8)
            found = list(self.records(asked))
            older = [each for each in found if (each.time_unix_nano, each.id) < (time_unix_nano, record_id)]
            if len(older) > size or len(found) < wanted + 8:
                return older[:size], len(older) > size
            wanted *= 4
