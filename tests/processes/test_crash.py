"""Whatever is killed under load, each request that was answered is stored once."""

from __future__ import annotations

from benchmarks.crash import KILLED_WORKERS, crash_rounds

ROUNDS = 5


def test_killed_workers_and_servers_lose_nothing_that_was_answered() -> None:
    rounds = list(crash_rounds(ROUNDS, seed=3))
    assert len(rounds) == ROUNDS
    for each in rounds:
        assert each.answered > KILLED_WORKERS * 20
        assert each.missing == frozenset()
        assert each.doubled == frozenset()
    assert sum(each.killed for each in rounds) > ROUNDS
