"""The counts of a chest as OpenTelemetry's metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias
from weakref import WeakKeyDictionary, WeakSet

from flask_chest.errors import MissingDriverError
from flask_chest.extension import FlaskChest
from flask_chest.stats import ChestStats

try:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider
except ImportError as exc:
    raise MissingDriverError("opentelemetry-api", extra="otel") from exc

METER = "flask_chest"
APP = "flask_chest.app.name"
STORE = "flask_chest.store.name"
EXPORTER = "flask_chest.exporter.name"
ERROR = "error.type"

_Attributes: TypeAlias = Mapping[str, str]
_Count: TypeAlias = tuple[_Attributes, int]

_instrumented: WeakKeyDictionary[MeterProvider, WeakSet[FlaskChest]] = WeakKeyDictionary()


def instrument_metrics(chest: FlaskChest, meter_provider: MeterProvider | None = None) -> None:
    """Let *meter_provider*, or the global one, observe what `FlaskChest.stats` counts in this process.

    ``flask_chest.record.processed`` counts the records that the store took, and with ``error.type`` those that
    it refused or that nobody took; ``flask_chest.queue.size`` is how many wait in the journal;
    ``flask_chest.target.exported`` counts what each exporter delivered, and with ``error.type`` what was set
    aside. Each carries the names of the app and of the chest's settings. A provider gets these instruments once,
    however many chests are added; a chest that is gone is observed no more.
    """
    provider = meter_provider or get_meter_provider()
    first = WeakSet[FlaskChest]()
    # setdefault, not a lock: one held at a fork would be held for ever, and setdefault is atomic.
    chests = _instrumented.setdefault(provider, first)
    if chests is first:
        _make_instruments(provider, chests)
    chests.add(chest)


def _make_instruments(provider: MeterProvider, chests: WeakSet[FlaskChest]) -> None:
    meter = provider.get_meter(METER)
    meter.create_observable_counter(
        "flask_chest.record.processed",
        callbacks=[_callback(chests, _processed)],
        unit="{record}",
        description="Records that the store took, and with error.type those that it did not.",
    )
    meter.create_observable_up_down_counter(
        "flask_chest.queue.size",
        callbacks=[_callback(chests, _waiting)],
        unit="{record}",
        description="Records that wait in the journal for the store.",
    )
    meter.create_observable_counter(
        "flask_chest.target.exported",
        callbacks=[_callback(chests, _exported)],
        unit="{record}",
        description="Records that an exporter delivered, and with error.type those that were set aside.",
    )


def _callback(
    chests: WeakSet[FlaskChest], read: Callable[[ChestStats], Iterator[_Count]]
) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observe(_options: CallbackOptions) -> Iterator[Observation]:
        # Apps of one name are one series, in which the last one would overwrite the others.
        total: Counter[tuple[tuple[str, str], ...]] = Counter()
        for chest in list(chests):
            for app, stats in chest.stats_of_apps():
                whose = {APP: app, STORE: chest.name}
                for attributes, count in read(stats):
                    total[tuple((whose | dict(attributes)).items())] += count
        for series, count in total.items():
            yield Observation(count, dict(series))

    return observe


def _processed(stats: ChestStats) -> Iterator[_Count]:
    yield {}, stats.stored
    if stats.set_aside:
        yield {ERROR: "refused"}, stats.set_aside
    for reason, count in stats.lost.items():
        yield {ERROR: reason}, count


def _waiting(stats: ChestStats) -> Iterator[_Count]:
    yield {}, stats.waiting


def _exported(stats: ChestStats) -> Iterator[_Count]:
    for name, counts in stats.exports.items():
        yield {EXPORTER: name}, counts.delivered
        if counts.rejected:
            yield {EXPORTER: name, ERROR: "rejected"}, counts.rejected
