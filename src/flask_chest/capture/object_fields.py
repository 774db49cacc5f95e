"""What an unknown object holds, read without running any of its code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from types import MemberDescriptorType

_MARKS = ("__mapper__", "__dataclass_fields__", "__attrs_attrs__", "__pydantic_complete__")


def fields(value: object, kind: type) -> Iterable[tuple[object, object]] | None:
    """List the fields of a dataclass, attrs or pydantic object of that *kind*; ``None`` for any other.

    Only what the instance holds is read: an attribute that a descriptor would have to fetch, such as a lazy
    database relation, is not there. Objects of SQLAlchemy are no values, whatever else they are.
    """
    marks = [mark for base in mro(kind) for mark in _MARKS if mark in _namespace(base)]
    return None if not marks or "__mapper__" in marks else _held(value, kind)


def tuple_fields(value: tuple[object, ...], kind: type) -> Iterable[tuple[object, object]] | None:
    """List the fields of a named tuple, also of C's as ``pwd.struct_passwd``; ``None`` for any other tuple."""
    for base in mro(kind):
        namespace = _namespace(base)
        names = namespace.get("_fields") or ("n_fields" in namespace and namespace.get("__match_args__"))
        if type(names) is tuple and len(names) == tuple.__len__(value):
            return zip(names, tuple.__iter__(value), strict=True)
    return None


def mro(kind: type) -> tuple[type, ...]:
    """Return the order in which *kind* inherits, by ``type``'s own look-up: a metaclass may replace it."""
    found: tuple[type, ...] = type.__getattribute__(kind, "__mro__")
    return found


def _held(value: object, kind: type) -> Iterator[tuple[object, object]]:
    for base in reversed(mro(kind)):
        for name, member in _namespace(base).items():
            if type(member) is MemberDescriptorType:
                with suppress(AttributeError):  # a slot may be empty
                    yield name, member.__get__(value)
    with suppress(AttributeError):  # an object with slots alone
        yield from dict.items(object.__getattribute__(value, "__dict__"))


def _namespace(kind: type) -> Mapping[str, object]:
    found: Mapping[str, object] = type.__getattribute__(kind, "__dict__")
    return found
