"""One installation of the app per test."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.visits import Site


@pytest.fixture
def site() -> Iterator[Site]:
    # Not tmp_path: the path of a Unix socket has at most 104 characters on macOS.
    with tempfile.TemporaryDirectory(prefix="chest-") as folder:
        yield Site(Path(folder))
