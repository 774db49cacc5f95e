"""Aggregates by a store, and the same by the best statement that one writes by hand, in turn.

With ``--questions day``, the records are of thirty days, and the last one is asked for.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import cast

from benchmarks.by_hand import HOUR, NUMBER, PLAN, Ask, Found, Question, Span
from benchmarks.engines import database_server
from benchmarks.sqlite_write import sample
from msgspec.structs import replace

from flask_chest.aggregates import (
    DURATION_BOUNDS,
    AggregateQuery,
    Answer,
    Count,
    Histogram,
    Mean,
    Measure,
    Percentiles,
    Variable,
)
from flask_chest.protocols import Aggregation, Store
from flask_chest.record import Query, Record
from flask_chest.stores import store_from_uri

ENGINES = ("sqlite", "postgresql", "mysql", "mariadb", "mongodb", "documentdb")
ROUTES = [f"/shop/{number}/<int:id>" for number in range(12)]
PLANS = ["free", "basic", "pro", "team", "enterprise"]
NAME = "aggregating"
SHOWN: Mapping[Question, str] = {
    "hours": "requests by hour over 7 days",
    "percentiles": "p50, p95, p99 of the duration by route",
    "numbers": "mean and p95 of a variable by another",
    "histogram": "histogram of the durations",
    "day": "requests by hour of the last day of 30",
}
QUESTIONS: Sequence[Question] = ("hours", "percentiles", "numbers", "histogram")
DAY_HOURS = 24
FILLED = 10_000
"""Records in a batch: with 1,000, to wait for the disk would take most of the time."""


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="aggregating")
    parser.add_argument("--records", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--engines", nargs="*", default=ENGINES, choices=ENGINES)
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--questions", nargs="*", default=QUESTIONS, choices=SHOWN)
    parser.add_argument("--small", action="store_true", help="2000 records, and each question once")
    options = parser.parse_args(argv)
    records, rounds = (2_000, 1) if options.small else (options.records, options.rounds)
    figures: dict[str, float] = {"records": records}
    for engine in options.engines:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            uri = f"sqlite:////{folder}/chest.db"
            if engine != "sqlite":
                uri = stack.enter_context(database_server(engine)).uri
            store = stack.enter_context(closing(store_from_uri(uri, root=Path("/"), name=NAME)()))
            ask = stack.enter_context(import_module(f"benchmarks.by_hand.{engine}").asking(uri, NAME))
            found = compare(engine, store, cast("Ask", ask), records, rounds, options.questions)
            figures |= {f"{engine}_{what}": figure for what, figure in found.items()}
    return figures


def compare(
    engine: str, store: Store, by_hand: Ask, records: int, rounds: int, questions: Sequence[Question]
) -> Mapping[str, float]:
    day = "day" in questions
    hours = (30 if day else 7) * DAY_HOURS
    until = int(datetime.now(UTC).replace(minute=0, second=0, microsecond=0).timestamp()) * 1_000_000_000
    since = until - hours * HOUR
    draw = random.Random(0)
    store.open()
    for first in range(0, records, FILLED):
        numbers = range(first, min(first + FILLED, records))
        store.write([visit(draw, since + number * (hours * HOUR) // records) for number in numbers])
    span = Span(since=until - DAY_HOURS * HOUR if day else since, until=until)
    figures: dict[str, float] = {"bytes_a_record": (store.status().size_bytes or 0) / records}
    print(f"{engine:10} {figures['bytes_a_record']:.0f} bytes a record, with its indexes", flush=True)
    for question in questions:
        query = asked(question, span)
        ours, theirs = in_turn(partial(answered, store, query), partial(by_hand, question, span), rounds)
        print(
            f"{engine:10} {SHOWN[question]:40} {ours:7.2f} s, by hand {theirs:7.2f} s: {ours / theirs:.2f} times",
            flush=True,
        )
        figures |= {f"{question}_s": ours, f"{question}_by_hand_s": theirs, f"{question}_ratio": ours / theirs}
    return figures


def visit(draw: random.Random, moment: int) -> Record:
    """Return a record of a request, of which few are slow, as on most sites."""
    record = sample()
    variables = {
        **record.variables,
        PLAN: draw.choice(PLANS),
        NUMBER: round(draw.expovariate(8), draw.choice((3, 6, 16))),
    }
    return replace(
        record,
        time_unix_nano=moment,
        duration_ns=int(draw.lognormvariate(-3, 1) * 1e9),
        route=ROUTES[min(int(draw.expovariate(0.3)), len(ROUTES) - 1)],
        variables=variables,
    )


def asked(question: Question, span: Span) -> AggregateQuery:
    """Return what the store is asked."""
    measures: tuple[Measure[object], ...] = (Count(),)
    by: tuple[Variable | str, ...] = ()
    bounds: Sequence[int] = ()
    if question in {"hours", "day"}:
        bounds = range(span.since, span.until + 1, HOUR)
    elif question == "percentiles":
        measures, by = (Percentiles("duration", 50, 95, 99),), ("route",)
    elif question == "numbers":
        measures, by = (Mean(Variable(NUMBER)), Percentiles(Variable(NUMBER), 95)), (Variable(PLAN),)
    else:
        measures = (Histogram("duration", *DURATION_BOUNDS),)
    return AggregateQuery(
        measures=measures,
        by=by,  # type: ignore[arg-type]  # names of columns
        bounds=tuple(bounds),
        query=Query(since_unix_nano=span.since, until_unix_nano=span.until),
    )


def answered(store: Store, query: AggregateQuery) -> Found:
    """Ask the store; return what was found as it is found by hand."""
    assert isinstance(store, Aggregation)
    answer: Answer = store.aggregate(query, timeout=timedelta(minutes=10))
    assert answer.complete
    if query.bounds:
        counts = enumerate(bucket.all[Count()] for bucket in answer.series)
        return {hour: (float(count),) for hour, count in counts if count}
    measure = query.measures[0]
    if isinstance(measure, Histogram):
        return {None: tuple(float(each.requests) for each in answer.all[measure])}
    rows = {**{row.key[0]: row for row in answer.groups}, None: answer.all}
    return {
        key: tuple(float(number or 0) for each in query.measures for _, number in each.columns(row.values[each]))
        for key, row in rows.items()
    }


def in_turn(ours: Callable[[], Found], theirs: Callable[[], Found], rounds: int) -> tuple[float, float]:
    """Return the median seconds of both, whose answers must be equal."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        answers: list[Found] = []
        for ask, taken in zip((ours, theirs), times, strict=True):
            begin = time.perf_counter()
            answers.append(ask())
            taken.append(time.perf_counter() - begin)
        assert equal(*answers), answers
    return statistics.median(times[0]), statistics.median(times[1])


def equal(ours: Found, theirs: Found) -> bool:
    """Return whether both have the same groups, with the same values but for the rounding of sums."""
    return ours.keys() == theirs.keys() and all(
        math.isclose(one, other, rel_tol=1e-9)
        for key in ours
        for one, other in zip(ours[key], theirs[key], strict=True)
    )


if __name__ == "__main__":
    main(sys.argv[1:])
