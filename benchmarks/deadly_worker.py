"""One of several processes that deliver the same records, and that kills itself at any step of it.

``python -m benchmarks.deadly_worker '{…}'``, a `Task` as JSON. It ends with 0 when nothing is pending any more.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

import msgspec

from flask_chest.background.export_run import ExportRun
from flask_chest.protocols import Busy, Claim, Exporter, ExporterRegistry, Outbox
from flask_chest.record import Record
from flask_chest.stores import store_from_uri

EXPORTER = "chaos"
IDLE_SECONDS = 0.1
"""Time between two looks at whether another process, which holds the claim, is done or dead."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker is to do."""

    source: str
    """The URI of the store to deliver from."""
    name: str
    """Of its tables, and of those of a target that is a store."""
    target: Mapping[str, str]
    """``{"kind": "store", "uri": …}``, or the kind of another exporter and its options."""
    seed: int
    risk: float
    """The chance to be killed at one step."""
    batch_size: int = 50
    lease_seconds: float = 0.5


class Doom:
    """Kills this process now and then."""

    def __init__(self, seed: int, risk: float) -> None:
        self._chance = random.Random(seed)
        self._risk = risk

    def strikes(self) -> bool:
        return self._chance.random() < self._risk

    def may_strike(self) -> None:
        if self.strikes():
            os.kill(os.getpid(), signal.SIGKILL)

    def may_strike_soon(self) -> None:
        """Strike while what follows is under way."""
        if self.strikes():
            seconds = self._chance.uniform(0, 0.01)
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()


class DeadlyOutbox(Outbox):
    def __init__(self, outbox: Outbox, doom: Doom) -> None:
        self._outbox = outbox
        self._doom = doom

    def claim(self, exporter: str, /, *, limit: int, lease: timedelta) -> Claim | Busy | None:
        self._doom.may_strike()
        claim = self._outbox.claim(exporter, limit=limit, lease=lease)
        if isinstance(claim, Claim):
            self._doom.may_strike()
        return claim

    def renew(self, claim: Claim, /, *, lease: timedelta) -> bool:
        return self._outbox.renew(claim, lease=lease)

    def acknowledge(self, claim: Claim, /, *, rejected: Mapping[str, str] = MappingProxyType({})) -> bool:
        self._doom.may_strike()
        acknowledged = self._outbox.acknowledge(claim, rejected=rejected)
        self._doom.may_strike()
        return acknowledged

    def release(self, claim: Claim, /, *, error: str | None = None) -> None:
        self._doom.may_strike()
        self._outbox.release(claim, error=error)


class DeadlyExporter(Exporter):
    def __init__(self, exporter: Exporter, doom: Doom) -> None:
        self._exporter = exporter
        self._doom = doom

    @property
    def name(self) -> str:
        return self._exporter.name

    def export(self, records: Sequence[Record], /) -> None:
        self._doom.may_strike_soon()
        self._exporter.export(records)
        self._doom.may_strike()

    def close(self) -> None:
        self._exporter.close()


def make_exporter(target: Mapping[str, str], *, name: str) -> Exporter:
    options = {option: value for option, value in target.items() if option != "kind"}
    if target["kind"] == "influxdb":
        from flask_chest.exporter.influxdb import InfluxDBExporter

        return InfluxDBExporter(**options, timeout=2.0, name=EXPORTER)  # type: ignore[arg-type]  # texts all of them
    from flask_chest.exporter.store import StoreExporter

    return StoreExporter(store_from_uri(options["uri"], root=Path("/"), name=name), name=EXPORTER)


def work(task: Task) -> None:
    store = store_from_uri(task.source, root=Path("/"), name=task.name)()
    assert isinstance(store, Outbox)
    assert isinstance(store, ExporterRegistry)
    doom = Doom(task.seed, task.risk)
    exporter = make_exporter(task.target, name=task.name)
    try:
        while True:
            run = ExportRun(
                DeadlyOutbox(store, doom),
                DeadlyExporter(exporter, doom),
                batch_size=task.batch_size,
                lease=timedelta(seconds=task.lease_seconds),
            )
            report = run.report()
            if report.error is None and report.busy is None and store.exporters()[0].backlog == 0:
                return
            time.sleep(IDLE_SECONDS)
    finally:
        exporter.close()
        store.close()


if __name__ == "__main__":
    work(msgspec.json.decode(sys.argv[1], type=Task))
