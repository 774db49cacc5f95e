"""Values that an app may leave on ``g``: of every built-in type, and with code of their own that raises."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import ClassVar, NoReturn
from unittest.mock import MagicMock, Mock

from hypothesis import strategies as st
from werkzeug.local import LocalProxy

from flask_chest.record import JSONValue


class Plan(Enum):
    FREE = "free"


@dataclass
class Point:
    x: int
    y: int
    _cache: int = 0


def unbound() -> NoReturn:
    raise RuntimeError("working outside of a context")


class Boom(Exception):
    """What a hostile object raises."""


def raises(*_args: object, **_options: object) -> NoReturn:
    raise Boom


HOSTILE_METHODS = (
    "__str__ __repr__ __eq__ __ne__ __lt__ __getattribute__ __getattr__ __setattr__ __iter__ __next__ __len__ "
    "__bool__ __getitem__ __contains__ __index__ __int__ __float__ __bytes__ __fspath__ __format__ __call__ "
    "__reduce_ex__ __copy__ __sizeof__ __buffer__ items keys values isoformat total_seconds encode decode "
    "startswith tobytes hex as_tuple"
).split()


def hostile_type(*bases: type, metaclass: type[type] = type) -> type:
    methods: dict[str, object] = dict.fromkeys(HOSTILE_METHODS, raises)
    methods |= {"__class__": property(raises), "__dict__": property(raises), "__hash__": object.__hash__}
    return metaclass("Hostile", bases, methods)


class HostileMeta(type):
    __getattribute__ = __getattr__ = __instancecheck__ = __subclasscheck__ = __eq__ = __repr__ = raises
    __hash__ = type.__hash__


def made(kind: type, *arguments: object) -> Callable[[], object]:
    return lambda: kind.__new__(kind, *arguments)


def filled_list() -> object:
    value = hostile_type(list)()
    list.append(value, 1)
    return value


def filled_dict() -> object:
    value = hostile_type(dict)()
    dict.__setitem__(value, "a", 1)
    return value


def filled_deque() -> object:
    value = hostile_type(deque)()
    deque.append(value, 1)
    return value


class MappedUser:
    """As SQLAlchemy leaves a mapped dataclass: reading a field may query."""

    __mapper__ = object()
    __dataclass_fields__: ClassVar[dict[str, object]] = {"name": None}

    def __init__(self) -> None:
        self.name = "Ada"


def hostile_dataclass() -> object:
    @dataclass(eq=False, repr=False, init=False)
    class Held:
        x: int

        __getattribute__ = __getattr__ = raises

    value = object.__new__(Held)
    object.__setattr__(value, "x", 1)
    return value


HOSTILE: dict[str, tuple[Callable[[], object], JSONValue]] = {
    "object": (made(hostile_type()), "Hostile"),
    "metaclass": (lambda: object.__new__(hostile_type(metaclass=HostileMeta)), "Hostile"),
    "str": (made(hostile_type(str), "abc"), "abc"),
    "int": (made(hostile_type(int), 7), 7),
    "float": (made(hostile_type(float), 1.5), 1.5),
    "bytes": (made(hostile_type(bytes), b"ab"), "YWI="),
    "decimal": (made(hostile_type(Decimal), "1.10"), "1.10"),
    "date": (made(hostile_type(date), 2024, 2, 29), "2024-02-29"),
    "timedelta": (made(hostile_type(timedelta), 0, 90), 90.0),
    "list": (filled_list, [1]),
    "tuple": (made(hostile_type(tuple), (1,)), [1]),
    "dict": (filled_dict, {"a": 1}),
    "deque": (filled_deque, [1]),
    "frozenset": (made(hostile_type(frozenset), (1,)), [1]),
    "dataclass": (hostile_dataclass, {"x": 1}),
    "mock of a dict": (lambda: Mock(spec=dict), "Mock"),
    "mock of a str": (lambda: MagicMock(spec=str), "MagicMock"),
    "mapped": (MappedUser, "MappedUser"),
    "class": (lambda: Point, "type"),
    "function": (lambda: raises, "function"),
}


hashables = st.deferred(
    lambda: (
        st.none()
        | st.booleans()
        | st.integers()
        | st.integers().map(lambda exponent: 10 ** (abs(exponent) % 6_000))
        | st.floats()
        | st.text(st.characters())
        | st.binary()
        | st.complex_numbers()
        | st.fractions()
        | st.decimals(allow_nan=False)
        | st.dates()
        | st.datetimes(timezones=st.none() | st.just(UTC) | st.just(timezone(timedelta(hours=-3, minutes=-30))))
        | st.times()
        | st.timedeltas()
        | st.uuids()
        | st.sampled_from([Plan.FREE, PurePosixPath("/a"), object(), range(3), ..., int])
    )
)
anything: st.SearchStrategy[object] = st.recursive(
    hashables
    | st.sampled_from([unbound]).map(LocalProxy)
    | st.sampled_from([Point(1, 2), Mock(spec=dict), bytearray(b"x"), Decimal("sNaN")]),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.lists(inner, max_size=5).map(deque)
        | st.dictionaries(hashables, inner, max_size=5)
        | st.dictionaries(hashables, inner, max_size=5).map(MappingProxyType)
        | st.sets(hashables, max_size=5)
        | st.frozensets(hashables, max_size=5)
    ),
    max_leaves=30,
)
