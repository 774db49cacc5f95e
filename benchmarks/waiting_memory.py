"""Resident memory while records wait for a store that is down, and whether they drain when it returns."""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.sqlite_write import sample

from flask_chest.background.stats import Tally
from flask_chest.background.writer import BATCH_RECORDS, Writer
from flask_chest.errors import StoreUnavailable
from flask_chest.journal import JournalConfig
from flask_chest.journal.file import FileJournal
from flask_chest.protocols import StoreStatus
from flask_chest.record import Record
from flask_chest.stores.sqlite import SQLiteStore

PAGE_KIB = 4
DRAIN_SECONDS = 600.0


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="waiting_memory")
    parser.add_argument("--records", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--small", action="store_true", help="as --records 2000")
    parser.add_argument(
        "--in-this-process", action="store_true", help="measure here, where others have left memory"
    )
    options = parser.parse_args(argv)
    records = 2_000 if options.small else options.records
    if not options.in_this_process:
        command = [
            sys.executable,
            "-m",
            "benchmarks.waiting_memory",
            "--in-this-process",
            "--records",
            str(records),
        ]
        last_line = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()[-1]
        figures: dict[str, float] = json.loads(last_line)
        print(f"{records} records waiting take {figures['waiting_mib']:.1f} MiB of memory more than none")
        print(f"they are {figures['journal_mib']:.1f} MiB on disk, drained in {figures['drain_seconds']:.1f} s,")
        print(f"and {figures['stored']:.0f} are in the store")
        return figures
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), records)
    print(json.dumps(figures))
    return figures


class Switch:
    """SQLite behind a switch: a store that is down until it is not."""

    def __init__(self, path: Path) -> None:
        self.down = True
        self._store = SQLiteStore(path)
        self._store.open()

    def write(self, records: Sequence[Record], /) -> None:
        if self.down:
            raise StoreUnavailable("the store is down")
        self._store.write(records)

    def status(self) -> StoreStatus:
        return self._store.status()

    def close(self) -> None:
        self._store.close()


def measure(folder: Path, records: int) -> dict[str, float]:
    store = Switch(folder / "store.db")
    journal = FileJournal(
        JournalConfig(folder=folder / "journal", chest="chest", store="bench", host="bench", max_bytes=1 << 31),
        report=print,
    )
    writer = Writer(journal, lambda: store, Tally(logging.getLogger("benchmark")))
    for _ in range(BATCH_RECORDS):  # what Python and the first batch need is there before
        writer.take(sample())
    writer.flush(1.0)
    before = resident_mib()
    for _ in range(records - BATCH_RECORDS):
        writer.take(sample())
    writer.flush(1.0)
    waiting_mib = resident_mib() - before
    waiting = writer.waiting()
    journal_mib = sum(path.stat().st_size for path in (folder / "journal").iterdir()) / 2**20
    store.down = False
    begin = time.perf_counter()
    drained = writer.flush(DRAIN_SECONDS)
    seconds = time.perf_counter() - begin
    writer.close(5.0)
    stored = store.status().records
    store.close()
    return {
        "records": records,
        "waiting": waiting,
        "waiting_mib": waiting_mib,
        "journal_mib": journal_mib,
        "drained": drained,
        "drain_seconds": seconds,
        "stored": stored,
    }


def resident_mib() -> float:
    """Read how much memory this process holds; Linux only, as ``/proc`` is."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KIB / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
