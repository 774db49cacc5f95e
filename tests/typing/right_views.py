"""Decorated views keep their types: mypy and pyright accept this file, and nobody runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_type

from flask import Flask
from flask.views import MethodView

from flask_chest import FlaskChest, RequestIdGenerator, TrackedVars
from flask_chest.decorator import flask_chest

app = Flask(__name__)
chest = FlaskChest(app)


def generate() -> str:
    return "an id"


class Counter:
    def __call__(self) -> str:
        return "1"


generators: list[RequestIdGenerator] = [generate, Counter(), lambda: "x"]
forms: list[TrackedVars] = [
    {"GET": ["user_id"], "POST": ("a", "b"), "*": ["c"]},
    ["user_id"],
    ("user_id", "plan"),
    "user_id",
]
per_method = {"GET": ["user_id"]}


@app.route("/<int:number>")
@flask_chest(tracked_vars=per_method, request_id_generator=generate, chests=[chest])
def show(number: int, *, full: bool = False) -> tuple[str, int]:
    return str(number), 200


@app.route("/bare")
@flask_chest
def bare() -> str:
    return "hi"


@flask_chest(tracked_vars=["user_id"], request_id_generator=lambda: "x")
async def later(number: int) -> str:
    return str(number)


class Item(MethodView):
    decorators = [flask_chest(tracked_vars=["user_id"])]

    @flask_chest
    def get(self, item_id: int) -> str:
        return str(item_id)


assert_type(show(1, full=True), tuple[str, int])
assert_type(bare, Callable[[], str])
assert_type(Item().get(1), str)


async def wait() -> None:
    assert_type(await later(1), str)


app.add_url_rule("/items/<int:item_id>", view_func=Item.as_view("item"))
