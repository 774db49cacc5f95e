"""``/timeline?user_id=7``: what one user, cart or job did, request by request, with the pauses between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from flask_chest.errors import ConfigurationError
from flask_chest.extension.conditions import Asked, parse_condition, written
from flask_chest.extension.record_text import fields_of
from flask_chest.record import Condition, Record
from flask_chest.viewer._asking import Ask
from flask_chest.viewer._filters import Filters, shell_command
from flask_chest.viewer._format import value_text
from flask_chest.viewer.pages.records import Listing, cursor_of, read_cursor

PAGE_SIZE = 100
PAUSE_NANO = 30 * 60 * 1_000_000_000
"""Time without a request after which another visit begins."""


@dataclass(frozen=True, slots=True)
class Visit:
    """Requests that follow each other closely, newest first."""

    records: Sequence[Record]
    pause_nano: int | None
    """Time since the visit before, where that is on the page."""

    @property
    def length_nano(self) -> int:
        """Time from the beginning of the first request to the end of the last."""
        last = self.records[0]
        return last.time_unix_nano + last.duration_ns - self.records[-1].time_unix_nano


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelinePage(Listing):
    """What the records with one value of a variable tell, in their order."""

    subject: str
    """The conditions that all records meet, for people; empty where nobody is asked for yet."""
    visits: Sequence[Visit]
    indexed: Sequence[str]
    not_indexed: Sequence[str]
    """Variables that are asked for and have no index, so that many records are read."""
    template: str = "timeline.html"

    @property
    def only(self) -> tuple[str, str]:
        """The one variable and value that is asked for, as the form takes them."""
        values = [(name, asked) for name, asked in self.filters.where if not isinstance(asked, Condition)]
        return (
            (values[0][0], value_text(values[0][1])) if len(values) == len(self.filters.where) == 1 else ("", "")
        )

    @property
    def index_command(self) -> str:
        """The command that makes an index on the first variable without one."""
        return shell_command("flask", "chest", "index", "add", *self.not_indexed[:1])

    def as_json(self) -> object:
        """Return the records, and where the next ones are."""
        records = [fields_of(record) for visit in self.visits for record in visit.records]
        return {"records": records, "older": self.older}


def show(ask: Ask) -> TimelinePage:
    """Ask for the records that have the values of the address."""
    before = read_cursor(ask.given)
    variable, value = ask.given.one("variable"), ask.given.one("value")
    since, until = ask.given.one("since"), ask.given.one("until")
    conditions = [parse_condition(text) for text in ask.given.several("where")]
    if variable is not None and value is not None:  # as the form sends them
        conditions.append(_condition(variable, value))
    for name, values in ask.given.rest().items():
        conditions += (_condition(name, each) for each in values)
    filters = Filters(where=tuple(conditions), since=since, until=until).checked()
    records: list[Record] = []
    more = False
    if conditions:
        records, more = ask.page_of_records(filters.query, before=before, size=PAGE_SIZE)
    return TimelinePage(
        subject=", ".join(written(*each) for each in conditions),
        filters=filters,
        limit=PAGE_SIZE,
        visits=list(visits_of(records)),
        older=ask.links.to("timeline", filters.with_(before=cursor_of(records[-1]))) if more else None,
        is_first=before is None,
        indexed=ask.indexed,
        not_indexed=[name for name, _ in conditions if name not in ask.indexed],
    )


def visits_of(records: Sequence[Record]) -> Iterator[Visit]:
    """Part *records*, newest first, where nothing happened for long."""
    begin = 0
    for at, (later, earlier) in enumerate(pairwise(records), start=1):
        pause = later.time_unix_nano - (earlier.time_unix_nano + earlier.duration_ns)
        if pause > PAUSE_NANO:
            yield Visit(records[begin:at], pause)
            begin = at
    if records:
        yield Visit(records[begin:], None)


def _condition(name: str, text: str) -> tuple[str, Asked]:
    """Read ``user_id=7`` of an address; the value is JSON where it is JSON, as with ``--where``."""
    if not name:
        raise ConfigurationError("a variable must have a name, as in ?user_id=7")
    found, asked = parse_condition(f"{written(name, None).removesuffix('null')}{text}")
    return found, asked
