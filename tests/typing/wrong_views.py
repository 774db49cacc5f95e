"""Uses with a mistake each. The errors expected of mypy and pyright stand above the lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

from flask.views import MethodView

from flask_chest import FlaskChest, FlaskChestSQLite, RequestIdGenerator, Typed, Variables, variables
from flask_chest.decorator import flask_chest
from flask_chest.exporter import FlaskChestExporterInfluxDB


def no_id() -> None: ...


async def later_id() -> str:
    return "an id"


def of_request(request: object) -> str:
    return str(request)


# by mypy: Dict entry 0 has incompatible type "str": "int"; expected "str": "Sequence[str | type[Variables]]
# by pyright: "int" is not assignable to "Sequence[str | type[Variables]]"
numbers = flask_chest(tracked_vars={"GET": 5})

# by mypy: List item 0 has incompatible type "int"; expected "str | type[Variables]"
# by pyright: "list[int]" is not assignable to "Sequence[str | type[Variables]]"
lists = flask_chest(tracked_vars={"GET": [1]})

# by mypy: No overload variant of "flask_chest" matches argument type "int"
# by pyright: "Literal[5]" is not assignable to "Sequence[str | type[Variables]]"
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

# by mypy: Dict entry 0 has incompatible type "str": "int"; expected "str": "Sequence[str | type[Variables]]
# by pyright: "int" is not assignable to "Sequence[str | type[Variables]]"
FlaskChest(tracked_vars={"GET": 5})

# by mypy: Argument "tracked_vars" to "FlaskChestSQLite" has incompatible type "int"
# by pyright: "Literal[5]" is not assignable to "Sequence[str | type[Variables]]"
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


class Visit(Variables):
    plan: Literal["free", "pro"] = "free"
    user_id: int


@dataclass
class Plain:
    user_id: int


class Dictionary(TypedDict):
    user_id: int


visit = variables(Visit)
# by mypy: Incompatible types in assignment (expression has type "str", variable has type "int")
# by pyright: "Literal['7']" is not assignable to "int"
visit.user_id = "7"

# by mypy: expression has type "Literal['gold']", variable has type "Literal['free', 'pro']"
# by pyright: Type "Literal['gold']" is not assignable to type "Literal['free', 'pro']"
visit.plan = "gold"

# by mypy: "Visit" has no attribute "user"
# by pyright: Attribute "user" is unknown
visit.user = 7

# by mypy: Value of type variable "V" of "variables" cannot be "Plain"
# by pyright: Type "Plain" is not assignable to type "Variables"
variables(Plain)

# by mypy: Argument "tracked_vars" to "FlaskChest" has incompatible type "type[Plain]"
# by pyright: Argument of type "type[Plain]" cannot be assigned to parameter "tracked_vars"
FlaskChest(tracked_vars=Plain)

# by mypy: Argument "tracked_vars" to "FlaskChest" has incompatible type "type[Dictionary]"
# by pyright: Argument of type "type[Dictionary]" cannot be assigned to parameter "tracked_vars"
FlaskChest(tracked_vars=Dictionary)

# by mypy: Type argument "int" of "Typed" must be a subtype of "Variables"
# by pyright: "int" is not assignable to "Variables"
row: Typed[int]

# by mypy: Value of type variable "V" of "query" of "FlaskChest" cannot be "Plain"
# by pyright: Type "Plain" is not assignable to type "Variables"
FlaskChest().query(Plain)

# by mypy: "Visit" has no attribute "user"
# by pyright: Attribute "user" is unknown
FlaskChest().query(Visit)[0].variables.user = 7
