"""What may be given as an object, or as a callable that makes it in each process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from flask_chest.errors import ConfigurationError

T = TypeVar("T")


def is_made(given: object, method: str) -> bool:
    """Return whether *given* is an object with *method*; a class with it is a callable that makes one."""
    return not isinstance(given, type) and hasattr(given, method)


def maker_of(
    given: T | Callable[[], T], method: str, *, setting: str, kind: str, hint: str = ""
) -> Callable[[], T]:
    """Return a callable that returns *given*, an object with *method*, or *given* itself if it makes one.

    Raises `ConfigurationError` for anything else: *setting* must be a *kind*, and *hint* tells the way out.
    """
    if is_made(given, method):
        made = cast("T", given)
        return lambda: made
    if callable(given):
        return given  # pyright: ignore[reportReturnType] - it cannot tell that a callable T is not meant
    raise ConfigurationError(
        f"{setting} must be {kind} or a callable that makes one, got a {type(given).__name__}{hint}"
    )
