"""What it takes to write all records of a store as JSON lines: memory above the start, and whether all are there.

The start is the same command with nothing to write.
"""

from __future__ import annotations

import argparse
import atexit
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
from benchmarks.engines import database_server
from benchmarks.prune_load import ENGINES, fill
from benchmarks.web_servers import ROOT
from flask import Flask

from flask_chest import FlaskChest
from flask_chest.record import FIELDS, Query, Record
from flask_chest.stores import store_from_uri

URI, PEAK = "QUERIED_URI", "QUERIED_PEAK"
NAME = "queried"
_decoder = msgspec.json.Decoder(dict[str, object])


def make() -> Flask:
    atexit.register(tell_peak, Path(os.environ[PEAK]))
    app = Flask("queried")
    FlaskChest(app, store=store_from_uri(os.environ[URI], root=Path("/"), name=NAME))
    return app


def tell_peak(path: Path) -> None:
    # Not what `wait4` says: that counts what the parent had before the command took its place.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    path.write_text(peak)


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="query_memory")
    parser.add_argument("--records", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--engines", nargs="*", default=ENGINES, choices=ENGINES)
    parser.add_argument("--small", action="store_true", help="2000 records")
    options = parser.parse_args(argv)
    records = 2_000 if options.small else options.records
    figures: dict[str, float] = {"records": records}
    for engine in options.engines:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            uri = f"sqlite:////{folder}/chest.db"
            if engine != "sqlite":
                uri = stack.enter_context(database_server(engine)).uri
            store = stack.enter_context(closing(store_from_uri(uri, root=Path("/"), name=NAME)()))
            store.open()
            fill(store, records)
            start, _ = peak_bytes(uri, folder / "none", "--limit", "0")
            peak, seconds = peak_bytes(uri, folder / "all", "--all")
            with (folder / "all").open("rb") as file:
                equal = all(
                    record_of(line) == record
                    for line, record in zip(file, store.query(Query(limit=None)), strict=True)
                )
        added = (peak - start) / 1e6
        print(
            f"{engine:10} {records:,} records in {seconds:.0f} s, {added:.1f} MB above the start, equal: {equal}"
        )
        figures |= {f"{engine}_added_mb": added, f"{engine}_seconds": seconds, f"{engine}_equal": equal}
    return figures


def peak_bytes(uri: str, target: Path, *arguments: str) -> tuple[int, float]:
    """Write the answer to *target*; give the largest resident memory of the process, and the seconds it took."""
    command = [sys.executable, "-m", "flask", "--app", "benchmarks.query_memory:make", "chest", "query"]
    began = time.monotonic()
    peak = target.with_suffix(".peak")
    with target.open("wb") as file:
        subprocess.run(
            [*command, "--format", "jsonl", *arguments],
            stdout=file,
            env=os.environ | {URI: uri, PEAK: str(peak), "PYTHONPATH": str(ROOT)},
            check=True,
        )
    return int(peak.read_text()) * 1024, time.monotonic() - began


def record_of(line: bytes) -> Record:
    fields = _decoder.decode(line)
    return Record(**{name: fields[name] for name in FIELDS})  # type: ignore[arg-type]  # as they were written


if __name__ == "__main__":
    main(sys.argv[1:])
