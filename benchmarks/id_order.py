"""What a record costs SQLite as the table grows: with random request ids, and with such as come in order."""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from benchmarks.sqlite_write import open_store, sample

from flask_chest import RequestIdGenerator
from flask_chest.request_ids import uuid4_request_id, uuid7_request_id

BATCH = 500
GENERATORS: Mapping[str, RequestIdGenerator] = {"random": uuid4_request_id, "ordered": uuid7_request_id}


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="id_order")
    parser.add_argument("--records", type=int, default=300_000, metavar="N", help="in each table")
    parser.add_argument("--small", action="store_true", help="as --records 5000")
    options = parser.parse_args(argv)
    batches = (5_000 if options.small else options.records) // BATCH
    with tempfile.TemporaryDirectory(prefix="chest-") as folder:
        times = fill(Path(folder), batches)
    figures: dict[str, float] = {"records": batches * BATCH}
    tenth = batches // 10
    for name, seconds in times.items():
        first, last = (statistics.fmean(part) / BATCH * 1e6 for part in (seconds[:tenth], seconds[-tenth:]))
        print(f"{name:8} request ids: {first:5.1f} µs a record in the first tenth, {last:5.1f} µs in the last")
        figures |= {f"{name}_first_us": first, f"{name}_last_us": last}
    return figures


def fill(folder: Path, batches: int) -> Mapping[str, list[float]]:
    """Write *batches* into a table for each kind of ids, in turn; give the seconds that each took."""
    times: dict[str, list[float]] = {name: [] for name in GENERATORS}
    with contextlib.ExitStack() as stack:
        stores = {
            name: stack.enter_context(contextlib.closing(open_store(folder / f"{name}.db"))) for name in times
        }
        for _ in range(batches):
            for name, generate in GENERATORS.items():
                records = [msgspec.structs.replace(sample(), request_id=generate()) for _ in range(BATCH)]
                begin = time.perf_counter()
                stores[name].write(records)
                times[name].append(time.perf_counter() - begin)
    return times


if __name__ == "__main__":
    main(sys.argv[1:])
