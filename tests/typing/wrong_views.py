"""Uses with a mistake each. The errors expected of mypy and pyright stand above the lines."""

from __future__ import annotations

from flask.views import MethodView

from flask_chest import FlaskChest, FlaskChestSQLite, RequestIdGenerator
from flask_chest.decorator import flask_chest
from flask_chest.exporter import FlaskChestExporterInfluxDB


def no_id() -> None: ...


async def later_id() -> str:
    return "an id"


def of_request(request: object) -> str:
    return str(request)


# by mypy: Dict entry 0 has incompatible type "str": "int"; expected "str": "Sequence[str]"
# by pyright: "int" is not assignable to "Sequence[str]"
numbers = flask_chest(tracked_vars={"GET": 5})

# by mypy: List item 0 has incompatible type "int"; expected "str"
# by pyright: "int" is not a subtype of "str"
lists = flask_chest(tracked_vars={"GET": [1]})

# by mypy: No overload variant of "flask_chest" matches argument type "int"
# by pyright: "Literal[5]" is not assignable to "Mapping[str, Sequence[str]]"
number = flask_chest(tracked_vars=5)

# by mypy: Incompatible types in assignment (expression has type "Callable[[], None]"
# by pyright: "None" is not assignable to "str"
without_id: RequestIdGenerator = no_id

# by mypy: Incompatible types in assignment (expression has type "Callable[[object], str]"
# by pyright: Extra parameter "request"
with_argument: RequestIdGenerator = of_request

# by mypy: has incompatible type "Callable[[], None]"; expected "RequestIdGenerator | None"
# by pyright: "None" is not assignable to "str"
FlaskChest(request_id_generator=no_id)

# by mypy: No overload variant of "flask_chest" matches argument type "Callable[[], None]"
# by pyright: "None" is not assignable to "str"
returning_none = flask_chest(request_id_generator=no_id)

# by mypy: No overload variant of "flask_chest" matches argument type "Callable[[], Coroutine[Any, Any, str]]"
# by pyright: "CoroutineType[Any, Any, str]" is not assignable to "str"
returning_coroutine = flask_chest(request_id_generator=later_id)

# by mypy: No overload variant of "flask_chest" matches argument type "FlaskChest"
# by pyright: "FlaskChest" is not assignable to "Sequence[FlaskChest]"
one_chest = flask_chest(chests=FlaskChest())

# by mypy: Unexpected keyword argument "track_vars" for overloaded function "flask_chest"
# by pyright: No overloads for "flask_chest" match the provided arguments
flask_chest(track_vars=["user_id"])

# by mypy: Dict entry 0 has incompatible type "str": "int"; expected "str": "Sequence[str]"
# by pyright: "int" is not assignable to "Sequence[str]"
FlaskChest(tracked_vars={"GET": 5})

# by mypy: Argument "tracked_vars" to "FlaskChestSQLite" has incompatible type "int"
# by pyright: "Literal[5]" is not assignable to "Mapping[str, Sequence[str]]"
FlaskChestSQLite(tracked_vars=5)

# by mypy: Unexpected keyword argument "db_url" for "FlaskChestSQLite"
# by pyright: No parameter named "db_url"
FlaskChestSQLite(db_url="x.db")

# by mypy: expected "Literal['auto', 'on', 'off'] | None"
# by pyright: "Literal['sometimes']" is not assignable to type "Literal['off']"
FlaskChest(scheduler="sometimes")

# by mypy: List item 0 has incompatible type "int"; expected "str"
# by pyright: "Literal[1]" is not assignable to "str"
FlaskChestExporterInfluxDB(FlaskChest(), tags=[1])


@flask_chest(tracked_vars=["user_id"])
def show(number: int) -> str:
    return str(number)


@flask_chest
async def later(number: int) -> str:
    return str(number)


class Item(MethodView):
    @flask_chest(tracked_vars=["user_id"])
    def get(self, item_id: int) -> str:
        return str(item_id)


# by mypy: Argument 1 to "show" has incompatible type "str"; expected "int"
# by pyright: "Literal['1']" is not assignable to "int"
show("1")

# by mypy: Argument 1 to "get" of "Item" has incompatible type "str"; expected "int"
# by pyright: "Literal['1']" is not assignable to "int"
Item().get("1")


async def wait() -> None:
    # by mypy: Argument 1 to "later" has incompatible type "str"; expected "int"
    # by pyright: "Literal['1']" is not assignable to "int"
    await later("1")
