"""Records a second from SQLite into PostgreSQL, and the memory that a long backlog takes.

In turn in each round: all is read by ``sqlite3``, all is written by COPY, all is delivered.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.engines import DatabaseServer, database_server
from benchmarks.server_write import copying, rows_of
from benchmarks.sqlite_write import BATCH, open_store, rate, sample
from benchmarks.waiting_memory import resident_mib

from flask_chest.background.export_run import ExportRun
from flask_chest.exporter.store import StoreExporter
from flask_chest.record import Query, Record
from flask_chest.stores import store_from_uri
from flask_chest.stores.sql.tables import COLUMN_LIST
from flask_chest.stores.sqlite import SQLiteStore

ROUNDS = 5
LOOK_SECONDS = 0.02


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="delivery_rate")
    parser.add_argument("--records", type=int, default=100_000, metavar="N")
    parser.add_argument("--backlog", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--small", action="store_true", help="2000 records of each")
    parser.add_argument("--drain", nargs=2, metavar=("SOURCE", "TARGET"), help="only this, in this process")
    options = parser.parse_args(argv)
    if options.drain:
        print(json.dumps(drain(Path(options.drain[0]), options.drain[1])))
        return {}
    records, backlog = (2_000, 2_000) if options.small else (options.records, options.backlog)
    with database_server("postgresql") as server, tempfile.TemporaryDirectory() as folder:
        rates = compare(server, fill(Path(folder) / "source.db", records))
        # In a process of its own, in which no other benchmark has left memory.
        source = str(fill(Path(folder) / "backlog.db", backlog))
        command = [sys.executable, "-m", "benchmarks.delivery_rate", "--drain", source, server.uri]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    drained: dict[str, float] = json.loads(answer)
    print(f"a backlog of {drained['backlog']:.0f} went in {drained['drain_seconds']:.1f} s,", end=" ")
    print(f"with at most {drained['drain_mib']:.1f} MiB of memory more")
    return {**rates, **drained}


def compare(server: DatabaseServer, source: Path) -> Mapping[str, float]:
    """Read, write and deliver all of *source* in each round."""
    reads: list[float] = []
    writes: list[float] = []
    ours: list[float] = []
    with closing(open_store(source)) as store:
        batches = list(in_batches(store))
        count = sum(map(len, batches))
        for number in range(ROUNDS):
            reads.append(count / read_all(source))
            with copying(server, f"bare_{number}") as write:
                writes.append(rate(write, [rows_of(batch) for batch in batches]))
            with closing(exporter_into(server.uri, f"target_{number}")) as exporter:
                ours.append(count / deliver(store, exporter, count))
    # Of the parts of a round, which had the same neighbours on the machine.
    ratios = [mine / min(others) for mine, *others in zip(ours, reads, writes, strict=True)]
    read, written, delivered, ratio = map(statistics.median, (reads, writes, ours, ratios))
    print(f"only read     {read:9.0f} records/s")
    print(f"only written  {written:9.0f} records/s")
    print(f"delivered     {delivered:9.0f} records/s, {ratio:.2f} of the slower")
    return {"read_per_second": read, "written_per_second": written, "per_second": delivered, "ratio": ratio}


def deliver(store: SQLiteStore, exporter: StoreExporter, count: int) -> float:
    """Deliver all in *store*; give the seconds that it took."""
    begin = time.perf_counter()
    report = ExportRun(store, exporter, batch_size=BATCH).report()
    assert report.delivered == count, report
    return time.perf_counter() - begin


def drain(source: Path, target: str) -> Mapping[str, float]:
    """Deliver all of *source*; tell the most memory that it took beyond that of a first batch."""
    over = threading.Event()
    most = 0.0

    def look() -> None:
        nonlocal most
        while not over.wait(LOOK_SECONDS):
            most = max(most, resident_mib())

    with closing(open_store(source)) as store, closing(exporter_into(target, "drained")) as exporter:
        exporter.export(next(in_batches(store)))  # loads the driver and makes the tables
        backlog = store.status().records
        before = resident_mib()
        thread = threading.Thread(target=look)
        thread.start()
        try:
            seconds = deliver(store, exporter, backlog)
        finally:
            over.set()
            thread.join()
    return {"backlog": backlog, "drain_seconds": seconds, "drain_mib": max(0.0, most - before)}


def fill(path: Path, records: int) -> Path:
    with closing(open_store(path)) as store:
        for first in range(0, records, BATCH):
            store.write([sample() for _ in range(min(BATCH, records - first))])
    return path


def in_batches(store: SQLiteStore) -> Iterator[list[Record]]:
    batch: list[Record] = []
    for record in store.query(Query(limit=None)):
        batch.append(record)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def read_all(source: Path) -> float:
    """Read all rows of *source* in batches; give the seconds that it took."""
    begin = time.perf_counter()
    with closing(sqlite3.connect(source)) as connection:
        cursor = connection.execute(f"SELECT {COLUMN_LIST} FROM flask_chest ORDER BY position")
        while cursor.fetchmany(BATCH):
            pass
    return time.perf_counter() - begin


def exporter_into(uri: str, name: str) -> StoreExporter:
    return StoreExporter(store_from_uri(uri, root=Path("/"), name=name), name=name)


if __name__ == "__main__":
    main(sys.argv[1:])
