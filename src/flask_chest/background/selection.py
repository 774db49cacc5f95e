"""What of a chest's records an exporter is to have, and in which form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from flask_chest.background.poison import Fault
from flask_chest.errors import describe
from flask_chest.record import Record


class Selected(NamedTuple):
    """What became of a batch."""

    records: Sequence[Record]
    faults: dict[str, Fault]
    """Of the records at which the app's own function raised."""


class Selection:
    """Leaves out what *wanted* does not want, and what *transform* makes ``None``.

    A record at which one of them raises is set aside: another try would raise again, and to deliver it as it is
    might tell what it was there to hide. So is one that comes back under another id, as the target could not
    tell then that it has it already.
    """

    def __init__(
        self,
        *,
        wanted: Callable[[Record], bool] | None = None,
        transform: Callable[[Record], Record | None] | None = None,
    ) -> None:
        self._wanted = wanted
        self._transform = transform

    def of(self, records: Sequence[Record]) -> Selected:
        """Select from *records*."""
        if self._wanted is None and self._transform is None:
            return Selected(records, {})
        selected: list[Record] = []
        faults: dict[str, Fault] = {}
        for record in records:
            try:
                chosen = self._select(record)
            except Exception as exc:  # noqa: BLE001 - the app's own function
                faults[record.id] = Fault(f"its filter or transform failed{describe(exc)}", 1)
                continue
            if chosen is not None and chosen.id != record.id:
                faults[record.id] = Fault("its transform changed its id", 1)
            elif chosen is not None:
                selected.append(chosen)
        return Selected(selected, faults)

    def _select(self, record: Record) -> Record | None:
        if self._wanted is not None and not self._wanted(record):
            return None
        return record if self._transform is None else self._transform(record)
