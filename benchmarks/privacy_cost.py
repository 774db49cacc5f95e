"""What looking at values adds to a request with three plain variables: conversion and redaction, by rule.

Apps with a chest serve in turn, in another order each time; of each turn the median request counts. The first
takes the values as they are and looks at none of them, which no chest does; the others are a chest with the
built-in list alone, and with rules besides.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

from benchmarks.request_cost import WARM_UP, make_app, serve
from benchmarks.tracing_cost import cost, in_any_order
from flask import Flask

from flask_chest import FlaskChestSQLite, Redact
from flask_chest.capture.extractor import Extractor
from flask_chest.decorator import flask_chest

NAMES = [f"variable_{number}" for number in range(3)]
RULES: Mapping[str, Sequence[Redact]] = {
    "as it comes": [],
    "three names for a hash": [Redact(NAMES, action="hash")],
    "a pattern for all texts": [Redact(pattern=r"\b\d{4}(?: \d{4}){3}\b")],
    "a function for all": [Redact(when=lambda _path, _value: False)],
}
UNSEEN = "unseen"


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="privacy_cost")
    parser.add_argument("--rounds", type=int, default=200, metavar="N")
    parser.add_argument("--requests", type=int, default=500, metavar="N", help="of each app in a round")
    parser.add_argument("--small", action="store_true", help="3 rounds of 100")
    options = parser.parse_args(argv)
    rounds, requests = (3, 100) if options.small else (options.rounds, options.requests)
    figures: dict[str, float] = {"rounds": rounds, "requests": requests}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        apps = {
            name: stack.enter_context(hiding_app(Path(folder) / name, rules)) for name, rules in RULES.items()
        }
        unseen_app = stack.enter_context(hiding_app(Path(folder) / UNSEEN, ()))
        turns: dict[str, Callable[[], float]] = {UNSEEN: lambda: unseen(unseen_app, requests)}
        for name, app in apps.items():
            turns[name] = lambda app=app: cost(app, requests)  # type: ignore[misc]  # bound now, not at the call
        times = [in_any_order(turns) for _ in range(rounds)]
    base = statistics.median(each[UNSEEN] for each in times)
    print(f"{'no look at any value':26} {base:6.1f} µs a request")
    figures["unseen_us"] = base
    for name in RULES:
        added = statistics.median(each[name] - each[UNSEEN] for each in times)
        print(f"{name:26} {added:+6.1f} µs")
        figures[f"{name.replace(' ', '_')}_us"] = added
    return figures


@contextmanager
def hiding_app(folder: Path, rules: Sequence[Redact]) -> Iterator[Flask]:
    app = make_app(len(NAMES), decorate=flask_chest(tracked_vars=NAMES))
    chest = FlaskChestSQLite(
        app,
        db_uri=folder / "chest.db",
        journal_dir=folder,
        journal_bytes=1 << 32,
        writer="off",
        redact=list(rules),
        hash_key="a key of the benchmark",
    )
    serve(app, WARM_UP)
    yield app
    chest.close()


def unseen(app: Flask, requests: int) -> float:
    """Serve with a capture that copies three names and looks at nothing."""

    def copied(_: Extractor, held: Mapping[str, object]) -> dict[str, object]:
        return {name: held[name] for name in NAMES if name in held}

    with patch.object(Extractor, "plain", copied):
        return cost(app, requests)


if __name__ == "__main__":
    main(sys.argv[1:])
