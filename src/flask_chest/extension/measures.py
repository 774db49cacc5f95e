"""Measures and groups as text: what the command line and the viewer's addresses take.

::

    count  error_rate  sum(total)  mean(total)  min(total)  max(total)
    p95(duration)  distinct(user_id)  histogram(duration)  unweighted(count)

Without parentheses ``p95``, ``mean`` and the like are of the duration. A name is that of a column where there is
one, and else of a variable; in quotation marks, as a string of JSON, it is always a variable's: ``by="route"``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

from flask_chest.aggregates import (
    COLUMN_NAMES,
    Column,
    Count,
    Distinct,
    ErrorRate,
    Histogram,
    Maximum,
    Mean,
    Measure,
    Minimum,
    Number,
    Percentiles,
    Sum,
    Variable,
)
from flask_chest.errors import ConfigurationError
from flask_chest.extension.question_text import span
from flask_chest.extension.spans import Every

DURATION = "duration"
_UNWEIGHTED = re.compile(r"unweighted\((.*)\)", re.DOTALL)
_CALL = re.compile(r"(?P<name>[a-z_]+|p\d+)(\((?P<of>.+)\))?", re.DOTALL)
_OF_NUMBER: Mapping[str, Callable[[Number], Measure[object]]] = {
    "sum": Sum,
    "mean": Mean,
    "min": Minimum,
    "max": Maximum,
    "histogram": Histogram,
}
_OF_NUMBER_UNWEIGHTED: Mapping[str, Callable[[Number], Measure[object]]] = {
    "sum": lambda of: Sum(of, weighted=False),
    "mean": lambda of: Mean(of, weighted=False),
    "histogram": lambda of: Histogram(of, weighted=False),
}
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def parse_measures(texts: Iterable[str]) -> tuple[Measure[object], ...]:
    """Read measures, each of them once; percentiles of one number become one measure.

    Raise `ConfigurationError` for what is none.
    """
    found: dict[object, Measure[object]] = {}
    for measure in map(parse_measure, texts):
        if isinstance(measure, Percentiles):
            key: object = (Percentiles, measure.of, measure.weighted)
            known = found.get(key)
            before = known.ps if isinstance(known, Percentiles) else ()
            found[key] = Percentiles(
                measure.of, *dict.fromkeys((*before, *measure.ps)), weighted=measure.weighted
            )
        else:
            found[measure] = measure
    return tuple(found.values())


def parse_measure(text: str) -> Measure[object]:
    """Read one measure, as this module describes; raise `ConfigurationError` for what is none."""
    unweighted = _UNWEIGHTED.fullmatch(text.strip())
    found = _CALL.fullmatch(unweighted[1].strip() if unweighted else text.strip())
    if found is None:
        raise _unknown(text)
    name, of, weighted = found["name"], found["of"], unweighted is None
    if name in ("count", "error_rate") and of is None:
        return Count(weighted=weighted) if name == "count" else ErrorRate(weighted=weighted)
    if name == "distinct" and of is not None and weighted:
        return Distinct(parse_key(of))
    number = parse_number(of if of is not None else DURATION)
    if (percentile := re.fullmatch(r"p(\d+)", name)) is not None:
        return Percentiles(number, int(percentile[1]), weighted=weighted)
    make = (_OF_NUMBER if weighted else _OF_NUMBER_UNWEIGHTED).get(name)
    if make is None:
        raise _unknown(text)
    return make(number)


def _unknown(text: str) -> ConfigurationError:
    return ConfigurationError(
        f"{text!r} is no measure; write count, error_rate, p95(duration), mean(total), sum(total), min(total), "
        "max(total), distinct(user_id) or histogram(duration)"
    )


def parse_number(text: str) -> Number:
    """Read what a measure is of: ``duration``, or a variable."""
    name, is_quoted = _name(text)
    return "duration" if name == DURATION and not is_quoted else Variable(name)


def parse_key(text: str) -> Column | Variable:
    """Read by what is grouped: a column where there is one of the name, and else a variable."""
    name, is_quoted = _name(text)
    return name if name in COLUMN_NAMES and not is_quoted else Variable(name)


def _name(text: str) -> tuple[str, bool]:
    """Return a name, and whether it stands in quotation marks."""
    text = text.strip()
    if text.startswith('"'):
        try:
            name = json.loads(text)
        except ValueError:
            raise ConfigurationError(
                f"{text} begins with a quotation mark, so it must be a string of JSON"
            ) from None
        return str(name), True
    if not text or "(" in text or ")" in text:
        raise ConfigurationError(f"{text!r} is no name; one with parentheses is written as a string of JSON")
    return text, False


def written_key(key: Column | Variable) -> str:
    """Write what `parse_key` reads as *key*."""
    return _written(key.name, COLUMN_NAMES) if isinstance(key, Variable) else key


def written_number(of: Number) -> str:
    """Write what `parse_number` reads as *of*."""
    return _written(of.name, (DURATION,)) if isinstance(of, Variable) else of


def _written(name: str, taken: Iterable[str]) -> str:
    is_plain = name == name.strip() != "" and not name.startswith('"') and "(" not in name and ")" not in name
    return name if is_plain and name not in taken else json.dumps(name, ensure_ascii=False)


def parse_every(text: str) -> Every:
    """Read the length of the spans of a series: ``auto``, or a span of time, as ``5m``, ``1h`` or ``1d``."""
    return "auto" if text == "auto" else span(text)


def every_text(every: timedelta) -> str:
    """Write a span of time as `parse_every` reads it."""
    seconds = int(every.total_seconds())
    size, unit = next(
        each for each in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")) if not seconds % each[0]
    )
    return f"{seconds // size}{unit}"
