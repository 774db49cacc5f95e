"""What was deleted for good: a journal that is replayed later must not bring it back.

No value of what was forgotten is kept, but a keyed digest, by which a record that comes later is recognised.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Self

import msgspec

from flask_chest._clocks import nanoseconds
from flask_chest._process import PerProcess
from flask_chest.record import COLUMN_FILTERS, Condition, Query, Record

CUT_OFF = "cut-off"
"""Kind of the note about what retention deleted; the other kinds are the keys of shapes."""
NOTE_LIFE_NANO = nanoseconds(timedelta(days=366))
"""Nanoseconds for which it is remembered what was forgotten: no journal waits for that long."""


class Shape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The names, times and conditions that a query asks for, without the values."""

    columns: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    conditions: tuple[tuple[str, Condition], ...] = ()
    """Conditions of the query as they were asked, bounds included."""
    status_class: int | None = None
    errors: bool = False
    since_unix_nano: int | None = None
    until_unix_nano: int | None = None

    @classmethod
    def of(cls, query: Query) -> Self:
        """Make the shape of *query*."""
        return cls(
            columns=tuple(name for name in COLUMN_FILTERS if getattr(query, name) is not None),
            variables=tuple(sorted(query.where)),
            conditions=query.conditions,
            status_class=query.status_class,
            errors=query.errors,
            since_unix_nano=query.since_unix_nano,
            until_unix_nano=query.until_unix_nano,
        )

    @property
    def key(self) -> str:
        """A text of 64 characters that no other shape has."""
        return sha256(encode_shape(self)).hexdigest()

    def of_query(self, query: Query, secret: str) -> str:
        """Return the digest of the values that *query* asks for."""
        return _digest(
            secret, [*(getattr(query, name) for name in self.columns), *map(query.where.get, self.variables)]
        )

    def of_record(self, record: Record, secret: str) -> str | None:
        """Return the digest of the query of this shape that matches *record*; ``None`` if none matches."""
        since, until, variables = self.since_unix_nano, self.until_unix_nano, record.variables
        if (since is not None and record.time_unix_nano < since) or (
            until is not None and record.time_unix_nano >= until
        ):
            return None
        if self.status_class not in (None, record.status_code // 100) or (self.errors and not record.is_error):
            return None
        if not all(name in variables for name in self.variables):
            return None
        if not all(name in variables and asked.holds(variables[name]) for name, asked in self.conditions):
            return None
        columns = (getattr(record, name) for name in self.columns)
        return _digest(secret, [*columns, *(variables[name] for name in self.variables)])


encode_shape = msgspec.json.Encoder(order="deterministic").encode
"""Make the text that `decode_shape` makes the shape of."""

decode_shape = msgspec.json.Decoder(Shape).decode


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What was forgotten by queries of one shape."""

    shape: Shape
    secret: str
    """Key of the digests of these queries."""
    before_unix_nano: int
    """Latest of the times before which the forgotten records began."""
    count: int = 0
    """Number of these queries."""


class Notes(msgspec.Struct, frozen=True, kw_only=True):
    """What each batch of records is compared with; the digests themselves are looked up."""

    cut_off_unix_nano: int | None = None
    kinds: tuple[Kind, ...] = ()


def notes_of(rows: Iterable[tuple[str, str, str, int, int]]) -> Notes:
    """Return the notes in *rows*, each of a kind with its encoded shape, secret, time and count; in their order.

    Of the row of the `CUT_OFF` the time alone counts.
    """
    cut_off: int | None = None
    kinds: list[Kind] = []
    for kind, shape, secret, before, count in rows:
        if kind == CUT_OFF:
            cut_off = before
        else:
            kinds.append(Kind(shape=decode_shape(shape), secret=secret, before_unix_nano=before, count=count))
    return Notes(cut_off_unix_nano=cut_off, kinds=tuple(kinds))


def new_secret() -> str:
    """Make a key for digests."""
    return secrets.token_hex(32)


def spared(
    records: Sequence[Record],
    notes: Notes,
    *,
    latest_cut_off: Callable[[], int],
    look_up: Callable[[Sequence[str]], Mapping[str, int]],
) -> Sequence[Record]:
    """Leave out of *records* what was deleted.

    A cut-off later than *latest_cut_off* was noted by a clock that was ahead, and is ignored. *look_up* takes
    digests and returns those that are noted, each with the time before which its records began.
    """
    cut_off = notes.cut_off_unix_nano
    if cut_off is not None and (
        all(record.time_unix_nano >= cut_off for record in records) or cut_off > latest_cut_off()
    ):
        cut_off = None
    gone = forgotten(records, notes.kinds, look_up=look_up)
    if cut_off is None and not gone:
        return records
    return [
        record
        for record in records
        if record.id not in gone and (cut_off is None or record.time_unix_nano >= cut_off)
    ]


def forgotten(
    records: Sequence[Record], kinds: Iterable[Kind], *, look_up: Callable[[Sequence[str]], Mapping[str, int]]
) -> frozenset[str]:
    """Return the ids of those of *records* that were forgotten."""
    suspects: defaultdict[str, list[Record]] = defaultdict(list)
    for kind in kinds:
        for record in records:
            if record.time_unix_nano < kind.before_unix_nano:
                digest = kind.shape.of_record(record, kind.secret)
                if digest is not None:
                    suspects[digest].append(record)
    if not suspects:
        return frozenset()
    return frozenset(
        record.id
        for digest, before in look_up(list(suspects)).items()
        for record in suspects[digest]
        if record.time_unix_nano < before
    )


def cut_off_from(records: Sequence[Record], left: Sequence[Record], notes: Notes) -> int:
    """Return how many of *records* began before the cut-off and are not among those *left*."""
    cut_off = notes.cut_off_unix_nano
    if cut_off is None or len(left) == len(records):
        return 0
    return sum(record.time_unix_nano < cut_off for record in records) - sum(
        record.time_unix_nano < cut_off for record in left
    )


class Dropped:
    """Counts the records of this process that a write left out, as they had been deleted before they came."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = PerProcess(threading.Lock)
        """Lock of this process: the parent's may be held by a thread which a forked child does not have."""

    def add(self, count: int) -> None:
        """Add *count* records."""
        if count:
            with self._lock.get():
                self.count += count


def _digest(secret: str, values: Sequence[object]) -> str:
    text = json.dumps([_canonical(value) for value in values])
    return hmac.digest(secret.encode(), text.encode(), "sha256").hex()


def _canonical(value: object) -> object:
    """Return what is equal for values that `same_value` holds equal, and for no others."""
    if isinstance(value, Mapping):
        return {"object": [[key, _canonical(value[key])] for key in sorted(value)]}
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    if type(value) is float:
        return {"float": repr(value + 0.0)}  # -0.0 is 0.0
    if value is None or type(value) in (bool, int, str):
        return value
    return {type(value).__name__: str(value)}
