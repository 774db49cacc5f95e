"""Questions of users, checked and made into a `Query`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypedDict

import msgspec

from flask_chest._clocks import nanoseconds
from flask_chest.capture.tracking import known_method
from flask_chest.errors import ConfigurationError
from flask_chest.record import Condition, OneOf, Query, Where, same_value

DEFAULT_TIMEOUT = timedelta(seconds=30)
"""How long a store works on an answer at most, unless a caller says otherwise."""


class RecordFilters(TypedDict, total=False):
    """What narrows which records are meant; what is ``None`` or left out does not.

    *since* is inclusive, *until* exclusive; both must have a time zone. *where* compares variables by exact value
    and type (1, 1.0 and ``True`` differ), or holds conditions, as in ``{"price": ge(100)}``: those of `gt`, `ge`,
    `lt`, `le`, `one_of` and `is_set`, or a tuple of several. *status_class* is the first digit of a status code,
    as 5 for 500 to 599; with *errors*, only requests that ended in an exception or with a status from 500 on;
    *error* is the exception as it was recorded, ``"KeyError"`` or, where messages are kept, with its message.
    """

    id: str | None
    request_id: str | None
    trace_id: str | None
    route: str | None
    method: str | None
    status_code: int | None
    status_class: int | None
    errors: bool
    error: str | None
    since: datetime | None
    until: datetime | None
    where: Where


class Filters(RecordFilters, total=False):
    """What narrows the answer of `FlaskChest.query`: `RecordFilters`, and *limit*, ``None`` for all.

    *timeout* is how long the store may work on the answer, 30 seconds unless said; ``None`` is no limit.
    """

    limit: int | None
    timeout: timedelta | None


def query_of(filters: RecordFilters) -> Query:
    """Return the query for *filters*, without a limit unless they set one.

    Raises `ConfigurationError` for a value of the wrong type, which would match nothing.
    """
    asked: dict[str, object] = {"limit": None, **filters}
    where = asked.pop("where", {})
    for name in ("since", "until"):
        asked[f"{name}_unix_nano"] = _unix_nano(asked.pop(name, None), name)
    asked["where"], asked["conditions"] = _told_apart(where)
    method = asked.get("method")
    if isinstance(method, str):
        asked["method"] = known_method(method)
    try:
        query = msgspec.convert(asked, Query)
    except msgspec.ValidationError as exc:
        raise ConfigurationError(f"invalid query: {exc}") from None
    if query.limit is not None and query.limit < 0:
        raise ConfigurationError(f"limit must be 0 or more, or None for all, got {query.limit!r}")
    return query


def checked_timeout(timeout: object) -> timedelta | None:
    """Return *timeout*; raise `ConfigurationError` unless it is more than no time, or ``None`` for no limit."""
    if timeout is None:
        return None
    if not isinstance(timeout, timedelta) or timeout <= timedelta(0):
        raise ConfigurationError(
            f"timeout must be a timedelta of more than 0, as in timedelta(seconds=30), or None, got {timeout!r}"
        )
    return timeout


def _told_apart(where: object) -> tuple[dict[str, object], tuple[tuple[str, Condition], ...]]:
    if not isinstance(where, Mapping):
        raise ConfigurationError(
            f'where must map variables to values, as in {{"user_id": 7}}, got a {type(where).__name__}'
        )
    wanted: dict[str, object] = {}
    conditions: list[tuple[str, Condition]] = []
    for name, value in where.items():
        if isinstance(value, Condition):
            conditions.append((name, value))
        elif not isinstance(value, tuple):
            wanted[name] = value
        elif value and all(isinstance(each, Condition) for each in value):
            conditions += ((name, each) for each in value)
        else:
            types = ", ".join(type(each).__name__ for each in value)  # not the values, which may be private
            raise ConfigurationError(
                f"where: {name!r} must be a value, or conditions as in (ge(1), lt(9)), got ({types}); "
                "any of several values are one_of(1, 2)"
            )
    return wanted, tuple(conditions)


def without_one_of(question: Query) -> Iterator[Query]:
    """Yield a query for each value that *question* leaves open: what is forgotten is remembered by its digest."""
    for place, (name, asked) in enumerate(question.conditions):
        if isinstance(asked, OneOf):
            others = question.conditions[:place] + question.conditions[place + 1 :]
            for value in asked.values:
                if name not in question.where or same_value(question.where[name], value):
                    narrower = msgspec.structs.replace(
                        question, where={**question.where, name: value}, conditions=others
                    )
                    yield from without_one_of(narrower)
            return
    yield question


def _unix_nano(moment: object, name: str) -> int | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        raise ConfigurationError(f"{name} must be a datetime, as in datetime.now(UTC), got {moment!r}")
    if moment.tzinfo is None:
        raise ConfigurationError(f"{name} must have a time zone, as in datetime.now(UTC), got {moment!r}")
    return nanoseconds(moment - datetime(1970, 1, 1, tzinfo=UTC))
