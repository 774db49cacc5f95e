"""Decorated views keep their types: mypy and pyright accept this file, and nobody runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_type

from flask import Blueprint, Flask, Response
from flask.views import MethodView, View

from flask_chest import FlaskChest, FlaskChestSQLite, RequestIdGenerator, TrackedVars
from flask_chest.decorator import flask_chest

app = Flask(__name__)
blueprint = Blueprint("api", __name__)
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


@blueprint.get("/stacked")
@flask_chest(tracked_vars="user_id", chests=(chest,))
@flask_chest(chests=[FlaskChestSQLite()])
def stacked() -> Response:
    return Response()


class Item(MethodView):
    decorators = [flask_chest(tracked_vars=["user_id"]), flask_chest]

    @flask_chest
    def get(self, item_id: int) -> str:
        return str(item_id)

    @flask_chest(tracked_vars={"POST": ["user_id"]})
    async def post(self, item_id: int) -> str:
        return str(item_id)


@flask_chest
class Page(View):
    def __init__(self, title: str) -> None:
        self.title = title

    def dispatch_request(self) -> str:
        return self.title


assert_type(show(1, full=True), tuple[str, int])
assert_type(bare, Callable[[], str])
assert_type(stacked, Callable[[], Response])
assert_type(Item().get(1), str)
assert_type(Page("title"), Page)


async def wait() -> None:
    assert_type(await later(1), str)
    assert_type(await Item().post(item_id=1), str)


app.add_url_rule("/items/<int:item_id>", view_func=Item.as_view("item"))
app.add_url_rule("/page", view_func=Page.as_view("page", title="Home"))
