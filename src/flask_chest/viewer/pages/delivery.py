"""``/delivery``: the way of the records, from the journals on disk to the targets of the exporters."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice

import msgspec

from flask_chest.background.retention import RetentionPolicy
from flask_chest.background.stats import ChestStats, Health
from flask_chest.errors import StoreAbsent
from flask_chest.extension.report import Report, report_of
from flask_chest.protocols import Addressed, CountsDropped, CutOff, Rejection, Rejections
from flask_chest.viewer._asking import Ask

REJECTED = 20
"""Number of rejected records that are shown of each exporter."""


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """How a chest is, as far as no record has to be counted."""

    store: str
    """Where records are kept."""
    report: Report
    health: Health
    stats: ChestStats
    """Counts of this process."""
    retention: str
    """The limits, written as the setting takes them."""
    retention_cap: str
    """The hard limits, written as the setting takes them."""
    cut_off: CutOff | None
    rejected: Sequence[Rejection]
    template: str = "delivery.html"
    command: str = "flask chest status"
    """The command that tells the same."""
    python: str = "chest.health(), chest.stats()"
    """The call of Python that tells some of it."""

    def as_json(self) -> object:
        """Return what the page shows."""
        return {
            "store": self.store,
            **msgspec.to_builtins(self.report),
            "health": self.health,
            "stats": self.stats,
            "retention": self.retention or None,
            "retention_cap": self.retention_cap or None,
            "cut_off": self.cut_off,
            "rejections": self.rejected,
        }


def written_policy(policy: RetentionPolicy) -> str:
    """Write *policy* as the setting takes it; an empty text if there is no limit."""
    limits: list[str] = []
    if policy.age is not None:
        seconds = int(policy.age.total_seconds())
        unit, name = next(each for each in _SPANS if not seconds % each[0])
        limits.append(f"{seconds // unit}{name}")
    if policy.rows is not None:
        limits.append(f"{policy.rows:_} rows")
    if policy.size is not None:
        unit, name = next(each for each in _SIZES if not policy.size % each[0])
        limits.append(f"{policy.size // unit} {name}")
    return ", ".join(limits)


_SPANS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_SIZES = ((2**30, "GiB"), (10**9, "GB"), (2**20, "MiB"), (10**6, "MB"), (2**10, "KiB"), (10**3, "KB"), (1, "B"))


def _oldest(ask: Ask, store: Rejections, exporter: str) -> list[Rejection]:
    return list(islice(store.rejections(exporter, timeout=ask.time_left()), REJECTED))


def show(ask: Ask) -> DeliveryPage:
    """Look at the store, its exporters and the journals, without counting records."""
    ask.given.check_taken()
    state = ask.state
    store = state.here.store
    report = report_of(ask.chest, counts=False, timeout=ask.time_left())
    rejected: list[Rejection] = []
    cut_off: CutOff | None = None
    if report.error is None and report.absent is None:
        for exporter in report.exporters:
            if exporter.rejected and isinstance(store, Rejections):
                rejected += ask.within_limit(partial(_oldest, ask, store, exporter.name)) or []
        with suppress(StoreAbsent):
            cut_off = store.cut_off() if isinstance(store, CountsDropped) else None
    return DeliveryPage(
        store=(store.address if isinstance(store, Addressed) else None) or type(store).__name__,
        report=report,
        health=ask.chest.health(),
        stats=ask.chest.stats(),
        retention=written_policy(state.settings.retention),
        retention_cap=written_policy(state.settings.retention_cap),
        cut_off=cut_off,
        rejected=rejected,
    )
