"""Names of a test's cases that are the same in every process that collects it."""

from __future__ import annotations


def steady(value: object) -> str:
    """Return *value* as it is written, sets in an order, and views without their address."""
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}({', '.join(sorted(map(repr, value)))})"
    if isinstance(value, memoryview):
        return f"memoryview({bytes(value)!r})"
    return repr(value)
