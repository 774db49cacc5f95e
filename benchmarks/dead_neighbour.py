"""What an exporter whose target is dead costs another one: the seconds until this one has delivered all.

Requests are recorded all the while. In turn in each round the exporter is alone, and beside one that waits for a
server which accepts connections and never answers.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from flask import Flask, g

from flask_chest import FlaskChestSQLite
from flask_chest.exporter.http import HTTPExporter
from flask_chest.testing import RecordingExporter

INTERVAL = timedelta(milliseconds=50)
PATIENCE_SECONDS = 300.0
LOOK_SECONDS = 0.005


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="dead_neighbour")
    parser.add_argument("--requests", type=int, default=20_000, metavar="N", help="in each half of a round")
    parser.add_argument("--rounds", type=int, default=10, metavar="N")
    parser.add_argument("--small", action="store_true", help="2 rounds of 1000")
    options = parser.parse_args(argv)
    rounds, requests = (2, 1_000) if options.small else (options.rounds, options.requests)
    alone: list[float] = []
    beside: list[float] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as dead:
        url = f"http://127.0.0.1:{dead.getsockname()[1]}/"
        for _ in range(rounds):
            alone.append(seconds_to_deliver(requests, dead_url=None))
            beside.append(seconds_to_deliver(requests, dead_url=url))
    ratio = statistics.median(other / one for one, other in zip(alone, beside, strict=True))
    print(f"alone                 {statistics.median(alone):6.2f} s for {requests} requests")
    print(f"beside a dead target  {statistics.median(beside):6.2f} s, {ratio:.2f} times as long")
    return {
        "alone_seconds": statistics.median(alone),
        "beside_seconds": statistics.median(beside),
        "ratio": ratio,
        "rounds": rounds,
    }


def seconds_to_deliver(requests: int, *, dead_url: str | None) -> float:
    app = Flask("shop")
    living = RecordingExporter("living")
    with tempfile.TemporaryDirectory() as folder:
        chest = FlaskChestSQLite(
            app, db_uri=Path(folder) / "chest.db", journal_dir=folder, scheduler="on", tracked_vars=["number"]
        )
        chest.add_exporter(living, interval=INTERVAL)
        if dead_url is not None:
            chest.add_exporter(HTTPExporter(url=dead_url, timeout=1.0, name="dead"), interval=INTERVAL)

        @app.route("/")
        def index() -> str:
            g.number = 1
            return "ok"

        client = app.test_client()
        begin = time.perf_counter()
        for _ in range(requests):
            client.get("/")
        while len(living.delivered) < requests:
            assert time.perf_counter() - begin < PATIENCE_SECONDS, "the living exporter does not deliver all"
            time.sleep(LOOK_SECONDS)
        seconds = time.perf_counter() - begin
        chest.close()
    return seconds


if __name__ == "__main__":
    main(sys.argv[1:])
