"""``/explore?measure=p95(total)&by=plan&every=1h``: one aggregate as chart, table, JSON, CSV and command."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from flask_chest.aggregates import (
    COLUMN_NAMES,
    Answer,
    Bucket,
    Count,
    Histogram,
    Measure,
    Percentiles,
    Row,
    Variable,
    written_name,
)
from flask_chest.aggregates import (
    Column as KeyColumn,
)
from flask_chest.errors import ConfigurationError
from flask_chest.extension.measures import parse_key, parse_measures
from flask_chest.extension.record_text import csv_line
from flask_chest.extension.spans import Every, parse_every
from flask_chest.record import JSONValue
from flask_chest.viewer._asking import Ask, Links, Parameters
from flask_chest.viewer._charts import Chart, Column, Series, color
from flask_chest.viewer._filters import Filters, python_key, shell_command
from flask_chest.viewer._format import iso
from flask_chest.viewer._shown import Written, amount, bin_label, json_key, json_row, key_text, narrowed
from flask_chest.viewer.pages.overview import PERIODS, columns_of, period_of

MAX_MEASURES, MAX_KEYS, MAX_GROUPS = 6, 2, 100
LINES = 6
"""Number of groups that are drawn."""
EVERY = ("auto", "1m", "5m", "30m", "1h", "6h", "1d", "7d")
_PARTS = re.compile(r"[^()]*[()]?")
"""Parts of a text, each up to its next parenthesis."""
_SPACES = re.compile(r"\s+")
COUNT = Count()
SUGGESTED = ("count", "error_rate", "p50(duration)", "p95(duration)", "p99(duration)", "histogram(duration)")


@dataclass(frozen=True, slots=True)
class Cell:
    """A value in a table."""

    text: str
    share: float | None
    """Share of the greatest in its column, for a bar; ``None`` for none."""


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A row of the table."""

    names: Sequence[str]
    link: str | None
    """Address of the records of the group."""
    narrow: str | None
    """Address of the same question about the group alone."""
    cells: Sequence[Cell]
    records: int
    is_group: bool = True


@dataclass(frozen=True, slots=True)
class ExplorePage:
    """One question and its answer, or what was left out."""

    filters: Filters
    parameters: Parameters
    """Parameters of the page's own address."""
    measures: Sequence[Measure[object]]
    by: Sequence[KeyColumn | Variable]
    every: Every | None
    every_text: str
    top: int
    answer: Answer | None
    chart: Chart | None
    kind: str
    """Macro that draws the chart: ``bars``, ``lines`` or ``heatmap``."""
    heads: Sequence[str]
    rows: Sequence[GroupRow]
    requests: int
    """Number of requests that the records stand for."""
    csv_link: str
    known_keys: Sequence[str]
    suggested: Sequence[str]
    template: str = "explore.html"
    periods: Sequence[str] = PERIODS
    """Periods to choose from."""
    spans: Sequence[str] = EVERY
    """Lengths of the columns to choose from."""

    @property
    def measure_text(self) -> str:
        """The measures as the form takes them."""
        return " ".join(measure_texts(self.measures))

    @property
    def by_texts(self) -> list[str]:
        """The keys as the address takes them."""
        return [written_name(each) for each in self.by]

    @property
    def command(self) -> str:
        """The command that asks the same."""
        words = ["flask", "chest", "aggregate", *measure_texts(self.measures)]
        for key in self.by_texts:
            words += ["--by", key]
        if self.every is not None:
            words += ["--every", self.every_text]
        return shell_command(*words, *self.filters.options(), "--top", str(self.top))

    @property
    def python(self) -> str:
        """The call of Python that asks the same."""
        words = [python_measure(each) for each in self.measures]
        if self.by:
            words.append(f"by=[{', '.join(python_key(key) for key in self.by)}]")
        if self.every is not None:
            every = (
                ascii(self.every)
                if isinstance(self.every, str)
                else f"timedelta(seconds={self.every.total_seconds():g})"
            )
            words.append(f"every={every}")
        return f"chest.aggregate({', '.join([*words, *self.filters.arguments(), f'top={self.top}'])})"

    def as_json(self) -> object:
        """Return the answer."""
        answer = self.answer
        if answer is None:
            return {"left_out": "it took longer than the 2 s of a page"}
        return {
            "by": self.by_texts,
            "groups": [json_group(row) for row in answer.groups],
            "others": json_row(answer.others),
            "all": json_row(answer.all),
            "series": [
                {
                    "begin": iso(bucket.begin_unix_nano),
                    "end": iso(bucket.end_unix_nano),
                    "groups": [json_group(row) for row in bucket.groups],
                    "all": json_row(bucket.all),
                }
                for bucket in answer.series
            ],
            "complete": answer.complete,
        }

    def csv_lines(self) -> Iterator[str]:
        """Yield the answer as lines of CSV: the groups, or the groups of each span of time."""
        answer = self.answer
        if answer is None:
            return
        times = ["begin"] if answer.series else []
        yield csv_line([*times, *self.by_texts, "records", *_labels(self.measures, answer.all)])
        for bucket in answer.series or (answer,):
            begin = [iso(bucket.begin_unix_nano)] if isinstance(bucket, Bucket) else []
            for row in bucket.groups if self.by else (bucket.all,):
                keys = [cast("JSONValue", json_key(key)) for key in row.key]
                yield csv_line([*begin, *keys, row.records, *_values(self.measures, row)])


