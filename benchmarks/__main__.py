"""Runs the benchmarks and keeps their figures as JSON: ``python -m benchmarks [--small] [NAME …]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import import_cost, sqlite_write

BENCHMARKS: Mapping[str, Callable[[Sequence[str]], Mapping[str, float]]] = {
    "import_cost": import_cost.main,
    "sqlite_write": sqlite_write.main,
}
RESULTS = Path(__file__).with_name("results")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; all if none")
    parser.add_argument("--small", action="store_true", help="a short form, to see that they run")
    options = parser.parse_args()
    for name in options.names or BENCHMARKS:
        print(f"{name}\n{'=' * len(name)}")
        figures = BENCHMARKS[name](["--small"] if options.small else [])
        print(f"kept in {keep(name, figures, small=options.small)}\n")


def keep(name: str, figures: Mapping[str, float], *, small: bool) -> Path:
    """Write *figures* and where they come from; return the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}{'-small' if small else ''}.json"
    result = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "figures": figures,
    }
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    main()
