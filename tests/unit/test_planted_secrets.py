"""A secret in each place where a request and its surroundings can hold one, looked for in all that comes out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, g, request, stream_with_context
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flask_chest import FlaskChest, FlaskChestPostgreSQL, FlaskChestSQLite, Record, Redact
from flask_chest.exporter.http import HTTPExporter
from flask_chest.exporter.influxdb import InfluxDBExporter
from flask_chest.exporter.otlp import OTLPExporter
from flask_chest.otel import SpanAttributes
from flask_chest.stores.memory import MemoryStore
from flask_chest.viewer import viewer
from http_receiver import Answer, Receiver, Request
from servers import free_port

SECRET = "planted"
"""Each place has its own, so that a failure says which leaked: ``planted-value-``, …"""
WITNESS = "this may be seen"
NEVER = timedelta(days=1)

PLACES = [
    *("value", "nested", "element", "attribute", "hashed", "dropped", "pattern", "glob", "computed", "judged"),
    *("repr", "property", "key", "generator", "exception", "handled", "encoder", "raised", "message"),
    *("query", "cookie", "header", "form", "path", "dsn", "influxdb", "http", "otlp", "hash", "echo"),
]


def planted(place: str) -> str:
    assert place in PLACES
    return f"{SECRET}-{place}-4711"


@dataclass
class Person:
    password: str

    def __repr__(self) -> str:
        return planted("repr")

    @property
    def broken(self) -> str:
        raise RuntimeError(planted("property"))


class Opaque:
    __str__ = __repr__ = lambda _: planted("repr")


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(message)s %(stack_info)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def raises(place: str) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise RuntimeError(planted(place))

    return fail


def options() -> dict[str, Any]:
    return {
        "tracked_vars": [
            *("witness", "password", "user", "person", "person.password", "person.broken", "cart_*"),
            *("opaque", "email", "ssn", "note", "income", "money", "items", "api.key", "old", "fine"),
        ],
        "rename": {"old": "new"},
        "computed": {"token": lambda: planted("computed"), "broken": raises("raised")},
        "encoders": {Money: raises("encoder")},
        "redact": [
            Redact("email", action="hash"),
            Redact("ssn", action="drop"),
            Redact("old"),
            Redact(pattern=f"{SECRET}-(pattern|key|message)-[0-9]+"),
            Redact("income", when=lambda _, value: SECRET in str(value)),
            Redact("fine", when=raises("raised")),
        ],
        "hash_key": planted("hash"),
        "request_id_generator": raises("generator"),
        "error_messages": True,
        "span_attributes": SpanAttributes(),
    }


class Money:
    pass


def add_views(app: Flask) -> None:
    @app.errorhandler(KeyError)
    def handle(_: KeyError) -> tuple[str, int]:
        return "handled", 400

    @app.route("/<path:rest>", methods=["GET", "POST"])
    def page(rest: str) -> Response:
        request.get_data()
        g.witness = WITNESS
        g.password = planted("value")
        g.user = {"api_key": planted("nested"), "notes": [{"token": planted("element")}], planted("key"): 1}
        g.person = Person(planted("attribute"))
        g.api = {"key": planted("attribute")}
        g.cart_secret = planted("glob")
        g.opaque, g.items, g.money = Opaque(), {"x": {Opaque(): Opaque()}}, Money()
        g.email, g.ssn, g.income = planted("hashed"), planted("dropped"), planted("judged")
        g.note = f"call {planted('pattern')}, please"
        g.old = g.fine = planted("judged")
        if request.args.get("then") == "boom":
            raise ValueError(f"no such card: {planted('message')}")
        if request.args.get("then") == "handled":
            raise KeyError(planted("handled"))

        def body() -> Iterator[str]:
            g.password = planted("value")
            yield "hi"

        return Response(stream_with_context(body()))


def run(app: Flask) -> None:
    client = app.test_client()
    client.set_cookie("session", planted("cookie"))
    headers = {"Authorization": planted("header"), "X-Request-ID": planted("header")}
    for then in ("nothing", "boom", "handled"):
        url = f"/{planted('path')}?then={then}&token={planted('query')}"
        with client.post(url, data={"password": planted("form")}, headers=headers) as response:
            response.get_data()


def leaks(found: Mapping[str, bytes]) -> list[str]:
    return [
        f"{place} in {where}"
        for where, data in found.items()
        for place in PLACES
        if planted(place).encode() in data
    ]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, root = Lines(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


def seen(app: Flask, records: list[Record]) -> dict[str, bytes]:
    """Give what the viewers of both chests answer."""
    pages = [
        "",
        "overview.json",
        "records",
        "records.json",
        "delivery",
        "delivery.json",
        "explore?by=password&by=user",
    ]
    pages += ["explore.csv?by=note&by=email", "compare?by=password", "timeline?witness=this+may+be+seen"]
    pages += [f"records/{record.id}{form}" for record in records for form in ("", ".json")]
    answers = {
        page: app.test_client().get(page) for page in (f"/chest{at}/{each}" for at in (0, 1) for each in pages)
    }
    return {page: answer.data + str(answer.headers).encode() for page, answer in answers.items()}


def echoing(received: Request) -> Answer:
    """Take what comes, or refuse it and say something that nobody should repeat."""
    return Answer(500, planted("echo").encode()) if received.path.endswith("bad") else Answer(200)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Flask:
    app = Flask("shop")
    monkeypatch.setattr(app.logger, "disabled", True)  # Flask logs exceptions with their texts: that is the app's
    return app


@pytest.mark.slow
def test_planted_secret_is_in_no_file_no_log_and_no_payload(app: Flask, tmp_path: Path, lines: Lines) -> None:
    add_views(app)
    with Receiver(Request) as receiver:
        receiver.respond = echoing
        chest = FlaskChestSQLite(app, db_uri=tmp_path / "db", journal_dir=tmp_path / "journal", **options())
        away = FlaskChestPostgreSQL(
            app,
            db_uri=f"postgresql://ada:{planted('dsn')}@127.0.0.1:{free_port()}/shop",
            journal_dir=tmp_path / "away",
            config_prefix="AWAY",
            **options(),
        )
        for path in ("good", "bad"):
            headers = {"Authorization": planted("http")}
            exporter = HTTPExporter(url=f"{receiver.url}/{path}", headers=headers, name=path)
            chest.add_exporter(exporter, interval=NEVER)
            events = OTLPExporter(
                endpoint=f"{receiver.url}/otlp{path}", headers={"key": planted("otlp")}, name=f"o{path}"
            )
            chest.add_exporter(events, interval=NEVER)
        points = InfluxDBExporter(url=receiver.url, token=planted("influxdb"), org="o", bucket="b")
        chest.add_exporter(points, interval=NEVER)
        for number, each in enumerate((chest, away)):
            app.register_blueprint(
                viewer(each, url=f"/chest{number}", allow=lambda: True, name=f"viewer{number}")
            )
        with closing(away), closing(chest):
            run(app)
            assert chest.flush()
            reports = chest.run_exports()
            assert not away.flush(0.5)
            records = chest.query()
            said = [chest.explain(record) for record in records]
            found = files(tmp_path) | seen(app, records)
            told = [repr(each) for each in (chest.stats(), away.stats(), reports, chest, away, app.config)]
            told += [repr(chest._state.settings), str(said), str(records), str(list(chest._states.values()))]
    found |= files(tmp_path) | {"told": "\n".join(told).encode(), "logs": "\n".join(lines.lines).encode()}
    found |= {f"{each.path} {number}": each.raw for number, each in enumerate(receiver.requests)}
    assert leaks(found) == []
    witnesses = [where for where, data in found.items() if WITNESS.encode() in data]
    expected = ("db", "away", "/good", "/bad", "/otlpgood", "/chest0/records/")
    assert [part for part in expected if not any(part in where for where in witnesses)] == []
    assert [len(record.variables) for record in records] == [len(records[0].variables)] * 3
    assert "no such card: [masked]" in str(records[1].error)


@pytest.mark.parametrize("chest_first", [True, False])
def test_planted_secret_is_on_no_span(app: Flask, *, chest_first: bool) -> None:
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    instrumentor: Any = FlaskInstrumentor()
    if not chest_first:
        instrumentor.instrument_app(app, tracer_provider=provider)
    chest = FlaskChest(app, store=MemoryStore, journal_dir="memory:", **options())
    if chest_first:
        instrumentor.instrument_app(app, tracer_provider=provider)
    add_views(app)
    with closing(chest):
        run(app)
    instrumentor.uninstrument_app(app)
    ours = [
        {name: value for name, value in (span.attributes or {}).items() if name.startswith("flask.g.")}
        for span in spans.get_finished_spans()
    ]
    assert len(ours) == 3
    assert all(each["flask.g.witness"] == WITNESS for each in ours)
    assert leaks({"spans": str(ours).encode()}) == []
