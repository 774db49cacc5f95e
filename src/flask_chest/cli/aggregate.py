"""``flask chest aggregate`` and ``top``: what the database counts and measures of many records at once."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta, tzinfo
from typing import Any

import click

from flask_chest.aggregates import MAX_TOP, AggregateQuery, Answer, Column, Count, Measure, Variable
from flask_chest.cli._answers import csv_rows, json_rows, tables
from flask_chest.cli._group import Failure, asking_store, chest_group, the_chests
from flask_chest.cli._options import AddsOptions, all_of, asking, hints, limited, question, said, within
from flask_chest.cli._output import FORMATS, Format, say, say_data, say_json, say_styled
from flask_chest.cli._plots import plots
from flask_chest.errors import ConfigurationError, StoreAbsent
from flask_chest.extension.aggregation import aggregate_query, ask
from flask_chest.extension.chest import FlaskChest
from flask_chest.extension.measures import parse_key, parse_measure, together
from flask_chest.extension.spans import Every, parse_every
from flask_chest.record import DEFAULT_TOP


def _answering(*names_of_top: str) -> AddsOptions:
    """Return what adds the options for what is answered, and how it is printed."""
    return all_of(
        asking,
        within,
        limited,
        click.option(
            "--by",
            multiple=True,
            type=said(parse_key),
            metavar="NAME",
            help=(
                "A row for each value of this column of the record, as route or status_class, or else of "
                "this variable; one that has a column's name is written '\"route\"'. Repeatable."
            ),
        ),
        click.option(
            "--every",
            type=said(parse_every),
            metavar="SPAN",
            help="Also for each span of time since --since, as 1h or 1d; auto for at most 150.",
        ),
        click.option(
            *names_of_top,
            "top",
            type=click.IntRange(1, MAX_TOP),
            default=DEFAULT_TOP,
            show_default=True,
            help="Number of groups by the first measure; all others are one.",
        ),
        click.option(
            "--format",
            "form",
            type=click.Choice(FORMATS),
            default="table",
            show_default=True,
            help="Output format.",
        ),
        click.option(
            "--plot", is_flag=True, help="Also draw groups, spans of time and histograms, on a terminal."
        ),
    )


@chest_group.command("aggregate")
@click.argument("measures", nargs=-1, required=True, type=said(parse_measure), metavar="MEASURE...")
@_answering("--top")
def aggregate(*, measures: Sequence[Measure[object]], **asked: Any) -> None:
    """Measure all records that match, in the database: count, error_rate, 'p95(duration)', 'mean(total)'.

    \b
    count, error_rate             number of requests, share of errors
    sum(x) mean(x) min(x) max(x)  of the duration in seconds, or a variable
    p50,p95,p99(x)                percentiles by nearest rank
    distinct(x)                   number of values of a column or a variable
    histogram(x)                  requests between bounds, as histogram(x,10,20)
    unweighted(…)                 of records, whatever those of a sample count for

    \b
    Example: flask --app shop chest aggregate 'p95(duration)' error_rate --by route --since 24h
    Example: flask --app shop chest aggregate 'mean(total)' --by plan --every 1d --since 7d --tz Europe/Berlin
    Example: flask --app shop chest aggregate 'histogram(price)' --plot

    A variable with a field's name, or with parentheses, is written as JSON: 'mean("a)b")'. Times are nanoseconds
    since 1970 in jsonl and csv. With --every, these have a row for each span.
    """  # noqa: D301 - \b is click's mark for lines to keep
    _show(together(measures), **asked)


@chest_group.command("top")
@click.argument("variable", type=said(parse_key))
@_answering("--top", "--limit")
def top(*, variable: Column | Variable, by: Sequence[Column | Variable], **asked: Any) -> None:
    """Show the most frequent values of VARIABLE, or of a column: short for aggregate count --by VARIABLE.

    \b
    Example: flask --app shop chest top user_id --since 2h
    Example: flask --app shop chest top status_code --since 1h
    Example: flask --app shop chest top plan --route /checkout --errors
    """  # noqa: D301
    _show((Count(),), by=(variable, *by), **asked)


@chest_group.command("stats", hidden=True, context_settings={"ignore_unknown_options": True})
@click.argument("rest", nargs=-1, type=click.UNPROCESSED)
def stats(*, rest: Sequence[str]) -> None:
    """Fail, and name the command that replaces this one."""
    raise Failure(f"stats is aggregate now; write: flask chest {shlex.join(_as_aggregate(rest))}")


def _as_aggregate(rest: Sequence[str]) -> list[str]:
    """Return the command that says what the words behind ``stats`` said."""
    variable, *options = rest or ("total",)
    name = "duration" if variable == "duration_ns" else variable
    renamed = {"--by-variable": "--by", "--json": "--format=jsonl"}
    words = [renamed.get(option, option).replace("--by-variable=", "--by=") for option in options]
    return ["aggregate", *(f"{measure}({name})" for measure in ("mean", "min", "max")), *words]


def _show(
    measures: Sequence[Measure[object]],
    *,
    timeout: timedelta | None,
    form: Format,
    plot: bool,
    zone: tzinfo,
    **asked: Any,
) -> None:
    if plot and form != "table":
        raise click.UsageError("--plot is for --format table")
    query = _query(measures, zone=zone, **asked)
    found = [(chest, _answer(chest, query, timeout)) for chest in the_chests()]
    answers = [(chest, answer) for chest, answer in found if answer is not None]
    if form == "csv":
        _say_csv(answer for _, answer in answers)
    elif form == "jsonl":
        for _, answer in answers:
            for row in json_rows(answer):
                say_json(row)
    else:
        plot = plot and _can_plot()
        for chest, answer in answers:
            if answer.all.records:
                _say_tables(answer, chest, plot=plot, zone=zone)
    if not any(answer.all.records for _, answer in answers):
        say("Nothing found.", *hints(query.query), err=True)
    if left_out := sum(answer.left_out for _, answer in answers):
        say(f"Numbers beyond ±1e290 do not count: there are {left_out:,} of them.", err=True)


def _query(
    measures: Sequence[Measure[object]],
    *,
    by: Sequence[Column | Variable],
    every: Every | None,
    top: int,
    zone: tzinfo,
    **asked: Any,
) -> AggregateQuery:
    if every is not None and asked["since"] is None:
        raise click.UsageError("--every needs --since, as in --since 24h")
    try:
        return aggregate_query(measures, query=question(**asked), by=by, every=every, zone=zone, top=top)
    except ConfigurationError as exc:
        raise click.UsageError(str(exc)) from None


def _say_csv(answers: Iterable[Answer]) -> None:
    above: str | None = None
    for answer in answers:
        head, *rows = csv_rows(answer)
        for line in rows if head == above else (head, *rows):
            say_data(line)
        above = head


def _say_tables(answer: Answer, chest: FlaskChest, *, plot: bool, zone: tzinfo) -> None:
    units = chest._state.derived().units
    say(*tables(answer, units=units, zone=zone))
    if plot:
        for line in plots(answer, units=units, zone=zone):
            say_styled(line)


def _can_plot() -> bool:
    if sys.stdout.isatty():
        return True
    say("--plot draws on a terminal alone.", err=True)
    return False


def _answer(chest: FlaskChest, query: AggregateQuery, timeout: timedelta | None) -> Answer | None:
    """Return what the store of *chest* answers: nothing where there is none yet; exit where it cannot."""
    store = chest._state.here.store
    with suppress(StoreAbsent), asking_store():
        return ask(store, query, timeout=timeout)
    return None
