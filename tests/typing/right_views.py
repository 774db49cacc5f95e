"""Decorated views keep their types: mypy and pyright accept this file, and nobody runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, assert_type

from flask import Blueprint, Flask, Response
from flask.views import MethodView, View

from flask_chest import (
    Answer,
    Bin,
    Bucket,
    Count,
    Distinct,
    ErrorRate,
    FlaskChest,
    FlaskChestSQLite,
    Histogram,
    Indexed,
    Mean,
    Measure,
    Minimum,
    Percentiles,
    Record,
    RequestIdGenerator,
    Row,
    Sum,
    TrackedVars,
    Typed,
    Unit,
    Variable,
    Variables,
    ge,
    lt,
    one_of,
    variables,
)
from flask_chest.decorator import flask_chest

app = Flask(__name__)
blueprint = Blueprint("api", __name__)
chest = FlaskChest(app)


def generate() -> str:
    return "an id"


class Counter:
    def __call__(self) -> str:
        return "1"


class Visit(Variables):
    plan: Literal["free", "pro"] = "free"
    user_id: Annotated[int, Indexed()]
    total: Annotated[float, Unit("s")] | None = None


class Purchase(Visit):
    item: str


generators: list[RequestIdGenerator] = [generate, Counter(), lambda: "x"]
forms: list[TrackedVars] = [
    {"GET": ["user_id"], "POST": ("a", "b"), "*": ["c"]},
    ["user_id"],
    ("user_id", "plan"),
    "user_id",
    Visit,
    [Visit, "cart_*", "user.id"],
    {"GET": Visit, "POST": [Purchase, "cart_*"]},
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


@app.route("/buy/<item>")
@flask_chest(tracked_vars=Purchase)
def buy(item: str) -> str:
    purchase = variables(Purchase)
    purchase.user_id, purchase.item, purchase.plan = 7, item, "pro"
    assert_type(purchase, Purchase)
    assert_type(purchase.total, float | None)
    return str(purchase.user_id)


def rows() -> None:
    assert_type(chest.query(), list[Record])
    assert_type(
        chest.query(Visit, where={"user_id": one_of(7, 8), "total": (ge(1), lt(2.5))}), list[Typed[Visit]]
    )
    for row in chest.iter(Visit, route="/buy/<item>", limit=10):
        assert_type(row, Typed[Visit])
        assert_type(row.variables, Visit)
        assert_type(row.variables.user_id, int)
        assert_type(row.record, Record)
    assert_type(Purchase(user_id=7, item="x"), Purchase)


def numbers() -> None:
    total, latency = Variable("total"), Percentiles("duration", 50, 95)
    answer = chest.aggregate(
        Count(),
        ErrorRate(),
        latency,
        by=["route", Variable("plan")],
        every=timedelta(hours=1),
        since=datetime.now(UTC) - timedelta(days=1),
        where={"total": ge(100)},
    )
    assert_type(answer, Answer)
    assert_type(answer.series, tuple[Bucket, ...])
    for row in (*answer.groups, answer.others, answer.series[0].all):
        assert_type(row, Row)
        assert_type(row[Count()], int)
        assert_type(row[ErrorRate()], float | None)
        assert_type(row[latency], Mapping[int, float | None])
        assert_type(row[Sum(total)], float)
        assert_type(row[Mean(total)], float | None)
        assert_type(row[Minimum("duration")], float | None)
        assert_type(row[Distinct("route")], int)
        assert_type(row[Histogram(total, 10, 20)], tuple[Bin, ...])
    chest.aggregate(Count(), by="status_class", every="auto")
    measures: list[Measure[object]] = [Count(), Mean(total)]
    chest.aggregate(*measures, by=total, timeout=None)
