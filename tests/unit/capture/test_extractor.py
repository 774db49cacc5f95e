"""Which names are captured: the forms of ``tracked_vars``, all public names, and a ``g`` that is shared."""

from __future__ import annotations

from collections import UserDict, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn, cast
from unittest.mock import Mock

import pytest
from flask import Flask, g
from werkzeug.local import LocalProxy

from flask_chest.capture.extractor import Extractor
from flask_chest.capture.redaction import MASK
from flask_chest.capture.tracking import METHODS, Names, TrackedNames
from flask_chest.capture.values import MAX_NAME_CHARACTERS, MAX_NAMES, MAX_RECORD_BYTES, TRUNCATED, ValueRules
from flask_chest.errors import ConfigurationError
from flask_chest.extension.shared_g import SharedG
from flask_chest.record import JSONValue, encode_variables

EVERY = Names(every=True)


def taken(held: dict[str, object], *names: str, every: bool = False) -> dict[str, JSONValue]:
    return Extractor(Names(names, every), ValueRules()).convert(held).variables


# Forms of tracked_vars


@pytest.mark.parametrize(
    ("tracked_vars", "expected"),
    [
        ({"GET": ["a", "b"], "POST": ["c"]}, {"GET": "ab", "HEAD": "ab", "POST": "c", "PUT": "", "": ""}),
        ({"*": ["a"]}, {"GET": "a", "POST": "a", "": "a"}),
        ({"*": ["a"], "GET": ["b"]}, {"GET": "ba", "HEAD": "ba", "POST": "a", "": "a"}),
        ({"get": ["a"], "GET": ["b", "a"]}, {"GET": "ab", "HEAD": "ab", "POST": ""}),
        ({"GET": ["a"], "HEAD": ["b"]}, {"GET": "a", "HEAD": "b"}),
        ({"GET": ["a"], "HEAD": []}, {"GET": "a", "HEAD": ""}),
        ({"GET": "a"}, {"GET": "a", "POST": ""}),
        ({}, {"GET": "", "": ""}),
        (["a", "b", "a"], {"GET": "ab", "HEAD": "ab", "PATCH": "ab", "": "ab"}),
        (("a",), {"GET": "a"}),
        ([], {"GET": "", "": ""}),
        (UserDict({"GET": ["a"]}), {"GET": "a", "POST": ""}),
    ],
    ids=repr,
)
def test_form_gives_the_names_of_each_method(tracked_vars: object, expected: dict[str, str]) -> None:
    tracked = TrackedNames.parse(tracked_vars)
    assert {method: tracked.for_method(method) for method in expected} == {
        method: Names(tuple(names)) for method, names in expected.items()
    }


def test_bare_string_is_one_name_and_not_its_letters() -> None:
    assert TrackedNames.parse("user").for_method("GET") == Names(("user",))


@pytest.mark.parametrize("method", [*sorted(METHODS), ""])
def test_left_out_means_every_public_name(method: str) -> None:
    assert TrackedNames.parse(None).for_method(method) == EVERY


