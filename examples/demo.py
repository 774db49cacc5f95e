"""Runs the older project's example under a real server, sends it requests, shows what was kept and delivered.

    python -m examples.demo [--requests 300]

Delivers to the InfluxDB of INFLUXDB_URL, INFLUXDB_TOKEN, INFLUXDB_ORG and INFLUXDB_BUCKET, or to a stand-in.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path

from examples.line_protocol_receiver import LineProtocolReceiver
from flask import Flask

from flask_chest import FlaskChestSQLite
from flask_chest.exporter import FlaskChestExporterInfluxDB
from flask_chest.record import Record

EXAMPLE = Path(__file__).with_name("readme_app.py")
THREADS = 8
DATABASE = "db.sqlite3"  # beside the example, as it says there
LOG = "server.log"
START_SECONDS = STOP_SECONDS = 120.0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="demo", description="Show flask_chest at work on real requests.")
    parser.add_argument("--requests", type=int, default=300, metavar="N", help="how many to send (300)")
    count: int = parser.parse_args(argv).requests
    with tempfile.TemporaryDirectory(prefix="flask-chest-demo-") as name:
        folder = Path(name)
        with serve_example(folder) as port:
            send_requests(port, count)
        if show(folder / DATABASE, count):
            print("\nEvery request was kept and delivered.")
            return 0
        print("\nNOT every request was kept and delivered. The server's log:\n")
        print((folder / LOG).read_text())
        return 1


@contextmanager
def serve_example(folder: Path) -> Iterator[int]:
    """Run a copy of the example in *folder*, where its database is then made; yield the port."""
    shutil.copy(EXAMPLE, folder)
    log = folder / LOG
    # A shell starts background jobs with this signal ignored, and the server would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-m", "waitress", "--listen=127.0.0.1:0", f"--threads={THREADS}"]
    with log.open("wb") as output:
        server = subprocess.Popen([*command, "readme_app:app"], cwd=folder, stderr=output)
    try:
        yield wait_for_port(server, log)
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            raise


def wait_for_port(server: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if said := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text()):
            return int(said[1])
        time.sleep(0.02)
    raise SystemExit(f"the server did not start:\n{log.read_text()}")


def send_requests(port: int, count: int) -> None:
    def send(number: int) -> str:
        method = "GET" if number % 2 == 0 else "POST"
        with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            connection.request(method, "/")
            status = connection.getresponse().status
        return f"{method} {status}"

    print(f"The older project's example serves at http://127.0.0.1:{port}, under waitress.")
    begin = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        answers = Counter(pool.map(send, range(count)))
    seen = ", ".join(f"{answer}: {number}" for answer, number in sorted(answers.items()))
    print(f"Sent {count} requests in {time.monotonic() - begin:.1f} s and was answered: {seen}")


def show(database: Path, expected: int) -> bool:
    """Print what the chest holds and what an exporter delivers of it; tell whether that is all."""
    app = Flask(__name__)
    with closing(FlaskChestSQLite(app, db_uri=str(database))) as chest, app.app_context():
        kept, delivered = show_records(chest), show_delivery(chest)
    return kept == delivered == expected


def show_records(chest: FlaskChestSQLite) -> int:
    counts = Counter((record.method, record.status_code) for record in chest.iter())
    print(f"\nThe chest holds {counts.total()} records:\n")
    print_table(
        ["method", "status", "records"],
        [[method, status, number] for (method, status), number in sorted(counts.items())],
    )
    print("\nThe last five:\n")
    print_table(
        ["time (UTC)", "method", "route", "status", "duration", "variables"],
        [describe(record) for record in chest.query(limit=5)],
    )
    return counts.total()


def describe(record: Record) -> list[object]:
    moment = datetime.fromtimestamp(record.time_unix_nano / 1e9, UTC)
    return [
        moment.isoformat(" ", "milliseconds").removesuffix("+00:00"),
        record.method,
        record.route,
        record.status_code,
        f"{record.duration_ns / 1e6:.1f} ms",
        json.dumps(dict(record.variables)),
    ]


def show_delivery(chest: FlaskChestSQLite) -> int:
    """Deliver everything; return how many records arrived."""
    url = os.environ.get("INFLUXDB_URL")
    with nullcontext() if url else LineProtocolReceiver() as stand_in:
        FlaskChestExporterInfluxDB(
            chest,
            url=stand_in.url if stand_in else url,
            token=os.environ.get("INFLUXDB_TOKEN", "") if url else "any",
            org=os.environ.get("INFLUXDB_ORG", "my-org"),
            bucket=os.environ.get("INFLUXDB_BUCKET", "my-bucket"),
            interval_minutes=60,
        )
        reports = chest.run_exports()
    if stand_in is None:
        print(f"\nDelivered to the InfluxDB at {url}:\n")
    else:
        print("\nDelivered to a stand-in, since INFLUXDB_URL is not set:\n")
    print_table(
        ["exporter", "delivered", "set aside", "pending", "error"],
        [[run.exporter, run.delivered, run.rejected, run.pending, run.error] for run in reports],
    )
    if stand_in is not None:
        print(f"\nThe stand-in received {len(stand_in.lines)} points in line protocol. Two of them:\n")
        print("\n".join(stand_in.lines[-2:]))
        return len(set(stand_in.lines))
    return sum(run.delivered for run in reports)


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    lines = [head, *([str(cell if cell is not None else "-") for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        print("  " + "  ".join(map(str.ljust, line, widths)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
