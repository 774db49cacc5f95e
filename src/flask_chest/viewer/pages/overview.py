"""``/``: how the app does. Requests, errors and durations over time, by route, by error, by who is concerned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import msgspec

from flask_chest.aggregates import Answer, Count, ErrorRate, Measure, NoScalar, Percentiles, Row, Variable
from flask_chest.background.stats import Health
from flask_chest.record import Query
from flask_chest.viewer._asking import Ask, Links, Parameters
from flask_chest.viewer._charts import Chart, Column, Series, span_label, step_for
from flask_chest.viewer._filters import Filters
from flask_chest.viewer._format import iso
from flask_chest.viewer._shown import amount, json_key, json_row, key_text, narrowed, seconds

PERIODS = ("1h", "6h", "24h", "7d", "30d")
USUAL_PERIOD = "24h"
SHARE = 0.6
"""Share of the page's time for what it shows first; then comes what is left out least gladly."""
TOP_ROUTES, TOP_ERRORS, TOP_VALUES = 15, 8, 6

COUNT, ERRORS, DURATIONS = Count(), ErrorRate(), Percentiles("duration", 50, 95, 99)
P95 = Percentiles("duration", 95)
MEASURES: Mapping[str, Measure[object]] = {"count": COUNT, "errors": ERRORS, "durations": DURATIONS, "p95": P95}
"""Measures as the template calls them."""


@dataclass(frozen=True, slots=True)
class RouteRow:
    """What a route did in the period."""

    row: Row
    name: str
    course: Chart | None
    """Its 95th percentile over time."""
    links: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ValueRow:
    """What the requests with one value of a variable, or one kind of error, came to."""

    row: Row
    text: str
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
    answer: Answer | None
    traffic: Chart | None
    durations: Chart | None
    routes: Sequence[RouteRow]
    errors: Sequence[ValueRow] | None
    breakdowns: Sequence[Breakdown]
    left_out: Sequence[str]
    """What took longer than the page may."""
    template: str = "overview.html"

    measures: Mapping[str, Measure[object]] = field(default_factory=lambda: MEASURES)

    @property
    def is_narrowed(self) -> bool:
        """Whether there are filters beside the period."""
        return is_narrowed(self.filters)

    @property
    def periods(self) -> Sequence[str]:
        """Periods to choose from."""
        return PERIODS

    def as_json(self) -> object:
        """Return the numbers of the page."""
        answer = self.answer
        return {
            "all": json_row(answer.all) if answer else None,
            "series": [
                {"begin": iso(bucket.begin_unix_nano), "end": iso(bucket.end_unix_nano), **json_row(bucket.all)}
                for bucket in (answer.series if answer else ())
            ],
            "routes": [{"route": each.row.key[0], **json_row(each.row)} for each in self.routes],
            "errors": [{"error": each.text, **json_row(each.row)} for each in self.errors or ()],
            "variables": {
                each.name: [{"value": json_key(row.row.key[0]), **json_row(row.row)} for row in each.rows]
                for each in self.breakdowns
            },
            "left_out": list(self.left_out),
        }


def show(ask: Ask) -> OverviewPage:
    """Ask for the period of the address, or the last day."""
    filters = Filters.read(ask.given)
    ask.given.check_taken()
    if filters.since is None:
        filters = filters.changed(since=USUAL_PERIOD).checked()
    query, step = period_of(filters, ask.now_unix_nano)
    left_out: list[str] = []
    asking = partial(ask.aggregate, COUNT, ERRORS, query=query, by=["route"], every=step, top=TOP_ROUTES)
    answer = ask.within_limit(lambda: asking(DURATIONS, share=SHARE))
    has_durations = answer is not None
    if answer is None:
        left_out.append("durations")
        answer = ask.within_limit(asking)  # which is much less to do
    traffic = durations = None
    routes: list[RouteRow] = []
    if answer is None:
        left_out.append("requests and routes")
    else:
        columns = columns_of(answer, filters, ask.links)
        traffic = _traffic(answer, columns)
        durations = _durations(answer, columns) if has_durations else None
        for number, row in enumerate(answer.groups):
            course = _course(answer, columns, number) if has_durations else None
            routes.append(_route(row, course, filters, ask.links))
    errors = _errors(ask, filters, query)
    if errors is None:
        left_out.append("errors")
    breakdowns: list[Breakdown] = []
    for name in ask.breakdowns:
        if (found := _breakdown(ask, filters, query, name)) is None:
            left_out.append(name)
        elif found.rows:
            breakdowns.append(found)
    return OverviewPage(
        filters=filters,
        health=ask.chest.health(),
        answer=answer,
        traffic=traffic,
        durations=durations,
        routes=routes,
        errors=errors,
        breakdowns=breakdowns,
        left_out=left_out,
    )


def is_narrowed(filters: Filters) -> bool:
    """Return whether *filters* ask for more than a period."""
    return any(chip.parameter not in {"since", "until"} for chip in filters.chips)


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


def _traffic(answer: Answer, columns: Sequence[Column]) -> Chart:
    counts = [bucket.all[COUNT] for bucket in answer.series]
    failed = [
        round(count * (bucket.all[ERRORS] or 0)) for count, bucket in zip(counts, answer.series, strict=True)
    ]
    fine = [count - wrong for count, wrong in zip(counts, failed, strict=True)]
    series = [Series("errors", failed, "bad"), Series("other requests", fine, "s0")]
    return Chart("Requests", columns, series, amount, stacked=True)


def _durations(answer: Answer, columns: Sequence[Column]) -> Chart:
    series = [
        Series(f"p{p}", [bucket.all[DURATIONS][p] for bucket in answer.series], color)
        for p, color in ((50, "s0"), (95, "s1"), (99, "s2"))
    ]
    return Chart("Durations", columns, series, seconds)


def _course(answer: Answer, columns: Sequence[Column], number: int) -> Chart:
    course = Series("p95", [bucket.groups[number][DURATIONS][95] for bucket in answer.series], "s1")
    return Chart("p95", columns, [course], seconds)


def _route(row: Row, course: Chart | None, filters: Filters, links: Links) -> RouteRow:
    route = row.key[0]
    if not isinstance(route, str):
        return RouteRow(row, "no route", course, {})
    only: Parameters = filters.with_(route=route)
    return RouteRow(
        row,
        route,
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
    found = ask.within_limit(lambda: ask.aggregate(COUNT, query=asked, by=["error", "route"], top=TOP_ERRORS))
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
        rows.append(ValueRow(row, text, row[COUNT] / greatest, link))
    return rows


def _breakdown(ask: Ask, filters: Filters, query: Query, name: str) -> Breakdown | None:
    # Percentiles take three times as long, and whom it is slow for is asked of one route.
    measures = (COUNT, ERRORS, P95) if is_narrowed(filters) else (COUNT, ERRORS)
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
    return ValueRow(row, key_text(key), row[COUNT] / greatest if greatest else 0.0, link)
