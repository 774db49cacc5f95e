"""``/``: how the app does. Requests, errors and durations over time, by route, by error, by who is concerned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Self

import msgspec

from flask_chest._clocks import nanoseconds
from flask_chest.aggregates import Answer, Bucket, Count, ErrorRate, Key, NoScalar, Row, Variable
from flask_chest.aggregates import Column as KeyColumn
from flask_chest.background.stats import Health
from flask_chest.extension.question_text import span_text
from flask_chest.record import Query
from flask_chest.viewer._asking import Ask, Links, Parameters
from flask_chest.viewer._charts import Chart, Column, Series, span_label, step_for
from flask_chest.viewer._estimates import BINS, PS, percentiles
from flask_chest.viewer._filters import Filters, shell_command
from flask_chest.viewer._format import iso
from flask_chest.viewer._shown import amount, json_key, key_text, narrowed, seconds

PERIODS = ("1h", "6h", "24h", "7d", "30d")
SHARE = 0.5
"""Share of the time that is left, for what a page shows first."""
TOP_ROUTES, TOP_ERRORS, TOP_VALUES = 15, 8, 6

BREAKDOWN_RECORDS = 5_000
"""Records of which the values of variables are counted, about: those of the newest spans of time."""

COUNT, ERRORS = Count(), ErrorRate()
_COLORS: Mapping[int, str] = dict(zip(PS, ("s0", "s1", "s2"), strict=True))
"""Classes of the lines of the percentiles."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What some requests came to."""

    records: int
    requests: int
    """Number of requests, for which records of a sample count more than once."""
    errors: float | None
    """Share of the requests that ended in an error."""
    durations: Mapping[int, float | None] | None
    """Percentiles in seconds; ``None`` where they were not asked for."""

    @classmethod
    def of(cls, row: Row) -> Self:
        """Read what was measured."""
        return cls(row.records, row[COUNT], row[ERRORS], percentiles(row) if BINS in row.values else None)

    def as_json(self) -> dict[str, object]:
        """Return the figures by their labels."""
        durations = {f"p{p}(duration)": value for p, value in (self.durations or {}).items()}
        return {"records": self.records, "count": self.requests, "error_rate": self.errors, **durations}


@dataclass(frozen=True, slots=True)
class Span:
    """What the requests of one span of time came to."""

    begin_unix_nano: int
    end_unix_nano: int
    all: Figures
    routes: Sequence[Figures]

    @classmethod
    def of(cls, bucket: Bucket) -> Self:
        """Read what was measured."""
        routes = tuple(map(Figures.of, bucket.groups))
        return cls(bucket.begin_unix_nano, bucket.end_unix_nano, Figures.of(bucket.all), routes)


