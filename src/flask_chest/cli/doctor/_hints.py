"""Doctor hints: things that may be intended but deserve a look."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from flask import Flask

from flask_chest import health
from flask_chest.capture.extractor import CapturedName
from flask_chest.capture.redaction import NOTHING_HIDDEN
from flask_chest.cli.index import unfinished
from flask_chest.extension.chest import FlaskChest, chests_of
from flask_chest.extension.report import report_of
from flask_chest.extension.route_plan import RoutePlan
from flask_chest.journal.accounts import who_else_may_write
from flask_chest.protocols import Addressed, FlatViews, HasNeighbours, VariableIndexes
from flask_chest.record import Query, Record

NEWEST = 200
"""Records that are looked at for what is asked for and never set."""
ENOUGH = 20
"""Number of records that must lack a name before its absence is remarked on."""
SHOWN = 3
ALEMBICS_TABLE = "alembic_version"
_NOT_THE_VIEWS = ("OPTIONS", "")
"""Methods that Flask answers by itself, without the view that sets the variables."""

_ROUTED = re.compile("ready|readiness|live|healthz")
"""Names of routes by which a balancer decides whether to send requests to a process."""


def nothing_recorded_yet(chest: FlaskChest) -> Iterator[str]:
    if (absent := report_of(chest).absent) is not None:
        yield f"Nothing is recorded yet: {absent}"


def same_tables(app: Flask) -> Iterator[str]:
    stores = [chest._state.here.store for chest in chests_of(app)]
    for count in Counter(store.address for store in stores if isinstance(store, Addressed)).values():
        if count > 1:
            yield f"{count} chests keep their records in the same tables: what both record is there twice."


def without_index(chest: FlaskChest) -> Iterator[str]:
    store, names = chest._state.here.store, chest._state.derived().indexed
    if not isinstance(store, VariableIndexes):
        if names:
            yield f"{type(store).__name__} makes no indexes on variables: {', '.join(names)} cannot be indexed."
        return
    with suppress(Exception):  # what a store raises is said elsewhere
        there = store.indexes()
        for index in there:
            if not index.valid:
                yield f"{index.variable} has the index {index.name}, {unfinished(index.variable)}."
        for name in names:
            if name not in {index.variable for index in there}:
                yield (
                    f"{name} should be indexed and is not, as there were records already: run flask chest "
                    f"index add {name}. Until then a search by it reads all records of its span of time."
                )


def without_view(chest: FlaskChest) -> Iterator[str]:
    store = chest._state.here.store
    if not isinstance(store, FlatViews):
        return
    with suppress(Exception):  # what a store raises is said elsewhere
        for declaration in chest._state.derived().views:
            name, found = store.view_name(declaration), store.view_state(declaration)
            if found != "same":
                why = "is missing" if found == "absent" else "is of another declaration"
                yield (
                    f"The view {name} of {declaration.declared.__name__} {why}: run flask chest migrate, once no "
                    "process of an earlier release of the app needs it as it is."
                )


def journal_of_others(chest: FlaskChest) -> Iterator[str]:
    folder = chest._state.here.journal_config.folder
    if folder is not None and (others := who_else_may_write(folder)) is not None:
        yield (
            f"{others}, who may read, remove and forge what waits there, as is usual "
            "where accounts share a volume. Else give it to the account of the app."
        )


def routed_by_losses(app: Flask) -> Iterator[str]:
    for rule in app.url_map.iter_rules():
        view = app.view_functions.get(rule.endpoint)
        if getattr(view, "__module__", None) == health.__name__ and _ROUTED.search(rule.rule):
            yield (
                f"{rule.rule} answers 503 in every process while records are lost. Alert on it; let balancers "
                "and orchestrators ask a route of the app's own, or all processes leave service at once."
            )


def errors_outweigh(chest: FlaskChest) -> Iterator[str]:
    sampling = chest._state.sampling
    if sampling is not None and (sampling.keep_errors or sampling.keep_slower_than_ns is not None):
        yield (
            "sample keeps a share of the requests, but keep_errors or keep_slower_than keeps every failed or "
            "slow one: the records hold a larger share of them than the requests. flask chest aggregate and the "
            "viewer count each record for 1 / sample_rate requests: do the same in SQL of your own."
        )


def never_set(chest: FlaskChest) -> Iterator[str]:
    newest: list[Record] = []
    with suppress(Exception):  # what a store raises is said elsewhere
        newest += chest._state.here.store.query(Query(limit=NEWEST))
    there = {name for record in newest for name in record.variables}
    routes: dict[str, list[str]] = {}
    for record in newest:
        if record.error is None and record.endpoint is not None and record.method not in _NOT_THE_VIEWS:
            for variable in _asked_by_name(chest, record):
                if variable.key not in there:
                    routes.setdefault(variable.name, []).append(f"{record.method} {record.route}")
    for name, asking in routes.items():
        if len(asking) >= ENOUGH:
            known = sorted(set(asking))
            more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
            yield (
                f"{name!r} is tracked, but in none of the last {len(asking)} records of "
                f"{', '.join(known[:SHOWN])}{more}: is it set on g, under this name?"
            )


def _asked_by_name(chest: FlaskChest, record: Record) -> Iterator[CapturedName]:
    """Yield what a record like *record* is to hold; what redaction may drop cannot be missed."""
    app = chest._app()
    plan = RoutePlan.make(
        [chest._state],
        app,
        app.view_functions.get(record.endpoint or ""),
        endpoint=record.endpoint,
        route=record.route,
        method=record.method,
    )
    for asked in plan.asked:
        yield from (each for each in asked.capture.variables if each.verdict is NOTHING_HIDDEN)


def migrated_by_alembic(chest: FlaskChest) -> Iterator[str]:
    if "flask_chest.alembic" in sys.modules:
        return
    with suppress(OSError):
        if any("flask_chest.alembic" in env.read_text("utf-8", "replace") for env in Path().glob("*/env.py")):
            return
    store = chest._state.here.store
    with suppress(Exception):  # what a store raises is said elsewhere
        if isinstance(store, HasNeighbours) and store.has_table(ALEMBICS_TABLE):
            yield (
                f"Alembic migrates the database of {store!r}, and would drop the tables of the chest, which "
                "are in no metadata: give include_name of flask_chest.alembic to context.configure in env.py "
                "(see docs/alembic.md)."
            )
