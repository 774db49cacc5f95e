"""What is asked of many records at once, and the answer: measures, groups, time.

Every store gives the same answer: numbers are IEEE doubles, percentiles are elements of the data, and a group is
known by its exact value and type.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from math import isfinite
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar, cast, get_args

import msgspec

from flask_chest.errors import ConfigurationError
from flask_chest.record import DEFAULT_TOP, FIELDS, Query, is_number

MAX_NUMBER = 1e290
"""Size up to which a number counts; beyond it, databases raise where they add up."""
MAX_TOP = 1_000
MAX_BUCKETS = 150
MAX_BINS = 1_000
HUNDRED = 100

Column: TypeAlias = Literal[
    "route",
    "method",
    "endpoint",
    "status_code",
    "status_class",
    "instance",
    "error",
    "request_id",
    "trace_id",
]
"""What a record has beside its variables; ``status_class`` is the first digit of the status code."""
COLUMN_NAMES: tuple[Column, ...] = get_args(Column)
RESERVED = frozenset({"duration", *COLUMN_NAMES, *FIELDS})
"""Names that, where they are not quoted, are no variable's."""

DURATION_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Bounds in seconds between the bins of durations: those of OpenTelemetry's ``http.server.request.duration``."""


class Variable(msgspec.Struct, frozen=True):
    """A variable, where the name of a field of the record is expected, too."""

    name: str


Number: TypeAlias = Literal["duration"] | Variable
"""What a measure is of: the duration of the request in seconds, or a variable where it is a number."""


class NoScalar(Enum):
    """Key of the records in which a variable has no value by which they could be grouped."""

    ABSENT = "absent"
    """The record lacks the variable, which is not the same as ``None``."""
    LIST = "list"
    OBJECT = "object"


