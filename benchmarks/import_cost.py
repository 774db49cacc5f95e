"""What ``import flask_chest`` costs beyond ``import flask``: each in fresh interpreters, in turn."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence

MODULES = ("flask", "flask_chest")
TIMED_IMPORT = """
import time
begin = time.perf_counter()
import {module}
print(time.perf_counter() - begin)
"""


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="import_cost")
    parser.add_argument("--small", action="store_true", help="few repetitions")
    repetitions = 5 if parser.parse_args(argv).small else 30
    # In turn, so that a machine that grows slower meanwhile does not favour one of them.
    times = [[import_milliseconds(module) for module in MODULES] for _ in range(repetitions)]
    flask, flask_chest = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"import flask        {flask:7.1f} ms")
    print(f"import flask_chest  {flask_chest:7.1f} ms, {flask_chest - flask:.1f} ms more")
    return {"flask_ms": flask, "flask_chest_ms": flask_chest, "difference_ms": flask_chest - flask}


def import_milliseconds(module: str) -> float:
    command = [sys.executable, "-c", TIMED_IMPORT.format(module=module)]
    return 1e3 * float(subprocess.run(command, capture_output=True, check=True).stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
