"""Removal from the file of the records that a store refused for good."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from flask_chest.journal._files import lock, open_own_file
from flask_chest.record import Query, Record


class _Line(msgspec.Struct):
    record: dict[str, object]


_decoder = msgspec.json.Decoder(_Line)


def forget_in(path: Path, query: Query) -> int:
    """Remove the records that match from the file at *path*, and return how many those were."""
    with open(open_own_file(path, os.O_RDWR), "r+b") as file:  # noqa: PTH123 - it is open
        lock(file.fileno(), wait=True)  # whoever appends holds it too
        lines = file.readlines()
        kept = [line for line in lines if not _matches(line, query)]
        if len(kept) < len(lines):
            # In its place: a file that is renamed over it would be missed by who waits for the lock.
            file.seek(0)
            file.writelines(kept)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    return len(lines) - len(kept)


def _matches(line: bytes, query: Query) -> bool:
    try:
        record = Record(**_decoder.decode(line).record)  # type: ignore[arg-type]  # written by `set_aside`
        return query.matches(record)
    except (msgspec.DecodeError, TypeError):  # half a line, or another release's: people have to look at it
        return False