Key: TypeAlias = bool | int | float | str | NoScalar | None
"""What the records of a group have in common: the value of a column or a variable."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Measure(Generic[T_co]):
    """What is computed of some records; ``row[measure]`` is of the type *T_co*."""

    __slots__ = ()

    @property
    @abstractmethod
    def label(self) -> str:
        """The measure as the command line writes it, as in ``mean(total)``."""

    def columns(self, value: object) -> Iterator[tuple[str, float | None]]:
        """Yield what a table has of *value*: the labels of its columns, and the numbers in them."""
        yield self.label, cast("float | None", value)


class _Weighted(Measure[T_co], msgspec.Struct, frozen=True, kw_only=True):
    weighted: bool = True
    """Whether a record counts for all the requests that sampling left out beside it."""


class _OfNumber(Measure[T_co], msgspec.Struct, frozen=True):
    of: Number

    def __post_init__(self) -> None:
        _check_number(self.of, self)


class _WeightedOfNumber(_OfNumber[T_co], frozen=True, kw_only=True):
    weighted: bool = True
    """Whether a record counts for all the requests that sampling left out beside it."""


class Count(_Weighted[int], frozen=True):
    """Number of requests; of records, if not *weighted*."""

    @property
    def label(self) -> str:
        """The measure as the command line writes it."""
        return _labelled("count", weighted=self.weighted)


class ErrorRate(_Weighted["float | None"], frozen=True):
    """Share of requests that ended in an error (`Record.is_error`), from 0 to 1; ``None`` without records."""

    @property
    def label(self) -> str:
        """The measure as the command line writes it."""
        return _labelled("error_rate", weighted=self.weighted)


class Sum(_WeightedOfNumber[float], frozen=True):
    """Sum of numbers, within 1e-9 of the sum of their sizes."""

    @property
    def label(self) -> str:
        """The measure as the command line writes it."""
        return _labelled(f"sum({written_name(self.of)})", weighted=self.weighted)


class Mean(_WeightedOfNumber["float | None"], frozen=True):
    """Mean of numbers; ``None`` where there is none."""

    @property
    def label(self) -> str:
        """The measure as the command line writes it."""
        return _labelled(f"mean({written_name(self.of)})", weighted=self.weighted)


class Minimum(_OfNumber["float | None"], frozen=True):
    """Least number; ``None`` where there is none."""

    @property
    def label(self) -> str:
        """The measure as the command line writes it."""
        return f"min({written_name(self.of)})"


class Maximum(_OfNumber["float | None"], frozen=True):
    """Greatest number; ``None`` where there is none."""

    @property
    def label(self) -> str:
        """The measure as the command line writes it."""
        return f"max({written_name(self.of)})"


@dataclass(frozen=True, slots=True, init=False)
class Percentiles(Measure["Mapping[int, float | None]"]):
    """Percentiles by nearest rank: each is a number of the data, which *p* per cent of them do not exceed.

    The value maps each percentile, a whole number from 1 to 100, to a number; to ``None`` where there is none.
    """

    of: Number
    ps: tuple[int, ...]
    """The percentiles."""
    weighted: bool
    """Whether a record counts for all the requests that sampling left out beside it."""

    def __init__(self, of: Number, /, *ps: int, weighted: bool = True) -> None:
        """Take the percentiles *ps* of *of*."""
        object.__setattr__(self, "of", of)
        object.__setattr__(self, "ps", ps)
        object.__setattr__(self, "weighted", weighted)
        _check_number(of, self)
        whole = all(type(p) is int and 1 <= p <= HUNDRED for p in ps)
        if not ps or not whole or len(set(ps)) < len(ps):
            raise ConfigurationError(
                "Percentiles takes different whole numbers from 1 to 100, "
                f'as in Percentiles("duration", 50, 95, 99), got {ps!r}'
            )

    @property
    def label(self) -> str:
        """The measure as the command line writes it, as in ``p50,p95(duration)``."""
        return self._label(*self.ps)

    def columns(self, value: object) -> Iterator[tuple[str, float | None]]:
        """Yield a column for each percentile."""
        found = cast("Mapping[int, float | None]", value)
        return ((self._label(p), found[p]) for p in self.ps)

    def _label(self, *ps: int) -> str:
        return _labelled(f"{','.join(f'p{p}' for p in ps)}({written_name(self.of)})", weighted=self.weighted)


class Distinct(Measure[int], msgspec.Struct, frozen=True):
    """Number of different keys that groups by *of* would have; records that lack it do not count."""

    of: Column | Variable

    def __post_init__(self) -> None:
        _check_key(self.of, "Distinct")

    @property
    def label(self) -> str:
        """The measure as the command line writes it."""
        return f"distinct({written_name(self.of)})"


class Bin(NamedTuple):
    """The requests with a number from *lower* on and less than *upper*; ``None`` is no bound."""

    lower: float | None
    upper: float | None
    requests: int


@dataclass(frozen=True, slots=True, init=False)
class Histogram(Measure["tuple[Bin, ...]"]):
    """How many requests have a number in each of several bins; the first and the last one have one bound alone.

    Without *bounds*, `FlaskChest.aggregate` takes OpenTelemetry's for durations, and for a variable about twenty
    round ones from its least to its greatest number.
    """

    of: Number
    bounds: tuple[float, ...]
    """Numbers between the bins."""
    weighted: bool
    """Whether a record counts for all the requests that sampling left out beside it."""

    def __init__(self, of: Number, /, *bounds: float, weighted: bool = True) -> None:
        """Count the numbers *of* between *bounds*."""
        object.__setattr__(self, "of", of)
        numbers = all(is_number(bound) and isfinite(bound) for bound in bounds)
        if not numbers or list(bounds) != sorted(set(bounds)) or len(bounds) >= MAX_BINS:
            raise ConfigurationError(
                f"Histogram takes increasing finite numbers as bounds, fewer than {MAX_BINS:,}, got {bounds!r}"
            )
        object.__setattr__(self, "bounds", tuple(map(float, bounds)))
        object.__setattr__(self, "weighted", weighted)
        _check_number(of, self)

    @property
    def label(self) -> str:
        """The measure as the command line writes it, as in ``histogram(price,10,20)``."""
        numbers = ",".join((written_name(self.of), *map(_bound, self.bounds)))
        return _labelled(f"histogram({numbers})", weighted=self.weighted)

    def columns(self, value: object) -> Iterator[tuple[str, float | None]]:
        """Yield a column for each bin, named by its lower bound."""
        for found in cast("tuple[Bin, ...]", value):
            lower = "-inf" if found.lower is None else _bound(found.lower)
            label = _labelled(f"histogram({written_name(self.of)})[{lower}]", weighted=self.weighted)
            yield label, found.requests


class AggregateQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A question to a store about all records that match *query*, whose limit does not count."""

    measures: tuple[Measure[object], ...]
    """Measures, at least one, each once."""
    by: tuple[Column | Variable, ...] = ()
    """What the records of a group have in common; nothing for no groups."""
    bounds: tuple[int, ...] = ()
    """Bounds of the spans of time of a series, in nanoseconds since 1970: one more than there are spans."""
    query: Query = msgspec.field(default_factory=Query)
    top: int = DEFAULT_TOP
    """Number of groups at most."""

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for what no store can answer."""
        if not self.measures or not all(isinstance(each, Measure) for each in self.measures):
            raise ConfigurationError(
                f"aggregate takes measures, as Count() or Mean(Variable('total')), got {self.measures!r}"
            )
        # A row holds a value for each measure: one that is asked for twice is the same measure.
        msgspec.structs.force_setattr(self, "measures", tuple(dict.fromkeys(self.measures)))
        for name in self.by:
            _check_key(name, "by")
        if not 1 <= self.top <= MAX_TOP:
            raise ConfigurationError(f"top must be from 1 to {MAX_TOP:,}, got {self.top!r}")
        if self.bounds and (len(self.bounds) == 1 or list(self.bounds) != sorted(set(self.bounds))):
            raise ConfigurationError(f"bounds must be increasing times, at least two, got {self.bounds!r}")


class Row(msgspec.Struct, frozen=True):
    """What was measured of the records that have *key*."""

    key: tuple[Key, ...]
    """A key for each part of ``by``; nothing for others and for all."""
    records: int
    """Number of records, whatever they count for."""
    values: Mapping[Measure[object], object]

    def __getitem__(self, measure: Measure[T]) -> T:
        """Return the value of *measure*, one of those that were asked for."""
        return cast("T", self.values[measure])


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a whole answer, or of one span of its time."""

    groups: tuple[Row, ...]
    """Groups by the first measure, the greatest first, at most as many as were asked for.

    Those of which it has no value come last; among equals, keys are ordered by type and value.
    """
    others: Row
    """Records of all other groups together, measured by themselves."""
    all: Row
    """Records of all groups together, measured by themselves."""


