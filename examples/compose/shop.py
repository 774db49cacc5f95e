"""The shop of this folder: its records are kept in PostgreSQL, by a worker in a container of its own."""

from __future__ import annotations

import random
import time
from typing import Annotated, Literal

from flask import Flask, abort

from flask_chest import FlaskChest, Indexed, Unit, Variables, variables


class Visit(Variables):
    user_id: Annotated[int, Indexed()]
    plan: Literal["free", "pro"]
    total: Annotated[float, Unit("€")]


app = Flask(__name__)
app.config.from_prefixed_env()
chest = FlaskChest(app, tracked_vars=Visit)


@app.get("/buy/<int:user_id>")
def buy(user_id: int) -> str:
    """Sell something, now and then slowly, and to some of the buyers nothing."""
    visit = variables(Visit)
    visit.user_id, visit.plan = user_id, "pro" if user_id % 3 == 0 else "free"
    time.sleep(random.expovariate(100))
    if random.random() < 0.02:
        abort(503)
    visit.total = round(random.uniform(1, 100), 2)
    return f"thanks, {user_id}"
