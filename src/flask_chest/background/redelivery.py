"""Delivering what an exporter has had, or refused, once more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import msgspec

from flask_chest.background.poison import hand_over_sound
from flask_chest.background.selection import Selection
from flask_chest.protocols import Exporter
from flask_chest.record import Record


class Redelivered(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one batch."""

    delivered: Sequence[str]
    """Ids of records."""
    filtered: Sequence[str]
    rejected: Mapping[str, str]
    """The reasons, by id."""


def redeliver(
    records: Iterable[Record], exporter: Exporter, *, batch_size: int, selection: Selection
) -> Iterator[Redelivered]:
    """Deliver *records* in batches, beside what the exporter is to have anyway; raise what ends the delivery.

    No claim is needed: to deliver a record again changes nothing where the target can tell.
    """
    waiting = iter(records)
    while batch := list(islice(waiting, batch_size)):
        selected, faults = selection.of(batch)
        faults |= hand_over_sound(exporter.export, selected, suspicious=False, convict_alone=True)
        wanted = {record.id for record in selected}
        yield Redelivered(
            delivered=[record.id for record in selected if record.id not in faults],
            filtered=[each.id for each in batch if each.id not in wanted and each.id not in faults],
            rejected={record_id: fault.reason for record_id, fault in faults.items()},
        )