class Bucket(Rows, frozen=True, kw_only=True):
    """The rows of one span of time, its groups in the order of the whole answer's."""

    begin_unix_nano: int
    """Beginning of the span, inclusive, in nanoseconds since 1970."""
    end_unix_nano: int
    """End of the span, exclusive."""


class Answer(Rows, frozen=True, kw_only=True):
    """The answer to an `AggregateQuery`; it is of one moment, whoever writes meanwhile."""

    query: AggregateQuery
    """What was asked."""
    series: tuple[Bucket, ...] = ()
    """A bucket for each span of time, those without records too."""
    left_out: int = 0
    """Numbers that no measure counts, as they are beyond ±1e290."""
    elapsed: timedelta = timedelta(0)
    """Time that the store took."""

    @property
    def complete(self) -> bool:
        """Whether every number was counted."""
        return self.left_out == 0


def written_name(of: Number | Column) -> str:
    """Write what is measured, or grouped by, as the command line does.

    A variable that has the name of a field, or of the duration, or could be mistaken for more than a name, is
    written as a string of JSON.
    """
    if not isinstance(of, Variable):
        return of
    is_plain = of.name == of.name.strip() != "" and of.name.isprintable() and not set(of.name) & set('"(),')
    return of.name if is_plain and of.name not in RESERVED else json.dumps(of.name, ensure_ascii=False)


def _labelled(text: str, *, weighted: bool) -> str:
    return text if weighted else f"unweighted({text})"


def _bound(bound: float) -> str:
    return repr(bound).removesuffix(".0")


def _check_number(of: object, measure: Measure[object]) -> None:
    if of != "duration" and not isinstance(of, Variable):
        name = type(measure).__name__
        raise ConfigurationError(
            f'{name} is of "duration" or of a variable, as in {name}(Variable("total")), got {of!r}'
        )


def _check_key(of: object, what: str) -> None:
    if of not in COLUMN_NAMES and not isinstance(of, Variable):
        raise ConfigurationError(
            f"{what} takes one of {', '.join(COLUMN_NAMES)}, or a variable as Variable('plan'), got {of!r}"
        )
