"""``/compare?by=version&a=v41&b=v42``: two groups side by side, and whether chance explains it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import msgspec

from flask_chest.aggregates import (
    COLUMN_NAMES,
    Count,
    ErrorRate,
    Histogram,
    Key,
    Percentiles,
    Row,
    Variable,
    written_name,
)
from flask_chest.aggregates import (
    Column as KeyColumn,
)
from flask_chest.errors import ConfigurationError
from flask_chest.extension.measures import parse_key
from flask_chest.record import Query
from flask_chest.viewer._asking import Ask, Parameters
from flask_chest.viewer._charts import Chart, Column, Series
from flask_chest.viewer._filters import Filters, python_key, shell_command
from flask_chest.viewer._shown import amount, bin_label, json_row, key_text, narrowed, rate, seconds
from flask_chest.viewer.pages.overview import PERIODS, period_of

COUNT, ERRORS, DURATIONS = Count(), ErrorRate(), Percentiles("duration", 50, 95, 99)
HISTOGRAM = Histogram("duration", 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CHOICES = 12
Z = 1.959964
"""Quantile of the normal distribution for intervals that hold 95 % of the time."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two groups."""

    name: str
    row: Row
    link: str
    """Address of its records."""

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of the error rate."""
        return wilson(self.row[ERRORS], self.row.records)


@dataclass(frozen=True, slots=True)
class Line:
    """One number of both sides."""

    name: str
    a: str
    b: str
    difference: str
    is_worse: bool | None = None
    """Whether b is worse than a; ``None`` where that says nothing."""
    notes: tuple[str, str] = ("", "")
    """What stands below the numbers."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A value that can be compared."""

    text: str
    records: int
    as_a: str | None
    as_b: str | None


@dataclass(frozen=True, slots=True)
class ComparePage:
    """Two groups, or what can be compared."""

    filters: Filters
    by: KeyColumn | Variable | None
    a: str | None
    b: str | None
    sides: Sequence[Side]
    lines: Sequence[Line]
    verdict: str | None
    chart: Chart | None
    choices: Sequence[Choice]
    known_keys: Sequence[tuple[str, str]]
    """Names by which can be compared, and their addresses."""
    is_late: bool
    template: str = "compare.html"
    periods: Sequence[str] = PERIODS
    """Periods to choose from."""

    @property
    def records(self) -> int:
        """Number of records of both sides."""
        return sum(side.row.records for side in self.sides)

    @property
    def requests(self) -> int:
        """Number of requests that they stand for."""
        return sum(side.row[COUNT] for side in self.sides)

    @property
    def by_text(self) -> str:
        """The key as the address takes it."""
        return written_name(self.by) if self.by is not None else ""

    @property
    def parameters(self) -> Parameters:
        """The parameters of the page's own address."""
        return {**self.filters.parameters, "by": self.by_text, "a": self.a, "b": self.b}

    @property
    def command(self) -> str:
        """The command that asks the same."""
        measures = ("count", "error_rate", "p50(duration)", "p95(duration)", "p99(duration)")
        return shell_command(
            "flask", "chest", "aggregate", *measures, "--by", self.by_text, *self.filters.options()
        )

    @property
    def python(self) -> str:
        """The call of Python that asks the same."""
        words = ["Count()", "ErrorRate()", "Percentiles('duration', 50, 95, 99)", f"by=[{python_key(self.by)}]"]
        return f"chest.aggregate({', '.join([*words, *self.filters.arguments()])})"

    def as_json(self) -> object:
        """Return both sides."""
        return {
            "by": self.by_text,
            "sides": [
                {"value": side.name, "error_rate_interval": side.interval, **json_row(side.row)}
                for side in self.sides
            ],
            "verdict": self.verdict,
        }


def show(ask: Ask) -> ComparePage:
    """Ask for the two groups of the address, or what there is to compare."""
    given = ask.given
    by_given, a, b = given.one("by"), given.one("a"), given.one("b")
    filters = Filters.read(given).of_a_period()
    given.check_taken()
    by = parse_key(by_given) if by_given is not None else None
    query, _ = period_of(filters, ask.now_unix_nano)
    sides: list[Side] = []
    choices: list[Choice] = []
    is_late = False
    if by is not None and a is not None and b is not None:
        found = ask.within_limit(lambda: [_side(ask, filters, query, by, text) for text in (a, b)])
        is_late, sides = found is None, found or []
    if by is not None and not sides and not is_late:
        offered = ask.within_limit(lambda: _choices(ask, filters, query, by, a, b))
        is_late, choices = offered is None, offered or []
    names = [*ask.breakdowns, *(name for name in COLUMN_NAMES if name not in _NOT_COMPARED)]
    known_keys = [(name, ask.links.to("compare", {**filters.parameters, "by": name})) for name in names]
    return ComparePage(
        filters=filters,
        by=by,
        a=a,
        b=b,
        sides=sides,
        lines=list(_lines(*sides)) if sides else [],
        verdict=_verdict(*sides) if sides else None,
        chart=_chart(sides) if sides else None,
        choices=choices,
        known_keys=known_keys,
        is_late=is_late,
    )


