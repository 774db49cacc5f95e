"""``/records``: the records that match, newest first."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flask_chest.errors import ConfigurationError
from flask_chest.extension.record_text import fields_of
from flask_chest.record import Record
from flask_chest.viewer._asking import Ask, Parameter
from flask_chest.viewer._filters import Filters, shell_command

PAGE_SIZE = 50
PERIODS = ("15m", "1h", "6h", "24h", "7d", "30d")


@dataclass(frozen=True, slots=True)
class RecordsPage:
    """One page of the records."""

    filters: Filters
    records: list[Record]
    older: str | None
    """Address of the next page."""
    is_first: bool
    template: str = "records.html"

    @property
    def periods(self) -> tuple[str, ...]:
        """Spans of time to choose from."""
        return PERIODS

    @property
    def command(self) -> str:
        """The command that asks the same."""
        return shell_command("flask", "chest", "query", *self.filters.options(), "--limit", str(PAGE_SIZE))

    @property
    def python(self) -> str:
        """The call of Python that asks the same."""
        return f"chest.query({', '.join([*self.filters.arguments(), f'limit={PAGE_SIZE}'])})"

    def as_json(self) -> object:
        """Return the records, and where the next ones are."""
        return {"records": [fields_of(record) for record in self.records], "older": self.older}


def show(ask: Ask) -> RecordsPage:
    """Ask for a page of records."""
    filters = Filters.read(ask.given)
    before = read_cursor(ask.given)
    ask.given.check_taken()
    records, more = ask.page_of_records(filters.query, before=before, size=PAGE_SIZE)
    return RecordsPage(
        filters=filters,
        records=records,
        older=ask.links.to("records", filters.with_(before=cursor_of(records[-1]))) if more else None,
        is_first=before is None,
    )


def cursor_of(record: Record) -> str:
    """Write where a page ends, for the address of the next one."""
    return f"{record.time_unix_nano}-{record.id}"


def read_cursor(given: Parameter) -> tuple[int, str] | None:
    """Take the time and id after which a page begins; ``None`` for the first one."""
    text = given.one("before")
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,20})-(.+)", text, re.ASCII)
    if found is None:
        raise ConfigurationError("before must be the time and the id of a record, as the page itself writes it")
    return int(found[1]), found[2]
