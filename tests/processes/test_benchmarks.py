"""The benchmarks: that each can be called, and that those of a request tell what they measure."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from benchmarks import request_parts, viewer_load, viewer_pages
from benchmarks.__main__ import BENCHMARKS

ROOT = Path(__file__).parents[2]
IMPORT_AND_LOOK = (
    "import sys, benchmarks.__main__, benchmarks.request_cost; print('opentelemetry.trace' in sys.modules)"
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


@pytest.mark.parametrize(("module", "function"), BENCHMARKS.values(), ids=BENCHMARKS)
def test_benchmark_is_where_its_name_leads(module: str, function: str) -> None:
    assert callable(getattr(import_module(f"benchmarks.{module}"), function))


def test_every_part_of_a_request_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    figures = request_parts.main(["--small"])
    told = capsys.readouterr().out
    for part in (*request_parts.PARTS.values(), "a whole chest"):
        assert f"{part}_us" in figures
        assert part in told


def test_every_page_of_the_viewer_is_measured() -> None:
    figures = viewer_pages.main(["--small", "--engines", "sqlite"])
    assert figures["sqlite_overview of the day_left_out"] == 0
    assert figures["sqlite_p99_ratio"] > 0


def test_many_who_reload_the_viewer_ask_one_question_at_a_time() -> None:
    figures = viewer_load.main(["--small"])
    assert figures["made"] > 0
    assert figures["last_pages"] + figures["refused"] > 0


def test_request_is_measured_without_what_other_benchmarks_import() -> None:
    assert run("-c", IMPORT_AND_LOOK).stdout == "False\n"


def test_name_of_no_benchmark_is_refused() -> None:
    refused = run("-m", "benchmarks", "nonsense")
    assert refused.returncode == 2
    assert "there is no benchmark nonsense" in refused.stderr
