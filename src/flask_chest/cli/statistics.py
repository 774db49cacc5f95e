"""``flask chest top`` and ``stats``: what the database counts and sums up of a variable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar

import click
import msgspec

from flask_chest.cli._group import asking_store, chest_group, the_chests
from flask_chest.cli._options import asking, hints, json_option, question, within
from flask_chest.cli._output import say, say_json
from flask_chest.cli.records import answers
from flask_chest.errors import CapabilityMissing, StoreAbsent
from flask_chest.extension.chest import FlaskChest
from flask_chest.protocols import GroupBy, Statistics, Summary, ValueCount, Variable
from flask_chest.record import FIELDS, JSONValue, Query, Record
from flask_chest.stores.statistics import count, sum_up

Row = TypeVar("Row", ValueCount, Summary)


@chest_group.command("top")
@click.argument("variable")
@asking
@within
@click.option(
    "--limit", type=click.IntRange(min=0), default=10, show_default=True, help="Show at most this many."
)
@json_option
def top(*, variable: str, limit: int, as_json: bool, **asked: Any) -> None:
    """Show the most frequent values of VARIABLE, and how many records have each.

    VARIABLE may be a field of each record, too, as route or status_code. Values are written as JSON, as 1, 1.0,
    true and "1" are four of them.

    \b
    Example: flask --app shop chest top user_id --since 2h
    Example: flask --app shop chest top status_code --since 1h
    Example: flask --app shop chest top plan --route /checkout --errors
    """  # noqa: D301 - \b is click's mark for lines to keep
    wanted = question(**asked)
    for chest in the_chests():
        if variable in FIELDS:
            found: Sequence[ValueCount] = count(_with_field(chest, wanted, variable), variable, limit=limit)
        else:
            found = _answers(chest, lambda store: store.top(variable, wanted, limit=limit))
        if as_json:
            _echo_json(found)
        else:
            _echo_table(("records",), variable, [((f"{row.records:,}",), _json(row.value)) for row in found])
        if not found and not as_json:
            say(f"No record was found with the variable {variable!r}.", *hints(wanted), err=True)


@chest_group.command("stats")
@click.argument("variable")
@click.option("--by", type=click.Choice(["route"]), help="A line for each route.")
@click.option("--by-variable", metavar="NAME", help="A line for each value of this variable.")
@asking
@within
@json_option
def stats(
    *, variable: str, by: Literal["route"] | None, by_variable: str | None, as_json: bool, **asked: Any
) -> None:
    """Show mean, minimum and maximum of VARIABLE where it is a number, and how many records that are.

    VARIABLE may be a field of each record, too: duration_ns, in nanoseconds, or status_code.

    \b
    Example: flask --app shop chest stats cart_total --since 7d --where plan=pro
    Example: flask --app shop chest stats duration_ns --by route
    Example: flask --app shop chest stats cart_total --by-variable plan
    """  # noqa: D301
    if by is not None and by_variable is not None:
        raise click.UsageError("--by and --by-variable exclude each other: give one of them.")
    group: GroupBy | None = by if by_variable is None else Variable(by_variable)
    wanted = question(**asked)
    for chest in the_chests():
        if variable in FIELDS:
            found: Sequence[Summary] = sum_up(_with_field(chest, wanted, variable), variable, by=group)
        else:
            found = _answers(chest, lambda store: store.summarise(variable, wanted, by=group))
        if as_json:
            _echo_json(found)
        else:
            rows = [(_numbers(row), _label(row, group)) for row in found]
            _echo_table(("records", "mean", "minimum", "maximum"), by or by_variable or "", rows)
        if not found and not as_json:
            say(f"No record was found with a number in {variable!r}.", *hints(wanted), err=True)


def _with_field(chest: FlaskChest, wanted: Query, field: str) -> Iterator[Record]:
    """Yield the records that match, with *field* among their variables: stores count variables alone."""
    for record in answers(chest, wanted, timeout=None):
        value: JSONValue = getattr(record, field)
        if value is not None:
            yield msgspec.structs.replace(record, variables={**record.variables, field: value})


def _answers(chest: FlaskChest, ask: Callable[[Statistics], Sequence[Row]]) -> Sequence[Row]:
    """Ask the store of *chest*: nothing where there is none yet; exit where it cannot."""
    store = chest._state.here.store
    if not isinstance(store, Statistics):
        raise CapabilityMissing(store, "Statistics")
    with suppress(StoreAbsent), asking_store():
        return ask(store)
    return []


def _echo_json(rows: Iterable[ValueCount] | Iterable[Summary]) -> None:
    for row in rows:
        say_json(row)


def _echo_table(names: Sequence[str], title: str, rows: Sequence[tuple[Sequence[str], str]]) -> None:
    """Write *rows*, their numbers under *names* and what these are of under *title*; nothing without rows."""
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(names, *(numbers for numbers, _ in rows), strict=True)]
    for numbers, label in ((names, title), *rows):
        cells = [number.rjust(width) for number, width in zip(numbers, widths, strict=True)]
        say("  ".join([*cells, label] if label else cells))


def _numbers(row: Summary) -> tuple[str, ...]:
    return (f"{row.records:,}", *(f"{number:.10g}" for number in (row.mean, row.minimum, row.maximum)))


def _label(row: Summary, group: GroupBy | None) -> str:
    if group is None:
        return ""
    return _json(row.group) if isinstance(group, Variable) else str(row.group or "-")


def _json(value: JSONValue) -> str:
    return msgspec.json.encode(value).decode()