@pytest.mark.parametrize("key", ["GTE", "", "GET ", " *", 1, None, b"GET"])
def test_key_that_is_no_method_is_an_error_that_lists_them(key: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TrackedNames.parse({"GET": ["a"], key: ["b"]})
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == (
        f"tracked_vars has the key {key!r}, which is not an HTTP method; use one of "
        "CONNECT, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, QUERY, TRACE or '*' for all"
    )


@pytest.mark.parametrize(
    ("tracked_vars", "message"),
    [
        (5, "tracked_vars must be a list of names on g, got 5"),
        (b"ab", "tracked_vars must be a list of names on g, got b'ab'"),
        ({"GET": None}, "tracked_vars['GET'] must be a list of names on g, got None"),
        ({"GET": {"a": 1}}, "tracked_vars['GET'] must be a list of names on g, got {'a': 1}"),
        (["a", 1], "tracked_vars must hold names on g, as user_id, user.id or cart_*, got 1"),
        ({"*": ["a", ""]}, "tracked_vars['*'] must hold names on g, as user_id, user.id or cart_*, got ''"),
        ("", "tracked_vars must hold names on g, as user_id, user.id or cart_*, got ''"),
        ("user.", "tracked_vars must hold names on g, as user_id, user.id or cart_*, got 'user.'"),
        ("user id", "tracked_vars must hold names on g, as user_id, user.id or cart_*, got 'user id'"),
        ("user.*", "tracked_vars must hold names on g, as user_id, user.id or cart_*, got 'user.*'"),
    ],
)
def test_what_is_no_list_of_names_is_an_error(tracked_vars: object, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TrackedNames.parse(tracked_vars)
    assert str(caught.value) == message


def test_error_names_the_setting_that_is_wrong() -> None:
    with pytest.raises(ConfigurationError, match=r"^CHEST_TRACKED_VARS must"):
        TrackedNames.parse(5, setting="CHEST_TRACKED_VARS")


def test_joined_selections_have_each_name_once_in_order() -> None:
    assert Names(("b", "a")) | Names(("a", "c"), every=True) == Names(("b", "a", "c"), every=True)
    assert (Names(every=True) | Names()).every
    assert not (Names() | Names()).every


def test_list_changed_after_parsing_changes_nothing() -> None:
    names = ["a"]
    tracked = TrackedNames.parse({"GET": names})
    names.append("b")
    assert tracked.for_method("GET") == Names(("a",))


# Named variables


def test_named_variables_are_captured_and_absent_ones_left_out() -> None:
    assert taken({"a": 1, "b": None, "c": 3}, "a", "b", "missing") == {"a": 1, "b": None}


def test_private_name_is_captured_when_named() -> None:
    assert taken({"_user": 1, "__x": 2}, "_user", "__x") == {"_user": 1, "__x": 2}


def test_named_object_is_taken_apart() -> None:
    @dataclass
    class User:
        name: str
        password: str

    user = User("ada", "x")
    assert taken({"user": user}, "user") == {"user": {"name": "ada", "password": MASK}}
    assert taken({"user": user}, "user", every=True) == {"user": {"name": "ada", "password": MASK}}
    assert taken({"user": user}, every=True) == {}


@pytest.mark.parametrize("every", [True, False])
def test_secret_looking_name_is_masked(every: bool) -> None:
    held: dict[str, object] = {"password": "x", "api_key": ["y"], "nested": {"token": "z"}, "author": "ada"}
    assert taken(held, *(() if every else held), every=every) == {
        "password": MASK,
        "api_key": MASK,
        "nested": {"token": MASK},
        "author": "ada",
    }


def test_value_that_raises_is_counted_and_costs_no_other() -> None:
    def unbound() -> NoReturn:
        raise RuntimeError

    held: dict[str, object] = {"bad": LocalProxy(unbound), "good": 1}
    captured = Extractor(Names(("bad", "good")), ValueRules()).convert(held)
    assert captured == ({"bad": "LocalProxy", "good": 1}, 1)


@pytest.mark.parametrize("every", [True, False])
@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("n" * 300, "n" * MAX_NAME_CHARACTERS),
        ("größe", "größe"),
        ("a b\0", "a b\ufffd"),
        ("\ud800", "\ufffd"),
    ],
    ids=["long", "letters", "nul", "surrogate"],
)
def test_name_is_made_storable(name: str, kept: str, every: bool) -> None:
    assert taken({name: 1}, *(() if every else (name,)), every=every) == {kept: 1}


# All public names


def test_every_public_name_with_a_plain_value_is_captured() -> None:
    held: dict[str, object] = {
        "none": None,
        "flag": True,
        "count": 1,
        "share": 0.5,
        "text": "x",
        "list": [1],
        "pair": (1, 2),
        "dict": {"a": 1},
        "counts": defaultdict(int, a=1),
    }
    assert taken(held, every=True) == held | {"pair": [1, 2]}


def test_private_names_and_objects_are_no_public_variables() -> None:
    def fails() -> NoReturn:
        pytest.fail("the proxy was asked")

    class Lies:
        @property  # type: ignore[misc]  # what isinstance would ask
        def __class__(self) -> type:
            pytest.fail("the object was asked")

    held: dict[str, object] = {
        "_private": 1,
        "connection": object(),
        "mock": Mock(spec=dict),
        "proxy": LocalProxy(fails),
        "lies": Lies(),
        "function": len,
        "type": int,
        "kept": 1,
    }
    assert taken(held, every=True) == {"kept": 1}


def test_methods_of_g_are_no_variables(app: Flask) -> None:
    with app.app_context():
        g.user_id = 1
        held = vars(g._get_current_object())
        assert taken(held, every=True) == {"user_id": 1}
        assert taken(held, "get", "pop", "setdefault", "user_id") == {"user_id": 1}


def test_public_names_join_named_ones() -> None:
    assert taken({"_a": 1, "b": 2, "c": 3}, "_a", "c", every=True) == {"_a": 1, "c": 3, "b": 2}


def test_many_public_variables_end_at_the_records_limit_and_are_marked() -> None:
    variables = taken({f"variable_{i}": i for i in range(100_000)}, every=True)
    assert variables["variable_0"] == 0
    assert variables.popitem() == (TRUNCATED, True)
    assert len("".join(variables)) + 8 * len(variables) <= MAX_RECORD_BYTES
    assert len(encode_variables(variables)) < 2 * MAX_RECORD_BYTES


def test_names_count_towards_the_records_limit() -> None:
    held: dict[str, object] = {f"{i:0250}": "x" * 1000 for i in range(100)}
    variables = taken(held, *held)
    assert list(variables)[:-1] == list(held)[: len(variables) - 1]
    assert list(variables.values()).count("x" * 1000) == MAX_RECORD_BYTES // 1250
    assert variables.popitem() == (TRUNCATED, True)


def test_non_ascii_names_count_by_their_bytes() -> None:
    variables = taken({f"{'ж' * 200}{i}": None for i in range(1000)}, every=True)
    assert sum(len(name.encode()) for name in variables) <= MAX_RECORD_BYTES + len(TRUNCATED.encode())