_NOT_COMPARED = frozenset({"request_id", "trace_id", "endpoint", "error"})


def _side(ask: Ask, filters: Filters, query: Query, by: KeyColumn | Variable, text: str) -> Side:
    key = read_value(by, text)
    only = narrowed(filters, by, key)
    if only is None:
        raise ConfigurationError(
            f"the groups of {written_name(by)} cannot be compared: no filter finds their records"
        )
    only = only.checked()
    asked = msgspec.structs.replace(
        only.query, since_unix_nano=query.since_unix_nano, until_unix_nano=query.until_unix_nano
    )
    answer = ask.aggregate(COUNT, ERRORS, DURATIONS, HISTOGRAM, query=asked)
    return Side(key_text(key), answer.all, ask.links.to("records", only.parameters))


def read_value(by: KeyColumn | Variable, text: str) -> Key:
    """Read a value to compare: as ``--where`` does for a variable, and as it stands for a column."""
    if not isinstance(by, Variable):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float | str) or value is None else text


def _choices(
    ask: Ask, filters: Filters, query: Query, by: KeyColumn | Variable, a: str | None, b: str | None
) -> list[Choice]:
    answer = ask.aggregate(COUNT, query=query, by=[by], top=CHOICES)
    choices: list[Choice] = []
    for row in answer.groups:
        key = row.key[0]
        if narrowed(filters, by, key) is None:
            continue
        text = value_parameter(by, key)
        common = {**filters.parameters, "by": written_name(by)}
        choices.append(
            Choice(
                key_text(key),
                row.records,
                ask.links.to("compare", {**common, "a": text, "b": b}),
                ask.links.to("compare", {**common, "a": a, "b": text}) if a != text else None,
            )
        )
    return choices


def value_parameter(by: KeyColumn | Variable, key: Key) -> str:
    """Write what `read_value` reads as *key*."""
    if not isinstance(by, Variable):
        return str(key)
    return key if isinstance(key, str) and read_value(by, key) == key else json.dumps(key, ensure_ascii=False)


def _lines(a: Side, b: Side) -> list[Line]:
    found = [
        Line("Requests", amount(a.row[COUNT]), amount(b.row[COUNT]), ""),
        Line(
            "Errors",
            rate(a.row[ERRORS]),
            rate(b.row[ERRORS]),
            _points(a.row[ERRORS], b.row[ERRORS]),
            _is_worse(a.row[ERRORS], b.row[ERRORS]),
            (_interval_text(a), _interval_text(b)),
        ),
    ]
    for p in DURATIONS.ps:
        one, other = a.row[DURATIONS][p], b.row[DURATIONS][p]
        found.append(Line(f"p{p}", seconds(one), seconds(other), _ratio(one, other), _is_worse(one, other)))
    return found


def _interval_text(side: Side) -> str:
    low, high = side.interval
    return f"{rate(low)} to {rate(high)}" if side.row.records else ""


def _is_worse(one: float | None, other: float | None) -> bool | None:
    return None if one is None or other is None or one == other else other > one


def _points(one: float | None, other: float | None) -> str:
    return "" if one is None or other is None else f"{(other - one) * 100:+.2f} points"


def _ratio(one: float | None, other: float | None) -> str:
    return "" if not one or other is None else f"{(other / one - 1) * 100:+.0f} %"


def _verdict(a: Side, b: Side) -> str:
    if not a.row.records or not b.row.records:
        empty = a.name if not a.row.records else b.name
        return f"There is no request with {empty} in this time."
    (low_a, high_a), (low_b, high_b) = a.interval, b.interval
    if low_b > high_a:
        return f"{b.name} fails more often than {a.name}, by more than chance explains."
    if high_b < low_a:
        return f"{b.name} fails less often than {a.name}, by more than chance explains."
    return "The error rates differ by no more than chance explains."


def wilson(share: float | None, count: int) -> tuple[float, float]:
    """Return where the rate lies 95 times of 100, if *share* was seen in *count* records: Wilson's interval."""
    if share is None or count == 0:
        return 0.0, 1.0
    squared = Z * Z / count
    centre = share + squared / 2
    half = Z * sqrt(share * (1 - share) / count + squared / (4 * count))
    return max(0.0, (centre - half) / (1 + squared)), min(1.0, (centre + half) / (1 + squared))


def _chart(sides: Sequence[Side]) -> Chart:
    columns = [Column(bin_label(each, seconds)) for each in sides[0].row[HISTOGRAM]]
    series = [
        Series(side.name, [each.requests / (side.row[COUNT] or 1) for each in side.row[HISTOGRAM]], color)
        for side, color in zip(sides, ("s0", "s1"), strict=True)
    ]
    return Chart("Share of the requests by duration", columns, series, rate, axis="duration")
