"""`--where`: what each condition means, how everything can be asked for, and what is said of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chest.errors import ConfigurationError
from flask_chest.extension.conditions import Asked, parse_condition, written
from flask_chest.record import (
    Bound,
    Condition,
    IsSet,
    JSONValue,
    OneOf,
    ge,
    gt,
    is_set,
    le,
    lt,
    one_of,
    same_value,
)
from json_values import json_values


@pytest.mark.parametrize(
    ("text", "name", "asked"),
    [
        ("user_id=7", "user_id", 7),
        ("user_id = 7.0 ", "user_id", 7.0),
        ('user_id="7"', "user_id", "7"),
        ("plan=pro", "plan", "pro"),
        ("plan=", "plan", ""),
        ("beta=true", "beta", True),
        ("coupon=null", "coupon", None),
        ("share=NaN", "share", "NaN"),
        ("phone=0049", "phone", "0049"),
        ('cart=[1, {"a": null}]', "cart", [1, {"a": None}]),
        ("price>=100", "price", ge(100)),
        ("price > 99.5", "price", gt(99.5)),
        ("price<=-1e3", "price", le(-1000.0)),
        ("day<2026-11-23", "day", lt("2026-11-23")),
        ('version<"10"', "version", lt("10")),
        ("plan in pro,free", "plan", one_of("pro", "free")),
        ("user_id in 7", "user_id", one_of(7)),
        ('x in 7, "7" ,7.0,null,[1,2],two words', "x", one_of(7, "7", 7.0, None, [1, 2], "two words")),
        ('plan in "a,b",c', "plan", one_of("a,b", "c")),
        ('plan in say "a",c', "plan", one_of('say "a"', "c")),
        ("user_id is set", "user_id", is_set()),
        ("user_id  is  set ", "user_id", is_set()),
    ],
)
def test_condition_means_what_it_says(text: str, name: str, asked: Asked) -> None:
    found, meant = parse_condition(text)
    assert found == name
    assert_same(meant, asked)


@pytest.mark.parametrize(
    ("text", "name", "asked"),
    [
        ('note="a>=b"', "note", "a>=b"),
        ("note=a>=b", "note", "a>=b"),
        ("note=plan in pro", "note", "plan in pro"),
        ("note=it is set", "note", "it is set"),
        ("plan in a=b,c", "plan", one_of("a=b", "c")),
        ("it is set=1", "it is set", 1),
        ("in=1", "in", 1),
        ("inside=1", "inside", 1),
    ],
)
def test_first_operator_ends_the_name_and_the_rest_is_the_value(text: str, name: str, asked: Asked) -> None:
    assert parse_condition(text) == (name, asked)


@pytest.mark.parametrize("name", ["a=b", "a in b", "a is set", "<", "", " a ", '"', "a!", "it is not", "\n", "é"])
def test_any_name_can_be_quoted(name: str) -> None:
    for asked in (1, gt(1), one_of(1), is_set()):
        assert parse_condition(written(name, asked)) == (name, asked)


texts = st.text(st.characters(exclude_categories=["Cs"])) | st.text(' "=<>!,[]()inotse', max_size=8)
asked_for = st.one_of(
    json_values,
    st.builds(
        Bound,
        st.sampled_from(["gt", "ge", "lt", "le"]),
        st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    ),
    st.lists(json_values, min_size=2).map(lambda values: one_of(*values)),
    st.just(is_set()),
)


@pytest.mark.slow
@given(texts, asked_for)
def test_everything_can_be_asked_for(name: str, asked: Asked) -> None:
    found, meant = parse_condition(written(name, asked))
    assert found == name
    assert_same(meant, asked)


@given(texts)
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        name, asked = parse_condition(text)
    except ConfigurationError:
        return
    assert parse_condition(written(name, asked)) == (name, asked)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "user_id",
            "'user_id' must be a condition on a variable, as user_id=7, 'price>=100', 'plan in pro,free'",
        ),
        ("=7", "'=7' must be a condition on a variable"),
        ("plan in", "'plan in' must be a condition on a variable"),
        ("plan is not set", "'plan is not set' must be a condition on a variable"),
        (
            "plan==pro",
            'the operators are = > >= < <= in, is set; if the value is the text =pro, write it as "=pro"',
        ),
        ("price=>7", "the operators are = > >= < <= in, is set"),
        ("price<>7", "the operators are = > >= < <= in, is set"),
        ("plan!=pro", 'no operator says not; if plan! is the name, write it as "plan!"'),
        ("plan not in pro", 'no operator says not; if plan not is the name, write it as "plan not"'),
        ("price>=true", "'price>=true' must compare with a finite number or a text"),
        ("price>=1e999", "'price>=1e999' must compare with a finite number or a text"),
        ("price>", "'price>' must compare with a finite number or a text"),
        ('"a=1', "begins with a quotation mark, so its name must be a string of JSON, as in '\"a=b\"=7'"),
        ('"a"', "'\"a\"' must be a condition on a variable"),
        ("plan in pro,,free", "a text that is empty, begins with a quotation mark or holds a comma"),
        ('plan in "pro,free', "a text that is empty, begins with a quotation mark or holds a comma"),
        ("plan in (pro,free)", "must list its values without brackets, as in 'plan in pro,free'"),
        (
            "plan in [1,2]",
            "as in 'plan in pro,free'; an array as the one value is asked for by =[1,2]",
        ),
    ],
)
def test_what_means_nothing_or_two_things_is_refused_with_the_way_out(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_condition(text)
    assert message in str(refused.value)


def assert_same(left: Asked, right: Asked) -> None:
    assert isinstance(left, Condition) == isinstance(right, Condition)
    assert same_value(_comparable(left), _comparable(right))


def _comparable(asked: Asked) -> JSONValue:
    if isinstance(asked, Bound):
        return [asked.operator, asked.value]
    if isinstance(asked, OneOf):
        return list(asked.values)
    return "is set" if isinstance(asked, IsSet) else asked


def test_long_run_of_spaces_is_read_once() -> None:
    # Looked at from each of its spaces, it would take hours.
    with pytest.raises(ConfigurationError, match="must be a condition on a variable"):
        parse_condition(f"plan{' ' * 1_000_000}pro")
