"""A class of variables: what it says, what it is compared with, and the rows that it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal, TypedDict
from uuid import UUID

import msgspec
import pytest
from flask import Blueprint, Flask, g
from hypothesis import given
from hypothesis import strategies as st

from flask_chest import (
    ConfigurationError,
    FlaskChest,
    Indexed,
    Record,
    Redact,
    Unit,
    Variables,
    VariablesMismatch,
    variables,
)
from flask_chest.declared import TABLES, Check, declaration_of
from flask_chest.decorator import flask_chest
from flask_chest.record import JSONValue
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sql.tables import TABLE_SUFFIXES
from json_values import json_values


class Visit(Variables):
    plan: Literal["free", "pro"] = "free"
    user_id: Annotated[int, Indexed()]
    total: Annotated[float, Unit("s")] | None = None


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


def recorded(app: Flask, set_on_g: Mapping[str, object], **options: object) -> Record:
    """Return the record of a request that leaves this on ``g``; *options* are those of the chest."""
    with closing(FlaskChest(app, store=MemoryStore, **{"tracked_vars": Visit, **options})) as chest:  # type: ignore[arg-type]  # of several types

        @app.route("/")
        def index() -> str:
            for name, value in set_on_g.items():
                setattr(g, name, value)
            return "hi"

        app.test_client().get("/")
        (record,) = chest.query()
        faults.update(chest.stats().faults)
        return record


faults: dict[str, int] = {}


@pytest.fixture(autouse=True)
def _no_faults() -> None:
    faults.clear()


# What a class says


def test_fields_have_kinds_indexes_and_units() -> None:
    found = [(field.name, field.kind, field.indexed, field.unit) for field in declaration_of(Visit).fields]
    assert found == [
        ("plan", "text", False, None),
        ("user_id", "int", True, None),
        ("total", "float", False, "s"),
    ]
    assert declaration_of(Visit).view == "visit"


def test_kinds_are_those_of_the_forms_in_which_values_are_recorded() -> None:
    class Everything(Variables):
        flag: bool | None
        level: Literal[1, 2]
        size: Size
        at: datetime
        price: Decimal
        key: UUID
        mixed: int | str
        items: list[int]
        anything: object

    kinds = {field.name: field.kind for field in declaration_of(Everything).fields}
    assert kinds == {
        "flag": "bool",
        "level": "int",
        "size": "text",
        "at": "text",
        "price": "text",
        "key": "text",
        "mixed": "json",
        "items": "json",
        "anything": "json",
    }


def test_required_field_follows_one_with_a_default_in_a_subclass_too() -> None:
    class Purchase(Visit):
        note: str = ""
        item: str

    assert declaration_of(Purchase).required == {"user_id", "item"}
    assert Purchase(user_id=1, item="x").plan == "free"


def test_view_has_the_name_of_the_class_in_words() -> None:
    class HTTPVisit2Shop(Variables):
        x: int

    assert declaration_of(HTTPVisit2Shop).view == "http_visit2_shop"


def test_reserved_names_of_views_are_those_of_a_chests_tables() -> None:
    assert {f"_{name}" for name in TABLES} == set(TABLE_SUFFIXES.values()) - {""}


def made(name: str, **fields: object) -> type[Variables]:
    return type(name, (Variables,), {"__annotations__": fields, "__module__": __name__})


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (made("Visit"), r"Visit of .* declares no variable: annotate a field"),
        (made("Exporters", x=int), "a table of the chest has its name: give the class another one"),
        (made("Visit", status_code=int), "'status_code', which is a field of every record"),
        (made("Visit", user=int, User=int), "'user' and 'User', which databases take for one"),
        (made("Visit", **{"a" * 64: int}), "longer than 63 bytes"),
        (made("Visit", tags=Annotated[list[str], Indexed()]), r"Visit.tags cannot be indexed"),
        (made("Visit", key=Annotated[int | str, Indexed()]), r"Visit.key cannot be indexed"),
        (made("Visit", größe=Annotated[int, Indexed()]), "the name must be of ASCII letters, digits and _"),
        (made('V"; DROP TABLE x; --', x=int), "has a name that is no identifier, which its view would have"),
        (made("Visit", x="Missing"), "has an annotation that names 'Missing', which its module does not define"),
    ],
    ids=["empty", "table", "field", "twins", "long", "list", "union", "ascii", "class", "undefined"],
)
def test_class_that_no_database_could_have_is_refused(declared: type[Variables], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        flask_chest(tracked_vars=declared)


@dataclass
class Plain:
    user_id: int


class Dictionary(TypedDict):
    user_id: int


class Struct(msgspec.Struct):
    user_id: int


@pytest.mark.parametrize("declared", [Plain, Dictionary, Struct, int])
def test_class_that_declares_no_variables_is_refused(declared: type) -> None:
    name = declared.__name__
    message = (
        rf"{name} declares no variables: derive it from flask_chest.Variables, as in class {name}\(Variables\)"
    )
    with pytest.raises(ConfigurationError, match=message):
        flask_chest(tracked_vars=declared)


def test_declared_variable_is_not_renamed() -> None:
    with pytest.raises(ConfigurationError, match="Visit declares 'user_id': rename the field of the class"):
        flask_chest(tracked_vars=Visit, rename={"user_id": "uid"})


# What is recorded


def test_declared_variables_are_recorded_and_others_are_not(app: Flask) -> None:
    record = recorded(app, {"user_id": 7, "plan": "pro", "other": 1})
    assert record.variables == {"user_id": 7, "plan": "pro"}
    assert not faults


@pytest.mark.parametrize(
    "tracked_vars", [Visit, [Visit], {"GET": Visit}, {"*": [Visit]}], ids=["class", "list", "method", "every"]
)
def test_class_stands_wherever_names_do(app: Flask, tracked_vars: object) -> None:
    assert recorded(app, {"user_id": 7}, tracked_vars=tracked_vars).variables == {"user_id": 7}


def test_names_globs_and_computed_variables_go_on_beside_a_class(app: Flask) -> None:
    record = recorded(
        app,
        {"user_id": 7, "cart_size": 2, "user": {"id": 9}},
        tracked_vars=[Visit, "cart_*", "user.id"],
        computed={"plan": lambda: "pro"},
    )
    assert record.variables == {"user_id": 7, "cart_size": 2, "user.id": 9, "plan": "pro"}


def test_class_of_a_decorator_and_of_a_blueprint_is_joined_with_the_apps(app: Flask) -> None:
    class Shop(Variables):
        shop: str

    class Item(Variables):
        item: int

    blueprint = Blueprint("shop", __name__)

    @blueprint.route("/")
    @flask_chest(tracked_vars=Item)
    def index() -> str:
        visit, item = variables(Visit), variables(Item)
        visit.user_id, item.item = 7, 3
        variables(Shop).shop = "north"
        return "hi"

    app.register_blueprint(blueprint)
    with closing(FlaskChest(app, store=MemoryStore, tracked_vars=Visit)) as chest:
        chest.track(blueprint, Shop)
        app.test_client().get("/")
        (record,) = chest.query()
        assert record.variables == {"user_id": 7, "item": 3, "shop": "north"}


def test_whole_number_is_a_float_where_one_is_declared_and_that_is_exact(app: Flask) -> None:
    assert repr(recorded(app, {"total": 7}).variables["total"]) == "7.0"


def test_whole_number_that_no_float_is_stays_as_it_is(app: Flask) -> None:
    assert recorded(app, {"total": 2**53 + 1}).variables["total"] == 2**53 + 1


# What it is compared with


def test_wrong_value_is_kept_and_counted_by_variable_and_type(app: Flask) -> None:
    record = recorded(app, {"user_id": "seven", "plan": "gold", "total": 1.5})
    assert record.variables == {"user_id": "seven", "plan": "gold", "total": 1.5}
    assert faults == {
        "plan is not Literal['free', 'pro'], as Visit declares": 1,
        "user_id is not int, as Visit declares": 1,
    }


def test_wrong_value_is_never_logged(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    recorded(app, {"user_id": "seven-secret", "plan": "gold-secret"})
    assert "user_id is not int" in caplog.text
    assert "-secret" not in caplog.text


def test_type_that_allows_none_is_written_as_in_the_class(app: Flask) -> None:
    recorded(app, {"total": "dear"})
    assert list(faults) == ["total is not float | None, as Visit declares"]


def test_absent_variable_is_no_fault(app: Flask) -> None:
    assert recorded(app, {}).variables == {}
    assert not faults


def test_wrong_value_is_raised_under_strict_and_recorded_all_the_same(app: Flask) -> None:
    with (
        closing(FlaskChest(app, store=MemoryStore, tracked_vars=Visit, strict=True)) as chest,
    ):

        @app.route("/")
        def index() -> str:
            g.user_id = "seven"
            return "hi"

        with pytest.raises(VariablesMismatch, match="user_id is not int, as Visit declares"):
            app.test_client().get("/")
        assert [record.variables for record in chest.query()] == [{"user_id": "seven"}]


@pytest.mark.parametrize(
    "options",
    [
        {"redact": [Redact(names=["user_id"])]},
        {"redact": [Redact(names=["user_id"], action="hash")], "hash_key": "k" * 32},
    ],
    ids=["mask", "hash"],
)
def test_what_redaction_hides_is_no_fault(app: Flask, options: Mapping[str, object]) -> None:
    assert recorded(app, {"user_id": 7}, **options).variables["user_id"] != 7
    assert not faults


def test_what_was_cut_is_no_fault(app: Flask) -> None:
    class Choice(Variables):
        size: Literal["a", "b"]

    recorded(app, {"size": "a" * 10_000}, tracked_vars=Choice)
    assert not faults


def test_form_of_every_declared_type_fits(app: Flask) -> None:
    class Forms(Variables):
        size: Size
        at: datetime
        price: Decimal
        key: UUID
        data: bytes
        items: list[dict[str, int]]

    given: dict[str, object] = {
        "size": Size.LARGE,
        "at": datetime(2026, 11, 23, tzinfo=UTC),
        "price": Decimal("9.90"),
        "key": UUID(int=7),
        "data": b"\x00\xff",
        "items": [{"a": 1}],
    }
    with closing(FlaskChest(app, store=MemoryStore, tracked_vars=Forms)) as chest:

        @app.route("/")
        def index() -> str:
            for name, value in given.items():
                setattr(g, name, value)
            return "hi"

        app.test_client().get("/")
        (row,) = chest.query(Forms)
        assert not chest.stats().faults
        assert {name: getattr(row.variables, name) for name in given} == given


class Kinds(Variables):
    flag: bool
    count: int
    share: float | None
    text: str
    level: Literal["low", "high"]
    rank: Literal[1, 2] | None
    few: Annotated[int, msgspec.Meta(le=3)]
    size: Size
    items: list[int]


ALLOWED: st.SearchStrategy[JSONValue] = st.sampled_from(["low", "high", "s", "l", 1, 2, 3, 1.0, True])


@given(st.sampled_from([field.name for field in declaration_of(Kinds).fields]), json_values | ALLOWED)
def test_values_that_fit_are_those_that_a_row_can_be_made_of(name: str, value: JSONValue) -> None:
    declaration = declaration_of(Kinds)
    optional = msgspec.defstruct("One", [(name, declaration.hints[name])])
    try:
        msgspec.convert({name: value}, optional)
    except msgspec.ValidationError:
        expected = [name]
    else:
        expected = []
    assert list(Check(declaration, declaration.hints).mismatches({name: value})) == expected


# Typed rows


def chest_with(app: Flask, *recorded_variables: Mapping[str, JSONValue]) -> FlaskChest:
    chest = FlaskChest(app, store=MemoryStore, tracked_vars=["*"])

    @app.route("/<int:number>")
    def index(number: int) -> str:
        for name, value in recorded_variables[number].items():
            setattr(g, name, value)
        return "hi"

    for number in range(len(recorded_variables)):
        app.test_client().get(f"/{number}")
    return chest


def test_rows_have_the_record_and_its_variables_with_defaults(app: Flask) -> None:
    with closing(chest_with(app, {"user_id": 7, "total": 3, "other": "x"})) as chest:
        (row,) = chest.query(Visit)
        assert row.record.variables["other"] == "x"
        assert row.variables == Visit(user_id=7, plan="free", total=3.0)
        (again,) = chest.iter(Visit)
        assert again.variables == row.variables


def test_row_that_does_not_fit_names_record_and_fields_and_no_value(app: Flask) -> None:
    with closing(chest_with(app, {"user_id": "seven"}, {"plan": "gold", "total": None}, {"user_id": 1})) as chest:
        good, wrong, worse = chest.query(Visit)
        assert good.variables.user_id == 1
        with pytest.raises(VariablesMismatch) as raised:
            _ = wrong.variables
        assert str(raised.value) == (
            f"record {wrong.record.id} does not fit Visit: plan is not Literal['free', 'pro'], user_id is missing"
        )
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__
        with pytest.raises(VariablesMismatch, match=r"does not fit Visit: user_id is not int$"):
            _ = worse.variables


def test_filters_hold_for_typed_rows_too(app: Flask) -> None:
    with closing(chest_with(app, *({"user_id": number} for number in range(5)))) as chest:
        assert [row.variables.user_id for row in chest.query(Visit, where={"user_id": 3})] == [3]
        assert [row.variables.user_id for row in chest.query(Visit, limit=2)] == [4, 3]


def test_variables_are_those_of_g(app: Flask) -> None:
    with app.app_context():
        visit = variables(Visit)
        visit.user_id = 7
        assert g.user_id == 7
        read: Callable[[], str] = lambda: visit.plan  # noqa: E731
        with pytest.raises(AttributeError):
            read()
