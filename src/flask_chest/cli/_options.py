"""Options that ask for records, the same for every command."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, timedelta, tzinfo
from functools import wraps
from typing import Protocol, TypeVar

import click

from flask_chest.capture.tracking import known_method
from flask_chest.errors import ConfigurationError
from flask_chest.extension.conditions import Asked, parse_condition, written
from flask_chest.extension.question_text import Status, parse_status, parse_time, parse_zone, span, told_apart
from flask_chest.extension.questions import checked_timeout
from flask_chest.record import FIELDS, Bound, Query

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., object])


def said(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return *parse* as the type of an option, whose `ConfigurationError` is said of the option."""

    @wraps(parse)
    def convert(text: str) -> T:
        try:
            return parse(text)
        except ConfigurationError as exc:
            raise click.BadParameter(str(exc)) from None

    return convert


class AddsOptions(Protocol):
    """Adds options to a command."""

    def __call__(self, command: Command, /) -> Command:
        """Return *command* with them."""
        ...


def all_of(*options: AddsOptions) -> AddsOptions:
    """Return what adds all of *options*, which ``--help`` shows in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON object in each line, for programs."
)


chest_option = click.option("--chest", "name", help="Name of the chest that is meant, where the app has several.")


zone_option = click.option(
    "--tz",
    "zone",
    type=said(parse_zone),
    metavar="ZONE",
    default="UTC",
    show_default=True,
    is_eager=True,  # times are read in it
    help="Time zone in which times are read and printed, as Europe/Berlin.",
)


def zone_said() -> tzinfo:
    """Return the zone of `zone_option` of the command that runs; UTC where none does."""
    context = click.get_current_context(silent=True)
    zone: tzinfo = UTC if context is None else context.params.get("zone", UTC)
    return zone


@said
def _moment(text: str) -> int:
    """Read a time, in the zone of `zone_option`, as the type of an option."""
    return parse_time(text, zone_said())


def since_option(what: str, *, required: bool = False) -> Callable[[Command], Command]:
    """Return what adds the option that says from when on *what* begins; it needs `zone_option` beside it."""
    return click.option(
        "--since",
        type=_moment,
        metavar="TIME",
        required=required,
        help=(
            f"{what} since '2026-11-23 14:00', in the zone of --tz unless it says +01:00; since today or "
            "yesterday began there; or since 2h or 1d12h ago."
        ),
    )


def until_option(what: str) -> Callable[[Command], Command]:
    """Return what adds the option that says before when *what* ends, beside `since_option`."""
    return click.option(
        "--until", type=_moment, metavar="TIME", help=f"{what} before this time, written the same way."
    )


def check_span(since: int | None, until: int | None) -> None:
    """Raise ``UsageError`` unless *since* is before *until*."""
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since must be before --until")


def hints(asked: Query) -> Iterator[str]:
    """Suggest why a query matched nothing."""
    for name, value in (*asked.where.items(), *asked.conditions):
        if name in FIELDS:
            yield f"{name} is a field of every record, not a variable: see --help for its option."
        elif value is None or isinstance(value, bool | int | float):
            as_text = written(name, json.dumps(value))
            yield f"{written(name, value)} matches no string: if {name} is recorded as one, ask '{as_text}'."
        elif isinstance(value, Bound) and not isinstance(value.value, str):
            yield f"{written(name, value)} compares numbers: a string, as of digits, is neither more nor less."


asking = all_of(
    click.option("--request-id", help="Only records with this request id."),
    click.option("--trace-id", help="Only records of this trace."),
    click.option("--route", help="Only records of this URL rule, as in /users/<int:id>."),
    click.option("--method", help="Only records with this HTTP method, in any case."),
    click.option(
        "--status",
        type=said(parse_status),
        metavar="CODE",
        help="Only records with this status code, as 404, or with one that begins so, as 5xx.",
    ),
    click.option(
        "--errors",
        is_flag=True,
        help="Only requests that ended in an exception, or with a status from 500 on.",
    ),
    click.option("--error", help="Only requests with this exception, as KeyError."),
    click.option(
        "--where",
        multiple=True,
        type=said(parse_condition),
        metavar="CONDITION",
        help=(
            "Only records with such a variable: user_id=7, 'price>=100' (or > < <=), 'plan in pro,free' "
            "or 'user_id is set'. Values are JSON where they are JSON, as 'user_id=\"7\"', else texts; a "
            "name that holds an operator is quoted as '\"a=b\"=7'. Repeatable: all must hold."
        ),
    ),
)
"""Adds the options that narrow which records are meant, but for a span of time."""

within = all_of(since_option("Only records"), until_option("Only records"), zone_option)
"""Adds the options for a span of time, and for the zone in which times are read and printed."""


def _timeout(text: str) -> timedelta | None:
    if text in {"none", "0"}:
        return None
    try:
        return checked_timeout(span(text))
    except ConfigurationError:
        raise ConfigurationError(f"{text!r} is not a time to wait; write 30s, 5m or 2h, or none") from None


limited = click.option(
    "--timeout",
    type=said(_timeout),
    metavar="TIME",
    default="30s",
    show_default=True,
    help="Give up when the database has worked so long on the answer, as 30s or 5m; none for no limit.",
)
"""Adds the option for how long the store may work on an answer; it comes as a ``timedelta`` or ``None``."""


def question(
    *,
    request_id: str | None,
    trace_id: str | None,
    route: str | None,
    method: str | None,
    status: Status | None,
    errors: bool,
    error: str | None,
    where: Sequence[tuple[str, Asked]],
    since: int | None = None,
    until: int | None = None,
    limit: int | None = None,
) -> Query:
    """Return the query that the options of `asking` and `within` describe."""
    check_span(since, until)
    try:
        values, conditions = told_apart(where)
    except ConfigurationError as exc:
        raise click.UsageError(f"--where {exc}") from None
    return Query(
        request_id=request_id,
        trace_id=trace_id,
        route=route,
        method=known_method(method) if method is not None else None,
        status_code=status.code if status is not None else None,
        status_class=status.digit if status is not None else None,
        errors=errors,
        error=error,
        where=values,
        conditions=conditions,
        since_unix_nano=since,
        until_unix_nano=until,
        limit=limit,
    )
