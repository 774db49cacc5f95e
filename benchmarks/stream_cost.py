"""What a chest adds to a response that streams: to the response as a whole, and to each of its chunks.

The same app without and with a chest serves in turn, in one process and without a network, a stream of one chunk
and one of many; what the many cost more is divided among them. Figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path

from benchmarks.request_cost import WARM_UP, mean_us, serve
from flask import Flask, Response

from flask_chest import FlaskChestSQLite

CHUNKS = 1_000


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="stream_cost")
    parser.add_argument("--rounds", type=int, default=100, metavar="N")
    parser.add_argument("--requests", type=int, default=100, metavar="N", help="of each stream in a round")
    parser.add_argument("--small", action="store_true", help="3 rounds of 10")
    options = parser.parse_args(argv)
    rounds, requests = (3, 10) if options.small else (options.rounds, options.requests)
    with tempfile.TemporaryDirectory() as folder:
        one = added_us(Path(folder) / "one", 1, rounds, requests)
        many = added_us(Path(folder) / "many", CHUNKS, rounds, requests)
    chunk_ns = (many - one) * 1e3 / (CHUNKS - 1)
    print(f"a stream of one chunk {one:+.1f} µs, each chunk more {chunk_ns:+.0f} ns")
    return {"rounds": rounds, "requests": requests, "stream_added_us": one, "chunk_added_ns": chunk_ns}


def added_us(folder: Path, chunks: int, rounds: int, requests: int) -> float:
    """Measure what a chest adds to a stream of so many *chunks*."""
    bare, chested = streaming_app(chunks), streaming_app(chunks)
    chest = FlaskChestSQLite(
        chested,
        db_uri=folder / "chest.db",
        journal_dir=folder / "journal",
        journal_bytes=1 << 32,
        writer="off",
        tracked_vars=[],
    )
    for app in (bare, chested):
        serve(app, WARM_UP // 10)
    added = [mean_us(serve(chested, requests)) - mean_us(serve(bare, requests)) for _ in range(rounds)]
    chest.close()
    return statistics.median(added)


def streaming_app(chunks: int) -> Flask:
    app = Flask("bench")
    app.add_url_rule("/", view_func=lambda: Response(repeat("chunk", chunks)))
    return app


if __name__ == "__main__":
    main(sys.argv[1:])
