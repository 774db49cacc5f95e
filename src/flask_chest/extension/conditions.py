"""What is asked of a variable, as text: what ``--where`` takes, and the viewer's addresses.

A condition is the name of a variable, then an operator, then what the operator compares with::

    user_id=7              it is this value, also of this type; so are plan=pro, note="a>=b" and tags=["new"]
    price>=100             it is 100 or more; so do > < <=, for numbers, and for texts by code points
    plan in pro,free       it is one of these values
    user_id is set         it is there, whatever its value

A name is all that stands before the first operator, without the spaces around it. One that holds an operator or
begins with a quotation mark is written as a string of JSON: ``"a=b"=7``. All that follows is the value: JSON
where it is JSON, and otherwise a text, without the spaces around it. A text that would be read as something else
is written as a string of JSON, and so is an item of a list that holds a comma: ``plan in "a,b",c``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeAlias

from flask_chest.errors import ConfigurationError
from flask_chest.record import (
    Bound,
    Condition,
    IsSet,
    JSONValue,
    OneOf,
    ge,
    gt,
    is_number,
    is_set,
    is_too_deep,
    le,
    lt,
    one_of,
)

Asked: TypeAlias = JSONValue | Condition
"""What a variable is asked for: its exact value, or a condition."""

_OPERATOR = re.compile(r"(?<!\s)(?:\s*(>=|<=|>|<|=)|\s+(in)\s+|\s+(is\s+set)\s*$)")
"""Looked for from the beginning of a run of spaces alone: from each of them it takes time by the run's square."""
_NOT_READ = (ValueError, RecursionError)
"""What is raised by a text that is no JSON, or nested deeper than any value of a record."""
_BOUNDS: Mapping[str, Callable[[float | str], Condition]] = {">": gt, ">=": ge, "<": lt, "<=": le}
_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_NEGATED = re.compile(r"(!|\snot)$")
_MISTAKEN = ("=", "<", ">")
"""Beginnings of a value that make another operator of the one before it, as in ``==`` and ``=>``."""


def parse_condition(text: str) -> tuple[str, Asked]:
    """Read a variable and what it is asked for, as this module describes; raise `ConfigurationError`."""
    name, found = _name_and_operator(text.strip())
    value = found.string[found.end() :].strip()
    sign, is_list, _ = found.groups()
    if is_list:
        return name, one_of(*_items(value, text))
    if not sign:
        return name, is_set()
    if value.startswith(_MISTAKEN):
        raise ConfigurationError(
            f"{text!r}: the operators are = > >= < <= in, is set; "
            f"if the value is the text {value}, write it as {_encoded(value)}"
        )
    return name, _value(value) if sign == "=" else _bound(sign, value, text)


def written(name: str, asked: Asked) -> str:
    """Write what `parse_condition` reads as *name* and *asked*."""
    lead = name if _is_plain(name) else _encoded(name)
    if isinstance(asked, Bound):
        return f"{lead}{_SIGNS[asked.operator]}{_encoded(asked.value)}"
    if isinstance(asked, OneOf):
        return f"{lead} in {','.join(map(_encoded, asked.values))}"
    if isinstance(asked, IsSet):
        return f"{lead} is set"
    return f"{lead}={_encoded(asked)}"


def _is_plain(name: str) -> bool:
    if name != name.strip() or name.startswith('"') or _NEGATED.search(name):
        return False
    found = _OPERATOR.search(f"{name} in ")
    return name != "" and found is not None and found.start() == len(name)


def _name_and_operator(text: str) -> tuple[str, re.Match[str]]:
    if text.startswith('"'):
        try:
            name, end = _decoder.raw_decode(text)
        except ValueError:
            raise ConfigurationError(
                f"{text!r} begins with a quotation mark, so its name must be a string of JSON, as in '\"a=b\"=7'"
            ) from None
        if (found := _OPERATOR.match(text, end)) is not None:
            return name, found
    elif (found := _OPERATOR.search(text)) is not None and (name := text[: found.start()]):
        if _NEGATED.search(name):
            raise ConfigurationError(
                f"{text!r}: no operator says not; if {name} is the name, write it as {_encoded(name)}"
            )
        return name, found
    raise ConfigurationError(
        f"{text!r} must be a condition on a variable, as user_id=7, 'price>=100', 'plan in pro,free' "
        "or 'user_id is set'"
    )


def _bound(sign: str, value: str, text: str) -> Condition:
    read = _value(value)
    if value and (is_number(read) or isinstance(read, str)):
        with suppress(ConfigurationError):  # of 1e999
            return _BOUNDS[sign](read)
    raise ConfigurationError(
        f"{text!r} must compare with a finite number or a text; a text that looks like JSON is quoted: '\"true\"'"
    )


def _items(value: str, text: str) -> list[JSONValue]:
    """Return the values of a list, which commas separate."""
    items: list[JSONValue] = []
    comma, rest = ",", value
    while comma:
        item, comma, rest = _first(rest.strip(), text)
        items.append(item)
    is_array = len(items) == 1 and isinstance(items[0], list)
    if is_array or (value.startswith("(") and value.endswith(")")):
        raise ConfigurationError(
            f"{text!r} must list its values without brackets, as in 'plan in pro,free'"
            + (f"; an array as the one value is asked for by ={value}" if is_array else "")
        )
    return items


def _first(items: str, text: str) -> tuple[JSONValue, str, str]:
    """Return the first item, the comma behind it if one is there, and what follows."""
    with suppress(*_NOT_READ):
        item, end = _raw_decoded(items)
        rest = items[end:].lstrip()
        if not rest or rest.startswith(","):
            return item, rest[:1], rest[1:]
    item, comma, rest = items.partition(",")
    if not item or item.startswith('"'):
        raise ConfigurationError(
            f"{text!r} must list values, as in 'plan in pro,free'; a text that is empty, begins with a quotation "
            "mark or holds a comma is written as a string of JSON"
        )
    return item.rstrip(), comma, rest


def _value(text: str) -> JSONValue:
    try:
        value, end = _raw_decoded(text)
    except _NOT_READ:
        return text
    return value if end == len(text) else text


def _raw_decoded(text: str) -> tuple[JSONValue, int]:
    """Return the value with which *text* begins, and where it ends; raise one of `_NOT_READ`."""
    value, end = _decoder.raw_decode(text)
    if is_too_deep(value):
        raise ValueError("it is nested too deeply")
    return value, end


def _encoded(value: JSONValue) -> str:
    return json.dumps(value, ensure_ascii=False)


def _refuse_constant(text: str) -> object:
    """Refuse ``NaN`` and the like, which are not JSON: they are texts."""
    raise ValueError(text)


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
