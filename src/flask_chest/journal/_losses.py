"""The counts of losses in a slot's file: at a fixed place and of a fixed size, so that a full disk takes them."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from flask_chest.losses import OTHERS, REASONS, Losses

SLOT_FILES = "slot-*.lock"
LOSSES_AT = 64
_MAGIC = b"losses1\n"
_COUNTERS = 32
"""More than there are reasons, so that a later release needs no other size."""
_FORMAT = struct.Struct(f"<8sQ{_COUNTERS}Q")
"""What it is, the wall clock's time of the last loss, and a counter for each of `REASONS`."""
_MOST = 2**64 - 1


def reserve_losses(descriptor: int) -> None:
    """Make room for the counts in a slot's file; those of former owners stay. ``OSError`` when there is none."""
    if _fields(descriptor) is None:
        _write(descriptor, 0, [0] * _COUNTERS)


def add_losses(descriptor: int, counts: Mapping[str, int]) -> None:
    """Add *counts* to those in a slot's file, which only its owner does; ``OSError`` when it takes none."""
    _, *counters = _fields(descriptor) or (0, *[0] * _COUNTERS)
    for reason, count in counts.items():
        index = REASONS.index(reason if reason in REASONS else OTHERS)
        counters[index] = min(_MOST, counters[index] + count)
    _write(descriptor, time.time_ns(), counters)


def losses_in(folder: Path) -> Losses:
    """Add up what all slots of *folder* have counted, also those of processes that are gone; takes no lock."""
    found: list[Losses] = []
    with suppress(OSError):  # the folder is not there, or another user's
        for path in folder.glob(SLOT_FILES):
            with suppress(OSError):
                found.append(_read(path))
    return Losses.sum(found)


def _read(path: Path) -> Losses:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        fields = _fields(descriptor)
    finally:
        os.close(descriptor)
    if fields is None:
        return Losses()
    last, *counters = fields
    counts = {reason: count for reason, count in zip(REASONS, counters, strict=False) if count}
    unknown = sum(counters[len(REASONS) :])  # a later release's
    if unknown:
        counts[OTHERS] = counts.get(OTHERS, 0) + unknown
    return Losses(counts=counts, last_unix_nano=last or None)


def _fields(descriptor: int) -> tuple[int, ...] | None:
    data = os.pread(descriptor, _FORMAT.size, LOSSES_AT)
    if len(data) != _FORMAT.size or not data.startswith(_MAGIC):
        return None
    _, *numbers = _FORMAT.unpack(data)
    return tuple(numbers)


def _write(descriptor: int, last_unix_nano: int, counters: list[int]) -> None:
    data = _FORMAT.pack(_MAGIC, last_unix_nano, *counters)
    if os.pwrite(descriptor, data, LOSSES_AT) != len(data):
        raise OSError("the counts of losses were written in part")