def _labels(measures: Sequence[Measure[object]], row: Row) -> list[str]:
    return [label for measure in measures for label, _ in measure.columns(row[measure])]


def _values(measures: Sequence[Measure[object]], row: Row) -> list[float | None]:
    return [value for measure in measures for _, value in measure.columns(row[measure])]


def json_group(row: Row) -> dict[str, object]:
    """Return a group as JSON shows it."""
    return {"key": [json_key(key) for key in row.key], **json_row(row)}


def show(ask: Ask) -> ExplorePage:
    """Ask the question of the address."""
    given = ask.given
    texts = [text for value in given.several("measure") for text in split_measures(value)] or ["count"]
    measures = parse_measures(texts)
    by: list[KeyColumn | Variable] = []
    for key in map(parse_key, given.several("by")):
        if key not in by:
            by.append(key)
    every_given = given.one("every", "auto") or "auto"
    top = _top(given.one("top", "20") or "20")
    filters = Filters.read(given).of_a_period()
    given.check_taken()
    if len(measures) > MAX_MEASURES or len(by) > MAX_KEYS:
        raise ConfigurationError(f"the page takes at most {MAX_MEASURES} measures and {MAX_KEYS} groups")
    query, step = period_of(filters, ask.now_unix_nano)
    every = None if every_given == "none" else parse_every(every_given)
    # Whatever is asked, how many requests it is of is told.
    all_measures = measures if COUNT in measures else (*measures, COUNT)
    answer = ask.within_limit(
        lambda: ask.aggregate(
            *all_measures, query=query, by=by, every=step if every == "auto" else every, top=top
        )
    )
    parameters: Parameters = {
        **filters.parameters,
        "measure": measure_texts(measures),
        "by": [written_name(key) for key in by],
        "every": every_given,
        "top": str(top),
    }
    found = _Shown(ask.links, ask.units, filters, measures, by, parameters)
    kind, chart = found.chart(answer) if answer is not None else ("bars", None)
    return ExplorePage(
        filters=filters,
        parameters=parameters,
        measures=measures,
        by=by,
        every=every,
        every_text=every_given,
        top=top,
        answer=answer,
        chart=chart,
        kind=kind,
        heads=_labels(in_cells(measures), answer.all) if answer is not None else (),
        rows=list(found.rows(answer)) if answer is not None else (),
        requests=answer.all[COUNT] if answer is not None else 0,
        csv_link=ask.links.to("explore_csv", parameters),
        known_keys=list(dict.fromkeys([*ask.breakdowns, *COLUMN_NAMES])),
        suggested=[*SUGGESTED, *(f"p95({name})" for name in ask.numbers)],
    )


def _top(text: str) -> int:
    if not re.fullmatch(r"\d{1,3}", text, re.ASCII) or not 1 <= int(text) <= MAX_GROUPS:
        raise ConfigurationError(f"top must be a number from 1 to {MAX_GROUPS}, got {text!r}")
    return int(text)


def split_measures(text: str) -> list[str]:
    """Part *text* at its spaces, but for those that a closing parenthesis follows, which are within one."""
    # Not by one pattern that looks ahead: over a run of spaces it takes time by the cube of its length.
    parts = _PARTS.findall(text.strip())
    return "".join(part if part.endswith(")") else _SPACES.sub("\0", part) for part in parts).split("\0")


def in_cells(measures: Sequence[Measure[object]]) -> list[Measure[object]]:
    """Return the *measures* that the table has: a histogram is drawn, and CSV and JSON have its bins."""
    return [each for each in measures if not isinstance(each, Histogram)]


def measure_texts(measures: Sequence[Measure[object]]) -> list[str]:
    """Write *measures* as the address takes them."""
    return [each.label for each in measures]


