"""Runs the tests of ClickHouse on its engine, chDB, which is too large for everybody's environment.

``python tests/support/clickhouse_matrix.py``, from the project's folder. The environment is made in
``.venv-clickhouse``.
"""

from __future__ import annotations

import subprocess
import sys

from otel_matrix import ROOT, make


def main() -> int:
    python = make(ROOT / ".venv-clickhouse", [".[clickhouse,postgresql]"], groups=("test-clickhouse",))
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "auto", "tests/clickhouse"]
    return subprocess.run([*command, *sys.argv[1:]], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
