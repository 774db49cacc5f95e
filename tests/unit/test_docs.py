"""The code blocks of the pages in docs/ that need no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from documents import Page, run

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "number"), [("delivery.md", 0), ("delivery.md", 1), ("opentelemetry.md", 0), ("opentelemetry.md", 1)]
)
def test_program_runs(page: str, number: int, tmp_path: Path) -> None:
    run(Page(DOCS / page).programs()[number], tmp_path)


@pytest.mark.parametrize(("page", "programs"), [("delivery.md", 2), ("opentelemetry.md", 2)])
def test_every_program_is_run(page: str, programs: int) -> None:
    assert len(Page(DOCS / page).programs()) == programs
