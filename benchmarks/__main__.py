"""Runs the benchmarks and keeps their figures as JSON: ``python -m benchmarks [--small] [NAME …]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import (
    crash,
    dead_neighbour,
    delivery_chaos,
    delivery_rate,
    gunicorn_rate,
    id_order,
    import_cost,
    journal_to_store,
    privacy_cost,
    prune_load,
    query_memory,
    request_cost,
    server_write,
    sqlite_write,
    through_servers,
    tracing_cost,
    waiting_memory,
)

BENCHMARKS: Mapping[str, Callable[[Sequence[str]], Mapping[str, float]]] = {
    "request_cost": request_cost.main,
    "tracing_cost": tracing_cost.main,
    "privacy_cost": privacy_cost.main,
    "journal_to_store": journal_to_store.main,
    "waiting_memory": waiting_memory.main,
    "import_cost": import_cost.main,
    "gunicorn_rate": gunicorn_rate.main,
    "sqlite_write": sqlite_write.main,
    "id_order": id_order.main,
    "postgresql_write": server_write.postgresql_write,
    "mysql_write": server_write.mysql_write,
    "mariadb_write": server_write.mariadb_write,
    "mongodb_write": server_write.mongodb_write,
    "documentdb_write": server_write.documentdb_write,
    "crash": crash.main,
    "delivery_chaos": delivery_chaos.main,
    "delivery_rate": delivery_rate.main,
    "dead_neighbour": dead_neighbour.main,
    "through_servers": through_servers.main,
    "prune_load": prune_load.main,
    "query_memory": query_memory.main,
}
RESULTS = Path(__file__).with_name("results")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; all if none")
    parser.add_argument("--small", action="store_true", help="a short form, to see that they run")
    options = parser.parse_args()
    for name in options.names or BENCHMARKS:
        print(f"{name}\n{'=' * len(name)}")
        try:
            figures = BENCHMARKS[name](["--small"] if options.small else [])
        except SystemExit as exc:  # it lacks something, as a container engine; the others may run
            print(exc, file=sys.stderr)
            continue
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
