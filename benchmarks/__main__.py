"""Runs the benchmarks and keeps their figures as JSON: ``python -m benchmarks [--small] [NAME …]``.

Each runs in a process of its own that imports nothing for another one: a request is dearer where OpenTelemetry is
imported, since there may be a span.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import cast

BENCHMARKS: Mapping[str, tuple[str, str]] = {
    "request_cost": ("request_cost", "main"),
    "request_parts": ("request_parts", "main"),
    "tracing_cost": ("tracing_cost", "main"),
    "privacy_cost": ("privacy_cost", "main"),
    "stream_cost": ("stream_cost", "main"),
    "journal_to_store": ("journal_to_store", "main"),
    "waiting_memory": ("waiting_memory", "main"),
    "import_cost": ("import_cost", "main"),
    "gunicorn_rate": ("gunicorn_rate", "main"),
    "sqlite_write": ("sqlite_write", "main"),
    "id_order": ("id_order", "main"),
    "sqlite_indexes": ("index_cost", "sqlite_indexes"),
    "postgresql_indexes": ("index_cost", "postgresql_indexes"),
    "postgresql_write": ("server_write", "postgresql_write"),
    "mysql_write": ("server_write", "mysql_write"),
    "mariadb_write": ("server_write", "mariadb_write"),
    "mongodb_write": ("server_write", "mongodb_write"),
    "documentdb_write": ("server_write", "documentdb_write"),
    "crash": ("crash", "main"),
    "delivery_chaos": ("delivery_chaos", "main"),
    "delivery_rate": ("delivery_rate", "main"),
    "dead_neighbour": ("dead_neighbour", "main"),
    "through_servers": ("through_servers", "main"),
    "planned_switch": ("planned_switch", "main"),
    "prune_load": ("prune_load", "main"),
    "partitions": ("partitions", "main"),
    "query_memory": ("query_memory", "main"),
    "parquet": ("parquet", "main"),
    "finding": ("finding", "main"),
    "index_load": ("index_load", "main"),
    "aggregating": ("aggregating", "main"),
    "clickhouse": ("clickhouse", "main"),
    "question_load": ("question_load", "main"),
    "viewer_pages": ("viewer_pages", "main"),
    "viewer_load": ("viewer_load", "main"),
}
"""Name → module and function, which is given the command's arguments and gives its figures."""
RESULTS = Path(__file__).with_name("results")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; all if none")
    parser.add_argument("--small", action="store_true", help="a short form, to see that they run")
    options = parser.parse_args()
    small = ["--small"] if options.small else []
    names = options.names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    if len(names) == 1:
        run(names[0], small)
        return 0
    command = [sys.executable, "-m", "benchmarks", *small]
    failed = [name for name in names if subprocess.run([*command, name], check=False).returncode]
    print(f"failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def run(name: str, arguments: Sequence[str]) -> None:
    """Run one benchmark and keep its figures."""
    print(f"{name}\n{'=' * len(name)}", flush=True)
    module, function = BENCHMARKS[name]
    measure = cast(
        "Callable[[Sequence[str]], Mapping[str, float]]", getattr(import_module(f"benchmarks.{module}"), function)
    )
    try:
        figures = measure(arguments)
    except SystemExit as exc:  # it lacks something, as a container engine; the others may run
        print(exc, file=sys.stderr)
        return
    print(f"kept in {keep(name, figures, small=bool(arguments))}\n", flush=True)


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
    sys.exit(main())
