"""What the charts show: columns, series and a scale; the templates draw them as SVG, and as tables beneath."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import ceil, log10, sqrt

from flask_chest.viewer._format import moment, trimmed

HEIGHT = 100
"""Height of a chart in its own units; a column is 1 wide."""
COLORS = 6
"""Series that differ by their colour."""
TICKS = 4
"""Parts into which labels divide the axis of time."""
_ROUND = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_STEPS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 10, 30, 60, 180, 360, 720, 1_440, 10_080, 40_320))
_DAYS_NANO = 36 * 3_600_000_000_000
"""Length of a chart from which on days tell more than hours."""
_COLUMNS = 80
"""Columns that are seen well on a small screen, too."""


@dataclass(frozen=True, slots=True)
class Column:
    """One bar, or one place on a line."""

    label: str
    link: str | None = None
    """Address of the records that it is made of."""
    begin_unix_nano: int | None = None
    """Beginning of the span of time that it stands for."""


@dataclass(frozen=True, slots=True)
class Series:
    """Values for all columns; ``None`` where there is none."""

    name: str
    values: Sequence[float | None]
    color: str = "s0"
    """Class of the style sheet, ``s0`` to ``s5`` or ``bad``."""
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """Series over the same columns."""

    title: str
    columns: Sequence[Column]
    series: Sequence[Series]
    text: Callable[[float | None], str]
    """Writes a value with its unit."""
    stacked: bool = False
    """Whether the series are parts of a whole, one upon the other."""
    axis: str = "Time"

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(value for each in self.series for value in each.values)

    @property
    def top(self) -> float:
        """A round number that no value exceeds, the end of the scale."""
        if self.stacked:
            columns = zip(*(each.values for each in self.series), strict=True)
            sums = (sum(value or 0 for value in column) for column in columns)
            return round_up(max(sums, default=0))
        return round_up(self.greatest)

    @property
    def greatest(self) -> float:
        """The greatest value, for which a cell is dark."""
        return max((value for each in self.series for value in each.values if value), default=0)

    def rects(self) -> list[list[tuple[str, float, float]]]:
        """Return colour, upper end and height of what stands in each column, from below."""
        top = self.top
        return [list(self._rects(column, top)) for column in range(len(self.columns))]

    def _rects(self, column: int, top: float) -> Iterator[tuple[str, float, float]]:
        base = float(HEIGHT)
        for each in self.series:
            height = HEIGHT * (each.values[column] or 0) / top
            if height > 0:
                height = max(height, 0.8)  # little is not nothing
                upper = base - height if self.stacked else HEIGHT - height
                base = upper
                yield each.color, round(upper, 2), round(height, 2)

    def path(self, series: Series) -> str:
        """Return the line of a *series*, with gaps where it has no value and a dash for a lonely one."""
        top = self.top
        steps: list[str] = []
        pen_is_up = True
        for column, value in enumerate(series.values):
            if value is None:
                pen_is_up = True
                continue
            y = round(HEIGHT - HEIGHT * value / top, 2)
            following = series.values[column + 1] if column + 1 < len(series.values) else None
            if pen_is_up and following is None:
                steps.append(f"M{column + 0.2:g} {y:g}h0.6")
            else:
                steps.append(f"{'M' if pen_is_up else 'L'}{column + 0.5:g} {y:g}")
            pen_is_up = False
        return "".join(steps)

    def shade(self, value: float | None) -> float:
        """Return how dark a cell is, from 0 to 1; few are seen beside many."""
        return round(0.08 + 0.92 * sqrt(value / self.greatest), 2) if value and self.greatest else 0

    def said(self, column: int) -> str:
        """Return what a *column* shows in one line."""
        values = [
            f"{each.name} {self.text(value)}" if len(self.series) > 1 or self.stacked else self.text(value)
            for each in self.series
            if (value := each.values[column]) is not None and (value or not self.stacked)
        ]
        return f"{self.columns[column].label}: {', '.join(values) or 'nothing'}"

    def mark(self, value: float) -> str:
        """Write a value on the scale."""
        return trimmed(self.text(value))

    @property
    def ticks(self) -> list[str]:
        """Labels of the axis below, evenly spaced; of times, the first one tells the zone."""
        last = len(self.columns) - 1
        shown = [
            self.columns[place] for place in sorted({round(last * part / TICKS) for part in range(TICKS + 1)})
        ]
        times = [each.begin_unix_nano for each in shown if each.begin_unix_nano is not None]
        if len(times) < len(shown):
            return [each.label for each in shown]
        form = "%H:%M" if times[-1] - times[0] < _DAYS_NANO else "%b %d"
        labels = [found.strftime(form) if (found := moment(time)) is not None else "" for time in times]
        return [f"{label} UTC" if at == 0 else label for at, label in enumerate(labels)]


def round_up(value: float) -> float:
    """Return the least round number that is not less than *value*; 1 for nothing."""
    if value <= 0:
        return 1.0
    size = 10.0 ** (ceil(log10(value)) - 1)
    return next((each * size for each in _ROUND if each * size >= value * (1 - 1e-9)), 10 * size)


def step_for(length: timedelta) -> timedelta:
    """Return the span of time of a column, so that a chart of *length* has a number of them that is seen well."""
    return next((step for step in _STEPS if length / step <= _COLUMNS), length / _COLUMNS)


def span_label(begin_unix_nano: int, step: timedelta) -> str:
    """Write the beginning of a span of time, as short as its length allows."""
    found = moment(begin_unix_nano)
    if found is None:
        return f"{begin_unix_nano} ns"
    return f"{found:%Y-%m-%d}" if step >= timedelta(days=1) else f"{found:%m-%d %H:%M}"


def color(number: int) -> str:
    """Return the class of the series *number*."""
    return f"s{number % COLORS}"
