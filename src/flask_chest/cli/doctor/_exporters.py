"""What may be wrong with the exporters of a chest."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask_chest.cli._output import amount
from flask_chest.extension.chest import FlaskChest
from flask_chest.extension.report import report_of
from flask_chest.protocols import ExporterRegistry, ExporterStatus, Leases

UNSEEN_NANO = 3600 * 1_000_000_000
"""Time without a sign of an exporter after which it is taken to run nowhere."""


def exports_stuck(chest: FlaskChest) -> Iterator[str]:
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
        untroubled = name not in known or known[name].last_error is None
        if untroubled and (why := chest.export_obstacle(name)) is not None:
            yield f"The exporter {name!r} can deliver nothing: {why}"
    for name in known.keys() - set(chest.exporter_names):
        if known[name].backlog:
            yield (
                f"The exporter {name!r}, which the app does not have, keeps {amount(known[name].backlog)} "
                f"from being deleted: add it again, or remove it: flask chest exporters remove {name}"
            )


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