MANY: dict[str, object] = {f"arg_{number:060d}": number for number in range(60_000)}
SOME = dict(list(MANY.items())[:2000])


class Holder:
    def __init__(self, held: Mapping[str, object]) -> None:
        vars(self).update(held)


@pytest.mark.parametrize(
    ("names", "held", "computed"),
    [
        (["arg_*"], MANY, {}),
        (["*"], MANY, {}),
        (list(SOME), MANY, {}),
        ([f"holder.{name}" for name in SOME], {"holder": Holder(MANY)}, {}),
        ([], {}, dict.fromkeys(MANY, lambda: 1)),
        ([f"v{number}" for number in range(200)], {f"v{number}": SOME.copy() for number in range(200)}, {}),
        (["money_*"], {f"money_{number:03}": Holder(SOME) for number in range(200)}, {}),
    ],
    ids=["glob", "every", "explicit", "path", "computed", "keys", "encoder"],
)
def test_records_limit_holds_for_every_kind_of_name(
    names: list[str], held: dict[str, object], computed: Mapping[str, Callable[[], object]]
) -> None:
    asked = TrackedNames.parse(names, computed=computed).for_method("GET")
    variables = Extractor(asked, ValueRules(encoders={Holder: vars})).convert(held).variables
    assert variables[TRUNCATED] is True
    assert len(encode_variables(variables)) < 1.2 * MAX_RECORD_BYTES


def test_names_that_nobody_spelt_out_are_bounded() -> None:
    held: dict[str, object] = {"body": [{f"k{number}": 1} for number in range(1000)], "other": {"a": 1}}
    held |= {f"v{number}": {str(key): 1 for key in range(500)} for number in range(6)}
    variables = taken(held, *held)
    keys = sum(len(value) for value in variables.values() if isinstance(value, dict))
    keys += len(cast("list[JSONValue]", variables["body"]))
    assert keys <= MAX_NAMES + len(held)
    assert variables["v5"] == {TRUNCATED: True}
    assert variables["other"] == {"a": 1}


# A g that is shared


@pytest.fixture
def shared(app: Flask) -> object:
    """What an outer ``app.app_context()`` has left: values of a fixture, or of former requests."""
    found: object = app.app_ctx_globals_class()
    vars(found).update(constant="x", old=[1], gone=1)
    return found


def test_only_what_the_request_set_is_its_own(shared: object) -> None:
    watch = SharedG(shared)
    assert watch.own() == {}
    setattr(shared, "new", 1)  # noqa: B010 - the type is Flask's and takes any name
    assert watch.own() == {"new": 1}


def test_name_set_again_to_the_same_constant_is_its_own(shared: object) -> None:
    watch = SharedG(shared)
    setattr(shared, "constant", vars(shared)["constant"])  # noqa: B010 - as above
    assert watch.own() == {"constant": "x"}


def test_setdefault_makes_a_name_its_own_only_if_it_was_not_there(app: Flask) -> None:
    with app.app_context():
        g.old = 1
        watch = SharedG(g._get_current_object())
        g.setdefault("old", 2)
        g.setdefault("new", 3)
        assert watch.own() == {"new": 3}
        watch.end()


def test_deleted_name_is_not_its_own(app: Flask) -> None:
    with app.app_context():
        g.old = 1
        watch = SharedG(g._get_current_object())
        g.new = 2
        del g.new
        g.other = 3
        assert g.pop("other") == 3
        del g.old
        assert watch.own() == {}
        watch.end()


def test_class_of_g_looks_the_same_and_comes_back(shared: object) -> None:
    kind = type(shared)
    watch = SharedG(shared)
    assert isinstance(shared, kind)
    watched = type(shared)
    assert (watched.__name__, watched.__module__) == (kind.__name__, kind.__module__)
    assert vars(shared) == {"constant": "x", "old": [1], "gone": 1}
    watch.end()
    assert type(shared) is kind
    assert vars(shared) == {"constant": "x", "old": [1], "gone": 1}


def test_own_setattr_of_a_custom_g_is_still_called() -> None:
    class Globals:
        def __setattr__(self, name: str, value: object) -> None:
            self.__dict__[name] = (value, "seen")

    shared = Globals()
    watch = SharedG(shared)
    setattr(shared, "a", 1)  # noqa: B010 - as above
    assert watch.own() == {"a": (1, "seen")}


def test_request_within_a_request_watches_for_itself(shared: object) -> None:
    kind = type(shared)
    outer = SharedG(shared)
    setattr(shared, "first", 1)  # noqa: B010 - as above
    inner = SharedG(shared)
    setattr(shared, "second", 2)  # noqa: B010 - as above
    assert inner.own() == {"second": 2}
    inner.end()
    setattr(shared, "third", 3)  # noqa: B010 - as above
    assert inner.own() == {"second": 2, "third": 3}
    assert outer.own() == {"first": 1, "second": 2, "third": 3}
    outer.end()
    assert type(shared) is kind