@dataclass(frozen=True, slots=True)
class RouteRow:
    """What a route did in the period."""

    name: str
    route: Key
    figures: Figures
    course: Chart | None
    """Its 95th percentile over time."""
    links: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ValueRow:
    """What the requests with one value of a variable, or one kind of error, came to."""

    key: Key
    text: str
    figures: Figures
    share: float
    """Number of requests, as a share of the most frequent value's."""
    link: str | None


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The most frequent values of one variable."""

    name: str
    rows: Sequence[ValueRow]
    link: str
    """Address of all of them."""


@dataclass(frozen=True, slots=True)
class OverviewPage:
    """The overview of one period, as far as it was made in time."""

    filters: Filters
    health: Health
    all: Figures | None
    others: Figures | None
    """The routes that are not shown by themselves."""
    series: Sequence[Span]
    traffic: Chart | None
    durations: Chart | None
    routes: Sequence[RouteRow]
    errors: Sequence[ValueRow] | None
    breakdowns: Sequence[Breakdown]
    newest_since: int | None
    """Since when values of variables are counted, if not since the beginning of the period."""
    left_out: Sequence[str]
    """What took longer than the page may."""
    template: str = "overview.html"
    periods: Sequence[str] = PERIODS
    """Periods to choose from."""

    @property
    def step(self) -> str:
        """The length of a column of the charts, as the command takes it."""
        first = self.series[0]
        return span_text(timedelta(microseconds=(first.end_unix_nano - first.begin_unix_nano) // 1_000))

    @property
    def command(self) -> str:
        """The command that asks for the charts and the routes."""
        every = ("--every", self.step) if self.series else ()
        words = ("count", "error_rate", "p50,p95,p99(duration)", "--by", "route", *every)
        return shell_command("flask", "chest", "aggregate", *words, *self.filters.options())

    @property
    def python(self) -> str:
        """The call of Python that asks for the routes."""
        words = ["Count()", "ErrorRate()", "Percentiles('duration', 50, 95, 99)", "by=['route']"]
        return f"chest.aggregate({', '.join([*words, *self.filters.arguments()])})"

    def as_json(self) -> object:
        """Return the numbers of the page."""
        return {
            "all": self.all.as_json() if self.all else None,
            "series": [
                {"begin": iso(each.begin_unix_nano), "end": iso(each.end_unix_nano), **each.all.as_json()}
                for each in self.series
            ],
            "routes": [{"route": each.route, **each.figures.as_json()} for each in self.routes],
            "errors": [{"error": each.text, **each.figures.as_json()} for each in self.errors or ()],
            "variables": {
                each.name: [{"value": json_key(row.key), **row.figures.as_json()} for row in each.rows]
                for each in self.breakdowns
            },
            "variables_since": iso(self.newest_since) if self.newest_since is not None else None,
            "left_out": list(self.left_out),
        }


def show(ask: Ask) -> OverviewPage:
    """Ask for the period of the address, or the last day."""
    filters = Filters.read(ask.given).of_a_period()
    ask.given.check_taken()
    query, step = period_of(filters, ask.now_unix_nano)
    left_out: list[str] = []
    asking = partial(ask.aggregate, COUNT, ERRORS, query=query, by=["route"], top=TOP_ROUTES, share=SHARE)
    answer = ask.within_limit(lambda: asking(BINS, every=step))
    if answer is None:
        left_out += ["charts", "durations"]
        answer = ask.within_limit(asking)  # which is much less to do
    traffic = durations = None
    series: list[Span] = []
    routes: list[RouteRow] = []
    if answer is None:
        left_out.append("requests and routes")
    else:
        series = list(map(Span.of, answer.series))
        columns = columns_of(answer, filters, ask.links)
        traffic = _traffic(series, columns) if series else None
        durations = _durations("Durations", [each.all for each in series], columns, *PS)
        routes = [
            _route(row, _course(series, columns, number), filters, ask.links)
            for number, row in enumerate(answer.groups)
        ]
    errors = _errors(ask, filters, query)
    if errors is None:
        left_out.append("errors")
    newest = _newest(query, step, series)
    breakdowns: list[Breakdown] = []
    for name in ask.breakdowns:
        if (found := _breakdown(ask, filters, newest, name)) is None:
            left_out.append(name)
        elif found.rows:
            breakdowns.append(found)
    return OverviewPage(
        filters=filters,
        health=ask.chest.health(),
        all=Figures.of(answer.all) if answer else None,
        others=Figures.of(answer.others) if answer and answer.others.records else None,
        series=series,
        traffic=traffic,
        durations=durations,
        routes=routes,
        errors=errors,
        breakdowns=breakdowns,
        newest_since=newest.since_unix_nano if newest is not query else None,
        left_out=left_out,
    )


def _newest(query: Query, step: timedelta, series: Sequence[Span]) -> Query:
    """Return the part of *query* of which the values of variables are counted: as much as takes little time."""
    records = 0
    for span in reversed(series):
        records += span.all.records
        if records >= BREAKDOWN_RECORDS:
            if span.begin_unix_nano <= (query.since_unix_nano or 0):
                break
            return msgspec.structs.replace(query, since_unix_nano=span.begin_unix_nano)
    if series or query.until_unix_nano is None:
        return query
    # Even their number is not known.
    return msgspec.structs.replace(query, since_unix_nano=query.until_unix_nano - nanoseconds(step))


def period_of(filters: Filters, now_unix_nano: int) -> tuple[Query, timedelta]:
    """Return the query of *filters*, which begins and ends somewhere, and how long a column of a chart is."""
    query = filters.query
    since = query.since_unix_nano or 0
    until = query.until_unix_nano if query.until_unix_nano is not None else now_unix_nano
    step = step_for(timedelta(microseconds=max(until - since, 1_000) // 1_000))
    return msgspec.structs.replace(query, since_unix_nano=since, until_unix_nano=until), step


def columns_of(answer: Answer, filters: Filters, links: Links) -> list[Column]:
    """Return a column for each span of the series, which leads to its records."""
    columns: list[Column] = []
    for bucket in answer.series:
        begin, end = bucket.begin_unix_nano, bucket.end_unix_nano
        link = links.to("records", filters.with_(since=iso(begin), until=iso(end)))
        label = span_label(begin, timedelta(microseconds=(end - begin) // 1_000))
        columns.append(Column(label, link, begin))
    return columns


def _traffic(series: Sequence[Span], columns: Sequence[Column]) -> Chart:
    counts = [each.all.requests for each in series]
    failed = [round(count * (each.all.errors or 0)) for count, each in zip(counts, series, strict=True)]
    fine = [count - wrong for count, wrong in zip(counts, failed, strict=True)]
    parts = [Series("errors", failed, "bad"), Series("other requests", fine, "s0")]
    return Chart("Requests", columns, parts, amount, stacked=True)


def _durations(title: str, figures: Sequence[Figures], columns: Sequence[Column], *ps: int) -> Chart | None:
    found = [each.durations for each in figures]
    lines = [Series(f"p{p}", [each[p] for each in found if each is not None], _COLORS[p]) for p in ps]
    return Chart(title, columns, lines, seconds) if found and None not in found else None


def _course(series: Sequence[Span], columns: Sequence[Column], number: int) -> Chart | None:
    return _durations("p95", [each.routes[number] for each in series], columns, 95)


def _route(row: Row, course: Chart | None, filters: Filters, links: Links) -> RouteRow:
    route, figures = row.key[0], Figures.of(row)
    if not isinstance(route, str):
        return RouteRow("no route", route, figures, course, {})
    only: Parameters = filters.with_(route=route)
    return RouteRow(
        route,
        route,
        figures,
        course,
        {
            "overview": links.to("overview", only),
            "records": links.to("records", only),
            "errors": links.to("records", {**only, "errors": "1"}),
            "explore": links.to("explore", {**only, "measure": "p95(duration)"}),
        },
    )


def _errors(ask: Ask, filters: Filters, query: Query) -> list[ValueRow] | None:
    asked = msgspec.structs.replace(query, errors=True)
    by: list[KeyColumn] = ["error", "route"]
    found = ask.within_limit(lambda: ask.aggregate(COUNT, ERRORS, query=asked, by=by, top=TOP_ERRORS))
    if found is None:
        return None
    greatest = max((row[COUNT] for row in found.groups), default=0)
    rows: list[ValueRow] = []
    for row in found.groups:
        error, route = row.key
        text = f"{error or 'no exception'} · {route or 'no route'}"
        only = {"errors": "1", "route": route, "error": error}
        texts = {name: value for name, value in only.items() if isinstance(value, str)}
        link = ask.links.to("records", {**filters.parameters, **texts})
        rows.append(ValueRow(error, text, Figures.of(row), row[COUNT] / greatest, link))
    return rows


def _breakdown(ask: Ask, filters: Filters, query: Query, name: str) -> Breakdown | None:
    # Whom it is slow for is asked of one route.
    measures = (COUNT, ERRORS, BINS) if filters.beyond_period else (COUNT, ERRORS)
    found = ask.within_limit(lambda: ask.aggregate(*measures, query=query, by=[Variable(name)], top=TOP_VALUES))
    if found is None:
        return None
    rows = [row for row in found.groups if row.key[0] is not NoScalar.ABSENT]
    greatest = max((row[COUNT] for row in rows), default=0)
    link = ask.links.to("explore", {**filters.parameters, "measure": "count", "by": name})
    return Breakdown(name, [_value(ask.links, filters, name, row, greatest) for row in rows], link)


def _value(links: Links, filters: Filters, name: str, row: Row, greatest: int) -> ValueRow:
    key = row.key[0]
    only = narrowed(filters, Variable(name), key)
    is_new = only is not None and only.where != filters.where
    link = links.to("overview", only.parameters) if only is not None and is_new else None
    return ValueRow(key, key_text(key), Figures.of(row), row[COUNT] / greatest if greatest else 0.0, link)
