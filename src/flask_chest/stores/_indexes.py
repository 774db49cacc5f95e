"""Which variables can have an index."""

from __future__ import annotations

import re
from typing import LiteralString, TypeGuard

from flask_chest.errors import ConfigurationError

MAX_INDEXED_NAME = 63
"""Characters in the name of a variable that has an index."""

_INDEXABLE = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MAX_INDEXED_NAME - 1}}}")


def is_indexable(variable: str) -> TypeGuard[LiteralString]:
    """Return whether a variable of this name can have an index: such names need no quotes in any database."""
    return _INDEXABLE.fullmatch(variable) is not None


def check_indexable(variable: str) -> LiteralString:
    """Return the name *variable*; raise `ConfigurationError` if it cannot have an index."""
    if not is_indexable(variable):
        raise ConfigurationError(
            f"a variable with an index must be named by at most {MAX_INDEXED_NAME} ASCII letters, digits or _, "
            f"and not begin with a digit, got {variable!r}"
        )
    return variable
