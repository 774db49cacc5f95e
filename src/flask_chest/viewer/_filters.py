"""What a page asks of records: read from its address, written into others, and as a command and as Python."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from flask_chest._clocks import nanoseconds
from flask_chest.aggregates import Variable
from flask_chest.capture.tracking import known_method
from flask_chest.errors import ConfigurationError
from flask_chest.extension.conditions import Asked, parse_condition, written
from flask_chest.extension.question_text import Status, parse_status, parse_time, span, told_apart
from flask_chest.record import Bound, Condition, OneOf, Query
from flask_chest.viewer._asking import Parameter, Parameters
from flask_chest.viewer._format import iso

MAX_FILTERS = 8
USUAL_PERIOD = "24h"
_TEXTS = ("route", "method", "status", "error", "request_id", "trace_id", "since", "until")


@dataclass(frozen=True, slots=True)
class Chip:
    """A filter as people read it, and what it is in an address."""

    name: str
    text: str
    parameter: str
    value: str


@dataclass(frozen=True, slots=True)
class Filters:
    """What narrows records, as it stands in an address; `query` is what it means."""

    route: str | None = None
    method: str | None = None
    status: str | None = None
    error: str | None = None
    request_id: str | None = None
    trace_id: str | None = None
    since: str | None = None
    until: str | None = None
    errors: bool = False
    where: tuple[tuple[str, Asked], ...] = ()
    query: Query = field(default_factory=Query)

    @classmethod
    def read(cls, given: Parameter) -> Filters:
        """Take the filters from the parameters that were *given*."""
        texts = {name: given.one(name) for name in _TEXTS}
        errors, where = given.flag("errors"), tuple(map(parse_condition, given.several("where")))
        return cls(errors=errors, where=where).changed(**texts).checked()

    def checked(self) -> Filters:
        """Return the filters with the query that they mean.

        Raise `ConfigurationError` for what means nothing, and for too many.
        """
        if len(self.chips) > MAX_FILTERS:
            raise ConfigurationError(f"there are {len(self.chips)} filters, and at most {MAX_FILTERS} are taken")
        return replace(self, query=self._meant())

    def changed(self, **texts: str | None) -> Filters:
        """Return the filters with other texts, unchecked."""
        return replace(self, **texts)  # type: ignore[arg-type]  # those of _TEXTS are texts

    def of_a_period(self) -> Filters:
        """Return the filters with a beginning: where they name none, the usual period before their end."""
        if self.since is not None:
            return self
        until = self.query.until_unix_nano
        since = USUAL_PERIOD if until is None else iso(until - nanoseconds(span(USUAL_PERIOD)))
        return self.changed(since=since).checked()

    def _meant(self) -> Query:
        status = parse_status(self.status) if self.status is not None else Status()
        since = parse_time(self.since) if self.since is not None else None
        until = parse_time(self.until) if self.until is not None else None
        if since is not None and until is not None and since >= until:
            raise ConfigurationError("since must be before until")
        values, conditions = told_apart(self.where)
        return Query(
            route=self.route,
            method=known_method(self.method) if self.method is not None else None,
            status_code=status.code,
            status_class=status.digit,
            request_id=self.request_id,
            trace_id=self.trace_id,
            errors=self.errors,
            error=self.error,
            since_unix_nano=since,
            until_unix_nano=until,
            where=values,
            conditions=conditions,
        )

    @property
    def parameters(self) -> Parameters:
        """The filters as parameters of an address."""
        return _in_address(self.chips)

    def with_(self, **changes: str | None) -> Parameters:
        """Return the parameters with some changed; ``None`` takes one out."""
        kept = {name: value for name, value in self.parameters.items() if name not in changes}
        return {**kept, **{name: value for name, value in changes.items() if value is not None}}

    def and_where(self, name: str, asked: Asked) -> Filters:
        """Return the filters with one condition more, unless it is there."""
        there = {written(*each) for each in self.where}
        return self if written(name, asked) in there else replace(self, where=(*self.where, (name, asked)))

    @property
    def chips(self) -> list[Chip]:
        """The filters one by one."""
        found = [
            Chip(name.replace("_", " "), value, name, value) for name in _TEXTS if (value := getattr(self, name))
        ]
        if self.errors:
            found.append(Chip("errors", "only", "errors", "1"))
        texts = [written(name, asked) for name, asked in self.where]
        return [*found, *(Chip("where", text, "where", text) for text in texts)]

    @property
    def beyond_period(self) -> bool:
        """Whether there are filters beside the period."""
        return any(chip.parameter not in {"since", "until"} for chip in self.chips)

    def without(self, chip: Chip) -> Parameters:
        """Return the parameters but for one filter."""
        return _in_address(each for each in self.chips if each != chip)

    def options(self) -> Iterator[str]:
        """Yield the options of a command that asks the same."""
        for name in ("request_id", "trace_id", "route", "method", "status", "error"):
            if (value := getattr(self, name)) is not None:
                yield from (f"--{name.replace('_', '-')}", value)
        if self.errors:
            yield "--errors"
        for name, asked in self.where:
            yield from ("--where", written(name, asked))
        for name in ("since", "until"):
            if (value := getattr(self, name)) is not None:
                yield from (f"--{name}", value)

    def arguments(self) -> Iterator[str]:
        """Yield the arguments of Python's ``chest.query`` that ask the same."""
        asked = self.query
        for name in ("request_id", "trace_id", "route", "method", "status_code", "status_class", "error"):
            if (value := getattr(asked, name)) is not None:
                yield f"{name}={value!a}"
        if asked.errors:
            yield "errors=True"
        if self.where:
            yield f"where={python_where(asked)}"
        for name, unix_nano in (("since", asked.since_unix_nano), ("until", asked.until_unix_nano)):
            if unix_nano is not None:
                yield f"{name}=datetime.fromisoformat({iso(unix_nano)!a})"


def _in_address(chips: Iterable[Chip]) -> Parameters:
    found: dict[str, list[str]] = {}
    for chip in chips:
        found.setdefault(chip.parameter, []).append(chip.value)
    return found


def python_where(query: Query) -> str:
    """Write what *query* asks of variables as the ``where=`` of Python."""
    asked: dict[str, list[str]] = {name: [ascii(value)] for name, value in query.where.items()}
    for name, condition in query.conditions:
        asked.setdefault(name, []).append(python_condition(condition))
    written_out = {name: each[0] if len(each) == 1 else f"({', '.join(each)})" for name, each in asked.items()}
    items = (f"{name!a}: {each}" for name, each in written_out.items())
    return f"{{{', '.join(items)}}}"


def python_condition(condition: Condition) -> str:
    """Write *condition* as the call that makes it."""
    if isinstance(condition, Bound):
        return f"{condition.operator}({condition.value!a})"
    if isinstance(condition, OneOf):
        return f"one_of({', '.join(map(ascii, condition.values))})"
    return "is_set()"


def python_key(key: object) -> str:
    """Write a column, or a variable as the call that makes it."""
    return f"Variable({key.name!a})" if isinstance(key, Variable) else ascii(key)


def shell_command(*words: str) -> str:
    """Write a command that a shell takes as it is meant; what a terminal would obey stands in ``$'…'``."""
    return " ".join(
        shlex.quote(word) if word.isprintable() else f"$'{''.join(map(_ansi_c, word))}'" for word in words
    )


def _ansi_c(letter: str) -> str:
    if letter in "\\'":
        return f"\\{letter}"
    if letter.isprintable():
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogatepass"))
