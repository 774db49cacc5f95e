"""Whatever is killed while it delivers, the target holds each record once at last, and none waits."""

from __future__ import annotations

from pathlib import Path

from benchmarks.delivery_chaos import deliver, everything


def test_processes_killed_at_every_step_lose_and_double_nothing(tmp_path: Path) -> None:
    source, target = (f"sqlite:///{tmp_path}/{name}.db" for name in ("source", "target"))
    outcome = deliver(source, {"kind": "store", "uri": target}, records=2_000, seed=1, risk=0.04, batch_size=50)
    assert outcome.killed >= 3
    assert (outcome.pending, outcome.rejected) == (0, 0)
    arrived = everything(target)
    assert len(arrived) == len(outcome.written)
    assert {record.id: record for record in arrived} == {record.id: record for record in outcome.written}
