"""The tests that move records through real servers, with 20,000 of them: is each there once, and equal?

Into every target from SQLite and PostgreSQL, from every store into PostgreSQL, through servers that are killed
and restarted meanwhile, and by processes that kill themselves while their target is in trouble.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = "every_record_arrives_equal_and_once or load_through_a_server or deadly_processes"


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="through_servers")
    parser.add_argument("--records", type=int, default=20_000, metavar="N", help="in each test")
    parser.add_argument("--small", action="store_true", help="2000 records")
    options = parser.parse_args(argv)
    records = 2_000 if options.small else options.records
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/integration", "-k", TESTS]
    environ = {**os.environ, "FLASK_CHEST_TEST_RECORDS": str(records), "FLASK_CHEST_REQUIRE_SERVERS": "1"}
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environ, check=False, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - begin
    last = done.stdout.splitlines()[-1]
    if done.returncode != 0:
        raise SystemExit(f"not every record is there once, or a server is missing:\n{done.stdout}")
    passed = re.search(r"(\d+) passed", last)
    count = int(passed[1]) if passed is not None else 0
    print(f"{count} ways of {records} records each: all are there once, and equal ({seconds:.0f} s)")
    return {"ways": count, "records": records, "seconds": seconds}


if __name__ == "__main__":
    main(sys.argv[1:])
