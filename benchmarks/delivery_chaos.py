"""Processes that deliver the same records are killed at every step: what does the target hold at last?

A round writes records into a source while four processes deliver them to a target under one exporter's name.
Each kills itself now and then, before, in or after a claim, an export or an acknowledgement, and another takes
its place. At the end the target must hold each record once, equal, and nothing may wait.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from benchmarks.deadly_worker import EXPORTER, Task

from flask_chest.protocols import ExporterRegistry, Store
from flask_chest.record import Query, Record
from flask_chest.stores import store_from_uri
from flask_chest.stores.options import DEFAULT_NAME
from flask_chest.testing import make_record

PROCESSES = 4
RISK = 0.03
PATIENCE_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    written: tuple[Record, ...]
    killed: int
    pending: int
    rejected: int


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="delivery_chaos")
    parser.add_argument("--rounds", type=int, default=10, metavar="N")
    parser.add_argument("--records", type=int, default=20_000, metavar="N", help="in each round")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), metavar="N")
    parser.add_argument("--small", action="store_true", help="1 round of 2,000")
    options = parser.parse_args(argv)
    rounds, records = (1, 2_000) if options.small else (options.rounds, options.records)
    killed = missing = different = pending = 0
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            source, target = (f"sqlite:///{folder}/{name}.db" for name in ("source", "target"))
            outcome = deliver(
                source,
                {"kind": "store", "uri": target},
                records=records,
                seed=options.seed + number,
                batch_size=200,
            )
            arrived = {record.id: record for record in everything(target)}
        killed += outcome.killed
        pending += outcome.pending
        missing += sum(record.id not in arrived for record in outcome.written)
        different += sum(arrived.get(record.id, record) != record for record in outcome.written)
    print(f"{rounds} rounds of {records} records (seed {options.seed}): {killed} processes killed,")
    print(f"{missing} records missing, {different} different, {pending} still pending")
    return {
        "rounds": rounds,
        "records": records,
        "seed": options.seed,
        "killed": killed,
        "missing": missing,
        "different": different,
        "pending": pending,
    }


def deliver(
    source: str,
    target: Mapping[str, str],
    *,
    records: int,
    seed: int,
    risk: float = RISK,
    batch_size: int = 50,
    name: str = DEFAULT_NAME,
    meanwhile: Callable[[], object] = lambda: None,
) -> Outcome:
    """Write *records* into *source* while processes deliver them to *target*; call *meanwhile* half-way.

    *name* is that of the tables in the source, and in a target that is a store.
    """
    written = tuple(
        make_record(variables={"number": number, "text": "ü" * (number % 50)}) for number in range(records)
    )
    chance = random.Random(seed)
    with ExitStack() as stack:
        store = stack.enter_context(closing(opened(source, name=name)))

        def start() -> subprocess.Popen[bytes]:
            task = Task(
                source=source,
                name=name,
                target=target,
                seed=chance.randrange(1 << 32),
                risk=risk,
                batch_size=batch_size,
            )
            command = [sys.executable, "-m", "benchmarks.deadly_worker", msgspec.json.encode(task).decode()]
            return stack.enter_context(ended_at_last(subprocess.Popen(command)))

        half = records // 2
        store.write(written[:half])
        workers = [start() for _ in range(PROCESSES)]
        meanwhile()
        for first in range(half, records, 500):
            store.write(written[first : first + 500])
        killed = 0
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(worker.poll() != 0 for worker in workers):
            assert time.monotonic() < deadline, "the deliveries do not end"
            dead = [number for number, worker in enumerate(workers) if worker.poll() not in (None, 0)]
            for number in dead:
                assert workers[number].returncode == -9, workers[number].returncode
                killed += 1
                workers[number] = start()
            time.sleep(0.01)
        assert isinstance(store, ExporterRegistry)
        (status,) = (each for each in store.exporters() if each.name == EXPORTER)
        return Outcome(written=written, killed=killed, pending=status.backlog, rejected=status.rejected)


@contextmanager
def ended_at_last(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def opened(uri: str, *, name: str) -> Store:
    store = store_from_uri(uri, root=Path("/"), name=name)()
    store.open()
    return store


def everything(uri: str, *, name: str = DEFAULT_NAME) -> list[Record]:
    with closing(opened(uri, name=name)) as store:
        return list(store.query(Query(limit=None)))


if __name__ == "__main__":
    main(sys.argv[1:])
