"""Runs the unit tests with the newest Flask that can be had: what its main branch will be.

``python tests/support/flask_matrix.py``, from the project's folder. The environment is made in ``.venv-flask``.
Where the branch cannot be reached, ``FLASK`` names another source for pip.
"""

from __future__ import annotations

import os
import subprocess
import sys

from otel_matrix import EXTRAS, ROOT, make

NEWEST = "https://github.com/pallets/flask/archive/refs/heads/main.zip"


def main() -> int:
    source = os.environ.get("FLASK", NEWEST)
    python = make(ROOT / ".venv-flask", [f".[{EXTRAS},otel,otlp]", source])
    # Of OpenTelemetry's instrumentation, which asks for what Flask will not have for long.
    merged = "ignore:'request_ctx' has merged:DeprecationWarning"
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", merged, "tests/unit"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
