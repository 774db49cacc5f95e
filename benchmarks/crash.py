"""gunicorn under load while its processes are killed: is each answered request in the store, and once?

A round is a server of four workers with several clients. Workers are killed at random moments, then all
processes at once; what they left in the journal is stored by the process that comes after them.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL

from benchmarks.visits import APP, Site
from benchmarks.web_servers import Server, gunicorn, load, serving, wait_until

CLIENTS = 6
KILLED_WORKERS = 4
ANSWERS_BETWEEN = (20, 120)
"""How many answers come, at least and at most, before the next process is killed."""
KINDS = (
    ["--worker-class=sync"],
    ["--worker-class=gthread", "--threads=3", "--preload"],
    ["--worker-class=gevent", "--preload"],
    ["--worker-class=sync", "--preload"],
    ["--worker-class=gthread", "--threads=3"],
    ["--worker-class=gevent"],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    answered: int
    missing: frozenset[str]
    """Visits that were answered and are not stored."""
    doubled: frozenset[str]
    """Visits that are stored more than once, answered or not."""
    stored: int
    killed: int


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="crash")
    parser.add_argument("--rounds", type=int, default=200, metavar="N")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), metavar="N")
    parser.add_argument("--small", action="store_true", help="as --rounds 6: one of each kind of worker")
    options = parser.parse_args(argv)
    begin = time.monotonic()
    rounds = list(crash_rounds(len(KINDS) if options.small else options.rounds, seed=options.seed))
    figures = {
        "rounds": len(rounds),
        "seed": options.seed,
        "killed_workers": sum(each.killed for each in rounds),
        "answered": sum(each.answered for each in rounds),
        "stored": sum(each.stored for each in rounds),
        "missing": sum(len(each.missing) for each in rounds),
        "doubled": sum(len(each.doubled) for each in rounds),
        "seconds": round(time.monotonic() - begin),
    }
    for name, figure in figures.items():
        print(f"{name:15} {figure:10}")
    return figures


def crash_rounds(count: int, *, seed: int) -> Iterator[Round]:
    """Run *count* rounds, each with a kind of worker and with files of its own."""
    chance = random.Random(seed)
    for number in range(count):
        with tempfile.TemporaryDirectory(prefix="chest-") as folder:
            yield crash(Site(Path(folder)), KINDS[number % len(KINDS)], chance)


def crash(site: Site, kind: Sequence[str], chance: random.Random) -> Round:
    command = gunicorn(APP, site.address, "--workers=4", *kind)
    with (
        serving(command, address=site.address, environ=site.environ) as server,
        load(site.address, clients=CLIENTS) as answered,
    ):
        killed = sum(kill_one(server, answered, chance) for _ in range(KILLED_WORKERS))
        await_answers(answered, chance)
        server.send_to_all(SIGKILL)
        server.wait_until_gone()
    stored = site.settle(answered.keys())
    return Round(
        answered=len(answered),
        missing=frozenset(answered.keys() - stored.keys()),
        doubled=frozenset(name for name, count in stored.items() if count > 1),
        stored=stored.total(),
        killed=killed,
    )


def kill_one(server: Server, answered: Mapping[str, int], chance: random.Random) -> bool:
    """Kill one of the processes that answered last, after some more answers."""
    await_answers(answered, chance)
    latest = list(dict.fromkeys(reversed(list(answered.values()))))[:4]
    return any(server.kill(pid) for pid in chance.sample(latest, len(latest)))


def await_answers(answered: Mapping[str, int], chance: random.Random) -> None:
    enough = len(answered) + chance.randint(*ANSWERS_BETWEEN)
    wait_until(lambda: len(answered) >= enough)


if __name__ == "__main__":
    main(sys.argv[1:])
