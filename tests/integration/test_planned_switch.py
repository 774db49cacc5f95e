"""A planned switch to a replica and back, with load, as the benchmark of that name makes it."""

from __future__ import annotations

import pytest
from benchmarks import planned_switch


@pytest.mark.parametrize("kind", sorted(planned_switch.PAIRS))
def test_every_record_is_stored_once_and_soon_through_a_planned_switch_and_back(engine: None, kind: str) -> None:
    planned_switch.main(["--small", "--engine", kind])
