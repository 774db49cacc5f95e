"""All records of an SQLite store as Parquet, beside JSON lines by Python's own json: memory, time, what is read.

Each is written by a process of its own, in turn. Its memory is what it takes above one record, which the imports
of pyarrow precede: it imports pandas where that is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import duckdb
import msgspec
import polars as pl
from benchmarks.prune_load import fill
from benchmarks.web_servers import ROOT

from flask_chest.extension import arrow
from flask_chest.record import Query
from flask_chest.stores.sqlite import SQLiteStore

ROUNDS = 3
KINDS: arrow.Kinds = {}


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="parquet")
    parser.add_argument("--records", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--small", action="store_true", help="2000 records")
    parser.add_argument("--write", nargs=3, metavar=("FORM", "STORE", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.write:
        form, store, target = options.write
        print(json.dumps(write(form, Path(store), Path(target))))
        return {}
    records = 2_000 if options.small else options.records
    with tempfile.TemporaryDirectory() as folder:
        return compare(Path(folder), records)


def compare(folder: Path, records: int) -> Mapping[str, float]:
    """Write *records* in both forms, in turn, and read the Parquet."""
    path, target = folder / "chest.db", folder / "all.parquet"
    with closing(SQLiteStore(path)) as store:
        store.open()
        fill(store, records)
        ratios: list[float] = []
        seconds: list[float] = []
        added: list[float] = []
        for _ in range(ROUNDS):
            ours, took = measured("parquet", path, target)
            _, theirs = measured("json", path, folder / "all.jsonl")
            added.append(ours)
            seconds.append(took)
            ratios.append(theirs / took)
        size, lines = target.stat().st_size, (folder / "all.jsonl").stat().st_size
        equal = is_equal(store, target, records)
    figures = {
        "records": records,
        "added_mb": max(added),
        "seconds": statistics.median(seconds),
        "times_as_fast_as_json": statistics.median(ratios),
        "bytes_of_json": size / lines,
        "equal": equal,
    }
    print(
        f"{records:,} records in {figures['seconds']:.1f} s of the processor, {figures['added_mb']:.0f} MB above"
        f" one record; {figures['times_as_fast_as_json']:.2f} times as fast as JSON lines, of whose bytes it has "
        f"{figures['bytes_of_json']:.2f}; read back equal by pyarrow, polars and DuckDB: {equal}"
    )
    return figures


def measured(form: str, store: Path, target: Path) -> tuple[float, float]:
    """Return the megabytes that a process took to write *form*, and the seconds of the processor."""
    command = [sys.executable, "-m", "benchmarks.parquet", "--write", form, str(store), str(target)]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    written = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE)
    megabytes, seconds = json.loads(written.stdout)
    return megabytes, seconds


def write(form: str, path: Path, target: Path) -> tuple[float, float]:
    with closing(SQLiteStore(path)) as store:
        write_as(form, store, Query(limit=1), target)
        start, began = peak_bytes(), time.process_time()
        write_as(form, store, Query(limit=None), target)
        return (peak_bytes() - start) / 1e6, time.process_time() - began


def write_as(form: str, store: SQLiteStore, query: Query, target: Path) -> None:
    if form == "parquet":
        chunks = arrow.columns_of(store, query, timeout=None)
        arrow.write_parquet(target, arrow.batches(chunks, KINDS), KINDS)
        return
    with target.open("w") as file:
        for record in store.query(query):
            file.write(json.dumps(msgspec.structs.asdict(record)) + "\n")


def peak_bytes() -> int:
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) * 1024


def is_equal(store: SQLiteStore, target: Path, records: int) -> bool:
    """Return whether the file holds what the store does, whoever reads it."""
    read = (record for some in arrow.records_in(target, size=1_000) for record in some)
    same = all(ours == theirs for ours, theirs in zip(read, store.query(Query(limit=None)), strict=True))
    asked = "count(*), sum(duration_ns)::BIGINT, count(DISTINCT id), sum(epoch_ns(time_unix_nano))::VARCHAR"
    (by_duckdb,) = duckdb.read_parquet(str(target)).aggregate(asked).fetchall()
    frame = pl.scan_parquet(target).select(
        pl.len(),
        pl.col("duration_ns").cast(pl.Int64).sum(),
        pl.col("id").n_unique().alias("ids"),
        pl.col("time_unix_nano").cast(pl.Int64).cast(pl.Int128).sum().cast(pl.String),
    )
    return same and frame.collect().row(0) == by_duckdb and by_duckdb[0] == records


if __name__ == "__main__":
    main(sys.argv[1:])
