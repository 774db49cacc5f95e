"""``/records/<id>``: all that is known of one request, and what happened around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from flask_chest.errors import printable
from flask_chest.extension.conditions import written
from flask_chest.extension.record_text import fields_of
from flask_chest.record import JSONValue, Query, Record
from flask_chest.viewer._asking import Ask, Refusal
from flask_chest.viewer._filters import shell_command
from flask_chest.viewer._format import shortened

AROUND_NANO = 15 * 60 * 1_000_000_000
"""How far before and after a request its neighbours are looked for."""
NEIGHBOURS = 10


@dataclass(frozen=True, slots=True)
class Related:
    """Records that have something in common with the one that is shown."""

    title: str
    records: Sequence[Record]
    link: str
    """Address of all of them."""
    is_cut: bool


@dataclass(frozen=True, slots=True)
class RecordPage:
    """One record."""

    record: Record
    trace_link: str | None
    explanations: Sequence[str]
    """What was hidden or cut, and why."""
    related: Sequence[Related]
    units: Mapping[str, str]
    """Unit of each declared variable that has one."""
    template: str = "record.html"

    @property
    def command(self) -> str:
        """The command that shows the same."""
        return shell_command("flask", "chest", "show", self.record.request_id)

    @property
    def python(self) -> str:
        """The call of Python that finds it."""
        return f"chest.query(id={self.record.id!a})"

    def condition(self, name: str, value: JSONValue) -> str:
        """Return the condition that finds the records with this value."""
        return written(name, value)

    def as_json(self) -> object:
        """Return the record and what is told of it."""
        return {
            "record": fields_of(self.record),
            "trace_link": self.trace_link,
            "explanations": list(self.explanations),
        }


def show(ask: Ask) -> RecordPage:
    """Find the record of the path and what is around it."""
    ask.given.check_taken()
    wanted = ask.path["record_id"]
    record = next(ask.records(Query(id=wanted, limit=1)), None)
    if record is None:
        raise Refusal(404, "No such record", "It was deleted since, or it was never kept under this id.")
    return RecordPage(
        record=record,
        trace_link=ask.chest.trace_link(record),
        explanations=ask.chest.explain(record),
        related=[each for each in _related(ask, record) if each is not None],
        units=ask.units,
    )


def _related(ask: Ask, record: Record) -> Iterator[Related | None]:
    """Yield what has something in common with *record*, as far as an index finds it."""
    request_id = {"request_id": record.request_id}
    found = _others(ask, record, Query(request_id=record.request_id))
    yield _shown("The same request id", found, ask.links.to("records", request_id))
    if record.trace_id is not None:
        found = _others(ask, record, Query(trace_id=record.trace_id))
        yield _shown("The same trace", found, ask.links.to("records", {"trace_id": record.trace_id}))
    since, until = record.time_unix_nano - AROUND_NANO, record.time_unix_nano + AROUND_NANO
    for name in ask.indexed[:1]:  # the one that was named first tells best whose request it was
        value = record.variables.get(name)
        if value is None or isinstance(value, list | dict):
            continue
        around = Query(where={name: value}, since_unix_nano=since, until_unix_nano=until)
        text = shortened(printable(written(name, value)), 60)
        link = ask.links.to("timeline", {"where": [written(name, value)]})
        yield _shown(f"Within 15 min: {text}", _others(ask, record, around), link)


def _others(ask: Ask, record: Record, query: Query) -> list[Record]:
    """Return what else matches *query*; nothing where the page has no time left for that."""
    asked = msgspec.structs.replace(query, limit=NEIGHBOURS + 2)
    found = ask.within_limit(lambda: list(ask.records(asked))) or []
    return [each for each in found if each.id != record.id]


def _shown(title: str, found: Sequence[Record], link: str) -> Related | None:
    """Return what is shown of *found*, or ``None`` if there is nothing."""
    return Related(title, found[:NEIGHBOURS], link, len(found) > NEIGHBOURS) if found else None
