"""An app whose store or journal is in trouble, or that has no chest at all; the environment says which."""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
from flask import Flask, Response, abort, g, redirect, request, send_file
from werkzeug.wrappers import Response as WerkzeugResponse

from flask_chest import FlaskChest, Query, Record, RecordRefused, Store, StoreStatus, StoreUnavailable
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore

NO_CHEST = "no chest"
TROUBLE = "TROUBLE"
FOLDER = "TROUBLE_FOLDER"
DATABASE_ADDRESS = "TROUBLE_ADDRESS"
FILE_BYTES = "TROUBLE_FILE_BYTES"
"""How large a file may grow: what a full disk does, it takes a part of what is written, and then nothing."""
PADDING = "x" * 4_000

request_threads: set[int] = set()
store_threads: set[int] = set()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the app knows about itself."""

    request_threads: list[int]
    store_threads: list[int]
    captured: int
    stored: int
    waiting: int
    set_aside: int
    lost: dict[str, int]
    faults: dict[str, int]

    @property
    def accounted_for(self) -> bool:
        return self.captured == self.stored + self.waiting + self.set_aside + sum(self.lost.values())


class WatchedStore(Store):
    """Passes all on to another store, and notes which threads asked."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def open(self) -> None:
        self._watched().open()

    def write(self, records: Sequence[Record], /) -> None:
        self._watched().write(records)

    def query(self, query: Query, /, *, timeout: timedelta | None = None) -> Iterable[Record]:
        return self._watched().query(query, timeout=timeout)

    def status(self) -> StoreStatus:
        return self._watched().status()

    def close(self) -> None:
        self._watched().close()

    def _watched(self) -> Store:
        store_threads.add(threading.get_native_id())
        return self._store


class HangsInOpen(MemoryStore):
    """A client of a database that lets it connect and never answers."""

    def open(self) -> None:
        wait_for_the_database()


class HangsInWrite(MemoryStore):
    def write(self, records: Sequence[Record], /) -> None:
        wait_for_the_database()


class Unavailable(MemoryStore):
    def write(self, records: Sequence[Record], /) -> None:
        raise StoreUnavailable("the database is away")


class Buggy(MemoryStore):
    def write(self, records: Sequence[Record], /) -> None:
        raise KeyError("a mistake in a store of one's own")


class Refusing(MemoryStore):
    def write(self, records: Sequence[Record], /) -> None:
        raise RecordRefused("too beautiful", {record.id: "too beautiful" for record in records})


class OnDisk(SQLiteStore):
    def __init__(self) -> None:
        super().__init__(Path(os.environ[FOLDER], "chest.db"))


STORES: Mapping[str, Callable[[], Store]] = {
    kind.__name__: kind for kind in (HangsInOpen, HangsInWrite, Unavailable, Buggy, Refusing, OnDisk, MemoryStore)
}


def wait_for_the_database() -> None:
    with socket.socket(socket.AF_UNIX) as database:
        database.connect(os.environ[DATABASE_ADDRESS])
        database.sendall(b"anybody there?")
        database.recv(1)


def serve() -> Flask:
    app = make_app()
    if os.environ[TROUBLE] != NO_CHEST:
        add_chest(app, STORES[os.environ[TROUBLE]])
    if FILE_BYTES in os.environ:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ[FILE_BYTES]), hard))
    return app


def add_chest(app: Flask, make_store: Callable[[], Store]) -> None:
    chest = FlaskChest(app, store=lambda: WatchedStore(make_store()), tracked_vars=["user", "padding"])

    @app.route("/report")
    def report() -> Response:
        stats = chest.stats()
        told = Report(
            request_threads=sorted(request_threads),
            store_threads=sorted(store_threads),
            captured=stats.captured,
            stored=stats.stored,
            waiting=stats.waiting,
            set_aside=stats.set_aside,
            lost=dict(stats.lost),
            faults=dict(stats.faults),
        )
        return Response(msgspec.json.encode(told), mimetype="application/json")


def make_app() -> Flask:
    app = Flask("troubled")
    app.before_request(remember)
    app.add_url_rule("/text", view_func=text, methods=["GET", "POST"])
    for view in (json, cookie, elsewhere, stream, file, forbidden, broken, broken_stream):
        app.add_url_rule(f"/{view.__name__}", view_func=view)
    return app


def remember() -> None:
    request_threads.add(threading.get_native_id())
    g.user, g.padding = "ada", PADDING


def text() -> str:
    return f"hello {request.get_data(as_text=True)}"


def json() -> dict[str, object]:
    return {"user": g.user, "numbers": [1, 2.5, None]}


def cookie() -> Response:
    response = Response("eaten", status=202, headers={"X-Crumbs": "3"})
    response.set_cookie("visited", "yes", httponly=True, samesite="Lax")
    return response


def elsewhere() -> WerkzeugResponse:
    return redirect("/text")


def stream() -> Response:
    return Response((f"chunk {number}\n" for number in range(3)), mimetype="text/plain")


def file() -> Response:
    return send_file(__file__, mimetype="text/plain")


def forbidden() -> Response:
    abort(403)


def broken() -> Response:
    raise ZeroDivisionError


def broken_stream() -> Response:
    def chunks() -> Iterator[str]:
        yield "one, "
        raise ZeroDivisionError

    return Response(chunks(), mimetype="text/plain")
