"""What may be wrong with an app and its chests: examinations that yield sentences, each with the way out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

from flask import Flask

from flask_chest.capture.tracking import all_rules_of, misplaced_views
from flask_chest.cli._accounts import why_closed
from flask_chest.cli._group import NO_CHEST, format_time
from flask_chest.cli._output import amount
from flask_chest.cli.doctor._clocks import wrong_clocks
from flask_chest.cli.journal import complaints, folder_of, orphan_line, orphans_of, segments_of
from flask_chest.cli.status import losses_line, report_of
from flask_chest.errors import describe
from flask_chest.extension.chest import FlaskChest, chests_of
from flask_chest.extension.middleware import endpoints_of_absent_chests
from flask_chest.extension.settings import MISSPELT
from flask_chest.journal import obstacle, used_bytes
from flask_chest.journal.inspection import SegmentReport
from flask_chest.journal.losses import losses_in
from flask_chest.protocols import ExporterRegistry, ExporterStatus, Leases

UNSEEN_NANO = 3600 * 1_000_000_000
"""Time without a sign of an exporter after which it is taken to run nowhere."""
NEWS_NANO = 24 * 3600 * 1_000_000_000
"""Time for which a loss counts as something wrong; `flask chest status` shows it for ever."""
FULL = 0.9
OVERDUE_NANO = 60 * 1_000_000_000
"""Time in a journal after which the store takes nothing, or nobody asks it to."""
_WHY_WAITING = {
    ("stores", "followed"): "the store does not take them, or too slowly. The app's log says why.",
    ("gone",): "their process is gone, and no other runs. Start the app, or run flask chest journal replay.",
}
_OTEL = "opentelemetry.instrumentation.flask"


def _no_chest(app: Flask) -> Iterator[str]:
    if not chests_of(app):
        yield NO_CHEST.format(name=app.name)


def _nothing_tracked(app: Flask) -> Iterator[str]:
    chests = chests_of(app)
    app_wide = any(chest._state.app_rule is not None or chest._state.blueprint_rules for chest in chests)
    decorated = any(all_rules_of(view) for view in app.view_functions.values())
    if chests and not app_wide and not decorated and not misplaced_views(app.view_functions):
        yield (
            "No view is decorated with @flask_chest and no chest has tracked_vars, so nothing is recorded: "
            "decorate a view, or pass tracked_vars= to the chest. (A view that calls a decorated function "
            "is recorded, and not seen from here.)"
        )


def _misspelt_settings(app: Flask) -> Iterator[str]:
    for chest in chests_of(app):
        for name, meant in chest._state.settings.misspelt.items():
            yield MISSPELT.format(name=name, meant=meant)


def _misplaced(app: Flask) -> Iterator[str]:
    for endpoint in misplaced_views(app.view_functions):
        yield (
            f"@flask_chest stands above @app.route for the endpoint {endpoint!r}, so the route serves the bare "
            "view and nothing is recorded: put @flask_chest below @app.route."
        )


def _absent_chests(app: Flask) -> Iterator[str]:
    for endpoint in endpoints_of_absent_chests(app, chests_of(app)):
        yield (
            f"@flask_chest of the endpoint {endpoint!r} names in chests= one that is not registered on the app: "
            "call its init_app(app)."
        )


def _tracing_begins_late(app: Flask) -> Iterator[str]:
    first = [function.__module__ for function in app.before_request_funcs.get(None, [])]
    traced = [number for number, module in enumerate(first) if module.startswith(_OTEL)]
    observed = [chest for chest in chests_of(app) if chest._state.observer is not None]
    if observed and not traced:
        yield (
            "span_attributes is given, but OpenTelemetry does not instrument the app, so there is no span: call "
            "FlaskInstrumentor().instrument_app(app)."
        )
    if traced and traced[0] > 0:
        yield (
            f"{traced[0]} before_request functions run before OpenTelemetry begins the request's span: a request "
            "id that they ask for is not that of a trace. Call FlaskInstrumentor().instrument_app(app) before "
            "they are registered."
        )


def _store_unreachable(app: Flask) -> Iterator[str]:
    for chest in chests_of(app):
        if _other_account(chest) is not None:
            continue  # what this account may do says nothing about the app's
        report = report_of(chest)
        if report.error is not None:
            yield f"The store does not answer: {report.error}"
        elif report.store is not None:
            yield from _store_unwritable(chest)


def _store_unwritable(chest: FlaskChest) -> Iterator[str]:
    store = chest._state.here.store
    if not isinstance(store, Leases):
        return
    try:
        # Writes as records do, and leaves nothing behind that matters.
        store.hold("doctor", owner=f"doctor {os.getpid()}", lease=timedelta(0))
    except Exception as exc:  # noqa: BLE001 - a third-party store may raise anything
        yield f"The store cannot be written: {describe(exc)}"
        return
    yield from wrong_clocks(chest)


def _other_account(chest: FlaskChest) -> str | None:
    folder = chest._state.here.journal_config.folder
    return None if folder is None else why_closed(folder)


def _run_by_another_account(app: Flask) -> Iterator[str]:
    for why in dict.fromkeys(map(_other_account, chests_of(app))):
        if why is not None:
            yield why


def _journal_amiss(app: Flask) -> Iterator[str]:
    for chest in chests_of(app):
        folder = chest._state.here.journal_config.folder
        if folder is None:
            if chest._state.settings.writer == "off":
                yield (
                    "CHEST_WRITER is off, and the journal is in memory, where no other process finds it: nothing "
                    "is stored. Set CHEST_JOURNAL_DIR to a folder, or CHEST_WRITER to thread."
                )
            continue
        if _other_account(chest) is not None:
            continue
        if (why := obstacle(folder, local=chest._state.settings.journal_local)) is not None:
            yield (
                f"No journal can be kept in {folder} ({why}), so records wait in memory, and are lost with their "
                "process: set CHEST_JOURNAL_DIR to a folder on a local disk that the app may write."
            )
            continue
        segments = segments_of(chest)
        for segment in segments:
            yield from complaints(segment)
        yield from (f"{orphan_line(orphan)}." for orphan in orphans_of(chest))
        yield from _waiting_long(segments)
        yield from _lossy(chest)
        left = sum(segment.waiting_records for segment in segments if segment.owner == "leaves")
        if left:
            yield (
                f"{amount(left)} waiting in the journals of processes that leave it to others to store them, "
                "but no worker runs: start flask chest worker."
            )


def _lossy(chest: FlaskChest) -> Iterator[str]:
    if (folder := folder_of(chest)) is None:
        return
    used, bound = used_bytes(folder), chest._state.settings.journal_bytes
    if used > FULL * bound:
        yield (
            f"The journal holds {used / 1024:,.0f} of its {bound / 1024:,.0f} KiB, and new records are lost when "
            "it is full: the store takes too little. The app's log says why; else raise CHEST_JOURNAL_BYTES."
        )
    losses = losses_in(folder)
    if losses.recent(within_ns=NEWS_NANO):
        yield f"Records were {losses_line(losses)}. The app's log says more."


def _waiting_long(segments: Sequence[SegmentReport]) -> Iterator[str]:
    for owners, why in _WHY_WAITING.items():
        late = [
            segment
            for segment in segments
            if segment.owner in owners
            and segment.oldest_unix_nano is not None
            and time.time_ns() - segment.oldest_unix_nano > OVERDUE_NANO
        ]
        if late:
            since = min(segment.oldest_unix_nano or 0 for segment in late)
            count = sum(each.waiting_records for each in late)
            yield f"{amount(count)} waiting since {format_time(since)}: {why}"


def _exports_stuck(app: Flask) -> Iterator[str]:
    for chest in chests_of(app):
        state = chest._state
        if chest.exporter_names and not isinstance(state.here.store, ExporterRegistry):
            kind = type(state.here.store).__name__
            yield f"{kind} cannot export: it does not implement Outbox and ExporterRegistry."
        known = {exporter.name: exporter for exporter in report_of(chest).exporters}
        store = state.here.store
        now = store.now_unix_nano() if known and isinstance(store, Leases) else time.time_ns()
        for name in chest.exporter_names:
            yield from _export_stuck(
                name, known.get(name), scheduled=state.settings.scheduler != "off", now_unix_nano=now
            )
            if name not in known or known[name].last_error is None:
                yield from _export_hopeless(chest, name)
        for name in known.keys() - set(chest.exporter_names):
            if known[name].backlog:
                yield (
                    f"The exporter {name!r}, which the app does not have, keeps {amount(known[name].backlog)} "
                    f"from being deleted: add it again, or remove it: flask chest exporters remove {name}"
                )


def _export_hopeless(chest: FlaskChest, name: str) -> Iterator[str]:
    if (why := chest.export_obstacle(name)) is not None:
        yield f"The exporter {name!r} can deliver nothing: {why}"


def _export_stuck(
    name: str, exporter: ExporterStatus | None, *, scheduled: bool, now_unix_nano: int
) -> Iterator[str]:
    # Far ahead, it was seen by a clock that was, and not since.
    unseen = exporter is None or abs(now_unix_nano - exporter.last_seen_unix_nano) > UNSEEN_NANO
    if unseen and not scheduled:
        yield (
            f"The exporter {name!r} runs nowhere: the scheduler is off, and no worker was seen for an hour. Set "
            "CHEST_SCHEDULER to auto, run flask chest worker, or call chest.run_exports() yourself."
        )
    if exporter is None:
        return
    if exporter.last_error is not None and exporter.backlog:
        yield (
            f"The exporter {name!r} has {amount(exporter.backlog)} pending: {exporter.last_error}. It is tried "
            "again at its intervals, and at once by flask chest export."
        )
    elif exporter.backlog and not exporter.last_success_unix_nano and scheduled and unseen:
        yield (
            f"The exporter {name!r} has {amount(exporter.backlog)} pending and was not seen for an hour: the "
            "app runs it from its first request on."
        )
    if exporter.rejected:
        yield (
            f"The target of the exporter {name!r} refused {amount(exporter.rejected)}: see flask chest "
            f"rejected list {name}, then retry or drop them."
        )


EXAMINATIONS = (
    _no_chest,
    _misspelt_settings,
    _nothing_tracked,
    _misplaced,
    _absent_chests,
    _tracing_begins_late,
    _run_by_another_account,
    _store_unreachable,
    _journal_amiss,
    _exports_stuck,
)
