"""Records a second from journal to SQLite, beside a bare ``executemany`` of ready-made rows, in turn."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.sqlite_write import BATCH, INSERT, connect, open_store, rate, sample

from flask_chest.background.writer import BATCH_RECORDS
from flask_chest.journal import JournalConfig
from flask_chest.journal.file import FileJournal
from flask_chest.stores._records import storable_rows
from flask_chest.stores.sql.tables import SQLValue

ROUNDS = 10


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="journal_to_store")
    parser.add_argument("--records", type=int, default=200_000, metavar="N")
    parser.add_argument("--small", action="store_true", help="as --records 2000, in 2 rounds")
    options = parser.parse_args(argv)
    rounds, records = (2, 2_000) if options.small else (ROUNDS, options.records)
    with tempfile.TemporaryDirectory() as folder:
        bare_rates, our_rates = compare(Path(folder), rounds, max(1, records // rounds // BATCH))
    bare, ours = statistics.median(bare_rates), statistics.median(our_rates)
    # Of the two halves of a round, which had the same neighbours on the machine.
    ratio = statistics.median(mine / theirs for theirs, mine in zip(bare_rates, our_rates, strict=True))
    print(f"bare executemany of rows   {bare:9.0f} records/s")
    print(f"journal to SQLite          {ours:9.0f} records/s, {ratio:.2f} of the bare")
    return {"bare_per_second": bare, "journal_per_second": ours, "ratio": ratio, "rounds": rounds}


def compare(folder: Path, rounds: int, batches: int) -> tuple[list[float], list[float]]:
    """Write *batches* in each round both ways; return each round's records a second."""
    bare_rates: list[float] = []
    our_rates: list[float] = []
    store = open_store(folder / "store.db")
    with (
        closing(store),
        closing(connect(folder / "bare.db")) as connection,
        closing(journal_in(folder)) as journal,
    ):

        def execute(rows: Sequence[tuple[SQLValue, ...]]) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(INSERT, rows)
            connection.execute("COMMIT")

        for _ in range(rounds):
            work = [[sample() for _ in range(BATCH)] for _ in range(batches)]
            for record in (record for batch in work for record in batch):
                journal.append(record)
            bare_rates.append(rate(execute, [storable_rows(batch) for batch in work]))
            begin = time.perf_counter()
            while records := journal.read(BATCH_RECORDS):
                store.write(records)
                journal.stored()
            our_rates.append(batches * BATCH / (time.perf_counter() - begin))
    return bare_rates, our_rates


def journal_in(folder: Path) -> FileJournal:
    return FileJournal(
        JournalConfig(folder=folder / "journal", chest="chest", store="bench", host="bench", max_bytes=1 << 30),
        report=print,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