@dataclass(frozen=True, slots=True)
class _Shown:
    """Makes chart and table of an answer."""

    links: Links
    units: Mapping[str, str]
    filters: Filters
    measures: Sequence[Measure[object]]
    by: Sequence[KeyColumn | Variable]
    parameters: Parameters
    """Parameters of the page's own address."""

    def rows(self, answer: Answer) -> Iterator[GroupRow]:
        """Yield the rows of the table: the groups, others and all."""
        greatest = self._greatest(answer)
        for row in answer.groups if self.by else ():
            only = self._only(row)
            yield GroupRow(
                names=[key_text(key) for key in row.key],
                link=self.links.to("records", only) if only is not None else None,
                narrow=self.links.to("explore", {**self.parameters, **only}) if only is not None else None,
                cells=self._cells(row, greatest),
                records=row.records,
            )
        if self.by and answer.others.records:
            yield self._summed("all others", answer.others, None)
        yield self._summed("all", answer.all, self.links.to("records", self.filters.parameters))

    def _summed(self, name: str, row: Row, link: str | None) -> GroupRow:
        names = [name, *("" for _ in self.by[1:])]
        return GroupRow(names, link, None, self._cells(row, {}), row.records, is_group=False)

    def _only(self, row: Row) -> Parameters | None:
        """Return the parameters that ask for the records of the group *row* alone."""
        filters: Filters | None = self.filters
        for by, key in zip(self.by, row.key, strict=True):
            filters = narrowed(filters, by, key) if filters is not None else None
        return filters.parameters if filters is not None else None

    def _greatest(self, answer: Answer) -> dict[str, float]:
        greatest: dict[str, float] = {}
        for row in answer.groups:
            for measure in self.measures:
                for label, each in measure.columns(row[measure]):
                    greatest[label] = max(greatest.get(label, 0.0), each or 0.0)
        return greatest

    def _cells(self, row: Row, greatest: dict[str, float]) -> list[Cell]:
        cells: list[Cell] = []
        for measure in in_cells(self.measures):
            text = Written(measure, self.units)
            for label, each in measure.columns(row[measure]):
                most = greatest.get(label)
                cells.append(Cell(text(each), max(each, 0.0) / most if each is not None and most else None))
        return cells

    def chart(self, answer: Answer) -> tuple[str, Chart | None]:
        """Return how the first measure is drawn, and the chart."""
        measure = self.measures[0]
        if isinstance(measure, Histogram):
            return self._histogram(measure, answer)
        if not answer.series:
            return "bars", None
        columns = columns_of(answer, self.filters, self.links)
        text = Written(measure, self.units)
        labels = _labels([measure], answer.all)
        series: list[Series] = []
        if self.by:
            for number, row in enumerate(answer.groups[:LINES]):
                name = ", ".join(map(key_text, row.key))
                values = [_values([measure], bucket.groups[number])[0] for bucket in answer.series]
                only = self._only(row)
                link = self.links.to("explore", {**self.parameters, **only}) if only is not None else None
                series.append(Series(name, values, color(number), link))
            title = f"{labels[0]} by {', '.join(written_name(key) for key in self.by)}"
        else:
            for at, label in enumerate(labels):
                values = [_values([measure], bucket.all)[at] for bucket in answer.series]
                series.append(Series(label, values, color(at)))
            title = ", ".join(labels)
        kind = "bars" if isinstance(measure, Count) and not self.by else "lines"
        return kind, Chart(title, columns, series, text)

    def _histogram(self, measure: Histogram, answer: Answer) -> tuple[str, Chart]:
        name = written_name(measure.of)
        edge = Written(Percentiles(measure.of, 50), self.units)
        bins = answer.all[measure]
        labels = [bin_label(each, edge) for each in bins]
        if not answer.series:
            columns = [Column(label) for label in labels]
            series = [Series("requests", [each.requests for each in bins])]
            return "bars", Chart(f"Requests by {name}", columns, series, amount, axis=name)
        spans = columns_of(answer, self.filters, self.links)
        over_time = [bucket.all[measure] for bucket in answer.series]
        series = [Series(label, [bins[at].requests for bins in over_time]) for at, label in enumerate(labels)]
        return "heatmap", Chart(f"Requests by {name} over time", spans, series, amount)


def python_measure(measure: Measure[object]) -> str:
    """Write *measure* as the call that makes it."""
    of: object = getattr(measure, "of", None)
    arguments = [] if of is None else [python_key(of)]
    if isinstance(measure, Percentiles):
        arguments += map(str, measure.ps)
    if isinstance(measure, Histogram):
        arguments += map(repr, measure.bounds)
    if not getattr(measure, "weighted", True):
        arguments.append("weighted=False")
    return f"{type(measure).__name__}({', '.join(arguments)})"
