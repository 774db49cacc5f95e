"""What may be as it should be with an app and its chests, and is worth a look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from flask import Flask

from flask_chest.cli._formats import amount
from flask_chest.cli.status import report_of
from flask_chest.extension import chests_of
from flask_chest.plan import Plan
from flask_chest.protocols import Addressed
from flask_chest.record import Query, Record
from flask_chest.redaction import NOTHING_HIDDEN

NEWEST = 200
"""Records that are looked at for what is asked for and never set."""


def _nothing_recorded_yet(app: Flask) -> Iterator[str]:
    for chest in chests_of(app):
        if (absent := report_of(chest).absent) is not None:
            yield f"Nothing is recorded yet: {absent}"


def _same_tables(app: Flask) -> Iterator[str]:
    stores = [chest.binding().store for chest in chests_of(app)]
    for count in Counter(store.address for store in stores if isinstance(store, Addressed)).values():
        if count > 1:
            yield f"{count} chests keep their records in the same tables: what both record is there twice."


def _never_set(app: Flask) -> Iterator[str]:
    for chest in chests_of(app):
        newest: list[Record] = []
        with suppress(Exception):  # what a store raises is said elsewhere
            newest += chest.binding().store.query(Query(limit=NEWEST))
        sound = (each for each in newest if each.error is None and each.endpoint is not None)
        for (endpoint, route, method), found in _by_route(sound).items():
            view = app.view_functions.get(endpoint or "")
            plan = Plan.make([chest.binding()], app, view, endpoint=endpoint, route=route, method=method)
            for variable in (each for asked in plan.asked for each in asked.capture.variables):
                hidden = variable.verdict is not NOTHING_HIDDEN
                if not hidden and not any(variable.key in record.variables for record in found):
                    yield (
                        f"{method} {route} asks for {variable.name!r}, which is in none of its last "
                        f"{amount(len(found))}: is it set on g, and spelt so?"
                    )


def _by_route(records: Iterable[Record]) -> Mapping[tuple[str | None, str | None, str], Sequence[Record]]:
    found: dict[tuple[str | None, str | None, str], list[Record]] = {}
    for record in records:
        found.setdefault((record.endpoint, record.route, record.method), []).append(record)
    return found


NOTES = (_nothing_recorded_yet, _same_tables, _never_set)
