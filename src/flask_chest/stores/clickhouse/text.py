"""Values as text in a statement, and back: one function writes all that comes from outside."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ESCAPED = {"\\": "\\\\", "'": "\\'", "\0": "\\0"}
_TO_ESCAPE = re.compile(r"[\\'\0]")


def literal(value: str | float) -> str:
    """Return *value* as a constant; what is bound to a parameter may hold neither a tab nor the end of a line."""
    if isinstance(value, str):
        return f"'{_TO_ESCAPE.sub(lambda found: _ESCAPED[found[0]], value)}'"
    return repr(value)


def listed(values: Sequence[str | float]) -> str:
    """Return *values* as constants between commas."""
    return ", ".join(map(literal, values))


def quoted(name: str) -> str:
    """Return *name* as that of a table, a column or an index."""
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"
