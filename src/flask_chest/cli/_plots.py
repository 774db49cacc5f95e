"""Answers to aggregates, drawn on a terminal: bars for groups and histograms, lines for series."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from datetime import tzinfo
from importlib.util import find_spec

from flask_chest.aggregates import Answer, Histogram, Measure, Row, Rows
from flask_chest.cli._answers import Units, key_texts, number_text, numbers_of, rows_of, unit_of
from flask_chest.cli._times import at
from flask_chest.errors import printable

MAX_LINES = 5
"""Groups whose lines can be told apart."""
_COLOURS = ("green", "yellow", "blue", "magenta", "cyan")
_HEIGHT = 12
_LABEL = 32
_BLOCKS = " ▏▎▍▌▋▊▉"


def plots(answer: Answer, *, units: Units, zone: tzinfo) -> Iterator[str]:
    """Draw *answer* in lines of text: its groups, its series by the extra ``plot``, and its histograms."""
    if answer.series and find_spec("plotille") is None:
        yield "Lines need the extra plot: pip install 'flask-request-chest[plot]'."
        return
    width = min(shutil.get_terminal_size().columns, 120)
    for measure in answer.query.measures:
        if isinstance(measure, Histogram):
            bins = answer.all[measure]
            items = [(f"{number_text(each.lower)} to {number_text(each.upper)}", each.requests) for each in bins]
            yield from _bars(f"{measure.label}{unit_of(measure, units)}", items, width)
        elif answer.series:
            yield from _lines(answer, measure, units, zone, width)
        elif answer.query.by:
            for place, (head, _) in enumerate(numbers_of(answer.all, measure)):
                groups = [
                    (" ".join(key_texts(kind, row, answer.query)), list(numbers_of(row, measure))[place][1])
                    for kind, row in rows_of(answer)
                    if kind != "all"
                ]
                yield from _bars(f"{head}{unit_of(measure, units)}", groups, width)


def _bars(title: str, items: Sequence[tuple[str, float | None]], width: int) -> Iterator[str]:
    labels = [printable(label)[:_LABEL] for label, _ in items]
    numbers = [number_text(value) for _, value in items]
    label_width, number_width = (max(map(len, texts), default=0) for texts in (labels, numbers))
    room = max(width - label_width - number_width - 4, 1)
    greatest = max((value or 0.0 for _, value in items), default=0.0)
    yield ""
    yield printable(title)
    for label, number, (_, value) in zip(labels, numbers, items, strict=True):
        eighths = round(8 * room * max(value or 0.0, 0.0) / greatest) if greatest > 0 else 0
        bar = "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()
        yield f"{label:{label_width}}  {number:>{number_width}}  {bar}".rstrip()


def _lines(answer: Answer, measure: Measure[object], units: Units, zone: tzinfo, width: int) -> Iterator[str]:
    from plotille import Figure  # noqa: PLC0415 - an extra

    labels = [" ".join(key_texts("group", row, answer.query)) if row.key else "all" for row in _drawn(answer)]
    for place, (head, _) in enumerate(numbers_of(answer.all, measure)):
        figure = Figure()
        figure.width, figure.height = max(width - 24, 20), _HEIGHT
        figure.color_mode = "names"
        figure.x_label, figure.y_label = "", ""
        figure.set_x_display_timezone(zone)
        yield ""
        yield printable(f"{head}{unit_of(measure, units)}, {zone}")
        lines = [
            [
                (at(bucket.begin_unix_nano), value)
                for bucket in answer.series
                if (value := list(numbers_of(_drawn(bucket)[number], measure))[place][1]) is not None
            ]
            for number in range(len(labels))
        ]
        numbers = [value for points in lines for _, value in points]
        if numbers:
            least, greatest = min(0, *numbers), max(0, *numbers)
            figure.set_y_limits(least, greatest if greatest > least else least + 1)
            for points, colour, label in zip(lines, _COLOURS, labels, strict=False):
                if points:
                    times, values = zip(*points, strict=True)
                    figure.plot(times, values, lc=colour, label=printable(label)[:_LABEL])
            yield from figure.show(legend=True).split("\n")


def _drawn(rows: Rows) -> Sequence[Row]:
    return rows.groups[:MAX_LINES] or [rows.all]
