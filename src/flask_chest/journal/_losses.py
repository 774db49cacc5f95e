"""The counts of losses in a slot's file: at a fixed place and of a fixed size, so that a full disk takes them."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from flask_chest.journal._files import open_file
from flask_chest.journal.losses import OTHERS, REASONS, Losses

SLOT_FILES = "slot-*.lock"
LOSSES_AT = 64
_MAGIC = b"losses1\n"
_COUNTERS = 32
"""More than there are reasons, so that a later release needs no other size."""
_FORMAT = struct.Struct(f"<8sQ{_COUNTERS}Q")
"""What it is, the wall clock's time of the last loss, and a counter for each of `REASONS`."""
LOSSES_BYTES = _FORMAT.size
_MOST = 2**64 - 1


def are_losses(data: bytes) -> bool:
    """Tell whether *data*, which was read at `LOSSES_AT`, are counts."""
    return _fields(data) is not None


def with_losses(data: bytes, counts: Mapping[str, int]) -> bytes:
    """Add *counts* to *data*, which was read at `LOSSES_AT`; where that are no counts, they begin with these."""
    last, *counters = _fields(data) or (0, *[0] * _COUNTERS)
    for reason, count in counts.items():
        index = REASONS.index(reason if reason in REASONS else OTHERS)
        counters[index] = min(_MOST, counters[index] + count)
    return _FORMAT.pack(_MAGIC, time.time_ns() if counts else last, *counters)


def losses_in(folder: Path | None) -> Losses:
    """Add up what all slots of *folder* have counted, also those of processes that are gone; takes no lock."""
    if folder is None:
        return Losses()
    found: list[Losses] = []
    with suppress(OSError):  # the folder is not there, or another user's
        for path in folder.glob(SLOT_FILES):
            with suppress(OSError):
                found.append(_read(path))
    return Losses.sum(found)


def _read(path: Path) -> Losses:
    with open(open_file(path, os.O_RDONLY), "rb") as file:  # noqa: PTH123 - it is open
        file.seek(LOSSES_AT)
        fields = _fields(file.read(LOSSES_BYTES))
    if fields is None:
        return Losses()
    last, *counters = fields
    counts = {reason: count for reason, count in zip(REASONS, counters, strict=False) if count}
    unknown = sum(counters[len(REASONS) :])  # a later release's
    if unknown:
        counts[OTHERS] = counts.get(OTHERS, 0) + unknown
    return Losses(counts=counts, last_unix_nano=last or None)


def _fields(data: bytes) -> tuple[int, ...] | None:
    if len(data) != _FORMAT.size or not data.startswith(_MAGIC):
        return None
    _, *numbers = _FORMAT.unpack(data)
    return tuple(numbers)
