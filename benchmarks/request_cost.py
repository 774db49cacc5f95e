"""What a chest adds to a request: the same app without and with one, in turn, in one process.

The requests go through the WSGI interface as a server calls it, without a network. Each round times both apps;
figures are medians over the rounds, of pairs that had the same neighbours on the machine. ``append`` is the
request's own share, with the writer off; ``cold`` is the same where something else fills the processor's caches
between two requests, as a server does. ``saturated`` has the writer's thread store into SQLite meanwhile, and
tells how much of its work it got done beside requests that never rest.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from flask import Flask, g
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder

from flask_chest import FlaskChestSQLite, TrackedVars, Variables
from flask_chest.decorator import flask_chest

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from flask_chest.extension.settings import WriterMode

View: TypeAlias = Callable[[], str]

VARIABLES = (0, 3, 20)
WARM_UP = 300
BETWEEN = bytearray(1 << 20)
_numbers = count()


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="request_cost")
    parser.add_argument("--rounds", type=int, default=200, metavar="N")
    parser.add_argument("--requests", type=int, default=500, metavar="N", help="of each app in a round")
    parser.add_argument("--small", action="store_true", help="3 rounds of 100")
    options = parser.parse_args(argv)
    rounds, requests = (3, 100) if options.small else (options.rounds, options.requests)
    figures: dict[str, float] = {"rounds": rounds, "requests": requests}
    with tempfile.TemporaryDirectory() as folder:
        for variables in VARIABLES:
            for generator in (None, custom_request_id):
                name = f"append_{variables}_variables" + ("" if generator is None else "_own_id")
                figures |= compare(name, Path(folder), variables, generator, rounds, requests)
        figures |= compare("append_3_variables_cold", Path(folder), 3, None, rounds, requests, between=BETWEEN)
        figures |= declare(Path(folder), rounds, requests)
        figures |= saturate(Path(folder), rounds=max(3, rounds // 10), requests=10 * requests)
    return figures


def compare(
    name: str,
    folder: Path,
    variables: int,
    generator: Callable[[], str] | None,
    rounds: int,
    requests: int,
    *,
    between: bytearray | None = None,
) -> dict[str, float]:
    """Measure one pair of apps, and print and return what the chest adds."""
    bare, chested, chest = make_apps(folder, variables, generator, writer="off")
    pairs = [(serve(bare, requests, between), serve(chested, requests, between)) for _ in range(rounds)]
    chest.close()
    bare_us, chested_us = (statistics.median(map(mean_us, times)) for times in zip(*pairs, strict=True))
    added_us = statistics.median(mean_us(ours) - mean_us(theirs) for theirs, ours in pairs)
    ratio = statistics.median(mean_us(ours) / mean_us(theirs) for theirs, ours in pairs)
    bare_p99, chested_p99 = (statistics.median(map(p99_us, times)) for times in zip(*pairs, strict=True))
    print(
        f"{name:28} bare {bare_us:6.1f} µs, with a chest {chested_us:6.1f} µs: {added_us:+5.1f} µs, "
        f"{ratio - 1:+.2f} of the bare, {1 / ratio:.2f} of its rate; p99 {bare_p99:.0f} and {chested_p99:.0f} µs"
    )
    return {
        f"{name}_bare_us": bare_us,
        f"{name}_added_us": added_us,
        f"{name}_added_ratio": ratio - 1,
        f"{name}_rate_ratio": 1 / ratio,
        f"{name}_bare_p99_us": bare_p99,
        f"{name}_added_p99_us": chested_p99 - bare_p99,
    }


class Declared(Variables):
    """The three variables of the others, with their types."""

    variable_0: str
    variable_1: Literal["abc", "def"]
    variable_2: float | None


def declare(folder: Path, rounds: int, requests: int) -> dict[str, float]:
    """Measure what it adds to the append of three names that a class declares them."""
    apps = [make_apps(folder, 3, None, writer="off", tracked_vars=tracked) for tracked in (None, Declared)]
    (_, named, _), (_, declared, _) = apps
    pairs = [(serve(named, requests), serve(declared, requests)) for _ in range(rounds)]
    for _, _, chest in apps:
        assert not chest.stats().faults
        chest.close()
    added_us = statistics.median(mean_us(ours) - mean_us(theirs) for theirs, ours in pairs)
    print(f"{'declared, 3 variables':28} {added_us:+5.2f} µs to those of their names")
    return {"declared_3_variables_added_us": added_us}


def saturate(folder: Path, *, rounds: int, requests: int) -> dict[str, float]:
    """Measure a loop of *requests* that never rests, while the writer stores what it has recorded."""
    bare, chested, chest = make_apps(folder, 3, None, writer="thread")
    pairs: list[tuple[list[int], list[int]]] = []
    shares: list[float] = []
    for _ in range(rounds):
        chest.flush()
        theirs, before = serve(bare, requests), chest.stats().stored
        pairs.append((theirs, serve(chested, requests)))
        shares.append((chest.stats().stored - before) / requests)
    chest.close()
    rate = statistics.median(mean_us(theirs) / mean_us(ours) for theirs, ours in pairs)
    bare_p99, chested_p99 = (statistics.median(map(p99_us, times)) for times in zip(*pairs, strict=True))
    stored = statistics.median(shares)
    print(
        f"saturated, 3 variables: {rate:.2f} of the bare rate, {stored:.2f} of the records stored meanwhile; "
        f"p99 {bare_p99:.0f} and {chested_p99:.0f} µs"
    )
    return {
        "saturated_3_variables_rate_ratio": rate,
        "saturated_3_variables_stored_meanwhile": stored,
        "saturated_3_variables_bare_p99_us": bare_p99,
        "saturated_3_variables_added_p99_us": chested_p99 - bare_p99,
    }


def make_apps(
    folder: Path,
    variables: int,
    generator: Callable[[], str] | None,
    *,
    writer: WriterMode,
    tracked_vars: TrackedVars | None = None,
) -> tuple[Flask, Flask, FlaskChestSQLite]:
    """Make a bare app and one with a chest, and warm both up."""
    tracked = tracked_vars or [f"variable_{number}" for number in range(variables)]
    bare = make_app(variables)
    chested = make_app(variables, decorate=flask_chest(tracked_vars=tracked, request_id_generator=generator))
    place = folder / str(next(_numbers))
    chest = FlaskChestSQLite(
        chested,
        db_uri=place / "chest.db",
        journal_dir=place / "journal",
        journal_bytes=1 << 32,
        writer=writer,
    )
    serve(bare, WARM_UP)
    serve(chested, WARM_UP)
    return bare, chested, chest


def make_app(variables: int, *, decorate: Callable[[View], View] = lambda view: view) -> Flask:
    app = Flask(f"bench-{next(_numbers)}")
    values = ("123", "abc", 0.10012, 42, True)
    held = {f"variable_{number}": values[number % len(values)] for number in range(variables)}

    def visit() -> str:
        for name, value in held.items():
            setattr(g, name, value)
        return "Hello, World!"

    app.add_url_rule("/", view_func=decorate(visit))
    return app


def custom_request_id() -> str:
    return str(uuid.uuid4())


def serve(app: Flask, requests: int, between: bytearray | None = None) -> list[int]:
    """Send *requests* as a server does, and copy *between* before each; return the nanoseconds that each took."""
    environ: WSGIEnvironment = EnvironBuilder("/", headers=Headers({"User-Agent": "benchmark"})).get_environ()
    times: list[int] = []
    for _ in range(requests):
        if between is not None:
            bytes(between)
        fresh = environ.copy()
        begin = time.perf_counter_ns()
        body = app(fresh, start_response)
        for _chunk in body:
            pass
        if hasattr(body, "close"):
            body.close()
        times.append(time.perf_counter_ns() - begin)
    return times


def start_response(*_: object) -> Callable[[bytes], object]:
    return bytes


def mean_us(times: Sequence[int]) -> float:
    return statistics.fmean(times) / 1e3


def p99_us(times: Sequence[int]) -> float:
    return statistics.quantiles(times, n=100)[-1] / 1e3


if __name__ == "__main__":
    main(sys.argv[1:])
