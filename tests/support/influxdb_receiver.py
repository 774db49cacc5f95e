"""A receiver of line protocol on the loopback: real HTTP, answers as told, nothing of InfluxDB."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext

import http_receiver
from flask_chest.exporter.influxdb import InfluxDBExporter
from flask_chest.record import JSONValue, Record
from flask_chest.testing.records import make_record
from http_receiver import Answer


@dataclass(frozen=True)
class Point:
    measurement: str
    tags: Mapping[str, str]
    fields: Mapping[str, object]
    time: int


@dataclass(frozen=True, kw_only=True)
class Request(http_receiver.Request):
    @property
    def points(self) -> list[Point]:
        return parse(self.body)

    @property
    def ids(self) -> list[object]:
        return [point.fields["record_id"] for point in self.points]


def problem(status: int, message: str) -> Answer:
    """Answer as InfluxDB 2 does."""
    return Answer(status, json.dumps({"code": "some code", "message": message}).encode())


def line_problems(*complaints: str, line: str = "flask_chest plan=1") -> Answer:
    """Answer as InfluxDB 3 does to lines that it refuses."""
    data = [
        {"original_line": line, "line_number": number, "error_message": complaint}
        for number, complaint in enumerate(complaints, 1)
    ]
    return Answer(400, json.dumps({"error": "partial write of line protocol occurred", "data": data}).encode())


def column_problem(name: str, expected: str, got: str) -> str:
    """Complain of a column's type as InfluxDB 3 does."""
    kinds = f"expected iox::column_type::{expected}, got iox::column_type::{got}"
    return f"invalid column type for column '{name}', {kinds}"


class Receiver(http_receiver.Receiver[Request]):
    """Keeps every request; *respond* makes the answer."""

    def __init__(self, *, port: int = 0, tls: SSLContext | None = None) -> None:
        super().__init__(Request, port=port, tls=tls)

    @property
    def points(self) -> list[Point]:
        """All points of all requests, in order."""
        return [point for request in self.requests for point in request.points]


_KEY = r"(?:\\.|[^\\\s,=])+"
_VALUE = r'(?:"(?:\\.|[^"\\])*"|[^\s,"]+)'
_PAIR = re.compile(rf"({_KEY})=({_VALUE})", re.DOTALL)
_LINE = re.compile(
    rf"({_KEY})((?:,{_KEY}={_KEY})*) ({_KEY}={_VALUE}(?:,{_KEY}={_VALUE})*) (-?\d+)(?:\n|$)", re.DOTALL
)


def parse(body: str) -> list[Point]:
    """Parse line protocol; ``ValueError`` for what is none."""
    points: list[Point] = []
    end = 0
    while end < len(body):
        if (line := _LINE.match(body, end)) is None:
            raise ValueError(f"no line protocol: {body[end : end + 200]!r}")
        tags = re.findall(rf"({_KEY})=({_KEY})", line[2])
        points.append(
            Point(
                _plain(line[1]),
                {_plain(name): _plain(text) for name, text in tags},
                {_plain(name): _value(text) for name, text in _PAIR.findall(line[3])},
                int(line[4]),
            )
        )
        end = line.end()
    return points


def _plain(text: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", text)


def _value(text: str) -> object:
    if text.startswith('"'):
        return re.sub(r"\\([\"\\])", r"\1", text[1:-1])
    if text in {"true", "false"}:
        return text == "true"
    return int(text[:-1]) if text.endswith("i") else float(text)


def exporter_to(
    url: str, *, token: str | None = "s3cret-t0ken", timeout: float = 10.0, verify_ssl: bool | Path = True
) -> InfluxDBExporter:
    return InfluxDBExporter(
        url=url, token=token, org="my-org", bucket="my-bucket", timeout=timeout, verify_ssl=verify_ssl
    )


def record(number: int = 0, **variables: JSONValue) -> Record:
    return make_record(id=f"record-{number}", variables=variables)
