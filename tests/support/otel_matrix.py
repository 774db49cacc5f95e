"""Runs the unit tests with the oldest OpenTelemetry that is promised, with its API alone, and with none of it.

``python tests/support/otel_matrix.py``, from the project's folder. The newest is what all other tests run with.
Environments are made in ``.venv-otel``, by uv where it is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-otel"
EXTRAS = "influxdb,postgresql,mysql,mongodb,clickhouse,http"
OLDEST = "1.39.1"
OLDEST_CONTRIB = "0.60b1"

ENVIRONMENTS: dict[str, list[str]] = {
    "oldest": [
        f".[{EXTRAS},otel,otlp]",
        *(f"opentelemetry-{part}=={OLDEST}" for part in ("api", "sdk", "proto")),
        *(f"opentelemetry-instrumentation-{part}=={OLDEST_CONTRIB}" for part in ("flask", "sqlite3", "urllib3")),
    ],
    "api": [f".[{EXTRAS},otel]"],
    "none": [f".[{EXTRAS}]"],
}


def main() -> int:
    failed = [name for name, packages in ENVIRONMENTS.items() if not passes(name, packages)]
    print(f"failed: {', '.join(failed)}" if failed else f"passed with each of: {', '.join(ENVIRONMENTS)}")
    return bool(failed)


def passes(name: str, packages: list[str]) -> bool:
    """Make the environment *name* and run in it what can be run there."""
    print(f"{name}\n{'=' * len(name)}", flush=True)
    python = make(FOLDER / name, packages)
    checks = [
        ["pytest", "-q", "-p", "no:cacheprovider", "tests/unit"],
        ["mypy", "--cache-dir", str(FOLDER / f"{name}.mypy"), *lenience(name), "src"],
    ]
    return all(subprocess.run([python, "-m", *check], cwd=ROOT, check=False).returncode == 0 for check in checks)


def lenience(name: str) -> list[str]:
    """Let mypy pass over what is not there: what comes from it can be anything."""
    absent = ["--disable-error-code=import-not-found", "--disable-error-code=no-any-return"]
    return [] if name == "oldest" else [*absent, "--no-warn-unused-ignores"]


def make(folder: Path, packages: list[str], *, groups: Sequence[str] = ("test-core", "types")) -> str:
    python = str(folder / "bin" / "python")
    if uv := shutil.which("uv"):
        if not Path(python).exists():
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", python]
    else:
        if not Path(python).exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--upgrade", "pip>=25.1"], check=True)
        install = [python, "-m", "pip", "install", "--quiet"]
    named = [each for group in groups for each in ("--group", group)]
    subprocess.run([*install, "--editable", packages[0], *packages[1:], *named], cwd=ROOT, check=True)
    return python


if __name__ == "__main__":
    sys.exit(main())
