"""What lies behind an error."""

from __future__ import annotations


def chain(error: BaseException | None) -> list[BaseException]:
    """Give *error*, its cause, the cause of that, and so on."""
    return [] if error is None else [error, *chain(error.__cause__)]
