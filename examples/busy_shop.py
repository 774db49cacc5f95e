"""A shop with a week of requests behind it: what the viewer's pictures and the tests in the browser show.

The requests are made up, by a generator with a fixed seed: the same ones each time, up to *now*. At 14:00 of the
last day a release makes the search slow for those on the plan ``team``.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import cos, pi
from typing import Annotated, Literal

from flask import Flask

from flask_chest import FlaskChest, Indexed, Record, Redact, Unit, Variables
from flask_chest.protocols import Store

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
ROUTES = {
    # route: (method, share of the traffic, usual milliseconds, share of errors)
    "/": ("GET", 30, 12, 0.0),
    "/search": ("GET", 25, 85, 0.002),
    "/items/<int:item>": ("GET", 22, 30, 0.001),
    "/cart": ("POST", 10, 45, 0.004),
    "/checkout": ("POST", 5, 320, 0.02),
    "/orders/<int:order>": ("GET", 5, 60, 0.003),
    "/api/stock": ("GET", 3, 18, 0.001),
}
ERRORS = {"/checkout": ("PaymentTimeout", 503), "/cart": ("IntegrityError", 500), "/search": ("IndexError", 500)}
SLOW_SINCE = timedelta(hours=3)
"""How long before the end the search got slow."""


class Visit(Variables):
    """What the shop notes of each request."""

    user_id: Annotated[int, Indexed()]
    plan: Annotated[Literal["free", "pro", "team"], Indexed()] = "free"
    version: str
    total: Annotated[float, Unit("EUR")] | None = None
    queries: Annotated[int, Unit("{query}")] | None = None
    email: str | None = None


def make_app(store: Store) -> tuple[Flask, FlaskChest]:
    """Return the shop and its chest."""
    app = Flask("shop")
    chest = FlaskChest(
        app,
        store=store,
        tracked_vars=Visit,
        redact=[Redact("email", action="hash")],
        hash_key="a key that hides the emails of this example",
        trace_url="https://traces.example/trace/{trace_id}",
    )
    for number, (route, (method, *_)) in enumerate(ROUTES.items()):
        app.add_url_rule(route, f"view{number}", lambda **_: "ok", methods=[method])
    return app, chest


def requests(count: int, now: datetime, *, days: float = 7.0) -> Iterator[Record]:
    """Yield *count* requests of the *days* up to *now*, oldest first."""
    made_up = random.Random(7)
    begin = now - timedelta(days=days)
    times = sorted(_times(made_up, count, begin, now))
    names = list(ROUTES)
    weights = [ROUTES[name][1] for name in names]
    for number, moment in enumerate(times):
        route = made_up.choices(names, weights)[0]
        yield _request(made_up, number, route, moment, now)


def _times(made_up: random.Random, count: int, begin: datetime, now: datetime) -> Iterator[datetime]:
    length = (now - begin).total_seconds()
    while count:
        moment = begin + timedelta(seconds=made_up.random() * length)
        by_day = 0.55 - 0.45 * cos(2 * pi * (moment.hour + moment.minute / 60 - 3) / 24)
        if made_up.random() < by_day:
            count -= 1
            yield moment


def _request(made_up: random.Random, number: int, route: str, moment: datetime, now: datetime) -> Record:
    method, _, usual, errors = ROUTES[route]
    user_id = int(made_up.paretovariate(0.9)) % 400 + 1
    plan = ("free", "free", "free", "pro", "pro", "team")[user_id % 6]
    new = now - moment < SLOW_SINCE
    duration = usual * made_up.lognormvariate(0, 0.45)
    if new and plan == "team" and route == "/search":
        duration *= 9
    failed = made_up.random() < errors * (3 if new and route == "/checkout" else 1)
    error, status = ERRORS.get(route, ("RuntimeError", 500)) if failed else (None, 200)
    if not failed and made_up.random() < 0.02:
        status = made_up.choice([302, 404, 404, 403])
    variables: dict[str, object] = {"user_id": user_id, "plan": plan, "version": "v42" if new else "v41"}
    variables["queries"] = made_up.randint(1, 9)
    if route == "/checkout":
        variables["total"] = round(made_up.lognormvariate(3.5, 0.6), 2)
        variables["email"] = f"hmac:{made_up.getrandbits(128):032x}"
    identity = made_up.getrandbits(128)
    return Record(
        id=str(uuid.UUID(int=identity, version=4)),
        request_id=f"{made_up.getrandbits(64):016x}",
        time_unix_nano=int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000) * 1_000
        + number % 1_000,
        duration_ns=int(duration * 1_000_000),
        method=method,
        route=route,
        endpoint=f"view{list(ROUTES).index(route)}",
        status_code=status,
        instance=f"web-{number % 3 + 1}:4711",
        error=error,
        trace_id=f"{made_up.getrandbits(128):032x}",
        span_id=f"{made_up.getrandbits(64):016x}",
        trace_flags=1,
        trace_remote=False,
        variables=variables,  # type: ignore[arg-type]  # they are JSON values
    )
