"""Where the microseconds of a request go: the least that keeps a record, part by part, beside a chest.

The least is a few flat functions that look at nothing but what the app of this benchmark needs: no lock, no
bound, no fork, no second chest, no value that would be converted, no failure. Each line has one part more than
the one before. In every round all are asked in turn; figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import msgspec
from benchmarks.request_cost import WARM_UP, make_app, make_apps, mean_us, serve
from flask import Flask, Response
from uuid_utils import uuid4, uuid7

from flask_chest import Record
from flask_chest.extension.middleware import current_app_context, current_context

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

NAMES = ("variable_0", "variable_1", "variable_2")
CLOCKS, VARIABLES, IDS, RECORD, ENCODING, FRAME, WRITE, CHEST_KEEPS = range(1, 9)
PARTS: Mapping[int, str] = {
    CLOCKS: "two clocks, the process's id, two hooks",
    VARIABLES: "find the request, take the variables",
    IDS: "two ids",
    RECORD: "the record",
    ENCODING: "its encoding",
    FRAME: "a frame with its checksum",
    WRITE: "the write",
    CHEST_KEEPS: "the journal of a chest in place of the last three",
}
_KEY = "benchmark.taken"
_MARKER = b"8 bytes."
_SEED = crc32(_MARKER)
_encode = msgspec.msgpack.Encoder().encode
_pack_length_and_kind = struct.Struct("<IB").pack
_pack_crc = struct.Struct("<I").pack


def main(argv: Sequence[str] = ()) -> Mapping[str, float]:
    parser = argparse.ArgumentParser(prog="request_parts")
    parser.add_argument("--rounds", type=int, default=200, metavar="N")
    parser.add_argument("--requests", type=int, default=300, metavar="N", help="to each app in a round")
    parser.add_argument("--small", action="store_true", help="3 rounds of 50")
    options = parser.parse_args(argv)
    rounds, requests = (3, 50) if options.small else (options.rounds, options.requests)
    with tempfile.TemporaryDirectory() as folder:
        bare, chested, chest = make_apps(Path(folder), len(NAMES), None, writer="off")
        descriptor = os.open(Path(folder, "frames"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with chested.app_context():
            keep = chest._state.here.keep  # noqa: SLF001 - what is measured
        apps = [bare]
        for part in PARTS:
            apps.append(make_app(len(NAMES)))
            Least(apps[-1], part, descriptor=descriptor, keep=keep)
            serve(apps[-1], WARM_UP)
        apps.append(chested)
        times = [[mean_us(serve(app, requests)) for app in apps] for _ in range(rounds)]
        chest.close()
        os.close(descriptor)
    return {"rounds": rounds, "requests": requests, **tell(times)}


def tell(times: Iterable[Sequence[float]]) -> dict[str, float]:
    """Print what each part added, and return it."""
    columns = list(zip(*times, strict=True))
    bare = statistics.median(columns[0])
    names = [*PARTS.values(), "a whole chest"]
    figures = {"bare_us": bare}
    before = 0.0
    for name, column in zip(names, columns[1:], strict=True):
        added = statistics.median(with_it - without for without, with_it in zip(columns[0], column, strict=True))
        figures[f"{name}_us"] = added
        alone, ratio = added - before, added / bare
        print(f"{name:52} {added:+5.1f} µs in all, {alone:+5.1f} by itself; {ratio:.2f} of {bare:.1f} µs")
        before = added
    return figures


class Least:
    """Puts into an app what leads to a record, up to one of `PARTS`."""

    def __init__(self, app: Flask, part: int, *, descriptor: int, keep: Callable[[Record], None]) -> None:
        self.part = part
        self.descriptor = descriptor
        self.keep = keep
        self.inner, self.process_response = app.wsgi_app, app.process_response
        app.process_response = self.take  # type: ignore[method-assign, assignment]  # as the middleware does
        app.wsgi_app = self.serve_and_keep  # type: ignore[method-assign]  # Flask's documented way

    def serve_and_keep(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        taken: list[Any] = [time.time_ns(), time.perf_counter_ns(), {}]
        environ[_KEY] = taken
        os.getpid()
        try:
            return self.inner(environ, start_response)
        finally:
            if self.part >= IDS:
                ids = str(uuid7()), str(uuid4())
                if self.part >= RECORD:
                    self.keep_record(record_of(ids, *taken))

    def take(self, *arguments: Any) -> Response:
        response = self.process_response(*arguments)
        if self.part >= VARIABLES:
            current = current_context().request
            taken = current.environ[_KEY]
            held = vars(current_app_context().g)
            variables = taken[2]
            for name in NAMES:
                if name in held:
                    value = held[name]
                    if (type(value) is str and value.isascii()) or type(value) is float:
                        variables[name] = value
            taken[3:] = response.status_code, current.method, current.url_rule
        return response

    def keep_record(self, record: Record) -> None:
        if self.part == CHEST_KEEPS:
            self.keep(record)
        elif self.part >= ENCODING:
            payload = _encode(record)
            if self.part >= FRAME:
                body = _pack_length_and_kind(len(payload), 0) + payload
                frame = _MARKER + _pack_crc(crc32(body, _SEED)) + body
                if self.part >= WRITE:
                    os.write(self.descriptor, frame)


def record_of(
    ids: tuple[str, str],
    time_unix_nano: int,
    started_ns: int,
    variables: dict[str, Any],
    status_code: int,
    method: str,
    rule: Any,
) -> Record:
    return Record(
        id=ids[0],
        request_id=ids[1],
        time_unix_nano=time_unix_nano,
        duration_ns=time.perf_counter_ns() - started_ns,
        method=method,
        route=rule.rule,
        endpoint=rule.endpoint,
        status_code=status_code,
        instance="host:1",
        variables=variables,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
