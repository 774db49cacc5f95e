"""Measures and groups as text: what ``flask chest aggregate`` takes, and the viewer's addresses.

A measure is its name, and in parentheses what it is of::

    count                  number of requests
    error_rate             share of those that ended in an error
    mean(total)            of a variable; so are sum, min and max
    p95(duration)          percentile of the duration, in seconds, which stands where nothing does: p95
    p50,p95,p99(duration)  several of them
    distinct(user_id)      number of different values; of a column, too: distinct(route)
    histogram(price)       how many are between bounds; these are given as in histogram(price,10,20,50)
    unweighted(count)      of records, whatever a record of a sample counts for

A name is the duration's, a column's, as ``route`` and ``status_class``, or else a variable's. A variable that has
the name of a field of the record, or holds parentheses, a comma or a quotation mark, is written as a string of
JSON: ``mean("a)b")``, ``"route"``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from flask_chest.aggregates import (
    COLUMN_NAMES,
    HUNDRED,
    RESERVED,
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

_MEASURES = (
    "count, error_rate, p95(duration), mean(total), sum(total), min(total), max(total), distinct(user_id) or "
    "histogram(price)"
)
_UNWEIGHTED = re.compile(r"unweighted\s*\((.*)\)", re.DOTALL)
_CALL = re.compile(r"(?P<name>[a-z_]+|p\d{1,9}(?:\s*,\s*p\d{1,9})*)\s*(?:\((?P<of>.+)\))?", re.DOTALL | re.ASCII)
_WEIGHTED: Mapping[str, Callable[..., Measure[object]]] = {"sum": Sum, "mean": Mean}
_NOT_WEIGHTED: Mapping[str, Callable[[Number], Measure[object]]] = {"min": Minimum, "max": Maximum}


def parse_measures(texts: Iterable[str]) -> tuple[Measure[object], ...]:
    """Read measures as `together` returns them; raise `ConfigurationError` for what is none."""
    return together(map(parse_measure, texts))


def together(measures: Iterable[Measure[object]]) -> tuple[Measure[object], ...]:
    """Return each of *measures* once; percentiles of one number become one measure."""
    found: dict[object, Measure[object]] = {}
    for measure in measures:
        if isinstance(measure, Percentiles):
            key: object = (Percentiles, measure.of, measure.weighted)
            known = found.get(key)
            before = known.ps if isinstance(known, Percentiles) else ()
            ps = dict.fromkeys((*before, *measure.ps))
            found[key] = Percentiles(measure.of, *ps, weighted=measure.weighted)
        else:
            found[measure] = measure
    return tuple(found.values())


def parse_measure(text: str) -> Measure[object]:
    """Read one measure, as this module describes; raise `ConfigurationError` for what is none."""
    unweighted = _UNWEIGHTED.fullmatch(text.strip())
    found = _CALL.fullmatch(unweighted[1].strip() if unweighted else text.strip())
    if found is None:
        raise ConfigurationError(f"{text!r} is no measure; write {_MEASURES}")
    name, of, weighted = found["name"], found["of"], unweighted is None
    if not weighted and (name in _NOT_WEIGHTED or name == "distinct"):
        raise ConfigurationError(f"{text!r} is no measure, as {name} is never weighted; write {found[0]}")
    if name in ("count", "error_rate"):
        if of is not None:
            raise ConfigurationError(f"{text!r}: {name} is of all requests that are asked for; write {name}")
        return Count(weighted=weighted) if name == "count" else ErrorRate(weighted=weighted)
    if name == "distinct":
        if of is None:
            raise ConfigurationError(f"{text!r}: say of what, as in distinct(user_id)")
        return Distinct(parse_key(of))
    return _of_number(text, name, of, weighted=weighted)


def _of_number(text: str, name: str, of: str | None, *, weighted: bool) -> Measure[object]:
    if name == "histogram":
        number, bounds = _histogram(text, of or "duration")
        return Histogram(number, *bounds, weighted=weighted)
    ps = [int(p) for p in re.findall(r"p(\d+)", name, re.ASCII)]
    if not ps and name not in _WEIGHTED and name not in _NOT_WEIGHTED:
        raise ConfigurationError(f"{text!r} is no measure; write {_MEASURES}")
    number = parse_number(of or "duration")
    if not ps:
        return _WEIGHTED[name](number, weighted=weighted) if name in _WEIGHTED else _NOT_WEIGHTED[name](number)
    if len(set(ps)) < len(ps) or not all(1 <= p <= HUNDRED for p in ps):
        raise ConfigurationError(
            f"{text!r}: percentiles are different ones from p1 to p100, as in p50,p95,p99(duration)"
        )
    return Percentiles(number, *ps, weighted=weighted)


def _histogram(text: str, of: str) -> tuple[Number, list[float]]:
    first, *rest = _arguments(of)
    try:
        return _number(*first), [float(each) for each, _ in rest]
    except ValueError as exc:
        if isinstance(exc, ConfigurationError):
            raise
        raise ConfigurationError(
            f"{text!r}: the bounds of a histogram are increasing numbers, as in histogram(price,10,20,50)"
        ) from None


def parse_number(text: str) -> Number:
    """Read what a measure is of, ``duration`` or a variable; raise `ConfigurationError` for anything else."""
    return _number(*_only(text))


def parse_key(text: str) -> Column | Variable:
    """Read by what is grouped: a column where there is one of the name, and else a variable.

    Raise `ConfigurationError` for a field by which nothing is grouped.
    """
    name, is_quoted = _only(text)
    if is_quoted or name not in RESERVED:
        return Variable(name)
    for column in COLUMN_NAMES:
        if column == name:
            return column
    raise ConfigurationError(
        f"{name} is a field by which nothing is grouped; those that can be are {', '.join(COLUMN_NAMES)}, "
        f"and a variable of that name is written {_quoted(name)}"
    )


def _number(name: str, is_quoted: bool) -> Number:  # noqa: FBT001 - as `_arguments` yields them
    if is_quoted or name not in RESERVED:
        return Variable(name)
    if name == "duration":
        return "duration"
    raise ConfigurationError(
        f"{name} is a field that is not measured, but duration (in seconds) and variables are; "
        f"a variable of that name is written {_quoted(name)}"
    )


def _only(text: str) -> tuple[str, bool]:
    found = list(_arguments(text))
    if len(found) > 1:
        raise ConfigurationError(f"{text!r} must be one name; one that holds a comma is written {_quoted(text)}")
    return found[0]


def _arguments(text: str) -> Iterator[tuple[str, bool]]:
    """Yield what commas separate, and whether it stands in quotation marks."""
    comma, rest = ",", text
    while comma:
        rest = rest.strip()
        if is_quoted := rest.startswith('"'):
            try:
                decoded, end = _decoder.raw_decode(rest)
            except ValueError:
                raise ConfigurationError(
                    f"{text!r} holds a quotation mark: the name must be a string of JSON, as in {_quoted('a,b')}"
                ) from None
            word, rest = str(decoded), rest[end:].strip()
            between, comma, rest = rest.partition(",")
        else:
            word, comma, rest = rest.partition(",")
            word, between = word.strip(), ""
        if between or (not is_quoted and (not word or set(word) & set('"()'))):
            raise ConfigurationError(
                f"{text!r} is no name; one that is empty, or holds parentheses or quotation marks, "
                f"is written as a string of JSON, as in {_quoted('a)b')}"
            )
        yield word, is_quoted


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


_decoder = json.JSONDecoder()
