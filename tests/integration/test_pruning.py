"""Half of each store is pruned by another process while an app writes: nobody fails, and nothing else goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.prune_load import ENGINES, prune_while_writing

from servers import DatabaseServer

RECORDS = 2_000


@pytest.mark.parametrize("kind", ENGINES)
def test_app_writes_on_while_half_of_its_store_is_pruned(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path}/chest.db"
    if kind != "sqlite":
        server: DatabaseServer = request.getfixturevalue(kind)
        uri = server.uri
    outcome = prune_while_writing(uri, tmp_path, records=RECORDS)
    assert outcome.deleted == RECORDS // 2
    assert (outcome.faults, outcome.lost) == ({}, {})
    assert outcome.served > 1
    assert outcome.left == RECORDS // 2 + outcome.served
