"""The code blocks of the pages in docs/ that need no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from documents import Page, run

DOCS = Path(__file__).parents[2] / "docs"


PROGRAMS = {
    "capture.md": 4,
    "delivery.md": 2,
    "operating.md": 3,
    "opentelemetry.md": 2,
    "privacy.md": 1,
    "variables.md": 1,
    "viewer.md": 1,
}


@pytest.mark.parametrize(
    ("page", "number"), [(page, number) for page in PROGRAMS for number in range(PROGRAMS[page])]
)
def test_program_runs_and_prints_what_is_shown(page: str, number: int, tmp_path: Path) -> None:
    shown = [block.code for block in Page(DOCS / page).blocks("console", "output")]
    assert run(Page(DOCS / page).programs()[number], tmp_path) == (shown[number] if shown else "")


@pytest.mark.parametrize(("page", "programs"), PROGRAMS.items())
def test_every_program_is_run(page: str, programs: int) -> None:
    assert len(Page(DOCS / page).programs()) == programs
