"""Options that are lists, or one item in place of a list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import UnionType

from flask_chest.errors import ConfigurationError


def listed(value: object, item: type | UnionType, expected: str) -> Iterable[object]:
    """Return the items of *value*, or *value* itself as the only one if it is an *item*.

    Raises `ConfigurationError`, which says what was *expected*, for what is no list: bytes and mappings are none,
    though they can be iterated.
    """
    if isinstance(value, item):
        return (value,)
    if not isinstance(value, Iterable) or isinstance(value, bytes | Mapping):
        raise ConfigurationError(f"{expected}, got {value!r}")
    return value
