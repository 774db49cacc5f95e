"""Any sink as a target: another store of this package, or a third-party one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import cast

from flask_chest._process import PerProcess, maker_of
from flask_chest.errors import RecordRefused, RecordsRejected, StoreError, TargetUnavailable
from flask_chest.protocols import Exporter, Sink, Store, hand_over
from flask_chest.record import Record


class StoreExporter(Exporter):
    """Delivers into *sink*, or into what *sink* returns if it is a callable; the first delivery opens a store.

    A store that makes its tables makes them in the target too. A record that is delivered again is kept once, as
    by every sink. *name* is the exporter's.
    """

    def __init__(self, sink: Sink | Callable[[], Sink], *, name: str) -> None:
        self._make = maker_of(sink, "write", setting="sink", kind="a Sink")
        self._name = name
        self._sink: Sink | None = None
        # One for each process: a thread of the parent may hold it through a long opening when it forks.
        self._lock = PerProcess(threading.Lock)

    def __repr__(self) -> str:
        return f"<StoreExporter {self._name!r}>"

    @property
    def name(self) -> str:
        """The exporter's identity in the store that it delivers from."""
        return self._name

    def export(self, records: Sequence[Record], /) -> None:
        """Write *records*; the target skips those that it already has."""
        if not records:
            return
        try:
            hand_over(self._opened().write, records)
        except RecordRefused as exc:
            raise RecordsRejected(str(exc), exc.reasons) from exc
        except StoreError as exc:
            raise TargetUnavailable(str(exc)) from exc

    def close(self) -> None:
        """Close the target; the next delivery opens it again."""
        with self._lock.get():
            sink, self._sink = self._sink, None
        if sink is not None:
            sink.close()

    def _opened(self) -> Sink:
        with self._lock.get():
            if self._sink is None:
                sink = self._make()
                if hasattr(sink, "open"):
                    cast("Store", sink).open()
                self._sink = sink
            return self._sink
