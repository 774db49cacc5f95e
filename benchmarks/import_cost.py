"""What ``import flask_chest`` costs beyond ``import flask``: each in fresh interpreters, in turn.

Both come from bytecode, and nothing is there that neither of them needs, as once they are installed. A checkout
would else be compiled at every import where ``PYTHONDONTWRITEBYTECODE`` is set, and Flask would not: that alone
about doubles the difference.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

MODULES = ("flask", "flask_chest")
# msgspec imports typing_extensions where it is installed: here by others, by nothing that flask_chest needs.
TIMED_IMPORT = """
import sys
sys.modules["typing_extensions"] = None
import time
begin = time.perf_counter()
import {module}
print(time.perf_counter() - begin)
"""


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="import_cost")
    parser.add_argument("--small", action="store_true", help="few repetitions")
    repetitions = 5 if parser.parse_args(argv).small else 30
    with tempfile.TemporaryDirectory() as bytecode:
        for module in MODULES:
            import_milliseconds(module, bytecode)
        # In turn, so that a machine that grows slower meanwhile does not favour one of them.
        times = [[import_milliseconds(module, bytecode) for module in MODULES] for _ in range(repetitions)]
    flask, flask_chest = (statistics.median(column) for column in zip(*times, strict=True))
    low, _, high = statistics.quantiles((second - first for first, second in times), n=4)
    print(f"import flask        {flask:7.1f} ms")
    share = (flask_chest - flask) / flask
    print(f"import flask_chest  {flask_chest:7.1f} ms, {flask_chest - flask:.1f} ms more: {share:.2f} of Flask's")
    print(f"half of the {repetitions} pairs differ by {low:.1f} to {high:.1f} ms")
    return {
        "flask_ms": flask,
        "flask_chest_ms": flask_chest,
        "difference_ms": flask_chest - flask,
        "difference_of_flask": share,
        "difference_lower_quartile_ms": low,
        "difference_upper_quartile_ms": high,
        "pairs": repetitions,
    }


def import_milliseconds(module: str, bytecode: str) -> float:
    """Import *module* in a new interpreter, with its compiled form kept in the folder *bytecode*."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", TIMED_IMPORT.format(module=module)]
    environment["PYTHONPYCACHEPREFIX"] = bytecode
    return 1e3 * float(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
